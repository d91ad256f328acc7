"""From what a model said to what it meant: a letter, a stretch of time, or words.

One set of rules for all benchmarks, strict on purpose: an answer that does not say clearly which option it means is
unparsable, is counted as such, and counts as wrong. Nothing is guessed from a word or two in common.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..data.prompts import LETTERS
from ..savenvideo.times import parse_spans


class Choice(NamedTuple):
    """Which option an answer means.

    letter: None if the answer is unparsable.
    rule: by what the letter was found: "end" ("a red circle (D)"), "start" ("D. a red circle"), "letter" ("D",
        "Answer: d"), "words" (an option's exact words, alone or behind the last ": "), or "" if it was not.
    worded: the letter of the option whose exact words the answer has, beside any letter it gives; None if there are
        none. Where it differs from `letter`, the model contradicts itself; the letter it gives counts.
    """

    letter: str | None
    rule: str = ""
    worded: str | None = None


_INTRODUCTION = re.compile(
    r"(?:the\s+)?(?:correct\s+|right\s+|best\s+|final\s+)?(?:answer|option|choice)(?:\s+is)?\s*[:=]?\s*", re.IGNORECASE
)
_AT_END = re.compile(r"[(\[]([A-Za-z])[)\]][\s.!]*$")
_AT_START = re.compile(r"(?:[(\[]([A-Za-z])[)\]][.:]?|([A-Za-z])[.):](?=\s))\s*")
_ALONE = re.compile(r"[(\[]?([A-Za-z])[)\]]?[\s.:!)]*")
_EDGES = " \t\n.,;:!?\"'`*"


def parse_choice(text: str, options: Sequence[str]) -> Choice:
    """The option that an answer means.

    Args:
        text: what the model said.
        options: the texts of the options, of which the first is A.
    """
    letters = LETTERS[: len(options)]
    answer = text.strip().strip("*`")
    introduction = _INTRODUCTION.match(answer)
    if introduction:
        answer = answer[introduction.end() :].strip("*` ")

    def known(letter: str | None) -> str | None:
        return letter.upper() if letter and letter.upper() in letters else None

    alone = _ALONE.fullmatch(answer)
    if alone:
        letter = known(alone[1])
        return Choice(letter, "letter") if letter else Choice(None)
    end = _AT_END.search(answer)
    if end and known(end[1]):
        return Choice(known(end[1]), "end", _by_words(answer[: end.start()], options))
    start = _AT_START.match(answer)
    if start and known(start[1] or start[2]):
        return Choice(known(start[1] or start[2]), "start", _by_words(answer[start.end() :], options))
    worded = _by_words(text, options) or _by_words(answer, options) or _by_words(conclusion(answer), options)
    return Choice(worded, "words" if worded else "", worded)


def _by_words(text: str, options: Sequence[str]) -> str | None:
    """The letter of the one option whose words these are."""
    words = normalise(text)
    found = [letter for letter, option in zip(LETTERS, options, strict=False) if normalise(option) == words]
    return found[0] if len(found) == 1 else None


def conclusion(text: str) -> str:
    """What stands behind the last ": " of an answer that says first what it rests on; all of any other answer."""
    return text.rpartition(": ")[2]


def normalise(text: str) -> str:
    """Words in lower case with single spaces, without punctuation around them."""
    return " ".join(text.casefold().split()).strip(_EDGES)


def same_words(text: str, expected: str) -> bool:
    """Whether an answer, or its conclusion, has exactly the words expected, case and outer punctuation aside."""
    return normalise(expected) in (normalise(text), normalise(conclusion(text)))


def parse_range(text: str) -> tuple[int, int] | None:
    """The first stretch of time that an answer's conclusion names, else the answer; None if it names none.

    A single instant is no stretch.

    Returns:
        (start, end) in microseconds.
    """
    spans = [*parse_spans(conclusion(text)), *parse_spans(text)]
    return next(((start, end) for start, end in spans if start < end), None)


def interval_iou(one: tuple[int, int] | None, other: tuple[int, int]) -> float:
    """Intersection over union of two half-open stretches of time; 0 for an answer that names none."""
    if one is None:
        return 0.0
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / ((one[1] - one[0]) + (other[1] - other[0]) - shared)
