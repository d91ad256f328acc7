"""Pixels, samples, files: what is rendered is what the scene says, also after the real decoder."""

from dataclasses import replace

import numpy as np
import pytest

from saven_hf.savenvideo.media import open_media
from saven_hf.savenvideo.media_errors import MediaError
from saven_hf.world import (
    Picture,
    Sound,
    edit_sound,
    frame_times,
    pulse_times,
    render_frames,
    render_sound,
    sample_scene,
    video,
    write_video,
)
from saven_hf.world.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    PICTURE_KINDS,
    PITCHES,
    SILENT,
    SOUND_KINDS,
    PictureKind,
    SoundKind,
)


RATE = 16_000


def one_picture(**fields):
    event = Picture(0, 2_000_000, **({"kind": PictureKind("red", "circle")} | fields))
    return replace(sample_scene(0), duration=2_000_000, pictures=(event,), fades=(), clutter=0, lead_in=0)


def one_sound(clutter=0, **fields):
    event = Sound(0, 2_000_000, **({"kind": SoundKind("tone", "mid")} | fields))
    return replace(sample_scene(0), duration=2_000_000, sounds=(event,), clutter=clutter, lead_in=0)


def mask_of(frame, colour):
    """Pixels (height, width) of exactly a colour."""
    return (np.abs(frame.astype(int) - np.array(COLOURS[colour])[:, None, None]) <= 1).all(axis=0)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def test_every_kind_of_picture_looks_different():
    frames = {kind: render_frames(one_picture(kind=kind), [0])[0] for kind in PICTURE_KINDS}
    for kind, frame in frames.items():
        assert mask_of(frame, kind.colour).sum() > 100
        assert sum(np.array_equal(frame, other) for other in frames.values()) == 1


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_are_grey_and_dark(background):
    frame = render_frames(one_picture(background=background), [0])[0]
    rest = frame[:, (frame.max(axis=0) - frame.min(axis=0)) == 0]
    assert rest.shape[1] > 0.6 * 64 * 64 and rest.max() <= 90


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_motions(size):
    def centre(motion, time):
        frame = render_frames(one_picture(motion=motion), [time], size)[0]
        rows, columns = np.nonzero(mask_of(frame, "red"))
        return columns.mean(), rows.mean(), len(rows)

    side = min(size)
    for motion, axis, sign in (("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)):
        before, after = centre(motion, 0), centre(motion, 1_999_999)
        assert sign * (after[axis] - before[axis]) == pytest.approx(0.56 * side, abs=1.5)
        assert before[1 - axis] == pytest.approx(after[1 - axis], abs=0.5)
    assert centre("grow", 1_900_000)[2] > 4 * centre("grow", 0)[2]
    assert centre("shrink", 0)[2] > 4 * centre("shrink", 1_900_000)[2]
    assert centre("still", 0) == centre("still", 1_500_000)


def test_copies_can_be_counted():
    for copies in (1, 2, 3, 4):
        for shape in ("circle", "bar"):
            frame = render_frames(one_picture(copies=copies, kind=PictureKind("white", shape)), [0])[0]
            assert count_parts(mask_of(frame, "white")) == copies


def count_parts(mask):
    """Number of connected parts of a boolean image."""
    mask, parts = mask.copy(), 0
    while mask.any():
        parts += 1
        stack = [tuple(np.argwhere(mask)[0])]
        while stack:
            row, column = stack.pop()
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and mask[row, column]:
                mask[row, column] = False
                stack += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return parts


def test_frames_show_the_event_of_their_time():
    for split in ("iid", "shifted_start", "distractors"):
        scene = replace(sample_scene(2, split), fades=())
        for event in scene.pictures:
            for time in (event.start, event.end - 1):
                assert mask_of(render_frames(scene, [time])[0], event.kind.colour).sum() > 8
        if scene.lead_in:
            assert not render_frames(scene, [0, scene.lead_in - 1]).any()


def test_cross_fades_mix_both_sides_of_a_change():
    scene = sample_scene(1, layout="crossed", segments=4)
    change = scene.pictures[0].end
    hard = replace(scene, fades=(0, 0, 0))
    soft = replace(scene, fades=(400_000, 0, 0))
    times = [change - 250_000, change - 100_000, change, change + 100_000, change + 250_000]
    cut, faded = render_frames(hard, times).astype(float), render_frames(soft, times).astype(float)
    assert np.array_equal(cut[[0, 4]], faded[[0, 4]])
    before = render_frames(replace(hard, pictures=hard.pictures[:1], fades=()), times).astype(float)
    assert np.abs(faded[2] - 0.5 * before[2] - 0.5 * cut[2]).max() <= 1
    assert np.abs(faded[3] - 0.25 * before[3] - 0.75 * cut[3]).max() <= 1


# ---------------------------------------------------------------------------------------------------------------------
# Sound


@pytest.mark.parametrize("pitch", PITCHES)
def test_pitches(pitch):
    waveform = render_sound(one_sound(kind=SoundKind("tone", pitch)))
    spectrum = np.abs(np.fft.rfft(waveform))
    assert np.argmax(spectrum) * RATE / len(waveform) == pytest.approx(PITCHES[pitch], rel=0.01)


def test_every_kind_of_sound_sounds_different_and_stays_below_8_khz():
    spectra = {}
    for kind in SOUND_KINDS:
        for glide in ("steady", "rising"):
            waveform = render_sound(one_sound(kind=kind, glide=glide, detune=1.04), 48_000)
            spectrum = np.abs(np.fft.rfft(waveform)) ** 2
            limit = len(spectrum) * 8 // 24
            # A hiss is noise with soft edges.
            assert spectrum[limit:].sum() / spectrum.sum() < (1e-2 if kind.timbre == "hiss" else 1e-4)
            if glide == "steady":
                spectra[kind] = np.sqrt(spectrum[: limit // 5 * 5].reshape(-1, 5).sum(axis=1))
    normal = {kind: one / np.linalg.norm(one) for kind, one in spectra.items()}
    for kind, one in normal.items():
        assert max(one @ other for name, other in normal.items() if name != kind) < 0.97, kind


def test_glides_rise_and_fall():
    for glide, sign in (("rising", 1), ("falling", -1)):
        waveform = render_sound(one_sound(glide=glide))
        halves = [np.abs(np.fft.rfft(half)) for half in np.split(waveform, 2)]
        centres = [(one**2 @ np.arange(len(one))) / (one**2).sum() for one in halves]
        assert sign * (centres[1] / centres[0] - 1) > 0.15


def test_loudness_silence_and_clicks():
    peaks = {loudness: np.abs(render_sound(one_sound(loudness=loudness))).max() for loudness in ("soft", "loud")}
    assert peaks["loud"] == pytest.approx(4 * peaks["soft"], rel=0.01)
    assert not render_sound(one_sound(kind=SILENT)).any()
    assert render_sound(one_sound(kind=SILENT, clutter=6)).any()


def onsets_of(waveform, rate, gap=0.05):
    """Seconds at which sound sets in after at least `gap` seconds of near silence."""
    loud = np.abs(waveform) > 0.02
    at = np.flatnonzero(loud)
    first = np.concatenate([[True], np.diff(at) > gap * rate]) if len(at) else []
    return at[first] / rate


def test_pulses():
    for pulses in range(1, 7):
        scene = one_sound(pulses=pulses)
        expected = [start / 1e6 for start, _ in pulse_times(scene.sounds[0])]
        assert len(expected) == pulses and expected[0] == 0
        assert onsets_of(render_sound(scene), RATE) == pytest.approx(expected, abs=0.01)


def test_rates_that_would_alias_are_refused():
    with pytest.raises(ValueError, match="16000 Hz or more, not 8000"):
        render_sound(one_sound(), 8_000)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def quick(seed, split):
    """A short scene whose sounds pulse, so that onsets are to be seen."""
    scene = sample_scene(seed, split, segments=4, layout="distinct")
    sounds = [event._replace(pulses=2, loudness="loud", kind=SoundKind("tone", "high")) for event in scene.sounds]
    return replace(scene, sounds=tuple(sounds), fades=(), clutter=0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Scenes of three splits and their files."""
    folder = tmp_path_factory.mktemp("world")
    made = {}
    for split in ("iid", "vfr", "shifted_start"):
        made[split] = quick(3, split), folder / f"{split}.mp4"
        write_video(*made[split])
    return made


@pytest.mark.parametrize("split", ["iid", "vfr", "shifted_start"])
def test_files_keep_picture_sound_and_time(written, split):
    scene, path = written[split]
    with open_media(path) as media:
        times = media.frame_times()
        assert times == pytest.approx(frame_times(scene), abs=50)
        assert (media.video_codec, media.audio_codec) == ("h264", "aac")
        assert media.duration == pytest.approx(scene.duration, abs=125_000)
        # The decoder's clock starts with the picture, whatever the file's own clock does.
        assert media.clock_offset == scene.start_time

        frames, _ = media.frames_at(times)
        changes = [event.start for event in scene.pictures if event.start]
        step = np.abs(np.diff(frames.numpy().astype(int), axis=0)).mean(axis=(1, 2, 3))
        found = sorted(times[at + 1] for at in np.argsort(step)[-len(changes) :])
        longest = max(np.diff(times))
        assert all(0 <= frame - change < longest + 1 for frame, change in zip(found, changes, strict=True))

        waveform, start = media.audio()
        onsets = onsets_of(waveform.numpy(), RATE) + start / 1e6
        expected = [pulse[0] / 1e6 for event in scene.sounds for pulse in pulse_times(event)]
        assert onsets == pytest.approx(expected, abs=0.01)


def test_rates_differ_where_they_should(written):
    steps = {split: np.diff(frame_times(scene)) for split, (scene, _) in written.items()}
    assert set(steps["iid"]) == {50_000}
    assert set(steps["vfr"]) == {25_000, 50_000, 75_000, 100_000, 125_000}


def test_a_file_is_the_same_when_written_again(written, tmp_path):
    scene, path = written["vfr"]
    write_video(scene, tmp_path / "again.mp4")
    assert (tmp_path / "again.mp4").read_bytes() == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["again.mp4"]


def test_nothing_is_left_of_a_file_that_failed(written, tmp_path, monkeypatch):
    scene, _ = written["iid"]
    with pytest.raises(ValueError, match="even height and width, not 63 x 64"):
        write_video(scene, tmp_path / "odd.mp4", (63, 64))
    monkeypatch.setattr(video, "render_frames", lambda *arguments: render_frames(*arguments)[:-1])
    with pytest.raises(ValueError, match="zip"):
        write_video(scene, tmp_path / "short.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", ["iid", "shifted_start"])
@pytest.mark.parametrize("shift", [0.7, -0.7])
def test_shifting_the_sound_of_a_file(written, tmp_path, split, shift):
    scene, path = written[split]
    edit_sound(path, tmp_path / "shifted.mp4", shift=shift)
    with open_media(path) as before, open_media(tmp_path / "shifted.mp4") as after:
        assert after.frame_times() == before.frame_times()
        times = before.frame_times()[::20]
        assert np.array_equal(after.frames_at(times)[0], before.frames_at(times)[0])
        sound, start = after.audio()
    onsets = onsets_of(sound.numpy(), RATE) + start / 1e6
    expected = [pulse[0] / 1e6 + shift for event in scene.sounds for pulse in pulse_times(event)]
    whole = [onset for onset in expected if 0.1 < onset < scene.duration / 1e6 - 0.1]
    assert [onset for onset in onsets if onset > 0.1] == pytest.approx(whole, abs=0.01)


def test_muting_and_swapping_the_sound_of_a_file(written, tmp_path):
    (scene, path), (other, other_path) = written["iid"], written["vfr"]
    edit_sound(path, tmp_path / "mute.mkv", mute=True)
    with open_media(tmp_path / "mute.mkv") as media:
        assert media.frame_times() == pytest.approx(frame_times(scene), abs=1000)
        assert np.abs(media.audio()[0].numpy()).max() < 1e-3
    edit_sound(path, tmp_path / "swapped.mp4", swap_with=other_path)
    with open_media(tmp_path / "swapped.mp4") as media:
        onsets = onsets_of(media.audio()[0].numpy(), RATE)
    expected = [pulse[0] / 1e6 for event in other.sounds for pulse in pulse_times(event)]
    length = min(scene.duration, other.duration) / 1e6
    assert onsets == pytest.approx([onset for onset in expected if onset < length - 0.05], abs=0.01)


def test_files_that_cannot_be_edited(written, tmp_path):
    _, path = written["iid"]
    with pytest.raises(ValueError, match="written as .mp4 or .mkv"):
        edit_sound(path, tmp_path / "out.avi", mute=True)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError):
        edit_sound(tmp_path / "text.mp4", tmp_path / "out.mp4", mute=True)
    edit_sound(path, tmp_path / "mute.mp4", mute=True)
    assert not (tmp_path / "out.mp4").exists()
