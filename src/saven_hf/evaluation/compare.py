"""Two runs beside each other, item by item."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .report import scored
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
        ComparisonError: a folder holds no run, they share none, or the media of a shared one differ.
    """
    folders = [Path(first), Path(second)]
    settings, hashes = zip(*map(_read, folders), strict=True)
    names = [{path.name.removesuffix(".jsonl") for path in (folder / "items").glob("*.jsonl")} for folder in folders]
    shared = sorted(names[0] & names[1])
    if not shared:
        raise ComparisonError(f"{first} and {second} have no benchmark under the same control in common.")
    runs = {}
    for name in shared:
        benchmark = _benchmark_of(name, hashes[0])
        _check_media(benchmark, hashes, folders)
        rows = [{row["id"]: row for row in scored(_rows(folder / "items" / f"{name}.jsonl"))} for folder in folders]
        both = [one for one in rows[0] if one in rows[1]]
        if not both:
            continue
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


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return settings, json.loads((folder / "hashes.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ComparisonError(
            f"{folder} holds no finished run: `saven eval --out {folder}` writes run.json and hashes.json."
        ) from error


def _benchmark_of(name: str, hashes: dict[str, Any]) -> str:
    """The benchmark of a file `<benchmark>.<control>[.likelihood]`."""
    return next((one for one in hashes if name.startswith(f"{one}.")), name.split(".")[0])


def _check_media(benchmark: str, hashes: tuple[dict, dict], folders: list[Path]) -> None:
    media = [one.get(benchmark, {}).get("media", {}) for one in hashes]
    differing = [video for video in media[0] if video in media[1] and media[0][video] != media[1][video]]
    unknown = [video for video in media[0] if video in media[1] and media[0][video] is None]
    if differing or unknown:
        video = (differing or unknown)[0]
        raise ComparisonError(
            f"{len(differing or unknown)} videos of {benchmark} are not the same in {folders[0]} and {folders[1]}, "
            f"such as {video} ({media[0][video]} and {media[1][video]}): run one of them again on the other's media."
        )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
