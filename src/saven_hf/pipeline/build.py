"""`saven build`: videos in, a dataset out.

build_dataset(["videos/"], "mine")            # and load_dataset("mine", "qa"), "captions", "videos", "sft"

    README.md, data/<config>/...parquet       the dataset
    report.html                               what is in it, with pictures
    quarantine.jsonl                          videos that were left out, and why
    fingerprints.jsonl                        of each video, to find the same one in other datasets
    work/                                     results of each stage; a run that was stopped goes on from them
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ..data.hub_folder import Card, write_card, write_split
from ..data.instructions import InstructionMaker
from ..data.schema import import_datasets, validate_segments
from ..files import written_whole
from ..savenvideo.media import open_media
from ..savenvideo.media_errors import MediaError
from ..version import __version__
from .annotators import open_annotator
from .check import balance_letters, mark_duplicates
from .errors import PipelineError
from .executors import EXECUTORS, run_tasks, write_plan
from .measure import picture_hash, sound_hash
from .progress import Progress
from .report import write_report
from .stages import STAGES, Settings, VideoTask, Work, open_detector


logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".ts", ".mpg", ".mpeg", ".flv")
_EMBED_BYTES = 100_000_000  # larger videos are given by reference
_FILES = ("README.md", "report.html", "quarantine.jsonl", "fingerprints.jsonl")


def find_videos(sources: Sequence[str | os.PathLike | VideoTask]) -> list[VideoTask]:
    """Videos to work on, in the order of their ids: files as they are, folders with all that is below them.

    An id is the file's name without its suffix, with the folder in front where two would be the same. Names of files
    in a folder count from that folder; those of files given one by one from the folder that holds them all.

    Args:
        sources: files, folders, and what `read_list` gave, which keeps its ids and names.

    Raises:
        PipelineError: a source that is not there, not a single video, or two of the same id.
    """
    listed = [source for source in sources if isinstance(source, VideoTask)]
    given = [Path(source) for source in sources if not isinstance(source, VideoTask)]
    single = [os.path.abspath(source) for source in given if not source.is_dir()]
    above = os.path.commonpath([os.path.dirname(path) for path in single]) if single else ""
    found: dict[str, str] = {}  # path -> name below the folder of media
    for source in given:
        if source.is_dir():
            paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES]
            found.update({str(path): path.relative_to(source).as_posix() for path in paths if path.is_file()})
        elif source.is_file():
            found[str(source)] = Path(os.path.abspath(source)).relative_to(above).as_posix()
        else:
            raise PipelineError(f"There is no file or folder {source}.")
    if not found and not listed:
        raise PipelineError(
            f"There are no videos in {', '.join(map(str, sources))}: files ending in {', '.join(VIDEO_SUFFIXES)} are "
            "taken from folders; name others one by one."
        )
    short = Counter(identifier_of(Path(name).stem) for name in found.values())
    tasks = list(listed)
    for path, name in found.items():
        identifier = identifier_of(Path(name).stem)
        if short[identifier] > 1:
            identifier = f"{identifier_of(name)}-{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:6]}"
        tasks.append(VideoTask(identifier, os.path.abspath(path), name))
    twice = [name for name, count in Counter(task.video_id for task in tasks).items() if count > 1]
    if twice:
        raise PipelineError(f"Two videos have the id {twice[0]!r}: list each once, with an id of its own.")
    return sorted(tasks, key=lambda task: task.video_id)


def read_list(path: str | os.PathLike, split: str | None = None, source: str | None = None) -> list[VideoTask]:
    """Videos that a file lists, as `dataset_scripts/list_videos.py --json` writes it: one JSON object a line.

    Of each line "path" is needed; relative ones count from the list's folder. "id" names the video in the dataset,
    "file" the file below the folder of media; "origin", "start" and "end" say where it came from.

    Args:
        path: of the list.
        split, source: what all of its videos must be of, where lines say so.

    Raises:
        PipelineError: naming the line that cannot be used.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"The list {path} cannot be read: {error}.") from error
    kinds = {"path": str, "id": str, "file": str, "origin": str, "split": str, "source": str,
             "start": (int, float), "end": (int, float)}  # fmt: skip
    tasks = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict) or not told.get("path"):
            raise PipelineError(f'{where}: each line is a JSON object such as {{"path": "a.mp4", "id": "a"}}.')
        told = {key: value for key, value in told.items() if value is not None}
        for key, value in told.items():
            if key not in kinds:
                raise PipelineError(f"{where}: there is no key {key!r}: known are {', '.join(kinds)}.")
            if not isinstance(value, kinds[key]) or isinstance(value, bool):
                raise PipelineError(f"{where}: {key!r} is {value!r}, of another kind than it must be.")
        for key, wanted in (("split", split), ("source", source)):
            if wanted is not None and told.get(key, wanted) != wanted:
                raise PipelineError(
                    f"{where}: its {key} is {told[key]!r}: build those apart, with --{key} {told[key]}."
                )
        file = Path(os.path.abspath(path.parent / told["path"]))
        if not file.is_file():
            raise PipelineError(f"{where}: there is no file {file}.")
        name = told.get("file", file.name)
        identifier = told.get("id", file.stem)
        if identifier != identifier_of(identifier):
            raise PipelineError(f"{where}: the id {identifier!r} has other signs than letters, digits, '.', '_', '-'.")
        tasks.append(VideoTask(identifier, str(file), name, told.get("origin"), told.get("start"), told.get("end")))
    if not tasks:
        raise PipelineError(f"The list {path} is empty.")
    return tasks


def identifier_of(text: str) -> str:
    """A name as an id of a video: letters, digits, ".", "_" and "-"."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "video"


def build_dataset(
    videos: Sequence[str | os.PathLike | VideoTask],
    out: str | os.PathLike,
    settings: Settings | None = None,
    executor: str = "local",
    workers: int = 1,
    tasks: int | None = None,
    split: str = "train",
    source: str = "own",
    license: str = "not stated",
    embed: bool | None = None,
    against: Sequence[str | os.PathLike] = (),
    slurm: dict[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Make SAVEn-Vid rows of videos.

    A run that was stopped, at whatever moment, goes on when it is started again, and ends with the same bytes. A video
    that cannot be used is put aside with its reason, and the others go on.

    Args:
        videos: files, folders of files, and what `read_list` gave.
        out: new, or a folder that this began.
        settings: how rows are made.
        executor: "local", "slurm" or "ray"; see `executors`.
        workers: tasks at a time.
        tasks: in how many parts the videos are divided; by default as many as workers.
        split: name of the split.
        source, license: where the videos are from, and under which terms, for rows and card.
        embed: store the videos in the dataset; by default if none of them is above 100 MB, else by reference.
        against: folders that this wrote, or folders of videos, whose videos must not be among these.
        slurm: see `run_tasks`.
        progress: show bars.

    Returns:
        {"out", "videos", "quarantined", "segments", "questions", "sft", "hours", "duplicates"}, and of this run
        "stages" ({stage: {"videos", "seconds"}}) and "usage" (calls, tokens, cost; empty without models). With slurm
        {"out", "videos", "job"}.

    Raises:
        PipelineError: bad arguments, or another folder at `out`.
        ServiceError: the annotator's server does not answer.
        MissingDependencyError: the datasets library is not installed.
    """
    import_datasets()
    settings = settings or Settings()
    out = Path(out)
    if executor not in EXECUTORS:
        raise PipelineError(f"There is no executor {executor!r}: choose one of {', '.join(EXECUTORS)}.")
    if out.exists() and not out.is_dir():
        raise PipelineError(f"{out} is a file: give a folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / "work").is_dir():
        raise PipelineError(f"{out} holds other files: give a folder that is new or empty.")
    found = find_videos(videos)
    # A wrong option shall be told before hours of work.
    open_annotator(settings.annotator, **settings.options).close()
    open_detector(settings.detector)
    work = Work(out / "work")
    work.clear_partial()
    write_plan(work, settings, found)
    options = {"split": split, "source": source, "license": license, "embed": embed,
               "against": [os.path.abspath(one) for one in against]}  # fmt: skip
    tasks = max(1, min(tasks or workers, len(found)))
    with Progress(work.folder, len(found), progress and executor != "slurm") as seen:
        job = run_tasks(executor, out, tasks, workers, options, slurm)
    if job is not None:
        return {"out": str(out), "videos": len(found), "job": job}
    stages = {stage: {"videos": seen.counts[stage], "seconds": round(seen.seconds[stage], 2)} for stage in STAGES}
    usage = {name: round(count, 4) for name, count in sorted(seen.usage.items())}
    return assemble(out, **options) | {"stages": stages, "usage": usage}


def assemble(
    out: str | os.PathLike,
    split: str = "train",
    source: str = "own",
    license: str = "not stated",
    embed: bool | None = None,
    against: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the dataset of what all stages left in `out`/work. Its bytes follow from these results alone.

    Raises:
        PipelineError: videos that are neither done nor put aside, or all of them were put aside.
    """
    from .executors import read_plan

    out = Path(out)
    work = Work(out / "work")
    settings, tasks = read_plan(work)
    rows, quarantined, missing = [], [], []
    for task in tasks:
        row = work.read("check", task.video_id)
        if row is not None:
            rows.append(row)
        elif work.has("failed", task.video_id):
            quarantined.append(work.read("failed", task.video_id))
        else:
            missing.append(task.video_id)
    if missing:
        raise PipelineError(f"{len(missing)} videos are not done, such as {missing[0]}: start the build again.")
    if not rows:
        raise PipelineError(
            f"Of {len(tasks)} videos not one could be used; {quarantined[0]['file']}: {quarantined[0]['reason']}"
        )
    annotator = open_annotator(settings.annotator, **settings.options)
    provenance = {
        "models": [open_detector(settings.detector).name, *annotator.models, *filter(None, [settings.transcriber])],
        "prompt_hashes": annotator.prompt_hashes,
        "code_version": __version__,
    }
    annotator.close()
    letters = balance_letters(rows)
    others = [one for folder in against for one in fingerprints(folder, work)]
    duplicates = mark_duplicates(rows, others)

    if embed is None:
        embed = all(row["media"]["size"] <= _EMBED_BYTES for row in rows)
    paths = {task.video_id: task.path for task in tasks}
    written = work.folder / f"dataset.{os.getpid()}.partial"
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir()
    try:
        counts = {}
        for config, of_config in _configs(rows, paths, source, provenance).items():
            first = next(of_config, None)
            counts[config] = (
                0 if first is None else write_split(written, config, split, chain([first], of_config), embed)
            )
        about = (
            f"Made from videos by `saven build`, annotator `{settings.annotator}`. Verdicts on every question are in "
            "`checks`: nothing was dropped; filter by them."
        )
        write_card(written, Card("SAVEn-Vid rows", about, {source: license}))
        _write_lines(written / "quarantine.jsonl", quarantined)
        _write_lines(written / "fingerprints.jsonl", map(_fingerprint, rows))
        write_report(written / "report.html", rows, quarantined, letters, duplicates, paths, provenance)
        # The card goes first and comes last, so that no half of a dataset has one.
        (out / "README.md").unlink(missing_ok=True)
        if (out / "data").exists():
            shutil.rmtree(out / "data")
        os.rename(written / "data", out / "data")
        for name in reversed(_FILES):
            os.replace(written / name, out / name)
    finally:
        shutil.rmtree(written, ignore_errors=True)
    return {
        "out": str(out),
        "videos": len(rows),
        "quarantined": [{name: one[name] for name in ("file", "stage", "reason")} for one in quarantined],
        "segments": counts["captions"],
        "questions": counts["qa"],
        "sft": counts["sft"],
        "hours": round(sum(row["duration"] for row in rows) / 3600, 4),
        "duplicates": [{"video": video, "same_as": other} for video, other, _ in duplicates],
    }


def _write_lines(path: Path, rows: Iterable[dict]) -> None:
    with written_whole(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def _configs(rows: list[dict], paths: dict[str, str], source: str, provenance: dict) -> dict[str, Iterator[dict]]:
    return {
        "qa": (one for row in rows for one in qa_rows(row, paths[row["video_id"]], source, provenance)),
        "captions": (one for row in rows for one in caption_rows(row)),
        "videos": (video_row(row, paths[row["video_id"]], source, provenance) for row in rows),
        "sft": _sft_rows(rows, paths, source, provenance),
    }


def qa_rows(row: dict, path: str, source: str, provenance: dict) -> list[dict]:
    """Rows of the configuration "qa"."""
    columns = ("question", "options", "answer", "question_type", "category", "audio_type", "evidence", "checks")
    return [
        {
            "id": f"{row['video_id']}-{at}",
            "video_id": row["video_id"],
            "video": {"bytes": None, "path": path},
            "media": row["media"],
            "duration": row["duration"],
            **{column: asked[column] for column in columns},
            "source": source,
            "provenance": provenance,
        }
        for at, asked in enumerate(row["questions"])
    ]


def caption_rows(row: dict) -> list[dict]:
    """Rows of the configuration "captions"."""
    columns = ("segment", "start", "end", "visual_caption", "audio_caption", "av_caption", "transcript")
    rows = [{"video_id": row["video_id"], **{name: one[name] for name in columns}} for one in row["segments"]]
    validate_segments(rows, row["duration"])
    return rows


def video_row(row: dict, path: str, source: str, provenance: dict) -> dict:
    """The row of the configuration "videos"."""
    return {
        "video_id": row["video_id"],
        "video": {"bytes": None, "path": path},
        "media": row["media"],
        "duration": row["duration"],
        **{column: row[column] for column in ("visual_caption", "audio_caption", "av_caption")},
        "source": source,
        "provenance": provenance,
    }


def _sft_rows(rows: list[dict], paths: dict[str, str], source: str, provenance: dict) -> Iterator[dict]:
    maker = InstructionMaker()
    for row in rows:
        path = paths[row["video_id"]]
        questions = qa_rows(row, path, source, provenance)
        yield from maker.rows(video_row(row, path, source, provenance), caption_rows(row), questions)


# ---------------------------------------------------------------------------------------------------------------------
# The same video elsewhere


def _fingerprint(row: dict) -> dict:
    return {name: row[name] for name in ("video_id", "duration", "picture_hash", "sound_hash")}


def fingerprints(folder: str | os.PathLike, work: Work) -> list[dict]:
    """Hashes of the videos of another dataset: of a folder that `saven build` wrote, or of a folder of videos.

    Those of a folder of videos are kept in `work`; files that cannot be read are left out, with a warning.

    Raises:
        PipelineError: no such folder, or nothing in it that can be read.
    """
    folder = Path(folder)
    written = folder / "fingerprints.jsonl"
    if written.is_file():
        return [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    tasks = find_videos([folder])
    state = json.dumps([[task.name, os.path.getsize(task.path)] for task in tasks])
    kept = work.folder / f"against-{hashlib.sha256((str(folder) + state).encode()).hexdigest()[:16]}.jsonl"
    if not kept.is_file():
        found = []
        for task in tasks:
            try:
                with open_media(task.path) as media:
                    if media.kind == "video":
                        row = {"video_id": task.video_id, "duration": media.duration / 1e6}
                        found.append(row | {"picture_hash": picture_hash(media), "sound_hash": sound_hash(media)})
            except MediaError as error:
                logger.warning("%s is not compared with: %s", task.path, error)
        if not found:
            raise PipelineError(f"Of {len(tasks)} files in {folder} not one is a video that can be read.")
        _write_lines(kept, found)
    return [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
