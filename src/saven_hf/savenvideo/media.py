"""A media file as frames, sound and true times on one clock.

    with open_media("talk.mp4") as media:
        times = media.sample_times("uniform", num_frames=16)      # microseconds, the PTS of real frames
        frames, times = media.frames_at(times, size=(384, 384))   # uint8 (16, 3, 384, 384)
        waveform, start = media.audio()                           # float32 (samples,) at 16 kHz, time of sample 0

Zero of the clock is the start of the earliest of the chosen streams, as in players, except that sound which starts
less than 0.1 s before the picture (a codec's priming) keeps a small negative time. Late sound and late pictures stay
late. Local files, bytes and binary file objects only; what is refused, and why, is in `media_sniff`.
"""

import warnings

import numpy as np
import torch

from .media_audio import AudioReader
from .media_errors import (
    CorruptMediaError,
    MediaTooLargeError,
    NoAudioError,
    NoFramesError,
    UnsupportedMediaError,
    decoder_errors,
)
from .media_sniff import GIF_ANIMATION, MediaLimits, MediaSource, check_whole, open_container, read_only, sniff
from .media_video import FrameIndex, FrameReader, PacketLog, choose_frames, is_end, quarter_turns, to_microseconds


# Our decision: sound that starts this little before the picture is codec priming and does not move the zero.
_PRIMING_US = 100_000
_LONGEST_DELAY_US = 1_000_000
_ATTACHED_PICTURE = 1 << 10  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
_RESAMPLES = ("bilinear", "bicubic", "area", "lanczos", "point")


def open_media(
    source,
    *,
    video_stream: int | str | None = None,
    audio_stream: int | str | None = None,
    limits: MediaLimits | None = None,
    num_threads: int = 1,
) -> "Media":
    """Opens a video, sound or image file. Use it as a context manager, or call `close()`.

    Args:
        source: path (`str` or `os.PathLike`), bytes, or a binary file object with `read` and `seek`.
        video_stream: which video stream, counted from 0 among the file's video streams; None takes FFmpeg's best
            one, "none" leaves the picture out.
        audio_stream: which audio track, counted from 0 among the file's audio tracks; None takes FFmpeg's best one,
            "none" leaves the sound out.
        limits: what to refuse; see `MediaLimits`.
        num_threads: threads of the video decoder (0: as many as FFmpeg likes). One is fastest on a small machine
            and when several files are read at once.

    Raises:
        MediaError: one of its subclasses, with a one-line message, before any frame is returned.
    """
    limits = limits or MediaLimits()
    media_source = MediaSource(source)
    try:
        file_format = sniff(media_source)
        if file_format.pillow:
            image = _open_image(media_source, file_format, limits)
            if image is not None:
                return Media._of_image(media_source, file_format, limits, image)
            file_format = GIF_ANIMATION
        check_whole(media_source, file_format)
        return Media._of_streams(media_source, file_format, limits, video_stream, audio_stream, num_threads)
    except BaseException:
        media_source.close()
        raise


class Media:
    """An opened media file. Times are integer microseconds on the shared clock.

    Attributes:
        kind (`str`): "video", "image" or "audio".
        duration (`int`): end of the last frame or sample, microseconds; 0 for an image.
        has_video, has_audio (`bool`): whether there are frames (an image is one) and sound.
        width, height (`int`): of the frames as they are returned, after rotation; 0 without frames.
        rotation (`int`): degrees counter-clockwise by which stored frames are turned, already applied.
        num_frames (`int`), average_fps (`float`): of the video stream.
        audio_start, audio_end (`int`): time of the first sample and of the end of the last one.
        sample_rate, channels (`int`): of the track as stored.
        clock_offset (`int`): what was subtracted from the container's timestamps to get the shared clock.
        container, video_codec, audio_codec (`str` or None): names for people.
        label (`str`): the file's name in messages.
    """

    def __init__(self, source: MediaSource, file_format, limits: MediaLimits, kind: str):
        self.label, self.container, self.kind, self.limits = source.label, file_format.name, kind, limits
        self.duration = self.width = self.height = self.rotation = self.num_frames = self.clock_offset = 0
        self.audio_start = self.audio_end = self.sample_rate = self.channels = 0
        self.average_fps = 0.0
        self.video_codec = self.audio_codec = None
        self._source, self._file_format = source, file_format
        self._frames: FrameReader | None = None
        self._sound: AudioReader | None = None
        self._image = None
        self._closed = False

    # -- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def _of_image(cls, source, file_format, limits, image) -> "Media":
        media = cls(source, file_format, limits, "image")
        media._image = image
        media.height, media.width = image.shape[:2]
        media.num_frames = 1
        return media

    @classmethod
    def _of_streams(cls, source, file_format, limits, video_stream, audio_stream, num_threads) -> "Media":
        container = open_container(source, file_format, limits)
        try:
            video = _choose_stream(container, "video", video_stream, source.label)
            audio = _choose_stream(container, "audio", audio_stream, source.label)
            if video is None and audio is None:
                kinds = (
                    "neither a video nor an audio stream" if not (video_stream or audio_stream) else "no stream left"
                )
                raise NoFramesError(f"{source.label}: the file holds {kinds} to read; pass another file.")
            media = cls(source, file_format, limits, "audio" if video is None else "video")
            if container.duration and container.duration / 1e6 > limits.max_duration:
                media._refuse_duration(container.duration)
            if video is not None:
                _check_video_header(video, limits, source.label)
                media.video_codec = video.codec_context.codec.canonical_name
            if audio is not None:
                _check_audio_header(audio, limits, source.label)
                media.audio_codec = audio.codec_context.codec.canonical_name
                media.sample_rate, media.channels = audio.codec_context.sample_rate, audio.codec_context.channels
            start, length = (None, None) if audio is None else (audio.start_time, audio.duration)
            stated = file_format.demuxer == "mov" and start is not None and length
            # MP4 states exactly where each track ends; elsewhere only the last packet tells
            video_packets, audio_packets, audio_end = _scan(container, video, None if stated else audio, source.label)
            if stated:
                audio_packets, audio_end = audio.frames or 1, int(to_microseconds(start + length, audio.time_base))
            elif file_format.demuxer == "flac" and length:
                _check_flac_end(audio_end, int(to_microseconds(length, audio.time_base)), source.label)
            if video is not None:
                media._frames = FrameReader(source, file_format, limits, video.index, num_threads)
                media._frames.index = FrameIndex(video_packets, video.time_base, source.label)
                if file_format.demuxer == "mov" and not all(video_packets.shown):
                    media._frames.index.delay(_delay_after_cut(source, file_format, limits, video.index))
            if audio is not None and audio_packets:
                media._sound = AudioReader(source, file_format, limits, audio.index)
                media._sound.packets, media._sound.end = audio_packets, audio_end
        finally:
            container.close()
        try:
            media._finish_opening()
        except BaseException:
            media.close()
            raise
        return media

    def _finish_opening(self):
        sound, frames = self._sound, self._frames
        if sound is not None and (sound.is_empty or sound.end <= sound.start):
            # a track that is declared but holds nothing (a muted recording) is no sound
            sound.close()
            sound = self._sound = None
        if sound is None:
            self.audio_codec, self.sample_rate, self.channels = None, 0, 0
        if frames is None and sound is None:
            raise NoAudioError(f"{self.label}: its audio track holds no sound that can be decoded; fetch it again.")
        start = end = None
        if frames is not None:
            index = frames.index
            start, end = index.start, index.end
            self.num_frames = len(index)
            self.average_fps = len(index) * 1e6 / max(end - start, 1)
            picture = next(frames.frames([0]))  # known to decode; its rotation and true size are in its own data
            turns = quarter_turns(picture)
            self.rotation = 90 * turns
            self.width, self.height = (picture.width, picture.height)[:: -1 if turns % 2 else 1]
        if sound is not None:
            early = start is not None and start - _PRIMING_US < sound.start < start
            start = sound.start if start is None else start if early else min(start, sound.start)
            end = sound.end if end is None else max(end, sound.end)
        self.clock_offset, self.duration = start, end - start
        if self.duration / 1e6 > self.limits.max_duration:
            self._refuse_duration(self.duration)
        if sound is not None:
            self.audio_start, self.audio_end = sound.start - start, sound.end - start

    def _refuse_duration(self, duration: int):
        raise MediaTooLargeError(
            f"{self.label}: it is {duration / 1e6:.0f} s long, the limit is {self.limits.max_duration:.0f} s; "
            "cut it, or raise MediaLimits.max_duration."
        )

    # -- properties ---------------------------------------------------------------------------------------------------

    @property
    def has_video(self) -> bool:
        return self._frames is not None or self._image is not None

    @property
    def has_audio(self) -> bool:
        return self._sound is not None

    @property
    def audio_gaps(self) -> list[tuple[int, int]]:
        """(start, end) of jumps of the sound's clock met by `audio` so far; missing sound there is zeros."""
        gaps = self._sound.gaps if self._sound is not None else []
        return [(start - self.clock_offset, end - self.clock_offset) for start, end in gaps]

    def num_audio_samples(self, sampling_rate: int = 16_000) -> int:
        """Samples of the whole track: exactly the length of `audio()`, known without decoding."""
        return self._sound.num_samples(sampling_rate) if self._sound is not None else 0

    # -- frames -------------------------------------------------------------------------------------------------------

    def sample_times(
        self,
        sampling: str = "uniform",
        num_frames: int = 16,
        fps: float | None = None,
        max_frames: int | None = None,
        spans: list[tuple[int, int]] | None = None,
        part: tuple[int, int] | None = None,
    ) -> list[int]:
        """True times (PTS) of the frames a sampling takes, ascending and unique; nothing is decoded.

        Args:
            sampling: "uniform" (the frame shown in the middle of each of `num_frames` equal bins of time), "fps"
                (one frame per 1 / fps seconds), "keyframe" (the key frame nearest to each uniform target, or to each
                fps target where `fps` is given: many times cheaper on long video), or "query" (half of the frames
                inside `spans`, half uniform).
            num_frames: how many frames; a video with fewer gives all it has.
            max_frames: upper limit; where fps asks for more, the frames are spread over the whole video.
            spans: (start, end) in microseconds for "query"; (t, t) is widened to one second on each side.
            part: (start, end) in microseconds: as if that were all of the video, on the video's own clock.

        Returns:
            Microseconds; [0] for an image; nothing for a part in which no frame is shown.
        """
        if self._image is not None:
            return [0]
        index = self._index()
        spans = [(start + self.clock_offset, end + self.clock_offset) for start, end in spans or ()]
        if part is not None:
            index = index.between(*(time + self.clock_offset for time in part))
            if not len(index):
                return []
        chosen = choose_frames(index, sampling, num_frames, fps, max_frames, spans)
        return [int(time) - self.clock_offset for time in index.times[chosen]]

    def frame_times(self) -> list[int]:
        """Times of all frames of the video."""
        return [0] if self._image is not None else [int(time) - self.clock_offset for time in self._index().times]

    def frames_at(
        self, times: list[int], size: tuple[int, int] | None = None, resample: str = "bicubic"
    ) -> tuple[torch.Tensor, list[int]]:
        """The frames shown at `times`, scaled as they leave the decoder; at most one full-size frame is held.

        Ascending times, also over successive calls, continue decoding where the last call ended.

        Args:
            times: microseconds. A time from `sample_times` gives exactly that frame, any other the frame on screen.
            size: (height, width) to scale to, or None for the frames' own size.
            resample: "bilinear", "bicubic", "area", "lanczos" or "point".

        Returns:
            (frames, 3, height, width) uint8 RGB, and the true time of each frame in microseconds.
        """
        if not self.has_video:
            self._index()
        height, width = (self.height, self.width) if size is None else (int(size[0]), int(size[1]))
        if min(height, width) < 1 or resample not in _RESAMPLES:
            raise ValueError(
                f"size is {size} and resample {resample!r}; sides are at least 1 and resample is one of {_RESAMPLES}."
            )
        self._check_bytes(len(times) * 3 * height * width, f"{len(times)} frames of {height} x {width}")
        out = torch.empty((len(times), 3, height, width), dtype=torch.uint8)
        if self._image is not None:
            if len(times):
                out[:] = _to_chw(_resize_image(self._image, height, width, resample))
            return out, [0] * len(times)
        index = self._index()
        wanted = np.asarray(times, dtype=np.int64) + self.clock_offset
        wanted = np.maximum(np.searchsorted(index.times, wanted, side="right") - 1, 0)
        order = [int(frame) for frame in np.unique(wanted)]
        for frame, picture in zip(order, self._frames.frames(order), strict=True):
            with decoder_errors(self.label, "converting a frame"):
                pixels = _to_chw(self._frames.to_array(picture, height, width, resample))
            for row in np.flatnonzero(wanted == frame):
                out[row] = pixels
        return out, [int(time) - self.clock_offset for time in index.times[wanted]]

    def _index(self) -> FrameIndex:
        if self._closed:
            raise ValueError(f"{self.label}: this media is closed.")
        if self._frames is None:
            raise NoFramesError(f"{self.label}: the file has sound but no picture; ask for its sound only.")
        return self._frames.index

    # -- sound --------------------------------------------------------------------------------------------------------

    def audio(
        self, start: int | None = None, end: int | None = None, sampling_rate: int = 16_000
    ) -> tuple[torch.Tensor, int]:
        """Sound of [start, end), resampled in the decoder's library, as the mean of its channels.

        Successive ranges continue decoding, and their concatenation equals the whole, sample for sample. What lies
        before the track begins or after it ends is not filled: the waveform is shorter and begins later.

        Args:
            start, end: microseconds; None for the beginning and the end of the track.

        Returns:
            (samples,) float32, and the time of its first sample in microseconds.

        Raises:
            NoAudioError: the file has no sound; ask `has_audio` first.
        """
        if self._closed:
            raise ValueError(f"{self.label}: this media is closed.")
        if self._sound is None:
            raise NoAudioError(
                f"{self.label}: the file has no sound; check `has_audio`, or ask about the picture only."
            )
        total = self._sound.num_samples(sampling_rate)

        def sample(time):
            return min(max(((time - self.audio_start) * sampling_rate + 500_000) // 1_000_000, 0), total)

        first = 0 if start is None else sample(start)
        last = total if end is None else max(sample(end), first)
        self._check_bytes(4 * (last - first), f"{(last - first) / sampling_rate:.0f} s of sound")
        waveform = torch.from_numpy(self._sound.read(first, last, sampling_rate))
        return waveform, self.audio_start + (first * 1_000_000 + sampling_rate // 2) // sampling_rate

    def _check_bytes(self, size: int, what: str):
        if size > self.limits.max_decoded_bytes:
            raise MediaTooLargeError(
                f"{self.label}: {what} take {size} bytes, the limit is {self.limits.max_decoded_bytes}; ask for "
                "less at once, or raise MediaLimits.max_decoded_bytes."
            )

    # -- for subtitles ------------------------------------------------------------------------------------------------

    def open_container(self):
        """A PyAV container over the same file, under the same rules as all reading here; the caller closes it."""
        return open_container(self._source, self._file_format, self.limits)

    # -- closing ------------------------------------------------------------------------------------------------------

    def close(self):
        """Closes decoders and the file (a file object that was passed in stays open)."""
        self._closed = True
        for reader in (self._frames, self._sound):
            if reader is not None:
                reader.close()
        self._source.close()

    def __enter__(self) -> "Media":
        return self

    def __exit__(self, *exception):
        self.close()

    def __repr__(self):
        return (
            f"Media({self.label!r}, kind={self.kind!r}, duration={self.duration / 1e6:.3f} s, "
            f"{self.width}x{self.height}, {self.num_frames} frames, {self.video_codec} + {self.audio_codec})"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Streams


def _choose_stream(container, kind: str, choice: int | str | None, label: str):
    streams = list(getattr(container.streams, kind))
    if choice == "none":
        return None
    if choice is not None:
        if not isinstance(choice, int) or not 0 <= choice < len(streams):
            raise UnsupportedMediaError(
                f"{label}: {kind} stream {choice!r} was asked for; the file has {len(streams)}, counted from 0."
            )
        return streams[choice]
    if kind == "video":  # the cover of an album is no video
        streams = [stream for stream in streams if not stream.disposition.value & _ATTACHED_PICTURE]
    best = container.streams.best(kind)
    indices = [stream.index for stream in streams]
    if best is not None and best.index in indices:
        return best
    return streams[0] if streams else None


def _codec_name(stream, kind: str, limits: MediaLimits, label: str) -> str:
    context = stream.codec_context
    name = "unknown" if context is None else context.codec.canonical_name
    if context is None or not limits.allows(kind, name):
        other = "" if kind == "video" else ", or leave the sound out with audio_stream='none'"
        raise UnsupportedMediaError(
            f"{label}: the {kind} codec is {name}, which is not read; convert it with "
            f"`ffmpeg -i {label} converted.mp4`{other}."
        )
    return name


def _check_video_header(stream, limits: MediaLimits, label: str):
    _codec_name(stream, "video", limits, label)
    width, height = stream.codec_context.width, stream.codec_context.height
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise MediaTooLargeError(
            f"{label}: frames of {width} x {height} pass the limit of {limits.max_side} pixels a side or "
            f"{limits.max_pixels} in all; scale the video down, or raise MediaLimits.max_side and max_pixels."
        )
    if width < 1 or height < 1:
        raise CorruptMediaError(
            f"{label}: its header states no usable frame size, or one beyond {limits.max_pixels} pixels."
        )


def _check_audio_header(stream, limits: MediaLimits, label: str):
    _codec_name(stream, "audio", limits, label)
    rate = stream.codec_context.sample_rate
    if not limits.min_sample_rate <= rate <= limits.max_sample_rate:
        raise UnsupportedMediaError(
            f"{label}: the sound's sample rate is {rate} Hz; {limits.min_sample_rate} to {limits.max_sample_rate} Hz "
            "are read. Convert it, or leave the sound out with audio_stream='none'."
        )


def _check_flac_end(end: int, stated: int, label: str):
    """FLAC states its number of samples but no size in bytes, so that only the last packet tells a cut."""
    if end < stated - 250_000:
        raise CorruptMediaError(
            f"{label}: the file is cut short: it holds {end / 1e6:.2f} s of {stated / 1e6:.2f} s. Fetch it again, "
            f"or keep what is there with `ffmpeg -i {label} repaired.flac`."
        )


def _scan(container, video, audio, label: str):
    """One pass over the packets without decoding: the video's packets, the audio's count and end (microseconds)."""
    streams = [stream for stream in (video, audio) if stream is not None]
    read_only(container, *streams)
    log, audio_packets, last_audio, last_video = PacketLog.empty(), 0, None, None
    pts, dts, key, shown = log.pts.append, log.dts.append, log.key.append, log.shown.append
    video_index = -1 if video is None else video.index
    with decoder_errors(label, "reading through the file"):
        # (this loop runs some 250 000 times per hour of media: as little as possible is done in it)
        for packet in container.demux(streams) if streams else ():
            if packet.stream_index == video_index:
                pts(packet.pts)
                dts(packet.dts)
                key(packet.is_keyframe)
                shown(not packet.is_discard)
                last_video, before_last = packet, last_video
            elif packet.size:
                audio_packets += 1
                last_audio = packet
    if last_video is not None and is_end(last_video):
        log.drop_last()
        last_video = before_last
    if last_video is not None:
        log.last_duration = last_video.duration or 0
    audio_end = 0
    if last_audio is not None and last_audio.pts is not None:
        audio_end = int(to_microseconds(last_audio.pts + (last_audio.duration or 0), audio.time_base))
    return log, audio_packets, audio_end


def _delay_after_cut(source: MediaSource, file_format, limits: MediaLimits, stream_index: int) -> int:
    """How much later than FFmpeg says the frames of an MP4 track are shown, microseconds.

    Where an edit list begins in the middle of a frame, FFmpeg leaves that frame out and moves the next one to the
    beginning of the cut, but not the sound. Without its handling of edit lists the offset between the two is exact.
    """
    found = {}
    for advanced in ("1", "0"):
        container = open_container(source, file_format, limits, advanced_editlist=advanced)
        try:
            stream = container.streams[stream_index]
            read_only(container, stream)
            with decoder_errors(source.label, "reading through the file"):
                for packet in container.demux(stream):
                    wanted = not packet.is_discard if advanced == "1" else packet.pos == found["pos"]
                    if wanted and packet.pts is not None:
                        found[advanced], found["pos"] = packet.pts, packet.pos
                        break
            if advanced not in found:
                return 0
            delay = int(to_microseconds(found[advanced] - found["1"], stream.time_base))
        finally:
            container.close()
    # far more than a frame is no such remainder, but several edits, of which the plain offset knows the first only
    return delay if 0 < delay < _LONGEST_DELAY_US else 0


# ---------------------------------------------------------------------------------------------------------------------
# Images


def _open_image(source: MediaSource, file_format, limits: MediaLimits) -> np.ndarray | None:
    """An image as (height, width, 3) uint8 RGB, upright; None for an animated GIF, which is a video."""
    from PIL import Image, ImageOps

    if file_format.pillow not in Image.registered_extensions().values():
        raise UnsupportedMediaError(f"{source.label}: this Pillow cannot read {file_format.name}; convert it to PNG.")
    advice = f"the file is damaged or not really {file_format.name}; export it again"
    with decoder_errors(source.label, "reading the image", advice=advice), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limits below are stricter
        try:
            image = Image.open(source.view(), formats=[file_format.pillow])
        except Image.DecompressionBombError:
            raise MediaTooLargeError(
                f"{source.label}: the image passes the limit of {limits.max_pixels} pixels; scale it down."
            ) from None
        width, height = image.size
        if max(width, height) > limits.max_side or width * height > limits.max_pixels:
            raise MediaTooLargeError(
                f"{source.label}: an image of {width} x {height} passes the limit of {limits.max_side} pixels a side "
                f"or {limits.max_pixels} in all; scale it down, or raise MediaLimits.max_side and max_pixels."
            )
        if getattr(image, "n_frames", 1) > 1:
            if file_format.pillow == "GIF":
                return None
            raise UnsupportedMediaError(
                f"{source.label}: animated {file_format.name} is not read; convert it to MP4 or save one frame as PNG."
            )
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def _resize_image(image: np.ndarray, height: int, width: int, resample: str) -> np.ndarray:
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    names = {"point": "NEAREST", "area": "BOX"}
    method = getattr(Image.Resampling, names.get(resample, resample.upper()))
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def _to_chw(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
