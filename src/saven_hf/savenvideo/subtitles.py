"""Timed text: subtitle files and embedded subtitle streams, and their form in a prompt.

Files and streams take the same way, FFmpeg's subtitle demuxers and decoders, so that every dialect it knows is read
alike. The demuxer is chosen here by the text itself and the bytes are handed over, as for all media.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .media import open_media
from .media_errors import NoSubtitlesError, UnsupportedMediaError, decoder_errors
from .media_sniff import FileFormat, MediaLimits, MediaSource, open_container, read_only
from .media_video import is_end, to_microseconds
from .times import format_time


MAX_SUBTITLE_BYTES = 64 * 2**20
_OVERRIDES = re.compile(r"\{[^{}]*\}")  # ASS style overrides, to which FFmpeg also turns <i> and the like
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>")
_TIMING = re.compile(r"(?m)^\s*(?:\d+:)?\d{1,2}:\d{1,2}[,.:]\d+\s*-->")


@dataclass(frozen=True)
class Subtitle:
    """One piece of timed text, shown from `start` to `end` (microseconds), without markup."""

    start: int
    end: int
    text: str


def read_subtitles(source, limits: MediaLimits | None = None) -> list[Subtitle]:
    """Subtitles of an .srt, .vtt or .ass / .ssa file, in order of time; times as the file states them.

    Args:
        source: path, bytes or binary file object. UTF-8 (with or without byte order mark), UTF-16 with its mark, else
            Latin-1.
    """
    media_source = MediaSource(source)
    try:
        if media_source.size > MAX_SUBTITLE_BYTES:
            raise UnsupportedMediaError(
                f"{media_source.label}: {media_source.size} bytes are too many for subtitles; the limit "
                f"is {MAX_SUBTITLE_BYTES}."
            )
        text = _decode_text(media_source.read_at(0, media_source.size))
        label = media_source.label
    finally:
        media_source.close()
    if text.lstrip().startswith("WEBVTT"):
        file_format = FileFormat("WebVTT", "webvtt")
    elif "[script info]" in text[:4096].lower() or re.search(r"(?m)^Dialogue:", text):
        file_format = FileFormat("ASS", "ass")
        text = text if text.lstrip().lower().startswith("[script info]") else "[Script Info]\n" + text
    elif _TIMING.search(text):
        file_format = FileFormat("SubRip", "srt")
    else:
        raise UnsupportedMediaError(f"{label}: this is not a subtitle file; .srt, .vtt and .ass are read.")
    # (FFmpeg's demuxers want the signature at the very beginning)
    encoded = MediaSource(io.BytesIO(text.lstrip().encode("utf-8")))
    encoded.label = label
    container = open_container(encoded, file_format, limits or MediaLimits())
    try:
        return _decode_stream(container, container.streams.subtitles[0], label, 0)
    finally:
        container.close()


def embedded_subtitles(media, stream: int = 0, limits: MediaLimits | None = None) -> list[Subtitle]:
    """Text subtitles inside of a video file, on the clock of its frames and sound.

    Args:
        media: an opened `Media`, or whatever `open_media` takes.
        stream: which of the file's subtitle streams, counted from 0.

    Raises:
        NoSubtitlesError: no such stream, or it holds pictures instead of text.
    """
    if not hasattr(media, "clock_offset"):
        with open_media(media, limits=limits) as opened:
            return embedded_subtitles(opened, stream)
    label = media.label
    if media.kind == "image":
        raise NoSubtitlesError(f"{label}: an image has no subtitles.")
    container = media.open_container()
    try:
        streams = container.streams.subtitles
        if not 0 <= stream < len(streams):
            raise NoSubtitlesError(
                f"{label}: subtitle stream {stream} was asked for, the file has {len(streams)}; pass a subtitle "
                "file instead."
            )
        chosen = streams[stream]
        codec = "unknown" if chosen.codec_context is None else chosen.codec_context.codec.canonical_name
        if not media.limits.allows("subtitle", codec):
            raise NoSubtitlesError(
                f"{label}: its subtitles ({codec}) are pictures or of an unknown kind, not text; pass a .srt "
                "file instead."
            )
        return _decode_stream(container, chosen, label, media.clock_offset)
    finally:
        container.close()


def format_subtitles(subtitles: Sequence[Subtitle], start: int | None = None, end: int | None = None) -> str:
    """Timed text for a prompt, one line each: "[00:00:01.000 - 00:00:03.500] words".

    Args:
        start, end: microseconds; only subtitles shown at some time in [start, end) are written, with their own times.
    """
    lines = []
    for subtitle in subtitles:
        if (end is None or subtitle.start < end) and (start is None or subtitle.end > start):
            words = " ".join(subtitle.text.split())
            lines.append(f"[{format_time(subtitle.start)} - {format_time(subtitle.end)}] {words}")
    return "\n".join(lines)


def _decode_text(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _decode_stream(container, stream, label: str, clock_offset: int) -> list[Subtitle]:
    """All texts of one subtitle stream; the clock's zero is at `clock_offset` microseconds of container time."""
    subtitles = []
    read_only(container, stream)
    with decoder_errors(label, "reading its subtitles"):
        for packet in container.demux(stream):
            if is_end(packet) or packet.pts is None or not packet.size:
                continue
            start = int(to_microseconds(packet.pts, stream.time_base))
            end = start + int(to_microseconds(packet.duration or 0, stream.time_base))
            texts = [_plain(piece.ass) for piece in packet.decode() if hasattr(piece, "ass")]
            text = "\n".join(text for text in texts if text)
            if text:
                subtitles.append(Subtitle(start - clock_offset, end - clock_offset, text))
    return sorted(subtitles, key=lambda subtitle: (subtitle.start, subtitle.end))


def _plain(event: bytes) -> str:
    """The text of an ASS event without markup: style overrides, tags, hard spaces and hard line breaks."""
    # eight fields stand before the text; (PyAV's own `dialogue` fails on other than ASCII before 17)
    text = event.decode("utf-8", errors="replace").split(",", 8)[-1]
    text = text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    text = _TAGS.sub("", _OVERRIDES.sub("", text))
    return "\n".join(line for line in (line.strip() for line in text.splitlines()) if line)
