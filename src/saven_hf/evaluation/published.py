"""Published benchmarks: files as they are on disk, with whatever is wrong with them counted and listed."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.prompts import LETTERS
from ..savenvideo.media_errors import MediaNotFoundError
from .benchmarks import Benchmark, Item, Pair, Problem, file_hash
from .media_files import MediaFolders, Missing


class BenchmarkFileError(ValueError):
    """A benchmark's files are not where they were said to be, or are not of the published form."""


class BadRowError(ValueError):
    """A row that no item can be made of; `kind` is one of `PROBLEMS`."""

    def __init__(self, kind: str, problem: str):
        super().__init__(problem)
        self.kind = kind


class PublishedBenchmark(Benchmark):
    """Items read from files, with media found by name.

    Items whose medium is missing, or cannot be told from another, are left out and listed; they are asked as soon as
    it is there. Items of one id are all asked, each under an id of its own.

    Args:
        name, title: see `Benchmark`.
        media: folders in which media are looked for.
        limit: ask about the first so many videos that are there alone; items of the others are counted.
    """

    def __init__(self, name: str, title: str, media: Sequence[str | os.PathLike], limit: int | None = None):
        self.name, self.title, self.limit = name, title, limit
        self._folders = MediaFolders(media)
        self.problems: list[Problem] = []
        self.left_out = self.beyond_limit = 0
        self._items: dict[str, list[Item]] = {}
        self._found: dict[str, Path | Pair] = {}

    def take(
        self, files: Sequence[Path], rows: Iterable[tuple[str, Item | BadRowError, Sequence[str]]], **settings
    ) -> None:
        """Fill the benchmark.

        Args:
            files: with the annotations; their hash becomes part of `settings`.
            settings: what else tells it from another one of its name.
            rows: where each stands (for messages), the item or what is wrong with it, and the names of its medium:
                one file, or an image and a sound. Names that are tried in place of each other are joined by "|".
        """
        names: dict[str, Sequence[str]] = {}
        items: dict[str, list[Item]] = defaultdict(list)
        seen: Counter[str] = Counter()
        for where, item, those in rows:
            if isinstance(item, BadRowError):
                self._leave_out(item.kind, where, str(item), 1)
                continue
            if names.setdefault(item.video_id, those) != those:
                what = f"the video {item.video_id!r} is {', '.join(names[item.video_id])}, here {', '.join(those)}"
                self._leave_out("bad_row", where, what, 1)
                continue
            seen[item.id] += 1
            if seen[item.id] > 1:
                self.problems.append(Problem("duplicate_id", item.id, f"{where}: there is one of this id already"))
                item = replace(item, id=f"{item.id}#{seen[item.id]}")
            items[item.video_id].append(item)
        found = self._folders.assign(name for those in names.values() for name in those)
        for video_id, those in items.items():
            paths = [found[name] for name in names[video_id]]
            missing = next((path for path in paths if isinstance(path, Missing)), None)
            if self.limit is not None and len(self._items) == self.limit:
                self.beyond_limit += len(those)
            elif missing is not None:
                self._leave_out(missing.kind, video_id, f"{missing.why}: {len(those)} questions", len(those))
            else:
                self._items[video_id] = those
                self._found[video_id] = paths[0] if len(paths) == 1 else Pair(*paths)
        self.video_ids = list(self._items)
        content = hashlib.sha256("".join(map(file_hash, files)).encode()).hexdigest()
        self.settings = {**settings, "annotations": file_hash(files[0]) if len(files) == 1 else f"sha256:{content}"}
        if not self._items:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.problem_counts().items()) or "no rows at all"
            raise BenchmarkFileError(
                f"{self.title}: nothing can be asked ({kinds}). "
                + (f"The first: {self.problems[0].what}." if self.problems else "Is it the right file?")
            )

    def problem_counts(self) -> dict[str, int]:
        return dict(Counter(problem.kind for problem in self.problems))

    def _leave_out(self, kind: str, item: str, what: str, items: int) -> None:
        self.problems.append(Problem(kind, item, what))
        self.left_out += items

    def items(self, video_id: str) -> list[Item]:
        return self._items[video_id]

    def media(self, video_id: str) -> Path | Pair:
        found = self._found[video_id]
        for path in found if isinstance(found, Pair) else (found,):
            if not path.is_file():
                raise MediaNotFoundError(f"{path} was there when the run began and is gone: put it back.")
        return found


# ---------------------------------------------------------------------------------------------------------------------
# Files


def read_rows(*paths: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of .json (an array), .jsonl, .csv or .parquet files, and where each stands.

    Raises:
        BenchmarkFileError: there is no such file, or it is none of these.
    """
    for path in map(Path, paths):
        yield from _rows(path)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        raise BenchmarkFileError(f"There is no file {path}.")
    reader = {".json": _json, ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower())
    if reader is None:
        raise BenchmarkFileError(f"{path} is none of .json, .jsonl, .csv and .parquet.")
    for number, row in reader(path):
        if not isinstance(row, Mapping):
            raise BenchmarkFileError(f"{path}, row {number}: an object was expected, not a {type(row).__name__}.")
        yield f"{path.name}, row {number}", dict(row)


def _json(path: Path) -> Iterator[tuple[int, Any]]:
    text = path.read_text(encoding="utf-8")
    try:
        rows = json.loads(text)
    except json.JSONDecodeError:
        # Video-MME's own template has commas in front of closing brackets.
        try:
            rows = json.loads(re.sub(r",(?=\s*[\]}])", "", text))
        except json.JSONDecodeError as error:
            raise BenchmarkFileError(f"{path}, line {error.lineno}: this is no JSON ({error.msg}).") from error
    if not isinstance(rows, list):
        raise BenchmarkFileError(f"{path} holds no list of rows.")
    yield from enumerate(rows, 1)


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    raise BenchmarkFileError(f"{path}, line {number}: this is no JSON ({error.msg}).") from error


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, encoding="utf-8", newline="") as file:
        yield from enumerate(csv.DictReader(file), 1)


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise BenchmarkFileError(f"{path}: parquet files need pyarrow: pip install 'saven-hf[eval]'.") from error
    number = 0
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(64):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def annotation_files(folder: str | os.PathLike, *patterns: str) -> list[Path]:
    """The file in a folder, or else below it, that fits the first pattern that any file fits, or all shards of it; or
    `folder`, if it is a file.

    Raises:
        BenchmarkFileError: there is none, there are several, or shards are missing.
    """
    folder = Path(folder)
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise BenchmarkFileError(f"There is no folder {folder}: give one with --data.")
    for pattern in patterns:
        found = sorted(folder.glob(pattern)) or sorted(folder.rglob(pattern))
        if found:
            return _one_table(found)
    raise BenchmarkFileError(f"{folder} has no {' or '.join(patterns)}: put the published file there.")


def _one_table(files: list[Path]) -> list[Path]:
    """Files that are one table: a single one, or all of `<name>-00000-of-00002.parquet` and its like."""
    shards = [re.fullmatch(r"(.*)-(\d+)-of-(\d+)", path.stem) for path in files]
    if len({(path.parent, shard and (shard[1], shard[3])) for path, shard in zip(files, shards, strict=True)}) > 1:
        raise BenchmarkFileError(f"Both {files[0]} and {files[-1]} fit: name the one you mean with --data.")
    if shards[0] is None and len(files) > 1:
        raise BenchmarkFileError(f"Both {files[0]} and {files[-1]} fit: name the one you mean with --data.")
    if shards[0] is not None and len(files) != int(shards[0][3]):
        raise BenchmarkFileError(
            f"{files[0].parent} has {len(files)} of the {int(shards[0][3])} files {shards[0][1]}-*: put all there."
        )
    return files


# ---------------------------------------------------------------------------------------------------------------------
# Fields


def text_field(row: Mapping[str, Any], *names: str) -> str:
    """The first of some fields that the row has, as text.

    Raises:
        BadRowError: it has none, or an empty one.
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, (str, int, float)) and str(value).strip():
            return str(value).strip()
    raise BadRowError("bad_row", f"{' or '.join(map(repr, names))} is missing or empty")


def answer_field(row: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """All right answers of a row, from a text or a list of texts.

    Raises:
        BadRowError: there is none.
    """
    for name in names:
        value = row.get(name)
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        texts = tuple(str(one).strip() for one in values if one is not None and str(one).strip())
        if texts:
            return texts
    raise BadRowError("missing_answer", f"{' or '.join(map(repr, names))} is missing or empty")


def letter_of(answer: str, options: Sequence[str]) -> str:
    """The letter of a right answer that is a letter already, or an option's words.

    Raises:
        BadRowError: it names none of the options.
    """
    letters = LETTERS[: len(options)]
    if answer in options:
        return letters[list(options).index(answer)]
    letter = answer.strip("(). ").upper()
    if len(letter) != 1 or letter not in letters:
        raise BadRowError("unknown_letter", f"the answer {answer!r} is none of {letters[0]} to {letters[-1]}")
    return letter


def options_field(row: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    """Options as texts, without letters in front of them.

    Raises:
        BadRowError: there are not at least two, or more than there are letters.
    """
    options = next((row[name] for name in names if row.get(name)), ())
    if isinstance(options, str) or not 2 <= len(options) <= len(LETTERS):
        raise BadRowError("bad_row", f"{' or '.join(map(repr, names))} is no list of 2 to {len(LETTERS)} options")
    texts = [" ".join(str(option).split()) for option in options]
    if all(text[:2] == f"{letter}." for letter, text in zip(LETTERS, texts, strict=False)):
        texts = [text[2:].strip() for text in texts]
    if not all(texts):
        raise BadRowError("bad_row", "an option is empty")
    return tuple(texts)
