"""A video, an image or a sound as the processor sees it: dated frames, dated sound, a duration.

Whatever a user may hand over (a file, bytes, arrays, frames with times, a waveform) becomes a `Clip`, which reads its
frames and its sound when they are asked for. Files are opened by `media.py` alone, which reads nothing but local data.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import ChannelDimension, PILImageResampling, infer_channel_dimension_format
from transformers.utils import logging
from transformers.video_utils import VideoMetadata, convert_to_rgb

from .layout import NO_TIME
from .media import open_media
from .media_errors import MediaError, NoAudioError, UnsupportedMediaError
from .published_videollama2 import PublishedClip, frame_indices
from .times import LONGEST
from .tower_features import is_tower_features


logger = logging.get_logger(__name__)

# Samples given to the resampler at once.
_RESAMPLE_CHUNK = 1 << 20

_DECODER_RESAMPLE = {
    PILImageResampling.NEAREST: "point",
    PILImageResampling.BILINEAR: "bilinear",
    PILImageResampling.BICUBIC: "bicubic",
}

FRAME_KEYS = ("frames", "frame_times", "audio", "sampling_rate", "audio_start", "duration")


class Clip:
    """One medium.

    Attributes:
        frame_times: times of the chosen frames in microseconds, or `NO_TIME`.
        duration: in microseconds; 0 if unknown.
        num_samples: length of its sound; 0 if it has none.
        sound_start: time of the first sample in microseconds.
        memory: the `VideoMemory` or `TowerFeatures` that stands for the medium, if one does.
    """

    frame_times: list[int]
    duration: int
    num_samples: int = 0
    sound_start: int = 0
    memory = None

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """Chosen frames by index, uint8 `(n, 3, height, width)`; only where there are `frame_times`."""
        raise ValueError(f"A {type(self).__name__} holds no frames to read.")

    def samples(self, first: int, last: int) -> torch.Tensor:
        """Samples [first, last) of the sound, float32 `(samples,)`; only where there is sound."""
        raise ValueError(f"A {type(self).__name__} holds no sound to read.")

    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


class MemoryClip(Clip):
    """A `VideoMemory` or `TowerFeatures`: nothing is left to read."""

    def __init__(self, memory):
        self.memory = memory
        self.frame_times = []
        self.duration = memory.duration


class ArrayClip(Clip):
    """Frames and sound that are in memory."""

    def __init__(
        self,
        frames: torch.Tensor | None = None,
        frame_times: Sequence[int] = (),
        waveform: torch.Tensor | None = None,
        sound_start: int = 0,
        duration: int = 0,
    ):
        self._frames = frames
        self._waveform = waveform
        self.frame_times = list(frame_times)
        if waveform is not None:
            self.num_samples = len(waveform)
            self.sound_start = sound_start
        self.duration = duration

    def frames(self, indices):
        return self._frames[list(indices)]

    def samples(self, first, last):
        return self._waveform[first:last]


class FileClip(Clip):
    """A file, or a part of it. It stays open, and nothing of it is kept, until `close`."""

    def __init__(
        self,
        media,
        frame_times: Sequence[int],
        settings: Mapping[str, Any] | None = None,
        with_sound: bool = True,
        sampling_rate: int = 16_000,
        part: tuple[int, int] | None = None,
    ):
        self._media = media
        self._settings = settings
        self._sampling_rate = sampling_rate
        self.frame_times = list(frame_times)
        self.duration = media.duration
        self._first_sample = 0
        if with_sound and media.has_audio:
            total = media.num_audio_samples(sampling_rate)
            last = total
            if part is not None:
                self._first_sample, last = (
                    min(max(((time - media.audio_start) * sampling_rate + 500_000) // 1_000_000, 0), total)
                    for time in part
                )
            self.num_samples = last - self._first_sample
            self.sound_start = self._time_of(0)

    def frames(self, indices):
        size = self._settings["size"] if self._settings["do_resize"] else None
        times = [self.frame_times[index] for index in indices]
        return self._media.frames_at(times, size, _DECODER_RESAMPLE[self._settings["resample"]])[0]

    def samples(self, first, last):
        return self._media.audio(self._time_of(first), self._time_of(last), self._sampling_rate)[0]

    def _time_of(self, sample: int) -> int:
        """When a sample of the sound begins."""
        position, rate = self._first_sample + sample, self._sampling_rate
        return self._media.audio_start + (position * 1_000_000 + rate // 2) // rate

    def close(self):
        self._media.close()


def _end_of(times: Sequence[int]) -> int:
    """When the last of some frames is over, were they evenly spaced; 0 if they have no times."""
    if not times or NO_TIME in times:
        return 0
    first, last = min(times), max(times)
    step = (last - first) // (len(times) - 1) if len(times) > 1 else 1
    return max(0, last + max(step, 1))


# ----------------------------------------------------------------------------------------------- telling inputs apart


def is_memory(value: Any) -> bool:
    """A `VideoMemory` or `TowerFeatures`, of this copy of the code or of another."""
    return getattr(value, "is_video_memory", False) is True or is_tower_features(value)


def is_file(value: Any) -> bool:
    """A path, bytes, a file object, or the `{"path", "bytes"}` of an undecoded column of `datasets`.

    Such a dict may also have `start` and `end`, in seconds: of a part of the file, whose clock stays the file's; and
    `use_audio`, False to leave the sound of this video out.
    """
    if isinstance(value, Mapping):
        return "path" in value or "bytes" in value
    return isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(value, "read")


def _ndim(value: Any) -> int | None:
    return value.ndim if isinstance(value, (np.ndarray, torch.Tensor)) else None


def _is_picture(value: Any) -> bool:
    return isinstance(value, Image.Image) or _ndim(value) in (2, 3)


def _is_video(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(_is_picture(frame) for frame in value)
    return is_memory(value) or is_file(value) or isinstance(value, Mapping) or _ndim(value) == 4


def list_videos(videos: Any) -> list:
    """Flatten what `videos=` takes: one video, a list of them, or one list per sample.

    A list of pictures is one video. At the third level, where a path can no longer be a video of a sample, a list of
    paths is one video too, of image files.
    """
    if videos is None:
        return []
    if _is_video(videos):
        return [videos]
    if _ndim(videos) == 5:
        return list(videos)
    if _ndim(videos) == 3 or isinstance(videos, Image.Image):
        return [[videos]]
    if not isinstance(videos, (list, tuple)):
        raise ValueError(_unknown("video", videos))
    flat = []
    for sample in videos:
        if _is_video(sample):
            flat.append(sample)
        elif isinstance(sample, (list, tuple)):
            for video in sample:
                is_frame_files = isinstance(video, (list, tuple)) and video and all(is_file(path) for path in video)
                if not (_is_video(video) or is_frame_files):
                    raise ValueError(_unknown("video", video))
                flat.append(video)
        elif sample is not None:
            flat.extend(list_videos(sample))
    return flat


def list_images(images: Any) -> list:
    """Flatten what `images=` takes: one image, a list of them, or one list per sample."""
    if images is None:
        return []
    if is_memory(images) or is_file(images) or _is_picture(images):
        return [images]
    if _ndim(images) == 4:
        return list(images)
    if not isinstance(images, (list, tuple)):
        raise ValueError(_unknown("image", images))
    return [image for sample in images for image in list_images(sample)]


def list_audio(audio: Any) -> list:
    """Flatten what `audio=` takes: one sound, a list of them, or one list per sample."""
    if audio is None:
        return []
    if is_memory(audio) or is_file(audio) or isinstance(audio, Mapping) or _ndim(audio) == 1:
        return [audio]
    if _ndim(audio) == 2:
        return list(audio)
    if not isinstance(audio, (list, tuple)):
        raise ValueError(_unknown("sound", audio))
    if audio and all(isinstance(sample, (int, float)) for sample in audio):
        return [np.asarray(audio, dtype=np.float32)]
    return [sound for sample in audio for sound in list_audio(sample)]


def num_per_sample(media: Any, kind: str, count: int) -> list[int] | None:
    """How many media each of `count` samples has; None unless they were given as one list per sample."""
    is_one, lister = {"video": (_is_video, list_videos), "image": (_is_picture, list_images)}[kind]
    if not isinstance(media, (list, tuple)) or is_one(media) or len(media) != count:
        return None
    if not all(isinstance(sample, (list, tuple)) and not is_one(sample) for sample in media):
        return None
    return [len(lister([sample])) for sample in media]


def _unknown(kind: str, value: Any) -> str:
    forms = {
        "video": "a path, bytes, a file object, a VideoMemory, TowerFeatures, frames as (n, 3, h, w) or "
        f"(n, h, w, 3), a list of frames, or a dict with keys among {FRAME_KEYS}",
        "image": "a path, bytes, a PIL image, or an array (3, h, w) or (h, w, 3)",
        "sound": "a path, bytes, a 1-D waveform, or a dict with 'array' and 'sampling_rate'",
    }
    shape = f" of shape {tuple(value.shape)}" if _ndim(value) is not None else ""
    return f"Got a {type(value).__name__}{shape} as a {kind}, but a {kind} is {forms[kind]}."


@contextmanager
def named(label: str, count: int) -> Iterator[None]:
    """Say in an error which of several media it is about. The type of the error stays."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        if count > 1 and error.args and isinstance(error.args[0], str):
            error.args = (f"{label}: {error.args[0]}", *error.args[1:])
        raise


# --------------------------------------------------------------------------------------------------- arrays to tensors


def to_frames(video: Any, input_data_format: str | ChannelDimension | None = None) -> torch.Tensor:
    """Frames of any in-memory form to RGB uint8 `(n, 3, height, width)`.

    Floats are taken as scaled to [0, 1] if none is above 1, else as [0, 255]. Grey frames are repeated, transparent
    ones laid on white.
    """
    if isinstance(video, (list, tuple)):
        frames = []
        for frame in video:
            if isinstance(frame, Image.Image):
                mode = "RGBA" if frame.mode in ("RGBA", "LA", "PA") or "transparency" in frame.info else "RGB"
                frames.append(to_frames(np.array(frame.convert(mode))[None], ChannelDimension.LAST))
            else:
                frames.append(to_frames(frame[None], input_data_format))
        shapes = {tuple(frame.shape[-2:]) for frame in frames}
        if len(shapes) > 1:
            raise ValueError(f"The frames of one video must have one size, got (height, width) {sorted(shapes)}.")
        return torch.cat(frames)

    # Torch wants arrays that it may write to, though nothing here does.
    frames = video if isinstance(video, torch.Tensor) else torch.from_numpy(np.require(video, requirements=["C", "W"]))
    if frames.ndim == 3:
        frames = frames[:, None]
        input_data_format = ChannelDimension.FIRST
    if frames.shape[0] == 0 or frames.numel() == 0:
        raise ValueError(f"The frames have shape {tuple(frames.shape)}: there is nothing to see.")
    if input_data_format is None:
        try:
            input_data_format = infer_channel_dimension_format(frames, num_channels=(1, 3, 4))
        except ValueError:
            raise ValueError(
                f"Frames of shape {tuple(frames.shape)} have no axis of 1, 3 or 4 colour channels: give them as "
                "(n, 3, height, width) or (n, height, width, 3)."
            ) from None
    if ChannelDimension(input_data_format) is ChannelDimension.LAST:
        frames = frames.permute(0, 3, 1, 2)
    frames = _to_uint8(frames)
    if frames.shape[1] == 1:
        frames = frames.expand(-1, 3, -1, -1)
    elif frames.shape[1] == 4:
        frames = _to_uint8(convert_to_rgb(frames.numpy(), ChannelDimension.FIRST))
    return frames.contiguous()


def _to_uint8(frames: torch.Tensor | np.ndarray) -> torch.Tensor:
    frames = torch.as_tensor(frames).detach().cpu()
    if frames.dtype == torch.uint8:
        return frames
    if frames.dtype == torch.bool:
        return frames.to(torch.uint8) * 255
    low, high = frames.min().item(), frames.max().item()
    if not (math.isfinite(low) and math.isfinite(high)) or low < 0 or high > 255:
        raise ValueError(
            f"Frames of {frames.dtype} range from {low:g} to {high:g}, but must be in [0, 255], or floats in [0, 1]: "
            "do not normalise frames before the processor."
        )
    if frames.is_floating_point():
        frames = (frames * 255 if high <= 1 else frames).round()
    return frames.to(torch.uint8)


def to_waveform(audio: Any, sampling_rate: int | None, target_rate: int) -> torch.Tensor:
    """A mono waveform, float32 `(samples,)` at `target_rate`.

    Args:
        sampling_rate: of the waveform; None takes it to be `target_rate`.
    """
    if isinstance(audio, torch.Tensor):
        audio = audio.detach().cpu().numpy()
    try:
        waveform = np.asarray(audio)
        if waveform.dtype.kind not in "fiub":
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(_unknown("sound", audio)) from None
    if waveform.ndim != 1:
        raise ValueError(
            f"A waveform must be mono, of shape (samples,), got {waveform.shape}: average its channels first."
        )
    if waveform.size == 0:
        raise ValueError("The waveform is empty: leave the sound out instead.")
    if waveform.dtype.kind != "f":
        raise ValueError(
            f"A waveform must be floats in [-1, 1], got {waveform.dtype}: divide 16-bit samples by 32768."
        )
    if not np.isfinite(waveform).all():
        raise ValueError("The waveform has NaN or infinite samples.")
    waveform = torch.from_numpy(waveform.astype(np.float32))
    if sampling_rate is None:
        logger.warning_once(f"A waveform came without `sampling_rate`: it is taken as {target_rate} Hz.")
        return waveform
    if sampling_rate <= 0:
        raise ValueError(f"sampling_rate must be above 0 Hz, got {sampling_rate}.")
    return waveform if sampling_rate == target_rate else resample(waveform, sampling_rate, target_rate)


def resample(waveform: torch.Tensor, sampling_rate: int, target_rate: int) -> torch.Tensor:
    """Resample with FFmpeg, as the sound of files is. Float32 `(samples,)` in and out, no sample is lost."""
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"Resampling from {sampling_rate} to {target_rate} Hz needs PyAV (`pip install av`); or resample the "
            f"waveform to {target_rate} Hz yourself."
        ) from error
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=target_rate)
    # The resampler keeps back what it has no future for, so it is given 100 ms of silence to follow.
    padded = torch.nn.functional.pad(waveform, (0, sampling_rate // 10 + 1)).numpy()
    pieces = []
    for start in range(0, len(padded), _RESAMPLE_CHUNK):
        frame = av.AudioFrame.from_ndarray(padded[None, start : start + _RESAMPLE_CHUNK], format="fltp", layout="mono")
        frame.sample_rate = sampling_rate
        pieces.extend(resampler.resample(frame))
    pieces.extend(resampler.resample(None))
    samples = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
    return torch.from_numpy(samples[: math.ceil(len(waveform) * target_rate / sampling_rate)])


# ------------------------------------------------------------------------------------------------------ opening inputs


def open_video(
    video: Any,
    settings: Mapping[str, Any],
    sample_frames: Callable,
    metadata: VideoMetadata | dict | None = None,
    frame_times: Sequence[float] | None = None,
    sampling_rate: int = 16_000,
) -> Clip:
    """Open one video of any form (see `list_videos`) and choose its frames.

    With `preprocessing="videollama2"` of the settings it is seen and heard as VideoLLaMA 2 does.

    Args:
        settings: of `SAVEnVideoVideoProcessor`.
        sample_frames: its method of that name, for frames in memory.
        metadata, frame_times: when the frames in memory were shown; times in seconds.
        sampling_rate: that the sound is wanted at, in Hz.
    """
    if is_memory(video):
        return MemoryClip(video)
    if _as_published(settings):
        inner = {**settings, "do_resize": False, "preprocessing": "whole"}
        if is_file(video):
            inner["sampling"] = "published"
        return PublishedClip(
            open_video(video, inner, sample_frames, metadata, frame_times, sampling_rate), settings, is_video=True
        )
    if is_file(video):
        if frame_times is not None:
            raise ValueError("`frame_times` were given for a file, but a file knows the times of its frames.")
        return _open_video_file(video, settings, sampling_rate)
    if not isinstance(video, Mapping):
        return _array_clip(video, settings, sample_frames, metadata, frame_times, {}, sampling_rate)

    unknown = sorted(set(video) - set(FRAME_KEYS))
    if unknown:
        raise ValueError(f"A video as a dict cannot have the keys {unknown}; known are {FRAME_KEYS}, 'path', 'bytes'.")
    if video.get("frame_times") is not None:
        frame_times = video["frame_times"]
    sound = {}
    if video.get("audio") is not None and settings["use_audio_in_video"]:
        sound["waveform"] = to_waveform(video["audio"], video.get("sampling_rate"), sampling_rate)
        sound["sound_start"] = _microseconds(video.get("audio_start") or 0, "audio_start")
    duration = video.get("duration")
    if duration is not None:
        duration = _microseconds(duration, "duration")
    if video.get("frames") is None:
        if not sound:
            raise ValueError("A video given as a dict has neither 'frames' nor 'audio'.")
        return ArrayClip(**sound, duration=_sound_end(sound, sampling_rate) if duration is None else duration)
    return _array_clip(video["frames"], settings, sample_frames, metadata, frame_times, sound, sampling_rate, duration)


def _open_video_file(video, settings, sampling_rate) -> Clip:
    media = _open_media(video)
    try:
        times, part = [], _part_of(video, media)
        if media.kind == "image":
            times = [NO_TIME]
        elif media.has_video and settings["do_sample_frames"] is False:
            times = [time for time in media.frame_times() if part is None or part[0] <= time < part[1]]
        elif media.has_video and settings["sampling"] == "published":
            shown = [time for time in media.frame_times() if part is None or part[0] <= time < part[1]]
            times = [shown[index] for index in frame_indices(len(shown), settings["num_frames"])] if shown else []
        elif media.has_video:
            times = media.sample_times(
                sampling=settings["sampling"],
                num_frames=settings["num_frames"],
                fps=settings["fps"],
                max_frames=settings["max_frames"],
                spans=settings["spans"],
                part=part,
            )
        silenced = isinstance(video, Mapping) and video.get("use_audio") is False
        with_sound = settings["use_audio_in_video"] and not silenced
        return FileClip(media, times, settings, with_sound, sampling_rate, part)
    except BaseException:
        media.close()
        raise


def open_image(image: Any, settings: Mapping[str, Any]) -> Clip:
    """Open one image: a frame without time."""
    if is_memory(image):
        return MemoryClip(image)
    if _as_published(settings):
        inner = {**settings, "do_resize": False, "preprocessing": "whole"}
        return PublishedClip(open_image(image, inner), settings, is_video=False)
    if not is_file(image):
        frames = to_frames([image], settings["input_data_format"])
        return ArrayClip(frames, [NO_TIME])
    media = _open_media(image)
    try:
        if media.kind != "image":
            kind = "a video" if media.kind == "video" else "sound"
            raise UnsupportedMediaError(f"{media.label}: this file is {kind}, not an image: pass it as {kind}.")
        return FileClip(media, [NO_TIME], settings, with_sound=False, part=_part_of(image, media))
    except BaseException:
        media.close()
        raise


def open_sound(
    audio: Any, waveform_rate: int | None, sampling_rate: int, settings: Mapping[str, Any] | None = None
) -> Clip:
    """Open one sound: a file (of a video, its sound alone) or a waveform.

    Args:
        settings: of `SAVEnVideoVideoProcessor`; without them all of the sound is heard.
        waveform_rate: of a waveform that does not say its own, in Hz; None if unknown.
        sampling_rate: that the sound is wanted at, in Hz.
    """
    if is_tower_features(audio):
        audio = audio.without_picture()
    if is_memory(audio):
        return MemoryClip(audio)
    if settings is not None and _as_published(settings):
        return PublishedClip(open_sound(audio, waveform_rate, sampling_rate), settings, is_video=False)
    if is_file(audio):
        media = _open_media(audio)
        try:
            if not media.has_audio:
                raise NoAudioError(f"{media.label}: the file was passed as audio, but has no sound.")
            return FileClip(media, [], sampling_rate=sampling_rate, part=_part_of(audio, media))
        except BaseException:
            media.close()
            raise
    if isinstance(audio, Mapping):
        if "array" not in audio:
            raise ValueError(f"A sound given as a dict must have 'array' and 'sampling_rate', got {sorted(audio)}.")
        waveform_rate, audio = audio.get("sampling_rate", waveform_rate), audio["array"]
    sound = {"waveform": to_waveform(audio, waveform_rate, sampling_rate), "sound_start": 0}
    return ArrayClip(**sound, duration=_sound_end(sound, sampling_rate))


def _as_published(settings: Mapping[str, Any]) -> bool:
    return settings["preprocessing"] == "videollama2"


def _open_media(source: Any):
    if isinstance(source, Mapping):
        data, path = source.get("bytes"), source.get("path")
        if data is None and path is None:
            raise ValueError("A file given as a dict has neither 'path' nor 'bytes'.")
        source = data if data is not None else path
    return open_media(source)


def _part_of(source: Any, media) -> tuple[int, int] | None:
    """Start and end in microseconds of the part of a file that is meant; None for all of it."""
    given = {name: source.get(name) for name in ("start", "end")} if isinstance(source, Mapping) else {}
    given = {name: _microseconds(time, name) for name, time in given.items() if time is not None}
    if not given:
        return None
    start, end = given.get("start", 0), given.get("end", max(media.duration, 1))
    if media.kind == "image" or not (start < end and 0 <= start < media.duration):
        length = "is an image" if media.kind == "image" else f"is {media.duration / 1e6} s long"
        raise MediaError(
            f"{media.label}: a part from {start / 1e6} s to {end / 1e6} s was asked of it, but it {length}: mend "
            "'start' and 'end'."
        )
    return start, end


def _array_clip(
    video, settings, sample_frames, metadata, frame_times, sound, sampling_rate, duration=None
) -> ArrayClip:
    """Frames in memory, or image files, with times from `frame_times` or `metadata` if there are any."""
    is_frame_files = isinstance(video, (list, tuple)) and len(video) > 0 and all(is_file(path) for path in video)
    if is_frame_files:
        if settings["do_sample_frames"]:
            raise ValueError(
                "Sampling frames from a list of images is not supported! Set `do_sample_frames=False`, and pass only "
                "the images that are wanted."
            )
        frames = torch.cat([_read_image_file(path, settings, index) for index, path in enumerate(video)])
    elif _is_video(video):
        frames = to_frames(video, settings["input_data_format"])
    else:
        raise ValueError(_unknown("video", video))

    count = len(frames)
    if frame_times is not None:
        times = [_microseconds(time, "frame_times") for time in frame_times]
        if len(times) != count:
            raise ValueError(f"Got {len(times)} frame_times for {count} frames: pass one time per frame.")
    else:
        times, metadata_duration = _times_from_metadata(metadata, count)
        duration = duration if duration is not None else metadata_duration
    if duration is None:
        duration = max(_end_of(times), _sound_end(sound, sampling_rate))

    if settings["do_sample_frames"]:
        if settings["sampling"] not in ("uniform", "fps"):
            raise ValueError(
                f"sampling={settings['sampling']!r} needs a file; frames in memory are sampled 'uniform' or 'fps'."
            )
        rate = count / (duration / 1e6) if times and duration else None
        by_fps = settings["sampling"] == "fps"
        wanted = {"fps": settings["fps"]} if by_fps else {"num_frames": settings["num_frames"]}
        indices = sample_frames(VideoMetadata(total_num_frames=count, fps=rate), **wanted)
        if by_fps and settings["max_frames"] is not None and len(indices) > settings["max_frames"]:
            indices = sample_frames(VideoMetadata(total_num_frames=count), num_frames=settings["max_frames"])
        frames = frames[torch.as_tensor(indices)]
        times = [times[index] for index in indices] if times else times
    if not times:
        logger.warning_once(
            "A video came as frames without times (`video_metadata`, or `frame_times`): the model cannot know when "
            "things happen in it."
        )
        times = [NO_TIME] * len(frames)
    return ArrayClip(frames, times, **sound, duration=duration)


def _sound_end(sound: Mapping[str, Any], sampling_rate: int) -> int:
    """When a waveform is over, in microseconds; 0 without one."""
    return sound["sound_start"] + round(len(sound["waveform"]) * 1e6 / sampling_rate) if sound else 0


def _read_image_file(path: Any, settings: Mapping[str, Any], index: int) -> torch.Tensor:
    with named(f"frame {index}", 2):
        clip = open_image(path, settings)
        try:
            return clip.frames([0])
        finally:
            clip.close()


def _times_from_metadata(metadata: VideoMetadata | dict | None, count: int) -> tuple[list[int], int | None]:
    """Times of `count` frames and the duration in microseconds; an empty list and None if they are not known."""
    if metadata is None:
        return [], None
    known = {field.name for field in fields(VideoMetadata)}
    unknown = sorted(set(metadata) - known)
    if unknown:
        raise ValueError(f"video_metadata has the keys {unknown}, but those of VideoMetadata are {sorted(known)}.")
    total, fps, duration, indices = (
        dict(metadata).get(name) for name in ("total_num_frames", "fps", "duration", "frames_indices")
    )
    if not fps and duration and total:
        fps = total / duration
    if not fps:
        return [], None
    if indices is None:
        if total not in (None, count):
            raise ValueError(
                f"video_metadata tells of {total} frames, but {count} were given: name those that they are in "
                "`frames_indices`."
            )
        indices = range(count)
    if len(indices) != count:
        raise ValueError(f"video_metadata has {len(indices)} frames_indices for {count} frames.")
    if duration is None:
        duration = (total if total is not None else max(indices) + 1) / fps
    return [_microseconds(index / fps, "frames_indices") for index in indices], _microseconds(duration, "duration")


def _microseconds(seconds: float, name: str) -> int:
    seconds = float(seconds)
    if not math.isfinite(seconds) or abs(seconds) > LONGEST / 1e6:
        raise ValueError(f"{name} is {seconds} s, which is no time in a video.")
    return round(seconds * 1e6)
