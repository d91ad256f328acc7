"""A video, an image or a sound as the processor sees it: dated frames, dated sound, a duration.

Whatever a user may hand over (a file, bytes, arrays, frames with times, a waveform) becomes a `Clip`, which reads its
frames and its sound when they are asked for. Files are opened by `media.py` alone, which reads nothing but local data.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format
from transformers.utils import logging
from transformers.video_utils import convert_to_rgb

from .layout import NO_TIME
from .media import open_media


logger = logging.get_logger(__name__)

FRAME_KEYS = ("frames", "frame_times", "audio", "sampling_rate", "audio_start", "duration")


class Clip:
    """One medium.

    Attributes:
        frame_times: times of the chosen frames in microseconds, or `NO_TIME`.
        duration: in microseconds; 0 if unknown.
        has_sound: whether `sound` gives anything.
        memory: the `VideoMemory` that stands for the medium, if one does.
    """

    frame_times: list[int]
    duration: int
    has_sound: bool = False
    memory = None

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """Chosen frames by index, uint8 `(n, 3, height, width)`."""
        raise NotImplementedError

    def sound(self) -> tuple[torch.Tensor, int]:
        """The whole waveform, float32 `(samples,)`, and the time of its first sample in microseconds."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file."""


class MemoryClip(Clip):
    """A `VideoMemory`: nothing is left to read."""

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
        sampling_rate: int = 16_000,
        duration: int | None = None,
    ):
        self._frames = frames
        self._sound = None if waveform is None else (waveform, sound_start)
        self.frame_times = list(frame_times)
        self.has_sound = waveform is not None
        if duration is None:
            duration = _end_of(self.frame_times)
            if waveform is not None and sound_start != NO_TIME:
                duration = max(duration, sound_start + round(len(waveform) * 1e6 / sampling_rate))
        self.duration = duration

    def frames(self, indices):
        return self._frames[list(indices)]

    def sound(self):
        return self._sound


def _end_of(times: Sequence[int]) -> int:
    """When the last of some frames is over, were they evenly spaced; 0 if they have no times."""
    if not times or NO_TIME in times:
        return 0
    first, last = min(times), max(times)
    step = (last - first) // (len(times) - 1) if len(times) > 1 else 1
    return max(0, last + max(step, 1))


# ----------------------------------------------------------------------------------------------- telling inputs apart


def is_memory(value: Any) -> bool:
    return getattr(value, "is_video_memory", False) is True


def is_file(value: Any) -> bool:
    """A path, bytes, a file object, or the `{"path", "bytes"}` of an undecoded column of `datasets`."""
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
    if is_file(images) or _is_picture(images):
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
    if is_file(audio) or isinstance(audio, Mapping) or _ndim(audio) == 1:
        return [audio]
    if _ndim(audio) == 2:
        return list(audio)
    if not isinstance(audio, (list, tuple)):
        raise ValueError(_unknown("sound", audio))
    if audio and all(isinstance(sample, (int, float)) for sample in audio):
        return [np.asarray(audio, dtype=np.float32)]
    return [sound for sample in audio for sound in list_audio(sample)]


def _unknown(kind: str, value: Any) -> str:
    forms = {
        "video": "a path, bytes, a file object, a VideoMemory, frames as (n, 3, h, w) or (n, h, w, 3), a list of "
        f"frames, or a dict with keys among {FRAME_KEYS}",
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
                frames.append(to_frames(np.asarray(frame.convert(mode))[None], ChannelDimension.LAST))
            else:
                frames.append(to_frames(frame[None], input_data_format))
        shapes = {tuple(frame.shape[-2:]) for frame in frames}
        if len(shapes) > 1:
            raise ValueError(f"The frames of one video must have one size, got (height, width) {sorted(shapes)}.")
        return torch.cat(frames)

    frames = video if isinstance(video, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(video))
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
        from torchcodec.decoders import AudioDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f"Resampling from {sampling_rate} to {target_rate} Hz needs torchcodec and FFmpeg: install them, or resample "
            f"the waveform to {target_rate} Hz yourself."
        ) from error
    length = math.ceil(len(waveform) * target_rate / sampling_rate)
    # The resampler keeps back what it has no future for, so it is given 100 ms of silence to follow.
    padded = torch.nn.functional.pad(waveform, (0, sampling_rate // 10 + 1)).numpy().astype("<f4").tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(padded), b"WAVE", b"fmt ", 16),
        *(3, 1, sampling_rate, sampling_rate * 4, 4, 32),  # mono 32-bit floats
        *(b"data", len(padded)),
    )
    samples = AudioDecoder(header + padded, sample_rate=target_rate, num_channels=1).get_all_samples()
    return samples.data[0, :length].contiguous()
