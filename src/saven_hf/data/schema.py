"""Rows of SAVEn-Vid and AVBench: what the pipeline writes, what `load_dataset("savenvid")` gives.

A configuration is a kind of row. Its columns are declared once, as a `TypedDict`; `features` makes of it what the
datasets library stores, and `validate_row` checks a row against it and against what must be true of it.

    qa        one for each question                       `QaRow`
    captions  one for each segment of a video             `CaptionRow`
    videos    one for each video: captions of all of it   `VideoRow`
    sft       one for each instruction and its answer     `SftRow`
    world     questions of the procedural world           `WorldRow`

Times in columns are seconds (float64) from the beginning of the row's video, spans are half-open [start, end). Times
in text are written HH:MM:SS.mmm and name the first and the last frame, so the next segment starts one frame later
(paper, figures 2 and 11).
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from ..savenvideo.times import parse_spans, parse_times
from .messages import DataError, check_row
from .prompts import LETTERS


QUESTION_TYPES = ("global", "timestamped", "time_range")
OPTIONS = 4
LEAST_EVENTS = 3  # of a video of AVBench (paper, appendix B)

# What text names is rounded to milliseconds; seconds are sums of floats.
_TEXT_SLACK, _SLACK = 1e-3, 1e-6


class RowError(DataError):
    """A row that is not of the schema, or says what cannot be true.

    Attributes:
        config: kind of the row.
        column: that is wrong; "" for the row as a whole.
    """

    def __init__(self, problem: str, config: str, column: str = "", row_id: str | None = None):
        self.config, self.column = config, column
        name = f" {row_id!r}" if row_id else ""
        super().__init__(f"{config} row{name}: {problem}")


class MissingDependencyError(ImportError):
    """An optional package is needed and not installed."""


def import_datasets():
    """The datasets library.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(
            "Reading and writing datasets needs the datasets library, which is not installed: "
            'pip install "saven-hf[train]"'
        ) from error
    return datasets


# ------------------------------------------------------------------------------------------------------------- columns


Int32 = Annotated[int, "int32"]


class VideoFile(TypedDict):
    """A video as datasets' `Video` stores it: its bytes, or the path of a file."""

    bytes: bytes | None
    path: str | None


class Media(TypedDict):
    """Which file a row is about, so that a video which cannot be passed on is found again and known to be the same.

    Attributes:
        file: name below the folder of media, with "/".
        sha256: of the file, in hexadecimal.
        size: of the file, bytes.
        origin: where it came from: an id or address at its source; None if it is one's own.
        start, end: the part of the origin that the file is, seconds; None: all of it.
    """

    file: str
    sha256: str
    size: int
    origin: str | None
    start: float | None
    end: float | None


class Provenance(TypedDict):
    """What made a row.

    Attributes:
        models: names of annotators and models, such as "signal" or "Qwen/Qwen2.5-72B-Instruct".
        prompt_hashes: "name.jinja=hash" of the prompts used.
        code_version: of saven_hf.
    """

    models: list[str]
    prompt_hashes: list[str]
    code_version: str


class Verdict(TypedDict):
    """What a check found. Filters are queries over verdicts: a row that failed is kept and says why.

    Attributes:
        passed: None where the check could not decide.
        score: what was measured; its meaning is the check's own.
        detail: why, for people.
    """

    passed: bool | None
    score: float | None
    detail: str | None


class Checks(TypedDict):
    """Verdicts on a question; None where the check was not run.

    Attributes:
        format: the paper's rules on wording: no introductory phrase, no cited narration, no list as the right option.
        consistency: stem, options and answer agree with the captions and their times.
        redundancy: not nearly the same as another question of the video.
        leakage: cannot be answered from the text alone. Score: accuracy of a text-only guesser over option orders.
        visual_only, audio_only: cannot be answered from one stream's caption alone. Score: the guesser's accuracy.
        option_length: the right option is not told by its length.
        option_position: the right letter is balanced over the dataset.
        events: the video has at least `LEAST_EVENTS`. Score: how many.
        duplicate_video: the video is not nearly the same as one of another split or benchmark.
    """

    format: Verdict | None
    consistency: Verdict | None
    redundancy: Verdict | None
    leakage: Verdict | None
    visual_only: Verdict | None
    audio_only: Verdict | None
    option_length: Verdict | None
    option_position: Verdict | None
    events: Verdict | None
    duplicate_video: Verdict | None


class Block(TypedDict):
    """Part of a turn: {"type": "video", "text": None} stands for the row's video."""

    type: str
    text: str | None


class Message(TypedDict):
    role: str
    content: list[Block]


class QaRow(TypedDict):
    """A question on a video.

    Attributes:
        id: unique in the dataset.
        video: None where the video is given by `media` alone.
        duration: of the video.
        question: without its options.
        options: four texts; of a "time_range" question, spans such as "00:01:30.200 - 00:03:57.440".
        answer: "A" to "D".
        question_type: "global" (no times in the question), "timestamped" (times in the question) or "time_range"
            (the options are times, the question has none).
        category: the skill.
        audio_type: the kinds of sound that matter, such as "speech, music"; "" where not known.
        evidence: [start, end] of the stretches that answer it.
        source: which corpus the video is of.
    """

    id: str
    video_id: str
    video: VideoFile | None
    media: Media | None
    duration: float
    question: str
    options: list[str]
    answer: str
    question_type: str
    category: str
    audio_type: str
    evidence: list[list[float]]
    checks: Checks
    source: str
    provenance: Provenance


class CaptionRow(TypedDict):
    """A segment of a video in words.

    Attributes:
        segment: its number in the video, from 0.
        visual_caption, audio_caption: None where the video has no such stream.
        av_caption: both, with the segment's time range.
        transcript: what is said; None where it was not asked for or nothing is said.
    """

    video_id: str
    segment: Int32
    start: float
    end: float
    visual_caption: str | None
    audio_caption: str | None
    av_caption: str
    transcript: str | None


class VideoRow(TypedDict):
    """A video in words: the three final captions, with times (paper, figure 9).

    Attributes:
        visual_caption, audio_caption: None where the video has no such stream.
    """

    video_id: str
    video: VideoFile | None
    media: Media | None
    duration: float
    visual_caption: str | None
    audio_caption: str | None
    av_caption: str
    source: str
    provenance: Provenance


class SftRow(TypedDict):
    """An instruction and its answer, as `messages` (see `messages`) with bare video blocks.

    Attributes:
        messages: turns about the row's one video.
        videos: the video; empty where it is given by `media` alone.
        start, end: the part of the video that is used; None: all of it.
        kind: "question", or which captions: "captions", "visual_captions", "audio_captions" of the whole video,
            "span_caption", "visual_span_caption", "audio_span_caption" of a part.
    """

    id: str
    video_id: str
    messages: list[Message]
    videos: list[VideoFile]
    media: Media | None
    start: float | None
    end: float | None
    kind: str
    source: str
    provenance: Provenance


class Chance(TypedDict):
    """Exact accuracy of the best guessers that have the picture, the sound or the text alone, or no time."""

    picture: float
    sound: float
    text: float
    timeless: float


class WorldChecks(TypedDict):
    """What is known of a question of the world: how it was made, what it needs ("both", "picture", "sound")."""

    family: str
    needs: str
    chance: Chance | None


class WorldProvenance(Provenance):
    """Where a scene comes from: `saven_hf.world.sample_scene(seed, split)`."""

    seed: int
    split: str


class WorldRow(QaRow):
    """A question on a video of the procedural world, whose truth is known; without options it is open only."""

    answer_text: str
    checks: WorldChecks  # type: ignore[misc]
    provenance: WorldProvenance  # type: ignore[misc]


ROWS: dict[str, type] = {"qa": QaRow, "captions": CaptionRow, "videos": VideoRow, "sft": SftRow, "world": WorldRow}
CONFIGS = tuple(ROWS)
CHECKS = tuple(Checks.__annotations__)
NOT_CHECKED: Checks = dict.fromkeys(CHECKS)  # type: ignore[assignment]


def columns(row_type: type) -> dict[str, Any]:
    """Features of the columns that a `TypedDict` declares, by name.

    Raises:
        MissingDependencyError: the datasets library is not installed.
    """
    return {name: _feature(hint, import_datasets()) for name, hint in _hints(row_type).items()}


def features(config: str):
    """`datasets.Features` of a configuration.

    Raises:
        ValueError: there is none of that name.
        MissingDependencyError: the datasets library is not installed.
    """
    return import_datasets().Features(columns(_row_type(config)))


def _row_type(config: str) -> type:
    if config not in ROWS:
        raise ValueError(f"There is no configuration {config!r}: choose one of {', '.join(ROWS)}.")
    return ROWS[config]


def _hints(row_type: type) -> dict[str, Any]:
    return get_type_hints(row_type, include_extras=True)


def _required(hint: Any) -> tuple[Any, bool]:
    """A type without its None, and whether None is allowed."""
    if get_origin(hint) in (Union, types.UnionType):
        (inner,) = (one for one in get_args(hint) if one is not type(None))
        return inner, True
    return hint, False


def _feature(hint: Any, datasets):
    hint, _ = _required(hint)
    if hint is VideoFile:
        return datasets.Video()
    if is_typeddict(hint):
        return {name: _feature(inner, datasets) for name, inner in _hints(hint).items()}
    if get_origin(hint) is list:
        return datasets.List(_feature(get_args(hint)[0], datasets))
    if get_origin(hint) is Annotated:
        return datasets.Value(get_args(hint)[1])
    return datasets.Value({str: "string", float: "float64", int: "int64", bool: "bool"}[hint])


# -------------------------------------------------------------------------------------------------------------- checks


def validate_row(row: Mapping[str, Any], config: str, duration: float | None = None) -> None:
    """Raise the first thing that is wrong with a row; files are not looked at.

    Args:
        row: of the configuration.
        config: "qa", "captions", "videos" or "sft".
        duration: of the row's video in seconds, for configurations whose rows do not hold it ("captions", "sft").

    Raises:
        RowError: naming the column, what it holds and what it may hold.
        ValueError: there is no such configuration.
    """
    for column, problem in row_problems(row, config, duration):
        name = row.get("id") or row.get("video_id") if isinstance(row, Mapping) else None
        raise RowError(problem, config, column, name if isinstance(name, str) else None)


def row_problems(row: Mapping[str, Any], config: str, duration: float | None = None) -> Iterator[tuple[str, str]]:
    """All that is wrong with a row, as (column, problem); what is said of `validate_row` holds here too."""
    row_type = _row_type(config)
    problems = [(column.partition("[")[0].partition(".")[0], text) for column, text in _type_problems(row, row_type)]
    yield from problems
    if problems:
        return  # what follows relies on the types
    if "duration" in row:
        duration = row["duration"]
    if duration is not None and not duration > 0:
        yield "duration", f"'duration' is {duration:g} s: it must be above 0."
        return
    for column in ("id", "video_id", "source"):
        if column in row and not row[column].strip():
            yield column, f"{column!r} is empty."
    yield from _media_problems(row)
    yield from _RULES[config](row, math.inf if duration is None else duration)


def validate_segments(rows: Iterable[Mapping[str, Any]], duration: float | None = None) -> None:
    """Raise what is wrong with the captions of one video among themselves: numbers from 0, in order, no overlap.

    Args:
        rows: of the configuration "captions", all of one video.
        duration: of the video, seconds.

    Raises:
        RowError: also for a row that is wrong by itself.
    """
    before = 0.0
    for at, row in enumerate(rows):
        validate_row(row, "captions", duration)
        if row["segment"] != at:
            problem = f"it is the segment {row['segment']}, but {at} segments stand before it."
            raise RowError(problem, "captions", "segment", row["video_id"])
        if row["start"] < before - _SLACK:
            problem = f"segment {at} starts at {row['start']:g} s, before the one in front ends, at {before:g} s."
            raise RowError(problem, "captions", "start", row["video_id"])
        before = row["end"]


def _type_problems(value: Any, hint: Any, where: str = "") -> Iterator[tuple[str, str]]:
    hint, optional = _required(hint)
    if value is None and optional:
        return
    what = f"{where!r}" if where else "the row"
    if is_typeddict(hint):
        if not isinstance(value, Mapping):
            yield where, f"{what} must be an object, not {_kind(value)}."
            return
        names = _hints(hint)
        for name in value:
            if name not in names:
                yield where or str(name), f"{what} has an unknown key {name!r}: known are {', '.join(names)}."
        for name, inner in names.items():
            place = f"{where}.{name}" if where else name
            if name not in value:
                hint_text = "; give None where there is nothing" if _required(inner)[1] else ""
                yield place, f"{place!r} is missing{hint_text}."
            else:
                yield from _type_problems(value[name], inner, place)
    elif get_origin(hint) is list:
        if not isinstance(value, (list, tuple)):
            yield where, f"{what} must be a list, not {_kind(value)}."
            return
        for at, one in enumerate(value):
            yield from _type_problems(one, get_args(hint)[0], f"{where}[{at}]")
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield where, f"{what} must be a number, not {_kind(value)}."
        elif not math.isfinite(value):
            yield where, f"{what} is {value}: it must be a finite number."
    else:
        wanted = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            yield where, f"{what} must be {_ARTICLES[wanted]}, not {_kind(value)}."


_ARTICLES = {str: "a text", int: "an integer", bool: "true or false", bytes: "bytes"}


def _kind(value: Any) -> str:
    return "None" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def _media_problems(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    column = next((name for name in ("video", "videos") if name in row), None)
    if column is None:
        return
    files = [row["video"]] if column == "video" else row["videos"]
    files = [file for file in files if file is not None]
    media = row["media"]
    if column == "videos" and len(files) > 1:
        yield column, f"there are {len(files)} videos: a row is about one."
    if not files and media is None:
        yield column, f"there is neither a video nor 'media', which says where it is: give one of {column!r}, 'media'."
    for file in files:
        if file["bytes"] is None and not file["path"]:
            yield column, f"{column!r} has neither bytes nor a path."
    if media is None:
        return
    name, digest = media["file"], media["sha256"]
    if not name or name.startswith("/") or "\\" in name or ".." in name.split("/"):
        yield "media", f"'media.file' is {name!r}: it must be a name below the folder of media."
    if len(digest) != 64 or any(letter not in "0123456789abcdef" for letter in digest):
        yield "media", f"'media.sha256' is {digest!r}: it must be 64 hexadecimal digits, lower case."
    if media["size"] <= 0:
        yield "media", f"'media.size' is {media['size']}: a file has at least one byte."
    start, end = media["start"], media["end"]
    if start is not None and end is not None and not 0 <= start < end:
        yield (
            "media",
            f"'media' is the part from {start:g} to {end:g} s of its origin: the start must be below the end.",
        )


def _span_problems(start: float, end: float, duration: float, column: str, what: str) -> Iterator[tuple[str, str]]:
    if not start < end:
        yield column, f"{what} goes from {start:g} to {end:g} s: spans are half-open, so the start is below the end."
    elif start < -_SLACK:
        yield column, f"{what} starts at {start:g} s: the video starts at 0."
    elif end > duration + _SLACK:
        yield column, f"{what} ends at {end:g} s, but the video lasts {duration:g} s."


def _text_problems(row: Mapping[str, Any], names: Iterable[str], duration: float) -> Iterator[tuple[str, str]]:
    """Of texts that may be None, but not empty, and whose times must lie in the video."""
    for column in names:
        text = row[column]
        if text is None:
            continue
        if not text.strip():
            yield column, f"{column!r} is empty: give None where there is nothing to say."
        yield from _named_times(text, duration, column, repr(column))


def _named_times(text: str, duration: float, column: str, what: str) -> Iterator[tuple[str, str]]:
    for time in parse_times(text):
        if time / 1e6 > duration + _TEXT_SLACK:
            yield column, f"{what} names the time {time / 1e6:g} s, but the video lasts {duration:g} s."
            return


def _world_problems(row: Mapping[str, Any], duration: float) -> Iterator[tuple[str, str]]:
    open_only = not row["options"] and not row["answer"]
    for column, problem in _qa_problems(row, duration):
        if not (open_only and column in ("options", "answer")):
            yield column, problem
    if not row["answer_text"].strip():
        yield "answer_text", "'answer_text' is empty."


def _qa_problems(row: Mapping[str, Any], duration: float) -> Iterator[tuple[str, str]]:
    question, options, answer = row["question"], row["options"], row["answer"]
    if not question.strip():
        yield "question", "'question' is empty."
    if len(options) != OPTIONS:
        yield "options", f"there are {len(options)} options: a question has {OPTIONS}."
    for letter, option in zip(LETTERS, options, strict=False):
        if not option.strip() or len(option.splitlines()) != 1:
            yield "options", f"option {letter} is {option!r}: an option is one line of text."
    plain = [" ".join(option.casefold().split()) for option in options]
    for at, option in enumerate(plain):
        if option in plain[:at]:
            first = LETTERS[plain.index(option)]
            yield "options", f"options {first} and {LETTERS[at]} are the same, {options[at]!r}: all must differ."
    letters = LETTERS[:OPTIONS]
    if len(answer) != 1 or answer not in letters:
        yield "answer", f"the answer is {answer!r}: it must be one of {', '.join(letters)}."
    if row["question_type"] not in QUESTION_TYPES:
        kinds = ", ".join(QUESTION_TYPES)
        yield "question_type", f"the question type is {row['question_type']!r}: it must be one of {kinds}."
    if not row["category"].strip():
        yield "category", "'category' is empty."
    yield from _format_problems(row, duration)
    if not row["evidence"]:
        yield "evidence", "there is no evidence: give the span that answers the question, or all of the video."
    for at, span in enumerate(row["evidence"]):
        if len(span) != 2:
            yield "evidence", f"evidence[{at}] has {len(span)} numbers: a span is [start, end]."
        else:
            yield from _span_problems(*span, duration, "evidence", f"evidence[{at}]")


def _format_problems(row: Mapping[str, Any], duration: float) -> Iterator[tuple[str, str]]:
    """The paper's three formats (figure 10): where times stand and where they must not."""
    question, kind = row["question"], row["question_type"]
    times = parse_times(question)
    if kind == "timestamped" and not times:
        yield "question", "a timestamped question names a time, and this one does not: write it as HH:MM:SS.mmm."
    if kind in ("global", "time_range") and times:
        named = ", ".join(f"{time / 1e6:g} s" for time in times)
        yield "question", f"a {kind} question names no time, and this one names {named}."
    yield from _named_times(question, duration, "question", "the question")
    for letter, option in zip(LETTERS, row["options"], strict=False):
        if kind == "time_range":
            spans = parse_spans(option)
            if len(spans) != 1 or spans[0][0] == spans[0][1]:
                yield "options", f"option {letter} is {option!r}: of a time_range question, it is one span of time."
        yield from _named_times(option, duration, "options", f"option {letter}")


def _caption_problems(row: Mapping[str, Any], duration: float) -> Iterator[tuple[str, str]]:
    if row["segment"] < 0:
        yield "segment", f"the segment is {row['segment']}: they are numbered from 0."
    yield from _span_problems(row["start"], row["end"], duration, "end", "the segment")
    yield from _text_problems(row, ("visual_caption", "audio_caption", "av_caption"), duration)
    if row["visual_caption"] is None and row["audio_caption"] is None:
        yield "av_caption", "there is neither a visual nor an audio caption: a segment has at least one of them."


def _video_problems(row: Mapping[str, Any], duration: float) -> Iterator[tuple[str, str]]:
    yield from _text_problems(row, ("visual_caption", "audio_caption", "av_caption"), duration)
    if row["visual_caption"] is None and row["audio_caption"] is None:
        yield "av_caption", "there is neither a visual nor an audio caption: a video has at least one of them."


def _sft_problems(row: Mapping[str, Any], duration: float) -> Iterator[tuple[str, str]]:
    start, end = row["start"], row["end"]
    if start is not None or end is not None:
        last = math.inf if end is None else end
        if end is None and math.isfinite(duration):
            last = duration
        yield from _span_problems(start or 0.0, last, duration, "end", "the part that is used")
    try:
        blocks = [
            {**message, "content": [{k: v for k, v in block.items() if v is not None} for block in message["content"]]}
            for message in row["messages"]
        ]
        check_row({"messages": blocks, "videos": ["video"]})
    except DataError as error:
        yield "messages", error.problem
        return
    text = " ".join(block["text"] or "" for message in row["messages"] for block in message["content"])
    yield from _named_times(text, duration, "messages", "the text")
    if not row["kind"].strip():
        yield "kind", "'kind' is empty."


_RULES = {
    "qa": _qa_problems,
    "captions": _caption_problems,
    "videos": _video_problems,
    "sft": _sft_problems,
    "world": _world_problems,
}
