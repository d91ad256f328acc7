"""Subtitle files of every dialect, embedded subtitles, and timed text for a prompt."""

import media_factory as factory
import pytest

from saven_hf.savenvideo.media import open_media
from saven_hf.savenvideo.media_errors import (
    EmptyMediaError,
    MediaNotFoundError,
    NoSubtitlesError,
    UnsupportedMediaError,
)
from saven_hf.savenvideo.subtitles import Subtitle, embedded_subtitles, format_subtitles, read_subtitles


HELLO, LINES = Subtitle(1_000_000, 2_500_000, "Hello, world"), Subtitle(3_000_000, 4_250_000, "Two\nlines")
needs_ffmpeg = pytest.mark.skipif(factory.FFMPEG is None, reason=factory.NO_FFMPEG)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_subrip(tmp_path, encoding, newline):
    path = tmp_path / "words.srt"
    path.write_bytes(factory.SRT.replace("world", "w\xf6rld").replace("\n", newline).encode(encoding))
    expected = [Subtitle(HELLO.start, HELLO.end, "Hello, w\xf6rld"), LINES]
    assert read_subtitles(path) == expected
    assert read_subtitles(path.read_bytes()) == expected


def test_webvtt():
    text = (
        "WEBVTT - a title\n\nNOTE not shown\n\n"
        "00:01.000 --> 00:02.500 align:start\n<v Bob>Hello</v>, <c.red>world</c>\n\n"
        "named\n01:00:03.000 --> 01:00:04.250\nfish &amp; chips\n"
    )
    expected = [HELLO, Subtitle(3_603_000_000, 3_604_250_000, "fish & chips")]
    assert read_subtitles(text.encode()) == read_subtitles(text.encode("utf-8-sig")) == expected


def test_ass():
    text = (
        "[Script Info]\nScriptType: v4.00+\n\n[Events]\n"
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Dialogue: 0,0:00:03.00,0:00:04.25,Default,,0,0,0,,{\\an8}Two\\Nlines\n"
        "Comment: 0,0:00:03.00,0:00:04.25,Default,,0,0,0,,not shown\n"
        "Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,{\\i1}Hello{\\i0}, world\n"
    )
    assert read_subtitles(text.encode()) == [HELLO, LINES]


def test_what_is_no_subtitle_file(tmp_path):
    with pytest.raises(UnsupportedMediaError, match="not a subtitle file"):
        read_subtitles(b"Just words.")
    with pytest.raises(UnsupportedMediaError, match="not a subtitle file"):
        read_subtitles(b"ffconcat version 1.0\nfile 'other.srt'\n")
    with pytest.raises(EmptyMediaError):
        read_subtitles(b"")
    with pytest.raises(MediaNotFoundError):
        read_subtitles(tmp_path / "missing.srt")


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_embedded(tmp_path, suffix):
    clip = factory.with_subtitles(tmp_path, suffix)
    assert embedded_subtitles(clip.path) == [HELLO, LINES]
    with open_media(clip.path) as media:
        assert embedded_subtitles(media) == [HELLO, LINES]
        assert media.num_frames == 150  # and the media stays usable
    with pytest.raises(NoSubtitlesError, match="stream 1 .* has 1"):
        embedded_subtitles(clip.path, stream=1)


@needs_ffmpeg
def test_embedded_are_on_the_clock_of_the_frames(tmp_path):
    """A container whose timestamps begin at 20 s: subtitles move with frames and sound."""
    clip = factory.with_subtitles(tmp_path)
    moved = tmp_path / "moved.mkv"
    factory.ffmpeg("-i", clip.path, "-map", "0", "-c", "copy", "-output_ts_offset", "20", moved)
    with open_media(moved) as media:
        assert media.clock_offset > 19_000_000
        assert [(s.start, s.text) for s in embedded_subtitles(media)] == [
            (HELLO.start, HELLO.text),
            (LINES.start, LINES.text),
        ]


@needs_ffmpeg
def test_none_embedded(tmp_path):
    with pytest.raises(NoSubtitlesError, match="has 0"):
        embedded_subtitles(factory.silent_video(tmp_path).path)
    with pytest.raises(NoSubtitlesError):
        embedded_subtitles(factory.image_file(tmp_path, ".png"))


def test_timed_text():
    both = [HELLO, LINES]
    assert (
        format_subtitles(both) == "[00:00:01.000 - 00:00:02.500] Hello, world\n[00:00:03.000 - 00:00:04.250] Two lines"
    )
    assert format_subtitles(both, 2_500_000, 3_000_000) == ""
    assert format_subtitles(both, 2_400_000, 3_000_000) == "[00:00:01.000 - 00:00:02.500] Hello, world"
    assert format_subtitles(both, start=3_500_000) == "[00:00:03.000 - 00:00:04.250] Two lines"
    assert format_subtitles([]) == ""
