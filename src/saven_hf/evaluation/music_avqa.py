"""MUSIC-AVQA: questions about performances, with one of 42 answers."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .benchmarks import Item, Table
from .official import MUSIC_ANSWERS, music_answer, videollama2_exact
from .published import BadRowError, BenchmarkFileError, PublishedBenchmark, answer_field, read_rows, text_field


# The columns of the published table: (modality, kind of question).
COLUMNS = (
    ("Audio", "Counting"), ("Audio", "Comparative"),
    ("Visual", "Counting"), ("Visual", "Location"),
    ("Audio-Visual", "Existential"), ("Audio-Visual", "Location"), ("Audio-Visual", "Counting"),
    ("Audio-Visual", "Comparative"), ("Audio-Visual", "Temporal"),
)  # fmt: skip
SPLITS = {
    "test": "json_update/avqa-test.json", "val": "json_update/avqa-val.json",
    "test-original": "json/avqa-test.json", "val-original": "json/avqa-val.json",
}  # fmt: skip


class MusicAVQA(PublishedBenchmark):
    """Rows `video_id, question_id, type, question_content, templ_values, anser`.

    An answer is right if `music_answer` finds the right one of the 42 in it; the exact comparison of published code
    (`videollama2_exact`) is reported beside it. In the original test set 55 questions come twice, with two different
    answers; all are asked, as its authors' script does.

    Args:
        data: a file, or a folder with `json_update/avqa-test.json` and its like (wherever below it) and the videos,
            `<video_id>.mp4`.
        split: one of `SPLITS`: the corrected test set (9,129 questions) if "test", the original one (9,185) if
            "test-original".
        limit: see `PublishedBenchmark`.

    Raises:
        BenchmarkFileError: there is no such file or split, or nothing in it can be asked.
    """

    def __init__(self, data: str | os.PathLike, split: str = "test", limit: int | None = None):
        if split not in SPLITS:
            raise BenchmarkFileError(f"MUSIC-AVQA has no split {split!r}: one of {', '.join(SPLITS)}.")
        data = Path(data)
        super().__init__(
            f"music-avqa-{split}", f"MUSIC-AVQA ({split})", [data if data.is_dir() else data.parent], limit
        )
        path = data if data.is_file() else _file(data, split)
        self.take([path], self._read(path), split=split)

    def _read(self, path: Path) -> Iterator[tuple[str, Item | BadRowError, Sequence[str]]]:
        for where, row in read_rows(path):
            try:
                item = _item(row)
                yield where, item, [item.video_id]
            except BadRowError as error:
                yield where, error, ()

    def prompt(self, item: Item, frame_times: Sequence[float] = ()) -> str:
        """The question and our instruction: published code gives none, and then models answer in sentences."""
        return f"{item.question}\nAnswer with a single word or phrase."

    def closed_set(self, item: Item) -> tuple[str, ...]:
        return tuple(answer.replace("_", " ") for answer in MUSIC_ANSWERS)

    def score(self, item: Item, output: str) -> dict[str, Any]:
        said = music_answer(output)
        exact = videollama2_exact(output, item.answer)
        return {"parsed": said, "correct": said == item.answer, "official": {"exact": exact}}

    def files(self, rows: list[dict[str, Any]]) -> dict[str, str]:
        """`<name>.predictions.jsonl`, as VideoLLaMA 2's script reads them."""
        lines = [json.dumps({"id": row["id"], "answer": row["answer"], "pred": row["output"]}) + "\n" for row in rows]
        return {f"{self.name}.predictions.jsonl": "".join(lines)}

    def figures(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """ "normalised" and "exact": the 13 columns, in percent; averages are over questions, as the authors' script
        has them. "majority": always the most frequent answer, "yes"."""
        most = Counter(row["answer"] for row in rows).most_common(1)
        return {
            "normalised": thirteen_columns(rows, [bool(row["correct"]) for row in rows]),
            "exact": thirteen_columns(rows, [bool(row.get("official", {}).get("exact")) for row in rows]),
            "majority": {"answer": most[0][0], "accuracy": most[0][1] / len(rows)} if rows else None,
        }

    def tables(self, rows: list[dict[str, Any]]) -> list[Table]:
        found = self.figures(rows)
        groups = [("all", rows)] + [
            (kind, [row for row in rows if row["tags"]["video"] == kind]) for kind in ("real", "synthetic")
        ]
        body = []
        for kind, some in groups:
            for name in ("normalised", "exact"):
                columns = self.figures(some)[name] if some else {}
                if columns:
                    body.append([kind, name, *map(_cell, columns.values())])
        if found["majority"]:
            most = found["majority"]["answer"]
            columns = thirteen_columns(rows, [row["answer"] == most for row in rows])
            body.append(["all", f"always {most!r}", *map(_cell, columns.values())])
        header = ["videos", "scored", *found["exact"]]
        return [Table("MUSIC-AVQA's table, percent", header, body)]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def thirteen_columns(rows: Sequence[Mapping[str, Any]], right: Sequence[bool]) -> dict[str, float | None]:
    """The published table's columns, in percent; None where there are no questions."""
    counts: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for row, ok in zip(rows, right, strict=True):
        modality, kind = row["tags"]["modality"], row["tags"]["kind"]
        for column in (f"{_SHORT[modality]} {kind}", f"{_SHORT[modality]} Avg", "All"):
            counts[column] += 1
            hits[column] += ok
    names: list[str] = []
    for modality in _SHORT:
        names += [f"{_SHORT[modality]} {kind}" for of, kind in COLUMNS if of == modality]
        names.append(f"{_SHORT[modality]} Avg")
    return {name: 100 * hits[name] / counts[name] if counts[name] else None for name in (*names, "All")}


_SHORT = {"Audio": "A", "Visual": "V", "Audio-Visual": "AV"}


def _file(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise BenchmarkFileError(f"There is no folder {folder}: give MUSIC-AVQA's with --data.")
    for path in sorted(folder.rglob(Path(SPLITS[split]).name)):
        if path.parts[-2:] == tuple(SPLITS[split].split("/")):
            return path
    raise BenchmarkFileError(f"{folder} has no {SPLITS[split]}: it is in the data folder of MUSIC-AVQA's repository.")


def _item(row: Mapping[str, Any]) -> Item:
    modality, kind = _list(row, "type", 2)
    if (modality, kind) not in COLUMNS:
        raise BadRowError("bad_row", f"the type {[modality, kind]} is none of the published ones")
    (answer, *_) = answer_field(row, "anser", "answer")  # the field is spelt so in all published files
    if answer not in MUSIC_ANSWERS:
        raise BadRowError("unknown_letter", f"the answer {answer!r} is none of the {len(MUSIC_ANSWERS)}")
    video = text_field(row, "video_id")
    tags = {
        "modality": modality, "kind": kind, "type": f"{_SHORT[modality]} {kind}",
        "video": "real" if video.isdigit() else "synthetic",
    }  # fmt: skip
    question = filled(text_field(row, "question_content"), _list(row, "templ_values"))
    return Item(text_field(row, "question_id"), video, "words", question, answer, tags=tags)


def filled(question: str, values: Sequence[str]) -> str:
    """A template with its slots, "<Object>" and others, filled from left to right; "Is the violin louder?".

    Full-width question marks and blanks at the end, of which the files have some, become plain ones.

    Raises:
        BadRowError: slots and values differ in number.
    """
    parts = question.replace("？", "?").split("<")
    if len(parts) - 1 != len(values) or any(">" not in part for part in parts[1:]):
        raise BadRowError("bad_row", f"{question!r} has {len(parts) - 1} slots for {len(values)} values")
    text = parts[0]
    for part, value in zip(parts[1:], values, strict=True):
        text += str(value).replace("_", " ") + part.split(">", 1)[1]
    return " ".join(text.split())


def _list(row: Mapping[str, Any], name: str, length: int | None = None) -> list[str]:
    """A list that the files keep as JSON in a text."""
    value = row.get(name)
    try:
        values = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        values = None
    if not isinstance(values, list) or (length is not None and len(values) != length):
        raise BadRowError("bad_row", f"{name!r} is no list{f' of {length}' if length else ''}: {value!r}")
    return [str(one) for one in values]
