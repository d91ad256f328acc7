"""From what a model said to what it meant: a letter, a stretch of time, or words.

One set of rules for all benchmarks, strict on purpose: an answer that does not say clearly which option it means is
unparsable, is counted as such, and counts as wrong. Nothing is guessed from a word or two in common. The rules of
published scripts, which guess, are in `official` and are reported beside these.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from ..data.prompts import LETTERS
from ..savenvideo.times import parse_spans


class Choice(NamedTuple):
    """Which option an answer means.

    letter: None if the answer is unparsable.
    rule: by what the letter was found: "end" ("a red circle (D)"), "start" ("D. a red circle"), "letter" ("D",
        "Answer: d"), "words" (an option's exact words, alone or behind the last ": "), "stated" (a sentence that says
        so: "so the answer is D", in several languages; "\\boxed{D}"; "<answer>D</answer>"), or "" if it was not.
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

# What a label looks like in running text: "(B)", "[B]", and "B." or "B)" at the beginning of a line. Two different
# ones are no choice.
_LABEL = re.compile(r"[(\[]([A-Z])[)\]]|^[\s*]*([A-Z])[.):](?=\s)", re.MULTILINE)

_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.IGNORECASE | re.DOTALL)
_CONTAINER = re.compile(
    r"<answer>(.*?)(?:</answer>|$)|\\boxed\s*\{(?:\\text\s*\{)?([^{}]*)\}", re.IGNORECASE | re.DOTALL
)
# Sentences that state an answer, then a letter that stands alone. Whoever says two different ones has not chosen,
# unless the last of them is called final.
_STATED = re.compile(
    r"(?P<final>\bfinal\s+)?"
    r"(?:\b(?:answer|option|choice)\s*(?:is|are|would\s+be|should\s+be|[:=])"
    r"|\bI\s+(?:would\s+)?(?:choose|select|pick|go\s+with)\b"
    r"|答案(?:是|为|應該是|应该是)?|正确(?:答案|选项)(?:是|为)?|选(?:择|项)?|選(?:擇|項)?|答えは|正解は"
    r"|정답은|답은|답"
    r"|\br[ée]ponse(?:\s+(?:correcte|exacte))?\s*(?:est|:)|\bAntwort\s*(?:ist|lautet|:)"
    r"|\brespuesta(?:\s+correcta)?\s*(?:es|:)|\bresposta(?:\s+correta)?\s*(?:é|:)|\brisposta(?:\s+corretta)?\s*(?:è|:)"
    r"|\bответ\s*[:—-]?)"
    r"[\s:：=*_\"'“(\[（{]*(?:(?:the\s+)?(?:option|choice|letter)\s+|l[ae]\s+|die\s+)?[*_\"'“(\[（{]*"
    r"(?P<letter>[A-Z])(?![A-Za-z0-9_'’]|-\w|\s*(?:or|and|oder|ou|o|и|或|和|/|&)\s*[*(\[]*[A-Z]\b)",
    re.IGNORECASE,
)
# A letter that begins the answer and is followed by a reason, a dash, or a new line.
_LEADING = re.compile(r"[*_\"'(\[（{]*([A-Z])[*_\"')\]）}]*\s*(?:\n|[,;]\s|[-–—]\s|(?:because|since|as)\b|[.。]\s*$)")


def parse_choice(text: str, options: Sequence[str]) -> Choice:
    """The option that an answer means.

    Args:
        text: what the model said.
        options: the texts of the options, of which the first is A.
    """
    letters = LETTERS[: len(options)]
    text = re.sub(r"\*\*|__|`", "", _THINKING.sub("", unicodedata.normalize("NFKC", text)))
    answer = text.strip().strip("*")
    introduction = _INTRODUCTION.match(answer)
    if introduction:
        answer = answer[introduction.end() :].strip("* ")

    def known(letter: str | None) -> str | None:
        return letter.upper() if letter and letter.upper() in letters else None

    alone = _ALONE.fullmatch(answer)
    if alone:
        letter = known(alone[1])
        return Choice(letter, "letter") if letter else Choice(None)
    said = _stated(text, letters)
    if len({letter for letter, _ in said}) > 1:
        letter, final = said[-1]
        return Choice(letter, "stated") if final else Choice(None)
    end = _AT_END.search(answer)
    if end and known(end[1]):
        if _labels(answer, letters) - {known(end[1])}:
            return Choice(None)
        return Choice(known(end[1]), "end", _by_words(answer[: end.start()], options))
    start = _AT_START.match(answer)
    if start and known(start[1] or start[2]):
        rest = answer[start.end() :]
        if _labels(answer, letters) - {known(start[1] or start[2])} or _AT_START.match(rest):
            return Choice(None)
        return Choice(known(start[1] or start[2]), "start", _by_words(rest, options))
    worded = _by_words(text, options) or _by_words(answer, options) or _by_words(conclusion(answer), options)
    if worded:
        return Choice(worded, "words", worded)
    boxes = [found[1] if found[1] is not None else found[2] for found in _CONTAINER.finditer(text)]
    if boxes:
        letter = parse_choice(boxes[-1], options).letter
    else:
        letter = said[0][0] if said else _leading(text.strip(), letters)
    return Choice(letter, "stated" if letter else "")


def _labels(text: str, letters: str) -> set[str]:
    return {found[1] or found[2] for found in _LABEL.finditer(text)} & set(letters)


def _stated(text: str, letters: str) -> list[tuple[str, bool]]:
    """Letters that sentences state as the answer, and whether as the final one."""
    return [
        (found["letter"].upper(), bool(found["final"]))
        for found in _STATED.finditer(text)
        # A small a is an article as a rule: "the answer is a red bar".
        if found["letter"].upper() in letters and found["letter"] != "a"
    ]


def _leading(text: str, letters: str) -> str | None:
    """The letter that an answer begins with, before a reason; None if another one follows."""
    found = _LEADING.match(text)
    if found is None or found[1] not in letters or _labels(text, letters) - {found[1]}:
        return None
    # "A, C and D", "B, or D"
    another = re.match(r"(?:(?:and|or)\s+)?[(\[]?[A-Z][)\]]?\s*(?:$|[.,;&/]|(?:and|or)\b)", text[found.end() :])
    return None if another else found[1]


def _by_words(text: str, options: Sequence[str]) -> str | None:
    """The letter of the one option whose words these are."""
    words = normalise(text)
    found = [letter for letter, option in zip(LETTERS, options, strict=False) if normalise(option) == words]
    return found[0] if len(found) == 1 else None


def conclusion(text: str) -> str:
    """What stands behind the last ": " of an answer that says first what it rests on; all of any other answer."""
    return text.rpartition(": ")[2]


def lead_of(text: str) -> str:
    """What an answer says in front of its conclusion, up to and with the ": "; nothing of any other answer."""
    return text[: len(text) - len(conclusion(text))]


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
