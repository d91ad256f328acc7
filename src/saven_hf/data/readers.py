"""Readers: published datasets, as they are downloaded, to rows of messages.

    reader = open_reader("audiocaps", annotations="audiocaps/train.csv", media="audiocaps/wav", missing="skip")
    for row in reader:  # as the file is read; see `messages` for what a row is
        ...
    reader.counts  # rows, and what was left out and why

No dataset comes with its media, and every download tool names files its own way, so names are templates below the
folder `media`: "{id}_{start_s:06d}.*". A template in `cut` finds files that hold just the segment which is described,
one in `whole` finds the whole video, of which a row then uses the segment (`start`, `end`). Fields of templates:

    id            of the video, image or sound
    name          what else the dataset calls it: LCS-558K's path, AudioCaps' audiocap_id, Auto-ACD's youtube_id with
                  its Y or start, VideoInstruct100K's id without "v_"
    index, shard  number of the row in the annotation file, from 0; index // 100 (shards of Panda-70M's downloader)
    clip          number of the segment in its row, from 0
    start, end    of the segment, as the dataset writes them
    start_s, end_s, start_ms, end_ms    the same as whole seconds and as milliseconds
    .*            at the end: the first that is there of the suffixes of the dataset's kind
"""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import string
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..savenvideo.times import format_time
from . import annotations as published
from .annotations import Annotation, Segment
from .messages import COLUMNS, DataError, MissingMediaError, check_row


logger = logging.getLogger(__name__)

_VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
_SUFFIXES = {
    "video": _VIDEO_SUFFIXES,
    "audio": (".wav", ".flac", ".mp3", ".m4a", ".opus", ".ogg", *_VIDEO_SUFFIXES),
    "image": (".jpg", ".jpeg", ".png", ".webp"),
}

# Instructions of our own: (about a medium that shows nothing else, about a span of a longer one).
_LOOKED_AT = (("Describe the image in one sentence.", "What does this image show?"), ())
_SEEN = (
    (
        "Describe the video in one sentence.",
        "What does this video show?",
        "What happens in the video?",
        "Sum up what is seen in the video.",
        "Write a short caption for this video.",
    ),
    (
        "What is shown {span}?",
        "What happens {span}?",
        "Describe in one sentence what is seen {span}.",
        "Sum up the part {span}.",
        "Write a short caption for the part {span}.",
    ),
)
_HEARD = (
    (
        "Describe the sound in one sentence.",
        "What is heard?",
        "What can be heard in this recording?",
        "Sum up what you hear.",
        "Write a short caption for this sound.",
    ),
    (
        "What is heard {span}?",
        "What can be heard {span}?",
        "Describe in one sentence what is heard {span}.",
        "Sum up what you hear {span}.",
    ),
)
_SOUND_EVENTS = (
    (
        "Which sounds are heard? Name them, separated by semicolons.",
        "List the kinds of sound in this recording, separated by semicolons.",
        "Name every sound event that is heard, separated by semicolons.",
    ),
    (
        "Which sounds are heard {span}? Name them, separated by semicolons.",
        "List the kinds of sound {span}, separated by semicolons.",
        "Name every sound event that is heard {span}, separated by semicolons.",
    ),
)
_EVENT = (
    (
        "What is seen and heard in the video? Answer with a short phrase.",
        "Which event is both seen and heard? Name it in a few words.",
        "Name in a few words what makes the sound in this video.",
    ),
    (
        "What is seen and heard {span}? Answer with a short phrase.",
        "Which event is both seen and heard {span}? Name it in a few words.",
        "Name in a few words what makes the sound {span}.",
    ),
)


@dataclass(frozen=True)
class Reader:
    """How a published dataset becomes rows.

    Attributes:
        title: for people.
        stage: of training that the paper uses it in.
        kind: of the block that holds the medium. "audio" takes the sound alone, also of a video file.
        read: function of `annotations` that reads the published file.
        instructions: wordings about the medium, and about a span of it; not used where the dataset brings questions.
        cut, whole: default templates of files. A dataset that describes whole media has no `cut`.
        times: by default, ask about spans of whole videos instead of showing these spans alone.
    """

    title: str
    stage: str
    kind: str
    read: Callable[..., published.Annotations]
    instructions: tuple[Sequence[str], Sequence[str]]
    cut: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    times: bool = False

    def __call__(self, annotations: str | os.PathLike, media: str | os.PathLike, **options) -> AnnotatedMedia:
        """Rows of the dataset; see `AnnotatedMedia` for the options."""
        return AnnotatedMedia(self, annotations, media, **options)


READERS: dict[str, Reader] = {
    "lcs558k": Reader("LCS-558K", "align-visual", "image", published.lcs558k, _LOOKED_AT, whole=("{name}",)),
    "panda70m": Reader(
        "Panda-70M",
        "align-visual",
        "video",
        published.panda70m,
        _SEEN,
        cut=("{id}_{clip}.*", "{id}_{clip:05d}.*", "{shard:05d}/{index:07d}_{clip:05d}.*"),
        whole=("{id}.*",),
    ),
    "audioset": Reader(
        "AudioSet",
        "align-audio",
        "audio",
        published.audioset,
        _SOUND_EVENTS,
        cut=("{id}_{start_s}_{end_s}.*", "{id}_{start_s}-{end_s}.*", "{id}_{start_ms}_{end_ms}.*", "Y{id}.*"),
        whole=("{id}.*",),
    ),
    "audiocaps": Reader(
        "AudioCaps",
        "align-audio",
        "audio",
        published.audiocaps,
        _HEARD,
        cut=("{name}.*", "{id}_{start_s}.*", "{id}_{start_s:06d}.*", "Y{id}.*"),
        whole=("{id}.*",),
    ),
    "autoacd": Reader(
        "Auto-ACD", "align-audio", "audio", published.autoacd, _HEARD, cut=("{name}.*",), whole=("{id}.*",)
    ),
    "videoinstruct100k": Reader(
        "VideoInstruct100K", "temporal", "video", published.videoinstruct100k, _SEEN, whole=("{id}.*", "{name}.*")
    ),
    "internvid": Reader(
        "InternVid",
        "temporal",
        "video",
        published.internvid,
        _SEEN,
        cut=("{id}_{start}_{end}.*",),
        whole=("{id}.*",),
        times=True,
    ),
    "vggsound": Reader(
        "VGGSound",
        "temporal",
        "video",
        published.vggsound,
        _EVENT,
        cut=("{id}_{start_s:06d}.*", "{id}_{start_s}_{end_s}.*", "{id}_{start_ms}_{end_ms}.*"),
        whole=("{id}.*",),
    ),
}


def open_reader(reader: str, annotations: str | os.PathLike, media: str | os.PathLike, **options) -> AnnotatedMedia:
    """Rows of a published dataset, as recipes name it: `{"reader": ..., "annotations": ..., "media": ..., ...}`.

    Args:
        reader: key of `READERS`.
        annotations: the published file.
        media: folder of the media.
        options: of `AnnotatedMedia`, and those of the dataset's own function in `annotations`.

    Raises:
        DataError: no such reader, option, file or folder.
    """
    if reader not in READERS:
        near = difflib.get_close_matches(reader.lower(), READERS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(READERS)}."
        raise DataError(f"there is no reader {reader!r}: {hint}")
    return READERS[reader](annotations, media, **options)


class AnnotatedMedia:
    """Rows of messages of a published dataset; iterating reads the annotation file from its beginning.

    Args:
        reader: one of `READERS`.
        annotations: the published file.
        media: folder of the media.
        cut, whole: templates of file names in place of the reader's own; giving one of the two turns the other off.
        times: name the times of a segment in the question and show the whole video, several segments of which become
            one conversation. Where only files that are cut are found, the question names no times.
        missing: "error" raises `MissingMediaError` where a medium is not found, "skip" leaves the segment out.
        bad_rows: "error" raises `DataError` where a row is not of the published form, "skip" leaves it out.
        min_score: leave out segments whose text matches worse (Panda-70M's `matching_score`, InternVid's `UMT_Score`).
        turns: most segments in one conversation; more make several rows.
        options: of the function that reads the dataset's annotations.

    Attributes:
        counts: of the last iteration: `rows`, and what was left out: `missing` and `low_score` segments, `bad_rows`.
            What was left out is also logged when the iteration ends.

    Raises:
        DataError: bad arguments; while iterating, also for bad rows, and where not a single row could be made.
    """

    def __init__(
        self,
        reader: Reader,
        annotations: str | os.PathLike,
        media: str | os.PathLike,
        *,
        cut: str | Sequence[str] | None = None,
        whole: str | Sequence[str] | None = None,
        times: bool | None = None,
        missing: str = "error",
        bad_rows: str = "error",
        min_score: float | None = None,
        turns: int = 8,
        **options,
    ):
        self.reader, self.annotations, self.media = reader, Path(annotations), Path(media)
        if cut is None and whole is None:
            cut, whole = reader.cut, reader.whole
        self.cut, self.whole = _templates(cut), _templates(whole)
        self.times = reader.times if times is None else times
        self.missing, self.bad_rows, self.min_score, self.turns = missing, bad_rows, min_score, turns
        self.options = options
        self.counts: Counter[str] = Counter()
        self._files = _Files(self.media)

        known = list(inspect.signature(reader.read).parameters)[1:]
        for option in options:
            if option not in known:
                known += ["cut", "whole", "times", "missing", "bad_rows", "min_score", "turns"]
                raise DataError(f"{reader.title} has no option {option!r}: there are {', '.join(known)}.")
        for name, value in (("missing", missing), ("bad_rows", bad_rows)):
            if value not in ("error", "skip"):
                raise DataError(f"{name} is {value!r}: it must be 'error' or 'skip'.")
        if self.times and not reader.cut:
            raise DataError(f"{reader.title} describes whole media: there are no times that a question could name.")
        if turns < 1:
            raise DataError(f"turns is {turns}: a conversation has at least one.")
        if not self.annotations.is_file():
            raise DataError("there is no such file: download the dataset's annotations first.", self.annotations)
        if not self.media.is_dir():
            raise DataError("there is no such folder of media.", self.media)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.counts, self._files = Counter(), _Files(self.media)
        try:
            for index, (line, annotation) in enumerate(self.reader.read(self.annotations, **self.options)):
                try:
                    if isinstance(annotation, ValueError):
                        raise annotation
                    rows = list(self._rows(annotation, index))
                    for row in rows:
                        check_row(row)
                except MissingMediaError as error:
                    raise MissingMediaError(error.problem, self.annotations, line) from None
                except ValueError as error:
                    if self.bad_rows == "error":
                        problem = error.problem if isinstance(error, DataError) else f"{error}."
                        hint = "Mend it, or pass bad_rows='skip' to leave such rows out."
                        raise DataError(f"{problem} {hint}", self.annotations, line) from None
                    self.counts["bad_rows"] += 1
                    continue
                self.counts["rows"] += len(rows)
                yield from rows
            if not self.counts["rows"]:
                left_out = self._left_out()
                why = f"left out were {left_out}: see `cut`, `whole`" if left_out else "it is empty"
                raise DataError(f"not a single row could be made of it; {why}.", self.annotations)
        finally:
            if self._left_out():
                logger.warning(f"{self.annotations}: {self.counts['rows']} rows; left out were {self._left_out()}.")

    def _left_out(self) -> str:
        words = {
            "missing": "segments whose media are missing",
            "bad_rows": "bad rows",
            "low_score": f"segments that score below {self.min_score}",
        }
        return ", ".join(f"{self.counts[name]} {what}" for name, what in words.items() if self.counts[name])

    # ----------------------------------------------------------------------------------------------------------- rows

    def _rows(self, annotation: Annotation, index: int) -> Iterator[dict[str, Any]]:
        fields = _fields(annotation, index)
        segments = [one for one in enumerate(annotation.segments) if self._scores_enough(one[1])]
        self.counts["low_score"] += len(annotation.segments) - len(segments)
        if not self.reader.cut:  # of whole media, in as many turns as there are
            path = self._find(self.whole, fields)
            if path is None:
                self._miss(fields, len(segments))
            else:
                yield self._row(path, index, segments)
            return
        if self.times:
            asked = [(clip, segment) for clip, segment in segments if segment.start is not None]
            path = self._find(self.whole, fields) if asked else None
            if path is not None:
                for first in range(0, len(asked), self.turns):
                    yield self._row(path, index, asked[first : first + self.turns], names_times=True)
                segments = [(clip, segment) for clip, segment in segments if segment.start is None]
        for clip, segment in segments:
            yield from self._segment_row(fields | _segment_fields(segment, clip), index, clip, segment)

    def _scores_enough(self, segment: Segment) -> bool:
        if self.min_score is None:
            return True
        if segment.score is None:
            raise ValueError("there is no score that `min_score` could be compared with")
        return segment.score >= self.min_score

    def _segment_row(self, fields: Mapping, index: int, clip: int, segment: Segment) -> Iterator[dict[str, Any]]:
        """The row of a segment that is shown alone, from a file of its own or as a part of the whole one."""
        path = self._find(self.cut, fields)
        if path is not None:
            _check_caption_file(path, segment)
            yield self._row(path, index, [(clip, segment)])
            return
        path = self._find(self.whole, fields) if segment.start is not None else None
        if path is not None:
            yield {**self._row(path, index, [(clip, segment)]), "start": segment.start, "end": segment.end}
        else:
            self._miss(fields, 1)

    def _row(
        self, path: str, index: int, segments: list[tuple[int, Segment]], names_times: bool = False
    ) -> dict[str, Any]:
        messages = []
        for clip, segment in segments:
            question = segment.question or self._instruction(f"{index} {clip}", segment if names_times else None)
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": segment.answer}]
        first = {"type": "text", "text": messages[0]["content"]}
        messages[0] = {"role": "user", "content": [{"type": self.reader.kind}, first]}
        return {
            "messages": messages,
            COLUMNS[self.reader.kind]: [path],
            "id": f"{index}-{segments[0][0]}",
            "source": self.reader.title,
        }

    def _instruction(self, key: str, segment: Segment | None) -> str:
        """One of the wordings; which one follows from the row alone, not from the order of reading."""
        alone, of_span = self.reader.instructions
        wordings = alone if segment is None else of_span
        wording = wordings[zlib.crc32(f"{self.reader.title} {key}".encode()) % len(wordings)]
        if segment is None:
            return wording
        start, end = (format_time(round(time * 1e6)) for time in (segment.start, segment.end))
        return wording.format(span=f"from {start} to {end}")

    # ---------------------------------------------------------------------------------------------------------- files

    def _find(self, templates: Sequence[str], fields: Mapping[str, Any]) -> str | None:
        found = next((name for name in self._names(templates, fields) if name in self._files), None)
        return None if found is None else os.path.join(self.media, found)

    def _names(self, templates: Sequence[str], fields: Mapping[str, Any]) -> Iterator[str]:
        for template in templates:
            if any(name not in fields for name in _fields_of(template)):
                continue  # this segment's start is not known
            name = template.format_map(fields)
            if name.endswith(".*"):
                yield from (name[:-2] + suffix for suffix in _SUFFIXES[self.reader.kind])
            else:
                yield name

    def _miss(self, fields: Mapping[str, Any], segments: int) -> None:
        if self.missing == "skip":
            self.counts["missing"] += segments
            return
        templates = [*self.cut, *self.whole]
        names = ", ".join(template.format_map(_Readable(fields)) for template in templates)
        raise MissingMediaError(
            f"none of {names} is in {self.media}: fetch it, say with `cut` or `whole` how files are named, or pass "
            "missing='skip'."
        )


class _Files:
    """Files below a folder, by name. Each folder is listed once: to ask for dozens of names a row takes far longer."""

    def __init__(self, root: Path):
        self._root, self._listed = root, {}

    def __contains__(self, name: str) -> bool:
        folder, _, file = name.rpartition("/")
        if folder not in self._listed:
            self._listed[folder] = self._list(folder)
        return file in self._listed[folder]

    def _list(self, folder: str) -> frozenset[str]:
        try:
            with os.scandir(self._root / folder) as entries:
                return frozenset(entry.name for entry in entries if entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()


class _Readable(dict):
    """Fields for a message: one that is not known stays as it is called."""

    def __missing__(self, name: str) -> str:
        return name


def _templates(templates: str | Sequence[str] | None) -> tuple[str, ...]:
    templates = (templates,) if isinstance(templates, str) else tuple(templates or ())
    sample = _fields(Annotation("id", (), "name"), 0) | _segment_fields(Segment("", None, 0.0, 1.0, "0", "1"), 0)
    for template in templates:
        try:
            unknown = [name for name in _fields_of(template) if name not in sample]
            if unknown:
                raise DataError(f"there is no field {unknown[0]!r}, of {template!r}: there are {', '.join(sample)}.")
            template.format_map(sample)
        except (ValueError, AttributeError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{template!r} is no template of a file name: {error}.") from None
    return templates


def _fields_of(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def _fields(annotation: Annotation, index: int) -> dict[str, Any]:
    for name in (annotation.id, annotation.name):
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise ValueError(f"{name!r} leads out of the folder of media")
    return {"id": annotation.id, "name": annotation.name, "index": index, "shard": index // 100}


def _segment_fields(segment: Segment, clip: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"clip": clip}
    if segment.start is not None:
        for name, time, text in (
            ("start", segment.start, segment.start_text),
            ("end", segment.end, segment.end_text),
        ):
            fields |= {name: text, f"{name}_s": int(time), f"{name}_ms": round(time * 1000)}
    return fields


def _check_caption_file(path: str, segment: Segment) -> None:
    """video2dataset names files by numbers and writes the caption beside each: is this the clip that is meant?"""
    beside = Path(path).with_suffix(".txt")
    if beside.is_file():
        caption = " ".join(beside.read_text(encoding="utf-8", errors="replace").split())
        if caption != segment.answer:
            raise ValueError(
                f"the caption in {beside} is another one: these files were not downloaded from this annotation file"
            )
