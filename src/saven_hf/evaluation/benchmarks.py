"""What a benchmark is: items on videos, how they are asked, and how an answer is scored."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ..data.prompts import LETTERS, multiple_choice_prompt
from .parsing import interval_iou, parse_choice, parse_range, same_words


FORMS = ("choice", "range", "words", "caption", "transcript")

# What may be wrong with a published file or with the media beside it. The first two are said of items that are left
# out until the file is there, the next three of items that cannot be scored; the last two are asked and counted.
PROBLEMS = (
    "missing_media", "ambiguous_media", "missing_answer", "unknown_letter", "bad_row", "duplicate_id",
    "missing_subtitles",
)  # fmt: skip


class Problem(NamedTuple):
    """Something about an item that a report has to say: `kind` is one of `PROBLEMS`, `item` an id, `what` a line."""

    kind: str
    item: str
    what: str


class Table(NamedTuple):
    """A table of a report, of texts that are formatted already."""

    title: str
    header: list[str]
    rows: list[list[str]]


class Pair(NamedTuple):
    """An image and a sound that are asked about together."""

    image: Path
    sound: Path


@dataclass(frozen=True)
class Item:
    """One thing asked about one video.

    Attributes:
        id: unique within the benchmark.
        video_id: the video, which is also what intervals are clustered by.
        form: "choice" (one of `options`), "range" (a stretch of time in open form), "words" (open form), "caption"
            (a description, held against all references), or "transcript" (what is said, word by word).
        question: without options.
        answer: a letter for "choice", else words; times are written HH:MM:SS.mmm.
        options: of a choice; empty in open form.
        tags: what the report groups by, such as {"question_type": "global", "category": "order"}.
        chance: exact accuracy of the best guessers that lack something, by what they have ("picture", "sound",
            "text", "timeless"); empty where it is not known.
        references: all right answers where there are several, of which `answer` is the first.
    """

    id: str
    video_id: str
    form: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    references: tuple[str, ...] = ()

    def __post_init__(self):
        if self.form not in FORMS:
            raise ValueError(f"Item {self.id} has the form {self.form!r}: one of {', '.join(FORMS)}.")
        if self.form == "choice" and self.answer not in LETTERS[: len(self.options)]:
            raise ValueError(
                f"Item {self.id} has the answer {self.answer!r}, but its {len(self.options)} options go from A to "
                f"{LETTERS[max(len(self.options), 1) - 1]}."
            )

    def as_row(self) -> dict[str, Any]:
        """The fields as they are written to a run's folder."""
        row = asdict(self) | {"options": list(self.options), "references": list(self.references)}
        return row if self.references else {name: value for name, value in row.items() if name != "references"}


def file_hash(path: str | os.PathLike) -> str:
    """ "sha256:" and the SHA-256 of a file's content; read once as long as size and time of change stay."""
    path = os.fspath(path)
    found = os.stat(path)
    return _file_hash(path, found.st_size, found.st_mtime_ns)


@cache
def _file_hash(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


class Benchmark(ABC):
    """Items on videos. A subclass reads them from somewhere; the rest is the same for all.

    Attributes:
        name: of its files in a run's folder, such as "world-iid".
        title: for people.
        video_ids: in the order in which videos are asked about.
        problems: what is wrong with the published files, and with media that are not there.
        left_out: items as published that cannot be asked or scored; each is in `problems`.
        beyond_limit: items as published of videos that were not chosen.
        settings: what tells its questions from those of another benchmark of its name, as JSON; not their number.
        keeps_edits: whether copies of videos edited for a control stay beside the source.
    """

    name: str
    title: str = ""
    video_ids: Sequence[str]
    problems: Sequence[Problem] = ()
    left_out: int = 0
    beyond_limit: int = 0
    settings: Mapping[str, Any] = MappingProxyType({})
    keeps_edits: bool = False

    @abstractmethod
    def items(self, video_id: str) -> list[Item]:
        """What is asked about a video; the same at every call."""

    @abstractmethod
    def media(self, video_id: str) -> Path | Pair:
        """The video's file, made or fetched if need be; it may also be an image, a sound, or both.

        Raises:
            MediaError: there is none.
        """

    def media_hash(self, video_id: str) -> str:
        """What the medium is told from others by: SHA-256 over its whole content."""
        files = self.media(video_id)
        return " ".join(file_hash(path) for path in (files if isinstance(files, Pair) else (files,)))

    def prompt(self, item: Item, frame_times: Sequence[float] = ()) -> str:
        """What a model is asked; `frame_times` are those of the frames it was shown, in seconds."""
        return multiple_choice_prompt(item.question, item.options) if item.options else item.question

    def closed_set(self, item: Item) -> tuple[str, ...]:
        """Answers of an open item of which one is right, for the protocol of log-likelihoods; empty if it is open."""
        return ()

    def tables(self, rows: list[dict[str, Any]]) -> list[Table]:
        """Tables of the benchmark's own, beside those that every benchmark has."""
        return []

    def files(self, rows: list[dict[str, Any]]) -> dict[str, str]:
        """Files that hold the answers as published scripts read them: what is in each, by name."""
        return {}

    def figures(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Figures of the benchmark's own, as JSON; such as those of its published script. One that is called
        "accuracy" takes the place of the share of right answers as the run's."""
        return {}

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
