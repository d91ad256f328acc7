"""Video processor of SAVEnVideo: which frames are taken, and what becomes of their pixels. Needs no torchvision."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import VideosKwargs
from transformers.utils import logging
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from .clips import Clip, list_videos, named, open_video
from .layout import NO_TIME
from .media_errors import MediaError


logger = logging.get_logger(__name__)

# The ways to choose frames, and the settings that each of them reads.
_NUMBERS_OF = {
    "uniform": ("num_frames",),
    "fps": ("fps", "max_frames"),
    "keyframe": ("num_frames", "fps", "max_frames"),
    "query": ("num_frames", "spans"),
}
SAMPLINGS = tuple(_NUMBERS_OF)
PREPROCESSINGS = ("whole", "videollama2")
_INTERPOLATIONS = {
    PILImageResampling.NEAREST: "nearest-exact",
    PILImageResampling.BILINEAR: "bilinear",
    PILImageResampling.BICUBIC: "bicubic",
}
# Frames resized at once, which bounds the float copy.
_RESIZE_CHUNK = 32


class SAVEnVideoVideoProcessorKwargs(VideosKwargs, total=False):
    r"""
    sampling (`str`, *optional*): how frames of a file are chosen: "uniform" takes the frames at the middles of
        `num_frames` equal stretches, "fps" takes `fps` a second, "keyframe" snaps to key frames (cheap on long video,
        and truthful because frames carry their true times), "query" takes half of them inside the spans that the
        question names.
    max_frames (`int`, *optional*): most frames of one video, whatever `fps` asks for.
    frame_times (`list`, *optional*): for videos given as frames, the times of their frames in seconds, one list per
        video.
    spans (`list`, *optional*): for `sampling="query"`, the stretches `(start, end)` in microseconds that are asked
        about; `SAVEnVideoProcessor` reads them from the question.
    use_audio_in_video (`bool`, *optional*): whether the sound of a video file is heard.
    preprocessing (`str`, *optional*): "whole" is ours: frames by time, all of the sound, nothing random and nothing
        made up; "videollama2" is that of the published VideoLLaMA 2 (see `published_videollama2`), which reads
        `num_frames` and, of the crop that CLIP's pictures get, `do_center_crop`.
    """

    sampling: str | None
    max_frames: int | None
    frame_times: list | None
    spans: list | None
    use_audio_in_video: bool | None
    preprocessing: str | None


class SAVEnVideoVideoProcessor(VideoProcessorMixin):
    r"""
    Turns video files and in-memory frames into dated pixel tensors.

    Frames are resized to one fixed `size`, without cropping, as SigLIP's are. By default pixels stay uint8 and the
    model normalises them on its device; with `do_rescale` / `do_normalize` they become float32 here.
    """

    valid_kwargs = SAVEnVideoVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "frame_times", "frame_mask", "video_durations"]

    do_resize = True
    size = {"height": 384, "width": 384}
    resample = PILImageResampling.BICUBIC
    do_rescale = False
    rescale_factor = 1 / 255
    do_normalize = False
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    do_convert_rgb = True
    do_sample_frames = None
    sampling = "uniform"
    num_frames = 16
    fps = None
    max_frames = None
    use_audio_in_video = True
    preprocessing = "whole"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)

    def settings(self, **kwargs) -> dict[str, Any]:
        """The processor's settings with those of one call laid over them, checked."""
        unknown = sorted(set(kwargs) - set(self.valid_kwargs.__annotations__) - {"return_tensors"})
        if unknown:
            logger.warning_once(f"Not settings of {type(self).__name__}, ignored: {unknown}.")
        given = {name: value for name, value in kwargs.items() if value is not None}
        settings = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        settings.update(given)
        # The way of sampling that a call implies wins over the one that is saved.
        if "sampling" not in given:
            if "fps" in given and "num_frames" in given:
                raise ValueError(
                    f"Both fps={given['fps']} and num_frames={given['num_frames']} were given: pass one, or say "
                    "which with `sampling`; `max_frames` bounds what `fps` takes."
                )
            if "fps" in given:
                settings["sampling"] = "fps"
            elif "num_frames" in given and settings["sampling"] == "fps":
                settings["sampling"] = "uniform"
        if settings["preprocessing"] == "whole" and "do_center_crop" not in given:
            settings["do_center_crop"] = None  # saved for the other preprocessing, which crops CLIP's pictures
        return self._check(settings)

    def _check(self, settings: dict[str, Any]) -> dict[str, Any]:
        settings["size"] = self._height_and_width(settings["size"])
        if settings["sampling"] not in SAMPLINGS:
            raise ValueError(f"sampling is {settings['sampling']!r}, but must be one of {SAMPLINGS}.")
        if settings["preprocessing"] not in PREPROCESSINGS:
            raise ValueError(f"preprocessing is {settings['preprocessing']!r}, but must be one of {PREPROCESSINGS}.")
        published = settings["preprocessing"] == "videollama2"
        if settings["do_center_crop"] and not published:
            raise ValueError("do_center_crop is not supported: frames are resized to `size` whole.")
        if published and settings["sampling"] != "uniform":
            raise MediaError(
                f"preprocessing='videollama2' takes num_frames frames by their index, not "
                f"sampling={settings['sampling']!r}: leave the sampling out, or take preprocessing='whole'."
            )
        if settings["sampling"] == "fps" and settings["fps"] is None:
            raise ValueError("sampling='fps' needs `fps`, the number of frames to take per second.")
        for name in ("num_frames", "fps", "max_frames"):
            if settings[name] is not None and not settings[name] > 0:
                raise ValueError(f"{name} must be above 0, got {settings[name]}.")
        if settings["do_pad"]:
            raise ValueError("do_pad is not supported: frames are resized to `size` whole.")
        if published and not settings["do_resize"]:
            raise ValueError("preprocessing='videollama2' resizes frames: leave do_resize=True.")
        if settings["data_format"] not in (None, "channels_first"):
            raise ValueError(f"data_format must be 'channels_first', got {settings['data_format']!r}.")
        if settings["do_resize"] and settings["resample"] not in _INTERPOLATIONS:
            known = ", ".join(str(method.value) for method in _INTERPOLATIONS)
            raise ValueError(
                f"resample must be one of {known} (nearest, bilinear, bicubic), got {settings['resample']}."
            )
        return settings

    @staticmethod
    def _height_and_width(size: Any) -> tuple[int, int]:
        if isinstance(size, int):
            return size, size
        if isinstance(size, (list, tuple)) and len(size) == 2:
            return size[0], size[1]
        named_sides = {name: side for name, side in dict(size or {}).items() if side is not None}
        if set(named_sides) != {"height", "width"}:
            raise ValueError(f"size must have a height and a width, for frames all get the same, got {named_sides}.")
        return named_sides["height"], named_sides["width"]

    @staticmethod
    def sampling_of(settings: dict[str, Any]) -> dict[str, Any]:
        """Of all settings those that decide which part of a file is watched and heard; can be written as JSON."""
        if settings["do_sample_frames"] is False:
            chosen = {"sampling": "all"}
        else:
            chosen = {name: settings[name] for name in ("sampling", *_NUMBERS_OF[settings["sampling"]])}
        if chosen.get("spans") is not None:
            chosen["spans"] = [list(span) for span in chosen["spans"]]
        if settings["preprocessing"] != "whole":
            chosen["preprocessing"] = settings["preprocessing"]
        return {**chosen, "use_audio_in_video": settings["use_audio_in_video"]}

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **kwargs
    ) -> np.ndarray:
        """Which of a number of decoded frames to take: those at the middles of equal parts.

        Args:
            metadata: `total_num_frames`, and for `fps` also the video's own `fps`.
            num_frames: how many; the processor's own if neither is given.
            fps: how many a second, instead.

        Returns:
            Ascending indices.
        """
        total = metadata.total_num_frames
        if fps is not None:
            if metadata.fps is None:
                raise ValueError(
                    f"Taking {fps} frames a second needs to know how many the video has: pass `video_metadata` with "
                    "its fps, or take a fixed `num_frames`."
                )
            count = max(1, int(total / metadata.fps * fps))
        else:
            count = num_frames if num_frames is not None else self.num_frames
        if count > total:
            raise ValueError(f"{count} frames were asked of a video given as {total} frames: ask for at most {total}.")
        return (2 * np.arange(count) + 1) * total // (2 * count)

    def read(self, clip: Clip, settings: dict[str, Any], indices: Sequence[int] | None = None) -> torch.Tensor | None:
        """Frames of a clip (all of them, or some by index), finished; None if there are none."""
        indices = range(len(clip.frame_times)) if indices is None else indices
        return self.finish(clip.frames(indices), settings) if len(indices) else None

    def finish(self, frames: torch.Tensor, settings: dict[str, Any]) -> torch.Tensor:
        """Resize, rescale and normalise.

        Args:
            frames: uint8 `(n, 3, height, width)`.
            settings: see `settings`.

        Returns:
            `(n, 3, *size)`, uint8 unless `do_rescale` or `do_normalize` is set, else float32.
        """
        if settings["device"] is not None:
            frames = frames.to(settings["device"])
        if settings["do_resize"] and tuple(frames.shape[-2:]) != settings["size"]:
            mode = _INTERPOLATIONS[settings["resample"]]
            resized = [
                torch.nn.functional.interpolate(
                    chunk.float(), settings["size"], mode=mode, antialias=mode != "nearest-exact"
                )
                for chunk in frames.split(_RESIZE_CHUNK)
            ]
            frames = torch.cat([chunk.round_().clamp_(0, 255).to(torch.uint8) for chunk in resized])
        if settings["do_rescale"]:
            frames = frames.float() * settings["rescale_factor"]
        if settings["do_normalize"]:
            mean, std = (
                torch.as_tensor(settings[name], dtype=torch.float32, device=frames.device).reshape(-1, 1, 1)
                for name in ("image_mean", "image_std")
            )
            frames = (frames.float() - mean) / std
        return frames

    def stack(
        self, frames: Sequence[torch.Tensor | None], times: Sequence[Sequence[int]], durations: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        """Pad the frames of several media to one tensor.

        Args:
            frames: per medium `(n, 3, height, width)`, or None if it has no frames.
            times: per medium the `n` times in microseconds.
            durations: per medium, in microseconds.

        Returns:
            `video_durations` `(media,)`, and unless no medium has frames `pixel_values_videos`
            `(media, frames, 3, height, width)`, `frame_times` and `frame_mask` `(media, frames)`.
        """
        data = {"video_durations": torch.tensor(list(durations), dtype=torch.int64)}
        seen = [medium for medium in frames if medium is not None]
        if not seen:
            return data
        kinds = {(tuple(medium.shape[1:]), medium.dtype) for medium in seen}
        if len(kinds) > 1:
            described = " and ".join(sorted(f"{tuple(shape)} {dtype}" for shape, dtype in kinds))
            raise ValueError(
                f"All media of a batch share one tensor, but their frames are {described}: give videos and images the "
                "same size and the same do_rescale / do_normalize."
            )
        length = max(len(medium) for medium in seen)
        pixels = seen[0].new_zeros(len(frames), length, *seen[0].shape[1:])
        frame_times = torch.full((len(frames), length), NO_TIME, dtype=torch.int64)
        mask = torch.zeros(len(frames), length, dtype=torch.bool)
        for row, (medium, medium_times) in enumerate(zip(frames, times, strict=True)):
            if medium is not None:
                pixels[row, : len(medium)] = medium
                frame_times[row, : len(medium)] = torch.tensor(list(medium_times), dtype=torch.int64)
                mask[row, : len(medium)] = True
        return {"pixel_values_videos": pixels, "frame_times": frame_times, "frame_mask": mask, **data}

    def list_sources(self, videos: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """One entry per video, with what is known about its times: the arguments of `open` beside the settings."""
        videos = list_videos(videos)
        metadata = _one_per_video(settings["video_metadata"], len(videos), "video_metadata", _is_metadata)
        frame_times = _one_per_video(settings["frame_times"], len(videos), "frame_times", _is_times)
        return [
            {"video": video, "metadata": entry, "frame_times": times}
            for video, entry, times in zip(videos, metadata, frame_times, strict=True)
        ]

    def open(self, source: dict[str, Any], settings: dict[str, Any], **kwargs) -> Clip:
        """Open one of `list_sources` and choose its frames. They, and its sound, are read later."""
        return open_video(settings=settings, sample_frames=self.sample_frames, **source, **kwargs)

    def preprocess(self, videos: Any, **kwargs) -> BatchFeature:
        """Frames of videos, without their sound.

        Args:
            videos: a path, bytes, a file object, frames `(n, 3, h, w)` or `(n, h, w, 3)`, a list of frames, or a dict
                (see `SAVEnVideoProcessor`); or a list of these.
            kwargs: any setting of the processor for this call, and `return_tensors`.

        Returns:
            `pixel_values_videos` `(media, frames, 3, height, width)`, `frame_times` and `frame_mask`
            `(media, frames)`, `video_durations` `(media,)`; times in microseconds.
        """
        return_tensors = kwargs.pop("return_tensors", None)
        settings = self.settings(**kwargs)
        frames, times, durations, metadata = [], [], [], []
        sources = self.list_sources(videos, settings)
        for index, source in enumerate(sources):
            with named(f"videos[{index}]", len(sources)), self.open(source, settings) as clip:
                if clip.memory is not None:
                    raise ValueError("An encoded medium has no frames left: pass it to SAVEnVideoProcessor.")
                frames.append(self.read(clip, settings))
                times.append(clip.frame_times)
                durations.append(clip.duration)
                metadata.append(
                    VideoMetadata(
                        total_num_frames=len(clip.frame_times),
                        duration=clip.duration / 1e6,
                        frames_indices=list(range(len(clip.frame_times))),
                    )
                )
        data = BatchFeature(self.stack(frames, times, durations), tensor_type=return_tensors)
        if settings["return_metadata"]:
            data["video_metadata"] = metadata
        return data


def _is_metadata(value: Any) -> bool:
    return value is None or isinstance(value, (dict, VideoMetadata))


def _is_times(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(time, (int, float)) for time in value)
    return value is None or getattr(value, "ndim", None) == 1


def _one_per_video(values: Any, count: int, name: str, is_one) -> list:
    """`values` flattened to one entry per video: one, a list of them, or one list per sample."""
    if values is None:
        return [None] * count
    if is_one(values):
        values = [values]
    elif not all(is_one(value) for value in values):
        values = [value for sample in values for value in ([sample] if is_one(sample) else sample)]
    values = list(values)
    if len(values) != count:
        raise ValueError(f"Got {len(values)} entries of `{name}` for {count} videos: pass one per video (or None).")
    return values


__all__ = ["SAVEnVideoVideoProcessor", "SAVEnVideoVideoProcessorKwargs"]
