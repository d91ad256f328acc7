"""From rows of answers to figures: a summary that programs read. `tables` and `plots` are made of it."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..files import written_whole
from .benchmarks import Benchmark
from .controls import PLAIN, Control
from .statistics import (
    Interval,
    difference_interval,
    letter_test,
    mean_interval,
    subsampling,
    synergy_interval,
)
from .text_metrics import MetricUnavailableError, caption_metrics, word_error_rate


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
    figure for each value of each tag. Unparsable answers count as wrong, and so do those whose medium could not be
    read ("unreadable"). "caption" holds what `caption_metrics` gives, "transcript" a "word_error_rate". "fed" says
    what the model was given, on average over items.
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
            widths = [len(row["options"]) for row in found]
            part["letters"] = {
                "right": letter_test([row["answer"] for row in found], widths)._asdict(),
                "said": dict(sorted(Counter(row["parsed"] or "none" for row in found).items())),
                "accuracy": {
                    letter: _interval([row for row in found if row["answer"] == letter], "correct")._asdict()
                    for letter in sorted({row["answer"] for row in found})
                },
            }
        part["by"] = {
            tag: {
                value: {figures[0]: _interval(group, columns[figures[0]])._asdict(), "chance": _mean_chance(group)}
                for value, group in _grouped(found, tag).items()
            }
            for tag in _tags(found)
        }
        summary[form] = part
    return summary | _summarise_texts(rows) | {"fed": _fed(rows), "unreadable": sum("error" in row for row in rows)}


def _summarise_texts(rows: list[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    captions = [row for row in rows if row["form"] == "caption"]
    if captions:
        references = [row.get("references") or [row["answer"]] for row in captions]
        try:
            found["caption"] = caption_metrics([row["output"] for row in captions], references, videos_of(captions))
        except MetricUnavailableError as error:
            found["caption"] = {"unavailable": str(error)}
    spoken = [row for row in rows if row["form"] == "transcript"]
    if spoken:
        errors, words = [row["errors"] for row in spoken], [row["words"] for row in spoken]
        found["transcript"] = {
            "word_error_rate": word_error_rate(errors, words, videos_of(spoken)),
            "words": sum(words),
        }
    return found


def _fed(rows: list[Row]) -> dict[str, Any]:
    """Means over items that were asked, and how many were given no picture or no sound."""
    fed = [row["fed"] for row in rows if row["fed"]]
    if not fed:
        return {}
    names = [
        name for name in ("frames", "audio_seconds", "video_seconds", "tokens") if all(name in one for one in fed)
    ]
    found = {name: float(np.mean([one[name] for one in fed])) for name in names}
    for name, what in (("frames", "without_picture"), ("audio_seconds", "without_sound")):
        if name in names:
            found[what] = sum(not one[name] for one in fed)
    return found


def videos_of(rows: list[Row]) -> list[str]:
    return [row["video_id"] for row in rows]


def scored(rows: list[Row]) -> list[Row]:
    """The rows that a benchmark's accuracy is over: its choices, or, where there are none, its open questions."""
    choice = [row for row in rows if row["form"] == "choice"]
    return choice or [row for row in rows if row["form"] == "words"]


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
    choice = scored(rows)
    if control.circular:
        return _circular(choice, plain)

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


def _circular(rotated: list[Row], plain: list[Row]) -> dict[str, Any]:
    """Choices asked once for each rotation of their options: "consistent", right in all of them, the plain one among
    them; "mean", right on average; and how much right answers depend on the letter they stand at ("by_letter")."""
    turns: dict[str, list[Row]] = defaultdict(list)
    for row in scored(plain):
        if row["form"] == "choice":
            turns[row["id"]].append(row)
    for row in rotated:
        turns[row["id"].rpartition("~")[0]].append(row)
    whole = [those for those in turns.values() if len(those) > 1]
    every = [row for those in whole for row in those]
    videos = [those[0]["video_id"] for those in whole]
    return {
        "consistent": mean_interval(
            [float(all(row["correct"] for row in those)) for those in whole], videos
        )._asdict(),
        "mean": _interval(every, "correct")._asdict(),
        "by_letter": {
            letter: _interval([row for row in every if row["answer"] == letter], "correct")._asdict()
            for letter in sorted({row["answer"] for row in every})
        },
    }


def modalities(by_control: dict[Control, list[Row]]) -> dict[str, Any]:
    """What sound and picture give, alone and together, where controls were run that tell.

    Returns:
        "synergy": AV synergy, acc(AV) - max(acc(A), acc(V)); "blind_gap": plain minus no medium at all; "without":
        the controls they were read off.
    """
    plain = {row["id"]: float(row["correct"]) for row in scored(by_control[PLAIN])}

    def only(deaf: bool, sightless: bool) -> tuple[str, dict[str, float]] | None:
        for control, rows in by_control.items():
            pure = not (control.retimes or control.shift or control.swap or control.circular)
            if pure and (control.deaf, control.sightless) == (deaf, sightless) and (deaf or sightless):
                return control.name, {row["id"]: float(row["correct"]) for row in scored(rows)}
        return None

    found: dict[str, Any] = {}
    video = {row["id"]: row["video_id"] for row in scored(by_control[PLAIN])}
    heard, seen, blind = only(False, True), only(True, False), only(True, True)
    if heard and seen:
        ids = [one for one in plain if one in heard[1] and one in seen[1]]
        columns = ([part[one] for one in ids] for part in (plain, heard[1], seen[1]))
        found["synergy"] = synergy_interval(*columns, [video[one] for one in ids])._asdict()
        found["without"] = {"picture": heard[0], "sound": seen[0]}
    if blind:
        ids = [one for one in plain if one in blind[1]]
        gaps = [plain[one] - blind[1][one] for one in ids]
        found["blind_gap"] = mean_interval(gaps, [video[one] for one in ids])._asdict()
    return found


def _lacks(guesser: str, row: Row) -> bool:
    """Whether an item asks for what a guesser does not have."""
    if guesser == "timeless":  # order is left, and answers many questions that name no time
        return row["tags"].get("question_type") != "global"
    return row["tags"].get("needs") != guesser


def _against_chance(rows: list[Row], guesser: str) -> dict[str, Any]:
    levels = [_level(row, guesser) for row in rows]
    accuracy, chance = _interval(rows, "correct"), float(np.mean(levels)) if levels else float("nan")
    gap = _interval(rows, lambda row: row["correct"] - _level(row, guesser))
    if not np.isfinite(chance):
        return {"accuracy": accuracy._asdict(), "chance": chance, "gap": gap._asdict(), "verdict": "unknown"}
    verdict = "contains" if accuracy.contains(chance) else "above" if accuracy.low > chance else "below"
    return {"accuracy": accuracy._asdict(), "chance": chance, "gap": gap._asdict(), "verdict": verdict}


def _level(row: Row, guesser: str) -> float:
    """The exact level of a guesser, where a benchmark knows it; else one over the number of options. Without options
    there is none."""
    if guesser in row["chance"]:
        return row["chance"][guesser]
    return 1 / len(row["options"]) if row["options"] and not row["chance"] else float("nan")


def _has_moved(row: Row, before: Row, seconds: float) -> bool:
    return row["parsed"] is not None and all(
        abs(after - earlier - seconds) <= CLOCK_TOLERANCE
        for after, earlier in zip(row["parsed"], before["parsed"], strict=True)
    )


# ---------------------------------------------------------------------------------------------------------------------
# All runs


def summarise(runs: dict[str, dict[Control, list[Row]]]) -> dict[str, Any]:
    """Everything about the runs over some benchmarks.

    Args:
        runs: rows by benchmark and control; each benchmark has its plain run.

    Returns:
        {"accuracy": of multiple choice in the plain run of the first benchmark,
        "benchmarks": {name: {"plain": ..., "controls": {name: ...}, "difference": ...}}}; "difference" is accuracy in
        multiple choice minus that of the first benchmark, over different videos.
    """
    reference = next(iter(runs))

    def right(rows: list[Row]) -> tuple[list[float], list[str]]:
        return [float(row["correct"]) for row in scored(rows)], videos_of(scored(rows))

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
        found |= modalities(by_control)
        values, videos = right(plain)
        found["stability"] = [one._asdict() for one in subsampling(values, videos)]
        benchmarks[name] = found
    headline = benchmarks[reference]["plain"]
    form = next((form for form in ("choice", "words") if form in headline), None)
    return {"accuracy": headline[form]["accuracy"]["value"] if form else None, "benchmarks": benchmarks}


def summarise_likelihoods(runs: dict[Control, list[Row]]) -> dict[str, Any]:
    """The second protocol beside the first: accuracy of the most probable answer, by control."""
    return {control.name: _interval(rows, "correct")._asdict() for control, rows in runs.items()}


def denominator(benchmark: Benchmark, rows: list[Row]) -> dict[str, Any]:
    """What accuracy is over, and what it would be if everything that was left out counted as wrong.

    Returns:
        "published" items, "asked" ones, "left_out" with the "problems" by kind, "beyond_limit" (of videos that were
        not chosen), "unreadable" (asked for, counted as wrong), and "accuracy_of_published", which is over what was
        asked and left out.
    """
    published = len(rows) + benchmark.left_out + benchmark.beyond_limit
    right = sum(bool(row["correct"]) for row in scored(rows))
    whole = len(scored(rows)) + benchmark.left_out
    return {
        "published": published,
        "asked": len(rows),
        "left_out": benchmark.left_out,
        "beyond_limit": benchmark.beyond_limit,
        "problems": dict(sorted(Counter(problem.kind for problem in benchmark.problems).items())),
        "unreadable": sum("error" in row for row in rows),
        "accuracy_of_published": right / whole if scored(rows) else None,
    }


def write_report(out_dir: str | os.PathLike, summary: dict[str, Any], text: str) -> dict[str, Any]:
    """`summary.json` and `report.md` in a run's folder. Returns the summary as JSON can hold it."""
    summary = without_nan(summary)
    for name, content in (("summary.json", json.dumps(summary, indent=2) + "\n"), ("report.md", text)):
        with written_whole(Path(out_dir) / name) as partial:
            Path(partial).write_text(content, encoding="utf-8")
    return summary


def without_nan(value):
    """JSON has no NaN: what could not be computed is null."""
    if isinstance(value, dict):
        return {name: without_nan(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
