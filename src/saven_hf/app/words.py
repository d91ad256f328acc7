"""What is written on the page, as HTML: the conversation, its times as links, and what was fed.

Everything that a visitor, a file name or a model brings is escaped here.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..savenvideo.times import locate_spans
from ..world import Question


if TYPE_CHECKING:
    from . import Settings
    from .engine import Engine
    from .visits import Column, Turn, Visit


NAMES = {"": "everything", "sound": "without sound", "picture": "without picture", "time": "without time"}
_COSTS = ("decode", "encode", "prefill", "generate")


def with_links(text: str) -> str:
    """Text as HTML in which every time is a link that `static/app.js` seeks the player with."""
    parts, at = [], 0
    for (first, last), (start, end) in locate_spans(text):
        parts.append(html.escape(text[at:first]))
        parts.append(
            f'<a class="moment" href="#t={start / 1e6:.3f},{end / 1e6:.3f}" data-start="{start / 1e6:.3f}" '
            f'data-end="{end / 1e6:.3f}">{html.escape(text[first:last])}</a>'
        )
        at = last
    return "".join(parts) + html.escape(text[at:])


def limits_html(settings: Settings) -> str:
    """What can be uploaded, said before it is."""
    length = settings.max_seconds
    longest = f"{length // 60} min" if length % 60 == 0 else f"{length} s"
    return (
        f'<p class="hint" id="limits">Up to {settings.max_megabytes} MB and {longest}: mp4, mov, mkv, webm, avi, or '
        "a sound file. It is removed when you leave.</p>"
    )


def head_html(engine: Engine) -> str:
    note = f'<p class="hint">Note: {html.escape(engine.notice)}</p>' if engine.notice else ""
    return (
        "<h1>Ask a video, with its sound and its time</h1>"
        f'<p class="hint">Model: <code>{html.escape(engine.name)}</code></p>{note}'
    )


def player_html(visit: Visit | None) -> str:
    """The player of what a visitor opened."""
    if visit is None or visit.video is None:
        return '<div class="empty">Pick an example, or upload a video of your own.</div>'
    kind = "video" if visit.has_picture else "audio"
    source = f"/gradio_api/file={quote(str(visit.video))}"
    return (
        f'<{kind} id="player-media" controls playsinline preload="auto" src="{source}"></{kind}>'
        '<p class="unplayable" hidden role="alert">Your browser cannot play this file. It can be asked about all the '
        "same.</p>"
        f'<p class="hint">{html.escape(visit.name)} · {visit.seconds:.1f} s</p>'
    )


def suggestions_html(questions: Sequence[Question]) -> str:
    """Questions whose answers are known, as buttons that ask them."""
    if not questions:
        return ""
    buttons = "".join(
        f'<button type="button" class="suggestion" data-question="{html.escape(question.text)}" '
        f'data-needs="{question.needs}">{html.escape(question.text)}</button>'
        for question in questions
    )
    return f'<p class="hint">Questions whose answers are known:</p><div class="suggestions">{buttons}</div>'


def chat_html(turns: Sequence[Turn]) -> str:
    """The conversation, the latest turn last."""
    if not turns:
        return '<div class="empty">Answers appear here. Times in them are links into the video.</div>'
    busy = "false" if turns[-1].done else "true"
    return (
        f'<div class="chat" role="log" aria-live="polite" aria-busy="{busy}">{"".join(map(_turn_html, turns))}</div>'
    )


def _turn_html(turn: Turn) -> str:
    known = ""
    if turn.truth is not None:
        known = f'<p class="truth">known answer: {with_links(turn.truth)}</p>'
    columns = "".join(_column_html(column, len(turn.columns) > 1, turn.stopped) for column in turn.columns)
    return (
        f'<article class="turn"><p class="question">{with_links(turn.question)}</p>'
        f'<div class="answers" data-columns="{len(turn.columns)}">{columns}</div>{known}</article>'
    )


def _column_html(column: Column, named: bool, stopped: bool) -> str:
    name = f"<h3>{NAMES[column.without]}</h3>" if named else ""
    if column.text:
        text = f'<p class="text">{with_links(column.text)}{_mark(column.right)}</p>'
    elif column.fed is not None:
        text = '<p class="text quiet">(no answer)</p>'
    elif stopped:
        text = ""
    else:
        text = '<p class="text quiet pending">watching and listening</p>'
    if stopped and column.fed is None:
        text += '<p class="quiet">(stopped)</p>'
    return f'<section class="answer" data-without="{column.without}">{name}{text}</section>'


def _mark(right: bool | None) -> str:
    if right is None:
        return ""
    return f' <span class="mark" data-right="{str(right).lower()}">{"✓ right" if right else "✗ wrong"}</span>'


def fed_html(turn: Turn | None) -> str:
    """What the model was given for a turn and what that cost: a line for each column of it, and a bar of the time."""
    columns = [column for column in turn.columns if column.fed is not None] if turn is not None else []
    if not columns:
        return ""
    longest = max(sum(column.fed.seconds.values()) for column in columns) or 1.0
    lines, bars = [], []
    for column in columns:
        fed = column.fed
        costs = "".join(f"<td>{fed.seconds[part]:.2f}</td>" for part in _COSTS)
        lines.append(
            f'<tr data-without="{column.without}"><th scope="row">{NAMES[column.without]}</th><td>{fed.frames}</td>'
            f"<td>{fed.audio_seconds:.1f}</td><td>{fed.tokens}</td>{costs}</tr>"
        )
        pieces = "".join(
            f'<i class="{part}" title="{part} {fed.seconds[part]:.2f} s" '
            f'style="width: {100 * fed.seconds[part] / longest:.2f}%"></i>'
            for part in _COSTS
        )
        bars.append(f'<div class="cost" aria-hidden="true">{pieces}</div>')
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("fed", "frames", "sound, s", "tokens", "decode, s", "encode, s", "prefill, s", "generate, s")
    )
    return (
        f'<div class="fed"><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody>'
        f"</table></div>{''.join(bars)}</div>"
    )
