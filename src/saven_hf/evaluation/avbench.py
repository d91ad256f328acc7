"""AVBench: the paper's benchmark, and every set of questions in the same form."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data.prompts import LETTERS
from .benchmarks import Item, Table
from .parsing import interval_iou, parse_range
from .published import (
    BadRowError,
    BenchmarkFileError,
    PublishedBenchmark,
    answer_field,
    letter_of,
    options_field,
    read_rows,
    text_field,
)
from .statistics import Interval, mean_interval


# The paper's groups of durations, in seconds.
DURATIONS = ((60, "0-60 s"), (180, "1-3 min"), (900, "3-15 min"), (2700, "15-45 min"), (3600, "45-60 min"))


class AVBench(PublishedBenchmark):
    """Rows `id, video_id, video, duration, question, options, answer, question_type, category, audio_type`.

    Accuracy by format, skill, duration and audio type; where all options are stretches of time, also how far the
    chosen one is from the right one: intersection over union, and mean distance of the two ends in seconds.

    Args:
        data: a .jsonl, .json or .parquet file, or a folder with `*.jsonl`, or with parquet as `load_dataset` has it
            (`data/qa/<split>-*.parquet`, which `saven build` and `saven world` write).
        split: of a folder of parquet; all of them if None.
        spool: where videos that are inside of the parquet are written to.
        limit: see `PublishedBenchmark`.

    Raises:
        BenchmarkFileError: there is no such file, or nothing in it can be asked.
    """

    def __init__(
        self,
        data: str | os.PathLike,
        split: str | None = None,
        spool: str | os.PathLike | None = None,
        limit: int | None = None,
    ):
        data = Path(data)
        folder = data if data.is_dir() else data.parent
        super().__init__("avbench", "AVBench", [folder, *([spool] if spool is not None else [])], limit)
        self._spool = Path(spool) if spool is not None else None
        files = _files(data, split)
        self.take(files, self._read(files), split=split)

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, Item | BadRowError, Sequence[str]]]:
        for where, row in read_rows(*files):
            try:
                item, name = self._item(row, where)
            except BadRowError as error:
                yield where, error, ()
                continue
            yield where, item, [name]

    def _item(self, row: dict[str, Any], where: str) -> tuple[Item, str]:
        options = options_field(row, "options")
        tags = {
            name: str(row[name]) for name in ("question_type", "category", "audio_type") if row.get(name) is not None
        }
        if isinstance(row.get("duration"), (int, float)):
            tags["duration"] = next((name for most, name in DURATIONS if row["duration"] <= most), "over 1 h")
        identity = text_field(row, "id") if row.get("id") is not None else where
        name = self._name(row)
        video_id = str(row.get("video_id") or name)  # names without their folders may be equal
        answer = letter_of(answer_field(row, "answer")[0], options)
        return Item(identity, video_id, "choice", text_field(row, "question"), answer, options, tags), name

    def _name(self, row: dict[str, Any]) -> str:
        video = row.get("video")
        if isinstance(video, str) and video:
            return video
        if isinstance(video, dict) and video.get("bytes") is not None:
            return self._spooled(row, video)
        if isinstance(video, dict) and video.get("path"):
            return video["path"]
        return text_field(row, "video_id", "video")

    def _spooled(self, row: dict[str, Any], video: dict[str, Any]) -> str:
        if self._spool is None:
            raise BenchmarkFileError("The videos are inside of the parquet: say with `spool` where to write them.")
        suffix = Path(video.get("path") or "").suffix or ".mp4"
        stem = re.sub(r"[^\w.-]", "_", str(row.get("video_id") or row.get("id")))
        path = self._spool / f"{stem}{suffix}"
        if not path.is_file() or path.stat().st_size != len(video["bytes"]):
            from ..files import written_whole

            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as partial:
                Path(partial).write_bytes(video["bytes"])
        return path.name

    def score(self, item: Item, output: str) -> dict[str, Any]:
        verdict = super().score(item, output)
        return verdict | _distance(item, verdict["parsed"], output)

    def figures(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        timed = [row for row in rows if "iou" in row]
        if not timed:
            return {}
        said = [row for row in timed if row["seconds_off"] is not None]
        videos = [row["video_id"] for row in timed]
        return {
            "mean_iou": mean_interval([row["iou"] for row in timed], videos)._asdict(),
            "seconds_off": mean_interval(
                [row["seconds_off"] for row in said], [row["video_id"] for row in said]
            )._asdict(),
        }

    def tables(self, rows: list[dict[str, Any]]) -> list[Table]:
        found = self.figures(rows)
        if not found:
            return []
        iou, off = Interval(**found["mean_iou"]), Interval(**found["seconds_off"])
        return [
            Table(
                "Questions whose options are stretches of time",
                ["questions", "mean IoU, %", "answered", "ends off by, s"],
                [
                    [
                        str(iou.n),
                        f"{100 * iou.value:.1f} [{100 * iou.low:.1f}, {100 * iou.high:.1f}]",
                        str(off.n),
                        f"{off.value:.2f} [{off.low:.2f}, {off.high:.2f}]" if off.n else "-",
                    ]
                ],
            )
        ]


def _files(data: Path, split: str | None) -> list[Path]:
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise BenchmarkFileError(f"There is no folder {data}: give AVBench's with --data.")
    patterns = [f"data/qa/{split}-*.parquet"] if split else ["data/qa/*.parquet"]
    for pattern in (*patterns, "*.jsonl", "*.parquet", "*.json"):
        found = sorted(data.glob(pattern))
        if found:
            return found
    raise BenchmarkFileError(f"{data} has neither {patterns[0]} nor *.jsonl, *.parquet or *.json.")


def _distance(item: Item, letter: str | None, output: str) -> dict[str, Any]:
    """How far a chosen stretch of time is from the right one; nothing for options that are none."""
    spans = [parse_range(option) for option in item.options]
    if not spans or None in spans:
        return {}
    truth = spans[LETTERS.index(item.answer)]
    chosen = spans[LETTERS.index(letter)] if letter else parse_range(output)
    off = chosen and sum(abs(one - other) for one, other in zip(chosen, truth, strict=True)) / 2e6
    return {"iou": interval_iou(chosen, truth), "seconds_off": off}
