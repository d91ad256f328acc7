"""What all connectors share: dated tokens, time features (TLP), windows, and the way into the language model.

A connector stands between the encoders and the language model. Every one reads the same thing, the *dated tokens* of
a medium: picture tokens (one row of patches a frame), sound tokens (one row of mel bands a column), the tokens of a
speech tower's columns if there is one, and their times. Paper sections 4.1.2 and 4.1.3.

Shapes: `frames`, `columns` and `speech columns` are packed over the batch (valid ones only), `d` is
`resampler_hidden_size`, `D` the hidden size of the language model, `Q` `queries_per_window`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .layout import NO_TIME, Window
from .tower_features import TowerFeatures


PICTURE, SOUND, TIME, QUESTION, SPEECH = range(5)

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
    column_times: `(columns,)`; speech: `(speech columns, tokens, d)`, speech_times: `(speech columns,)`, None without
    a speech tower; times are int64 microseconds.
    """

    picture: torch.Tensor
    frame_times: torch.Tensor
    sound: torch.Tensor
    column_times: torch.Tensor
    speech: torch.Tensor | None = None
    speech_times: torch.Tensor | None = None

    def by_modality(self, windows: WindowIndex) -> list[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Modality, indices per window, states and times of each kind of token."""
        kinds = [
            (PICTURE, windows.frames, self.picture, self.frame_times),
            (SOUND, windows.columns, self.sound, self.column_times),
        ]
        if self.speech is not None:
            kinds.append((SPEECH, windows.speech, self.speech, self.speech_times))
        return kinds


@dataclass
class WindowIndex:
    """Padded indices of packed frames and columns per window.

    frames: `(windows, F)`, columns: `(windows, C)`, speech: `(windows, S)`, -1 where padded; start, end: `(windows,)`
    in microseconds or `NO_TIME`; durations: `(windows,)`, of the medium each window belongs to; media: `(windows,)`,
    its index.
    """

    frames: torch.Tensor
    columns: torch.Tensor
    speech: torch.Tensor
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
            speech=pad([window.speech for window in windows]),
            start=vector([window.start for window in windows]),
            end=vector([window.end for window in windows]),
            durations=vector(durations),
            media=vector(media),
        )

    def select(self, which: torch.Tensor) -> WindowIndex:
        """The windows that `which (n,)` indexes."""
        return WindowIndex(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass
class PooledKeys:
    """Spatially pooled picture and sound, what question times attend to. Independent of the question.

    states: `(n, d)`, MLP outputs before any time feature; times: `(n,)` int64 microseconds; modality: `(n,)` int64,
    `PICTURE`, `SOUND` or `SPEECH`; media: `(n,)` int64, the medium each key belongs to.
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


def in_order(entries: list[torch.Tensor], dates: torch.Tensor, token_order: str) -> torch.Tensor:
    """Entries `(n, d)` of a window, given picture first, as one sequence: "modality" leaves them so, "time" sorts.

    Args:
        dates: of the entries, `(entries,)`.
    """
    if token_order == "time":
        # Undated windows keep picture before sound: the sort is stable and all their dates are equal.
        entries = [entries[index] for index in dates.argsort(stable=True).tolist()]
    return torch.cat(entries)


def pooled_over_time(sequence: torch.Tensor, count: int) -> torch.Tensor:
    """`(n, d)` in order of time, averaged to `(count, d)`; of fewer than `count` some stand there repeatedly."""
    return F.adaptive_avg_pool1d(sequence.T[None], count)[0].T


@dataclass
class ConnectorOutput:
    """window_tokens: one `(n, D)` per window; question_tokens: one `(T, D)` per medium; pooled: `PooledKeys`;
    window_states: `(windows, Q, d)` of a connector whose queries a diversity loss may keep apart, else None."""

    window_tokens: list[torch.Tensor]
    question_tokens: list[torch.Tensor]
    pooled: PooledKeys | None
    window_states: torch.Tensor | None = None


class Resampled(NamedTuple):
    """What a subclass of `Connector` makes of windows: their tokens, one `(n, D)` each; the question's tokens as each
    window reads them, `(windows, T, D)`, where it takes part; and its `window_states`, see `ConnectorOutput`."""

    window_tokens: list[torch.Tensor]
    question_tokens: torch.Tensor | None = None
    window_states: torch.Tensor | None = None


class BaseConnector(nn.Module):
    """What the model asks of a connector.

    A subclass has a `visual_mlp`, an `audio_mlp` and, where it hears a speech tower, a `speech_mlp` (identities where
    there is nothing to project), and defines
    `resample` (windows to tokens), `read_times` and, if question times read the medium, `pool`. Time features come
    from the model's `TemporalLinearProjection`, handed in by the caller as a function: it is a module of its own in
    the paper and dates the question too. Everything goes through `forward`, where accelerate's hooks for dispatched
    and offloaded weights act: a submodule's weights are only there during its own call.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config

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
        speech: torch.Tensor | None = None,
        speech_times: torch.Tensor | None = None,
    ) -> ConnectorOutput:
        """Encoder outputs of a batch to language-model tokens.

        Args:
            picture: `(frames, patches, vision d)`; frame_times: `(frames,)`.
            sound: `(columns, bands, audio d)`; column_times: `(columns,)`.
            tlp: h, from times and durations (int64 microseconds) to `(..., d)` on the connector's device.
            windows: which of them make up each window.
            questions: the question's times per medium; None leaves question tokens out.
            memories: pooled keys of media that were encoded earlier and have no windows here, by medium.
            speech: `(speech columns, tokens, speech d)`; speech_times: `(speech columns,)`; of a speech tower.
        """
        if self.config.question_times == "none":
            questions = None
        tokens = DatedTokens(self.visual_mlp(picture), frame_times, self.audio_mlp(sound), column_times)
        if speech is not None:
            tokens.speech, tokens.speech_times = self.speech_mlp(speech), speech_times
        joint = questions is not None and self.joint
        resampled = Resampled(*self.resample(tokens, tlp, windows, questions if joint else None))
        pooled = None if self.joint else self.pool(tokens, windows)
        question_tokens = []
        for medium in range(len(questions.times) if questions is not None else 0):
            asked = questions.mask[medium]
            if joint:
                # A medium's windows each have their own reading of its question; their mean is the token.
                readings = resampled.question_tokens[windows.media == medium]
                question_tokens.append(readings.mean(0)[asked] if len(readings) else readings.new_zeros(0))
            elif asked.any():
                keys = memories[medium] if memories and medium in memories else pooled.of(medium)
                times = questions.times[medium][asked]
                question_tokens.append(self.read_times(keys, tlp, times, questions.durations[medium]))
            else:
                question_tokens.append(tokens.picture.new_zeros(0, self.config.text_config.hidden_size))
        return ConnectorOutput(resampled.window_tokens, question_tokens, pooled, resampled.window_states)

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        raise NotImplementedError

    def initialise(self, std: float) -> None:
        """Fill the parameters that no layer of torch initialises; those of a checkpoint are left alone."""

    def token_times(self, window: Window, medium: TowerFeatures) -> torch.Tensor:
        """The moment that each token of a dated window of a medium stands for: `(n,)` float64 microseconds.

        The middles of equal parts of the window, one for each query, unless a subclass says otherwise.
        """
        queries = self.config.queries_per_window
        middles = torch.arange(queries, dtype=torch.float64) + 0.5
        return window.start + (window.end - window.start) * middles / queries

    def output_layers(self) -> list[nn.Linear]:
        """The layers whose results are tokens."""
        raise NotImplementedError

    @property
    def joint(self) -> bool:
        """Whether question times take part in resampling the windows."""
        return False

    def pool(self, tokens: DatedTokens, windows: WindowIndex) -> PooledKeys:
        """What question times read of a medium: nothing, unless a subclass says otherwise."""
        none = torch.zeros(0, dtype=torch.int64, device=windows.start.device)
        return PooledKeys(tokens.picture.new_zeros(0, tokens.picture.shape[-1]), none, none, none)

    def resample(self, tokens: DatedTokens, tlp, windows: WindowIndex, questions: Questions | None):
        """What becomes of windows, as `Resampled` or a tuple of its first entries."""
        raise NotImplementedError

    def read_times(self, pooled: PooledKeys, tlp, times: torch.Tensor, duration: torch.Tensor) -> torch.Tensor:
        """Question tokens `(T, D)` of one medium from `times (T,)`."""
        raise NotImplementedError


class Connector(BaseConnector):
    """Connectors to one width: two MLPs, modality embeddings, and from there the way into the language model."""

    modality_projection: type[nn.Module] = ModalityMLP

    def __init__(self, config):
        super().__init__(config)
        size = config.resampler_hidden_size
        self.visual_mlp = self.modality_projection(config.vision_config.hidden_size, size)
        self.audio_mlp = self.modality_projection(config.audio_config.hidden_size, size)
        if config.speech_config is not None:
            self.speech_mlp = self.modality_projection(config.speech_config.d_model, size)
        self.modality_embedding = nn.Parameter(torch.zeros(4 if config.speech_config is None else 5, size))
        self.output_norm = nn.LayerNorm(size)
        self.output_projection = nn.Linear(size, config.text_config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        return self.output_norm.weight.dtype

    def output_layers(self) -> list[nn.Linear]:
        return [self.output_projection]

    def initialise(self, std: float) -> None:
        init.normal_(self.modality_embedding, std=std)

    def read_times(self, pooled: PooledKeys, tlp, times: torch.Tensor, duration: torch.Tensor) -> torch.Tensor:
        """Question tokens `(T, D)` of one medium from `times (T,)`: here simply its time features."""
        return self.to_language_model(tlp(times, duration) + self.modality_embedding[QUESTION])

    def to_language_model(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.output_projection(self.output_norm(hidden_states))

    def _dated_rows(self, tokens: DatedTokens, tlp, windows: WindowIndex):
        """Modality by modality: its number, tokens `(windows, n, rows, d)` dated as `time_fusion` asks, their h,
        times and validity."""
        rows = []
        for modality, index, states, times in tokens.by_modality(windows):
            valid = index >= 0
            if index.shape[1] == 0:
                states, times = states.new_zeros(1, *states.shape[1:]), times.new_zeros(1)
            gathered, dates = states[index.clamp(min=0)], times[index.clamp(min=0)]
            hidden_time = tlp(dates, windows.durations[:, None])
            gathered = gathered + self.modality_embedding[modality]
            if self.config.adds_time:
                gathered = gathered + hidden_time[:, :, None]
            rows.append((modality, gathered, hidden_time + self.modality_embedding[TIME], dates, valid))
        return rows
