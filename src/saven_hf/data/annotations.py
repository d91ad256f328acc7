"""The published annotation files of the datasets that the paper trains on, as they are downloaded.

Each function takes the path of one file and yields `(line, Annotation)` as the file is read, or `(line, ValueError)`
for a row that is not of the published form, so that whoever reads may go on. `readers` makes rows of messages of them.
"""

from __future__ import annotations

import ast
import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..savenvideo.times import parse_times
from .messages import DataError, parse_json


# AudioCaps and VGGSound (and Auto-ACD, which is made of VGGSound and AudioSet) state a start alone.
CLIP_SECONDS = 10.0

_BETWEEN = re.compile(r"[\s,]*")  # elements of a JSON array


@dataclass(frozen=True)
class Segment:
    """What a file says of a part of a medium.

    Attributes:
        answer: a caption, label or answer.
        question: what was asked, where the dataset asks; else None.
        start, end: seconds from the beginning of the whole medium; None where the file does not tell.
        start_text, end_text: the same as they are written, since names of files are made of them.
        score: how well text and picture match, by the dataset's own measure.
    """

    answer: str
    question: str | None = None
    start: float | None = None
    end: float | None = None
    start_text: str = ""
    end_text: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Annotation:
    """What a row of a file says of one medium.

    Attributes:
        id: of the video, image or sound; for videos of YouTube its id there.
        segments: the parts that are described; one without times speaks of the whole medium.
        name: what else the row calls the medium by: names of files are often made of it.
    """

    id: str
    segments: tuple[Segment, ...]
    name: str = ""


Annotations = Iterator[tuple[int, Annotation | ValueError]]


# ------------------------------------------------------------------------------------------------------------ datasets


def lcs558k(path: Path) -> Annotations:
    """LCS-558K of LLaVA, `blip_laion_cc_sbu_558k.json`: an array of
    `{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}...]}`."""

    def parse(row: Mapping) -> Annotation:
        turns = row.get("conversations")
        if not isinstance(turns, list) or not turns or len(turns) % 2:
            raise ValueError("'conversations' must be pairs of turns, human and gpt")
        speakers = [turn.get("from") if isinstance(turn, Mapping) else None for turn in turns]
        if speakers != ["human", "gpt"] * (len(turns) // 2):
            raise ValueError(f"the turns are from {speakers}, but must alternate between 'human' and 'gpt'")
        texts = [_text(turn, "value") for turn in turns]
        # The image comes first wherever it was put, as in LLaVA's own training.
        questions = [text.replace("<image>", "").strip() for text in texts[::2]]
        pairs = zip(questions, texts[1::2], strict=True)
        segments = tuple(Segment(answer, question or None) for question, answer in pairs)
        return Annotation(_text(row, "id"), segments, _text(row, "image"))

    return _each(_json_array(path), parse)


def panda70m(path: Path) -> Annotations:
    """Panda-70M, `panda70m_training_*.csv`: a row a video, `timestamp`, `caption` and `matching_score` are lists of
    equal length, written as in Python; times are H:MM:SS.mmm."""

    def parse(row: Mapping) -> Annotation:
        spans, captions, scores = (_python_list(row, name) for name in ("timestamp", "caption", "matching_score"))
        if not len(spans) == len(captions) == len(scores):
            raise ValueError(
                f"{len(spans)} timestamps, {len(captions)} captions and {len(scores)} scores: not as many"
            )
        if not all(isinstance(span, list) and len(span) == 2 for span in spans):
            raise ValueError("a timestamp is not a pair of start and end")
        return Annotation(
            _text(row, "videoID"),
            tuple(
                _timed(_clean(caption, "a caption"), *span, score=_number(score, "a score"))
                for span, caption, score in zip(spans, captions, scores, strict=True)
            ),
        )

    return _each(read_csv(path, ("videoID", "timestamp", "caption", "matching_score")), parse)


def audioset(path: Path, labels: str | os.PathLike | None = None) -> Annotations:
    """AudioSet, `{eval,balanced_train,unbalanced_train}_segments.csv`: three lines of comment, then
    `YTID, start_seconds, end_seconds, "mid,mid"`.

    Args:
        labels: `class_labels_indices.csv` (`index,mid,display_name`); by default the one beside the file.
    """
    labels = path.parent / "class_labels_indices.csv" if labels is None else Path(labels)
    names: dict[str, str] = {}
    for line, row in read_csv(labels, ("index", "mid", "display_name")):
        if isinstance(row, ValueError):
            raise DataError(f"{row}.", labels, line)
        names[row["mid"]] = row["display_name"]

    def parse(row: Mapping) -> Annotation:
        mids = _text(row, "positive_labels").split(",")
        unknown = [mid for mid in mids if mid not in names]
        if unknown:
            raise ValueError(f"the label {unknown[0]!r} is not among the {len(names)} of {labels.name}")
        # Names hold commas themselves ("Male speech, man speaking").
        answer = "; ".join(names[mid] for mid in mids)
        return Annotation(_text(row, "YTID"), (_timed(answer, row["start_seconds"], row["end_seconds"]),))

    columns = ("YTID", "start_seconds", "end_seconds", "positive_labels")
    return _each(read_csv(path, columns, has_header=False), parse)


def audiocaps(path: Path) -> Annotations:
    """AudioCaps, `{train,val,test}.csv`: `audiocap_id,youtube_id,start_time,caption`; clips of 10 s."""

    def parse(row: Mapping) -> Annotation:
        segment = _timed(_text(row, "caption"), row["start_time"])
        return Annotation(_text(row, "youtube_id"), (segment,), _text(row, "audiocap_id"))

    return _each(read_csv(path, ("audiocap_id", "youtube_id", "start_time", "caption")), parse)


def autoacd(path: Path) -> Annotations:
    """Auto-ACD, `{train,test}.csv`: `youtube_id,caption`, where the id is followed by its start in seconds
    ("AAAAAAAAAAA_000117") or, where it is of AudioSet, may stand behind a Y and without a start ("YAAAAAAAAAAA")."""

    def parse(row: Mapping) -> Annotation:
        name, caption = _text(row, "youtube_id"), _text(row, "caption")
        match = re.fullmatch(r"([\w-]{11})_(\d{6})|Y([\w-]{11})", name)
        if match is None:
            raise ValueError(f"the id {name!r} is neither ID_000000, with its start in seconds, nor YID")
        # Some hundred captions come with the words of the language model that wrote them around.
        quoted = re.search(r'\bbe: "(.+)"', caption)
        caption = quoted[1].strip() if quoted else caption
        segment = Segment(caption) if match[3] else _timed(caption, match[2])
        return Annotation(match[1] or match[3], (segment,), name)

    return _each(read_csv(path, ("youtube_id", "caption")), parse)


def videoinstruct100k(path: Path) -> Annotations:
    """VideoInstruct100K of Video-ChatGPT, `VideoInstruct100K.json`: an array of `{"q", "a", "video_id"}`, where the id
    is ActivityNet's, "v_" and the id at YouTube."""

    def parse(row: Mapping) -> Annotation:
        video = _text(row, "video_id")
        return Annotation(video, (Segment(_text(row, "a"), _text(row, "q")),), video.removeprefix("v_"))

    return _each(_json_array(path), parse)


def internvid(path: Path) -> Annotations:
    """InternVid, `InternVid-10M-flt.jsonl` and its like: lines
    `{"YoutubeID", "Start_timestamp", "End_timestamp", "Caption", "UMT_Score", ...}`; times are HH:MM:SS.mmm."""

    def parse(row: Mapping) -> Annotation:
        score = None if row.get("UMT_Score") is None else _number(row["UMT_Score"], "'UMT_Score'")
        span = _text(row, "Start_timestamp"), _text(row, "End_timestamp")
        return Annotation(_text(row, "YoutubeID"), (_timed(_text(row, "Caption"), *span, score=score),))

    return _each(_json_lines(path), parse)


def vggsound(path: Path, split: str = "train") -> Annotations:
    """VGGSound, `vggsound.csv`: `youtube_id,start,label,split` without a header; clips of 10 s.

    Args:
        split: "train" or "test"; rows of the other are left out.
    """
    if split not in ("train", "test"):
        raise DataError(f"there is no split {split!r} of VGGSound: take 'train' or 'test'.")

    def parse(row: Mapping) -> Annotation:
        if row["split"] not in ("train", "test"):
            raise ValueError(f"the split is {row['split']!r}, but must be 'train' or 'test'")
        segment = _timed(_text(row, "label"), row["start"])
        return Annotation(_text(row, "id"), (segment,) if row["split"] == split else ())

    return _each(read_csv(path, ("id", "start", "label", "split"), has_header=False), parse)


# -------------------------------------------------------------------------------------------------------------- fields


def _each(rows: Iterable[tuple[int, Any]], parse: Callable[[Mapping], Annotation]) -> Annotations:
    for line, row in rows:
        try:
            if isinstance(row, ValueError):
                raise row
            if not isinstance(row, Mapping):
                raise ValueError(f"an object was expected, this is a {type(row).__name__}")
            yield line, parse(row)
        except ValueError as error:
            yield line, error


def _clean(value: Any, what: str) -> str:
    text = str(value).strip() if isinstance(value, (str, int)) else ""
    if not text:
        raise ValueError(f"{what} is missing or empty")
    return text


def _text(row: Mapping, name: str) -> str:
    return _clean(row.get(name), repr(name))


def _number(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{what} is {value!r}, not a number")
    return number


def _seconds(text: str) -> float:
    """Of "117", "30.000", "0:01:20.880"."""
    times = parse_times(text) if ":" in text else [round(_number(text, "a time") * 1e6)]
    if len(times) != 1 or not re.fullmatch(r"[\d:.]+", text):
        raise ValueError(f"{text!r} is not a time")
    return times[0] / 1e6


def _timed(answer: str, start: Any, end: Any = None, score: float | None = None) -> Segment:
    start_text = _clean(start, "the start")
    begin = _seconds(start_text)
    finish = begin + CLIP_SECONDS if end is None else _seconds(_clean(end, "the end"))
    end_text = f"{finish:g}" if end is None else str(end).strip()
    if begin >= finish:
        raise ValueError(f"it goes from {start_text} to {end_text}: the start must be below the end")
    return Segment(answer, None, begin, finish, start_text, end_text, score)


def _python_list(row: Mapping, name: str) -> list:
    text = _text(row, name)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, list):
        raise ValueError(f"{name!r} is not a list as Python writes it: {text[:40]!r}")
    return value


# --------------------------------------------------------------------------------------------------------------- files


def read_csv(path: Path, columns: tuple[str, ...], has_header: bool = True) -> Iterator[tuple[int, dict | ValueError]]:
    """Rows of a CSV file by column, and the line that each ends on. Lines of comment begin with "#".

    Args:
        columns: those that must be there; without a header, all of them in order.
    """
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 27))  # lists of hours of video pass the default of 128 KiB
    with _open(path) as file:
        reader = csv.reader(file, skipinitialspace=True)
        header = None if has_header else list(columns)
        try:
            for fields in reader:
                if not fields or (not has_header and fields[0].startswith("#")):
                    continue
                if header is None:
                    header = [field.strip() for field in fields]
                    lacking = [column for column in columns if column not in header]
                    if lacking:
                        raise DataError(f"there is no column {lacking[0]!r}, only {', '.join(header)}.", path, 1)
                elif len(fields) != len(header):
                    problem = ValueError(f"{len(fields)} fields, but there are {len(header)} columns")
                    yield reader.line_num, problem
                else:
                    yield reader.line_num, dict(zip(header, fields, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"this is no CSV file in UTF-8 ({error}).", path, reader.line_num + 1) from None


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    with _open(path, errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                try:
                    yield line, parse_json(text)
                except ValueError as error:
                    yield line, error


def _json_array(path: Path, chunk: int = 1 << 20) -> Iterator[tuple[int, Any]]:
    """Elements of a JSON array and the line that each begins on; `chunk` characters are held at a time."""
    decoder = json.JSONDecoder()
    line, size = 1, chunk
    with _open(path) as file:
        try:
            text = file.read(size)
            at = len(text) - len(text.lstrip())
            if not text.startswith("[", at):
                raise DataError("this is no JSON array: it must begin with '['.", path, line)
            line += text.count("\n", 0, at)
            at += 1
            while True:
                end = _BETWEEN.match(text, at).end()
                line += text.count("\n", at, end)
                at = end
                if text.startswith("]", at):
                    return
                try:
                    value, end = decoder.raw_decode(text, at)
                except json.JSONDecodeError as error:
                    read = file.read(size)
                    if not read:
                        problem = f"the JSON array breaks off or is broken ({error.msg.lower()}): download it again."
                        raise DataError(problem, path, line) from None
                    text, at = text[at:] + read, 0
                    size *= 2  # so that a broken file costs no more than reading it a few times
                    continue
                yield line, value
                line += text.count("\n", at, end)
                at, size = end, chunk
        except UnicodeDecodeError as error:
            raise DataError(f"the file is not UTF-8 ({error.reason}): download it again.", path, line) from None


def _open(path: Path, errors: str = "strict"):
    if not path.is_file():
        raise DataError("there is no such file: download the dataset's annotations first.", path)
    return open(path, encoding="utf-8-sig", newline="", errors=errors)
