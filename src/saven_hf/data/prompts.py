"""How a multiple-choice question is put to a model, and how its answer is written.

The one wording of training, evaluation and demo. In open form the question stands alone and is answered by the
option's words.
"""

from __future__ import annotations

import string
from collections.abc import Sequence


LETTERS = string.ascii_uppercase


def multiple_choice_prompt(question: str, options: Sequence[str]) -> str:
    """The question, and below it one line for each option: "A. a red circle".

    Raises:
        ValueError: an empty question or option, an option that is more than one line, or not 2 to 26 options.
    """
    _check(options)
    if not question.strip():
        raise ValueError("The question is empty: pass its text.")
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))])


def multiple_choice_answer(options: Sequence[str], letter: str) -> str:
    """The right option's words, then its letter in brackets: "a red circle (D)".

    Words come first (our decision): a small model learns to name what it sees and hears far sooner than to pick a
    letter, and the letter then follows from the text in front of it.

    Raises:
        ValueError: as `multiple_choice_prompt`, or `letter` names none of the options.
    """
    _check(options)
    if len(letter) != 1 or letter not in LETTERS[: len(options)]:
        raise ValueError(
            f"The answer is {letter!r}, but {len(options)} options go from A to {LETTERS[len(options) - 1]}."
        )
    return f"{options[LETTERS.index(letter)]} ({letter})"


def _check(options: Sequence[str]) -> None:
    if isinstance(options, str) or not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"A choice has 2 to {len(LETTERS)} options, not {len(options)}: pass a list of texts.")
    for letter, option in zip(LETTERS, options, strict=False):
        if not option.strip() or len(option.splitlines()) != 1:
            raise ValueError(f"Option {letter} is {option!r}: an option is one line of text.")
