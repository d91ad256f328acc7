"""The Audio-Visual Time-Spatial resampler: learnable queries read picture, sound and time (paper section 4.1.3).

Shapes as in `connector_base`.
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
    PooledKeys,
    Questions,
    WindowIndex,
)
from .layout import NO_TIME, SPEECH_TOKENS_PER_COLUMN


# Of the match of positions that attention starts from: its own moment gets most of a query's attention in the first
# heads, and what is random about contents does not drown it.
_MATCH_GAIN = 1.2


def sinusoidal_positions(positions: torch.Tensor, dim: int) -> torch.Tensor:
    """Sine and cosine position encodings of real-valued `positions (...)`: `(..., dim)` float32."""
    half = (dim + 1) // 2
    frequencies = torch.exp(torch.arange(half, device=positions.device) * (-math.log(1e4) / half))
    angles = positions.to(torch.float32)[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :dim]


def window_positions(
    times: torch.Tensor, valid: torch.Tensor, start: torch.Tensor, end: torch.Tensor, num_queries: int
) -> torch.Tensor:
    """Where in its window a dated token lies, on the scale of the queries: 0 at the start, Q - 1 at the end.

    Undated windows use the token's rank. A function of time, not of storage order: permuting tokens together with
    their times changes nothing.

    Args:
        times: `(windows, n)`; valid: `(windows, n)`; start, end: `(windows,)`.
    """
    span = (end - start).clamp(min=1).to(torch.float32)[:, None]
    relative = (times - start[:, None]).to(torch.float32) / span
    rank = valid.cumsum(-1) - 1
    by_rank = rank / (valid.sum(-1, keepdim=True) - 1).clamp(min=1)
    dated = (start != NO_TIME)[:, None]
    return torch.where(dated, relative, by_rank.to(torch.float32)) * (num_queries - 1)


def _matched_positions(size: int, heads: int) -> torch.Tensor:
    """A projection `(size, size)` that hands each head sines and cosines of its own share of the frequencies, the
    highest to the first: queries and keys that both go through it match where their `sinusoidal_positions` do, and
    the first head tells neighbouring queries apart."""
    pairs, half = size // heads // 2, (size + 1) // 2
    matched = torch.zeros(size, size)
    for head in range(heads):
        for at in range(pairs):
            row, frequency = head * (size // heads) + 2 * at, head * pairs + at
            matched[row, frequency] = matched[row + 1, half + frequency] = 1.0
    return matched


class ResamplerAttention(nn.Module):
    """Multi-head attention of the resampler; a float bias carries padding and the balance of modalities."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.num_heads = config.resampler_heads
        self.dropout = config.resampler_dropout
        size = config.resampler_hidden_size
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.o_proj = nn.Linear(size, size)

    def forward(self, queries, keys, values, bias=None):
        """queries `(b, q, d)`, keys and values `(b, n, d)`, bias `(b, n)` or None -> `(b, q, d)`."""
        query, key, value = (
            projection(states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, states in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, values))
        )
        mask = None if bias is None else bias[:, None, None, :].to(query.dtype)
        dropout = self.dropout if self.training else 0.0
        if self.config._attn_implementation == "eager":
            scores = query @ key.transpose(-1, -2) * key.shape[-1] ** -0.5
            if mask is not None:
                scores = scores + mask
            weights = F.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype), p=dropout)
            output = weights @ value
        else:
            # Whatever else is asked for (flash, flex) concerns the towers and the language model: the float bias
            # needs sdpa.
            output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.o_proj(output.transpose(1, 2).flatten(2))


def literal_cross_attention(queries: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor | None = None):
    r"""Equations 2 and 3 as they stand: $y_j = \sum_i \alpha_{ji} x_i$, $\alpha_{ji} \propto \exp(q_j^\top x_i)$.

    queries `(b, q, d)`, keys x `(b, n, d)`, bias `(b, n)` -> `(b, q, d)`.
    """
    scores = queries @ keys.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias[:, None, :]
    return scores.softmax(dim=-1) @ keys


class AVTSLayer(GradientCheckpointingLayer):
    """One layer of the non-causal decoder: self-attention of the queries, cross-attention to the keys, feed-forward.

    Positions are added to queries and keys in every layer anew (paper 4.1.3); values stay free of them.
    """

    def __init__(self, config):
        super().__init__()
        self.literal = config.resampler_attention == "literal"
        if self.literal:
            return
        size = config.resampler_hidden_size
        self.self_attn_norm = nn.LayerNorm(size)
        self.self_attn = ResamplerAttention(config)
        self.cross_attn_norm = nn.LayerNorm(size)
        self.cross_attn = ResamplerAttention(config)
        self.mlp_norm = nn.LayerNorm(size)
        self.mlp = nn.Sequential(
            nn.Linear(size, config.resampler_intermediate_size),
            nn.GELU(),
            nn.Dropout(config.resampler_dropout),
            nn.Linear(config.resampler_intermediate_size, size),
        )

    def forward(self, queries, query_positions, query_bias, keys, key_positions, key_bias):
        if self.literal:
            return literal_cross_attention(queries + query_positions, keys + key_positions, key_bias)
        states = self.self_attn_norm(queries)
        placed = states + query_positions
        queries = queries + self.self_attn(placed, placed, states, query_bias)
        states = self.cross_attn_norm(queries) + query_positions
        queries = queries + self.cross_attn(states, keys + key_positions, keys, key_bias)
        return queries + self.mlp(self.mlp_norm(queries))


class AVTSResampler(Connector):
    """Audio-Visual Time-Spatial resampler (paper 4.1.3): M learnable queries read picture, sound and time.

    Keys carry sinusoidal positions (their time within the window, on the scale of the queries) and learned ones
    (patch for pictures, mel band for sound); queries carry both by their index.
    """

    def __init__(self, config):
        super().__init__(config)
        size, queries = config.resampler_hidden_size, config.queries_per_window
        self.queries = nn.Parameter(torch.zeros(queries, size))
        self.query_position = nn.Parameter(torch.zeros(queries, size))
        self.patch_position = nn.Parameter(torch.zeros(config.patches_per_frame, size))
        self.band_position = nn.Parameter(torch.zeros(config.audio_bands, size))
        if config.speech_config is not None:
            self.speech_position = nn.Parameter(torch.zeros(SPEECH_TOKENS_PER_COLUMN, size))
        self.key_norm = nn.Identity() if config.resampler_attention == "literal" else nn.LayerNorm(size)
        self.layers = nn.ModuleList([AVTSLayer(config) for _ in range(config.resampler_layers)])

    def initialise(self, std: float) -> None:
        super().initialise(std)
        for parameter in (self.queries, self.query_position, self.patch_position, self.band_position):
            init.normal_(parameter, std=std)
        if self.config.speech_config is not None:
            init.normal_(self.speech_position, std=std)
        if self.config.initial_attention == "own_time" and self.config.resampler_attention != "literal":
            matched = _matched_positions(self.config.resampler_hidden_size, self.config.resampler_heads)
            for layer in self.layers:
                for projection in (layer.cross_attn.q_proj, layer.cross_attn.k_proj):
                    if getattr(projection.weight, "_is_hf_initialized", False):
                        continue  # of a checkpoint, perhaps quantized
                    # What is there breaks the ties between patches, bands and queries.
                    start = projection.weight / 2 + _MATCH_GAIN * matched.to(projection.weight)
                    init.copy_(projection.weight, start)

    @property
    def joint(self) -> bool:
        return self.config.question_times == "joint"

    def resample(self, tokens: DatedTokens, tlp, windows: WindowIndex, questions: Questions | None):
        """Window tokens, a list of `(Q, D)`; and with `questions`, their tokens as each window reads them,
        `(windows, T, D)`, else None."""
        window_tokens, question_tokens = [], []
        for group in self._groups(windows):
            part = windows.select(group)
            times = mask = None
            if questions is not None:
                times, mask = questions.times[part.media], questions.mask[part.media]
            states, asked = self._resample(tokens, tlp, part, times, mask)
            window_tokens.extend(states)
            question_tokens.append(asked)
        if questions is None:
            return window_tokens, None
        if not question_tokens:
            width = self.output_projection.out_features
            return window_tokens, tokens.picture.new_zeros(0, questions.times.shape[1], width)
        return window_tokens, torch.cat(question_tokens)

    def pool(self, tokens: DatedTokens, windows: WindowIndex) -> PooledKeys:
        """One key a frame (mean over patches) and one a second of each kind of sound (mean over its tokens)."""
        parts = []
        frames = windows.frames[windows.frames >= 0]
        if len(frames):
            media = windows.media[torch.nonzero(windows.frames >= 0)[:, 0]]
            parts.append(_labelled(tokens.picture[frames].mean(1), tokens.frame_times[frames], PICTURE, media))
        for modality, index, states, times in tokens.by_modality(windows)[1:]:
            if (index >= 0).any():
                parts.append(_pooled_by_second(modality, index, states, times, windows.media))
        return PooledKeys.cat(parts) if parts else super().pool(tokens, windows)

    def read_times(self, pooled: PooledKeys, tlp, times: torch.Tensor, duration: torch.Tensor) -> torch.Tensor:
        """Question tokens `(T, D)`: the question's times as queries over the pooled keys of a whole medium.

        Args:
            pooled: `PooledKeys` of the medium.
            times: `(T,)` int64 microseconds; duration: `()` int64 microseconds.
        """
        queries = (tlp(times, duration) + self.modality_embedding[QUESTION])[None]
        start, end = torch.zeros_like(duration)[None], duration.clamp(min=1)[None]
        query_positions = self._sinusoids(times[None], torch.ones_like(times[None], dtype=torch.bool), start, end)

        dates = pooled.times[None]
        everything = torch.ones_like(dates, dtype=torch.bool)
        hidden_time = tlp(dates, duration)
        states = pooled.states[None] + self.modality_embedding[pooled.modality]
        positions = self._sinusoids(dates, everything, start, end)
        keys, key_positions, groups = [states], [positions], [pooled.modality[None]]
        if self.config.adds_time:
            keys[0] = states + hidden_time
        if self.config.has_time_tokens:
            keys.append(hidden_time + self.modality_embedding[TIME])
            key_positions.append(positions)
            groups.append(torch.full_like(dates, TIME))
        keys, groups = torch.cat(keys, 1), torch.cat(groups, 1)
        bias = self._key_bias(groups, torch.ones_like(groups, dtype=torch.bool), keys.dtype)
        return self._decode(queries, query_positions, None, keys, torch.cat(key_positions, 1), bias)[0]

    def _groups(self, windows: WindowIndex) -> list[torch.Tensor]:
        """Runs of windows whose keys, padded, stay under `resampler_max_keys` (at least one window each)."""
        patches, bands = self.config.patches_per_frame + 1, self.config.audio_bands + 1
        keys = windows.frames.shape[1] * patches + windows.columns.shape[1] * bands
        keys = keys + windows.speech.shape[1] * (SPEECH_TOKENS_PER_COLUMN + 1) or 1
        size = max(1, self.config.resampler_max_keys // keys)
        return list(torch.arange(len(windows.start), device=windows.start.device).split(size))

    def _resample(self, tokens, tlp, windows, query_times, query_mask):
        count, size = len(windows.start), self.config.resampler_hidden_size
        keys, positions, groups, masks = [], [], [], []
        learned = {PICTURE: self.patch_position, SOUND: self.band_position}
        if self.config.speech_config is not None:
            learned[SPEECH] = self.speech_position
        dated = (windows.start != NO_TIME)[:, None]
        for modality, states, hidden_time, dates, valid in self._dated_rows(tokens, tlp, windows):
            rows = states.shape[2]
            where = self._sinusoids(dates, valid, windows.start, windows.end)
            keys.append(states.flatten(1, 2))
            positions.append((where[:, :, None] + learned[modality][:rows]).flatten(1, 2))
            masks.append(valid.repeat_interleave(rows, dim=1))
            groups.append(torch.full_like(masks[-1], modality, dtype=torch.int64))
            if self.config.has_time_tokens:
                keys.append(hidden_time)
                positions.append(where)
                masks.append(valid & dated)
                groups.append(torch.full_like(valid, TIME, dtype=torch.int64))
        keys, positions = torch.cat(keys, 1), torch.cat(positions, 1)
        # Padding is storage only: whatever was gathered there must not reach a product with zero weight.
        mask = torch.cat(masks, 1)
        keys = keys.masked_fill(~mask[..., None], 0.0)
        key_bias = self._key_bias(torch.cat(groups, 1), mask, keys.dtype)

        queries = self.queries.expand(count, -1, -1)
        index = torch.arange(len(self.queries), device=keys.device)
        query_positions = sinusoidal_positions(index, size).to(keys.dtype) + self.query_position
        query_positions = query_positions.expand(count, -1, -1)
        if self.config.query_anchors:
            queries = queries + tlp(self._anchors(windows), windows.durations[:, None])
        if query_times is None:
            return self._decode(queries, query_positions, None, keys, positions, key_bias), None

        question = tlp(query_times, windows.durations[:, None]) + self.modality_embedding[QUESTION]
        where = self._sinusoids(query_times, query_mask, windows.start, windows.end)
        queries = torch.cat([queries, question], 1)
        query_positions = torch.cat([query_positions, where], 1)
        query_valid = F.pad(query_mask, (len(self.queries), 0), value=True)
        query_bias = torch.zeros(query_valid.shape, dtype=keys.dtype, device=keys.device)
        query_bias = query_bias.masked_fill(~query_valid, torch.finfo(keys.dtype).min)
        states = self._decode(queries, query_positions, query_bias, keys, positions, key_bias)
        return states[:, : len(self.queries)], states[:, len(self.queries) :]

    def _decode(self, queries, query_positions, query_bias, keys, key_positions, key_bias):
        keys = self.key_norm(keys)
        if torch.is_autocast_enabled(keys.device.type):
            # Once, and not for each projection of each layer: they are what a step spends its time on.
            dtype = torch.get_autocast_dtype(keys.device.type)
            keys, key_positions = keys.to(dtype), key_positions.to(dtype)
        for layer in self.layers:
            queries = layer(queries, query_positions, query_bias, keys, key_positions, key_bias)
        return self.to_language_model(queries)

    def _anchors(self, windows: WindowIndex) -> torch.Tensor:
        """Evenly spaced times of each window, one per query: `(windows, Q)`, `NO_TIME` for undated windows."""
        count = len(self.queries)
        steps = 2 * torch.arange(count, device=windows.start.device) + 1
        span = (windows.end - windows.start)[:, None]
        anchors = windows.start[:, None] + torch.div(span * steps, 2 * count, rounding_mode="floor")
        return torch.where((windows.start == NO_TIME)[:, None], NO_TIME, anchors)

    def _sinusoids(self, times, valid, start, end) -> torch.Tensor:
        where = window_positions(times, valid, start, end, len(self.queries))
        return sinusoidal_positions(where, self.config.resampler_hidden_size).to(self.queries.dtype)

    def _key_bias(self, groups, mask, dtype) -> torch.Tensor | None:
        """Additive attention bias `(b, n)`: shuts padding out and gives each modality present the same prior weight.

        A modality with n tokens in a window gets -log n on each of them, so its weights sum to 1 before content
        speaks.
        """
        bias = torch.zeros(groups.shape, dtype=torch.float32, device=groups.device)
        if self.config.balance_modalities and self.config.resampler_attention != "literal":
            for modality in (PICTURE, SOUND, TIME, SPEECH):
                members = (groups == modality) & mask
                bias = torch.where(members, -members.sum(-1, keepdim=True).clamp(min=1).log().to(bias.dtype), bias)
        return bias.masked_fill(~mask, torch.finfo(dtype).min).to(dtype)


def _pooled_by_second(
    modality: int, index: torch.Tensor, states: torch.Tensor, times: torch.Tensor, media: torch.Tensor
) -> PooledKeys:
    """One key a second of the columns that `index (windows, n)` lists; `media (windows,)` are those of the windows."""
    columns, window_of = index[index >= 0], torch.nonzero(index >= 0)[:, 0]
    second = torch.div(times[columns], 1_000_000, rounding_mode="floor")
    # Bins never cross a window, so that pooling window by window gives the same keys.
    _, bins, sizes = torch.unique(torch.stack([window_of, second]), dim=1, return_inverse=True, return_counts=True)
    states = states[columns].mean(1)
    pooled = states.new_zeros(len(sizes), states.shape[-1]).index_add(0, bins, states)
    # Offsets inside the second, not times, are averaged: NO_TIME must survive and sums must not overflow.
    offsets = torch.zeros_like(sizes).index_add(0, bins, times[columns] - second * 1_000_000)
    first = torch.zeros_like(sizes).scatter(0, bins, second)
    dates = first * 1_000_000 + torch.div(offsets, sizes, rounding_mode="floor")
    return _labelled(
        pooled / sizes[:, None], dates, modality, torch.zeros_like(sizes).scatter(0, bins, media[window_of])
    )


def _labelled(states: torch.Tensor, times: torch.Tensor, modality: int, media: torch.Tensor) -> PooledKeys:
    return PooledKeys(states, times, torch.full_like(times, modality), media)
