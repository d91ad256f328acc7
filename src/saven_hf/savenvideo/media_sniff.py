"""What is looked at before any decoder sees a file: where it comes from, its first bytes, whether it is whole.

A "video" can be a text that makes the decoder open another local file or a URL (ffconcat, HLS, DASH, SDP). So only
files whose first bytes are those of a known container pass, the demuxer is chosen here and not by guessing, and the
decoder is never given a path: it reads through `MediaSource` and is allowed no protocol of its own.
"""

import fnmatch
import io
import os
import re
import stat
import struct
import threading
from dataclasses import dataclass, field

from .media_errors import (
    CorruptMediaError,
    EmptyMediaError,
    MediaBackendError,
    MediaNotFoundError,
    UnsupportedMediaError,
    decoder_errors,
)


HEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class MediaLimits:
    """What is refused before, or instead of, decoding it. Raise a limit for files that you trust."""

    max_side: int = field(default=8192, metadata={"help": "Largest width or height of a frame or image, pixels."})
    max_pixels: int = field(default=64_000_000, metadata={"help": "Most pixels in one frame or image."})
    max_duration: float = field(default=24 * 3600.0, metadata={"help": "Longest video or sound, seconds."})
    max_streams: int = field(default=64, metadata={"help": "Most streams in one file."})
    max_decoded_bytes: int = field(
        default=16 * 2**30, metadata={"help": "Most bytes that one call may return as frames or as sound."}
    )
    min_sample_rate: int = field(default=4_000, metadata={"help": "Lowest sample rate of a sound track, Hz."})
    max_sample_rate: int = field(default=384_000, metadata={"help": "Highest sample rate of a sound track, Hz."})
    video_codecs: tuple[str, ...] = field(
        default=("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "mpeg2video", "mpeg1video", "gif"),
        metadata={"help": "Video codecs that may be decoded (FFmpeg's codec names, * allowed)."},
    )
    audio_codecs: tuple[str, ...] = field(
        default=("aac", "mp3", "mp2", "opus", "vorbis", "flac", "alac", "ac3", "eac3", "pcm_*"),
        metadata={"help": "Audio codecs that may be decoded (FFmpeg's codec names, * allowed)."},
    )
    subtitle_codecs: tuple[str, ...] = field(
        default=("subrip", "ass", "ssa", "mov_text", "webvtt", "text"),
        metadata={"help": "Subtitle codecs that may be decoded (FFmpeg's codec names, * allowed)."},
    )

    def allows(self, kind: str, codec: str) -> bool:
        """Whether a codec (FFmpeg's name) of `kind` "video", "audio" or "subtitle" may be decoded."""
        return any(fnmatch.fnmatchcase(codec, pattern) for pattern in getattr(self, f"{kind}_codecs"))


@dataclass(frozen=True)
class FileFormat:
    """A recognised file: its name for messages, and what reads it (one of the two)."""

    name: str
    demuxer: str | None = None  # FFmpeg's short name; forced, so that no other demuxer ever sees the bytes
    pillow: str | None = None  # Pillow's format name


# ---------------------------------------------------------------------------------------------------------------------
# Where the bytes come from


class MediaSource:
    """A regular local file, bytes, or a binary file object, read at any offset.

    Args:
        source: a path (`str` or `os.PathLike`), `bytes`-like data, or a binary file object with `read` and `seek`
            (read from its beginning, whatever its position; not closed). URLs, directories, devices and pipes are
            refused.
    """

    def __init__(self, source):
        self._lock = threading.Lock()
        self._owned = True
        if isinstance(source, (str, os.PathLike)):
            self.label = os.fsdecode(os.fspath(source))
            self._file = _open_regular_file(self.label)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            self.label = f"<{len(source)} bytes>"
            self._file = io.BytesIO(source)
        elif callable(getattr(source, "read", None)) and callable(getattr(source, "seek", None)):
            name = getattr(source, "name", None)
            self.label = name if isinstance(name, str) else "<file object>"
            self._file, self._owned = source, False
            if isinstance(source, io.TextIOBase):
                raise UnsupportedMediaError(f"{self.label}: this file object is in text mode; open it with mode 'rb'.")
        else:
            raise UnsupportedMediaError(
                f"Media is a path, bytes or a binary file object with read and seek, not {type(source).__name__}."
            )
        try:
            with decoder_errors(self.label, "reading", MediaNotFoundError, "the file or file object cannot be read"):
                self.size = self._file.seek(0, io.SEEK_END)
                self.head = self.read_at(0, HEAD_BYTES)
            if not self.head:
                raise EmptyMediaError(f"{self.label}: the file is empty (0 bytes); fetch or record it again.")
        except Exception:
            self.close()
            raise

    def read_at(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size) or b""

    def view(self) -> "SourceView":
        """An independent reader over the same bytes (several decoders share one source)."""
        return SourceView(self)

    def close(self):
        if self._owned:
            self._file.close()


class SourceView(io.RawIOBase):
    """A read-only file over a `MediaSource` with a position of its own. Closing it does not close the source."""

    def __init__(self, source: MediaSource):
        self._source = source
        self._position = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self._position

    def seek(self, offset, whence=io.SEEK_SET):
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size=-1):
        size = self._source.size - self._position if size is None or size < 0 else size
        data = self._source.read_at(self._position, max(size, 0))
        self._position += len(data)
        return data

    def readinto(self, buffer):
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _open_regular_file(path: str):
    # a scheme has two letters or more, so that "C:\clip.mp4" stays a path; pathlib makes "http:/host" of a URL
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path)
    if scheme and not os.path.exists(path):
        raise UnsupportedMediaError(f"{path}: URLs are not opened; download the file and pass its local path.")
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            # O_NONBLOCK: should the path have turned into a pipe meanwhile, opening it must not wait for a writer
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            descriptor = os.open(path, flags)
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode):
                return os.fdopen(descriptor, "rb", buffering=0)
            os.close(descriptor)
    except FileNotFoundError:
        raise MediaNotFoundError(f"{path}: there is no such file; check the path.") from None
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or "not a valid path"
        raise MediaNotFoundError(f"{path}: the file cannot be opened ({reason}).") from None
    kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, socket or device"
    raise UnsupportedMediaError(f"{path}: this is {kind}, not a media file; pass the path of one file.")


# ---------------------------------------------------------------------------------------------------------------------
# What the first bytes say


MP4, MATROSKA, AVI = FileFormat("MP4/MOV", "mov"), FileFormat("Matroska/WebM", "matroska"), FileFormat("AVI", "avi")
WAV, MP3, ADTS, FLAC = (
    FileFormat("WAV", "wav"),
    FileFormat("MP3", "mp3"),
    FileFormat("AAC", "aac"),
    FileFormat("FLAC", "flac"),
)
GIF_ANIMATION = FileFormat("animated GIF", "gif")
_PREFIXES = (
    (b"\x1aE\xdf\xa3", MATROSKA),
    (b"\x00\x00\x01\xba", FileFormat("MPEG program stream", "mpeg")),
    (b"FLV\x01", FileFormat("FLV", "flv")),
    (b"OggS", FileFormat("Ogg", "ogg")),
    (b"fLaC", FLAC),
    (b"\xff\xd8\xff", FileFormat("JPEG", pillow="JPEG")),
    (b"\x89PNG\r\n\x1a\n", FileFormat("PNG", pillow="PNG")),
    (b"GIF87a", FileFormat("GIF", pillow="GIF")),
    (b"GIF89a", FileFormat("GIF", pillow="GIF")),
)
_RIFF = {b"AVI ": AVI, b"WAVE": WAV, b"WEBP": FileFormat("WebP", pillow="WEBP")}
_MP4_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
ACCEPTED = (
    "video: MP4/MOV, Matroska/WebM, AVI, MPEG-TS, MPEG-PS, FLV, GIF; "
    "sound: WAV, MP3, FLAC, Ogg/Opus, M4A, AAC, AIFF; image: JPEG, PNG, WebP, GIF, BMP, AVIF"
)


def sniff(source: MediaSource) -> FileFormat:
    """The format of a file by its first bytes, or `UnsupportedMediaError`. File names play no part."""
    head = source.head
    for prefix, file_format in _PREFIXES:
        if head.startswith(prefix):
            return file_format
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] in _MP4_BOXES and len(head) >= 12:
        brand = head[8:12] if head[4:8] == b"ftyp" else b""
        if brand in (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            if b"avif" in head[8:64]:  # the major brand, or one of the compatible ones after it
                return FileFormat("AVIF", pillow="AVIF")
            raise UnsupportedMediaError(f"{source.label}: HEIF images are not read; convert it to JPEG or PNG.")
        return MP4
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return FileFormat("AIFF", "aiff")
    if head[:2] == b"BM" and len(head) > 26 and struct.unpack("<I", head[14:18])[0] in (12, 40, 52, 56, 108, 124):
        return FileFormat("BMP", pillow="BMP")
    if _is_transport_stream(head):
        return FileFormat("MPEG transport stream", "mpegts")
    if head.startswith(b"ID3"):
        after = source.read_at(_id3_length(head), 4096)
        if after.startswith(b"fLaC"):
            return FLAC
        return _mpeg_audio(after) or MP3
    mpeg_audio = _mpeg_audio(head)
    if mpeg_audio:
        return mpeg_audio
    raise UnsupportedMediaError(f"{source.label}: {_describe_unknown(head)}. Accepted are {ACCEPTED}.")


def _is_transport_stream(head: bytes) -> bool:
    # 188-byte packets that begin with 0x47; Blu-ray and AVCHD put four bytes before each
    for first, stride in ((0, 188), (4, 192)):
        syncs = head[first : first + 5 * stride : stride]
        if len(syncs) >= 2 and set(syncs) == {0x47}:
            return True
    return False


def _id3_length(head: bytes) -> int:
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _mpeg_audio(data: bytes) -> FileFormat | None:
    if len(data) < 4 or data[0] != 0xFF:
        return None
    if data[1] & 0xF6 == 0xF0:
        return ADTS
    sync, version, layer = data[1] & 0xE0 == 0xE0, data[1] >> 3 & 3, data[1] >> 1 & 3
    bit_rate, sample_rate = data[2] >> 4, data[2] >> 2 & 3
    return MP3 if sync and version != 1 and layer != 0 and bit_rate != 15 and sample_rate != 3 else None


def _describe_unknown(head: bytes) -> str:
    start = head[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    lowered = start[:512].lower()
    if not any(head):
        return "the file begins with nothing but zero bytes; it was probably never fully written"
    if start.startswith(b"version https://git-lfs"):
        return "this is a Git LFS pointer, not the media itself; run `git lfs pull`"
    playlists = (b"#extm3u", b"ffconcat", b"[playlist]", b"<asx", b"v=0")
    if lowered.startswith(playlists) or b"<mpd" in lowered or b"<smoothstreamingmedia" in lowered:
        return "this is a playlist, which names other files; pass the media file itself"
    if lowered.startswith((b"<!doctype html", b"<html")):
        return "this is a web page, not media; the download probably failed"
    printable = sum(byte >= 32 or byte in b"\t\n\r" for byte in start)
    if b"\x00" not in start and printable == len(start):
        return "this is a text file, not media"
    return "this is not a known media container"


# ---------------------------------------------------------------------------------------------------------------------
# Is the file whole?


def check_whole(source: MediaSource, file_format: FileFormat):
    """Compares the size that a container states for itself with the bytes there are; raises if it is cut short.

    Decoders answer a cut file by silently returning less (half of the sound, say). Containers that state no size
    (MPEG-TS, Ogg, AAC) pass.
    """
    checks = {
        "mov": _stated_mp4,
        "matroska": _stated_matroska,
        "avi": _stated_riff,
        "wav": _stated_riff,
        "mp3": _stated_mp3,
    }
    stated = checks.get(file_format.demuxer, lambda source: None)(source)
    if stated is not None and stated > source.size:
        raise CorruptMediaError(
            f"{source.label}: the file is cut short: {source.size} bytes are there, its header states {stated}. "
            f"Fetch it again, or try to keep what is there with `ffmpeg -i {source.label} -c copy repaired.mkv`."
        )


def _stated_mp4(source: MediaSource) -> int | None:
    position, end = 0, source.size
    for _ in range(100_000):  # a fragmented file has two boxes a fragment
        header = source.read_at(position, 16)
        if len(header) < 8:
            return None
        size, kind = struct.unpack(">I4s", header[:8])
        if size == 1 and len(header) == 16:
            size = struct.unpack(">Q", header[8:])[0]
        elif size == 0:  # "up to the end of the file"
            return None
        if size < 8:
            return None
        # free space or user data that is cut loses nothing; some writers pad the last box carelessly
        if position + size > end and kind in (b"mdat", b"moov", b"moof"):
            return position + size
        position += size
        if position >= end:
            return None
    return None


def _stated_matroska(source: MediaSource) -> int | None:
    position, segment = 4, b"\x18\x53\x80\x67"
    size, width = _ebml_size(source.read_at(position, 8))
    if size is None:
        return None
    position += width + size
    if source.read_at(position, 4) != segment:
        return None
    size, width = _ebml_size(source.read_at(position + 4, 8))
    return None if size is None else position + 4 + width + size


def _ebml_size(data: bytes) -> tuple[int | None, int]:
    """An EBML variable-length size and its width in bytes; None for the "unknown" of live recordings."""
    if not data or data[0] == 0:
        return None, 1
    width = 9 - data[0].bit_length()
    value = int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width


def _stated_riff(source: MediaSource) -> int | None:
    size = struct.unpack("<I", source.head[4:8])[0]
    # writers to a pipe cannot know the size and leave 0 or the maximum; RF64 keeps it elsewhere
    return None if source.head[:4] == b"RF64" or size in (0, 0xFFFFFFFF, 0x7FFFFFFF) else size


def _stated_mp3(source: MediaSource) -> int | None:
    start = _id3_length(source.head) if source.head.startswith(b"ID3") else 0
    frame = source.read_at(start, 256)
    for tag in (b"Xing", b"Info"):
        at = frame.find(tag, 4, 64)
        if at > 0:
            flags = struct.unpack(">I", frame[at + 4 : at + 8])[0]
            at += 8 + (4 if flags & 1 else 0)
            return start + struct.unpack(">I", frame[at : at + 4])[0] if flags & 2 else None
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Opening with a forced demuxer


def import_av():
    """PyAV, imported when the first file is opened and not before."""
    try:
        import av
    except ImportError:
        raise MediaBackendError(
            "Reading video and sound needs PyAV, which is not installed: pip install 'av>=15' (FFmpeg comes with it)."
        ) from None
    if int(av.__version__.split(".")[0]) < 15:  # frame rotation, codecs' canonical names and dispositions as used here
        raise MediaBackendError(f"PyAV {av.__version__} is too old to read media, 15 is needed: pip install 'av>=15'.")
    return av


_DECODERS: dict[tuple[str, ...], str] = {}


def _allowed_decoders(av, limits: MediaLimits) -> str:
    """The comma-separated decoders of the allowed codecs, by FFmpeg's decoder names ("mp3float" decodes "mp3")."""
    key = limits.video_codecs + limits.audio_codecs + limits.subtitle_codecs
    if key not in _DECODERS:
        names = []
        for name in sorted(av.codecs_available):
            try:
                codec = av.codec.Codec(name, "r")
            except ValueError:  # an encoder
                continue
            if codec.type in ("video", "audio", "subtitle") and limits.allows(codec.type, codec.canonical_name):
                names.append(name)
        _DECODERS[key] = ",".join(names)
    return _DECODERS[key]


def open_container(source: MediaSource, file_format: FileFormat, limits: MediaLimits, **demuxer_options: str):
    """A PyAV input container over the source, with the demuxer forced, every protocol and all other codecs refused."""
    av = import_av()
    options = {
        "protocol_whitelist": "none",  # the bytes come through SourceView; nothing in the file may open anything else
        "codec_whitelist": _allowed_decoders(av, limits),
        "max_pixels": str(limits.max_pixels),
        "max_streams": str(limits.max_streams),
        **demuxer_options,
    }
    advice = (
        f"its header cannot be read as {file_format.name}; the file is damaged or its recording or download never "
        "finished. Fetch it again"
    )
    with decoder_errors(source.label, "opening", advice=advice):
        return av.open(
            source.view(), format=file_format.demuxer, options=options, metadata_errors="ignore", buffer_size=1 << 16
        )


_DISCARD_ALL = 48  # FFmpeg's AVDISCARD_ALL


def read_only(container, *streams):
    """Tells the demuxer which streams are wanted; the data of others is not even read where the format allows it."""
    wanted = {stream.index for stream in streams}
    for stream in container.streams:
        if stream.index not in wanted:
            try:
                stream.discard = _DISCARD_ALL
            except AttributeError:  # a PyAV without this property: its demux() drops those packets, only later
                return
