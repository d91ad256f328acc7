"""Plots of a report: accuracy with intervals by kind, controls, letters, and how far stretches of time are off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..files import written_whole
from .parsing import parse_range


# Tags that plots are drawn of, in this order, as far as a benchmark has them.
_TAGS = ("duration", "question_type", "task_type", "type", "category", "audio_type")


def draw_report(summary: dict[str, Any], rows: dict[str, list[dict[str, Any]]]) -> dict[str, Figure]:
    """All plots that a run gives data for, by name of the file.

    Args:
        summary: of `evaluate`.
        rows: of the plain run, by benchmark.
    """
    figures: dict[str, Figure] = {}
    for name, found in summary["benchmarks"].items():
        part = found["plain"].get("choice") or found["plain"].get("words")
        if part is None:
            continue
        for tag in [tag for tag in _TAGS if tag in part["by"]]:
            groups = {value: one["accuracy"] for value, one in part["by"][tag].items()}
            figures[f"{name}.{tag}"] = _bars({"all": part["accuracy"]} | groups, f"{name}: accuracy by {tag}")
        controls = {"plain": part["accuracy"]}
        for control, one in found["controls"].items():
            said = one.get("choice") or one.get("words")
            if said is not None:
                controls[control] = said["accuracy"]
        if len(controls) > 1:
            figures[f"{name}.controls"] = _bars(controls, f"{name}: plain and controls")
        if "letters" in part:
            figures[f"{name}.letters"] = _letters(part["letters"], name)
        off = [row["seconds_off"] for row in rows.get(name, ()) if row.get("seconds_off") is not None]
        off += _range_errors(rows.get(name, ()))
        if off:
            figures[f"{name}.time"] = _errors(off, name)
    return figures


def save_figures(figures: dict[str, Figure], folder: str | os.PathLike) -> None:
    """Write each as PNG; the folder is made if need be."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with written_whole(Path(folder) / f"{name}.png") as partial:
            figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})


def _bars(intervals: dict[str, dict[str, Any]], title: str) -> Figure:
    named = {name: one for name, one in intervals.items() if one["n"]}
    figure = Figure(figsize=(6.4, 1.2 + 0.32 * len(named)), layout="constrained")
    axes = figure.add_subplot()
    values = np.array([100 * one["value"] for one in named.values()])
    low, high = (np.array([100 * one[end] for one in named.values()]) for end in ("low", "high"))
    errors = np.clip([values - low, high - values], 0, None)
    at = np.arange(len(named))[::-1]
    axes.barh(at, values, xerr=errors, height=0.6, color="#7a9cc6", ecolor="#333333", capsize=3)
    axes.set_yticks(at, [f"{name} ({one['n']})" for name, one in named.items()])
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent right, 95 % interval over videos")
    axes.set_title(title, fontsize=10)
    return figure


def _letters(letters: dict[str, Any], name: str) -> Figure:
    right, said = letters["right"]["counts"], letters["said"]
    alphabet = [*right, *(["none"] if "none" in said else [])]
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    at = np.arange(len(alphabet))
    axes.bar(at - 0.2, [right.get(letter, 0) for letter in alphabet], 0.4, label="right", color="#7a9cc6")
    axes.bar(at + 0.2, [said.get(letter, 0) for letter in alphabet], 0.4, label="said", color="#d98e73")
    axes.set_xticks(at, alphabet)
    axes.set_ylabel("answers")
    axes.set_title(f"{name}: letters", fontsize=10)
    axes.legend()
    return figure


def _range_errors(rows) -> list[float]:
    """Mean distance of the two ends, of ranges answered in open form."""
    off = []
    for row in rows:
        truth = parse_range(row["answer"]) if row["form"] == "range" and row["parsed"] else None
        if truth:
            off.append(sum(abs(end - right / 1e6) for end, right in zip(row["parsed"], truth, strict=True)) / 2)
    return off


def _errors(off: list[float], name: str) -> Figure:
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    ordered = np.sort(off)
    axes.step(ordered, 100 * np.arange(1, len(ordered) + 1) / len(ordered), where="post", color="#7a9cc6")
    axes.set_xlabel("both ends off by, mean, seconds")
    axes.set_ylabel("percent of answers within")
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_ylim(0, 101)
    axes.set_title(f"{name}: error in time, {len(off)} answers", fontsize=10)
    return figure
