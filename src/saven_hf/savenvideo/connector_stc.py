"""VideoLLaMA 2's connector: spatial-temporal convolution over the picture, an MLP over the sound.

The picture's formula (arXiv 2406.07476, section 2.2; github.com/DAMO-NLP-SG/VideoLLaMA2, model/projector.py): a RegNet
stage on each frame, a 3D convolution that shrinks time and space, a stage on each of its steps, a two-layer MLP. The
names of the parameters are those of the published checkpoints. The stage is written out here and not taken from timm,
which needs torchvision: a saved model shall load with transformers alone. What is dated, windowed or interleaved is
ours, and off in a converted model.

Shapes: `d` is `resampler_hidden_size`, `D` the hidden size of the language model; else as in `connector_base`.
"""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .connector_base import (
    BaseConnector,
    DatedTokens,
    ModalityMLP,
    PooledKeys,
    Questions,
    WindowIndex,
    in_order,
    pooled_over_time,
)
from .layout import NO_TIME, TokenLayout, Window
from .tower_features import TowerFeatures


# Of timm's `RegStage`, which the published model takes as they are.
NORM_EPS = 1e-5
SQUEEZE_RATIO = 0.25
DATE, QUESTION = range(2)


class ConvNorm(nn.Module):
    """A convolution without bias and a layer norm over the channels of each pixel."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False
        )
        self.bn = nn.LayerNorm(out_channels, eps=NORM_EPS)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """`(n, in, h, w)` -> `(n, out, h, w)`."""
        return self.bn(self.conv(pixels).movedim(1, -1)).movedim(-1, 1)


class SqueezeExcitation(nn.Module):
    """Channels weighed by what their means over a frame say of each other."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        means = pixels.mean((2, 3), keepdim=True)
        return pixels * self.fc2(F.silu(self.fc1(means))).sigmoid()


class RegNetBlock(GradientCheckpointingLayer):
    """One residual block of a RegNet stage: 1 x 1, depthwise 3 x 3, squeeze-and-excitation, 1 x 1."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = ConvNorm(in_channels, out_channels)
        self.conv2 = ConvNorm(out_channels, out_channels, kernel_size=3, groups=out_channels)
        # The squeezed width follows the block's input, so that the first block of a stage differs from the others.
        self.se = SqueezeExcitation(out_channels, round(in_channels * SQUEEZE_RATIO))
        self.conv3 = ConvNorm(out_channels, out_channels)
        self.downsample = nn.Identity() if in_channels == out_channels else ConvNorm(in_channels, out_channels)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        states = F.silu(self.conv2(F.silu(self.conv1(pixels))))
        return F.silu(self.conv3(self.se(states)) + self.downsample(pixels))


def regnet_stage(depth: int, in_channels: int, out_channels: int) -> nn.Module:
    """`depth` blocks named b1, b2, ... that keep the size of the picture; an identity without any."""
    stage = nn.Sequential()
    for number in range(depth):
        stage.add_module(f"b{number + 1}", RegNetBlock(out_channels if number else in_channels, out_channels))
    return stage


class STCConnector(BaseConnector):
    """Spatial-temporal convolution: one token a cell of the shrunken grid, time-major; one a patch of sound.

    With `time_fusion` each temporal step, and each column of sound, is dated: by a token in front of it, by its time
    feature added to its tokens, or both. A step's time is the mean of its frames'.

    With `stc_tokens_per_window` the sequence of each modality, dates among it, is averaged over time to its share of
    them, and so are its times (our decision).
    """

    def __init__(self, config):
        super().__init__(config)
        self.layout = TokenLayout.from_config(config)
        size, width = config.resampler_hidden_size, config.text_config.hidden_size
        stride = tuple(config.stc_stride)
        self.visual_mlp = nn.Identity()
        self.s1 = regnet_stage(config.stc_depth, config.vision_config.hidden_size, size)
        shrink = nn.AvgPool3d(stride) if config.stc_pool else nn.Conv3d(size, size, stride, stride, config.stc_padding)
        self.sampler = nn.Sequential(shrink, nn.SiLU())
        self.s2 = regnet_stage(config.stc_depth, size, size)
        self.readout = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))
        self.audio_mlp = (
            ModalityMLP(config.audio_config.hidden_size, width) if config.has_audio_tower else nn.Identity()
        )
        if config.uses_time:
            self.time_projection = nn.Linear(size, width)
            self.time_embedding = nn.Parameter(torch.zeros(2, width))

    @property
    def dtype(self) -> torch.dtype:
        return self.readout[0].weight.dtype

    def initialise(self, std: float) -> None:
        if self.config.uses_time:
            init.normal_(self.time_embedding, std=std)

    def resample(self, tokens: DatedTokens, tlp, windows: WindowIndex, questions: Questions | None):
        """Window tokens, a list of `(n, D)`; questions never take part here."""
        window_tokens = []
        for number in range(len(windows.start)):
            frames, columns = (index[number][index[number] >= 0] for index in (windows.frames, windows.columns))
            start, end = windows.start[number].item(), windows.end[number].item()
            window = Window(start, end, frames.tolist(), columns.tolist())
            entries = self._picture(tokens, frames, window)
            dates = self._step_times(tokens.frame_times[frames], window)
            steps = len(dates)
            entries += list(tokens.sound[columns])
            dates = torch.cat([dates, tokens.column_times[columns]])
            if window.timed:
                entries = self._dated(entries, dates, tlp, windows.durations[number])
            entries, dates = self._budgeted(entries, dates, steps)
            window_tokens.append(in_order(entries, dates, self.config.token_order))
        return window_tokens, None

    def token_times(self, window: Window, medium: TowerFeatures) -> torch.Tensor:
        """That of its step or column; of a pooled token the mean over what it is the mean of."""
        steps = self._step_times(medium.frame_times[window.frames], window)
        columns = medium.column_times[window.columns]
        dated = int(self.config.has_time_tokens and window.timed)
        entries = [
            row
            for times, rows in ((steps, self.layout.stc_cells), (columns, medium.sound.shape[1]))
            for row in times.double()[:, None, None].repeat(1, dated + rows, 1)
        ]
        entries, dates = self._budgeted(entries, torch.cat([steps, columns]), len(steps))
        return in_order(entries, dates, self.config.token_order)[:, 0]

    def output_layers(self) -> list[nn.Linear]:
        layers = [self.readout[-1]]
        if self.config.has_audio_tower:
            layers.append(self.audio_mlp.down)
        return layers + ([self.time_projection] if self.config.uses_time else [])

    def read_times(self, pooled: PooledKeys, tlp, times: torch.Tensor, duration: torch.Tensor) -> torch.Tensor:
        """Question tokens `(T, D)` of one medium from `times (T,)`: here simply its time features."""
        return self.time_projection(tlp(times, duration)) + self.time_embedding[QUESTION]

    def _picture(self, tokens: DatedTokens, frames: torch.Tensor, window: Window) -> list[torch.Tensor]:
        """Tokens of each temporal step of a window, `(cells, D)`."""
        if not len(frames):
            return []
        seen = self.layout.stc_frames(window)
        side = isqrt(tokens.picture.shape[1])
        # Frame by frame, so that one that is seen several times is computed once.
        pixels = tokens.picture[frames].transpose(1, 2).unflatten(-1, (side, side))
        pixels = torch.cat([self.s1(part) for part in pixels.split(self.config.tower_batch_size)])
        clip = pixels[torch.tensor(seen, device=pixels.device)].movedim(0, 1)[None]  # (1, d, frames, side, side)
        grid = self.sampler(clip)[0].movedim(0, 1)  # (steps, d, rows, columns)
        grid = torch.cat([self.s2(part) for part in grid.split(self.config.tower_batch_size)])
        return list(self.readout(grid.flatten(2).transpose(1, 2)))

    def _step_times(self, times: torch.Tensor, window: Window) -> torch.Tensor:
        """`(steps,)` int64: of each temporal step the mean of its frames', whose `times (frames,)` are given."""
        steps = self.layout.stc_steps(window)
        if not steps:
            return times[:0]
        if not window.timed:
            return torch.full((len(steps),), NO_TIME, device=times.device)
        return torch.stack([_mean_time(times[torch.tensor(step, device=times.device)]) for step in steps])

    def _budgeted(
        self, entries: list[torch.Tensor], dates: torch.Tensor, steps: int
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Entries, the first `steps` of the picture, and their dates; where there is a budget, one token an entry."""
        budget = self.config.stc_tokens_per_window
        if budget is None:
            return entries, dates
        shares = [budget - budget // 2, budget // 2]
        parts = [(entries[:steps], dates[:steps]), (entries[steps:], dates[steps:])]
        if not all(len(rows) for rows, _ in parts):
            shares = [budget, budget]
        tokens, times = [], []
        for (rows, its_dates), share in zip(parts, shares, strict=True):
            if not len(rows):
                continue
            tokens += pooled_over_time(torch.cat(rows), share).split(1)
            lengths = torch.tensor([len(row) for row in rows], device=its_dates.device)
            each = its_dates.repeat_interleave(lengths).double()[:, None]
            times.append(pooled_over_time(each, share)[:, 0].to(torch.int64))
        return tokens, torch.cat(times)

    def _dated(self, entries: list[torch.Tensor], dates: torch.Tensor, tlp, duration) -> list[torch.Tensor]:
        """Entries with their time added, or as a token in front, as `time_fusion` asks."""
        if self.config.time_fusion == "none":
            return entries
        hidden_times = self.time_projection(tlp(dates, duration))
        if self.config.adds_time:
            entries = [entry + time for entry, time in zip(entries, hidden_times, strict=True)]
        if self.config.has_time_tokens:
            dated = (hidden_times + self.time_embedding[DATE])[:, None]
            entries = [torch.cat([time, entry]) for time, entry in zip(dated, entries, strict=True)]
        return entries


def _mean_time(times: torch.Tensor) -> torch.Tensor:
    """Mean of int64 times `(n,)`, by their offsets from the first: their sum could overflow."""
    return times[0] + torch.div((times - times[0]).sum(), len(times), rounding_mode="floor")
