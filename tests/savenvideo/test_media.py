"""Frames, sound and times of good files, compared with what the clips say about themselves."""

import io
import itertools
import os
import resource
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import media_factory as factory
import numpy as np
import pytest
import torch

from saven_hf.savenvideo.media import open_media
from saven_hf.savenvideo.media_video import FrameIndex, PacketLog, choose_frames


pytestmark = pytest.mark.skipif(factory.FFMPEG is None, reason=factory.NO_FFMPEG)

# AVI has no presentation times, so that players, too, are off by the
# decoder's delay; it is made to see that frames are still dated by what the file says.
SYNC_EXEMPT = ("avi_mpeg4",)
START_TOLERANCE = {"negative_start": 0.025}  # the sound's priming, 21 ms, is the earliest there


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = factory.KINDS[kind](tmp_path_factory.mktemp(kind))
        return made[kind]

    return get


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


def numbers(frames):
    return [factory.read_number(frame.numpy()) for frame in frames]


# -- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", factory.KINDS)
def test_frame_times_are_true(clips, kind):
    """Every way to ask for frames returns the times that are burnt into them, within a fraction of a frame."""
    clip = clips(kind)
    tolerance = START_TOLERANCE.get(kind, 0.002)
    with open_media(clip.path) as media:
        assert media.kind == "video" and (media.height, media.width) == (factory.HEIGHT, factory.WIDTH)
        span = [(media.duration // 2, media.duration // 2)]
        asked = {
            "all": media.frame_times(),
            "uniform": media.sample_times("uniform", num_frames=16),
            "fps": media.sample_times("fps", fps=3.0),
            "keyframe": media.sample_times("keyframe", num_frames=8),
            "query": media.sample_times("query", num_frames=12, spans=span),
            "backwards": media.frame_times()[::-11],
        }
        for name, times in asked.items():
            frames, returned = media.frames_at(times, size=(48, 80))
            assert returned == times, name
            assert frames.shape == (len(times), 3, 48, 80) and frames.dtype == torch.uint8
            for number, at in zip(numbers(frames), returned, strict=True):
                assert abs(clip.true_time(number) - at / 1e6) < tolerance, (name, number, at)


@pytest.mark.parametrize("kind", [kind for kind in factory.KINDS if kind not in SYNC_EXEMPT])
def test_clicks_land_on_their_flashes(clips, kind):
    clip = clips(kind)
    with open_media(clip.path) as media:
        frames, times = media.frames_at(media.frame_times())
        flashes = [at / 1e6 for at, frame in zip(times, frames, strict=True) if factory.is_flash(frame.numpy())]
        waveform, start = media.audio()
        clicks = factory.click_times(waveform.numpy(), 16_000, start / 1e6)
        assert len(clicks) >= 4 and len(flashes) >= 4
        # those of which the other is outside of its stream have no partner
        first, last = max(flashes[0], clicks[0]), min(flashes[-1], clicks[-1])
        flashes = [at for at in flashes if first - 0.1 < at < last + 0.1]
        clicks = [at for at in clicks if first - 0.1 < at < last + 0.1]
        assert len(clicks) == len(flashes) >= 4
        assert np.abs(np.array(clicks) - np.array(flashes)).max() < 0.010
        assert media.audio_start + len(waveform) * 1e6 / 16_000 == pytest.approx(media.audio_end, abs=100)


def test_the_clock_of_late_and_early_streams(clips):
    with open_media(clips("late_audio").path) as media:
        assert media.frame_times()[0] == 0 and 1_900_000 < media.audio_start <= 2_000_000
        assert len(media.audio()[0]) < 4.2 * 16_000  # nothing is put before late sound
        early, start = media.audio(0, 1_000_000)
        assert len(early) == 0 and start == media.audio_start
    with open_media(clips("late_video").path) as media:
        assert media.frame_times()[0] == 2_000_000 and media.audio_start == 0
        assert media.sample_times(num_frames=1)[0] >= 2_000_000
    with open_media(clips("transport_stream").path) as media:
        assert media.clock_offset > 20_000_000 and media.frame_times()[0] == 0
        assert -100_000 < media.audio_start <= 0
    with open_media(clips("vfr_mkv").path) as media:  # priming does not move the zero
        assert media.frame_times()[0] == 0 and -100_000 < media.audio_start < 0


def test_rotation_is_applied(clips):
    with open_media(clips("rotated").path) as media:
        assert (media.width, media.height) == (factory.WIDTH, factory.HEIGHT) and media.rotation in (90, 270)
        frames, _ = media.frames_at(media.frame_times()[:40])
        assert frames.shape[2:] == (factory.HEIGHT, factory.WIDTH)
        assert numbers(frames) == list(range(40))


# -- which frames ---------------------------------------------------------------------------------------------------


def make_index(times_ms, keys=(0,), last_ms=40):
    packets = PacketLog(
        [int(t) for t in times_ms], [int(t) for t in times_ms], [i in keys for i in range(len(times_ms))],
        [True] * len(times_ms), last_ms,
    )  # fmt: skip
    return FrameIndex(packets, Fraction(1, 1000), "clip")


def seconds(index, chosen):
    return [float(index.times[i]) / 1e6 for i in chosen]


def test_uniform_takes_the_middles_of_equal_bins():
    index = make_index(range(0, 16_000, 40))
    assert seconds(index, choose_frames(index, num_frames=16)) == pytest.approx(
        [i + 0.48 for i in range(16)], abs=0.021
    )
    assert seconds(index, choose_frames(index, num_frames=1)) == [8.0]
    assert len(choose_frames(index, num_frames=1000)) == 400  # no frame twice
    assert len(choose_frames(index, num_frames=100, max_frames=10)) == 10


def test_uniform_goes_by_time_not_by_index():
    dense_then_sparse = make_index([*range(0, 2000, 20), *range(2000, 10_001, 500)])
    chosen = np.array(seconds(dense_then_sparse, choose_frames(dense_then_sparse, num_frames=10)))
    assert (chosen < 2).sum() == 2
    still = make_index([0, 20, 40, 9000, 9020, 9040])  # one frame on screen for nine seconds is taken once
    assert len(set(choose_frames(still, num_frames=5))) == 5


def test_fps_and_its_cap():
    index = make_index(range(0, 10_000, 40))
    at = seconds(index, choose_frames(index, "fps", fps=2.0))
    assert len(at) == 20 and np.diff(at) == pytest.approx(0.5, abs=0.041)
    assert len(choose_frames(index, "fps", fps=1000.0)) == 250
    capped = seconds(index, choose_frames(index, "fps", fps=2.0, max_frames=5))
    assert len(capped) == 5 and capped[-1] > 8.9  # spread, and not cut at the end
    assert len(choose_frames(index, "fps", fps=0.01)) == 1


def test_keyframe_snaps_to_the_nearest():
    index = make_index(range(0, 20_000, 40), keys=range(0, 500, 50))
    at = seconds(index, choose_frames(index, "keyframe", num_frames=4))
    assert at == pytest.approx([2, 8, 12, 18], abs=0.01)
    assert len(choose_frames(index, "keyframe", num_frames=100)) == 10
    assert len(choose_frames(index, "keyframe", fps=1.0)) == 10


def test_query_looks_inside_the_spans():
    index = make_index(range(0, 100_000, 40))
    at = np.array(seconds(index, choose_frames(index, "query", num_frames=32, spans=[(10_000_000, 12_000_000)])))
    assert len(at) == 32 and ((at >= 9.96) & (at < 12)).sum() >= 16
    assert at[0] < 5 and at[-1] > 95
    instant = np.array(seconds(index, choose_frames(index, "query", num_frames=16, spans=[(50_000_000, 50_000_000)])))
    assert ((instant >= 48.96) & (instant <= 51)).sum() >= 8
    two = np.array(
        seconds(
            index,
            choose_frames(index, "query", num_frames=20, spans=[(90_000_000, 91_000_000), (1_000_000, 2_000_000)]),
        )
    )
    assert len(two) == 20 and ((two > 0.95) & (two < 2)).sum() >= 5 and ((two > 89.95) & (two < 91)).sum() >= 5
    outside = choose_frames(index, "query", num_frames=16, spans=[(500_000_000, 600_000_000)])
    assert list(outside) == list(choose_frames(index, "uniform", num_frames=16))


@pytest.mark.parametrize("seed", range(20))
def test_samplings_keep_their_promises_on_any_timeline(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 60))
    index = make_index(
        np.cumsum(random.choice([1, 20, 40, 3000], count)), keys=set(random.integers(0, count, 5)) | {0}
    )
    spans = [tuple(int(x) for x in random.integers(-1_000_000, 60_000_000, 2)) for _ in range(3)]
    for num_frames in (1, 2, 7, 16, 100):
        for sampling in ("uniform", "query"):
            chosen = choose_frames(index, sampling, num_frames, spans=spans)
            assert len(chosen) == min(num_frames, count) and (np.diff(chosen) > 0).all()
            assert chosen.min() >= 0 and chosen.max() < count
        keys = choose_frames(index, "keyframe", num_frames)
        assert set(keys) <= set(index.keys) and (np.diff(keys) > 0).all()
        for limit in (None, 3):
            chosen = choose_frames(index, "fps", fps=5.0, max_frames=limit)
            assert 1 <= len(chosen) <= (limit or count) and (np.diff(chosen) > 0).all()


# -- pixels ---------------------------------------------------------------------------------------------------------


def test_frames_do_not_depend_on_how_they_are_asked_for(clips):
    """In one call, one by one, in pieces, backwards: the same pixels."""
    for kind in ("b_frames", "open_gop", "edit_list", "transport_stream", "fragmented", "vfr_mkv"):
        path = clips(kind).path
        with open_media(path) as media:
            times = media.frame_times()[::3]
            whole, _ = media.frames_at(times)
        with open_media(path) as media:
            pieces = torch.cat([media.frames_at(times[i : i + 5])[0] for i in range(0, len(times), 5)])
        with open_media(path) as media:
            singles = torch.cat([media.frames_at([at])[0] for at in reversed(times)]).flip(0)
            twice, returned = media.frames_at([times[2], times[0], times[2]])
        assert torch.equal(whole, pieces) and torch.equal(whole, singles), kind
        assert torch.equal(twice, whole[[2, 0, 2]]) and returned == [times[2], times[0], times[2]]


def test_a_time_between_two_frames_gives_the_one_on_screen(clips):
    with open_media(clips("cfr_25").path) as media:
        frames, times = media.frames_at([99_999, 100_000, 119_999, -5, 10**12])
        assert times == [80_000, 80_000, 80_000, 0, 5_960_000] and numbers(frames) == [2, 2, 2, 0, 149]


def test_successive_calls_do_not_decode_twice(clips, monkeypatch):
    with open_media(clips("b_frames").path) as media:
        times = media.frame_times()
        seeks = []
        original = type(media._frames)._seek
        monkeypatch.setattr(
            type(media._frames), "_seek", lambda self, start: (seeks.append(start), original(self, start))
        )
        for i in range(0, len(times), 10):
            media.frames_at(times[i : i + 10])
        assert len(seeks) <= 4  # at most one a group of pictures (150 frames in groups of 48)


def test_pixels_agree_with_ffmpeg(clips):
    path = clips("b_frames").path
    command = [factory.FFMPEG, "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    expected = np.frombuffer(raw, dtype=np.uint8).reshape(-1, factory.HEIGHT, factory.WIDTH, 3).transpose(0, 3, 1, 2)
    with open_media(path) as media:
        frames, _ = media.frames_at(media.frame_times())
    assert len(frames) == len(expected)
    difference = np.abs(frames.numpy().astype(int) - expected.astype(int))
    assert difference.mean() < 2 and numbers(frames) == list(range(150))


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "area", "lanczos", "point"])
def test_scaling(clips, resample):
    with open_media(clips("cfr_25").path) as media:
        frames, _ = media.frames_at(media.frame_times()[::10], size=(77, 133), resample=resample)
        assert frames.shape[2:] == (77, 133) and numbers(frames) == list(range(0, 150, 10))


# -- sound ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cfr_25", "late_audio_mkv", "transport_stream", "webm_vp8"])
def test_ranges_of_sound_join_to_the_whole(clips, kind):
    path = clips(kind).path
    with open_media(path) as media:
        whole, start = media.audio()
        assert whole.dtype == torch.float32 and whole.ndim == 1
        assert len(whole) == media.num_audio_samples() and start == media.audio_start
    random = np.random.default_rng(0)
    cuts = sorted({media.audio_start, media.audio_end, *random.integers(0, media.duration, 25).tolist()})
    with open_media(path) as media:
        pieces = [media.audio(a, b) for a, b in itertools.pairwise(cuts)]
        assert torch.equal(torch.cat([piece for piece, _ in pieces]), whole)
        for (piece, at), (_, after) in itertools.pairwise(pieces):
            assert len(piece) == 0 or abs(at + len(piece) * 1e6 / 16_000 - after) < 2
        # overlapping and earlier ranges
        for a, b in ((1_000_000, 3_000_000), (2_985_000, 4_000_000), (500_000, 700_000), (0, 10**12)):
            piece, at = media.audio(a, b)
            first = round((at - start) * 16_000 / 1e6)
            assert torch.equal(piece, whole[first : first + len(piece)])
            assert len(piece) or b < media.audio_start


def test_overlapping_ranges_are_read_once(clips, monkeypatch):
    with open_media(clips("cfr_25").path) as media:
        restarts = []
        original = type(media._sound)._restart
        monkeypatch.setattr(
            type(media._sound), "_restart", lambda self, rate: (restarts.append(rate), original(self, rate))
        )
        for start in range(0, 5_000_000, 500_000):
            media.audio(start, start + 900_000)
        assert len(restarts) == 1


def test_sound_whose_clock_steps_back_keeps_its_time(folder):
    """Half a second recorded twice: it is heard once, and what follows stays where it was."""
    av = pytest.importorskip("av")
    path = factory.write_wav(folder / "any.wav", factory.scene_sound(25, 4.0))
    sound = (factory.scene_sound(25, 4.0) * 0.9).astype(np.float32)

    def frames(self):
        for first, last in ((0, 2.0), (1.5, 4.0)):
            samples = sound[int(first * factory.SAMPLE_RATE) : int(last * factory.SAMPLE_RATE)]
            frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
            frame.sample_rate, frame.time_base = factory.SAMPLE_RATE, Fraction(1, 1000)
            frame.pts = int(first * 1000)
            yield frame

    with open_media(path) as media:
        media._sound._scale = (1000, 1)
        media._sound._frames = frames.__get__(media._sound)
        waveform, start = media.audio()
        assert len(waveform) == 4 * 16_000 and media.audio_gaps == [(1_500_000, 2_000_000)]
        assert factory.click_times(waveform.numpy(), 16_000, 0) == pytest.approx([0.52, 1.2, 2.8, 3.6], abs=0.002)


def test_sampling_rates_and_channels(folder):
    sound = factory.scene_sound(25, 3.0)
    for rate, channels in ((8_000, 1), (44_100, 2), (16_000, 6)):
        picked = np.interp(np.arange(0, 3.0, 1 / rate), np.arange(len(sound)) / factory.SAMPLE_RATE, sound)
        path = factory.write_wav(folder / f"{rate}.wav", picked, rate, channels)
        with open_media(path) as media:
            assert (media.kind, media.sample_rate, media.channels) == ("audio", rate, channels)
            for target in (16_000, 24_000, 44_100):
                waveform, start = media.audio(sampling_rate=target)
                assert start == 0 and len(waveform) == 3 * target
                assert factory.click_times(waveform.numpy(), target, 0) == pytest.approx([0.52, 1.2], abs=0.002)
                # Channels that say the same are as loud together as each is.
                loudness = [float(np.square(part).mean()) ** 0.5 for part in (waveform.numpy(), picked)]
                assert loudness[0] == pytest.approx(loudness[1], rel=0.1)


def test_a_hole_in_the_sound_keeps_its_time(folder):
    """Two seconds of sound taken out of the middle: what follows stays where it was."""
    whole = factory.make_clip(folder / "whole.mkv", audio_codec=("pcm_s16le",)).path
    path = folder / "hole.mkv"
    only = "select='not(between(t,1.9,3.5))'"
    factory.ffmpeg("-i", whole, "-c:v", "copy", "-af", f"a{only}", "-c:a", "pcm_s16le", path)
    with open_media(path) as media:
        waveform, start = media.audio()
        clicks = factory.click_times(waveform.numpy(), 16_000, start / 1e6)
        assert clicks == pytest.approx([0.52, 1.2, 3.6, 4.4, 5.2], abs=0.01)
        assert len(media.audio_gaps) == 1 and media.audio_gaps[0] == pytest.approx((1_900_000, 3_500_000), abs=60_000)
        assert not waveform[int(2.2 * 16_000) : int(3.3 * 16_000)].any()


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".ogg", ".m4a"])
def test_sound_files(folder, suffix):
    clip = factory.sound_file(folder, suffix)
    with open_media(clip.path) as media:
        assert media.kind == "audio" and media.has_audio and not media.has_video
        assert media.duration == pytest.approx(3_000_000, abs=60_000)
        waveform, start = media.audio()
        clicks = factory.click_times(waveform.numpy(), 16_000, start / 1e6)
        assert clicks == pytest.approx([0.52, 1.2], abs=0.01)


# -- kinds of files and sources -------------------------------------------------------------------------------------


def test_a_cover_image_is_no_video(folder):
    with open_media(factory.song_with_cover(folder).path) as media:
        assert media.kind == "audio" and not media.has_video


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".bmp"])
def test_images(folder, suffix):
    with open_media(factory.image_file(folder, suffix)) as media:
        assert (media.kind, media.duration, media.height, media.width) == ("image", 0, 48, 80)
        assert media.has_video and not media.has_audio and media.sample_times() == [0]
        for size in (None, (24, 60)):
            frames, times = media.frames_at([0], size=size)
            assert times == [0] and frames.shape == (1, 3, *(size or (48, 80)))
            red, blue = frames[0, :, :, 2].float().mean(1), frames[0, :, :, -3].float().mean(1)
            assert red[0] > 200 > 60 > red[2] and blue[2] > 200 > 60 > blue[0]


def test_animated_gif_is_a_video(folder, clips):
    path = folder / "animated.gif"
    mode = "-fps_mode" if factory.ffmpeg_version() >= (5, 1) else "-vsync"
    factory.ffmpeg("-i", clips("cfr_25").path, "-vf", "select='not(mod(n,5))'", mode, "passthrough", path)
    with open_media(path) as media:
        assert media.kind == "video" and media.num_frames == 30 and not media.has_audio
        frames, times = media.frames_at(media.sample_times(num_frames=8))
        assert [factory.read_number(frame.numpy()) / 25 for frame in frames] == pytest.approx(
            [t / 1e6 for t in times], abs=0.05
        )


def test_exif_orientation_is_applied(folder):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    Image.open(factory.image_file(folder, ".png")).save(folder / "turned.jpg", exif=exif, quality=95)
    with open_media(folder / "turned.jpg") as media:
        assert (media.height, media.width) == (80, 48)


def test_sources_give_the_same(clips):
    path = clips("b_frames").path
    data = path.read_bytes()
    handle = open(path, "rb")
    handle.seek(1000)
    results = []
    for source in (str(path), path, data, bytearray(data), io.BytesIO(data), handle):
        with open_media(source) as media:
            times = media.sample_times(num_frames=5)
            results.append((times, media.frames_at(times)[0], media.audio()[0]))
    assert not handle.closed
    handle.close()
    for times, frames, waveform in results[1:]:
        assert times == results[0][0] and torch.equal(frames, results[0][1]) and torch.equal(waveform, results[0][2])


def test_streams_can_be_chosen(folder):
    first = factory.make_clip(folder / "first.mp4", seconds=2.0)
    second = factory.make_clip(folder / "second.mp4", seconds=3.0, fps=50)
    path = folder / "two.mp4"
    inputs = ("-i", first.path, "-i", second.path)
    factory.ffmpeg(*inputs, "-map", "0:v", "-map", "0:a", "-map", "1:v", "-map", "1:a", "-c", "copy", path)
    for choice, frames, duration in ((0, 50, 2.0), (1, 150, 3.0)):
        with open_media(path, video_stream=choice, audio_stream=choice) as media:
            assert media.num_frames == frames and media.duration == pytest.approx(duration * 1e6, abs=30_000)
            assert len(media.audio()[0]) == pytest.approx(duration * 16_000, abs=500)
    with open_media(path, video_stream="none") as media:
        assert media.kind == "audio"
    with open_media(path, audio_stream="none") as media:
        assert media.kind == "video" and not media.has_audio


def test_a_declared_but_empty_audio_track_is_no_sound(folder):
    path = folder / "muted.mkv"
    clip = factory.make_clip(folder / "with_sound.mp4", seconds=1.0)
    factory.ffmpeg("-i", clip.path, "-map", "0", "-c", "copy", "-bsf:a", "noise=drop=1", path)
    with open_media(path) as media:
        assert media.kind == "video" and not media.has_audio and media.audio_codec is None


# -- real files -----------------------------------------------------------------------------------------------------

REAL = Path(os.environ.get("SAVEN_MEDIA", Path(__file__).parents[3] / "shared" / "media"))
EXPECTED = {  # kind of sound, frames of FFmpeg's best stream, size
    "nasa_13013.mp4": ("aac", 390, (270, 480)),
    "h265_video.mp4": (None, 10, (128, 128)),
    "av1_video.mkv": (None, 125, (360, 640)),
    "music_duo_60s.mp4": ("mp3", 3600, (360, 640)),
    "silent_15s.mp4": (None, 444, (316, 600)),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_files(name):
    if not (REAL / name).exists():
        pytest.skip(f"{name} is not in the folder of real clips; set SAVEN_MEDIA to it")
    codec, frames, size = EXPECTED[name]
    with open_media(REAL / name) as media:
        assert (media.audio_codec, media.num_frames, (media.height, media.width)) == (codec, frames, size)
        times = media.sample_times(num_frames=8)
        pixels, returned = media.frames_at(times, size=(64, 64))
        assert returned == times and pixels.float().std() > 5
        if codec:
            assert media.audio()[0].abs().max() > 0.01


# -- long files -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_hour_is_streamed_in_flat_memory(tmp_path):
    """One hour, window by window: no rescans, memory does not grow; prints the figures of the documentation."""
    path = tmp_path / "hour.mp4"
    lavfi = ("-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=3600", "-f", "lavfi", "-i", "sine=f=440:r=44100:d=3600")
    factory.ffmpeg(*lavfi, "-c:v", "libx264", "-preset", "ultrafast", "-g", "250", "-c:a", "aac", "-b:a", "64k", path)

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

    figures, begin = {}, time.perf_counter()

    def lap(name):
        nonlocal begin
        figures[name] = round(time.perf_counter() - begin, 2)
        begin = time.perf_counter()

    with open_media(path) as media:
        lap("open")
        times = media.sample_times("fps", fps=1.0)
        samples = 0
        for start in range(0, media.duration, 60_000_000):
            window = [at for at in times if start <= at < start + 60_000_000]
            assert len(media.frames_at(window, (224, 224))[0]) == 60
            samples += len(media.audio(start, start + 60_000_000)[0])
            if start == 300_000_000:
                before = peak()
        grown = peak() - before  # from the sixth minute to the end
        lap("1 fps and sound, by windows of 60 s")
        assert samples == media.num_audio_samples()
        assert len(media.frames_at(media.sample_times("keyframe", num_frames=360), (224, 224))[0]) == 360
        lap("360 key frames")
        media.frames_at(media.sample_times("uniform", num_frames=128), (224, 224))
        lap("128 uniform")
    print(figures, f"peak memory grew by {grown:.0f} MiB while streaming")
    assert grown < 20
    assert figures["open"] < 10 and figures["360 key frames"] < 10 and figures["128 uniform"] < 30
