"""From rows of answers to figures: a summary that programs read, and tables that people read."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..world.video import written_whole
from .controls import PLAIN, Control
from .statistics import Interval, difference_interval, letter_test, mean_interval


Row = dict[str, Any]

# A moved clock counts as read if both ends of an answered range moved as far, give or take this.
CLOCK_TOLERANCE = 1.0  # seconds


def _interval(rows: list[Row], value: str | Callable[[Row], float]) -> Interval:
    read = value if callable(value) else lambda row: row[value]
    return mean_interval([float(read(row)) for row in rows], [row["video_id"] for row in rows])


def _grouped(rows: Iterable[Row], tag: str) -> dict[str, list[Row]]:
    groups = defaultdict(list)
    for row in rows:
        if tag in row["tags"]:
            groups[row["tags"][tag]].append(row)
    return dict(sorted(groups.items()))


def _tags(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(tag for row in rows for tag in row["tags"]))


def _mean_chance(rows: list[Row]) -> dict[str, float]:
    """Mean exact chance levels, of guessers that all rows know."""
    names = [name for name in (rows[0]["chance"] if rows else ()) if all(name in row["chance"] for row in rows)]
    return {name: float(np.mean([row["chance"][name] for row in rows])) for name in names}


# ---------------------------------------------------------------------------------------------------------------------
# One run


def summarise_run(rows: list[Row]) -> dict[str, Any]:
    """What one run over a benchmark says: "choice", "range" and "words", each where there are such items.

    Each holds its main figure as an interval ("accuracy", and "mean_iou" for ranges), "unparsable" and "by", the same
    figure for each value of each tag. Unparsable answers count as wrong.
    """
    summary: dict[str, Any] = {"videos": len({row["video_id"] for row in rows}), "items": len(rows)}
    for form, figures in (("choice", ("accuracy",)), ("range", ("mean_iou", "accuracy")), ("words", ("accuracy",))):
        found = [row for row in rows if row["form"] == form]
        if not found:
            continue
        columns = {"accuracy": "correct", "mean_iou": "iou"}
        part: dict[str, Any] = {name: _interval(found, columns[name])._asdict() for name in figures}
        part["unparsable"] = sum(row["parsed"] is None for row in found)
        if form == "choice":
            part["chance"] = _mean_chance(found)
            part["contradictory"] = sum(row["worded"] not in (None, row["parsed"]) for row in found)
            alphabet = "".join(sorted({row["answer"] for row in found} | set("ABCD")))
            part["letters"] = {
                "right": letter_test((row["answer"] for row in found), alphabet)._asdict(),
                "said": dict(sorted(Counter(row["parsed"] or "none" for row in found).items())),
            }
        part["by"] = {
            tag: {
                value: {figures[0]: _interval(group, columns[figures[0]])._asdict(), "chance": _mean_chance(group)}
                for value, group in _grouped(found, tag).items()
            }
            for tag in _tags(found)
        }
        summary[form] = part
    return summary


# ---------------------------------------------------------------------------------------------------------------------
# A control beside the plain run


def compare_control(control: Control, rows: list[Row], plain: list[Row]) -> dict[str, Any]:
    """What a control shows, beside the plain run over the same items.

    Returns:
        "difference": multiple choice, control minus plain, paired.
        For a control that takes something away, over the questions that need it: "accuracy", the exact "chance" level
        of a guesser without it, their "gap", and "verdict": "contains" if the interval of the accuracy contains the
        chance level, else "above" or "below"; "kinds": the same by format and by family. "kept": control minus plain
        on questions that what is left is enough for.
        For a moved clock: "moved", the share of the ranges answered in the plain run whose two ends moved with it.
    """
    before = {row["id"]: row for row in plain}
    choice = [row for row in rows if row["form"] == "choice"]

    def change(row: Row) -> float:
        return float(row["correct"]) - float(before[row["id"]]["correct"])

    result: dict[str, Any] = {"difference": _interval(choice, change)._asdict()}
    if control.guesser is not None:
        result["guesser"] = control.guesser
        lacking = [row for row in choice if _lacks(control.guesser, row)]
        result |= _against_chance(lacking, control.guesser)
        result["kinds"] = {
            tag: {value: _against_chance(group, control.guesser) for value, group in _grouped(lacking, tag).items()}
            for tag in ("question_type", "family")
        }
        enough = [row for row in choice if row["tags"].get("needs") == control.guesser]
        if enough:
            result["kept"] = _interval(enough, change)._asdict()
    if control.clock:
        ranges = [row for row in rows if row["form"] == "range" and before[row["id"]]["parsed"] is not None]
        seconds = control.clock / 1e6
        result["moved"] = _interval(ranges, lambda row: _has_moved(row, before[row["id"]], seconds))._asdict()
    return result


def _lacks(guesser: str, row: Row) -> bool:
    """Whether an item asks for what a guesser does not have."""
    if guesser == "timeless":  # order is left, and answers many questions that name no time
        return row["tags"].get("question_type") != "global"
    return row["tags"].get("needs") != guesser


def _against_chance(rows: list[Row], guesser: str) -> dict[str, Any]:
    accuracy, chance = _interval(rows, "correct"), _mean_chance(rows).get(guesser, float("nan"))
    gap = _interval(rows, lambda row: row["correct"] - row["chance"][guesser])
    verdict = "contains" if accuracy.contains(chance) else "above" if accuracy.low > chance else "below"
    return {"accuracy": accuracy._asdict(), "chance": chance, "gap": gap._asdict(), "verdict": verdict}


def _has_moved(row: Row, before: Row, seconds: float) -> bool:
    return row["parsed"] is not None and all(
        abs(after - earlier - seconds) <= CLOCK_TOLERANCE
        for after, earlier in zip(row["parsed"], before["parsed"], strict=True)
    )


# ---------------------------------------------------------------------------------------------------------------------
# All runs


def summarise(runs: dict[str, dict[Control, list[Row]]], reference: str | None = None) -> dict[str, Any]:
    """Everything about the runs over some benchmarks.

    Args:
        runs: rows by benchmark and control; each benchmark has its plain run.
        reference: the benchmark that the others are compared with; the first one if None.

    Returns:
        {"accuracy": of multiple choice in the plain run of `reference`,
        "benchmarks": {name: {"plain": ..., "controls": {name: ...}, "difference": ...}}}; "difference" is accuracy in
        multiple choice minus that of `reference`, over different videos.
    """
    reference = reference or next(iter(runs))

    def right(rows: list[Row]) -> tuple[list[float], list[str]]:
        choice = [row for row in rows if row["form"] == "choice"]
        return [float(row["correct"]) for row in choice], [row["video_id"] for row in choice]

    benchmarks = {}
    for name, by_control in runs.items():
        plain = by_control[PLAIN]
        found: dict[str, Any] = {"plain": summarise_run(plain)}
        if name != reference:
            found["difference"] = difference_interval(*right(plain), *right(runs[reference][PLAIN]))._asdict()
        found["controls"] = {
            control.name: summarise_run(rows) | {"against_plain": compare_control(control, rows, plain)}
            for control, rows in by_control.items()
            if control != PLAIN
        }
        benchmarks[name] = found
    headline = benchmarks[reference]["plain"]
    figure = headline["choice"]["accuracy"]["value"] if "choice" in headline else None
    return {"accuracy": figure, "benchmarks": benchmarks}


def write_report(out_dir: str | os.PathLike, summary: dict[str, Any], text: str) -> dict[str, Any]:
    """`summary.json` and `report.md` in a run's folder. Returns the summary as JSON can hold it."""
    summary = _without_nan(summary)
    for name, content in (("summary.json", json.dumps(summary, indent=2) + "\n"), ("report.md", text)):
        with written_whole(Path(out_dir) / name) as partial:
            Path(partial).write_text(content, encoding="utf-8")
    return summary


def _without_nan(value):
    """JSON has no NaN: what could not be computed is null."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def percent(interval: dict[str, Any], signed: bool = False) -> str:
    """ "91.2 [89.9, 92.4]": value and interval in percent."""
    numbers = [f"{100 * interval[name]:{'+' if signed else ''}.1f}" for name in ("value", "low", "high")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def table(header: list[str], rows: Iterable[list[Any]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows] + [""]


def markdown(summary: dict[str, Any], title: str, notes: Iterable[str] = ()) -> str:
    """All tables of `summarise`."""
    lines = [
        f"# {title}",
        "",
        *notes,
        "Intervals: 95 %, bootstrap over videos. Unparsable answers count as wrong.",
        "",
    ]
    flat = []
    for name, found in summary["benchmarks"].items():
        flat.append((name, "", found["plain"]))
        flat += [(name, control, one) for control, one in found["controls"].items()]
    lines += ["## Multiple choice, percent right", ""]
    types = list(dict.fromkeys(key for *_, one in flat for key in _types(one)))
    lines += table(
        ["benchmark", "control", "videos", "questions", "all", *types, "unparsable", "contradictory"],
        [
            [
                name, control or "-", one["videos"], one["choice"]["accuracy"]["n"],
                percent(one["choice"]["accuracy"]),
                *(percent(_types(one)[key]["accuracy"]) if key in _types(one) else "-" for key in types),
                one["choice"]["unparsable"], one["choice"]["contradictory"],
            ]
            for name, control, one in flat
            if "choice" in one
        ],
    )  # fmt: skip
    lines += ["## Open form", ""]
    lines += table(
        ["benchmark", "control", "ranges", "mean IoU, %", "exact, %", "unparsable", "others", "exact words, %"],
        [
            [
                name, control or "-",
                *(
                    [one["range"]["mean_iou"]["n"], percent(one["range"]["mean_iou"]),
                     percent(one["range"]["accuracy"]), one["range"]["unparsable"]]
                    if "range" in one else ["-"] * 4
                ),
                *([one["words"]["accuracy"]["n"], percent(one["words"]["accuracy"])] if "words" in one else ["-"] * 2),
            ]
            for name, control, one in flat
            if "range" in one or "words" in one
        ],
    )  # fmt: skip
    lines += _control_tables(summary)
    lines += _detail_tables(summary)
    return "\n".join(lines)


def _types(one: dict[str, Any]) -> dict[str, Any]:
    return one.get("choice", {}).get("by", {}).get("question_type", {})


def _control_tables(summary: dict[str, Any]) -> list[str]:
    rows, moved, differences = [], [], []
    for name, found in summary["benchmarks"].items():
        if "difference" in found:
            differences.append([name, percent(found["difference"], signed=True)])
        for control, one in found["controls"].items():
            against = one["against_plain"]
            if "moved" in against:
                moved.append([name, control, against["moved"]["n"], percent(against["moved"])])
            if "guesser" in against:
                kinds = against["kinds"]["family"]
                inside = sum(kind["verdict"] == "contains" for kind in kinds.values())
                rows.append(
                    [
                        name, control, against["guesser"], against["accuracy"]["n"], percent(against["accuracy"]),
                        f"{100 * against['chance']:.1f}", percent(against["gap"], signed=True),
                        f"{inside} of {len(kinds)}",
                        percent(against["kept"], signed=True) if "kept" in against else "-",
                    ]
                )  # fmt: skip
    lines = []
    if rows:
        lines += [
            "## Controls",
            "",
            "Over the questions that need what is missing: accuracy, and the exact level of the best guesser without "
            "it. `families`: how many have an interval that contains their level; of twenty, one misses it by chance. "
            "`kept`: change on questions that what is left is enough for.",
            "",
        ]
        lines += table(
            ["benchmark", "control", "guesser", "questions", "accuracy", "chance", "gap", "families", "kept"], rows
        )
        lines += _kind_tables(summary)
    if moved:
        lines += ["## Moved clock", "", "Answered ranges (open form) of which both ends moved with the clock.", ""]
        lines += table(["benchmark", "control", "ranges", "moved, %"], moved)
    if differences:
        lines += ["## Difference of multiple choice to the first benchmark, points", ""]
        lines += table(["benchmark", "difference"], differences)
    return lines


def _kind_tables(summary: dict[str, Any]) -> list[str]:
    """For each benchmark a table of kinds by controls: accuracy, its interval, and the chance level behind it."""
    lines = []
    for name, found in summary["benchmarks"].items():
        against = {control: one["against_plain"] for control, one in found["controls"].items()}
        against = {control: one for control, one in against.items() if "kinds" in one}
        if not against:
            continue
        rows = []
        for tag in ("question_type", "family"):
            for value in sorted({value for one in against.values() for value in one["kinds"][tag]}):
                row = [f"**{value}**" if tag == "question_type" else value]
                for one in against.values():
                    kind = one["kinds"][tag].get(value)
                    mark = "" if kind is None or kind["verdict"] == "contains" else f", {kind['verdict']}"
                    row.append(f"{percent(kind['accuracy'])}, {100 * kind['chance']:.1f}{mark}" if kind else "-")
                rows.append(row)
        lines += [f"### {name}: accuracy and chance level by kind", ""]
        lines += table(["kind", *against], rows)
    return lines


def _detail_tables(summary: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in summary["benchmarks"].items():
        if "choice" not in found["plain"]:
            continue
        choice = found["plain"]["choice"]
        test = choice["letters"]["right"]
        guessers = list(choice["chance"])
        lines += [f"## {name}: multiple choice by kind", ""]
        lines += [
            f"Right letters {', '.join(f'{letter} {count}' for letter, count in test['counts'].items())} "
            f"(chi-square {test['chi_square']:.2f}, p = {test['p_value']:.2f}); "
            f"said {', '.join(f'{letter} {count}' for letter, count in choice['letters']['said'].items())}.",
            "",
        ]
        rows = []
        for tag, values in choice["by"].items():
            for value, one in values.items():
                levels = [f"{100 * one['chance'][guesser]:.1f}" for guesser in guessers]
                rows.append([tag, value, one["accuracy"]["n"], percent(one["accuracy"]), *levels])
        lines += table(["by", "kind", "questions", "accuracy", *(f"chance: {name}" for name in guessers)], rows)
    return lines
