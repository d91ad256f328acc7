"""Runs a benchmark under a control, item by item, into a file that a stopped run goes on with."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm.auto import tqdm

from ..data.prompts import LETTERS
from ..files import written_whole
from ..savenvideo.media import open_media
from ..savenvideo.media_errors import MediaError
from ..training.cache import process_share
from ..version import __version__
from .adapters import Adapter, Asked, ProtocolError
from .benchmarks import FORMS, Benchmark, Item, Pair
from .controls import PLAIN, Control, ControlError, NotApplicableError


logger = logging.getLogger(__name__)

PROTOCOLS = ("generate", "likelihood")
_MANIFEST = "run.json"


class RunMismatchError(ValueError):
    """A folder that holds results of another model or of other settings."""


def claim_folder(out_dir: str | os.PathLike, settings: dict[str, Any]) -> Path:
    """The folder of a run, made if need be, with a record of what it is a run of.

    Raises:
        RunMismatchError: it is the folder of a run with other settings.
    """
    out, wanted = Path(out_dir), json.loads(json.dumps({"code_version": __version__, **settings}))
    path = out / _MANIFEST
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
        if differing:
            name = differing[0]
            raise RunMismatchError(
                f"{out} holds a run with {name} {found.get(name)!r}, but {wanted.get(name)!r} was asked for: give "
                "another folder, or remove this one."
            )
        return out
    (out / "items").mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        Path(partial).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    return out


def items_path(out_dir: Path, benchmark: Benchmark, control: Control, protocol: str = "generate") -> Path:
    """`items/<benchmark>.<control>.jsonl`; log-likelihoods have a file of their own beside it."""
    suffix = "" if protocol == "generate" else f".{protocol}"
    return Path(out_dir) / "items" / f"{benchmark.name}.{control.name}{suffix}.jsonl"


def run(
    benchmark: Benchmark,
    adapter: Adapter,
    out_dir: Path,
    control: Control = PLAIN,
    forms: Collection[str] = FORMS,
    progress: bool = True,
    protocol: str = "generate",
) -> list[dict[str, Any]]:
    """Ask everything, or what an earlier run left unasked.

    Answers are written for as many videos at a time as the adapter answers together (`media_at_once`, one if it does
    not say). A run that is continued starts at such a group, so that its batches, and with them the last bits of its
    sums, are those of a run that never stopped. Under `accelerate launch` or `torchrun` each process takes its share
    of the groups, and the file is the one that a single process writes.

    Args:
        forms: of items that are asked.
        out_dir: a line for each item is written to `items_path` as soon as its group of videos is answered.
        protocol: "generate" (say something, which is parsed) or "likelihood" (weigh the options, or the answers of a
            closed set; the most probable one counts). Open items are left out of the latter.

    Returns:
        One row an item, in order: the item's fields, "prompt", "output", what `Benchmark.score` gives, "fed", "media"
        (hash of the medium before a control edits it, as it was when the item was asked); "error" where the medium
        could not be read: such an item counts as wrong. Items that the control cannot be done to (`mute` on an image)
        are not asked: their rows have "not_applicable" in place of an answer, see `applicable`.
    """
    path = items_path(out_dir, benchmark, control, protocol)
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = {
        video: [
            turned
            for item in benchmark.items(video)
            if item.form in forms and (protocol == "generate" or item.options or benchmark.closed_set(item))
            for turned in _under(control, item)
        ]
        for video in benchmark.video_ids
    }
    videos = list(benchmark.video_ids)
    together = getattr(adapter, "media_at_once", 1)
    groups = [videos[first : first + together] for first in range(0, len(videos), together)]
    wanted = [[item for video in group for item in asked[video]] for group in groups]
    rank, processes = process_share()
    parts = path.with_suffix(".parts")
    rows = _read_whole_groups(path, wanted, cut=rank == 0)
    begun, done = 0, 0
    while begun < len(groups) and done + len(wanted[begun]) <= len(rows):
        done += len(wanted[begun])
        begun += 1
    if processes > 1:
        parts.mkdir(exist_ok=True)
    with tqdm(
        total=sum(map(len, wanted)), initial=len(rows), unit="question", desc=f"{benchmark.name} {control.name}",
        disable=not progress or rank > 0,
    ) as bar:  # fmt: skip
        for number in range(begun, len(groups)):
            part = parts / f"{number:06d}.jsonl"
            if part.is_file() and identities(read_items(part)) == _wanted(wanted[number]):
                answered = read_items(part)
                bar.update(len(answered))
            elif (number - begun) % processes == rank:
                answered = _answer(benchmark, adapter, control, groups[number], asked, bar, protocol)
            else:
                continue
            if processes > 1:
                with written_whole(part) as partial:
                    Path(partial).write_text(_lines(answered), encoding="utf-8")
            else:
                with open(path, "a", encoding="utf-8") as file:
                    file.write(_lines(answered))
                rows.extend(answered)
    if processes > 1:
        _join(path, parts, begun, len(groups), rank)
        rows = read_items(path)
    elif parts.is_dir():
        shutil.rmtree(parts)
    elif not path.exists():
        path.touch()
    return rows


def wait_for_all() -> None:
    """Until all processes are here, however long the slowest takes."""
    if process_share()[1] > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.accelerator.is_available(), timeout=timedelta(days=30)).wait_for_everyone()


def _join(path: Path, parts: Path, first: int, last: int, rank: int) -> None:
    """What all processes have answered becomes one file, in order."""
    wait_for_all()
    if rank == 0:
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        with written_whole(path) as partial, open(partial, "w", encoding="utf-8") as file:
            file.write(before)
            for number in range(first, last):
                file.write((parts / f"{number:06d}.jsonl").read_text(encoding="utf-8"))
        shutil.rmtree(parts)
    wait_for_all()


def _under(control: Control, item: Item) -> Iterator[Item]:
    """The item with its times moved as the control moves the clock, once for each rotation of its options."""
    moved = replace(
        item,
        question=control.text(item.question),
        answer=item.answer if item.form == "choice" else control.text(item.answer),
        options=tuple(map(control.text, item.options)),
    )
    if not control.circular:
        yield moved
        return
    for by in control.rotations(len(item.options)) if item.form == "choice" else ():
        options = moved.options[by:] + moved.options[:by]
        letter = LETTERS[(LETTERS.index(moved.answer) - by) % len(options)]
        yield replace(moved, id=f"{item.id}~{by}", options=options, answer=letter)


# ---------------------------------------------------------------------------------------------------------------------
# Asking


def _answer(
    benchmark: Benchmark,
    adapter: Adapter,
    control: Control,
    videos: list[str],
    items: dict[str, list[Item]],
    bar: tqdm,
    protocol: str,
) -> list[dict[str, Any]]:
    asked: list[Asked] = []
    failed: dict[str, str] = {}
    unfit: dict[str, str] = {}
    hashes: dict[str, str | None] = {}
    keeps = benchmark.keeps_edits or not control.edits_file
    with nullcontext() if keeps else TemporaryDirectory(prefix="saven-edit-") as folder:
        for number, video in enumerate(videos):
            if not items[video]:
                continue
            hashes[video] = _hash(benchmark, video)
            # A folder for each: media of one name in two folders are edited into files of one name.
            edits = folder and Path(folder, str(number))
            try:
                shown = _edited(benchmark, control, video, edits)
                watched = adapter.watch(shown, control)
            except NotApplicableError as error:
                unfit[video] = str(error)
                bar.update(len(items[video]))
                continue
            except MediaError as error:
                failed[video] = " ".join(str(error).split())
                bar.update(len(items[video]))
                continue
            for item in items[video]:
                # An answer's own record of what was fed: a question may choose its frames.
                own = replace(watched, fed=dict(watched.fed))
                asked.append(Asked(own, benchmark.prompt(item, watched.frame_times), item))
        if protocol == "generate":
            outputs = adapter.answer(asked, bar)
            verdicts = [benchmark.score(one.item, output) for one, output in zip(asked, outputs, strict=True)]
        else:
            outputs, verdicts = _weigh(benchmark, adapter, asked, bar)
    answered = {
        (one.item.video_id, one.item.id): {
            **one.item.as_row(),
            "prompt": one.prompt,
            "output": output,
            **verdict,
            "fed": one.watched.fed,
        }
        for one, output, verdict in zip(asked, outputs, verdicts, strict=True)
    }
    rows = []
    for video in videos:
        for item in items[video]:
            if video in unfit:
                row = {**item.as_row(), "not_applicable": unfit[video]}
            elif video in failed:
                row = _failure(benchmark, item, failed[video])
            else:
                row = answered[video, item.id]
            rows.append(row | {"media": hashes[video]})
    return rows


def _hash(benchmark: Benchmark, video: str) -> str | None:
    try:
        return benchmark.media_hash(video)
    except (MediaError, OSError):
        return None  # it cannot be read, which is what its items say


def _failure(benchmark: Benchmark, item: Item, error: str) -> dict[str, Any]:
    verdict = {**benchmark.score(item, ""), "correct": False}
    return {**item.as_row(), "prompt": "", "output": "", **verdict, "fed": {}, "error": error}


def _edited(benchmark: Benchmark, control: Control, video: str, folder: Path | None) -> Path | Pair:
    media = benchmark.media(video)
    if not control.edits_file:
        return media
    if isinstance(media, Pair):
        raise NotApplicableError(f"{control.name} edits a video file, and {video} is an image and a sound.")
    if folder is not None:
        folder.mkdir()
    return control.edited(media, _partner(benchmark, video) if control.swap else None, folder)


def _partner(benchmark: Benchmark, video: str) -> Path:
    """The next video of the benchmark, round and round, that has sound.

    Raises:
        ControlError: there is no other.
    """
    videos = list(benchmark.video_ids)
    at = videos.index(video)
    for other in videos[at + 1 :] + videos[:at]:
        try:
            media = benchmark.media(other)
            if isinstance(media, Pair):
                continue
            with open_media(media) as opened:
                if opened.has_audio:
                    return media
        except MediaError:
            continue
    raise ControlError(f"swap takes the sound of another video, and {benchmark.name} has no other one with sound.")


def _weigh(
    benchmark: Benchmark, adapter: Adapter, asked: list[Asked], bar: tqdm
) -> tuple[list[str], list[dict[str, Any]]]:
    """The most probable answer of each question, and a verdict; probabilities are means over an answer's tokens."""
    if not hasattr(adapter, "likelihoods"):
        raise ProtocolError(f"{type(adapter).__name__} has no log-likelihoods: use the protocol 'generate'.")
    names, candidates = [], []
    for one in asked:
        closed = benchmark.closed_set(one.item)
        names.append(closed or tuple(LETTERS[: len(one.item.options)]))
        candidates.append(list(closed) or adapter.candidates(one.item))
    outputs, verdicts = [], []
    for one, those, found in zip(asked, names, adapter.likelihoods(asked, candidates, bar), strict=True):
        best = max(range(len(those)), key=lambda at: found[at].per_token)
        verdict = benchmark.score(one.item, those[best])
        if one.item.form == "choice":
            verdict |= {"parsed": those[best], "correct": those[best] == one.item.answer, "rule": "likelihood"}
        verdict["logprobs"] = {
            name: [round(one.logprob, 4), one.tokens] for name, one in zip(those, found, strict=True)
        }
        outputs.append(those[best])
        verdicts.append(verdict)
    return outputs, verdicts


def check_control(benchmark: Benchmark, adapter: Adapter, control: Control) -> None:
    """Whether a control goes with a model and a benchmark, before anything is asked.

    Raises:
        ControlError: it does not.
    """
    check = getattr(adapter, "check", None)
    if check is not None:
        check(control)
    if control.swap:
        _partner(benchmark, benchmark.video_ids[0])


# ---------------------------------------------------------------------------------------------------------------------
# Files


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_items(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Rows of a file of `items/`."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def applicable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that were asked: without those that the run's control cannot be done to."""
    return [row for row in rows if "not_applicable" not in row]


def _read_whole_groups(path: Path, groups: list[list[Item]], cut: bool = True) -> list[dict[str, Any]]:
    """Rows of an earlier run, up to the last whole group; what follows is cut off the file.

    Nothing is cut off a file that holds all that is asked for and more.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    rows: list[dict[str, Any]] = []
    for group in groups:
        part = [json.loads(line) for line in lines[len(rows) : len(rows) + len(group)]]
        if identities(part) != _wanted(group):
            if cut:
                lost = len(lines) - len(rows)
                if lost:
                    logger.warning("%s: the last %d of %d answers are asked again.", path.name, lost, len(lines))
                os.truncate(path, sum(map(len, lines[: len(rows)])))
            break
        rows.extend(part)
    return rows


def identities(rows: list[dict[str, Any]]) -> list[tuple]:
    """What rows are told apart by: id, question, options and right answer."""
    return [(row["id"], row["question"], tuple(row["options"]), row["answer"]) for row in rows]


def _wanted(items: list[Item]) -> list[tuple]:
    return identities([asdict(item) for item in items])
