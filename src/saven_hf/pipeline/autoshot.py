"""AutoShot: shot boundaries by a searched 3D convolutional network (Zhu et al., 2023), with weights.

The architecture is that of the published best network: six blocks of dilated temporal convolutions over frames of
27 x 48, beside them how alike each frame is to its 50 neighbours on either side, by features and by colours. Its
attention has no layers. `saven convert autoshot` turns the published checkpoint into a folder that this opens.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from ..savenvideo.media import Media
from .segment import FrameScores, decoded


_WINDOW, _STEP, _MARGIN = 100, 50, 25  # frames seen at once, from one window to the next, and not used at either end


class AutoShotConfig(PreTrainedConfig):
    """Sizes of an AutoShot network; the defaults are the published one's.

    Attributes:
        filters: a quarter of the channels that each block gives.
        multipliers: channels of a block's spatial convolution, as multiples of its filters.
        dilations: how many branches a block has; branch i looks 2**i frames ahead and back.
        shared: whether a block's branches share their spatial convolution.
        frame_size: (height, width) of the frames.
        lookup_window: neighbours that a frame is compared with, itself in the middle; odd.
        similarity_size: length of the two vectors that tell of these comparisons, and of the features compared.
        hidden_size: of the classifier.
        threshold: probability from which a frame ends a shot (best F1 on SHOT).
    """

    model_type = "savenvideo_autoshot"

    filters: list[int] | tuple[int, ...] = (16, 16, 32, 32, 64, 64)
    multipliers: list[int] | tuple[int, ...] = (1, 4, 4, 4, 3, 2)
    dilations: list[int] | tuple[int, ...] = (4, 5, 5, 5, 5, 5)
    shared: list[bool] | tuple[bool, ...] = (False, True, True, True, False, False)
    frame_size: list[int] | tuple[int, ...] = (27, 48)
    lookup_window: int = 101
    similarity_size: int = 128
    hidden_size: int = 1024
    dropout: float = 0.5
    threshold: float = 0.296


@dataclass
class AutoShotOutput(ModelOutput):
    """What the network says of each frame, before the sigmoid.

    Attributes:
        logits: (batch, frames): whether a shot ends with this frame.
        many_hot_logits: (batch, frames): whether the frame is part of a transition, however long; trained beside.
    """

    logits: torch.Tensor | None = None
    many_hot_logits: torch.Tensor | None = None


class AutoShotBranch(nn.Module):
    """A spatial convolution, unless its block shares one, and a temporal one that looks `reach` frames either way."""

    def __init__(self, channels: int, inner: int, out: int, reach: int, is_shared: bool):
        super().__init__()
        self.spatial = nn.Identity() if is_shared else _spatial(channels, inner)
        self.temporal = nn.Conv3d(inner, out, (3, 1, 1), padding=(reach, 0, 0), dilation=(reach, 1, 1), bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.temporal(self.spatial(hidden_states))


class AutoShotBlock(nn.Module):
    """Branches of growing temporal reach side by side, normalised together.

    (batch, channels, frames, height, width) to (batch, 4 * filters, frames, height, width).
    """

    def __init__(self, channels: int, filters: int, multiplier: int, dilations: int, is_shared: bool):
        super().__init__()
        inner, out = multiplier * filters, 4 * filters
        each = out // dilations
        self.shared = _spatial(channels, inner) if is_shared else nn.Identity()
        self.branches = nn.ModuleList(
            AutoShotBranch(
                channels, inner, each if at + 1 < dilations else out - each * (dilations - 1), 2**at, is_shared
            )
            for at in range(dilations)
        )
        self.norm = nn.BatchNorm3d(out, eps=1e-3)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.shared(hidden_states)
        return functional.relu(self.norm(torch.cat([branch(hidden_states) for branch in self.branches], dim=1)))


def _spatial(channels: int, out: int) -> nn.Conv3d:
    return nn.Conv3d(channels, out, (1, 3, 3), padding=(0, 1, 1), bias=False)


class AutoShotNeighbours(nn.Module):
    """How alike each frame is to those around it, as a vector.

    Args:
        features: of a frame, projected before they are compared; None: what is given is compared as it is.
    """

    def __init__(self, config: AutoShotConfig, features: int | None = None):
        super().__init__()
        self.reach = config.lookup_window // 2
        self.projection = None if features is None else nn.Linear(features, config.similarity_size)
        self.output = nn.Linear(config.lookup_window, config.similarity_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, frames, features) to (batch, frames, similarity_size)."""
        if self.projection is not None:
            features = self.projection(features)
        features = functional.normalize(features, dim=-1)
        alike = functional.pad(features @ features.transpose(1, 2), (self.reach, self.reach))
        frames = torch.arange(features.shape[1], device=features.device)
        # Frame t is compared with t - reach to t + reach, which in the padded rows are t to t + 2 reach.
        around = frames[:, None] + torch.arange(2 * self.reach + 1, device=features.device)
        return functional.relu(self.output(alike.gather(2, around.expand(len(features), -1, -1))))


class AutoShotModel(PreTrainedModel):
    """Tells with which frames shots end."""

    config: AutoShotConfig
    config_class = AutoShotConfig
    base_model_prefix = "autoshot"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)

    def __init__(self, config: AutoShotConfig):
        super().__init__(config)
        channels = [3, *(4 * filters for filters in config.filters)]
        self.blocks = nn.ModuleList(
            AutoShotBlock(channels[at], *sizes)
            for at, sizes in enumerate(
                zip(config.filters, config.multipliers, config.dilations, config.shared, strict=True)
            )
        )
        self.pool = nn.AvgPool3d((1, 2, 2))
        self.frame_neighbours = AutoShotNeighbours(config, sum(channels[2::2]))
        self.colour_neighbours = AutoShotNeighbours(config)
        height, width = (side // 2 ** (len(config.filters) // 2) for side in config.frame_size)
        self.hidden = nn.Linear(channels[-1] * height * width + 2 * config.similarity_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.one_hot = nn.Linear(config.hidden_size, 1)
        self.many_hot = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)

    def forward(self, pixel_values_videos: torch.Tensor, return_dict: bool = True, **kwargs) -> AutoShotOutput | tuple:
        """Tell where shots end.

        Args:
            pixel_values_videos: (batch, frames, 3, 27, 48) uint8, red, green, blue.
        """
        hidden_states = pixel_values_videos.transpose(1, 2).to(self.dtype) / 255
        features, shortcut = [], None
        for at, block in enumerate(self.blocks):
            hidden_states = block(hidden_states)
            if at % 2 == 0:
                shortcut = hidden_states
            else:
                hidden_states = self.pool(shortcut + hidden_states)
                features.append(hidden_states.mean(dim=(3, 4)))
        frames = torch.cat(features, dim=1).transpose(1, 2)
        flat = hidden_states.permute(0, 2, 3, 4, 1).flatten(2)
        colours = colour_counts(pixel_values_videos).to(self.dtype)
        joined = torch.cat([self.colour_neighbours(colours), self.frame_neighbours(frames), flat], dim=2)
        hidden_states = self.dropout(functional.relu(self.hidden(joined)))
        output = AutoShotOutput(self.one_hot(hidden_states).squeeze(-1), self.many_hot(hidden_states).squeeze(-1))
        return output if return_dict else output.to_tuple()


def colour_counts(pixels: torch.Tensor) -> torch.Tensor:
    """(batch, frames, 3, height, width) uint8 as (batch, frames, 512): pixels by the upper 3 bits of each channel."""
    batch, frames = pixels.shape[:2]
    coarse = (pixels.long() >> 5).flatten(3)
    bins = (coarse[:, :, 0] << 6) + (coarse[:, :, 1] << 3) + coarse[:, :, 2]
    counts = torch.zeros(batch, frames, 512, device=pixels.device)
    return counts.scatter_add_(2, bins, torch.ones_like(bins, dtype=counts.dtype))


class AutoShotDetector:
    """A shot detector with weights, for `segment`; decodes and judges 50 frames at a time.

    Args:
        folder: written by `saven convert autoshot`, or a Hub id.
        device: where to run; a GPU if there is one, by default.
    """

    def __init__(self, folder: str | os.PathLike, device: str | None = None):
        self.model = AutoShotModel.from_pretrained(folder).eval()
        self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._folder = os.path.basename(os.path.normpath(os.fspath(folder)))

    @property
    def name(self) -> str:
        return f"autoshot-{self._folder}-{self.model.config.threshold:g}"

    def score(self, media: Media) -> FrameScores:
        times = np.array(media.frame_times(), dtype=np.int64)
        size = tuple(self.model.config.frame_size)
        ends = np.concatenate(list(self._ends(decoded(media, times, size, _STEP))))[: len(times)]
        # The network marks the last frame of a shot; the next one begins the new shot.
        scores = np.concatenate([[0.0], ends[:-1]]).astype(np.float32)
        return FrameScores(times, scores, self.model.config.threshold)

    @torch.inference_mode()
    def _ends(self, chunks):
        """Probabilities that shots end, from pieces of frames in order; the first and the last frame are repeated
        where windows reach beyond them."""
        held, last = None, None
        for chunk in chunks:
            last = chunk[-1:]
            held = np.concatenate([chunk[:1].repeat(_MARGIN, 0) if held is None else held, chunk])
            while len(held) >= _WINDOW:
                yield self._judge(held[:_WINDOW])
                held = held[_STEP:]
        while len(held) > _MARGIN:
            padded = np.concatenate([held[:_WINDOW], last.repeat(max(0, _WINDOW - len(held)), 0)])
            yield self._judge(padded)
            held = held[_STEP:]

    def _judge(self, frames: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(frames))[None].to(self.model.device)
        return self.model(pixels).logits[0, _MARGIN : _WINDOW - _MARGIN].sigmoid().float().cpu().numpy()
