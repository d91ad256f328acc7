"""Edits of files and of times, and what is read off them."""

import pytest
import torch

from saven_hf import load
from saven_hf.evaluation import PLAIN, Control, ControlError, control_named
from saven_hf.evaluation.report import compare_control
from saven_hf.savenvideo.layout import NO_TIME
from saven_hf.savenvideo.media import open_media
from saven_hf.world import blacken_picture, sample_scene, write_video


SECOND = 1_000_000


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "scene.mp4"
    write_video(sample_scene(2, "shifted_start", segments=4), path)  # its clock does not start at 0
    return path


@pytest.fixture(scope="module")
def tiny():
    return load()


def contents(path):
    with open_media(path) as media:
        times = media.frame_times()
        return times, media.frames_at(times)[0], *media.audio(), media.duration


def test_names():
    assert control_named("plain") == PLAIN
    assert control_named("mute+black") == Control("mute+black", mute=True, black=True)
    assert control_named("no-audio") == Control("no-audio", no_audio=True)
    assert control_named("clock=+100").clock == control_named("clock=100").clock == 100 * SECOND
    assert control_named("black+clock=-2.5") == Control("black+clock=-2.5", black=True, clock=-2_500_000)
    guessers = {name: control_named(name).guesser for name in ("mute", "no-audio", "black", "mute+black", "no-time")}
    assert guessers == {
        "mute": "picture", "no-audio": "picture", "black": "sound", "mute+black": "text", "no-time": "timeless",
    }  # fmt: skip
    assert PLAIN.guesser is control_named("clock=5").guesser is None
    for wrong in ("louder", "", "mute+", "mute+no-audio", "clock=soon", "no-time+clock=5"):
        with pytest.raises(ControlError):
            control_named(wrong)


def test_black_keeps_times_and_sound(video, tmp_path):
    blacken_picture(video, tmp_path / "black.mp4")
    times, frames, sound, start, duration = contents(video)
    black_times, black_frames, black_sound, black_start, black_duration = contents(tmp_path / "black.mp4")
    assert max(abs(a - b) for a, b in zip(times, black_times, strict=True)) <= 1
    assert frames.max() > 200 and black_frames.max() <= 1
    assert torch.equal(sound, black_sound) and abs(start - black_start) <= 1
    assert abs(duration - black_duration) < 100_000


def test_edited_files_are_made_once_beside_the_source(video):
    assert PLAIN.edited(video) == control_named("no-time").edited(video) == video
    muted = control_named("mute").edited(video)
    both = control_named("mute+black").edited(video)
    assert muted.parent == both.parent == video.parent
    assert control_named("black+mute").edited(video) == both
    made = both.stat().st_mtime_ns
    times, frames, sound, *_ = contents(both)
    assert frames.max() <= 1 and sound.abs().max() == 0 and len(sound) > 16_000
    assert contents(muted)[1].max() > 200 and contents(muted)[2].abs().max() == 0
    assert control_named("mute+black").edited(video).stat().st_mtime_ns == made
    assert sorted(path.name for path in video.parent.iterdir()) == [
        "scene.mp4", "scene.mute+black.mp4", "scene.mute.mp4",
    ]  # fmt: skip


def encode(tiny, video, control, **options):
    model, processor = tiny
    return model.encode_video(video, control_named(control).processor(processor), fps=2, **options)


def test_a_clock_moved_by_nothing_changes_nothing(tiny, video):
    plain, same = encode(tiny, video, "plain"), Control("same", clock=0, no_time=False)
    retimed = Control("moved", clock=1)  # goes through the other stream
    moved = tiny[0].encode_video(video, retimed.processor(tiny[1]), fps=2)
    assert same.processor(tiny[1]) is tiny[1]
    assert torch.equal(moved.pooled_times, plain.pooled_times + 1)
    assert moved.window_tokens.shape == plain.window_tokens.shape
    torch.testing.assert_close(moved.pooled_states, plain.pooled_states, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(moved.window_tokens, plain.window_tokens, atol=1e-2, rtol=1e-2)


def test_moved_clock_moves_every_time(tiny, video):
    plain, moved = encode(tiny, video, "plain"), encode(tiny, video, "clock=+100")
    assert moved.duration == plain.duration + 100 * SECOND
    # Seconds of sound may be pooled over other windows; frames are not pooled in time.
    frames = (memory.pooled_times[memory.pooled_modality == 0] for memory in (plain, moved))
    assert torch.equal(next(frames) + 100 * SECOND, next(frames))
    assert moved.window_times.min() >= 99 * SECOND - moved.duration
    assert (moved.num_frames, moved.audio_seconds) == (plain.num_frames, plain.audio_seconds)
    assert "00:01:42.500" in control_named("clock=+100").text("At 00:00:02.500, what is seen?")


def test_no_time_leaves_no_time_anywhere(tiny, video):
    plain, timeless = encode(tiny, video, "plain"), encode(tiny, video, "no-time")
    assert timeless.duration == 0
    assert (timeless.window_times == NO_TIME).all() and (timeless.pooled_times == NO_TIME).all()
    assert (timeless.num_frames, timeless.audio_seconds) == (plain.num_frames, plain.audio_seconds)
    model, processor = tiny
    text = "<|im_start|>user\n<|video|>What is seen at 00:00:02.500?<|im_end|>\n"
    inputs = processor(text=[text], videos=[[timeless]], return_tensors="pt")
    assert "query_times" not in inputs
    assert (inputs["input_ids"] == processor.video_token_id).sum() == timeless.num_tokens


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic


def choice(video, correct, needs="both", picture=0.25, family="heard_with"):
    return {
        "id": f"{video}-{needs}", "video_id": video, "form": "choice", "correct": correct,
        "parsed": "A", "worded": None, "answer": "A",
        "tags": {"needs": needs, "family": family, "question_type": "global"},
        "chance": {"picture": picture, "sound": 0.25, "text": 0.25, "timeless": 0.25},
    }  # fmt: skip


def test_a_mute_model_is_held_against_what_the_picture_gives():
    plain = [choice(at, True) for at in range(100)] + [choice(at, True, "picture", 1.0) for at in range(50)]
    muted = [choice(at, at < 30) for at in range(100)]
    muted += [choice(at, at < 45, "picture", 1.0, "seen_at") for at in range(50)]
    found = compare_control(control_named("mute"), muted, plain)
    assert found["accuracy"]["value"] == 0.3 and found["chance"] == 0.25
    assert found["gap"]["value"] == pytest.approx(0.05)
    assert found["verdict"] == "contains"
    assert set(found["kinds"]["family"]) == {"heard_with"}
    assert found["kept"]["value"] == pytest.approx(-0.1) and found["kept"]["n"] == 50
    assert found["difference"]["value"] == pytest.approx(-75 / 150)
    too_good = compare_control(control_named("mute"), [choice(at, at < 60) for at in range(100)], plain)
    assert too_good["verdict"] == "above"


def span(at, parsed):
    return {"id": at, "video_id": at, "form": "range", "parsed": parsed, "tags": {}, "chance": {}}


def test_moved_ranges_are_those_with_both_ends_moved():
    plain = [span(0, [1, 2]), span(1, [1, 2]), span(2, [1, 2]), span(3, [1, 2]), span(4, None)]
    moved = [span(0, [101, 102]), span(1, [100.5, 103]), span(2, [101, 103.5]), span(3, None), span(4, [101, 102])]
    found = compare_control(control_named("clock=100"), moved, plain)["moved"]
    assert (found["value"], found["n"]) == (0.5, 4)
