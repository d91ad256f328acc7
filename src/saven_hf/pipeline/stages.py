"""A video through all stages, and where each stage's result is kept.

    work/<stage>/<video>.json      {"key": ..., "row": ...}, written whole or not at all
    work/failed/<video>.json       why a video is left out
    work/events/<task>.jsonl       what was done, for progress and rates

A result is used again if its key is that of what is asked: it stands for the file, the stage's settings and all
stages before it. So a run that was killed goes on with the next stage of each video, and another annotator begins
with the captions.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.hub_folder import media_reference
from ..files import written_whole
from ..savenvideo.media import Media, open_media
from ..savenvideo.media_errors import MediaError
from ..version import __version__
from .annotators import Annotator, open_annotator
from .annotators.base import model_files
from .caption import caption
from .check import check
from .errors import AnnotatorError, ServiceError
from .fuse import fuse
from .question import question
from .segment import MAX_CLIPS, MIN_CLIPS, MIN_FRAMES, ChangeDetector, ShotDetector, segment


logger = logging.getLogger(__name__)

STAGES = ("segment", "caption", "fuse", "question", "check")


@dataclass(frozen=True)
class Settings:
    """How rows are made.

    Attributes:
        annotator: name of an annotator.
        options: of it.
        detector: "change", or a folder of a shot detection model (`saven convert autoshot`).
        min_frames, max_clips, min_clips: of `segment`.
        transcriber: a speech recognition model (folder or Hub id); None writes down no speech.
    """

    annotator: str = "signal"
    options: dict[str, Any] = field(default_factory=dict)
    detector: str = "change"
    min_frames: int = MIN_FRAMES
    max_clips: int = MAX_CLIPS
    min_clips: int = MIN_CLIPS
    transcriber: str | None = None


@dataclass(frozen=True)
class VideoTask:
    """A video to work on.

    Attributes:
        video_id: in the dataset.
        path: of the file.
        name: of the file, below the folder of media.
        origin, start, end: where it came from, and which part of that it is; see `data.schema.Media`.
    """

    video_id: str
    path: str
    name: str
    origin: str | None = None
    start: float | None = None
    end: float | None = None


class Work:
    """The folder of stage results.

    Args:
        folder: created where it does not exist.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        for name in (*STAGES, "failed", "events"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def clear_partial(self) -> None:
        """Remove what killed runs left half-written."""
        for stale in list(self.folder.rglob("*.partial")):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                stale.unlink(missing_ok=True)

    def read(self, stage: str, video_id: str, key: str | None = None) -> dict | None:
        """A stage's row, if it is there and made as asked (or however, without a key)."""
        try:
            stored = json.loads((self.folder / stage / f"{video_id}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return stored["row"] if key in (None, stored["key"]) else None

    def write(self, stage: str, video_id: str, key: str, row: dict) -> dict:
        """Store a row; what is given back is what a later run reads.

        Raises:
            ServiceError: it cannot be written, which is no fault of the video.
        """
        text = json.dumps({"key": key, "row": row}, ensure_ascii=False, allow_nan=False)
        try:
            with written_whole(self.folder / stage / f"{video_id}.json") as partial:
                Path(partial).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ServiceError(
                f"The result of {video_id} cannot be stored ({error.strerror}). See to the disk, and that no other "
                "build writes to this folder, and start the build again: what is done is kept."
            ) from error
        return json.loads(text)["row"]

    def forget(self, stage: str, video_id: str) -> None:
        (self.folder / stage / f"{video_id}.json").unlink(missing_ok=True)

    def has(self, stage: str, video_id: str) -> bool:
        return (self.folder / stage / f"{video_id}.json").is_file()

    def log(self, task: int) -> Callable[..., None]:
        """A function that appends an event to the log of a task."""
        path = self.folder / "events" / f"{task:05d}.jsonl"
        lock = threading.Lock()

        def append(**event: Any) -> None:
            line = json.dumps(event) + "\n"
            with lock, open(path, "a", encoding="utf-8") as file:
                file.write(line)

        return append


class Worker:
    """Runs the stages on videos: what one process needs, opened once.

    Args:
        settings: how rows are made.
        work: where stage results are kept.
        task: number of the task, for its log.
        annotator: already opened; by default the one that the settings name.
    """

    def __init__(self, settings: Settings, work: Work, task: int = 0, annotator: Annotator | None = None):
        self.settings, self.work = settings, work
        self.annotator = annotator or open_annotator(settings.annotator, **settings.options)
        self.detector = open_detector(settings.detector)
        self.transcriber = None
        if settings.transcriber is not None:
            from .transcribe import open_transcriber

            self.transcriber = open_transcriber(settings.transcriber)
        self._log = work.log(task)
        self._keys = self._stage_keys()

    def _stage_keys(self) -> dict[str, str]:
        """What decides each stage's result, beside the file and the stages before it."""
        chosen = asdict(self.settings)
        annotated = self.annotator.settings
        of_stage = {
            "segment": {"detector": self.detector.name, "files": model_files(chosen["detector"])}
            | {name: chosen[name] for name in ("min_frames", "max_clips", "min_clips")},
            "caption": annotated
            | {"transcriber": chosen["transcriber"], "heard_by": model_files(chosen["transcriber"] or "")},
            **dict.fromkeys(("fuse", "question", "check"), annotated),
        }
        return {stage: json.dumps([stage, __version__, of_stage[stage]], sort_keys=True) for stage in STAGES}

    def run(self, tasks: list[VideoTask]) -> Iterator[str]:
        """Work on videos, several side by side where the annotator mostly waits; yields each id when it is done.

        Raises:
            ServiceError: a service that all videos need does not answer, or the disk is full; what is done is kept.
        """
        if self.annotator.videos_at_once == 1:
            for task in tasks:
                self.run_video(task)
                yield task.video_id
            return
        with ThreadPoolExecutor(self.annotator.videos_at_once) as pool:
            done = pool.map(self.run_video, tasks)
            try:
                for task, _ in zip(tasks, done, strict=True):
                    yield task.video_id
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def log_usage(self) -> None:
        """Write into the task's log what the annotator spent."""
        used = self.annotator.usage()
        if used:
            self._log(usage=used)

    def run_video(self, task: VideoTask) -> dict | None:
        """All stages of a video that are not done yet.

        Returns:
            Its row; None if it was put aside, with the reason in `work/failed`.
        """
        stage = STAGES[0]
        media: Media | None = None
        try:
            status = os.stat(task.path)
            came_from = [task.origin, task.start, task.end]
            key = json.dumps([task.name, status.st_size, status.st_mtime_ns, *came_from])
            row: dict = {}
            for stage in STAGES:
                key = hashlib.sha256(f"{key}\n{self._keys[stage]}".encode()).hexdigest()
                started = time.perf_counter()
                kept = self.work.read(stage, task.video_id, key)
                if kept is not None:
                    row = kept
                    self._log(stage=stage, video=task.video_id, seconds=0.0, kept=True)
                    continue
                if media is None and stage in ("segment", "caption", "check"):
                    media = open_media(task.path)
                row = self.work.write(stage, task.video_id, key, self._run_stage(stage, task, row, media))
                seconds = time.perf_counter() - started
                self._log(stage=stage, video=task.video_id, seconds=round(seconds, 4), kept=False)
            self.work.forget("failed", task.video_id)
            return row
        except ServiceError:
            raise
        except Exception as error:
            if not isinstance(error, (MediaError, AnnotatorError, OSError)):
                logger.exception("%s: stage %s", task.video_id, stage)
            reason = {"video_id": task.video_id, "file": task.name, "stage": stage, "error": type(error).__name__,
                      "reason": " ".join(str(error).split()).replace(task.path, task.name)}  # fmt: skip
            self.work.write("failed", task.video_id, "", reason)
            self.work.forget("check", task.video_id)
            self._log(stage=stage, video=task.video_id, failed=True)
            return None
        finally:
            if media is not None:
                media.close()

    def _run_stage(self, stage: str, task: VideoTask, row: dict, media: Media | None) -> dict:
        if stage == "segment":
            if media.kind != "video":
                raise MediaError(f"{task.name}: it is {media.kind}, not video; leave it out.")
            settings = self.settings
            row = describe(task, media)
            return segment(row, media, self.detector, settings.min_frames, settings.max_clips, settings.min_clips)
        if stage == "caption":
            return caption(row, media, self.annotator, self.transcriber)
        if stage == "fuse":
            return fuse(row, self.annotator)
        if stage == "question":
            return question(row, self.annotator)
        return check(row, media, self.annotator)


def describe(task: VideoTask, media: Media) -> dict:
    """The row of a video before any stage: what its file holds."""
    reference = media_reference(task.path, origin=task.origin, start=task.start, end=task.end)
    return {
        "video_id": task.video_id,
        "media": {**reference, "file": task.name},
        "duration": media.duration / 1e6,
        "has_audio": media.has_audio,
        "width": media.width,
        "height": media.height,
        "frames": media.num_frames,
        "codecs": [media.video_codec, media.audio_codec],
    }


def open_detector(name: str) -> ShotDetector:
    """A shot detector: "change", or a folder of a model.

    Raises:
        AnnotatorError: there is no such folder.
    """
    if name == "change":
        return ChangeDetector()
    if not os.path.isdir(name):
        raise AnnotatorError(
            f"There is no shot detector {name!r}: 'change', or a folder written by `saven convert autoshot`."
        )
    from .autoshot import AutoShotDetector

    return AutoShotDetector(name)
