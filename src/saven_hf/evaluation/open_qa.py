"""Open questions, captions and choices on any videos, images and sounds: one JSONL file of our own form.

VideoLLaMA 2's kinds of tasks (open-ended questions about videos, captions of videos, questions about sounds) in one
reader: what a row holds says which kind it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .benchmarks import Item, Table
from .official import TUT2017, VOCALSOUND, videollama2_clotho_binary, videollama2_contains, videollama2_exact
from .parsing import same_words
from .published import (
    BadRowError,
    BenchmarkFileError,
    PublishedBenchmark,
    annotation_files,
    answer_field,
    letter_of,
    options_field,
    read_rows,
    text_field,
)
from .text_metrics import count_word_errors, normalise_answer


CAPTION_QUESTION = "Describe the video in one sentence."
# Published rules that may be asked for by name, reported beside ours.
RULES = ("clotho-aqa", "vocalsound", "tut2017")


class OpenQA(PublishedBenchmark):
    """Rows `{"id", "video" | "audio" | "image", "question", "answer", "options", "kind", "tags"}`.

    A row with `options` is a choice. One without `question`, or of kind "caption", is a caption; `answer` may be a
    list of captions. One of kind "transcript" is scored by its word errors. All others are open questions: right if
    the words are the reference's, as VQA's evaluation normalises them; whether the reference's words occur in the
    answer is reported beside that.

    Args:
        data: a .jsonl, .json, .csv or .parquet file, or a folder with one; media are looked for below its folder.
        rules: one of `RULES`: VideoLLaMA 2's on that data set, reported beside ours.
        limit: see `PublishedBenchmark`.

    Raises:
        BenchmarkFileError: there is no such file or rule, or nothing in it can be asked.
    """

    def __init__(self, data: str | os.PathLike, rules: str | None = None, limit: int | None = None):
        if rules not in (None, *RULES):
            raise BenchmarkFileError(f"There are no rules {rules!r}: one of {', '.join(RULES)}.")
        data = Path(data)
        super().__init__("open-qa", f"Open questions ({data.stem})", [data if data.is_dir() else data.parent], limit)
        self.rules = rules
        files = annotation_files(data, "*.jsonl", "*.json", "*.csv", "*.parquet")
        self.take(files, self._read(files), rules=rules)

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, Item | BadRowError, Sequence[str]]]:
        for number, (where, row) in enumerate(read_rows(*files)):
            try:
                name = text_field(row, "video", "audio", "image")
                yield where, _item(row, str(row.get("id", number)), name), [name]
            except BadRowError as error:
                yield where, error, ()

    def score(self, item: Item, output: str) -> dict[str, Any]:
        said = output.strip() or None
        if item.form == "caption":
            return {"parsed": said, "correct": None}
        if item.form == "transcript":
            errors, words = count_word_errors(item.answer, output)
            return {"parsed": said, "correct": errors == 0, "errors": errors, "words": words}
        if item.form != "words":
            return super().score(item, output)
        references = item.references or (item.answer,)
        words = f" {normalise_answer(output)} "
        right = any(normalise_answer(output) == normalise_answer(one) or same_words(output, one) for one in references)
        verdict = {
            "parsed": said,
            "correct": right,
            "contains": any(f" {normalise_answer(one)} " in words for one in references),
        }
        return verdict | ({"official": self._published(item, output)} if self.rules else {})

    def _published(self, item: Item, output: str) -> dict[str, Any]:
        if self.rules == "clotho-aqa":
            binary = videollama2_clotho_binary(output, item.answer)
            return {"exact": videollama2_exact(output, item.answer), "binary": binary}
        classes = VOCALSOUND if self.rules == "vocalsound" else TUT2017
        return {"contains_class": videollama2_contains(output, item.answer, classes)}

    def figures(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        contains = [row["contains"] for row in rows if "contains" in row]
        if contains:
            found["contains"] = sum(contains) / len(contains)
        for name in ("exact", "binary", "contains_class"):
            values = [row["official"][name] for row in rows if row.get("official", {}).get(name) is not None]
            if values:
                found[name] = {"accuracy": sum(values) / len(values), "questions": len(values)}
        return found

    def tables(self, rows: list[dict[str, Any]]) -> list[Table]:
        found = self.figures(rows)
        body = (
            [["reference's words occur in the answer", f"{100 * found['contains']:.1f}"]]
            if "contains" in found
            else []
        )
        body += [
            [f"VideoLLaMA 2's rule on {self.rules}: {name}", f"{100 * found[name]['accuracy']:.1f}"]
            for name in ("exact", "binary", "contains_class")
            if name in found
        ]
        return [Table("Beside exact words", ["rule", "%"], body)] if body else []


def _item(row: dict[str, Any], identity: str, name: str) -> Item:
    kind = row.get("kind") or ("choice" if row.get("options") else "words" if row.get("question") else "caption")
    tags = {str(key): str(value) for key, value in (row.get("tags") or {}).items()}
    if kind == "choice":
        options = options_field(row, "options")
        letter = letter_of(answer_field(row, "answer")[0], options)
        return Item(identity, name, "choice", text_field(row, "question"), letter, options, tags)
    if kind not in ("words", "caption", "transcript"):
        raise BadRowError("bad_row", f"the kind {kind!r} is none of choice, words, caption and transcript")
    answers = answer_field(row, "answer")
    question = text_field(row, "question") if kind == "words" else str(row.get("question") or CAPTION_QUESTION)
    return Item(identity, name, kind, question, answers[0], tags=tags, references=answers)
