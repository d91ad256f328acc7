"""Two runs beside each other, item by item."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .report import scored
from .runner import applicable, identities, read_items
from .statistics import McNemar, mcnemar, mean_interval
from .tables import percent, table


class ComparisonError(ValueError):
    """Two runs that say nothing about each other, or folders that hold no runs."""


def compare(first: str | os.PathLike, second: str | os.PathLike) -> dict[str, Any]:
    """The runs of two folders over the same items: paired, as the questions are the same.

    Args:
        first, second: folders that `evaluate` wrote.

    Returns:
        {"first", "second": settings, "runs": {"<benchmark>.<control>": {"questions", "only_in_first",
        "only_in_second", "first", "second": accuracies, "difference": second minus first with its paired interval over
        videos, "mcnemar", "same_prompts"}}}.

    Raises:
        ComparisonError: a folder holds no run, they share none, or questions or media of a shared one differ.
    """
    folders = [Path(first), Path(second)]
    settings = [_settings(folder) for folder in folders]
    names = [{path.name.removesuffix(".jsonl") for path in (folder / "items").glob("*.jsonl")} for folder in folders]
    shared = sorted(names[0] & names[1])
    if not shared:
        raise ComparisonError(f"{first} and {second} have no benchmark under the same control in common.")
    runs = {}
    for name in shared:
        rows = [
            {row["id"]: row for row in scored(applicable(read_items(folder / "items" / f"{name}.jsonl")))}
            for folder in folders
        ]
        both = [one for one in rows[0] if one in rows[1]]
        if not both:
            continue
        _check_same(name, [[part[at] for at in both] for part in rows], folders)
        one, other = ([float(part[at]["correct"]) for at in both] for part in rows)
        videos = [rows[0][at]["video_id"] for at in both]
        runs[name] = {
            "questions": len(both),
            "only_in_first": len(rows[0]) - len(both),
            "only_in_second": len(rows[1]) - len(both),
            "same_prompts": all(rows[0][at]["prompt"] == rows[1][at]["prompt"] for at in both),
            "first": mean_interval(one, videos)._asdict(),
            "second": mean_interval(other, videos)._asdict(),
            "difference": mean_interval([b - a for a, b in zip(one, other, strict=True)], videos)._asdict(),
            "mcnemar": mcnemar([bool(a) for a in one], [bool(b) for b in other])._asdict(),
        }
    if not runs:
        raise ComparisonError(f"{first} and {second} have no scored question in common.")
    return {"first": settings[0], "second": settings[1], "runs": runs}


def comparison_table(found: dict[str, Any], names: tuple[str, str] = ("first", "second")) -> str:
    """`compare` as Markdown."""
    rows = []
    for name, one in found["runs"].items():
        test = McNemar(**one["mcnemar"])
        rows.append([
            name, one["questions"], percent(one["first"]), percent(one["second"]),
            percent(one["difference"], signed=True), f"{test.only_first} : {test.only_second}",
            f"{test.p_value:.2g}", "yes" if one["same_prompts"] else "no",
        ])  # fmt: skip
    header = ["run", "questions", f"{names[0]}, %", f"{names[1]}, %", "difference, points", "right in one alone",
              "McNemar p", "same prompts"]  # fmt: skip
    note = "Over questions of both; 95 % intervals, bootstrap over videos, paired for the difference."
    return "\n".join([note, "", *table(header, rows)])


def _settings(folder: Path) -> dict[str, Any]:
    try:
        (folder / "summary.json").stat()
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ComparisonError(
            f"{folder} holds no finished run: `saven eval --out {folder}` writes run.json and summary.json."
        ) from error


def _check_same(name: str, rows: list[list[dict[str, Any]]], folders: list[Path]) -> None:
    """Whether items of one id are the same question about the same medium; each row says what it was asked about."""
    for one, other in zip(*rows, strict=True):
        if identities([one]) != identities([other]):
            raise ComparisonError(
                f"{name}: {one['id']} is another question in {folders[0]} than in {folders[1]}: compare runs over the "
                "same files."
            )
    media = [{row["video_id"]: row.get("media") for row in part} for part in rows]
    differing = [video for video in media[0] if media[0][video] is None or media[0][video] != media[1][video]]
    if differing:
        video = differing[0]
        raise ComparisonError(
            f"{len(differing)} videos of {name} are not the same in {folders[0]} and {folders[1]}, or not known to be "
            f"so, such as {video} ({media[0][video]} and {media[1][video]}): run one again on the other's media."
        )
