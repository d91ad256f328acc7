"""The world's tables: a model and all baselines, plain and under controls, on every split, in one document.

    python benchmarks/world_tables.py --out runs/world [--model DIR] [--docs docs/world_results.md]

Makes `saven eval` runs, one folder each below --out, and goes on with them where it was stopped. Then writes the
document, and beside it the same figures as JSON. Intervals are 95 %, bootstrap over videos; chance levels are the
exact ones that the world stores with each question. `--tables-only` writes the tables of what is there. Two processes
may share the work: `--only model random always-a longest`, `--only text-only speech-text`, then `--tables-only`.

The language model of the baselines is the model's own unless --language-model names another. Nobody speaks in the
world: speech-text reads an empty transcript (no subtitles lie beside the videos), which is what a recogniser without
errors would write; --speech-model names one that makes some.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saven_hf.cli import main as saven
from saven_hf.evaluation import control_named, read_timing
from saven_hf.evaluation.adapters import PARTS
from saven_hf.evaluation.controls import PLAIN
from saven_hf.evaluation.report import compare_control, modalities, summarise_run, without_nan
from saven_hf.evaluation.statistics import difference_interval, mean_interval
from saven_hf.evaluation.tables import percent, table, tables_in
from saven_hf.files import written_whole
from saven_hf.hub import resolve_model
from saven_hf.version import __version__
from saven_hf.world import SPLITS


MODEL = "model"
GUESSERS = ("random", "always-a", "longest")
READERS = ("text-only", "speech-text")
WHO = (MODEL, *GUESSERS, *READERS)
# The runs of each; guessers cost seconds and have them all the same.
RUNS = {who: ("iid", "splits", "removed", "moved") for who in WHO}
RUNS["text-only"] += ("sync",)
RUNS[MODEL] += ("sync", "speed")
SUBTITLES = "subtitles"
HELD_OUT = tuple(name for name, split in SPLITS.items() if split.held_out and name != "iid")
FORMATS = ("global", "timestamped", "time_range")
REMOVED = ("mute", "black", "mute+black")
MOVED = ("no-time", "swap", "shift=+2", "clock=+100")
# Smallest accuracy in multiple choice that the world was made for.
WANTED = {"iid": 0.9, "unseen_pairs": 0.8, "paraphrases": 0.8, "long2": 0.75}
BY_WEIGHT = " by the most probable option"

Row = dict[str, Any]


class Run(NamedTuple):
    """A call of `saven eval`: its folder, and the words that follow `saven eval`."""

    folder: Path
    words: list[str]


def planned(args: argparse.Namespace, out: Path) -> Iterator[tuple[str, str, Run]]:
    """All runs, as (who, what, run). The order lets later ones find the videos of earlier ones."""
    shared = ["--data", str(out / "videos"), "--seed", str(args.seed)]
    shared += ["--device", args.device] if args.device else []
    for who in args.only or WHO:
        asked = [*shared, *_who(args, out, who)]
        weighs = ["--protocol", "likelihood"] if who not in GUESSERS else []
        runs = {
            "iid": ["world", "--split", "iid", "--videos", args.videos, *weighs],
            "splits": ["world", "--split", ",".join(HELD_OUT), "--videos", args.split_videos, *weighs],
            "removed": ["world", "--videos", args.control_videos, "--control", _possible(args, who, REMOVED), *weighs],
            "moved": ["world", "--videos", args.control_videos, "--control", _possible(args, who, MOVED), *weighs],
            "sync": ["world-sync", "--videos", args.sync_videos],
            "speed": ["world", "--videos", args.speed_videos, "--forms", "choice"],
        }
        for what in RUNS[who]:
            words = runs[what]
            folder = out / who / what
            yield who, what, Run(folder, ["--benchmark", *map(str, words), *asked, "--out", str(folder)])


def _possible(args: argparse.Namespace, who: str, controls: tuple[str, ...]) -> str:
    """The controls that someone can be asked under: subtitles are of the file as it was, not of an edited one."""
    if who == "speech-text" and args.speech_model == SUBTITLES:
        named = {name: control_named(name) for name in controls}
        controls = tuple(name for name, control in named.items() if control.mute or not control.edits_file)
    return ",".join(controls)


def _who(args: argparse.Namespace, out: Path, who: str) -> list[str]:
    sizes = ["--batch-size", str(args.batch_size)] if args.batch_size else []
    if who == MODEL:
        return [*sizes, "--model", resolve_model(args.model)]
    if who in GUESSERS:
        return ["--baseline", who]
    words = [*sizes, "--baseline", who, "--model", resolve_model(args.language_model or args.model)]
    if who == "speech-text":
        words += ["--speech-model", args.speech_model]
    return words


def command_of(args: argparse.Namespace) -> str:
    """The command of these arguments, defaults spelt out; of paths their last part."""
    words = ["python", "benchmarks/world_tables.py"]
    for name, value in vars(args).items():
        if value is None or name in ("docs", "tables_only"):
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *(Path(str(one)).name for one in values)]
    return shlex.join(words)


def carry_out(args: argparse.Namespace, out: Path) -> None:
    """Make every run, or the rest of it, and note by which command.

    Raises:
        SystemExit: `saven eval` refused one; it has said why.
    """
    spent_path = out / "seconds.json"
    for who, what, run in planned(args, out):
        name = f"{who}/{what}"
        run.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(run.folder / "command.txt") as partial:
            Path(partial).write_text(command_of(args) + "\n", encoding="utf-8")
        print(f"\n{name}: saven eval {' '.join(run.words)}", flush=True)
        before, clock, cpu = sum(read_timing(run.folder).values()), time.perf_counter(), time.process_time()
        if code := saven(["eval", *run.words]):
            raise SystemExit(code)
        # A run that was complete spends its time on tables. Another process may have noted its own meanwhile.
        spent = json.loads(spent_path.read_text()) if spent_path.is_file() else {}
        if sum(read_timing(run.folder).values()) > before or name not in spent:
            earlier = spent.get(name, {"wall": 0.0, "cpu": 0.0})
            spent[name] = {
                "wall": round(earlier["wall"] + time.perf_counter() - clock, 1),
                "cpu": round(earlier["cpu"] + time.process_time() - cpu, 1),
            }
            with written_whole(spent_path) as partial:
                Path(partial).write_text(json.dumps(spent, indent=1) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def rows_of(folder: Path, benchmark: str, control: str = "plain", weighed: bool = False) -> list[Row]:
    """Lines of a run's items; none if they are not there."""
    path = folder / "items" / f"{benchmark}.{control}{'.likelihood' if weighed else ''}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def figures_of(out: Path) -> dict[str, Any]:
    """Everything that the tables say, of the runs that are complete."""
    done = {
        f"{path.parent.parent.name}/{path.parent.name}": path.parent for path in sorted(out.glob("*/*/summary.json"))
    }
    found: dict[str, Any] = {"code_version": __version__, "settings": {}, "plain": {}, "controls": {}, "weighed": {}}
    commands = [folder / "command.txt" for folder in done.values()]
    found["commands"] = list(
        dict.fromkeys(path.read_text(encoding="utf-8").strip() for path in commands if path.is_file())
    )
    found["not_made"] = [f"{who}/{what}" for who in WHO for what in RUNS[who] if f"{who}/{what}" not in done]
    for who in WHO:
        plain = {}
        for split, what in (("iid", "iid"), *((split, "splits") for split in HELD_OUT)):
            rows = rows_of(done[f"{who}/{what}"], f"world-{split}") if f"{who}/{what}" in done else []
            if rows:
                choices = [row for row in rows if row["form"] == "choice"]
                plain[split] = summarise_run(rows) | {"uniform": uniform_chance(choices)}
                if weighed := rows_of(done[f"{who}/{what}"], f"world-{split}", weighed=True):
                    plain[split]["weighed"] = summarise_run(weighed)["choice"]
        if plain:
            found["plain"][who] = plain
            first = done[f"{who}/{'iid' if 'iid' in plain else 'splits'}"]
            found["settings"][who] = json.loads((first / "run.json").read_text(encoding="utf-8"))
        for what, controls in (("removed", REMOVED), ("moved", MOVED)):
            if f"{who}/{what}" in done:
                folder = done[f"{who}/{what}"]
                found["controls"].setdefault(who, {}).update(_under(folder, controls, False))
                found["weighed"].setdefault(who, {}).update(_under(folder, controls, True))
    found["weighed"] = {who: one for who, one in found["weighed"].items() if one}
    if f"{MODEL}/removed" in done:
        every = {name: rows_of(done[f"{MODEL}/removed"], "world-iid", name) for name in ("plain", *REMOVED)}
        found["modalities"] = modalities({control_named(name): rows for name, rows in every.items()})
    if "vfr" in found["plain"].get(MODEL, {}) and "iid" in found["plain"][MODEL]:
        vfr, iid = (
            [row for row in rows_of(done[f"{MODEL}/{what}"], f"world-{split}") if row["form"] == "choice"]
            for what, split in (("splits", "vfr"), ("iid", "iid"))
        )
        found["vfr_cost"] = difference_interval(*_right(iid), *_right(vfr))._asdict()
    found["sync"] = {
        who: json.loads((done[f"{who}/sync"] / "summary.json").read_text())["benchmarks"]["sync-iid"]["figures"]
        for who in (MODEL, "text-only")
        if f"{who}/sync" in done
    }
    if MODEL in found["sync"]:
        settings = json.loads((done[f"{MODEL}/sync"] / "run.json").read_text())
        found["sync_frames"] = settings.get("frames")
    found["seconds"] = _seconds(out, done)
    return found


def uniform_chance(choices: list[Row]) -> float:
    """Accuracy of who takes each option with the same probability."""
    return float(np.mean([1 / len(row["options"]) for row in choices]))


def _right(rows: list[Row]) -> tuple[list[float], list[str]]:
    return [float(row["correct"]) for row in rows], [row["video_id"] for row in rows]


def _under(folder: Path, controls: tuple[str, ...], weighed: bool) -> dict[str, Any]:
    """For each control (and "plain"): accuracy over all choices, the mean level of the best guesser that lacks the
    same, and what `compare_control` finds."""
    plain = rows_of(folder, "world-iid", weighed=weighed)
    found = {}
    for name in ("plain", *controls):
        control = control_named(name)
        rows = rows_of(folder, "world-iid", name, weighed)
        choices = [row for row in rows if row["form"] == "choice"]
        if not choices:
            continue
        found[name] = {"all": mean_interval(*_right(choices))._asdict(), "uniform": uniform_chance(choices)}
        if control.guesser:
            found[name]["level"] = float(np.mean([row["chance"][control.guesser] for row in choices]))
        if control != PLAIN:
            found[name] |= compare_control(control, rows, plain)
    return found


def _seconds(out: Path, done: dict[str, Path]) -> dict[str, Any]:
    """Of the model's runs: seconds by part; of the run for speed, seconds for 1,000 multiple-choice items."""
    parts = {name: read_timing(folder) for name, folder in done.items() if name.startswith(f"{MODEL}/")}
    found: dict[str, Any] = {"parts": {name: one for name, one in parts.items() if one}}
    spent = out / "seconds.json"
    found["spent"] = json.loads(spent.read_text()) if spent.is_file() else {}
    name = f"{MODEL}/speed"
    if name in done:
        items = len(rows_of(done[name], "world-iid"))
        found["items"] = items
        found["per_1000"] = {
            "parts": 1000 / items * sum(parts[name].values()),
            **{key: 1000 / items * value for key, value in found["spent"].get(name, {}).items()},
        }
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def document(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    commands = " and ".join(f"`{command}`" for command in found["commands"]) or "a command that it did not note"
    lacking = f" Not made: {', '.join(found['not_made'])}." if found["not_made"] else ""
    lines = [
        "# Results on the world",
        "",
        f"The runs were made by {commands} (saven-hf {found['code_version']}).{lacking} The same figures are in the "
        "JSON file beside this one. Videos are unseen ones, real mp4 through the real decoder; answers are greedy. In "
        "brackets 95 % intervals, bootstrap over videos. Unparsable answers count as wrong. Splits and questions: "
        "[world.md](world.md); controls and chance levels: [evaluation.md](evaluation.md).",
        "",
    ]
    for who, settings in found["settings"].items():
        told = {key: value for key, value in settings.items() if key not in ("code_version", "benchmarks")}
        lines.append(f"- {who}: `{json.dumps(told)}`")
    if found["settings"].get("speech-text", {}).get("speech") == SUBTITLES:
        lines += [
            "",
            "Nobody speaks in the world and no subtitles lie beside its videos: the transcript that speech-text reads "
            "is empty, and its questions are those of text-only. Controls that edit the file but leave its sound are "
            "not asked of it.",
        ]
    lines += ["", *_goal_tables(found), *_plain_tables(found), *_control_tables(found), *_sync_tables(found)]
    return "\n".join([*lines, *_time_tables(found)])


def goals(found: dict[str, Any]) -> list[tuple[str, str, bool | None]]:
    """What the world was made for: (goal, what was reached, whether it was). None: not measured."""
    plain, controls = found["plain"].get(MODEL, {}), found["controls"].get(MODEL, {})
    listed: list[tuple[str, str, bool | None]] = []

    def add(goal: str, interval: dict[str, Any] | None, holds, signed: bool = False) -> None:
        if interval is None or interval["value"] is None or not np.isfinite(interval["value"]):
            listed.append((goal, "-", None))
        else:
            listed.append((goal, percent(interval, signed), bool(holds(interval["value"]))))

    for split, least in WANTED.items():
        for form, how in (("choice", ""), ("weighed", BY_WEIGHT)):
            add(
                f"multiple choice, `{split}`{how}: at least {100 * least:.0f} %",
                plain.get(split, {}).get(form, {}).get("accuracy"),
                lambda value, low=least: value >= low,
            )
    iou = plain.get("iid", {}).get("range", {}).get("mean_iou")
    add("open time ranges, `iid`: mean IoU at least 80 %", iou, lambda value: value >= 0.8)
    weighed = found["weighed"].get(MODEL, {})
    for name in REMOVED:
        for how, those in (("", controls), (BY_WEIGHT, weighed)):
            goal = f"`{name}`{how}: the interval contains the exact level, gap at most 3 points"
            one = those.get(name)
            if one is None:
                listed.append((goal, "-", None))
                continue
            met = one["verdict"] == "contains" and abs(one["gap"]["value"]) <= 0.03
            reached = f"{percent(one['accuracy'])} for {100 * one['chance']:.1f}; gap {percent(one['gap'], True)}"
            listed.append((goal, reached, met))
        left, kept = "picture" if name == "mute" else "sound", controls.get(name, {}).get("kept")
        if name != "mute+black":
            add(f"`{name}`: {left}-only questions stay within 3 points", kept, lambda v: abs(v) <= 0.03, True)
    for how, those in (("", controls), (BY_WEIGHT, weighed)):
        timeless = those.get("no-time")
        add(f"`no-time`{how}: questions with times are at the exact level", timeless and timeless["accuracy"],
            lambda _, found=timeless: found["verdict"] == "contains")  # fmt: skip
    moved = controls.get("clock=+100", {}).get("moved")
    add("`clock=+100`: at least 90 % of ranges move by 100 +- 1 s", moved, lambda value: value >= 0.9)
    add("irregular frame times cost at most 3 points", found.get("vfr_cost"), lambda value: value <= 0.03, True)
    sync = found["sync"].get(MODEL)
    add("shifts of 0.5 s and more: balanced accuracy at least 85 %", sync and sync["balanced_accuracy"],
        lambda value: value >= 0.85)  # fmt: skip
    seconds = found["seconds"].get("per_1000", {})
    taken = seconds.get("wall", seconds.get("parts"))
    goal = "1,000 multiple-choice items: at most 10 minutes on two cores"
    told = "-" if taken is None else f"{taken / 60:.1f} min by the clock"
    told += f", {seconds['cpu'] / 60:.1f} min of CPU" if "cpu" in seconds else ""
    listed.append((goal, told, None if taken is None else taken <= 600))
    return listed


def _goal_tables(found: dict[str, Any]) -> list[str]:
    words = {True: "yes", False: "**no**", None: "not measured"}
    rows = [[goal, reached, words[met]] for goal, reached, met in goals(found)]
    return ["## What the world was made for", "", *table(["goal", "reached, %", "met"], rows)]


def _plain_tables(found: dict[str, Any]) -> list[str]:
    plain = found["plain"]
    splits = [split for split in ("iid", *HELD_OUT) if any(split in one for one in plain.values())]
    if not splits:
        return []
    rows = [
        [f"{who}{how}", *(percent(one[split][form]["accuracy"]) if split in one else "-" for split in splits)]
        for who, form, how, one in _by_protocol(plain)
    ]
    first = {split: next(one[split] for one in plain.values() if split in one) for split in splits}
    rows += [["questions", *(one["choice"]["accuracy"]["n"] for one in first.values())]]
    rows += [["videos", *(one["videos"] for one in first.values())]]
    rows += [["uniform chance", *(_level(one.get("uniform")) for one in first.values())]]
    for guesser in ("text", "picture", "sound", "timeless"):
        levels = [f"{100 * one['choice']['chance'][guesser]:.1f}" for one in first.values()]
        rows.append([f"best guesser that has {_HAS[guesser]}", *levels])
    lines = ["## Multiple choice, percent right, by split", "", *table(["", *splits], rows)]
    rows = []
    for who, form, how, one in _by_protocol(plain):
        if "iid" not in one:
            continue
        by, opened = one["iid"][form]["by"]["question_type"], one["iid"] if form == "choice" else {}
        rows.append([
            f"{who}{how}", *(percent(by[name]["accuracy"]) if name in by else "-" for name in FORMATS),
            one["iid"][form]["unparsable"],
            *(percent(opened[sort][name]) if sort in opened else "-"
              for sort, name in (("words", "accuracy"), ("range", "mean_iou"))),
        ])  # fmt: skip
    if rows:
        by = first["iid"]["choice"]["by"]["question_type"]
        levels = [f"{100 * by[name]['chance']['text']:.1f}" if name in by else "-" for name in FORMATS]
        rows.append(["best guesser that has the text", *levels, "-", "-", "-"])
        header = ["", *FORMATS, "unparsable", "open, all words right, %", "open ranges, mean IoU, %"]
        lines += ["## By format, `iid`", "", *table(header, rows)]
    rows = [
        [who, split, percent(one["words"]["accuracy"]) if "words" in one else "-",
         percent(one["range"]["mean_iou"]) if "range" in one else "-"]
        for who in (MODEL, "text-only") for split, one in plain.get(who, {}).items() if split != "iid"
    ]  # fmt: skip
    header = ["", "split", "open, all words right, %", "open ranges, mean IoU, %"]
    return [*lines, "## Open questions on the other splits", "", *table(header, rows)] if rows else lines


def _by_protocol(plain: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Who, the key of multiple choice, how to name it, and the figures by split; those without it are left out."""
    for who, one in plain.items():
        for form, how in (("choice", ""), ("weighed", BY_WEIGHT)):
            if found := {split: figures for split, figures in one.items() if form in figures}:
                yield who, form, how, found


_HAS = {
    "text": "the text", "picture": "the picture", "sound": "the sound", "timeless": "no times and no order",
}  # fmt: skip


def _control_tables(found: dict[str, Any]) -> list[str]:
    lines = []
    for key, title in (("controls", "Controls"), ("weighed", f"Controls,{BY_WEIGHT}")):
        rows = [
            [
                who, name, one["all"]["n"], percent(one["all"]), _level(one.get("uniform")), _level(one.get("level")),
                percent(one["accuracy"]) if "accuracy" in one else "-", _level(one.get("chance")),
                percent(one["gap"], True) if "gap" in one else "-", one.get("verdict", "-"),
                percent(one["kept"], True) if "kept" in one else "-",
            ]
            for who, those in found[key].items()
            for name, one in those.items()
        ]  # fmt: skip
        if rows:
            lines += [
                f"## {title}",
                "",
                "All: over all questions, beside uniform chance (one over the number of options) and the best "
                "possible guesser that lacks the same. Then over the "
                "questions that need what is missing: accuracy, exact chance level, their gap, and whether the "
                "interval contains the level. Kept: change on questions that what is left is enough for.",
                "",
            ]
            header = ["", "control", "questions", "all, %", "uniform chance", "best guesser", "needing, %", "chance",
                      "gap", "level", "kept"]  # fmt: skip
            lines += table(header, rows)
    rows = [
        [who, those["clock=+100"]["moved"]["n"], percent(those["clock=+100"]["moved"])]
        for who, those in found["controls"].items()
        if "clock=+100" in those and those["clock=+100"]["moved"]["n"]
    ]
    if rows:
        lines += ["## Every time 100 s later", "", "Answered open ranges of which both ends moved by 100 +- 1 s.", ""]
        lines += table(["", "ranges", "moved, %"], rows)
    both = found.get("modalities", {})
    if both:
        lines += [
            "## Sound and picture together",
            "",
            f"Accuracy minus the better of the accuracies without sound and without picture: "
            f"{percent(both['synergy'], True)} points. Accuracy minus that with neither: "
            f"{percent(both['blind_gap'], True)} points.",
            "",
        ]
    return lines


def _level(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{100 * value:.1f}"


def _sync_tables(found: dict[str, Any]) -> list[str]:
    if not found["sync"]:
        return []
    rows = [
        [who, one["videos"], percent(one["balanced_accuracy"]), percent(one["unseen"]) if one["unseen"] else "-",
         percent(one["false_alarms"]), one["unparsable"]]
        for who, one in found["sync"].items()
    ]  # fmt: skip
    header = ["", "videos", "balanced accuracy, %", "offsets not trained on, %", "false alarms, %", "unparsable"]
    lines = [
        "## Shift awareness",
        "",
        "Are sound and picture in time? Half of the videos are, the others are 0.5 to 3 s early or late. 50 % is what "
        "one reaches who cannot tell.",
        "",
        *table(header, rows),
    ]
    model = found["sync"].get(MODEL)
    if model:
        rows = [
            [offset, percent(one["noticed"]), percent(one["direction"])] for offset, one in model["by_offset"].items()
        ]
        lines += table(["offset, s", "noticed, %", "direction told, %"], rows)
        lines += [f"Frames fed: `{json.dumps(found['sync_frames'])}`.", ""]
    return lines


def _time_tables(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, parts in found["seconds"]["parts"].items():
        total = sum(parts.values())
        shares = [f"{100 * parts.get(part, 0.0) / total:.0f}" for part in PARTS]
        spent = found["seconds"]["spent"].get(name, {})
        rows.append(
            [name, f"{total:.0f}", *shares, *(f"{spent[key]:.0f}" if spent else "-" for key in ("cpu", "wall"))]
        )
    if not rows:
        return []
    lines = ["## Where the time goes", ""]
    header = ["run", "seconds", *(f"{part}, %" for part in PARTS), "CPU s, with files and tables", "clock s"]
    lines += table(header, rows)
    one = found["seconds"].get("per_1000")
    if one:
        told = f"{one['parts']:.0f} s in these parts"
        told += f", {one['cpu']:.0f} s of CPU and {one['wall']:.0f} s by the clock in all" if "cpu" in one else ""
        lines += [f"1,000 multiple-choice items (from {found['seconds']['items']}): {told}.", ""]
    return lines


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the runs, new or begun")
    parser.add_argument("--docs", metavar="FILE", default="docs/world_results.md", help="document to write")
    parser.add_argument("--model", metavar="MODEL", help="a SAVEnVideo (default: the embedded one)")
    parser.add_argument("--language-model", metavar="MODEL", help="of the baselines that read")
    parser.add_argument("--speech-model", metavar="MODEL", default=SUBTITLES, help="recogniser of speech-text")
    parser.add_argument("--only", nargs="+", choices=WHO, help="not all, but these")
    parser.add_argument("--videos", type=int, default=334, help="of the split iid")
    parser.add_argument("--split-videos", type=int, default=30, help="of each other split")
    parser.add_argument("--control-videos", type=int, default=80, help="of iid, under each control")
    parser.add_argument("--sync-videos", type=int, default=320, help="half of them in time")
    parser.add_argument("--speed-videos", type=int, default=112, help="nine choices each, for the time they take")
    parser.add_argument("--seed", type=int, default=0, help="scene seed of the first video of each split")
    parser.add_argument("--batch-size", type=int, help="questions answered at once")
    parser.add_argument("--device", metavar="DEVICE")
    parser.add_argument("--tables-only", action="store_true", help="ask nothing, write the tables of what is there")
    args = parser.parse_args(words)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if not args.tables_only:
        carry_out(args, out)
    found = figures_of(out)
    if not found["plain"]:
        print(f"{out} holds no complete run: leave --tables-only out.", file=sys.stderr)
        return 2
    text = document(found)
    tables = [one._asdict() for one in tables_in(text)]
    docs = Path(args.docs)
    docs.parent.mkdir(parents=True, exist_ok=True)
    whole = json.dumps(without_nan({**found, "tables": tables}), ensure_ascii=False) + "\n"
    for path, content in ((docs, text), (docs.with_suffix(".json"), whole)):
        with written_whole(path) as partial:
            Path(partial).write_text(content, encoding="utf-8")
    print("\n".join(["", *_time_tables(found), *_goal_tables(found), f"tables are in {docs}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
