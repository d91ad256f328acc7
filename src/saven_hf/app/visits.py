"""What a visitor opened and asked: the file, what is kept of it, the conversation. Removed when the visitor leaves."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..ask import Answer, Fed, QuestionError
from ..peers.auto import PeerError
from ..savenvideo.media import Media, open_media
from ..savenvideo.media_errors import MediaError
from ..savenvideo.times import parse_spans
from ..version import __version__
from . import AppError, Settings
from .axis import axis_html, rows_html
from .engine import Ask, Encoded, Said
from .examples import EXAMPLES, Example, example_file, is_right
from .words import NAMES


# What a visitor is told as it stands; anything else is an error of ours.
MENDABLE = (MediaError, QuestionError, PeerError, AppError)


@dataclass
class Column:
    """One answer of a turn.

    Attributes:
        without: what the model was not given: "sound", "picture", "time"; "" for the answer with everything.
        text: the answer as far as it has come.
        spans: times that it speaks of, in seconds.
        fed: what the model was given; None until the answer is complete.
        right: whether it is right, where that is known.
    """

    without: str = ""
    text: str = ""
    spans: list[list[float]] = field(default_factory=list)
    fed: Fed | None = None
    right: bool | None = None


@dataclass
class Turn:
    """A question, and one answer for each way of asking it, side by side.

    Attributes:
        asked: times that the question names, in seconds.
        truth: the known answer, in words; true: when it happens, in seconds.
        stopped: whether it was ended before all was answered; what had come of it stays.
    """

    question: str
    columns: list[Column]
    asked: list[list[float]] = field(default_factory=list)
    truth: str | None = None
    true: list[list[float]] = field(default_factory=list)
    stopped: bool = False

    @property
    def done(self) -> bool:
        return self.stopped or all(column.fed is not None for column in self.columns)

    def as_json(self) -> dict[str, Any]:
        answers = [
            {
                "without": column.without or None,
                "answer": column.text,
                "spans": column.spans,
                "right": column.right,
                "fed": None if column.fed is None else asdict(column.fed),
            }
            for column in self.columns
        ]
        return {
            "question": self.question,
            "asked": self.asked,
            "known_answer": self.truth,
            "stopped": self.stopped,
            "answers": answers,
        }


class Look(NamedTuple):
    """What opening a file shows of it: its length, what it has, and its time axis as HTML."""

    seconds: float
    picture: bool
    sound: bool
    axis: str


def _look(media: Media) -> Look:
    return Look(media.duration / 1e6, media.has_video, media.has_audio, axis_html(media))


@lru_cache(maxsize=len(EXAMPLES))
def look_at_example(path: Path) -> Look:
    """As for a visitor's file, once for all visitors."""
    with open_media(path) as media:
        return _look(media)


class Visit:
    """One visitor.

    Args:
        folder: for the visitor's files; removed by `close`.
        settings: the limits of the page.

    Attributes:
        video: the file that was opened, None before.
        name, seconds, has_picture, has_sound: of it.
        axis: its time axis, as HTML.
        example: the example that it is; None for a visitor's own.
        encoded: what is kept of it, by what the model was not given.
        turns: the conversation.
    """

    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings = folder, settings
        self.used = time.monotonic()
        self._forget()

    def _forget(self) -> None:
        self.video: Path | None = None
        self.name, self.seconds, self.axis = "", 0.0, ""
        self.has_picture = self.has_sound = False
        self.example: Example | None = None
        self.encoded: dict[str, Encoded] = {}
        self.turns: list[Turn] = []

    def open_upload(self, path: str | os.PathLike) -> None:
        """Open a visitor's own file; what was open before is removed. A refused file changes nothing.

        Raises:
            MediaError, AppError: it cannot be read, is no video or sound, or passes the limits.
        """
        source = Path(path)
        megabytes = source.stat().st_size / 1e6
        if megabytes > self.settings.max_megabytes:
            raise AppError(
                f"{source.name} has {megabytes:.0f} MB, and up to {self.settings.max_megabytes} MB are taken: cut it "
                "or scale it down."
            )
        found = self._look(source, source.name)
        kept = Path(tempfile.mkdtemp(dir=self.folder)) / f"video{source.suffix.lower()}"
        try:
            os.link(source, kept)
        except OSError:  # another file system
            shutil.copyfile(source, kept)
        self._take(kept, source.name, found, None)

    def open_example(self, example: Example, folder: Path) -> None:
        """Open an example; `folder` is where examples are kept for all visitors."""
        path = example_file(example, folder)
        self._take(path, example.title, look_at_example(path), example)

    def _look(self, path: Path, name: str) -> Look:
        try:
            with open_media(path) as media:
                if media.kind == "image":
                    raise AppError(f"{name} is an image: upload a video or a sound.")
                seconds, longest = media.duration / 1e6, self.settings.max_seconds
                if seconds > longest:
                    raise AppError(f"{name} lasts {seconds:.0f} s, and up to {longest} s are taken: upload a part.")
                return _look(media)
        except MediaError as error:
            # Visitors know the file by its name; where it lies here is not their business.
            raise type(error)(str(error).replace(str(path), name)) from error

    def _take(self, path: Path, name: str, found: Look, example: Example | None) -> None:
        self._remove_file()
        self._forget()
        self.video, self.name, self.example = path, name, example
        self.seconds, self.axis = found.seconds, found.axis
        self.has_picture, self.has_sound = found.picture, found.sound

    def ask(
        self,
        question: str,
        off: Sequence[str],
        answer: Callable[[Ask], Iterator[str | Said]],
    ) -> Iterator[Turn]:
        """Ask once with everything, and once without each part that is switched off.

        Args:
            off: of "sound", "picture", "time".
            answer: what answers, see `engine.answer`.

        Yields:
            The turn, again with every piece of an answer. An error takes it out of the conversation; `stop`, or
            closing the iterator, ends it as far as it has come.

        Raises:
            MediaError, QuestionError, PeerError, AppError: something the visitor can mend.
        """
        if self.video is None:
            raise AppError("There is no video yet: pick an example, or upload one.")
        question = question.strip()
        if not question:
            raise AppError("The question is empty: write one, or take one of the suggestions.")
        for part, has, other in (("sound", self.has_picture, "picture"), ("picture", self.has_sound, "sound")):
            if part in off and not has:
                raise AppError(f"{self.name} has no {other}, so nothing is left without its {part}: switch it on.")
        self.used = time.monotonic()
        turn = Turn(question, [Column(without) for without in ("", *off)], asked=_seconds(parse_spans(question)))
        known = self.example.question(question) if self.example else None
        if known is not None:
            turn.truth, turn.true = known.answer_text, _seconds(known.evidence)
        self.turns.append(turn)
        try:
            yield turn
            for column in turn.columns:
                encoded = self.encoded.get(column.without)
                ask = Ask(str(self.video), question, column.without, encoded, self.settings.max_new_tokens)
                for piece in answer(ask):
                    if turn.stopped:
                        return
                    if isinstance(piece, Said):
                        self._finish(column, piece.answer, piece.fed)
                        if piece.encoded is not None:
                            self.encoded[column.without] = piece.encoded
                        if known is not None:
                            column.right = is_right(known, column.text)
                    else:
                        column.text += piece
                    yield turn
        except Exception:
            if turn in self.turns:
                self.turns.remove(turn)
            raise
        finally:
            if not turn.done:
                turn.stopped = True
            self.used = time.monotonic()

    def stop(self) -> None:
        """End the turn that is being answered, if there is one."""
        if self.turns and not self.turns[-1].done:
            self.turns[-1].stopped = True

    @staticmethod
    def _finish(column: Column, answer: Answer, fed: Fed) -> None:
        column.text, column.spans, column.fed = answer.answer, answer.spans, fed

    def rows(self) -> str:
        """What was fed and spoken of, for below the axis."""
        if not self.turns:
            return ""
        everything = self.encoded.get("", Encoded(None))
        frames = everything.frame_times
        if not frames and self.turns[-1].columns[0].fed is not None:
            frames = self.turns[-1].columns[0].fed.frame_times
        spans = []
        for number, turn in enumerate(self.turns, 1):
            spans.append((f"{number}. asked about", "asked", turn.asked))
            for column in turn.columns:
                named = f", {NAMES[column.without]}" if len(turn.columns) > 1 else ""
                spans.append((f"{number}. answered{named}", "answered", column.spans))
            if turn.truth is not None:
                spans.append((f"{number}. true", "true", turn.true))
        return rows_html(self.seconds, frames, everything.sound_windows, spans)

    def as_json(self, model: str) -> dict[str, Any]:
        """The conversation with its spans (seconds), for programs."""
        return {
            "saven_hf": __version__,
            "model": model,
            "video": {"name": self.name, "seconds": self.seconds},
            "turns": [turn.as_json() for turn in self.turns if turn.done],
        }

    def write_json(self, model: str) -> str:
        """The conversation as a file; its path."""
        path = self.folder / "conversation.json"
        path.write_text(json.dumps(self.as_json(model), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return str(path)

    def plain(self, error: Exception) -> str:
        """The message of a `MENDABLE` error with the name that the visitor knows in place of the server's path."""
        text = str(error)
        if self.video is not None:
            text = text.replace(str(self.video), self.name)
        return text

    def _remove_file(self) -> None:
        """Remove a visitor's own file; examples stay for others."""
        if self.video is not None and self.example is None:
            shutil.rmtree(self.video.parent)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # an answer that still runs may hold a file of it open
        self._forget()


class Visits:
    """All visitors of a page, by session; whoever is idle for long is forgotten.

    Args:
        folder: where visitors' files lie.

    Attributes:
        examples: folder of the examples, for all of them.
    """

    def __init__(self, folder: Path, settings: Settings):
        self.folder, self.settings = folder, settings
        self.examples = folder / "examples"
        self._lock = threading.Lock()
        self._visits: dict[str, Visit] = {}

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, session: str) -> Visit:
        """The visit of a session; a new one if there is none."""
        self.forget_idle()
        with self._lock:
            if session not in self._visits:
                self._visits[session] = Visit(Path(tempfile.mkdtemp(prefix="visit-", dir=self.folder)), self.settings)
            visit = self._visits[session]
            visit.used = time.monotonic()
            return visit

    def close(self, session: str) -> None:
        """A visitor left."""
        with self._lock:
            visit = self._visits.pop(session, None)
        if visit is not None:
            visit.close()

    def forget_idle(self) -> None:
        """Remove what those opened who have asked nothing for long."""
        oldest = time.monotonic() - self.settings.idle_seconds
        with self._lock:
            idle = [session for session, visit in self._visits.items() if visit.used < oldest]
        for session in idle:
            self.close(session)


def _seconds(spans: Sequence[tuple[int, int]]) -> list[list[float]]:
    return [[start / 1e6, end / 1e6] for start, end in spans]
