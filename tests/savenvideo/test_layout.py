"""Windows and token counts: every frame and column in exactly one window, and as many tokens as the model makes."""

import kinds
import pytest
import torch
from batches import dated, num_tokens
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import SPEECH, join_media, tiny_model, video_media

from saven_hf.savenvideo.layout import NO_TIME, TokenLayout, audio_column_times


SECOND = 1_000_000
times = st.integers(-SECOND // 20, 12 * SECOND)
layouts = st.builds(
    TokenLayout,
    window_seconds=st.none() | st.sampled_from([0.3, 1, 2.5, 4.0, 60.0]),
    window_frames=st.none() | st.integers(1, 5),
)
durations = st.integers(1, 10 * SECOND)


def plan_of(layout, frames, columns, duration):
    """The plan, after the checks that hold for any medium."""
    windows = layout.plan(frames, columns, duration)
    assert sorted(index for window in windows for index in window.frames) == list(range(len(frames)))
    assert sorted(index for window in windows for index in window.columns) == list(range(len(columns)))
    assert all(window.frames or window.columns for window in windows)
    if layout.window_frames is not None:
        assert all(len(window.frames) <= layout.window_frames for window in windows)
    return windows


@settings(max_examples=300, deadline=None)
@given(layouts, st.lists(times, unique=True, max_size=20), st.lists(times, unique=True, max_size=20), durations)
@example(TokenLayout(window_seconds=None, window_frames=1), [0, 1, 2], [], 1)
@example(TokenLayout(window_seconds=0.3), [249_999, 250_000], [500_000, 750_000], 1_000_001)  # times on rounded edges
def test_dated_media_are_cut_into_disjoint_ascending_windows(layout, frames, columns, duration):
    windows = plan_of(layout, frames, columns, duration)
    for left, right in zip(windows, windows[1:], strict=False):
        assert left.end <= right.start
    for window in windows:
        assert window.timed and window.start < window.end
        if layout.window_seconds is not None:
            beyond = max(0, -window.start) + max(0, window.end - duration)
            assert window.end - window.start - beyond <= layout.window_seconds * 1e6 + 1
        for time in [frames[index] for index in window.frames] + [columns[index] for index in window.columns]:
            assert window.start <= time < window.end


@settings(max_examples=100, deadline=None)
@given(layouts, st.lists(times, unique=True, min_size=1, max_size=12), durations, st.randoms(use_true_random=False))
def test_the_order_in_which_frames_are_handed_over_does_not_matter(layout, frames, duration, random):
    shuffled = random.sample(frames, len(frames))
    found = [
        [(w.start, w.end, sorted(order[index] for index in w.frames)) for w in plan_of(layout, order, [], duration)]
        for order in (frames, shuffled)
    ]
    assert found[0] == found[1]


@settings(max_examples=100, deadline=None)
@given(layouts, st.lists(times | st.just(NO_TIME), min_size=1, max_size=20), st.integers(0, 20))
def test_one_undated_frame_makes_the_medium_undated(layout, frames, num_columns):
    frames[len(frames) // 2] = NO_TIME
    windows = plan_of(layout, frames, [160_000 * index for index in range(num_columns)], 10 * SECOND)
    assert not any(window.timed for window in windows)
    # By rank: in the order of storage, in parts that differ by one at most.
    assert [index for window in windows for index in window.frames] == list(range(len(frames)))
    assert [index for window in windows for index in window.columns] == list(range(num_columns))
    assert len(windows) == (1 if layout.window_frames is None else -(-len(frames) // layout.window_frames))
    sizes = [len(window.frames) for window in windows]
    assert max(sizes) - min(sizes) <= 1


def test_windows_are_equal_parts_of_the_duration():
    windows = TokenLayout(window_seconds=60.0).plan(range(0, 150 * SECOND, SECOND), [], 150 * SECOND)
    assert [(window.start, window.end) for window in windows] == [
        (0, 50 * SECOND),
        (50 * SECOND, 100 * SECOND),
        (100 * SECOND, 150 * SECOND),
    ]


def test_what_lies_beyond_the_stated_duration_stretches_the_outer_windows():
    layout = TokenLayout(window_seconds=60.0, window_frames=2)
    # One window of 60 s, not a second one for the 160 ms that the last column of sound hangs over.
    (window,) = layout.plan([0, 59 * SECOND], [-20_000, 60 * SECOND + 70_000], 60 * SECOND)
    assert (window.start, window.end) == (-20_000, 60 * SECOND + 70_001)
    # A file that says it lasts 1 s and goes on for 5: every frame still lies within its window.
    windows = layout.plan([SECOND * index for index in range(5)], [], SECOND)
    found = [(window.start, window.end) for window in windows]
    assert found == [(0, 500_001), (500_001, 2_500_001), (2_500_001, 4_000_001)]


def test_a_window_with_too_many_frames_is_cut_between_frames():
    frames = [0, 1, 2, 3, 4]
    windows = TokenLayout(window_seconds=None, window_frames=2).plan([t * SECOND for t in frames], [], 5 * SECOND)
    assert [window.frames for window in windows] == [[0], [1, 2], [3, 4]]
    assert windows[0].start == 0 and windows[-1].end == 5 * SECOND
    assert 0 < windows[0].end <= SECOND and 2 * SECOND < windows[1].end <= 3 * SECOND


def test_an_empty_stretch_costs_nothing():
    layout = TokenLayout(window_seconds=1.0, queries_per_window=7)
    assert len(layout.plan([500_000, 8_500_000], [], 9 * SECOND)) == 2
    assert layout.num_tokens([500_000, 8_500_000], [], 9 * SECOND, num_query_times=3) == 2 * 7 + 3
    assert layout.plan([], [], 9 * SECOND) == []


def test_an_unknown_duration_reaches_to_the_last_time():
    windows = TokenLayout(window_seconds=1.0).plan([0, 1_500_000], [], 0)
    assert [(window.start, window.end, window.frames) for window in windows] == [
        (0, 750_000, [0]),
        (750_000, 1_500_001, [1]),
    ]


def test_audio_columns_are_dated_by_their_centre():
    # Windows of 62 patches (992 fbank frames) tile a track: the columns stay 160 ms apart over the seam.
    columns = audio_column_times([0, 9_920_000, 19_840_000], [992, 992, 47])
    assert len(columns) == 62 + 62 + 2
    assert columns[0] == 87_500
    assert {after - before for before, after in zip(columns, columns[1:], strict=False)} == {160_000}
    assert audio_column_times([NO_TIME, -20_000], [16, 32]) == [NO_TIME, 67_500, 227_500]
    with pytest.raises(ValueError, match="2 window start times for 1 audio windows"):
        audio_column_times([0, 1], [16])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resampler_type": "perceiver"}, "perceiver"),
        ({"window_seconds": 0.0}, "window_seconds must be above 0, got 0.0"),
        ({"window_frames": -1}, "window_frames must be above 0, got -1"),
        ({"queries_per_window": None}, "queries_per_window must be above 0, got None"),
    ],
)
def test_bad_numbers_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        TokenLayout(**settings)


def test_the_layout_survives_its_dict():
    layout = TokenLayout(resampler_type="mlp", window_seconds=None, time_tokens=False)
    assert TokenLayout(**layout.to_dict()) == layout


KINDS = {
    **kinds.KINDS,
    "add": {"time_fusion": "add"},
    "literal": {"resampler_attention": "literal"},
    "mlp without time tokens": {"resampler_type": "mlp", "time_fusion": "add"},
    "mlp with speech": {"resampler_type": "mlp", "speech_config": SPEECH},
}
MODELS = {}
frame_seconds = st.lists(st.floats(0, 12).map(lambda time: round(time, 2)) | st.none(), unique=True, max_size=9)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(
    frames=frame_seconds,
    sound=st.sampled_from([0, 0.5, 4.0, 11.0]),
    undated_sound=st.booleans(),
    duration=st.sampled_from([0, 7.0, 12.0]),
    num_questions=st.integers(0, 3),
)
def test_the_layout_counts_what_the_model_makes(kind, frames, sound, undated_sound, duration, num_questions):
    if kind not in MODELS:
        MODELS[kind] = tiny_model(**{"window_frames": 3, **KINDS[kind]})
    model = MODELS[kind]
    medium = video_media(
        frames, sound, duration, questions=[1.0] * num_questions, speech="speech_config" in KINDS[kind]
    )
    if undated_sound and sound:
        for name in medium.keys() & {"audio_times", "speech_times"}:
            medium[name].fill_(NO_TIME)
    if not any(dated(medium)):
        with pytest.raises(ValueError, match="Medium 0 of 1 has neither a valid frame nor valid sound"):
            model.get_video_features(**medium)
        return
    other = video_media((1.0,), 0, 2.0)
    with torch.no_grad():
        tokens = model.get_video_features(**join_media(other, medium)).pooler_output
    assert [len(part) for part in tokens] == [num_tokens(model, other), num_tokens(model, medium)]


def test_an_absurd_duration_costs_nothing():
    layout = TokenLayout(window_seconds=1.0, queries_per_window=4, patches_per_frame=4)
    assert layout.num_tokens([0, 10**18], [], 10**18, 0) == 2 * 4
