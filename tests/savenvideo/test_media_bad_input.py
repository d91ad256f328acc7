"""What must be refused: each with a typed, one-line error, quickly, and before anything else is opened."""

import io
import os
import re
import struct
import sys
import time
import zlib
from pathlib import Path

import media_factory as factory
import numpy as np
import pytest

from saven_hf.savenvideo.media import open_media
from saven_hf.savenvideo.media_errors import (
    CorruptMediaError,
    EmptyMediaError,
    MediaBackendError,
    MediaError,
    MediaNotFoundError,
    MediaTooLargeError,
    NoAudioError,
    NoFramesError,
    UnsupportedMediaError,
)
from saven_hf.savenvideo.media_sniff import FileFormat, MediaLimits, MediaSource, open_container


pytestmark = pytest.mark.skipif(factory.FFMPEG is None, reason=factory.NO_FFMPEG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(scope="module")
def clip(folder):
    return factory.make_clip(folder / "good.mp4", seconds=3.0, b_frames=2, output=("-movflags", "+faststart"))


def use_all(source, **options):
    """What `saven ask` does with a file: times, frames and sound."""
    with open_media(source, **options) as media:
        if media.has_video:
            media.frames_at(media.sample_times(num_frames=64), (32, 32))
        if media.has_audio:
            media.audio()
        return media


def refused(source, error, words="", **options):
    """Asserts the type, the form and the speed of a refusal."""
    begin = time.monotonic()
    with pytest.raises(MediaError) as caught:
        use_all(source, **options)
    assert time.monotonic() - begin < 5
    message = str(caught.value)
    assert type(caught.value) is error, f"{type(caught.value).__name__}: {message}"
    assert re.search(words, message), message
    assert "\n" not in message and len(message) > 20
    assert not re.search(r"0x[0-9a-f]{6}|\.cpp|\.pyx|Errno|avcodec|libav|av\.error", message), message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def write(path: Path, data) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


# -- places ---------------------------------------------------------------------------------------------------------


def test_missing_directory_and_empty(folder, tmp_path):
    refused(tmp_path / "missing.mp4", MediaNotFoundError, "no such file")
    refused(str(tmp_path), UnsupportedMediaError, "directory")
    refused(write(tmp_path / "empty.mp4", b""), EmptyMediaError, "empty")
    refused(b"", EmptyMediaError, "empty")
    refused("with\0zero.mp4", MediaNotFoundError, "path")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices as files are Unix")
def test_pipes_and_devices(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(tmp_path / "pipe.mp4", UnsupportedMediaError, "pipe")  # and does not wait for a writer
    refused("/dev/zero", UnsupportedMediaError, "device")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/a.mp4",
        "https://host/a.mp4",
        "file:///etc/passwd",
        "rtsp://host/a",
        "concat:/a|b",
        "ftp://h/a",
    ],
)
def test_urls(url):
    refused(url, UnsupportedMediaError, "URL")
    refused(Path(url), UnsupportedMediaError, "URL")  # pathlib drops one slash


def test_wrong_kinds_of_source(clip):
    refused(3, UnsupportedMediaError, "int")
    refused(None, UnsupportedMediaError, "NoneType")
    with open(clip.path, encoding="latin-1") as text_mode:
        refused(text_mode, UnsupportedMediaError, "'rb'")


# -- first bytes ----------------------------------------------------------------------------------------------------


def test_playlists_that_name_another_file(clip, tmp_path):
    texts = {
        "ffconcat": f"ffconcat version 1.0\nfile '{clip.path}'\n",
        "ffconcat_bom": f"\ufeffffconcat version 1.0\nfile '{clip.path}'\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{clip.path}\n#EXT-X-ENDLIST\n",
        "dash": f'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash"><BaseURL>{clip.path}</BaseURL></MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    for name, text in texts.items():
        refused(write(tmp_path / f"{name}.mp4", text), UnsupportedMediaError, "playlist")
        refused(text.encode(), UnsupportedMediaError, "playlist")
        refused(io.BytesIO(text.encode()), UnsupportedMediaError, "playlist")


def test_even_a_forced_playlist_cannot_open_a_file(clip, monkeypatch):
    """Should the first check ever fail, the decoder still has no protocol to open anything with."""
    monkeypatch.chdir(clip.path.parent)
    text = f"ffconcat version 1.0\nfile {clip.path.name}\n".encode()
    container = None
    with pytest.raises(CorruptMediaError):
        container = open_container(MediaSource(text), FileFormat("playlist", "concat"), MediaLimits())
    assert container is None


def test_text_and_other_files(tmp_path):
    refused(write(tmp_path / "notes.mp4", "Just some words.\n" * 50), UnsupportedMediaError, "text file")
    refused(b"<!DOCTYPE html><html>404</html>", UnsupportedMediaError, "web page")
    refused(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", UnsupportedMediaError, "git lfs pull"
    )
    refused(b"PK\x03\x04" + bytes(100), UnsupportedMediaError, "not a known")
    refused(b"%PDF-1.7\n\x00\x01", UnsupportedMediaError, "not a known")
    refused(bytes(5000), UnsupportedMediaError, "zero bytes")
    refused(np.random.default_rng(0).bytes(50_000), UnsupportedMediaError, "not a known")


# -- damage ---------------------------------------------------------------------------------------------------------


def test_truncated(clip, folder, tmp_path):
    data = clip.path.read_bytes()
    message = refused(write(tmp_path / "cut.mp4", data[: len(data) // 2]), CorruptMediaError, "cut short")
    assert str(len(data) // 2) in message  # both numbers are named
    refused(data[: len(data) // 2], CorruptMediaError, "cut short")
    for name in ("whole.mkv", "whole.avi"):
        audio = ("libmp3lame",) if name.endswith("avi") else ("aac",)
        data = factory.make_clip(folder / name, seconds=2.0, audio_codec=audio).path.read_bytes()
        refused(data[: len(data) // 2], CorruptMediaError, "cut short")
    for suffix in (".wav", ".mp3"):
        data = factory.sound_file(folder, suffix).path.read_bytes()
        refused(data[: len(data) // 2], CorruptMediaError, "cut short")
    data = factory.sound_file(folder, ".flac").path.read_bytes()
    refused(data[: len(data) // 2], CorruptMediaError, "1.* s of 3.00 s")
    whole = factory.make_clip(folder / "index_at_end.mp4", seconds=2.0).path.read_bytes()
    refused(whole[: len(whole) // 2], CorruptMediaError)


def test_header_without_media(clip, tmp_path):
    refused(clip.path.read_bytes()[:1000], CorruptMediaError)
    refused(b"\x1aE\xdf\xa3" + bytes(1000), CorruptMediaError)
    refused(b"\x00\x00\x00\x18ftypisom" + np.random.default_rng(1).bytes(5000), CorruptMediaError)
    refused(b"\x89PNG\r\n\x1a\n" + bytes(100), CorruptMediaError, "PNG")


def test_damaged_content(clip):
    """The picture and the sound overwritten, the header whole: no decoder output is passed on as if it were good."""
    data = bytearray(clip.path.read_bytes())
    start = data.find(b"mdat") + 4
    zeros = bytes(data[:start]) + bytes(len(data) - start)
    refused(zeros, CorruptMediaError)
    noise = bytes(data[:start]) + np.random.default_rng(2).bytes(len(data) - start)
    refused(noise, CorruptMediaError)


def test_random_damage_is_an_error_or_a_picture(clip):
    """A few hundred damaged copies: nothing but a MediaError ever comes out."""
    data, random = clip.path.read_bytes(), np.random.default_rng(3)
    failures = 0
    for _ in range(60):
        damaged = bytearray(data)
        for position in random.integers(0, len(data), 20):
            damaged[position] = random.integers(256)
        try:
            use_all(bytes(damaged))
        except MediaError as error:
            assert "\n" not in str(error)
            failures += 1
    assert failures > 5


def test_nan_in_sound(tmp_path):
    samples = np.zeros(16_000, dtype="<f4")
    samples[8_000] = np.nan
    header = (
        b"RIFF"
        + struct.pack("<I", 36 + samples.nbytes)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 3, 1, 16_000, 64_000, 4, 32)
    )
    wav = header + b"data" + struct.pack("<I", samples.nbytes) + samples.tobytes()
    refused(wav, CorruptMediaError, "NaN")


def test_sound_that_ends_before_its_header_says(clip):
    with open_media(clip.path) as media:
        media._sound.end += 2_000_000
        with pytest.raises(CorruptMediaError, match=r"ends (1.9|2.0)\d s early"):
            media.audio()


def test_joined_recordings_with_two_clocks(folder):
    parts = [factory.make_clip(folder / f"part{i}.ts", seconds=2.0).path.read_bytes() for i in range(2)]
    refused(parts[0] + parts[1], CorruptMediaError, "jump back")


# -- limits and allow-lists -----------------------------------------------------------------------------------------


def test_absurd_dimensions(folder, clip):
    wide = folder / "wide.mp4"
    factory.ffmpeg("-f", "lavfi", "-i", "color=s=8320x64:d=0.2:r=10", "-c:v", "libx264", "-preset", "ultrafast", wide)
    refused(wide, MediaTooLargeError, "8320 x 64.*8192")
    refused(clip.path, MediaTooLargeError, "160 x 96.*10000", limits=MediaLimits(max_pixels=10_000))
    image = factory.image_file(folder, ".png", (100, 200))
    refused(image, MediaTooLargeError, "200 x 100", limits=MediaLimits(max_side=128))


def test_header_that_lies_about_dimensions(clip):
    """The sample entry says 65535 x 65535; nothing of that size may be allocated."""
    data = bytearray(clip.path.read_bytes())
    entry = data.find(b"avc1", data.find(b"stsd"))
    data[entry + 28 : entry + 32] = b"\xff\xff\xff\xff"
    try:
        media = use_all(bytes(data))  # the codec's own header has the true size
        assert (media.width, media.height) == (factory.WIDTH, factory.HEIGHT)
    except MediaError as error:
        assert isinstance(error, (MediaTooLargeError, CorruptMediaError))


def test_png_bomb_is_refused_by_its_header():
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    for side in (9_000, 60_000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))
        refused(png, MediaTooLargeError, "limit")


def test_duration_and_bytes_limits(clip):
    refused(clip.path, MediaTooLargeError, "limit is 2 s", limits=MediaLimits(max_duration=2))
    with open_media(clip.path, limits=MediaLimits(max_decoded_bytes=100_000)) as media:
        with pytest.raises(MediaTooLargeError, match="184320 bytes, the limit is 100000"):
            media.frames_at([0, 1_000_000, 2_000_000, 2_500_000])
        with pytest.raises(MediaTooLargeError):
            media.audio()


def test_codecs_outside_of_the_allow_list(folder):
    lossless = folder / "ffv1.mkv"
    factory.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:d=0.2", "-c:v", "ffv1", lossless)
    refused(lossless, UnsupportedMediaError, "ffv1")
    sound = factory.make_clip(folder / "wma.mkv", seconds=1.0, audio_codec=("wmav2",))
    refused(sound.path, UnsupportedMediaError, "wmav2")
    assert not use_all(sound.path, audio_stream="none").has_audio
    assert use_all(lossless, limits=MediaLimits(video_codecs=("ffv1",))).has_video


def test_no_frames_and_no_sound(folder):
    silent, sound = factory.silent_video(folder), factory.sound_file(folder, ".wav")
    with open_media(silent.path) as media:
        assert not media.has_audio and media.num_audio_samples() == 0
        with pytest.raises(NoAudioError, match="no sound"):
            media.audio()
    with open_media(sound.path) as media:
        assert not media.has_video
        for call in (media.sample_times, lambda: media.frames_at([0])):
            with pytest.raises(NoFramesError, match="no picture"):
                call()
    refused(silent.path, UnsupportedMediaError, "audio stream 0 was asked for; the file has 0", audio_stream=0)
    refused(silent.path, NoFramesError, "no stream left", video_stream="none")
    zero = folder / "zero.mp4"
    factory.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:d=1", "-frames:v", "1", "-c:v", "libx264", zero)
    # the one frame taken out of the sample tables: a video of no frames
    data = zero.read_bytes()
    for table, at in ((b"stsz", 12), (b"stts", 8), (b"stsc", 8), (b"stco", 8)):
        position = data.find(table) + at
        data = data[:position] + bytes(4) + data[position + 4 :]
    refused(data, NoFramesError)


def test_animated_images_other_than_gif(tmp_path):
    from PIL import Image

    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    refused(tmp_path / "a.webp", UnsupportedMediaError, "animated")


def test_missing_library_names_the_install_line(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    refused(clip.path, MediaBackendError, "pip install 'av>=15'")


def test_questions_that_make_no_sense(clip):
    with open_media(clip.path) as media:
        for options in (
            {"sampling": "random"},
            {"num_frames": 0},
            {"sampling": "fps"},
            {"sampling": "fps", "fps": -1.0},
        ):
            with pytest.raises(ValueError):
                media.sample_times(**options)
        with pytest.raises(ValueError):
            media.frames_at([0], size=(0, 10))
    with pytest.raises(ValueError, match="closed"):
        media.frames_at([0])
    with pytest.raises(ValueError, match="closed"):
        media.audio()
