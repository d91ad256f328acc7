"""Video processor of SAVEnVideo: which frames are taken, and what becomes of their pixels. Needs no torchvision."""

from __future__ import annotations

import math
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


logger = logging.get_logger(__name__)

SAMPLINGS = ("uniform", "fps", "keyframe", "query")
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
    use_audio_in_video (`bool`, *optional*): whether the sound of a video file is heard.
    """

    sampling: str | None
    max_frames: int | None
    frame_times: list | None
    use_audio_in_video: bool | None


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
        return self._check(settings)
