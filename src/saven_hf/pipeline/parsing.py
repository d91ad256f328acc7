"""Replies of models as data: strict about what is there, lenient about how it is dressed.

A reply is used whole or not at all. What can be mended without guessing (code fences, bold marks, blank lines,
another case of the labels) is mended; whatever is missing, doubled or cut off raises `ReplyError`, whose problems are
told to the model when it is asked again.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..data.prompts import LETTERS
from ..data.schema import OPTIONS
from .errors import ReplyError


QUESTIONS, WRONG_OPTIONS = 5, OPTIONS - 1
_LABEL = re.compile(
    r"^\W{0,4}(?P<label>question|correct option|correct answer|option|incorrect option)\s*(?P<number>\d*)\s*[*_]*"
    r"\s*[:.)-]\s*[*_]*\s*(?P<text>.*)$",
    re.IGNORECASE,
)
_QUOTES = '"“” \t*_'


class Options(NamedTuple):
    """The right option and the wrong ones, in the order they were written."""

    correct: str
    wrong: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return (self.correct, *self.wrong)


def parse_text(reply: str) -> str:
    """A reply that is one text, on one line.

    Raises:
        ReplyError: there is none.
    """
    text = " ".join(_lines(reply)).strip()
    if len(text) > 1 and text[0] in '"“' and text[-1] in '"”':
        text = text[1:-1].strip()
    if not text:
        raise ReplyError(["The answer is empty."])
    return text


def parse_questions(reply: str) -> list[str]:
    """The five questions of a reply, "Question 1: ..." to "Question 5: ...".

    Raises:
        ReplyError: naming each question that is missing, empty or there twice.
    """
    found = _labelled(reply, "question")
    problems, questions = [], []
    for number in range(1, QUESTIONS + 1):
        texts = found.pop(str(number), [])
        questions += texts
        if len(texts) != 1:
            what = "is missing" if not texts else f"is there {len(texts)} times"
            problems.append(f"Question {number} {what}: write each on a line of its own, 'Question {number}: ...'.")
        elif not texts[0]:
            problems.append(f"Question {number} is empty.")
    if found:
        problems.append(f"There are more than {QUESTIONS} questions: write exactly {QUESTIONS}.")
    if problems:
        raise ReplyError(problems)
    return questions


def parse_options(reply: str) -> Options:
    """The right and three wrong options of a reply.

    Raises:
        ReplyError: naming each option that is missing, empty or there twice.
    """
    correct = _labelled(reply, "correct option", "correct answer").get("", [])
    found = _labelled(reply, "option", "incorrect option")
    problems, wrong = [], []
    if len(correct) != 1 or not correct[0]:
        problems.append("There must be exactly one line 'Correct option: ...'.")
    for number in range(1, WRONG_OPTIONS + 1):
        texts = found.pop(str(number), [])
        wrong += texts
        if len(texts) != 1 or not texts[0]:
            problems.append(f"There must be exactly one line 'Option {number}: ...'.")
    if found:
        problems.append(f"There must be exactly {WRONG_OPTIONS} wrong options.")
    if problems:
        raise ReplyError(problems)
    return Options(correct[0], tuple(wrong))


def parse_letter(reply: str, letters: str = LETTERS[:OPTIONS]) -> str | None:
    """The letter that a reply chooses; None if it chooses none, or several."""
    text = reply.strip().strip(_QUOTES)
    match = re.match(rf"^\(?([{letters}])\)?(?:[.:,)\s]|$)", text)
    if match:
        return match[1]
    named = set(re.findall(rf"\b(?:answer|option)\b[^A-Za-z]*(?:is|:)?\s*\(?([{letters}])\b", text, re.IGNORECASE))
    named = {letter.upper() for letter in named}
    return named.pop() if len(named) == 1 else None


def _lines(reply: str) -> list[str]:
    return [line.strip() for line in reply.splitlines() if line.strip() and not line.strip().startswith("```")]


def _labelled(reply: str, *labels: str) -> dict[str, list[str]]:
    """Texts by the number of their label. A text may stand below its label; lines before the first label are left out.

    Raises:
        ReplyError: a line belongs to no label, so a text would be cut off.
    """
    found: dict[str, list[str]] = {}
    last: list[str] | None = None
    started = False
    for line in _lines(reply):
        match = _LABEL.match(line)
        if match is not None:
            started = True
            last = found.setdefault(match["number"], []) if match["label"].lower() in labels else []
            last.append(match["text"].strip(_QUOTES))
        elif started and last is not None and not last[-1]:
            last[-1] = line.strip(_QUOTES)
        elif started:
            raise ReplyError([f"The line {line[:60]!r} belongs to nothing: write one line for each, and no more."])
    return found
