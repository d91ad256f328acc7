"""What stands between the encoders and the language model: time features (TLP) and the resamplers.

Every connector reads the same thing, the *dated tokens* of a medium: picture tokens (one row of patches a frame),
sound tokens (one row of mel bands a column) and their times. Paper sections 4.1.2 and 4.1.3.

Shapes: `frames` and `columns` are packed over the batch (valid ones only), `d` is `resampler_hidden_size`, `D` the
hidden size of the language model, `Q` `queries_per_window`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .layout import NO_TIME, Window


PICTURE, SOUND, TIME, QUESTION = range(4)

TimeFeatures = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, whatever the dtype of its weights and of autocast."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device_type=inputs.device.type, enabled=False):
            return F.linear(inputs.to(torch.float32), self.weight.to(torch.float32), self.bias.to(torch.float32))


class TemporalLinearProjection(nn.Module):
    r"""Time as a modality of its own: $h(t) = W f(t) + b$ (paper equation 1).

    f(t), which the paper leaves open, is a sine and a cosine of t for each of `time_periods` and the relative position
    t / duration. The periods divide the clock's own cycles by default (a second, a minute, an hour, a day): a digit of
    HH:MM:SS.mmm is a periodic function of time, and so easy to read from f(t). Times are integer microseconds and
    phases are taken by integer remainder, so an hour in, 10 ms are told apart as well as at the start; everything up
    to h is float32 whatever the model's dtype or autocast.
    """

    def __init__(self, config):
        super().__init__()
        # Plain integers, not a buffer: nothing to lose on the meta device or in a cast.
        self.periods = [max(1, round(period * 1e6)) for period in config.time_periods]
        self.projection = Float32Linear(2 * len(self.periods) + 1, config.resampler_hidden_size)

    def features(self, times: torch.Tensor, durations: torch.Tensor) -> torch.Tensor:
        """f(t): `(..., 2 * periods + 1)` float32 from int64 microseconds `times (...)` and `durations (...)`."""
        periods = torch.tensor(self.periods, dtype=torch.int64, device=times.device)
        # The remainder is exact; from there float32 is enough (and all that some devices have).
        phase = torch.remainder(times[..., None], periods).to(torch.float32) / periods * (2 * torch.pi)
        relative = torch.where(durations > 0, times.to(torch.float32) / durations.clamp(min=1), 0.0)
        return torch.cat([phase.sin(), phase.cos(), relative[..., None]], dim=-1)

    def forward(self, times: torch.Tensor, durations: torch.Tensor) -> torch.Tensor:
        """h(t): `(..., d)`; rows of `NO_TIME` give zeros.

        Args:
            times: int64 microseconds of any shape.
            durations: int64 microseconds of the medium each time belongs to, broadcastable to `times`; 0 if unknown.
        """
        known = times != NO_TIME
        hidden = self.projection(self.features(times.masked_fill(~known, 0), durations))
        return hidden.masked_fill(~known[..., None], 0.0).to(self.projection.weight.dtype)


class ModalityMLP(nn.Module):
    """The MLP that brings one encoder's tokens to the resampler's width (paper 4.1.3)."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.up = nn.Linear(input_size, hidden_size)
        self.down = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(hidden_states)))


@dataclass
class DatedTokens:
    """Projected tokens of a batch with their times, packed.

    picture: `(frames, patches, d)`; frame_times: `(frames,)`; sound: `(columns, bands, d)`;
    column_times: `(columns,)`; times are int64 microseconds.
    """

    picture: torch.Tensor
    frame_times: torch.Tensor
    sound: torch.Tensor
    column_times: torch.Tensor


@dataclass
class WindowIndex:
    """Padded indices of packed frames and columns per window.

    frames: `(windows, F)`, columns: `(windows, C)`, -1 where padded; start, end: `(windows,)` in microseconds or
    `NO_TIME`; durations: `(windows,)`, of the medium each window belongs to; media: `(windows,)`, its index.
    """

    frames: torch.Tensor
    columns: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor
    durations: torch.Tensor
    media: torch.Tensor

    @classmethod
    def build(cls, windows: list[Window], durations: list[int], media: list[int], device) -> WindowIndex:
        def pad(rows: list[list[int]]) -> torch.Tensor:
            width = max((len(row) for row in rows), default=0)
            padded = [row + [-1] * (width - len(row)) for row in rows]
            return torch.tensor(padded, dtype=torch.int64, device=device).reshape(len(rows), width)

        def vector(values: list[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        return cls(
            frames=pad([window.frames for window in windows]),
            columns=pad([window.columns for window in windows]),
            start=vector([window.start for window in windows]),
            end=vector([window.end for window in windows]),
            durations=vector(durations),
            media=vector(media),
        )

    def select(self, which: torch.Tensor) -> WindowIndex:
        """The windows that `which (n,)` indexes."""
        return WindowIndex(*(getattr(self, field.name)[which] for field in fields(self)))


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


@dataclass
class PooledKeys:
    """Spatially pooled picture and sound, what question times attend to. Independent of the question.

    states: `(n, d)`, MLP outputs before any time feature; times: `(n,)` int64 microseconds; modality: `(n,)` int64,
    `PICTURE` or `SOUND`; media: `(n,)` int64, the medium each key belongs to.
    """

    states: torch.Tensor
    times: torch.Tensor
    modality: torch.Tensor
    media: torch.Tensor

    @classmethod
    def cat(cls, parts: list[PooledKeys]) -> PooledKeys:
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def of(self, medium: int) -> PooledKeys:
        """The keys of one medium."""
        keep = self.media == medium
        return PooledKeys(self.states[keep], self.times[keep], self.modality[keep], self.media[keep])


@dataclass
class Questions:
    """The times that the questions name: times, mask `(media, T)`; durations `(media,)`; int64 microseconds."""

    times: torch.Tensor
    mask: torch.Tensor
    durations: torch.Tensor


@dataclass
class ConnectorOutput:
    """window_tokens: one `(n, D)` per window; question_tokens: one `(T, D)` per medium; pooled: `PooledKeys`."""

    window_tokens: list[torch.Tensor]
    question_tokens: list[torch.Tensor]
    pooled: PooledKeys | None


class Connector(nn.Module):
    """What all connectors share: the two MLPs, modality embeddings, the way into the language model.

    A subclass defines `resample` (windows to tokens) and, if question times read the medium, `pool` and `read_times`.
    Time features come from the model's `TemporalLinearProjection`, handed in by the caller as a function: it is a
    module of its own in the paper and dates the question too. Everything goes through `forward`, where accelerate's
    hooks for dispatched and offloaded weights act: a submodule's weights are only there during its own call.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        size = config.resampler_hidden_size
        self.visual_mlp = ModalityMLP(config.vision_config.hidden_size, size)
        self.audio_mlp = ModalityMLP(config.audio_config.hidden_size, size)
        self.modality_embedding = nn.Parameter(torch.zeros(4, size))
        self.output_norm = nn.LayerNorm(size)
        self.output_projection = nn.Linear(size, config.text_config.hidden_size)

    def forward(
        self,
        picture: torch.Tensor,
        frame_times: torch.Tensor,
        sound: torch.Tensor,
        column_times: torch.Tensor,
        tlp: TimeFeatures,
        windows: WindowIndex,
        questions: Questions | None = None,
        memories: dict[int, PooledKeys] | None = None,
    ) -> ConnectorOutput:
        """Encoder outputs of a batch to language-model tokens.

        Args:
            picture: `(frames, patches, vision d)`; frame_times: `(frames,)`.
            sound: `(columns, bands, audio d)`; column_times: `(columns,)`.
            tlp: h, from times and durations (int64 microseconds) to `(..., d)` on the connector's device.
            windows: which of them make up each window.
            questions: the question's times per medium; None leaves question tokens out.
            memories: pooled keys of media that were encoded earlier and have no windows here, by medium.
        """
        tokens = DatedTokens(self.visual_mlp(picture), frame_times, self.audio_mlp(sound), column_times)
        joint = questions is not None and self.joint
        window_tokens, joint_tokens = self.resample(tokens, tlp, windows, questions if joint else None)
        pooled = None if self.joint else self.pool(tokens, windows)
        question_tokens = []
        for medium in range(len(questions.times) if questions is not None else 0):
            asked = questions.mask[medium]
            if joint:
                # A medium's windows each have their own reading of its question; their mean is the token.
                readings = joint_tokens[windows.media == medium]
                question_tokens.append(readings.mean(0)[asked] if len(readings) else joint_tokens.new_zeros(0))
            elif asked.any():
                keys = memories[medium] if memories and medium in memories else pooled.of(medium)
                times = questions.times[medium][asked]
                question_tokens.append(self.read_times(keys, tlp, times, questions.durations[medium]))
            else:
                question_tokens.append(self.modality_embedding.new_zeros(0, self.output_projection.out_features))
        return ConnectorOutput(window_tokens, question_tokens, pooled)

    @property
    def joint(self) -> bool:
        """Whether question times take part in resampling the windows."""
        return False

    def pool(self, tokens: DatedTokens, windows: WindowIndex) -> PooledKeys:
        """What question times read of a medium: nothing, unless a subclass says otherwise."""
        none = torch.zeros(0, dtype=torch.int64, device=windows.start.device)
        return PooledKeys(tokens.picture.new_zeros(0, tokens.picture.shape[-1]), none, none, none)

    def read_times(self, pooled: PooledKeys, tlp, times: torch.Tensor, duration: torch.Tensor) -> torch.Tensor:
        """Question tokens `(T, D)` of one medium from `times (T,)`: here simply its time features."""
        return self.to_language_model(tlp(times, duration) + self.modality_embedding[QUESTION])

    def to_language_model(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.output_projection(self.output_norm(hidden_states))

    def _dated_rows(self, tokens: DatedTokens, tlp, windows: WindowIndex):
        """Per modality: tokens `(windows, n, rows, d)` dated as `time_fusion` asks, their h, times and validity."""
        rows = []
        for index, states, times, modality in (
            (windows.frames, tokens.picture, tokens.frame_times, PICTURE),
            (windows.columns, tokens.sound, tokens.column_times, SOUND),
        ):
            valid = index >= 0
            if index.shape[1] == 0:
                states, times = states.new_zeros(1, *states.shape[1:]), times.new_zeros(1)
            gathered, dates = states[index.clamp(min=0)], times[index.clamp(min=0)]
            hidden_time = tlp(dates, windows.durations[:, None])
            gathered = gathered + self.modality_embedding[modality]
            if self.config.time_fusion != "token":
                gathered = gathered + hidden_time[:, :, None]
            rows.append((gathered, hidden_time + self.modality_embedding[TIME], dates, valid))
        return rows


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
        self.key_norm = nn.Identity() if config.resampler_attention == "literal" else nn.LayerNorm(size)
        self.layers = nn.ModuleList([AVTSLayer(config) for _ in range(config.resampler_layers)])

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
        """One key a frame (mean over patches) and one a second of sound (mean over bands and columns)."""
        parts = []
        frames = windows.frames[windows.frames >= 0]
        if len(frames):
            media = windows.media[torch.nonzero(windows.frames >= 0)[:, 0]]
            parts.append(_labelled(tokens.picture[frames].mean(1), tokens.frame_times[frames], PICTURE, media))
        columns = windows.columns[windows.columns >= 0]
        if len(columns):
            window_of = torch.nonzero(windows.columns >= 0)[:, 0]
            second = torch.div(tokens.column_times[columns], 1_000_000, rounding_mode="floor")
            # Bins never cross a window, so that pooling window by window gives the same keys.
            _, bins, sizes = torch.unique(
                torch.stack([window_of, second]), dim=1, return_inverse=True, return_counts=True
            )
            states = tokens.sound[columns].mean(1)
            pooled = states.new_zeros(len(sizes), states.shape[-1]).index_add(0, bins, states)
            # Offsets inside the second, not times, are averaged: NO_TIME must survive and sums must not overflow.
            offsets = torch.zeros_like(sizes).index_add(0, bins, tokens.column_times[columns] - second * 1_000_000)
            first = torch.zeros_like(sizes).scatter(0, bins, second)
            times = first * 1_000_000 + torch.div(offsets, sizes, rounding_mode="floor")
            media = torch.zeros_like(sizes).scatter(0, bins, windows.media[window_of])
            parts.append(_labelled(pooled / sizes[:, None], times, SOUND, media))
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
        if self.config.time_fusion != "token":
            keys[0] = states + hidden_time
        if self.config.time_fusion != "add":
            keys.append(hidden_time + self.modality_embedding[TIME])
            key_positions.append(positions)
            groups.append(torch.full_like(dates, TIME))
        keys, groups = torch.cat(keys, 1), torch.cat(groups, 1)
        bias = self._key_bias(groups, torch.ones_like(groups, dtype=torch.bool), keys.dtype)
        return self._decode(queries, query_positions, None, keys, torch.cat(key_positions, 1), bias)[0]

    def _groups(self, windows: WindowIndex) -> list[torch.Tensor]:
        """Runs of windows whose keys, padded, stay under `resampler_max_keys` (at least one window each)."""
        patches, bands = self.config.patches_per_frame + 1, self.config.audio_bands + 1
        keys = (windows.frames.shape[1] * patches + windows.columns.shape[1] * bands) or 1
        size = max(1, self.config.resampler_max_keys // keys)
        return list(torch.arange(len(windows.start), device=windows.start.device).split(size))

    def _resample(self, tokens, tlp, windows, query_times, query_mask):
        count, size = len(windows.start), self.config.resampler_hidden_size
        keys, positions, groups, masks = [], [], [], []
        learned = (self.patch_position, self.band_position)
        dated = (windows.start != NO_TIME)[:, None]
        for modality, (states, hidden_time, dates, valid) in enumerate(self._dated_rows(tokens, tlp, windows)):
            rows = states.shape[2]
            where = self._sinusoids(dates, valid, windows.start, windows.end)
            keys.append(states.flatten(1, 2))
            positions.append((where[:, :, None] + learned[modality][:rows]).flatten(1, 2))
            masks.append(valid.repeat_interleave(rows, dim=1))
            groups.append(torch.full_like(masks[-1], modality, dtype=torch.int64))
            if self.config.time_fusion != "add":
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
            for modality in (PICTURE, SOUND, TIME):
                members = (groups == modality) & mask
                bias = torch.where(members, -members.sum(-1, keepdim=True).clamp(min=1).log().to(bias.dtype), bias)
        return bias.masked_fill(~mask, torch.finfo(dtype).min).to(dtype)


class MLPConnector(Connector):
    """No attention: the dated tokens themselves, in order of time.

    "mlp" keeps every token (the paper's ablation read literally), "mlp_pool" averages a window's tokens to the
    budget of the resampler (our decision).
    """

    def resample(self, tokens: DatedTokens, tlp, windows: WindowIndex, questions: Questions | None):
        """Window tokens, a list of `(n, D)`; questions never take part here."""
        rows = self._dated_rows(tokens, tlp, windows)
        window_tokens = []
        for window in range(len(windows.start)):
            entries, dates = [], []
            for states, hidden_time, times, valid in rows:
                keep = valid[window]
                content = states[window][keep]
                if self.config.time_fusion != "add" and windows.start[window] != NO_TIME:
                    content = torch.cat([hidden_time[window][keep][:, None], content], dim=1)
                entries.extend(content)
                dates.append(times[window][keep])
            # Undated windows keep picture before sound: the sort is stable and all their dates are equal.
            order = torch.cat(dates).argsort(stable=True).tolist()
            sequence = torch.cat([entries[index] for index in order])
            if self.config.resampler_type == "mlp_pool":
                sequence = F.adaptive_avg_pool1d(sequence.T[None], self.config.queries_per_window)[0].T
            window_tokens.append(self.to_language_model(sequence))
        return window_tokens, None


def _labelled(states: torch.Tensor, times: torch.Tensor, modality: int, media: torch.Tensor) -> PooledKeys:
    return PooledKeys(states, times, torch.full_like(times, modality), media)


def build_connector(config) -> Connector:
    """The connector that `config.resampler_type` names."""
    return {"avts": AVTSResampler, "mlp": MLPConnector, "mlp_pool": MLPConnector}[config.resampler_type](config)
