"""Which frame and which sound belong to which window, and how many tokens a medium becomes.

The processor expands placeholders and the model fills them; both ask this file, so that they cannot disagree.
All times are integer microseconds on the medium's own clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from math import isqrt
from typing import Any


# A time that is not known (an image, frames handed over without times). An out-of-band integer rather than 0 or
# -1, because small negative times are real: sound may start a few milliseconds before the picture.
NO_TIME = -(2**63)

# BEATs patch grid (peers: 16 fbank frames of 10 ms each; a 25 ms frame makes the patch 175 ms wide).
FBANK_FRAMES_PER_PATCH = 16
PATCH_STEP_US = 160_000
PATCH_CENTRE_US = 87_500

# Whisper's encoder makes a token of two log-mel frames of 10 ms. Five of them are a column, as the patches of one step
# are for BEATs (our decision): 100 ms tile 30 s, and the step of half a second that video-SALMONN works in.
SPEECH_FRAMES_PER_COLUMN = 10
SPEECH_TOKENS_PER_COLUMN = 5
SPEECH_STEP_US = 100_000
SPEECH_CENTRE_US = 50_000

RESAMPLER_TYPES = ("avts", "mlp", "mlp_pool", "stc", "causal_qformer")
# Fields of one connector are left out of the saved form of the others.
_STC_FIELDS = ("stc_stride", "stc_padding", "stc_tokens_per_window", "image_frames")
_QFORMER_FIELDS = ("step_seconds", "bands_as_moments")


def audio_column_times(audio_times: Sequence[int], num_frames: Sequence[int]) -> list[int]:
    """Centre times of the patch columns of a track, window after window.

    A column is one step of 16 fbank frames; BEATs makes one patch per mel band of it (8 with the published sizes).

    Args:
        audio_times: start of each window, in microseconds, or `NO_TIME`.
        num_frames: number of valid fbank frames of each window.

    Returns:
        One time per valid column, in microseconds, or `NO_TIME` where the window has none.
    """
    return _column_times(audio_times, num_frames, FBANK_FRAMES_PER_PATCH, PATCH_STEP_US, PATCH_CENTRE_US)


def speech_column_times(speech_times: Sequence[int], num_frames: Sequence[int]) -> list[int]:
    """Centre times of the columns that the speech tower makes of a track, window after window.

    Args:
        speech_times: start of each window, in microseconds, or `NO_TIME`.
        num_frames: number of valid log-mel frames of each window.
    """
    return _column_times(speech_times, num_frames, SPEECH_FRAMES_PER_COLUMN, SPEECH_STEP_US, SPEECH_CENTRE_US)


def _column_times(starts: Sequence[int], num_frames: Sequence[int], per_column: int, step: int, centre: int):
    if len(starts) != len(num_frames):
        raise ValueError(f"Got {len(starts)} window start times for {len(num_frames)} audio windows.")
    times = []
    for start, frames in zip(starts, num_frames, strict=True):
        columns = frames // per_column
        if start == NO_TIME:
            times.extend([NO_TIME] * columns)
        else:
            times.extend(start + step * column + centre for column in range(columns))
    return times


@dataclass
class Window:
    """A stretch of a medium that is resampled in one go: half-open `[start, end)` in microseconds.

    `frames`, `columns` and `speech` index the medium's valid frames, valid audio columns and valid columns of the
    speech tower. `start` and `end` are `NO_TIME` when the medium has no times.
    """

    start: int
    end: int
    frames: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    speech: list[int] = field(default_factory=list)

    @property
    def timed(self) -> bool:
        return self.start != NO_TIME


@dataclass(frozen=True)
class TokenLayout:
    """The numbers that decide how many tokens a medium costs. Part of the processor's saved form.

    Args:
        resampler_type: "avts", "mlp_pool" and "causal_qformer" spend `queries_per_window` tokens a window, "mlp" one
            token a patch, "stc" one a cell of its shrunken grid, and one a patch of sound, or
            `stc_tokens_per_window`. Windows of "causal_qformer" are all `window_seconds` long, so that its steps tile
            them.
        queries_per_window: learnable queries of the resampler, per window.
        window_seconds: longest window; windows of a medium are of equal length. None: one window (the paper's case).
        window_frames: most frames in a window; a window with more is cut between frames. None: no limit.
        patches_per_frame: tokens of the vision tower for one frame.
        audio_bands: patches of the audio tower for one column.
        time_tokens: whether dates are tokens of their own (they count where nothing attends, in "mlp" and "stc").
        question_tokens: whether each time that a question names is a token.
        has_audio: whether the model hears at all.
        speech_rows: tokens of the speech tower for one of its columns; 0 without a speech tower.
        stc_stride, stc_padding, stc_tokens_per_window, image_frames: of `SAVEnVideoConfig`.
        step_seconds: step of "causal_qformer", of which a window holds a whole number.
        bands_as_moments: "causal_qformer" reads the bands of a column as moments one after the other, so a column that
            reaches over the edge of a window belongs to both sides.
    """

    resampler_type: str = "avts"
    queries_per_window: int = 64
    window_seconds: float | None = 60.0
    window_frames: int | None = 64
    patches_per_frame: int = 729
    audio_bands: int = 8
    time_tokens: bool = True
    question_tokens: bool = True
    has_audio: bool = True
    speech_rows: int = 0
    stc_stride: tuple[int, int, int] = (2, 2, 2)
    stc_padding: int = 0
    stc_tokens_per_window: int | None = None
    image_frames: int = 1
    step_seconds: float = 0.5
    bands_as_moments: bool = False

    def __post_init__(self):
        object.__setattr__(self, "stc_stride", tuple(self.stc_stride))  # a list, where it comes from JSON
        if self.resampler_type not in RESAMPLER_TYPES:
            raise ValueError(f"resampler_type is {self.resampler_type!r}, but must be one of {RESAMPLER_TYPES}.")
        for name in ("queries_per_window", "window_seconds", "window_frames", "patches_per_frame", "audio_bands"):
            value = getattr(self, name)
            if value is None and name in ("window_seconds", "window_frames"):
                continue
            if value is None or value <= 0:
                raise ValueError(f"{name} must be above 0, got {value}.")
        if self.resampler_type == "causal_qformer":
            steps_per_window(self.window_seconds, self.step_seconds)

    @classmethod
    def from_config(cls, config) -> TokenLayout:
        """The layout of a model, from its `SAVEnVideoConfig`."""
        return cls(
            resampler_type=config.resampler_type,
            queries_per_window=config.queries_per_window,
            window_seconds=config.window_seconds,
            window_frames=config.window_frames,
            patches_per_frame=config.patches_per_frame,
            audio_bands=config.audio_bands,
            time_tokens=config.has_time_tokens,
            question_tokens=config.question_times != "none",
            has_audio=config.has_audio_tower,
            speech_rows=0 if config.speech_config is None else SPEECH_TOKENS_PER_COLUMN,
            stc_stride=config.stc_stride,
            stc_padding=config.stc_padding,
            stc_tokens_per_window=config.stc_tokens_per_window,
            image_frames=config.image_frames,
            step_seconds=config.qformer_step_seconds,
            bands_as_moments=config.qformer_alignment == "published",
        )

    def to_dict(self) -> dict[str, Any]:
        fields = asdict(self) | {"stc_stride": list(self.stc_stride)}
        left_out = () if self.resampler_type == "stc" else _STC_FIELDS
        left_out += () if self.resampler_type == "causal_qformer" else _QFORMER_FIELDS
        left_out += () if self.speech_rows else ("speech_rows",)
        # What was added to the first form is left out where it is as it was: fingerprints of encoded media hold.
        left_out += tuple(name for name in ("question_tokens", "has_audio") if fields[name])
        left_out += () if self.stc_tokens_per_window else ("stc_tokens_per_window",)
        return {name: value for name, value in fields.items() if name not in left_out}

    def plan(
        self,
        frame_times: Sequence[int],
        audio_columns: Sequence[int],
        duration: int,
        speech_columns: Sequence[int] = (),
    ) -> list[Window]:
        """Assign every frame and every audio column of one medium to the window that holds its time.

        Windows are equal parts of `[0, duration)`; the outer ones reach out to what lies beyond (a container may
        understate its length, sound may start a little early). Windows that hold neither frame nor sound are left out:
        they would cost tokens and say nothing. A medium with an undated frame or column is one window, cut by rank
        where `window_frames` asks.

        Args:
            frame_times: times of the valid frames, in microseconds, or `NO_TIME`.
            audio_columns: centre times of the valid audio columns (see `audio_column_times`).
            duration: of the medium, in microseconds; 0 if unknown.
            speech_columns: centre times of the valid columns of the speech tower (see `speech_column_times`).
        """
        parts = {"frames": frame_times, "columns": audio_columns, "speech": speech_columns}
        everything = [*frame_times, *audio_columns, *speech_columns]
        if not everything:
            return []
        if NO_TIME in everything:
            return self._plan_by_rank(*map(len, parts.values()))
        if self.resampler_type == "causal_qformer":
            return self._plan_by_step(parts, duration)

        if duration <= 0:
            duration = max(everything) + 1
        count = 1
        if self.window_seconds is not None:
            count = max(1, -(-duration // round(self.window_seconds * 1e6)))
        first, last = min(0, *everything), max(duration, max(everything) + 1)

        def edge(index: int) -> int:
            return first if index == 0 else last if index == count else index * duration // count

        # Only the windows that hold something are made: a duration may be absurd, what was decoded is not.
        cells: dict[int, Window] = {}
        for kind, times in parts.items():
            for index, time in enumerate(times):
                part = _part_of(time, duration, count)
                if part not in cells:
                    cells[part] = Window(edge(part), edge(part + 1))
                getattr(cells[part], kind).append(index)
        return [window for part in sorted(cells) for window in self._cut(cells[part], parts)]

    def num_tokens(
        self,
        frame_times: Sequence[int],
        audio_columns: Sequence[int],
        duration: int,
        num_query_times: int,
        speech_columns: Sequence[int] = (),
    ) -> int:
        """Tokens that one medium puts into the prompt: those of its windows, then one per question time."""
        tokens = self.num_window_tokens(frame_times, audio_columns, duration, speech_columns)
        return tokens + (num_query_times if self.question_tokens else 0)

    def num_window_tokens(
        self,
        frame_times: Sequence[int],
        audio_columns: Sequence[int],
        duration: int,
        speech_columns: Sequence[int] = (),
    ) -> int:
        """Tokens of a medium's windows, without the question's."""
        if self.resampler_type == "stc":
            return sum(self._num_stc_tokens(window) for window in self.plan(frame_times, audio_columns, duration))
        if self.resampler_type != "mlp":
            windows = self.plan(frame_times, audio_columns, duration, speech_columns)
            return len(windows) * self.queries_per_window
        kinds = (
            (frame_times, self.patches_per_frame),
            (audio_columns, self.audio_bands),
            (speech_columns, self.speech_rows),
        )
        # A medium with an undated frame or column is resampled without time (see `plan`).
        dated = self.time_tokens and not any(NO_TIME in times for times, _ in kinds)
        return sum(len(times) * (rows + dated) for times, rows in kinds)

    def stc_frames(self, window: Window) -> list[int]:
        """Which of a window's frames (by their place in it) "stc" convolves over: each, some of them repeatedly."""
        frames = list(range(len(window.frames)))
        if len(frames) == 1 and not window.timed:
            frames *= self.image_frames
        if frames and not self.stc_padding:
            frames += frames[-1:] * (-len(frames) % self.stc_stride[0])
        return frames

    def stc_steps(self, window: Window) -> list[list[int]]:
        """Per temporal step of "stc" the frames (by their place in the window) that it convolves over."""
        frames, stride = self.stc_frames(window), self.stc_stride[0]
        if not frames:
            return []
        firsts = [step * stride - self.stc_padding for step in range(self._shrunk(len(frames), stride))]
        last = len(frames) - 1
        return [
            sorted({frames[min(max(index, 0), last)] for index in range(first, first + stride)}) for first in firsts
        ]

    @property
    def stc_cells(self) -> int:
        """Tokens of one temporal step."""
        side = isqrt(self.patches_per_frame)
        return self._shrunk(side, self.stc_stride[1]) * self._shrunk(side, self.stc_stride[2])

    def _shrunk(self, size: int, stride: int) -> int:
        """Output size of a convolution whose kernel is its stride."""
        return (size + 2 * self.stc_padding - stride) // stride + 1

    def _num_stc_tokens(self, window: Window) -> int:
        if self.stc_tokens_per_window is not None:
            return self.stc_tokens_per_window
        steps = len(self.stc_steps(window))
        dated = steps + len(window.columns) if window.timed and self.time_tokens else 0
        return steps * self.stc_cells + len(window.columns) * self.audio_bands + dated

    def _plan_by_rank(self, num_frames: int, num_columns: int, num_speech: int) -> list[Window]:
        parts = 1
        if self.resampler_type == "causal_qformer":
            steps = steps_per_window(self.window_seconds, self.step_seconds)
            longest = max(num_columns * PATCH_STEP_US, num_speech * SPEECH_STEP_US)
            parts = max(1, -(-num_frames // steps), -(-longest // round(self.window_seconds * 1e6)))
        elif self.window_frames is not None:
            parts = max(1, -(-num_frames // self.window_frames))
        return [
            Window(
                NO_TIME, NO_TIME, *(list(_part(count, part, parts)) for count in (num_frames, num_columns, num_speech))
            )
            for part in range(parts)
        ]

    def _plan_by_step(self, parts: dict[str, Sequence[int]], duration: int) -> list[Window]:
        """Windows of one length from 0 on: what comes before belongs to the first one."""
        width = round(self.window_seconds * 1e6)
        cells: dict[int, Window] = {}

        def put(kind: str, index: int, time: int) -> None:
            part = max(time // width, 0)
            if part not in cells:
                cells[part] = Window(part * width, (part + 1) * width)
            if index not in getattr(cells[part], kind)[-1:]:
                getattr(cells[part], kind).append(index)

        for kind, times in parts.items():
            before = {"columns": PATCH_CENTRE_US, "speech": SPEECH_CENTRE_US}.get(kind, 0)
            for index, time in enumerate(times):
                start = time - before
                if start < duration:
                    # The last column is completed with silence, which belongs to where the sound ended.
                    time = min(time, duration - 1)
                if kind != "columns" or not self.bands_as_moments:
                    put(kind, index, time)
                    continue
                last = start + (self.audio_bands - 1) * PATCH_STEP_US // self.audio_bands
                put(kind, index, start)
                put(kind, index, max(start, min(last, duration - 1) if start < duration else last))
        return [cells[part] for part in sorted(cells)]

    def _cut(self, cell: Window, times: dict[str, Sequence[int]]) -> list[Window]:
        """Cut a window that holds more than `window_frames` frames half way between two of its frames."""
        if self.window_frames is None or len(cell.frames) <= self.window_frames:
            return [cell]
        frame_times = times["frames"]
        frames = sorted(cell.frames, key=lambda index: frame_times[index])
        parts = -(-len(frames) // self.window_frames)
        groups = [[frames[rank] for rank in _part(len(frames), part, parts)] for part in range(parts)]
        inner = [(frame_times[a[-1]] + frame_times[b[0]]) // 2 + 1 for a, b in pairwise(groups)]
        edges = [cell.start, *inner, cell.end]
        windows = [Window(start, end, group) for (start, end), group in zip(pairwise(edges), groups, strict=True)]
        for kind in ("columns", "speech"):
            for column in getattr(cell, kind):
                part = sum(times[kind][column] >= edge for edge in inner)
                getattr(windows[part], kind).append(column)
        return windows


def steps_per_window(window_seconds: float | None, step_seconds: float) -> int:
    """Steps of the causal Q-Former in one of its windows.

    Raises:
        ValueError: the window is no whole number of steps.
    """
    steps = 0 if window_seconds is None or step_seconds <= 0 else round(window_seconds / step_seconds)
    if steps < 1 or round(steps * step_seconds * 1e6) != round(window_seconds * 1e6):
        raise ValueError(
            f"window_seconds ({window_seconds}) must be a multiple of the step of the causal Q-Former "
            f"({step_seconds} s)."
        )
    return steps


def _part_of(time: int, duration: int, count: int) -> int:
    """Which of `count` equal parts of `[0, duration)` holds `time`; the nearest one for times outside.

    The largest i with `i * duration // count <= time`, in closed form.
    """
    return min(max(((time + 1) * count - 1) // duration, 0), count - 1)


def _part(total: int, part: int, parts: int) -> range:
    """The `part`-th of `parts` runs of `range(total)` whose lengths differ by at most one."""
    return range(part * total // parts, (part + 1) * total // parts)
