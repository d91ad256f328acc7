"""What is measured of picture and sound, against what was made."""

import numpy as np
import pytest

from saven_hf.pipeline.check import SAME_PICTURE, SAME_SOUND, hash_distance
from saven_hf.pipeline.measure import (
    colour_shares,
    find_onsets,
    measure_picture,
    measure_sound,
    picture_hash,
    pitches,
    sound_hash,
)
from saven_hf.savenvideo.media import open_media
from saven_hf.world import pulse_times, render_sound, sample_scene, write_video


RATE = 16_000


def test_onsets_of_world_sounds():
    found = right = wanted = 0
    for seed in range(12):
        scene = sample_scene(seed, "iid")
        truth = [start / 1e6 for event in scene.sounds for start, _ in pulse_times(event)]
        times = find_onsets(render_sound(scene))
        right += sum(np.abs(times - at).min(initial=9) <= 0.05 for at in truth)
        found, wanted = found + len(times), wanted + len(truth)
    assert 2 * right / (found + wanted) > 0.9


def test_onsets_of_the_clips_of_a_world_video(tmp_path):
    """What `signal` tells: clip by clip, from the file."""
    found = right = wanted = 0
    for seed in range(4):
        scene = sample_scene(seed, "iid")
        write_video(scene, tmp_path / "video.mp4", (32, 32))
        truth = [start / 1e6 for event in scene.sounds for start, _ in pulse_times(event)]
        with open_media(tmp_path / "video.mp4") as media:
            edges = np.linspace(0, media.duration / 1e6, 8)
            times = [time for start, end in zip(edges, edges[1:], strict=False)
                     for time in measure_sound(media, start, end).onsets]  # fmt: skip
        right += sum(np.abs(np.array(times) - at).min(initial=9) <= 0.05 for at in truth)
        found, wanted = found + len(times), wanted + len(truth)
    assert 2 * right / (found + wanted) > 0.9, (found, right, wanted)


def test_a_sound_that_goes_on_does_not_begin_where_a_clip_does(clip_path):
    with open_media(clip_path) as media:  # a tone from 0 s to 3 s
        assert measure_sound(media, 1.3, 2.6).onsets == []
        assert measure_sound(media, 0, 3).onsets == [pytest.approx(0, abs=0.05)]


def test_silence_and_steady_noise_have_no_onsets_but_at_their_beginning():
    assert len(find_onsets(np.zeros(RATE, dtype=np.float32))) == 0
    noise = 0.1 * np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32)
    assert len(find_onsets(noise)) <= 1


@pytest.mark.parametrize("hertz", [90.0, 220.0, 441.0, 880.0])
def test_pitch_of_tones(hertz):
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * hertz * time) + 0.5 * np.sin(4 * np.pi * hertz * time)
    frequency, strength = pitches(tone.astype(np.float32))
    assert np.median(frequency) == pytest.approx(hertz, rel=0.03) and strength.min() > 0.8


def test_noise_has_no_pitch():
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    assert np.median(pitches(noise)[1]) < 0.6


def test_facts_of_a_clip(clip_path):
    with open_media(clip_path) as media:
        tone, silence = (measure_sound(media, start, start + 3) for start in (0, 3))
        picture = measure_picture(media, 0, 3)
    assert tone.kind == "tone" and tone.pitch == pytest.approx(240, rel=0.03) and tone.level > -20
    assert silence.kind == "silence" and silence.pitch is None
    assert "red" in picture.colours and picture.motion < 0.002 and picture.direction is None


def test_a_change_of_shot_is_no_motion(clip_path):
    with open_media(clip_path) as media:  # what is red changes to blue at 3 s
        assert measure_picture(media, 0, 6).motion > 5e-5
        assert measure_picture(media, 0, 6, [3.0]).motion == measure_picture(media, 0, 3).motion < 1e-5


def test_direction_of_a_picture_that_shifts(tmp_path):
    from saven_hf.pipeline.measure import _direction

    scene = np.random.default_rng(0).random((36, 128)).astype(np.float32)
    scene = (scene + np.roll(scene, 1, 1) + np.roll(scene, 1, 0)) / 3
    luma = np.stack([scene[:, at : at + 64] for at in range(0, 40, 4)])  # a camera that pans right
    assert _direction(luma, np.full(9, 0.125)) == ("left", pytest.approx(4 / 64 / 0.125))
    assert _direction(luma[::-1], np.full(9, 0.125))[0] == "right"
    assert _direction(luma[:1].repeat(10, 0), np.full(9, 0.125)) == (None, 0.0)


@pytest.mark.parametrize(
    "rgb, name",
    [((220, 20, 20), "red"), ((250, 140, 10), "orange"), ((240, 230, 30), "yellow"), ((30, 180, 40), "green"),
     ((40, 220, 220), "cyan"), ((40, 60, 240), "blue"), ((160, 50, 220), "purple"), ((110, 70, 30), "brown"),
     ((5, 5, 5), "black"), ((128, 128, 128), "grey"), ((250, 250, 250), "white"), ((250, 170, 185), "pink")],
)  # fmt: skip
def test_names_of_colours(rgb, name):
    frames = np.tile(np.array(rgb, dtype=np.uint8)[None, :, None, None], (1, 1, 4, 4))
    assert colour_shares(frames) == {name: 1.0}


def test_a_copy_of_other_size_and_quality_is_the_same_video_and_another_is_not(tmp_path):
    scene, other = sample_scene(1, "iid"), sample_scene(2, "iid")
    for name, which, size, crf in (
        ("a", scene, (64, 64), 18),
        ("copy", scene, (96, 96), 32),
        ("b", other, (64, 64), 18),
    ):
        write_video(which, tmp_path / f"{name}.mp4", size, crf)
    hashes = {}
    for name in ("a", "copy", "b"):
        with open_media(tmp_path / f"{name}.mp4") as media:
            hashes[name] = picture_hash(media), sound_hash(media)
    near = [hash_distance(hashes["a"][of], hashes["copy"][of]) for of in (0, 1)]
    far = [hash_distance(hashes["a"][of], hashes["b"][of]) for of in (0, 1)]
    assert near[0] <= SAME_PICTURE < far[0] and near[1] <= SAME_SOUND, (near, far)
