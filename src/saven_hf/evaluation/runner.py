"""Runs a benchmark under a control, item by item, into a file that a stopped run goes on with."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..version import __version__
from ..world.video import written_whole
from .adapters import Adapter, Asked
from .benchmarks import FORMS, Benchmark, Item
from .controls import PLAIN, Control


# Videos whose questions are batched together, and written together. A run that is continued starts at such a group, so
# that its batches, and with them the last bits of its sums, are those of a run that never stopped.
VIDEOS_AT_ONCE = 16
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


def run(
    benchmark: Benchmark,
    adapter: Adapter,
    out_dir: Path,
    control: Control = PLAIN,
    forms: Collection[str] = FORMS,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Ask everything, or what an earlier run left unasked.

    Args:
        forms: of items that are asked.
        out_dir: `items/<benchmark>.<control>.jsonl` is written there, a line for each item as soon as its group of
            videos is answered.

    Returns:
        One row an item, in order: the item's fields, "prompt", "output", what `Benchmark.score` gives, "fed".
    """
    path = Path(out_dir) / "items" / f"{benchmark.name}.{control.name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = {
        video: [_under(control, item) for item in benchmark.items(video) if item.form in forms]
        for video in benchmark.video_ids
    }
    groups = [
        benchmark.video_ids[first : first + VIDEOS_AT_ONCE]
        for first in range(0, len(benchmark.video_ids), VIDEOS_AT_ONCE)
    ]
    rows = _read_whole_groups(path, [[item for video in group for item in asked[video]] for group in groups])
    total = sum(map(len, asked.values()))
    with (
        open(path, "a", encoding="utf-8") as file,
        tqdm(
            total=total, initial=len(rows), unit="question", desc=f"{benchmark.name} {control.name}",
            disable=not progress,
        ) as bar,
    ):  # fmt: skip
        done = len(rows)
        for group in groups:
            items = [item for video in group for item in asked[video]]
            if done > 0:  # whole groups only, see `_read_whole_groups`
                done -= len(items)
                continue
            answered = _answer(benchmark, adapter, control, group, asked, bar)
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in answered)
            file.flush()
            rows.extend(answered)
    return rows


def _under(control: Control, item: Item) -> Item:
    """The item with its times moved as the control moves the clock."""
    return replace(
        item,
        question=control.text(item.question),
        answer=item.answer if item.form == "choice" else control.text(item.answer),
        options=tuple(map(control.text, item.options)),
    )


def _answer(
    benchmark: Benchmark,
    adapter: Adapter,
    control: Control,
    videos: list[str],
    items: dict[str, list[Item]],
    bar: tqdm,
) -> list[dict[str, Any]]:
    asked = []
    for video in videos:
        if items[video]:
            watched = adapter.watch(control.edited(benchmark.media(video)), control)
            asked.extend(Asked(watched, benchmark.prompt(item), item) for item in items[video])
    outputs = adapter.answer(asked, bar)
    return [
        {
            **asdict(one.item),
            "options": list(one.item.options),
            "prompt": one.prompt,
            "output": output,
            **benchmark.score(one.item, output),
            "fed": one.watched.fed,
        }
        for one, output in zip(asked, outputs, strict=True)
    ]


def _read_whole_groups(path: Path, groups: list[list[Item]]) -> list[dict[str, Any]]:
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
        if [_identity(**row) for row in part] != [_identity(**asdict(item)) for item in group]:
            os.truncate(path, sum(map(len, lines[: len(rows)])))
            break
        rows.extend(part)
    return rows


def _identity(id: str, question: str, options, answer: str, **_) -> tuple:
    return id, question, tuple(options), answer
