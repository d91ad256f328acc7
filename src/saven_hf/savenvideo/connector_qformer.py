"""The causal Q-Former of FAVOR / video-SALMONN: picture and sound side by side in steps of half a second.

Published in words as FAVOR (arXiv 2310.05863) and video-SALMONN (arXiv 2406.15704), in code as the branch
`videosalmonn` of github.com/bytedance/SALMONN; where the two differ, a field of the configuration says which is meant.

A window (5 s) is `S` steps (of 0.5 s) of `R` rows. Row r of a step holds, side by side in its channels, the r-th part
of the picture, the r-th token of the speech tower and the r-th of the audio tower. A few learned queries read the rows
of a window, and others those of each of its steps: two resolutions that are joined channel by channel.

Shapes as in `connector_base`; `W` windows, `N = S * R` rows, `B` blocks of `d` channels in a row.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .connector_base import (
    PICTURE,
    QUESTION,
    SOUND,
    SPEECH,
    TIME,
    Connector,
    DatedTokens,
    Questions,
    Resampled,
    WindowIndex,
)
from .layout import NO_TIME, PATCH_CENTRE_US, PATCH_STEP_US, SPEECH_STEP_US, steps_per_window


# Of the BERT that the published Q-Former is made of. The norm of the rows is torch's own.
BERT_NORM_EPS = 1e-12


def diversity_loss(window_states: torch.Tensor) -> torch.Tensor:
    r"""How much alike the output queries of a window are: their mean cosine similarity, $i \neq j$ (published).

    Args:
        window_states: `(W, Q, d)`.
    """
    count = window_states.shape[1]
    if count < 2 or not len(window_states):
        return window_states.sum() * 0.0
    unit = F.normalize(window_states.float(), dim=-1, eps=1e-9)
    similarity = unit @ unit.transpose(1, 2)
    off_diagonal = similarity.sum((1, 2)) - similarity.diagonal(dim1=1, dim2=2).sum(-1)
    return (off_diagonal / (count * (count - 1))).mean()


class MaskedLayerNorm(nn.LayerNorm):
    """Layer norm over the channels that a mask names, as if there were no others."""

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """states `(..., channels)`; mask: bool, of the same shape, or None for all. Computes in float32."""
        if mask is None:
            return super().forward(states)
        values = states.float().masked_fill(~mask, 0.0)
        count = mask.sum(-1, keepdim=True).clamp(min=1)
        centred = (values - values.sum(-1, keepdim=True) / count).masked_fill(~mask, 0.0)
        variance = centred.square().sum(-1, keepdim=True) / count
        scaled = centred * torch.rsqrt(variance + self.eps)
        return (scaled * self.weight.float() + self.bias.float()).to(states.dtype)


class QFormerAttention(nn.Module):
    """Multi-head attention with residual and norm behind it, as in BERT."""

    def __init__(self, config, size: int, key_size: int):
        super().__init__()
        self.config = config
        self.num_heads = config.resampler_heads
        self.dropout = config.resampler_dropout
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(key_size, size)
        self.v_proj = nn.Linear(key_size, size)
        self.o_proj = nn.Linear(size, size)
        self.norm = nn.LayerNorm(size, eps=BERT_NORM_EPS)

    def forward(self, states: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """states `(b, q, size)`, keys `(b, n, key_size)`, mask of what is seen, broadcastable to `(b, q, n)`.

        A query that sees nothing gets nothing from its attention; in the published code the mean of all.
        """
        query, key, value = (
            projection(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, tokens in ((self.q_proj, states), (self.k_proj, keys), (self.v_proj, keys))
        )
        bias = None
        if mask is not None:
            bias = torch.zeros(mask.shape, dtype=query.dtype, device=query.device)
            bias = bias.masked_fill(~mask, torch.finfo(query.dtype).min)[:, None]
        dropout = self.dropout if self.training else 0.0
        if self.config._attn_implementation == "eager":
            scores = query @ key.transpose(-1, -2) * key.shape[-1] ** -0.5
            if bias is not None:
                scores = scores + bias
            weights = F.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype), p=dropout)
            context = weights @ value
        else:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        context = context.transpose(1, 2).flatten(2)
        if mask is not None and self.config.qformer_alignment != "published":
            context = context.masked_fill(~mask.any(-1, keepdim=True), 0.0)
        return self.norm(states + F.dropout(self.o_proj(context), dropout))


class QFormerLayer(GradientCheckpointingLayer):
    """Attention of the rows over time, then of the queries to one another and to the rows, then feed-forward.

    The rows that the attention over time gives serve as keys of this layer only; the next one starts anew (published).
    """

    def __init__(self, config, width: int):
        super().__init__()
        size = config.resampler_hidden_size
        self.dropout = config.resampler_dropout
        self.causal_attn = QFormerAttention(config, width, width)
        self.self_attn = QFormerAttention(config, size, size)
        self.cross_attn = QFormerAttention(config, size, width)
        self.up = nn.Linear(size, config.resampler_intermediate_size)
        self.down = nn.Linear(config.resampler_intermediate_size, size)
        self.norm = nn.LayerNorm(size, eps=BERT_NORM_EPS)

    def forward(self, queries, rows, row_mask, self_mask, cross_mask):
        rows = self.causal_attn(rows, rows, row_mask)
        queries = self.self_attn(queries, queries, self_mask)
        queries = self.cross_attn(queries, rows, cross_mask)
        hidden = self.down(F.gelu(self.up(queries)))
        return self.norm(queries + F.dropout(hidden, self.dropout if self.training else 0.0))


class CausalQFormer(Connector):
    """See the head of this file. Reads each window by itself, so no window is changed by what comes after it."""

    # One linear layer each, as published; its picture comes in the width of the Q-Former and is not projected at all.
    modality_projection = nn.Linear

    def __init__(self, config):
        super().__init__(config)
        size, queries = config.resampler_hidden_size, config.queries_per_window
        self.steps = steps_per_window(config.window_seconds, config.qformer_step_seconds)
        self.published = config.qformer_alignment == "published"
        self.blocks = [PICTURE, *([SPEECH] if config.speech_config is not None else []), SOUND]
        if config.has_time_tokens:
            self.blocks.append(TIME)
        if self.published and config.question_times == "none":
            # Nothing reads them: the published connector has none.
            self.modality_embedding = self.output_norm = None
        width = size * len(self.blocks)
        self.row_norm = MaskedLayerNorm(width)
        self.row_position = nn.Parameter(torch.zeros(self.steps * config.qformer_rows, width))
        self.queries = nn.Parameter(torch.zeros(queries, size))
        low = config.qformer_low_steps
        if low is not None:
            self.low_queries = nn.Parameter(torch.zeros(queries * low // self.steps, size))
            self.output_projection = nn.Linear(2 * size, config.text_config.hidden_size)
        self.query_norm = nn.LayerNorm(size, eps=BERT_NORM_EPS)
        self.layers = nn.ModuleList([QFormerLayer(config, width) for _ in range(config.resampler_layers)])

    @property
    def dtype(self) -> torch.dtype:
        return self.row_norm.weight.dtype

    def initialise(self, std: float) -> None:
        if self.modality_embedding is not None:
            super().initialise(std)
        init.normal_(self.queries, std=std)
        init.normal_(self.row_position, std=std)
        if self.config.qformer_low_steps is not None:
            init.normal_(self.low_queries, std=std)

    def resample(self, tokens: DatedTokens, tlp, windows: WindowIndex, questions: Questions | None) -> Resampled:
        """Window tokens, a list of `(Q, D)`, and the states `(W, Q, d)` that they are a projection of."""
        states = [tokens.picture.new_zeros(0, len(self.queries), self.output_projection.in_features)]
        # At least one window at a time, and no more rows than `resampler_max_keys`.
        size = max(1, self.config.resampler_max_keys // len(self.row_position))
        for group in torch.arange(len(windows.start), device=windows.start.device).split(size):
            if not len(group):
                break
            part = windows.select(group)
            rows, present, used = self._rows(tokens, tlp, part)
            states.append(self._resample(rows, present, used, tlp, part))
        states = torch.cat(states)
        return Resampled(list(self.output_projection(states)), None, states)

    def read_times(self, pooled, tlp, times: torch.Tensor, duration: torch.Tensor) -> torch.Tensor:
        """Question tokens `(T, D)` of one medium from `times (T,)`: its time features, at every resolution."""
        states = self.output_norm(tlp(times, duration) + self.modality_embedding[QUESTION])
        return self.output_projection(states.repeat(1, self.output_projection.in_features // states.shape[-1]))

    # ------------------------------------------------------------------------------------------------ rows of a window

    def _rows(self, tokens: DatedTokens, tlp, windows: WindowIndex) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What lies where: rows `(W, S, R, B, d)`, which of their blocks are there `(W, S, R, B)`, and which rows are
        keys `(W, S, R)`."""
        shape = len(windows.start), self.steps, self.config.qformer_rows
        contents, there = {}, {}
        for modality, index, states, times in tokens.by_modality(windows):
            if modality == PICTURE:
                states = self._fit(states)
            if not self.published:
                states = states + self.modality_embedding[modality]
                if self.config.adds_time:
                    # A window's tokens are of one medium, so each has one duration.
                    durations = times.new_zeros(len(times))
                    valid = index >= 0
                    durations[index[valid]] = windows.durations[:, None].expand_as(index)[valid]
                    states = states + tlp(times, durations)[:, None]
            unit, target = self._targets(modality, index, times, states.shape[1], windows)
            values = states.flatten(0, 1)[unit]
            total = values.new_zeros(math.prod(shape), values.shape[-1]).index_add(0, target, values)
            count = torch.bincount(target, minlength=math.prod(shape))
            contents[modality] = (total / count.clamp(min=1).to(total.dtype)[:, None]).view(*shape, -1)
            there[modality] = (count > 0).view(shape)

        if self.published:
            return self._published_rows(contents, there)
        anything = torch.stack(list(there.values())).any(0)
        if TIME in self.blocks:
            step = round(self.config.qformer_step_seconds * 1e6)
            middle = windows.start[:, None] + step * torch.arange(self.steps, device=windows.start.device) + step // 2
            dated = (windows.start != NO_TIME)[:, None, None]
            middle = torch.where(dated[..., 0], middle, NO_TIME)
            hidden_time = tlp(middle, windows.durations[:, None]) + self.modality_embedding[TIME]
            contents[TIME] = hidden_time[:, :, None].expand(*shape, -1)
            there[TIME] = anything & dated
        present = torch.stack([there[block] for block in self.blocks], -1)
        return torch.stack([contents[block] for block in self.blocks], -2), present, anything

    def _published_rows(self, contents, there):
        """Zeros in the place of what is absent, seen like anything else, up to the last step that has something."""
        if SPEECH in there:
            # BEATs is filled up with zeros before it is projected, all else after.
            silent = there[SPEECH] & ~there[SOUND]
            nothing = contents[SOUND].new_zeros(1, self.audio_mlp.in_features)
            contents[SOUND] = torch.where(silent[..., None], self.audio_mlp(nothing), contents[SOUND])
        used = torch.stack(list(there.values())).any(0).any(-1)  # (W, S)
        used = used.flip(1).cummax(1).values.flip(1)[..., None].expand(there[SOUND].shape)
        rows = torch.stack([contents[block] for block in self.blocks], -2)
        return rows, torch.ones(rows.shape[:-1], dtype=torch.bool, device=rows.device), used

    def _fit(self, picture: torch.Tensor) -> torch.Tensor:
        """Patches `(frames, P, d)` as no more rows than a step has: averaged to the largest grid that fits."""
        patches, rows = picture.shape[1], self.config.qformer_rows
        if patches <= rows:
            return picture
        side, grid = math.isqrt(patches), math.isqrt(rows)
        square = picture.transpose(1, 2).unflatten(-1, (side, side))
        return F.adaptive_avg_pool2d(square, grid).flatten(2).transpose(1, 2)

    def _targets(
        self, modality: int, index: torch.Tensor, times: torch.Tensor, count: int, windows: WindowIndex
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which tokens go where: their numbers in `states.flatten(0, 1)`, and those of their rows in `(W, S, R)`.

        Units (frames, columns) of a step lie one after the other, `count` rows each. Where they are more than the rows
        hold, neighbours share rows, as their mean.
        """
        rows, steps = self.config.qformer_rows, self.steps
        step_us = round(self.config.qformer_step_seconds * 1e6)
        window = torch.nonzero(index >= 0)[:, 0]
        unit = index[index >= 0]
        order = torch.argsort(times[unit], stable=True)
        order = order[torch.argsort(window[order], stable=True)]
        window, unit = window[order], unit[order]
        rank, in_window = _ranks(window, len(windows.start))
        dated = windows.start[window] != NO_TIME
        # Undated units follow one another, each as long as it is.
        length = {PICTURE: step_us, SOUND: PATCH_STEP_US, SPEECH: SPEECH_STEP_US}[modality]
        place = torch.where(in_window * length > steps * step_us, rank * steps * step_us // in_window, rank * length)
        offset = torch.where(dated, times[unit] - windows.start[window], place)
        tokens = torch.arange(count, device=unit.device)

        if modality == SOUND and self.published:
            moment = PATCH_STEP_US // count
            start = torch.where(dated, offset - PATCH_CENTRE_US, offset)
            at = start[:, None] + moment * tokens
            # Only the first window hears what comes before it; of a column on an edge each side has its own part.
            at = torch.where((windows.start[window] <= 0)[:, None], at.clamp(min=0), at)
            inside = (at >= 0) & (at < steps * step_us)
            step = torch.div(at, step_us, rounding_mode="floor")
            row = ((at - step * step_us) // moment).clamp(max=rows - 1)
            target = (window[:, None] * steps + step) * rows + row
            return (unit[:, None] * count + tokens)[inside], target[inside]

        step = torch.div(offset, step_us, rounding_mode="floor").clamp(0, steps - 1)
        cell = window * steps + step
        rank, in_step = _ranks(cell, len(windows.start) * steps)
        capacity = max(1, rows // count)
        slot = torch.where(in_step > capacity, rank * capacity // in_step, rank)
        target = (cell * rows + slot * count)[:, None] + tokens
        return (unit[:, None] * count + tokens).flatten(), target.flatten()

    # --------------------------------------------------------------------------------------------------------- queries

    def _resample(self, rows, present, used, tlp, windows: WindowIndex) -> torch.Tensor:
        """States of a window's queries, `(W, Q, d)` or with two resolutions `(W, Q, 2 d)`."""
        states = [self._read(rows, present, used, self.queries, tlp, windows.start, windows.durations)]
        low = self.config.qformer_low_steps
        if low is not None:
            parts = self.steps // low

            def cut(tensor: torch.Tensor) -> torch.Tensor:
                return tensor.unflatten(1, (parts, low)).flatten(0, 1)

            step = round(self.config.qformer_step_seconds * 1e6) * low
            start = windows.start[:, None] + step * torch.arange(parts, device=windows.start.device)
            start = torch.where((windows.start == NO_TIME)[:, None], NO_TIME, start).flatten()
            durations = windows.durations.repeat_interleave(parts)
            fine = self._read(cut(rows), cut(present), cut(used), self.low_queries, tlp, start, durations)
            states.insert(0, fine.unflatten(0, (-1, parts)).flatten(1, 2))
        return torch.cat(states, -1)

    def _read(self, rows, present, used, queries, tlp, start, durations) -> torch.Tensor:
        """What `queries (q, d)` read of each of the windows that `rows (b, s, R, B, d)` hold: `(b, q, d)`."""
        steps = rows.shape[1]
        rows = rows.flatten(3).flatten(1, 2)
        used = used.flatten(1)
        channels = present.repeat_interleave(self.config.resampler_hidden_size, -1).flatten(1, 2)
        if self.published:
            keys = self.row_norm(rows) + self.row_position[: rows.shape[1]]
        else:
            keys = self.row_norm(rows, channels) + self.row_position[: rows.shape[1]]
            # Linear layers get nothing from a block that is absent, as if it had no weights at all.
            keys = keys.masked_fill(~channels, 0.0)

        row_step = torch.arange(steps, device=keys.device).repeat_interleave(self.config.qformer_rows)
        row_mask = self._sees(row_step, row_step)[None]
        if not self.published:
            row_mask = row_mask & used[:, None]
        cross_mask, self_mask = used[:, None], None
        if self.config.qformer_causal_queries and self.config.qformer_direction != "both":
            query_step = torch.arange(len(queries), device=keys.device) * steps // len(queries)
            cross_mask = cross_mask & self._sees(query_step, row_step)
            self_mask = self._sees(query_step, query_step)[None]

        states = queries.expand(len(rows), -1, -1)
        if self.config.query_anchors:
            states = states + tlp(self._anchors(start, steps, len(queries)), durations[:, None])
        states = F.dropout(self.query_norm(states), self.config.resampler_dropout if self.training else 0.0)
        for layer in self.layers:
            states = layer(states, keys, row_mask, self_mask, cross_mask)
        return states

    def _sees(self, step: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Which of `other (n,)` each of `step (q,)` attends to, by the steps they are of: `(q, n)` bool."""
        step, other = step[:, None], other[None]
        if self.config.qformer_direction == "past":
            return other <= step
        if self.config.qformer_direction == "future":
            return other >= step
        return torch.ones_like(step == other)

    def _anchors(self, start: torch.Tensor, steps: int, count: int) -> torch.Tensor:
        """Evenly spaced times of windows of `steps` steps, one per query: `(b, q)`, `NO_TIME` for undated windows."""
        span = steps * round(self.config.qformer_step_seconds * 1e6)
        anchors = start[:, None] + span * (2 * torch.arange(count, device=start.device) + 1) // (2 * count)
        return torch.where((start == NO_TIME)[:, None], NO_TIME, anchors)


def _ranks(groups: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each entry of sorted `groups (n,)`: its rank in its group, and how many the group has."""
    sizes = torch.bincount(groups, minlength=count)
    first = sizes.cumsum(0) - sizes
    return torch.arange(len(groups), device=groups.device) - first[groups], sizes[groups]
