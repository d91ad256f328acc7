"""Rows of chat messages: the form in which everything is trained on, and in which people bring their own data.

A row is one JSON object, a file of them has one a line (JSONL):

    {"messages": [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What happens?"}]},
                  {"role": "assistant", "content": "A dog barks from 00:00:02.000 to 00:00:04.500."}],
     "videos": ["dog.mp4"], "start": 0.0, "end": 30.0}

Content is a string or a list of blocks. Bare blocks `{"type": "video" | "image" | "audio"}` take the media of the
lists `videos`, `images` and `audios` in order; a block may also hold its own, `{"type": "video", "video": "dog.mp4"}`.
Paths are relative to the file's folder. An audio block whose file is a video takes its sound alone.

`start` and `end` (seconds, either may be left out) keep a part of the row's one video or sound. Times in the text
always count from the beginning of the whole file. `weight` (of the row in the loss), `id` and `source` are kept as
they are.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from ..savenvideo.media import open_media
from ..savenvideo.media_errors import MediaError
from ..savenvideo.processing_savenvideo import AUDIO_TOKEN, IMAGE_TOKEN, TURN_END, TURN_START, VIDEO_TOKEN
from ..savenvideo.times import format_time, parse_times


COLUMNS = {"video": "videos", "image": "images", "audio": "audios"}
ROW_KEYS = ("messages", *COLUMNS.values(), "start", "end", "weight", "id", "source")

_MESSAGE_KEYS = ("role", "content")
_CONTROL_TOKENS = (VIDEO_TOKEN, IMAGE_TOKEN, AUDIO_TOKEN, TURN_START, TURN_END, "<|endoftext|>")
_FOREIGN_PLACEHOLDERS = ("<video>", "<image>", "<audio>")
# What other formats call our keys. The name that is not read would be lost without a word.
_OTHER_NAMES = {
    "conversations": "messages",
    "conversation": "messages",
    **dict(COLUMNS.items()),
    "start_time": "start",
    "begin": "start",
    "end_time": "end",
    "stop": "end",
    "sample_weight": "weight",
}
# A container's duration and the last time that a text names are rounded differently.
_SLACK_US = 100_000


class DataError(ValueError):
    """Data that cannot be trained on. The message is one line: file, line, what is wrong and what to do.

    Attributes:
        problem: the message without the place.
        file: where it was read, if it was a file.
        line: its line, counted from 1.
    """

    def __init__(self, problem: str, file: str | os.PathLike | None = None, line: int | None = None):
        self.problem, self.file, self.line = problem, None if file is None else os.fspath(file), line
        place = ":".join(str(part) for part in (self.file, line) if part is not None)
        super().__init__(f"{place}: {problem}" if place else problem)


class MissingMediaError(DataError):
    """A video, image or sound that a row names is not there."""


class Medium(NamedTuple):
    """A medium of a row: "video", "image" or "audio", and a path or whatever else the processor takes."""

    kind: str
    source: Any


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line. Rows with errors cannot be trained on; a warning is for a person to judge."""

    line: int
    message: str
    is_error: bool = True

    def __str__(self) -> str:
        return f"{self.line}: {'error' if self.is_error else 'warning'}: {self.message}"


@dataclass
class Report:
    """What `validate_messages` found.

    Attributes:
        file: that was read.
        rows, bad_rows: rows in all, and those with errors.
        turns: answers to learn from, in good rows.
        media: number of videos, images and audios in good rows.
        media_seconds: length of the videos and sounds as they are used; None where media were not opened.
        errors, warnings: how many there are.
        problems: the first of them, by line; `left_out` more are only counted.
    """

    file: str
    rows: int = 0
    bad_rows: int = 0
    turns: int = 0
    media: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS.values(), 0))
    media_seconds: float | None = None
    errors: int = 0
    warnings: int = 0
    problems: list[Problem] = field(default_factory=list)
    left_out: int = 0

    @property
    def ok(self) -> bool:
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        media = ", ".join(f"{count} {name}" for name, count in self.media.items() if count) or "no media"
        length = "" if self.media_seconds is None else f" ({format_time(round(self.media_seconds * 1e6))})"
        return (
            f"{self.file}: {self.rows} rows, {self.turns} answers, {media}{length}; "
            f"{self.errors} errors in {self.bad_rows} rows, {self.warnings} warnings"
        )


# ------------------------------------------------------------------------------------------------------------- reading


def read_messages(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file, one at a time; paths of media are joined to the file's folder.

    Media are not looked for: a run over a million rows should begin at once. `validate_messages` does.

    Raises:
        DataError: at the first line that is not a row of messages.
    """
    folder = Path(path).parent
    for line, text in _lines(path):
        try:
            row = parse_json(text)
        except ValueError as error:
            raise DataError(str(error), path, line) from None
        check_row(row, path, line)
        yield _with_folder(row, folder)


def check_row(row: Any, file: str | os.PathLike | None = None, line: int | None = None) -> None:
    """Raise the first thing that keeps a row from being trained on; its files are not looked at.

    Raises:
        DataError: naming `file` and `line`, if they are given.
    """
    for message, is_error in _row_problems(row):
        if is_error:
            raise DataError(message, file, line)


def media_of(row: Mapping[str, Any]) -> list[Medium]:
    """Media of a row in the order of its blocks: the processor's order.

    Raises:
        DataError: bare blocks and listed media are not equally many.
    """
    return [
        Medium(block["type"], block[block["type"]])
        for message in attach_media(row)
        if not isinstance(message["content"], str)
        for block in message["content"]
        if block["type"] in COLUMNS
    ]


def attach_media(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The row's messages, with every medium in its block, as `processor.apply_chat_template` takes them.

    Raises:
        DataError: bare blocks and listed media are not equally many.
    """
    for problem in _count_problems(row):
        raise DataError(problem)
    listed = {kind: iter(row.get(column) or ()) for kind, column in COLUMNS.items()}
    messages = []
    for message in row["messages"]:
        content = message["content"]
        if not isinstance(content, str):
            content = [_with_medium(block, listed) for block in content]
        messages.append({"role": message["role"], "content": content})
    return messages


def _with_medium(block: Mapping[str, Any], listed: Mapping[str, Iterator]) -> dict[str, Any]:
    kind = block["type"]
    if kind == "text":
        return {"type": "text", "text": block["text"]}
    own = _own_medium(block)
    return {"type": kind, kind: next(listed[kind]) if own is None else own}


def _own_medium(block: Mapping[str, Any]) -> Any:
    own = block.get(block["type"])
    return block.get("path") if own is None else own


def _with_folder(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    def joined(source: Any) -> Any:
        if isinstance(source, Mapping):
            return {**source, "path": str(folder / source["path"])}
        return str(folder / source)

    row = {**row, **{column: [joined(one) for one in row[column]] for column in COLUMNS.values() if row.get(column)}}
    messages = []
    for message in row["messages"]:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                block
                if block["type"] == "text" or _own_medium(block) is None
                else {"type": block["type"], block["type"]: joined(_own_medium(block))}
                for block in content
            ]
        messages.append({**message, "content": content})
    return {**row, "messages": messages}


def _lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """Lines that hold something, and their numbers. Bytes that are no UTF-8 come as replacement characters."""
    if not os.path.isfile(path):
        raise DataError("there is no such file: pass a JSONL file of messages.", path)
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                yield line, text


def parse_json(text: str) -> Any:
    """The JSON value of a line, or a ValueError that says why there is none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start + 1} is not UTF-8: save the file as UTF-8.") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = "write one JSON object a line"
        if text.lstrip()[:1] in "[{" and error.pos >= len(text.rstrip()):
            hint += ", not an array or an object over several lines"
        raise ValueError(f"not JSON ({error.msg.lower()} at character {error.pos + 1}): {hint}.") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply to be a row of messages.") from None


# ----------------------------------------------------------------------------------------------------- checks of a row


def _row_problems(row: Any) -> Iterator[tuple[str, bool]]:
    """What is wrong with a row by itself, as (message, is it an error); its files are not looked at."""
    if not isinstance(row, dict):
        what = "an array: write one object a line" if isinstance(row, list) else f"a {type(row).__name__}"
        yield f"a row is a JSON object with 'messages', this is {what}.", True
        return
    yield from _key_problems(row, ROW_KEYS, "")
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield '\'messages\' must be a list of turns: [{"role": "user", ...}, {"role": "assistant", ...}].', True
        return
    problems = [*_list_problems(row)]
    for at, message in enumerate(messages):
        problems += _message_problems(message, f"messages[{at}]")
    yield from problems
    if any(is_error for _, is_error in problems):
        return  # what follows relies on the form
    yield from ((problem, True) for problem in _role_problems([message["role"] for message in messages]))
    yield from ((problem, True) for problem in _count_problems(row))
    yield from _time_problems(row)
    weight = row.get("weight")
    if weight is not None and not (_is_number(weight) and weight > 0):
        yield f"'weight' is {weight!r}: it must be a number above 0.", True


def _key_problems(mapping: Mapping[str, Any], known: Iterable[str], where: str) -> Iterator[tuple[str, bool]]:
    known = list(known)
    for key in mapping:
        if key in known:
            continue
        # Short names are near to everything.
        near = difflib.get_close_matches(key, known, 1, 0.8) if len(key) > 3 else []
        meant = next((name for name in (_OTHER_NAMES.get(key), *near) if name in known), None)
        if meant:
            yield f"{where}unknown key {key!r}: did you mean {meant!r}?", True
        else:
            yield f"{where}key {key!r} is not used; known are {', '.join(known)}.", False


def _list_problems(row: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    for column in COLUMNS.values():
        media = row.get(column)
        if media is not None and not isinstance(media, list):
            yield f"{column!r} must be a list of paths, not a {type(media).__name__}.", True
            continue
        for at, source in enumerate(media or ()):
            yield from ((problem, True) for problem in _source_problems(source, f"{column}[{at}]"))


def _source_problems(source: Any, where: str) -> Iterator[str]:
    path = source.get("path") if isinstance(source, Mapping) else source
    if not isinstance(path, str) or not path:
        yield f'{where} must be a path, or an object {{"path": ...}}.'
    elif "://" in path:
        yield f"{where} is a URL ({path}): only local files are read; download it first."


def _message_problems(message: Any, where: str) -> Iterator[tuple[str, bool]]:
    if not isinstance(message, dict):
        yield f'{where} must be an object {{"role": ..., "content": ...}}.', True
        return
    yield from _key_problems(message, _MESSAGE_KEYS, f"{where}: ")
    role, content = message.get("role"), message.get("content")
    if role not in ("system", "user", "assistant"):
        yield f"{where}: the role is {role!r}, but must be 'user', 'assistant' or 'system'.", True
    if not isinstance(content, (str, list)):
        yield f"{where}: 'content' must be a string or a list of blocks.", True
        return
    problems = [] if isinstance(content, str) else [p for block in content for p in _block_problems(block, where)]
    yield from problems
    if any(is_error for _, is_error in problems):
        return
    text = _text_of(content)
    kinds = [] if isinstance(content, str) else [block["type"] for block in content if block["type"] in COLUMNS]
    if kinds and role != "user":
        yield f"{where}: a {kinds[0]} block stands in the {role}'s turn; media belong into the user's.", True
    if not text.strip() and not (kinds and role == "user"):
        yield f"{where}: the {role}'s turn is empty.", True
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        yield (
            f"{where}: the text holds half of a surrogate pair, which is no character: mend it where it was made.",
            True,
        )
    for token in _CONTROL_TOKENS:
        if token in text:
            hint = f'a block {{"type": "{token[2:-2]}"}}' if token[2:-2] in COLUMNS else "no control tokens"
            yield f"{where}: {token} is typed in the text; use {hint} instead.", True
    for token in _FOREIGN_PLACEHOLDERS:
        if token in text:
            yield (
                f'{where}: {token} in the text is read as words; for a medium use {{"type": "{token[1:-1]}"}}.',
                False,
            )


def _block_problems(block: Any, where: str) -> Iterator[tuple[str, bool]]:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in ("text", *COLUMNS):
        yield f"{where}: a block has the type {kind!r}, but must be 'text', 'video', 'image' or 'audio'.", True
        return
    if kind == "text":
        if not isinstance(block.get("text"), str):
            yield f"{where}: a text block must hold a string under 'text'.", True
        return
    # Columns of `datasets` fill in the keys that other blocks have.
    stray = next(
        (key for key, value in block.items() if value is not None and key not in ("type", "path", kind)), None
    )
    if stray:
        yield (
            f"{where}: a {kind} block holds {stray!r}; its medium goes under {kind!r} or into {COLUMNS[kind]!r}.",
            True,
        )
    own = _own_medium(block)
    if own is not None:
        yield from ((problem, True) for problem in _source_problems(own, f"{where}: the {kind} of a block"))


def _text_of(content: str | list) -> str:
    return content if isinstance(content, str) else "\n".join(one["text"] for one in content if one["type"] == "text")


def _role_problems(roles: list[str]) -> Iterator[str]:
    turns = roles[1:] if roles[0] == "system" else roles
    for at, role in enumerate(turns):
        expected = "assistant" if at % 2 else "user"
        if role != expected:
            yield (
                f"messages[{at + len(roles) - len(turns)}] is the {role}'s, but the {expected}'s turn was expected: "
                "user and assistant take turns, after at most one system turn."
            )
            return
    if not turns or turns[-1] != "assistant":
        yield f"the last turn is the {roles[-1]}'s: there is no answer to learn; end with an assistant's turn."


def _count_problems(row: Mapping[str, Any]) -> Iterator[str]:
    bare = Counter(
        block["type"]
        for message in row["messages"]
        if not isinstance(message["content"], str)
        for block in message["content"]
        if block["type"] in COLUMNS and _own_medium(block) is None
    )
    for kind, column in COLUMNS.items():
        listed = len(row.get(column) or ())
        if bare[kind] != listed:
            yield (
                f"there are {bare[kind]} bare {kind} blocks and {listed} entries in {column!r}: each block "
                f'{{"type": "{kind}"}} takes one.'
            )


def _time_problems(row: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Of `start` and `end`, and of times in the text outside of them."""
    given = {name: row[name] for name in ("start", "end") if row.get(name) is not None}
    if not given:
        return
    for name, value in given.items():
        if not _is_number(value) or value < 0:
            yield f"{name!r} is {value!r}: it must be a time in seconds, 0 or more.", True
            return
    start, end = given.get("start", 0), given.get("end", math.inf)
    if start >= end:
        yield f"'start' is {start} s and 'end' is {end} s: 'start' must be below 'end'.", True
        return
    timed = sum(medium.kind != "image" for medium in media_of(row))
    if timed != 1:
        yield f"'start' and 'end' keep a part of one video or sound, but the row has {timed}.", True
        return
    for time in _named_times(row):
        if not start * 1e6 - _SLACK_US <= time <= end * 1e6 + _SLACK_US:
            yield (
                f"the text names {format_time(time)}, outside of the part from {start} s to {end} s that is used.",
                False,
            )
            return


def _named_times(row: Mapping[str, Any]) -> list[int]:
    return [time for message in row["messages"] for time in parse_times(_text_of(message["content"]))]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12  # so no NaN, no inf


# ---------------------------------------------------------------------------------------------------------- validation


def validate_messages(
    path: str | os.PathLike, check_media: bool = False, progress: bool = False, max_problems: int = 1000
) -> Report:
    """Read a JSONL file of messages to its end and report every bad line.

    Args:
        check_media: open each medium's header: is it what its block says, is there something between `start` and
            `end`, does the text name times beyond its end. Otherwise only its presence is checked.
        progress: show a bar on standard error.
        max_problems: how many problems to keep; all are counted.

    Raises:
        DataError: there is no such file.
    """
    report = Report(os.fspath(path), media_seconds=0.0 if check_media else None)
    opened: dict[str, _Header | str] = {}
    folder = Path(path).parent
    with tqdm(_lines(path), desc="validate", unit=" rows", disable=not progress) as lines:
        for line, text in lines:
            report.rows += 1
            try:
                row = parse_json(text)
                problems = list(_row_problems(row))
            except ValueError as error:
                problems = [(str(error), True)]
            if not any(is_error for _, is_error in problems):
                row = _with_folder(row, folder)
                problems += _media_problems(row, opened if check_media else None)
            bad = any(is_error for _, is_error in problems)
            report.bad_rows += bad
            if not bad:
                report.turns += sum(message["role"] == "assistant" for message in row["messages"])
                for medium in media_of(row):
                    report.media[COLUMNS[medium.kind]] += 1
                    if check_media and medium.kind != "image":
                        report.media_seconds += _used_seconds(row, opened[_path_of(medium)])
            _note(report, [Problem(line, *problem) for problem in problems], max_problems)
    if not report.rows:
        _note(report, [Problem(1, "the file holds no rows.")], max_problems)
    return report


def _note(report: Report, problems: list[Problem], max_problems: int) -> None:
    errors = sum(problem.is_error for problem in problems)
    report.errors += errors
    report.warnings += len(problems) - errors
    kept = problems[: max(0, max_problems - len(report.problems))]
    report.problems += kept
    report.left_out += len(problems) - len(kept)


class _Header(NamedTuple):
    kind: str
    has_audio: bool
    duration: int  # microseconds


def _header(path: str) -> _Header | str:
    """What a file is, or in one line why it cannot be read."""
    try:
        with open_media(path) as media:
            return _Header(media.kind, media.has_audio, media.duration)
    except MediaError as error:
        return str(error)


def _path_of(medium: Medium) -> str:
    return medium.source["path"] if isinstance(medium.source, Mapping) else medium.source


def _used_seconds(row: Mapping[str, Any], header: _Header) -> float:
    end = header.duration / 1e6 if row.get("end") is None else min(row["end"], header.duration / 1e6)
    return max(0.0, end - (row.get("start") or 0))


def _media_problems(row: dict, opened: dict[str, _Header | str] | None) -> Iterator[tuple[str, bool]]:
    """Of the media's files: whether they are there, and with `opened`, a cache of headers, what they hold."""
    longest = 0
    for medium in media_of(row):
        kind, path = medium.kind, _path_of(medium)
        if not os.path.isfile(path):
            yield f"the {kind} {path} is not there; paths are relative to the folder of the JSONL file.", True
            continue
        if opened is None:
            continue
        if path not in opened:
            opened[path] = _header(path)
        header = opened[path]
        if isinstance(header, str):
            yield header, True
        elif kind == "image" and header.kind != "image":
            yield f"{path} stands in an image block, but is a {header.kind} file.", True
        elif kind == "audio" and not header.has_audio:
            yield f"{path} stands in an audio block, but has no sound.", True
        elif kind != "image":
            longest = max(longest, header.duration)
            yield from _part_problems(row, path, header.duration)
    late = max(_named_times(row), default=0) if longest else 0
    if late > longest + _SLACK_US:
        yield f"the text names {format_time(late)}, beyond the end of the medium at {format_time(longest)}.", False


def _part_problems(row: Mapping[str, Any], path: str, duration: int) -> Iterator[tuple[str, bool]]:
    start, end = row.get("start"), row.get("end")
    if start is not None and start * 1e6 >= duration:
        yield f"'start' is {start} s, but {path} is {duration / 1e6:.3f} s long.", True
    elif end is not None and end * 1e6 > duration + _SLACK_US:
        yield f"'end' is {end} s, but {path} is {duration / 1e6:.3f} s long: it ends there.", False
