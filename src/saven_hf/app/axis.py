"""The time axis of a video as HTML: film strip, waveform and spectrogram, and below them what was fed and spoken of.

All of it is as wide as the video is long, so that a place across the page is a moment; `static/app.js` draws the
playhead on it and lets a span be picked. Ink comes from the page's colours, so that it is the same in light and dark.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from ..savenvideo.media import Media
from ..timeline import analyse_sound, level_range, time_ticks


COLUMNS = 600  # of the waveform and the spectrogram
_STRIP_ASPECT, _STILL_HEIGHT, _MOST_STILLS = 10.0, 96, 16
_MOST_TICKS = 6  # as many as a phone has room for
_ROWS = 12  # spans of the latest questions; more would push the chat off the screen

Span = Sequence[float]


def axis_html(media: Media) -> str:
    """The axis of a video or a sound; it takes clicks, drags and keys.

    Args:
        media: opened, and no image.
    """
    seconds = media.duration / 1e6
    parts = []
    if media.has_video:
        parts.append(f'<img class="film" alt="Film strip" src="{_film(media)}">')
    if media.has_audio:
        envelope, levels = analyse_sound(media, COLUMNS)
        parts.append(_wave(envelope))
        parts.append(
            '<div class="spectrum" role="img" aria-label="Spectrogram from 70 Hz to 8 kHz" '
            f'style="--levels: url({_spectrum(levels)})"></div>'
        )
    ruler = "".join(
        f'<span style="left: {_percent(tick, seconds)}">{label}</span>'
        for tick, label in time_ticks(seconds, _MOST_TICKS)
        if tick < 0.97 * seconds  # a label at the very end would stick out
    )
    return (
        f'<div class="axis" data-seconds="{seconds:.3f}">'
        '<div class="track" tabindex="0" role="slider" aria-valuemin="0" '
        f'aria-valuemax="{seconds:.1f}" aria-valuenow="0" aria-valuetext="0 s" aria-describedby="axis-help" '
        'aria-label="Time axis">'
        f'{"".join(parts)}<div class="picked"></div><div class="cursor"></div><div class="head"></div></div>'
        f'<div class="ruler" aria-hidden="true">{ruler}</div>'
        '<p id="axis-help" class="hint">Drag, or click twice, to ask about a span. Keys: arrows move, '
        "Enter marks one end and then the other, Escape clears.</p>"
        '<p class="picked-text" role="status"></p></div>'
    )


def rows_html(
    seconds: float,
    frames: Sequence[float],
    windows: Sequence[Span],
    spans: Iterable[tuple[str, str, Sequence[Span]]],
) -> str:
    """What was fed and what was spoken of, one row each, on the same axis.

    Args:
        seconds: length of the axis.
        frames: when the frames that the model saw are shown.
        windows: (start, end) of the sound that it heard, window by window.
        spans: (label, kind, spans) of questions and answers; kind is "asked", "answered" or "true".
    """
    rows = []
    if len(frames):
        rows.append(_row(f"frames fed: {len(frames)}", "frames", _ticks(frames, seconds)))
    if len(windows):
        label = f"sound fed: {sum(end - start for start, end in windows):.1f} s"
        rows.append(_row(label, "windows", _bars(windows, seconds)))
    spoken = [_row(label, kind, _bars(some, seconds)) for label, kind, some in spans if len(some)]
    return f'<div class="rows">{"".join(rows + spoken[-_ROWS:])}</div>' if rows or spoken else ""


def _row(label: str, kind: str, inside: str) -> str:
    return (
        f'<div class="row {kind}"><span class="label">{html.escape(label)}</span><div class="bar">{inside}'
        '<div class="picked"></div><div class="head"></div></div></div>'
    )


def _percent(moment: float, seconds: float) -> str:
    return f"{100 * moment / seconds:.3f}%"


def _bars(spans: Sequence[Span], seconds: float) -> str:
    """Bars that can be clicked like the times in an answer; what lies outside of the video is not drawn."""
    bars = []
    for start, end in spans:
        first, last = max(float(start), 0.0), min(float(end), seconds)
        if first > seconds or last < 0:
            continue
        bars.append(f'<i style="left: {_percent(first, seconds)}; width: {_percent(last - first, seconds)}"></i>')
    return "".join(bars)


def _ticks(moments: Sequence[float], seconds: float) -> str:
    # One path, however many: an hour at one frame a second would be thousands of elements.
    path = "".join(f"M{1000 * moment / seconds:.2f} 0V1" for moment in moments)
    return (
        '<svg viewBox="0 0 1000 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{path}" vector-effect="non-scaling-stroke"/></svg>'
    )


def _film(media: Media) -> str:
    """Stills at even distances side by side, as a JPEG in a data URI."""
    aspect = media.width / media.height
    count = min(max(round(_STRIP_ASPECT / aspect), 3), _MOST_STILLS)
    width = max(1, round(_STILL_HEIGHT * aspect))
    step = media.duration / count
    stills, _ = media.frames_at([round((at + 0.5) * step) for at in range(count)], (_STILL_HEIGHT, width))
    strip = stills.permute(2, 0, 3, 1).reshape(_STILL_HEIGHT, count * width, 3)
    return _uri(Image.fromarray(strip.numpy()), "JPEG", quality=80)


def _wave(envelope: np.ndarray) -> str:
    """The waveform as one outline, scaled to its loudest sample; what is before or after the track is left open."""
    loudest = max(float(np.nanmax(np.abs(envelope), initial=0.0)), 1e-4)
    low, high = np.nan_to_num(envelope / loudest)
    columns = len(low)
    # A line where nothing is heard: an outline without area would vanish.
    upper = " ".join(f"{at} {50 - 49 * max(value, 0.02):.1f}" for at, value in zip(range(columns), high, strict=True))
    lower = " ".join(
        f"{at} {50 - 49 * min(value, -0.02):.1f}" for at, value in zip(range(columns)[::-1], low[::-1], strict=True)
    )
    return (
        f'<svg class="wave" viewBox="0 0 {columns - 1} 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Waveform"><path d="M{upper} L{lower}Z"/></svg>'
    )


def _spectrum(levels: np.ndarray) -> str:
    """The spectrogram as a mask: opaque where it is loud, so that the page gives the colour."""
    quietest, loudest = level_range(levels)
    shown = np.clip((np.nan_to_num(levels, nan=quietest) - quietest) / (loudest - quietest), 0, 1)
    alpha = (255 * shown[::-1]).astype(np.uint8)
    return _uri(Image.merge("LA", (Image.new("L", alpha.shape[::-1]), Image.fromarray(alpha))), "PNG")


def _uri(image: Image.Image, file_format: str, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return f"data:image/{file_format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
