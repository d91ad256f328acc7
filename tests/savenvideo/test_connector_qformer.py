"""The causal Q-Former: the published formulas, what is causal about it, and masks where there is nothing."""

import pytest
import torch
from batches import gap, inputs_for, logits_of
from restated_qformer import connector_state, published_state_dict, restated_connector
from tiny import PUBLISHED_QFORMER, QFORMER, SPEECH, tiny_config, tiny_model, video_media

from saven_hf.savenvideo.connector_base import PICTURE, SOUND, WindowIndex
from saven_hf.savenvideo.connector_qformer import diversity_loss
from saven_hf.savenvideo.layout import NO_TIME, TokenLayout, steps_per_window


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


# The released configuration at tiny width: windows of 5 s, 10 steps of 32 rows, 2 queries a step at both resolutions.
RELEASED = {**PUBLISHED_QFORMER, "window_seconds": 5.0, "qformer_rows": 32, "queries_per_window": 20}


def released_model(state, vision_size=24, **settings):
    """Our connector with the published weights; its picture is as wide as the Q-Former."""
    vision = {**tiny_config().vision_config.to_dict(), "hidden_size": vision_size}
    model = tiny_model(**{**RELEASED, "vision_config": vision, **settings})
    missing, unexpected = model.model.resampler.load_state_dict(connector_state(state, 320, vision_size), strict=False)
    assert not unexpected and not missing
    return model


def tower_outputs(frames, whisper_tokens, beats_tokens, seed=0, patches=32, vision_size=24):
    """Picture at 2 frames a second, and both kinds of sound at 50 tokens a second, as our towers lay them out."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "picture": torch.randn(frames, patches, vision_size, generator=generator),
        "frame_times": torch.arange(frames) * 500_000 + 250_000,
        "sound": torch.randn(beats_tokens // 8, 8, 16, generator=generator),
        "column_times": torch.arange(beats_tokens // 8) * 160_000 + 87_500,
        "speech": torch.randn(whisper_tokens // 5, 5, 20, generator=generator),
        "speech_times": torch.arange(whisper_tokens // 5) * 100_000 + 50_000,
    }


def window_tokens(model, outputs, duration=0):
    """Tokens of one medium by the connector, windows planned by the layout."""
    layout, resampler = model.model.layout, model.model.resampler
    times = [outputs[name].tolist() for name in ("frame_times", "column_times", "speech_times")]
    windows = layout.plan(times[0], times[1], duration, times[2])
    index = WindowIndex.build(windows, [duration] * len(windows), [0] * len(windows), "cpu")

    def tlp(times, durations):
        return model.model.temporal_projection(times, durations)

    output = resampler(tlp=tlp, windows=index, **outputs)
    return torch.stack(output.window_tokens) if output.window_tokens else None


def qformer_model(scale=0.3, seed=0, **settings):
    """A tiny model of QFORMER whose connector's weights are so large that every term counts."""
    model = tiny_model(**{**QFORMER, **settings})
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.model.resampler.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


class TestPublished:
    @pytest.mark.parametrize(
        ("direction", "causal", "implementation"), [("future", "triu", "sdpa"), ("past", "tril", "eager")]
    )
    @pytest.mark.parametrize(
        ("frames", "whisper_tokens", "beats_tokens"),
        [(10, 250, 248), (14, 1500, 1496), (23, 250, 200), (3, 100, 40)],
        ids=["one window", "whole 30 s of Whisper", "picture longer than sound", "a short clip"],
    )
    def test_tokens_are_the_published_formulas(
        self, frames, whisper_tokens, beats_tokens, direction, causal, implementation
    ):
        state = published_state_dict()
        model = released_model(state, qformer_direction=direction)
        model.set_attn_implementation(implementation)
        outputs = tower_outputs(frames, whisper_tokens, beats_tokens)
        expected = restated_connector(
            state,
            outputs["picture"],
            outputs["speech"].flatten(0, 1),
            outputs["sound"].flatten(0, 1),
            4,
            causal=causal,
        )
        found = window_tokens(model, outputs).flatten(0, 1)
        assert found.shape == expected.shape
        assert gap(found, expected) < 1e-4
        # The test can fail: the other direction says something else.
        other = released_model(state, qformer_direction="past" if direction == "future" else "future")
        assert gap(window_tokens(other, outputs).flatten(0, 1), expected) > 1e-2

    def test_logits_are_those_of_the_language_model_on_the_published_tokens(self):
        """From the media to the logits: towers and language model as they are, all between restated."""
        state = published_state_dict()
        model = released_model(state)
        # 4 s of sound are 25 columns of BEATs, in one window here, and 40 of Whisper, in two.
        medium = video_media([0.25 + 0.5 * step for step in range(7)], 4.0, 4.0, speech=True)
        medium["input_features"] = torch.randn(1, 1, 400, 128)
        medium["input_features_mask"] = torch.ones(1, 1, 400, dtype=torch.bool)
        medium["audio_times"] = torch.zeros(1, 1, dtype=torch.int64)
        inputs = inputs_for(model, [medium])
        inner = model.model
        pixels = (medium["pixel_values_videos"][0].float() / 255 - 0.5) / 0.5
        picture = inner.vision_tower(pixel_values=pixels).last_hidden_state
        picture = torch.cat([picture, torch.zeros(7, 28, 24)], 1)
        beats = inner.audio_tower(medium["input_features"][0], medium["input_features_mask"][0]).last_hidden_state[0]
        whisper = inner.speech_tower(medium["speech_features"][0].transpose(1, 2)).last_hidden_state.flatten(0, 1)
        assert len(whisper) == len(beats) == 200
        tokens = restated_connector(state, picture, whisper, beats, 4)
        embeds = inner.get_input_embeddings()(inputs["input_ids"])
        where = inputs["input_ids"] == model.config.video_token_id
        assert int(where.sum()) == len(tokens) == 20
        embeds[where] = tokens.float()
        expected = model.lm_head(inner.language_model(inputs_embeds=embeds).last_hidden_state)
        found = model(**inputs).logits
        assert gap(found, expected) < 1e-4

    def test_heads_and_sizes_may_be_others(self):
        state = published_state_dict(size=32, layers=1, ffn=40, queries=10, low_queries=1)
        settings = {"resampler_hidden_size": 32, "resampler_heads": 8, "resampler_layers": 1}
        settings |= {"resampler_intermediate_size": 40, "queries_per_window": 10}
        model = released_model(state, vision_size=32, **settings)
        outputs = tower_outputs(10, 500, 496, vision_size=32)
        expected = restated_connector(
            state, outputs["picture"], outputs["speech"].flatten(0, 1), outputs["sound"].flatten(0, 1), 8
        )
        assert gap(window_tokens(model, outputs).flatten(0, 1), expected) < 1e-4

    def test_it_knows_no_time(self):
        with pytest.raises(ValueError, match="knows no time"):
            tiny_config(**{**PUBLISHED_QFORMER, "time_fusion": "add"})


def media_of_ten_seconds(seed=0):
    return tower_outputs(20, 500, 496, seed, patches=4, vision_size=16)


class TestCausality:
    @pytest.mark.parametrize(
        "settings", [{}, {"qformer_low_steps": None}, {"qformer_low_steps": 2}, {"time_fusion": "add"}], ids=str
    )
    def test_what_comes_later_changes_nothing_before_it(self, settings):
        """Bit for bit, token by token: also within the window of the change."""
        model = qformer_model(**settings)
        outputs = media_of_ten_seconds()
        before = window_tokens(model, outputs, 10_000_000).flatten(0, 1)
        changed = {name: value.clone() for name, value in outputs.items()}
        at = 5_200_000
        for states, times in (("picture", "frame_times"), ("sound", "column_times"), ("speech", "speech_times")):
            later = outputs[times] >= at
            changed[states][later] += 1.0
        after = window_tokens(model, changed, 10_000_000).flatten(0, 1)
        # 4 queries in a window of 2 s: one a step of half a second; the change is in the 11th.
        assert torch.equal(before[:10], after[:10])
        assert (before[10:] - after[10:]).abs().amax(-1).gt(1e-3).all()

    @pytest.mark.parametrize("direction", ["past", "future", "both"])
    def test_published_queries_read_all_of_their_window_and_none_of_the_next(self, direction):
        model = qformer_model(qformer_causal_queries=False, qformer_direction=direction)
        outputs = media_of_ten_seconds()
        before = window_tokens(model, outputs, 10_000_000)
        outputs["picture"][11:] += 1.0  # from 5.5 s on, in the third window of 2 s
        after = window_tokens(model, outputs, 10_000_000)
        assert torch.equal(before[:2], after[:2])
        assert (before[2:] - after[2:]).abs().amax((1, 2)).gt(1e-3).all()

    def test_the_other_direction_is_the_mirror(self):
        model = qformer_model(qformer_direction="future")
        outputs = media_of_ten_seconds()
        before = window_tokens(model, outputs, 10_000_000).flatten(0, 1)
        outputs["picture"][:11] += 1.0
        after = window_tokens(model, outputs, 10_000_000).flatten(0, 1)
        assert torch.equal(before[11:], after[11:])
        assert (before[:11] - after[:11]).abs().amax(-1).gt(1e-3).all()

    def test_both_resolutions_count(self):
        outputs = media_of_ten_seconds()
        two = qformer_model()
        before = window_tokens(two, outputs, 10_000_000)
        two.model.resampler.low_queries.add_(torch.linspace(-1, 1, 24))
        assert gap(before, window_tokens(two, outputs, 10_000_000)) > 1e-2
        assert two.model.resampler.low_queries.shape == (1, 24)
        assert qformer_model(qformer_low_steps=None).model.resampler.output_projection.in_features == 24


class TestMasks:
    def test_an_absent_modality_has_no_part_in_anything(self):
        """Not even its channels: with other weights for them, what is said is the same."""
        for names, blocks in ((("sound", "speech"), (1, 2)), (("picture",), (0,))):
            model = qformer_model(time_fusion="add")
            outputs = media_of_ten_seconds()
            for name in names:
                times = {"sound": "column_times", "speech": "speech_times", "picture": "frame_times"}[name]
                outputs[name], outputs[times] = outputs[name][:0], outputs[times][:0]
            before = window_tokens(model, outputs, 10_000_000)
            resampler = model.model.resampler
            for block in blocks:
                channels = slice(block * 24, block * 24 + 24)
                resampler.row_norm.weight[channels] += 3.0
                resampler.row_norm.bias[channels] += 3.0
                resampler.row_position[:, channels] += 3.0
            assert torch.equal(before, window_tokens(model, outputs, 10_000_000))

    def test_zeros_are_not_the_same_as_nothing(self):
        model = qformer_model()
        outputs = media_of_ten_seconds()
        silent = {
            **outputs,
            "sound": torch.zeros_like(outputs["sound"]),
            "speech": torch.zeros_like(outputs["speech"]),
        }
        absent = {**outputs}
        for name in ("sound", "column_times", "speech", "speech_times"):
            absent[name] = outputs[name][:0]
        assert gap(window_tokens(model, silent, 10_000_000), window_tokens(model, absent, 10_000_000)) > 1e-2

    def test_every_modality_counts(self):
        model = qformer_model()
        full = window_tokens(model, media_of_ten_seconds(), 10_000_000)
        for name in ("picture", "sound", "speech"):
            outputs = media_of_ten_seconds()
            outputs[name] += 1.0
            assert gap(full, window_tokens(model, outputs, 10_000_000)) > 1e-2, name

    def test_permuting_tokens_together_with_their_times_changes_nothing(self):
        model = qformer_model()
        outputs = media_of_ten_seconds()
        before = window_tokens(model, outputs, 10_000_000)
        for states, times in (("picture", "frame_times"), ("sound", "column_times"), ("speech", "speech_times")):
            order = torch.randperm(len(outputs[times]), generator=torch.Generator().manual_seed(1))
            outputs[states], outputs[times] = outputs[states][order], outputs[times][order]
        assert gap(before, window_tokens(model, outputs, 10_000_000)) < 1e-5


class TestRows:
    """Which token lies in which row."""

    def rows(self, outputs, **settings):
        model = tiny_model(**{**QFORMER, "qformer_rows": 32, **settings})
        resampler = model.model.resampler
        times = [outputs[name].tolist() for name in ("frame_times", "column_times", "speech_times")]
        windows = model.model.layout.plan(times[0], times[1], 0, times[2])
        index = WindowIndex.build(windows, [0] * len(windows), [0] * len(windows), "cpu")
        return resampler, index, windows

    @pytest.mark.parametrize("fps", [1.0, 2.0, 3.7])
    def test_frames_and_columns_lie_in_the_step_of_their_time(self, fps):
        outputs = tower_outputs(int(10 * fps), 500, 496, patches=4, vision_size=16)
        outputs["frame_times"] = ((torch.arange(int(10 * fps)) + 0.5) / fps * 1e6).long()
        resampler, index, windows = self.rows(outputs)
        for modality, of_window, times, count in (
            (PICTURE, index.frames, outputs["frame_times"], 4),
            (SOUND, index.columns, outputs["column_times"], 8),
        ):
            unit, target = resampler._targets(modality, of_window, times, count, index)
            assert sorted(unit.tolist()) == list(range(len(times) * count))  # nothing is lost
            steps = target // 32
            dates = times[unit // count]
            expected = dates // 500_000
            assert torch.equal(steps, expected)
            assert len(set(target.tolist())) == len(target)  # and nothing shares a row

    def test_more_than_a_step_holds_is_averaged(self):
        model = qformer_model(qformer_rows=9, time_fusion="none", query_anchors=False, question_times="none")
        outputs = media_of_ten_seconds()
        # 5 frames in a step that holds 2 of them (4 rows each).
        outputs["frame_times"] = torch.tensor([10_000, 110_000, 210_000, 310_000, 410_000])
        outputs["picture"] = outputs["picture"][:5]
        resampler = model.model.resampler
        index = torch.arange(5)[None]
        windows = WindowIndex.build(model.model.layout.plan(outputs["frame_times"].tolist(), [], 0), [0], [0], "cpu")
        unit, target = resampler._targets(PICTURE, index, outputs["frame_times"], 4, windows)
        assert target.view(5, 4)[:, 0].tolist() == [0, 0, 0, 4, 4]
        assert torch.equal(unit, torch.arange(20))

    def test_a_large_picture_is_averaged_to_a_grid(self):
        model = tiny_model(**{**QFORMER, "qformer_rows": 11})
        picture = torch.arange(36.0).view(1, 36, 1)
        found = model.model.resampler._fit(picture)
        expected = picture.view(3, 2, 3, 2).transpose(1, 2).reshape(9, 4).mean(-1)
        assert torch.equal(found[0, :, 0], expected)


def test_windows_are_of_one_length():
    layout = TokenLayout(resampler_type="causal_qformer", window_seconds=5.0, queries_per_window=30)
    frames = [250_000 + 500_000 * index for index in range(26)]
    windows = layout.plan(frames, [], 13_000_000)
    assert [(window.start, window.end) for window in windows] == [
        (0, 5_000_000),
        (5_000_000, 10_000_000),
        (10_000_000, 15_000_000),
    ]
    assert [len(window.frames) for window in windows] == [10, 10, 6]
    # Silence that completes the last column of sound opens no window of its own; sound that really goes on does.
    columns = [87_500 + 160_000 * index for index in range(32)]
    assert len(layout.plan(frames[:10], columns, 5_000_000)) == 1
    assert len(layout.plan(frames[:10], [*columns, columns[-1] + 160_000], 5_000_000)) == 2
    undated = layout.plan([NO_TIME] * 26, [], 0)
    assert [len(window.frames) for window in undated] == [8, 9, 9]


def test_the_released_configuration_costs_six_tokens_a_second():
    layout = TokenLayout(resampler_type="causal_qformer", window_seconds=5.0, queries_per_window=30)
    frames = [250_000 + 500_000 * index for index in range(7200)]
    assert layout.num_tokens(frames, [], 3_600_000_000, 0) == 6 * 3600


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_seconds": 1.9}, r"window_seconds \(1.9\) must be a multiple"),
        ({"window_seconds": None}, r"window_seconds \(None\)"),
        ({"queries_per_window": 6}, "queries_per_window"),
        ({"qformer_low_steps": 3}, r"qformer_low_steps \(3\)"),
        ({"qformer_rows": 7}, r"qformer_rows \(7\)"),
        ({"question_times": "joint"}, "joint"),
        ({"resampler_heads": 5}, "resampler_heads"),
        ({"speech_config": {**SPEECH, "max_source_positions": 99}}, "max_source_positions"),
        ({"speech_config": {"model_type": "wav2vec2"}}, "must be 'whisper'"),
        ({"resampler_type": "stc"}, "feeds every connector but 'stc'"),
        ({"has_audio_tower": False}, "beside the audio tower"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**{**QFORMER, **settings})
    assert steps_per_window(5.0, 0.5) == 10


class TestDiversity:
    def test_it_is_the_mean_cosine_similarity_of_different_queries(self):
        states = torch.randn(3, 5, 7)
        total = 0.0
        for window in states:
            for i in range(5):
                for j in range(5):
                    if i != j:
                        total += (window[i] @ window[j] / (window[i].norm() * window[j].norm())).item()
        assert diversity_loss(states).item() == pytest.approx(total / (5 * 4 * 3), abs=1e-6)
        assert diversity_loss(torch.ones(2, 3, 4)).item() == pytest.approx(1.0)
        assert diversity_loss(states[:, :1]).item() == diversity_loss(states[:0]).item() == 0.0

    def test_the_connector_gives_the_states_it_is_about(self):
        model = qformer_model()
        caught = []
        model.model.resampler.register_forward_hook(lambda module, args, output: caught.append(output))
        media = video_media(questions=(1.0,), speech=True)
        logits_of(model, inputs_for(model, [media]))
        states = caught[0].window_states
        assert states.shape == (len(caught[0].window_tokens), 4, 48)
        assert torch.equal(model.model.resampler.output_projection(states), torch.stack(caught[0].window_tokens))
