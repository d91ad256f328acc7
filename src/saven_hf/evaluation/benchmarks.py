"""What a benchmark is: items on videos, how they are asked, and how an answer is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.prompts import LETTERS, multiple_choice_prompt
from .parsing import interval_iou, parse_choice, parse_range, same_words


FORMS = ("choice", "range", "words")


@dataclass(frozen=True)
class Item:
    """One thing asked about one video.

    Attributes:
        id: unique within the benchmark.
        video_id: the video, which is also what intervals are clustered by.
        form: "choice" (one of `options`), "range" (a stretch of time in open form) or "words" (open form).
        question: without options.
        answer: a letter for "choice", else words; times are written HH:MM:SS.mmm.
        options: of a choice; empty in open form.
        tags: what the report groups by, such as {"question_type": "global", "category": "order"}.
        chance: exact accuracy of the best guessers that lack something, by what they have ("picture", "sound",
            "text", "timeless"); empty where it is not known.
    """

    id: str
    video_id: str
    form: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if self.form not in FORMS:
            raise ValueError(f"Item {self.id} has the form {self.form!r}: one of {', '.join(FORMS)}.")
        if self.form == "choice" and self.answer not in LETTERS[: len(self.options)]:
            raise ValueError(
                f"Item {self.id} has the answer {self.answer!r}, but its {len(self.options)} options go from A to "
                f"{LETTERS[max(len(self.options), 1) - 1]}."
            )


class Benchmark(ABC):
    """Items on videos. A subclass reads them from somewhere; the rest is the same for all.

    Attributes:
        name: of its files in a run's folder, such as "world-iid".
        video_ids: in the order in which videos are asked about.
    """

    name: str
    video_ids: Sequence[str]

    @abstractmethod
    def items(self, video_id: str) -> list[Item]:
        """What is asked about a video; the same at every call."""

    @abstractmethod
    def media(self, video_id: str) -> Path:
        """The video's file, made or fetched if need be."""

    def prompt(self, item: Item) -> str:
        """What a model is asked."""
        return multiple_choice_prompt(item.question, item.options) if item.options else item.question

    def score(self, item: Item, output: str) -> dict[str, Any]:
        """An answer's verdict.

        Returns:
            "parsed" (a letter, [start, end] in seconds or words; None if unparsable) and "correct"; for a choice also
            "rule" and "worded" (see `Choice`), for a range "iou".
        """
        if item.form == "choice":
            choice = parse_choice(output, item.options)
            correct = choice.letter == item.answer
            return {"parsed": choice.letter, "correct": correct, "rule": choice.rule, "worded": choice.worded}
        if item.form == "range":
            found, truth = parse_range(output), parse_range(item.answer)
            parsed = found and [found[0] / 1e6, found[1] / 1e6]
            return {"parsed": parsed, "correct": found == truth, "iou": interval_iou(found, truth)}
        return {"parsed": output.strip() or None, "correct": same_words(output, item.answer)}
