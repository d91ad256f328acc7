"""VideoLLaMA 2's own preprocessing, as its inference code has it, for figures that compare with its published ones.

What it does to a medium (github.com/DAMO-NLP-SG/VideoLLaMA2, branch audio_visual, videollama2/mm_utils.py):

- Frames: by index, not by time: the middles of `num_frames` equal parts of [0, N - 1], rounded. A video with fewer
  frames repeats some. Each is resized by Pillow from its full size; for CLIP its shorter side, then cropped.
- Sound of a video: 8 clips of 2 s, evenly spaced, put together: 16 s at most, whatever the length of the video. A
  track under 2 s is heard 8 times. Rounded to 16 bit, completed with silence to 30 s, and none of that is masked.
- Sound of its own: 30 s, completed with silence.

What differs here, because a result must not depend on chance or on what is not there: the 30 s of a longer sound are
its first and not drawn at random; a sound file is the mean of its channels, resampled by FFmpeg, where the original
takes the first channel and librosa; a video without sound gets no tokens of silence; a part of a video (`start`,
`end`) is cut by time; a track ends where its container says, without the padding that encoders leave; and more than
two channels count alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from PIL import Image

from .layout import NO_TIME


SAMPLING_RATE = 16_000
NUM_CLIPS, CLIP_SECONDS = 8, 2
CLIPS_SECONDS = NUM_CLIPS * CLIP_SECONDS
# Of 30 s what its 187 patch columns are made of: 2992 fbank frames of 25 ms, 10 ms apart.
TRACK_SAMPLES = 2991 * 160 + 400


def frame_indices(total: int, num_frames: int) -> list[int]:
    """Which of `total` frames are seen: ascending, repeated where there are fewer than `num_frames`."""
    part = float(total - 1) / num_frames
    middles = [(part * index + part * (index + 1)) / 2 for index in range(num_frames)]
    return np.round(np.array(middles) + 1e-6).astype(int).tolist()


def clip_samples(num_samples: int) -> list[tuple[int, int]]:
    """First and last sample (exclusive) of the clips that are heard of a video's sound at 16 kHz."""
    step = Fraction(max(num_samples / SAMPLING_RATE - CLIP_SECONDS, 0)) / NUM_CLIPS
    starts = [step * index for index in range(NUM_CLIPS)]
    return [
        (int(start * SAMPLING_RATE), min(int((start + CLIP_SECONDS) * SAMPLING_RATE), num_samples)) for start in starts
    ]


def resized(frame: torch.Tensor, size: tuple[int, int], resample: int, crop: bool) -> torch.Tensor:
    """One frame, uint8 `(3, height, width)`, at `size`: squeezed to it, or its middle where `crop`."""
    picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
    height, width = size
    if not crop:
        picture = picture.resize((width, height), resample)
    else:
        shorter = min(picture.size)
        # The longer side is cut down to whole pixels, and so is the offset of the crop.
        scaled = [int(side * height / shorter) for side in picture.size]
        picture = picture.resize(tuple(scaled), resample)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


class PublishedClip:
    """A `Clip` seen and heard as VideoLLaMA 2 does.

    Args:
        clip: with its frames at their full size.
        settings: of `SAVEnVideoVideoProcessor`: `size`, `resample`, `do_center_crop`.
        is_video: whether its sound is that of a video, of which clips are put together.
    """

    memory = None

    def __init__(self, clip: Any, settings: Mapping[str, Any], is_video: bool):
        self._clip, self._settings, self._is_video = clip, settings, is_video
        self.frame_times, self.duration = clip.frame_times, clip.duration
        self.num_samples = TRACK_SAMPLES if clip.num_samples else 0
        # Clips that were put together have no time of their own.
        self.sound_start = NO_TIME if is_video else clip.sound_start

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        size, resample, crop = (self._settings[name] for name in ("size", "resample", "do_center_crop"))
        # One at a time: full-size frames are large.
        return torch.stack([resized(self._clip.frames([index])[0], size, resample, bool(crop)) for index in indices])

    def samples(self, first: int, last: int) -> torch.Tensor:
        if self._is_video:
            parts = [self._clip.samples(*part) for part in clip_samples(self._clip.num_samples)]
            waveform = (torch.cat(parts) * 32768).round().clamp(-32768, 32767) / 32768
        else:
            waveform = self._clip.samples(0, min(self._clip.num_samples, TRACK_SAMPLES))
        waveform = waveform[:TRACK_SAMPLES]
        return torch.nn.functional.pad(waveform, (0, TRACK_SAMPLES - len(waveform)))[first:last]

    def close(self) -> None:
        self._clip.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
