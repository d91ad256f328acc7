"""A medium and what was said about it as one picture: film strip, waveform, spectrogram and spans on one time axis.

    figure = draw_timeline("clip.mp4", [SpanRow("When is the bell heard?", "from 2 s to 4 s", answered=[(2.0, 4.0)])])
    figure.savefig("clip.png")

Works for any video or sound file. Sound is read piece by piece, so hours of it take no more memory than minutes. Kinds
of span differ in form as well as in colour, so that the picture can be read without colour.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .savenvideo.media import Media, open_media
from .savenvideo.times import parse_spans


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .ask import Answer


logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".pdf", ".svg")

_ACCENT, _INK, _WAVE, _MUTED, _LINE, _TRACK = "#d9480f", "#1f2328", "#424a53", "#656d76", "#afb8c1", "#f3f4f6"
# matplotlib brings the first one with it; the others are for scripts it lacks, where the system has them.
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans", "Microsoft YaHei")

# Inches, and points for text. At a width of 10 in, a page that shows the picture 880 px wide has text of 11 px.
_WIDTH, _LEFT, _RIGHT, _MARGIN = 10.0, 0.62, 0.16, 0.14
_TITLE_HEIGHT, _STILL_HEIGHT, _WAVE_HEIGHT, _SPECTRUM_HEIGHT, _AXIS_HEIGHT = 0.34, 0.72, 0.46, 0.9, 0.34
_TEXT_HEIGHT, _BAR_HEIGHT, _ROW_GAP, _GAP = 0.19, 0.17, 0.17, 0.07
_TEXT, _SMALL, _SPACE = 9.0, 8.0, 0.2
_DPI = 200

_RATE, _WINDOW = 16_000, 1024  # samples a second, and of one spectrum: 64 ms
_COLUMNS, _SPECTRA_PER_COLUMN, _BLOCK_US = 1200, 8, 60_000_000
_LOWEST, _HIGHEST, _BANDS = 70.0, 8000.0, 72  # Hz; bands are even in log frequency
_RANGE_DB, _QUIETEST_DB = 60.0, -70.0
_STEPS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 18_000, 36_000)
_MOST_TICKS = 12


class TimelineError(ValueError):
    """A picture that cannot be drawn, or not to where it was asked for."""


@dataclass(frozen=True)
class SpanRow:
    """A question and the stretches of time it is about. Spans are (start, end) in seconds; both ends alike, a moment.

    Args:
        question, answer: as asked and as given.
        truth: the right answer, shown where `right` is False.
        right: whether the answer is right; None if nobody knows.
        asked: times that the question names.
        true: where what was asked for happens.
        answered: times that the answer names.
    """

    question: str
    answer: str = ""
    truth: str = ""
    right: bool | None = None
    asked: Sequence[Sequence[float]] = ()
    true: Sequence[Sequence[float]] = ()
    answered: Sequence[Sequence[float]] = ()


def check_picture_path(path: str | os.PathLike) -> None:
    """Refuse a file that a picture could not be saved to: known before any model is loaded.

    Raises:
        TimelineError: it has none of `PICTURE_SUFFIXES`, or its folder does not exist.
    """
    folder, suffix = os.path.dirname(os.fspath(path)), os.path.splitext(path)[1].lower()
    if suffix not in PICTURE_SUFFIXES:
        raise TimelineError(
            f"{os.fspath(path)!r} ends in {suffix!r}: a picture ends in {', '.join(PICTURE_SUFFIXES)}."
        )
    if folder and not os.path.isdir(folder):
        raise TimelineError(f"There is no folder {folder!r} to save the picture in.")


def one_line(text: str) -> str:
    """Text as one line without control characters, which an untrained model may well write."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split())
    )


def rows_of(answers: Iterable[Answer]) -> list[SpanRow]:
    """Rows of what `VideoSession.ask` answered: the times of each question and of its answer."""
    return [
        SpanRow(
            answer.question,
            answer.answer,
            asked=[(start / 1e6, end / 1e6) for start, end in parse_spans(answer.question)],
            answered=answer.spans,
        )
        for answer in answers
    ]


def draw_timeline(media, spans: Sequence[SpanRow] = (), frames: Sequence[float] | None = None) -> Figure:
    """Draw a video or sound with spans of time below it.

    Args:
        media: path, bytes or file object of a video or sound; or an open `Media`.
        spans: one row for each question.
        frames: seconds at which a model was shown a frame: ticks under the film strip.

    Returns:
        A matplotlib `Figure`, 10 inches wide and as high as it takes; `figure.savefig` writes it.

    Raises:
        MediaError: the file cannot be read.
        TimelineError: it is an image, which has no time.
    """
    with nullcontext(media) if isinstance(media, Media) else open_media(media) as opened:
        if opened.kind == "image":
            raise TimelineError(f"{opened.label}: an image has no time to draw; pass a video or a sound.")
        return _Sheet(opened, spans, frames or ()).figure


class _Sheet:
    """A figure that is filled from the top down; heights are inches."""

    def __init__(self, media: Media, rows: Sequence[SpanRow], frames: Sequence[float]):
        from matplotlib.figure import Figure

        self.seconds = media.duration / 1e6
        width = _WIDTH - _LEFT - _RIGHT
        stills, still_height = _stills(media, width) if media.has_video else (0, 0.0)
        laid_out = [_lines_of(row, width) for row in rows]
        self.height = 2 * _MARGIN + _TITLE_HEIGHT + _AXIS_HEIGHT + (still_height + _GAP if stills else 0)
        self.height += (_WAVE_HEIGHT + _SPECTRUM_HEIGHT + 0.5 * _GAP) if media.has_audio else 0
        self.height += sum(len(lines) * _TEXT_HEIGHT + _BAR_HEIGHT + _ROW_GAP for lines in laid_out)
        self.figure = Figure(figsize=(_WIDTH, self.height), dpi=_DPI, facecolor="white")
        self.top = self.height - _MARGIN

        self._title(media, rows)
        lowest = None
        if stills:
            lowest = self._film(media, stills, still_height, frames)
        if media.has_audio:
            lowest = self._sound(media)
        self._time_axis(lowest)
        for row, lines in zip(rows, laid_out, strict=True):
            self._row(row, lines)

    def _axes(self, height: float, gap: float = 0.0) -> Axes:
        """The next axes below: x is seconds, y goes from 0 to 1."""
        self.top -= height
        box = (_LEFT / _WIDTH, self.top / self.height, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, height / self.height)
        self.top -= gap
        axes = self.figure.add_axes(box)
        axes.set(xlim=(0, self.seconds), ylim=(0, 1), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def _write(self, x: float, y: float, text: str, size: float = _TEXT, **style) -> None:
        """Text at inches from the left and the bottom; never read as a formula."""
        style = {"color": _INK, "va": "center", "family": _fonts(), **style}
        self.figure.text(x / _WIDTH, y / self.height, text, size=size, parse_math=False, **style)

    # -- the medium ---------------------------------------------------------------------------------------------------

    def _title(self, media: Media, rows: Sequence[SpanRow]) -> None:
        from matplotlib.patches import Rectangle

        middle = self.top - _TITLE_HEIGHT / 2 + 0.04
        name = _drawable(os.path.basename(media.label))
        self._write(_LEFT, middle, name, weight="bold")
        self._write(_LEFT + _width(name, _TEXT, True) + 0.12, middle, f"{self.seconds:.1f} s", color=_MUTED)
        x = _WIDTH - _RIGHT
        for kind, label in (("answered", "answered"), ("true", "true"), ("asked", "asked about")):
            if not any(getattr(row, kind) for row in rows):
                continue
            x -= _width(label, _SMALL)
            self._write(x, middle, label, _SMALL, color=_MUTED)
            x -= 0.42
            corner, size = (x / _WIDTH, (middle - 0.06) / self.height), (0.34 / _WIDTH, 0.12 / self.height)
            self.figure.add_artist(Rectangle(corner, *size, **_LOOKS[kind]))
            x -= 0.2
        self.top -= _TITLE_HEIGHT

    def _film(self, media: Media, count: int, height: float, frames: Sequence[float]) -> Axes:
        axes = self._axes(height, _GAP)
        step = self.seconds / count
        across = (_WIDTH - _LEFT - _RIGHT) / count * _DPI
        size = (max(1, round(height * _DPI)), max(1, round(across)))
        pictures, _ = media.frames_at([round((at + 0.5) * step * 1e6) for at in range(count)], size)
        gap = step * 2 / across  # two pixels
        for at, picture in enumerate(pictures.permute(0, 2, 3, 1).numpy()):
            left, right = at * step + gap * (at > 0), (at + 1) * step - gap * (at + 1 < count)
            axes.imshow(picture, extent=(left, right, 0, 1), aspect="auto", interpolation="antialiased")
        axes.set(xlim=(0, self.seconds), ylim=(0, 1))
        if len(frames):
            # In the gap below the strip, where they hide nothing.
            depth = 0.8 * _GAP / height
            axes.vlines(frames, -depth, -0.1 * depth, colors=_MUTED, linewidths=0.6, clip_on=False)
        return axes

    def _sound(self, media: Media) -> Axes:
        from matplotlib.colors import LinearSegmentedColormap

        envelope, levels = analyse_sound(media)
        edges = np.linspace(0, self.seconds, _COLUMNS + 1)
        axes = self._axes(_WAVE_HEIGHT)
        loudest = max(float(np.nanmax(np.abs(envelope), initial=0.0)), 1e-4)
        low, high = envelope / loudest / 2 + 0.5
        axes.fill_between(edges, np.append(low, low[-1]), np.append(high, high[-1]), step="post", color=_WAVE, lw=0.3)
        axes.axhline(0.5, color=_LINE, lw=0.5, zorder=0)
        self.top -= 0.5 * _GAP

        axes = self._axes(_SPECTRUM_HEIGHT)
        quietest, loudest = level_range(levels)
        inks = LinearSegmentedColormap.from_list("ink", ["white", "#d0d7de", "#57606a", _INK])
        axes.imshow(
            levels, extent=(0, self.seconds, 0, 1), origin="lower", aspect="auto", interpolation="bilinear",
            cmap=inks, vmin=quietest, vmax=loudest,
        )  # fmt: skip
        axes.set(xlim=(0, self.seconds), ylim=(0, 1))
        for hertz, label in ((100, "100 Hz"), (1000, "1 kHz"), (8000, "8 kHz")):
            place = np.log(hertz / _LOWEST) / np.log(_HIGHEST / _LOWEST)
            y, side = self.top + place * _SPECTRUM_HEIGHT, "top" if place > 0.99 else "center"
            self._write(_LEFT - 0.07, y, label, _SMALL - 0.5, color=_MUTED, ha="right", va=side)
        return axes

    def _time_axis(self, axes: Axes) -> None:
        ticks = time_ticks(self.seconds)
        self.ticks = [tick for tick, _ in ticks]
        axes.set_xticks(self.ticks, [label for _, label in ticks], family=_fonts())
        axes.tick_params(length=3, color=_LINE, labelcolor=_MUTED, labelsize=_SMALL, pad=2)
        axes.spines["bottom"].set_visible(True)
        axes.spines["bottom"].set_color(_LINE)
        self.top -= _AXIS_HEIGHT

    # -- spans --------------------------------------------------------------------------------------------------------

    def _row(self, row: SpanRow, lines: list[list[_Piece]]) -> None:
        for line in lines:
            for piece in line:
                style = {"weight": "bold" if piece.bold else "normal", "ha": "right" if piece.ends else "left"}
                self._write(_LEFT + piece.x, self.top - _TEXT_HEIGHT / 2, piece.text, color=piece.colour, **style)
            self.top -= _TEXT_HEIGHT
        axes = self._axes(_BAR_HEIGHT, _ROW_GAP)
        axes.set_facecolor(_TRACK)
        axes.vlines(self.ticks, 0, 1, colors="white", linewidths=0.8)
        least = 5 / (_DPI * (_WIDTH - _LEFT - _RIGHT)) * self.seconds  # five pixels
        for kind in ("asked", "answered", "true"):
            for start, end in getattr(row, kind):
                self._span(axes, kind, float(start), float(end), least)

    def _span(self, axes: Axes, kind: str, start: float, end: float, least: float) -> None:
        from matplotlib.patches import Rectangle

        look = _LOOKS[kind]
        low, high = (0.25, 0.75) if kind == "answered" else (0.0, 1.0)
        if start >= self.seconds or end < 0:
            # Nothing of it lies in the medium: an arrow to where it would be.
            marker, x = (">", self.seconds) if start >= self.seconds else ("<", 0)
            axes.plot(x, 0.5, marker, color=look["edgecolor"], ms=5, clip_on=False)
            return
        start, end = max(start, 0.0), min(end, self.seconds)
        if end - start < least:
            # A moment, or close to one: no room for a pattern.
            middle = (start + end) / 2
            start, end = middle - least / 2, middle + least / 2
            look = {"facecolor": look["edgecolor"], "linewidth": 0.0, "zorder": look["zorder"]}
        axes.add_patch(Rectangle((start, low), end - start, high - low, clip_on=False, **look))


# What was asked about is hatched, what is true an outline, what was answered solid.
_LOOKS = {
    "asked": {"facecolor": "#dfe3e8", "edgecolor": "#8c959f", "hatch": "//////", "linewidth": 0.0, "zorder": 2},
    "answered": {"facecolor": _ACCENT, "edgecolor": _ACCENT, "linewidth": 0.0, "zorder": 3},
    "true": {"fill": False, "edgecolor": _INK, "linewidth": 1.3, "zorder": 4},
}


def _stills(media: Media, width: float) -> tuple[int, float]:
    """How many stills fill a strip of `width` inches at about the usual height, and the height that fits exactly."""
    aspect = media.width / media.height
    count = min(max(round(width / (_STILL_HEIGHT * aspect)), 3), 24, media.num_frames)
    return count, min(max(width / count / aspect, 0.3), 2.0)


def time_ticks(seconds: float, most: int = _MOST_TICKS) -> list[tuple[float, str]]:
    """Where a time axis of so many seconds is marked, and what is written there: at round steps, about `most`."""
    step = next((step for step in _STEPS if seconds / step <= most), _STEPS[-1])
    return [(float(tick), _clock(tick, step)) for tick in np.arange(0, seconds + 1e-6, step)]


def _clock(seconds: float, step: float) -> str:
    """ "0:07", "1:02:30", or "0:07.5" where ticks are closer than a second."""
    minutes, rest = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}:{rest // 10:02d}" if hours else f"{minutes}:{rest // 10:02d}"
    return f"{text}.{rest % 10}" if step < 1 else text


# ---------------------------------------------------------------------------------------------------------------------
# Text


class _Piece(NamedTuple):
    """A piece of a line of text; x is where it begins, or ends, in inches from the left end of the time axis."""

    x: float
    text: str
    colour: str = _INK
    bold: bool = False
    ends: bool = False


def _lines_of(row: SpanRow, width: float) -> list[list[_Piece]]:
    """Lines of text of a row. The answer stands at the right of the question where both fit, else below it."""
    mark = {True: " \N{CHECK MARK}", False: " \N{BALLOT X}", None: ""}[row.right]
    colour = _INK if row.right is False else _ACCENT
    note = f"truth: {row.truth}" if row.right is False and row.truth else ""
    questions = _wrapped(row.question, width)
    answers, notes = _wrapped(row.answer + mark, width, bold=True), _wrapped(note, width)
    answer_width, note_width = _width(answers[-1], _TEXT, bold=True), _width(notes[0], _TEXT)
    beside = answer_width + (_SPACE + note_width if note else 0)
    lines = [[_Piece(0, question)] for question in questions]
    if len(answers) == len(notes) == 1 and _width(questions[-1], _TEXT) + 2 * _SPACE + beside <= width:
        lines[-1].append(_Piece(width - beside + answer_width, answers[0], colour, bold=True, ends=True))
        lines[-1].append(_Piece(width, notes[0], _MUTED, ends=True))
        return lines
    lines += [[_Piece(0, answer, colour, bold=True)] for answer in answers]
    if len(notes) == 1 and beside <= width:
        lines[-1].append(_Piece(answer_width + _SPACE, notes[0], _MUTED))
        return lines
    return lines + [[_Piece(0, line, _MUTED)] for line in notes]


def _wrapped(text: str, width: float, bold: bool = False) -> list[str]:
    """Text in lines of at most `width` inches, broken between words, or within one that is longer than a line."""
    lines = [""]
    for word in _drawable(text).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if _width(longer, _TEXT, bold) <= width:
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if _width(lines[-1] + letter, _TEXT, bold) > width:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line] or [""]


def _drawable(text: str) -> str:
    """Text on one line, with boxes for letters that no font here has."""
    letters = _letters()
    text = one_line(text)
    missing = sorted({letter for letter in text if ord(letter) not in letters})
    if missing:
        logger.warning("No font of matplotlib's has %s: drawn as boxes.", "".join(missing))
    return "".join("\N{WHITE SQUARE}" if letter in missing else letter for letter in text)


def _width(text: str, size: float, bold: bool = False) -> float:
    """Width of a line of text, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=_fonts(), size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


@lru_cache(maxsize=1)
def _fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    known = set(fontManager.get_font_names())
    return [name for name in _FONTS if name in known]


@lru_cache(maxsize=1)
def _letters() -> set[int]:
    from matplotlib.font_manager import findfont, get_font

    return {letter for name in _fonts() for letter in get_font(findfont(name)).get_charmap()}


# ---------------------------------------------------------------------------------------------------------------------
# Sound


def analyse_sound(media: Media, columns: int = _COLUMNS) -> tuple[np.ndarray, np.ndarray]:
    """Sound in `columns` equal stretches of the medium's time, read piece by piece.

    Returns:
        Lowest and highest sample of each, (2, columns), and levels in dB relative to a full-scale sine,
        (bands, columns); NaN before the track begins and after it ends.
    """
    step = media.duration / columns  # us
    block = max(1, int(_BLOCK_US / step))
    envelope, levels = np.full((2, columns), np.nan), np.full((_BANDS, columns), np.nan)
    for first in range(0, columns, block):
        last = min(first + block, columns)
        begin = round(first * step)
        waveform, start = media.audio(begin, round(last * step), _RATE)
        if not len(waveform):
            continue
        samples = waveform.numpy()
        # Edges of the columns in samples of this piece.
        edges = (np.arange(first, last + 1) * step - start) * _RATE / 1e6
        for column in range(first, last):
            low, high = edges[column - first], edges[column - first + 1]
            heard = samples[max(round(low), 0) : max(round(high), 0)]
            if len(heard):
                envelope[:, column] = heard.min(), heard.max()
                levels[:, column] = _levels(samples, low, high)
    return envelope, levels


def level_range(levels: np.ndarray) -> tuple[float, float]:
    """The levels in dB that a spectrogram shows as nothing and as full: silence stays blank whatever its noise."""
    loudest = max(float(np.nanmax(levels, initial=_QUIETEST_DB)), _QUIETEST_DB + _RANGE_DB / 2)
    return loudest - _RANGE_DB, loudest


def _levels(samples: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mean level of each band between two places of a waveform."""
    spectra = int(np.clip((high - low) * 2 / _WINDOW, 1, _SPECTRA_PER_COLUMN))
    middles = low + (np.arange(spectra) + 0.5) * (high - low) / spectra
    pieces = np.zeros((spectra, _WINDOW))
    for piece, middle in zip(pieces, middles, strict=True):
        first = round(middle) - _WINDOW // 2
        found = samples[max(first, 0) : max(first + _WINDOW, 0)]
        offset = max(-first, 0)
        piece[offset : offset + len(found)] = found
    window = np.hanning(_WINDOW)
    power = (np.abs(np.fft.rfft(pieces * window)) ** 2).mean(0) / (window.sum() / 2) ** 2
    edges = np.geomspace(_LOWEST, _HIGHEST, _BANDS + 1)
    hertz = np.fft.rfftfreq(_WINDOW, 1 / _RATE)
    # The strongest line of each band, so that none is lost between two bands; low bands are narrower than a line.
    bands = np.interp((edges[1:] * edges[:-1]) ** 0.5, hertz, power)
    first, last = np.searchsorted(hertz, edges[:-1]), np.searchsorted(hertz, edges[1:])
    for band in np.flatnonzero(last > first):
        bands[band] = max(bands[band], power[first[band] : last[band]].max())
    return 10 * np.log10(bands + 1e-12)
