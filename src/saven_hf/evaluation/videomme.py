"""Video-MME: 900 videos, 2,700 questions, with and without subtitles, by its own script's rules and by ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data.prompts import LETTERS
from ..savenvideo.subtitles import read_subtitles
from .benchmarks import Item, Problem, Table
from .official import videollama2_videomme_letter, videomme_letter
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


DURATIONS = ("short", "medium", "long")
TASK_TYPES = (
    "Temporal Perception", "Spatial Perception", "Attribute Perception", "Action Recognition", "Object Recognition",
    "OCR Problems", "Counting Problem", "Temporal Reasoning", "Spatial Reasoning", "Action Reasoning",
    "Object Reasoning", "Information Synopsis",
)  # fmt: skip
_INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
    "letter (A, B, C, or D) of the correct option."
)


class VideoMME(PublishedBenchmark):
    """Rows of the Hub's parquet (`video_id, duration, domain, sub_category, url, videoID, question_id, task_type,
    question, options, answer`), or of the result template (a list of videos with `questions`).

    Args:
        data: the file, or a folder with it, the videos (`<videoID>.mp4`) and the subtitles (`<videoID>.srt`), each
            wherever below it.
        subtitles: put the subtitles that are shown with the sampled frames in front of the question, as the authors
            ask for; each once, in order. Videos without a subtitle file (156 of 900) are asked without, and listed.
        limit: see `PublishedBenchmark`.

    Raises:
        BenchmarkFileError: there is no such file, no subtitle file at all where they are wanted, or nothing can be
            asked.
    """

    def __init__(self, data: str | os.PathLike, subtitles: bool = False, limit: int | None = None):
        data = Path(data)
        folder = data if data.is_dir() else data.parent
        title = f"Video-MME {'with' if subtitles else 'without'} subtitles"
        super().__init__("videomme-subtitles" if subtitles else "videomme", title, [folder], limit)
        self.subtitles = subtitles
        self._subtitle_files = _subtitle_files(folder) if subtitles else {}
        self._read_subtitles: dict[str, list] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        files = annotation_files(data, "test-*.parquet", "*.parquet", "*.json", "*.jsonl")
        self.take(files, self._read(files))
        for video in self.video_ids if subtitles else ():
            if self._facts[video]["videoID"] not in self._subtitle_files:
                what = f"no {self._facts[video]['videoID']}.srt: asked without subtitles"
                self.problems.append(Problem("missing_subtitles", video, what))

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, Item | BadRowError, Sequence[str]]]:
        for where, row in read_rows(*files):
            questions = row.get("questions")
            for question in [row] if questions is None else questions:
                try:
                    # The script of 2024 knew three fields by other names.
                    video = text_field(row, "video_id")
                    yield where, self._item(video, row, row | question), [self._names(row)]
                except BadRowError as error:
                    yield f"{where} {question.get('question_id', '')}".strip(), error, ()

    def _item(self, video: str, row: dict[str, Any], question: dict[str, Any]) -> Item:
        facts = {
            "duration": text_field(row, "duration", "duration_category"),
            "domain": text_field(row, "domain", "video_category"),
            "sub_category": text_field(row, "sub_category", "video_subcategory"),
        }
        if facts["duration"] not in DURATIONS:
            raise BadRowError("bad_row", f"the duration {facts['duration']!r} is none of {', '.join(DURATIONS)}")
        options = options_field(question, "options", "choices")
        self._facts.setdefault(video, facts | {"videoID": self._names(row)})
        tags = facts | {"task_type": text_field(question, "task_type")}
        letter = letter_of(answer_field(question, "answer")[0], options)
        identity, text = text_field(question, "question_id"), text_field(question, "question")
        return Item(identity, video, "choice", text, letter, options, tags)

    @staticmethod
    def _names(row: dict[str, Any]) -> str:
        """YouTube's id, by which files are named; from the address where there is no field of it."""
        if row.get("videoID"):
            return str(row["videoID"])
        return str(row.get("url") or row["video_id"]).split("watch?v=")[-1].rsplit("/", 1)[-1]

    def prompt(self, item: Item, frame_times: Sequence[float] = ()) -> str:
        options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, item.options, strict=False))
        text = f"{_INSTRUCTION}\n{item.question}\n{options}\nThe best answer is:"
        shown = self._shown(item.video_id, frame_times)
        return f"This video's subtitles are listed below:\n{shown}\n{text}" if shown else text

    def _shown(self, video: str, frame_times: Sequence[float]) -> str:
        path = self._subtitle_files.get(self._facts[video]["videoID"])
        if path is None:
            return ""
        if video not in self._read_subtitles:
            self._read_subtitles = {video: read_subtitles(path)}  # of one video at a time
        lines = self._read_subtitles[video]
        if not frame_times:
            return "\n".join(" ".join(line.text.split()) for line in lines)
        times = [round(time * 1e6) for time in frame_times]
        shown = [line for line in lines if any(line.start <= time < line.end for time in times)]
        return "\n".join(" ".join(line.text.split()) for line in shown)

    def score(self, item: Item, output: str) -> dict[str, Any]:
        listed = [f"{letter}. {text}" for letter, text in zip(LETTERS, item.options, strict=False)]
        published = {
            "videomme": videomme_letter(output),
            "videollama2": videollama2_videomme_letter(output, listed[:4]),
        }
        return super().score(item, output) | {"official": published}

    def figures(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """ "official", as the published script counts: right over answered, "overall" and by duration, each with the
        same by domain, sub-category and task type; "videollama2": by its rule, over all."""

        def counted(some: list[dict[str, Any]]) -> dict[str, Any]:
            letters = [row["official"]["videomme"] for row in some]
            right = sum(letter == row["answer"] for letter, row in zip(letters, some, strict=True))
            answered = sum(letter != "" for letter in letters)
            accuracy = right / answered if answered else None
            return {"right": right, "answered": answered, "questions": len(some), "accuracy": accuracy}

        rows = [row for row in rows if "official" in row]
        parts = {"overall": rows}
        parts |= {name: [row for row in rows if row["tags"]["duration"] == name] for name in DURATIONS}
        official = {
            name: counted(some) | {
                tag: {
                    value: counted([row for row in some if row["tags"][tag] == value])
                    for value in sorted({row["tags"][tag] for row in some})
                }
                for tag in ("domain", "sub_category", "task_type")
            }
            for name, some in parts.items() if some or name == "overall"
        }  # fmt: skip
        same = [row["official"]["videollama2"] == row["answer"] for row in rows]
        return {"official": official, "videollama2": sum(same) / len(same) if same else None}

    def tables(self, rows: list[dict[str, Any]]) -> list[Table]:
        found = self.figures(rows)["official"]
        body = []
        for name in ("overall", *DURATIONS):
            if name in found:
                strict = [row for row in rows if name in ("overall", row["tags"]["duration"])]
                right = sum(bool(row["correct"]) for row in strict)
                unparsable = sum(row["parsed"] is None for row in strict)
                part = found[name]
                body.append([
                    name, _share(right, len(strict)), str(unparsable),
                    _share(part["right"], part["answered"]), str(part["questions"] - part["answered"]),
                ])  # fmt: skip
        kinds = [
            [videos, tag, value, _share(part["right"], part["answered"])]
            for videos in ("overall", *DURATIONS) if videos in found
            for tag in ("domain", "sub_category", "task_type")
            for value, part in found[videos][tag].items()
        ]  # fmt: skip
        return [
            Table(
                "Strict rules over all questions, and the published script over those it finds a letter in",
                ["videos", "strict, %", "unparsable", "published script, %", "left out by it"],
                body,
            ),
            Table("By the published script", ["videos", "by", "kind", "%"], kinds),
        ]

    def files(self, rows: list[dict[str, Any]]) -> dict[str, str]:
        """`<name>.results.json`, the template that the published script reads."""
        videos: dict[str, dict[str, Any]] = {}
        for row in rows:
            facts = self._facts[row["video_id"]]
            video = videos.setdefault(
                row["video_id"],
                {"video_id": row["video_id"], "duration": facts["duration"], "domain": facts["domain"],
                 "sub_category": facts["sub_category"], "missing": False, "questions": []},
            )  # fmt: skip
            video["questions"].append({
                "question_id": row["id"], "task_type": row["tags"]["task_type"], "question": row["question"],
                "options": [f"{letter}. {text}" for letter, text in zip(LETTERS, row["options"], strict=False)],
                "answer": row["answer"], "response": row["output"],
            })  # fmt: skip
        content = json.dumps(list(videos.values()), indent=1, ensure_ascii=False) + "\n"
        return {f"{self.name}.results.json": content}


def _subtitle_files(folder: Path) -> dict[str, Path]:
    found = {path.stem: path for path in sorted(folder.rglob("*.srt"))}
    if not found:
        raise BenchmarkFileError(f"{folder} has no *.srt: unpack Video-MME's subtitles there, or ask without them.")
    return found


def _share(right: int, of: int) -> str:
    return f"{100 * right / of:.1f} ({right} of {of})" if of else "-"
