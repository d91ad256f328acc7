"""Tables of a report: Markdown for people, and the same as JSON and LaTeX."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..files import written_whole
from .benchmarks import Problem, Table


_PROBLEMS_SHOWN = 20


def percent(interval: dict[str, Any], signed: bool = False) -> str:
    """ "91.2 [89.9, 92.4]": value and interval in percent."""
    values = [interval[name] for name in ("value", "low", "high")]
    if any(value is None or not np.isfinite(value) for value in values):
        return "-"
    numbers = [f"{100 * value:{'+' if signed else ''}.1f}" for value in values]
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
    lines += _asked_tables(summary)
    types = list(dict.fromkeys(key for *_, one in flat for key in _types(one)))
    choices = [
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
    ]  # fmt: skip
    if choices[1]:
        lines += ["## Multiple choice, percent right", "", *table(*choices)]
    open_form = [
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
    ]  # fmt: skip
    if open_form[1]:
        lines += ["## Open form", "", *table(*open_form)]
    lines += _text_tables(flat)
    lines += _protocol_tables(summary)
    lines += _control_tables(summary)
    lines += _modality_tables(summary)
    lines += _detail_tables(summary)
    for found in summary["benchmarks"].values():
        for own in found.get("tables", ()):
            lines += [f"## {own.title}", "", *table(own.header, own.rows)]
    lines += _stability_tables(summary)
    return "\n".join(lines)


def _types(one: dict[str, Any]) -> dict[str, Any]:
    return one.get("choice", {}).get("by", {}).get("question_type", {})


def _control_tables(summary: dict[str, Any]) -> list[str]:
    rows, moved, differences, changes, rotated = [], [], [], [], []
    for name, found in summary["benchmarks"].items():
        if "difference" in found:
            differences.append([name, percent(found["difference"], signed=True)])
        for control, one in found["controls"].items():
            against = one["against_plain"]
            if "consistent" in against:
                letters = ", ".join(f"{letter} {percent(each)}" for letter, each in against["by_letter"].items())
                mean = percent(against["mean"])
                rotated.append([name, against["consistent"]["n"], percent(against["consistent"]), mean, letters])
            if "difference" in against and against["difference"]["n"]:
                changes.append([
                    name, control, against["difference"]["n"], percent(against["difference"], signed=True),
                    one["not_applicable"],
                ])  # fmt: skip
            if "moved" in against:
                moved.append([name, control, against["moved"]["n"], percent(against["moved"])])
            if "guesser" in against:
                kinds = against["kinds"]["family"]
                inside = sum(kind["verdict"] == "contains" for kind in kinds.values())
                rows.append(
                    [
                        name, control, against["guesser"], against["accuracy"]["n"], percent(against["accuracy"]),
                        _level(against["chance"]), percent(against["gap"], signed=True),
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
    if changes:
        lines += ["## Change under each control, points", "", "Control minus plain, over the same questions.", ""]
        lines += table(["benchmark", "control", "questions", "change", "not applicable, not asked"], changes)
    if rotated:
        lines += [
            "## Circular",
            "",
            "Each choice is asked once for each rotation of its options. Consistent: right in all of them.",
            "",
        ]
        header = ["benchmark", "choices", "consistent, %", "mean, %", "by place of the right answer, %"]
        lines += table(header, rotated)
    if moved:
        lines += ["## Moved clock", "", "Answered ranges (open form) of which both ends moved with the clock.", ""]
        lines += table(["benchmark", "control", "ranges", "moved, %"], moved)
    if differences:
        lines += ["## Difference of multiple choice to the first benchmark, points", ""]
        lines += table(["benchmark", "difference"], differences)
    return lines


def _level(value: float | None) -> str:
    return f"{100 * value:.1f}" if value is not None and np.isfinite(value) else "-"


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
                    row.append(f"{percent(kind['accuracy'])}, {_level(kind['chance'])}{mark}" if kind else "-")
                rows.append(row)
        lines += [f"### {name}: accuracy and chance level by kind", ""]
        lines += table(["kind", *against], rows)
    return lines


def _detail_tables(summary: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in summary["benchmarks"].items():
        choice = found["plain"].get("choice") or found["plain"].get("words")
        if choice is None:
            continue
        guessers = list(choice.get("chance", ()))
        lines += [f"## {name}: {'multiple choice' if 'letters' in choice else 'open questions'} by kind", ""]
        test = choice["letters"]["right"] if "letters" in choice else None
        lines += (
            [
                "Right letters "
                + ", ".join(
                    f"{letter} {count} ({test['expected'][letter]:.1f} expected)"
                    for letter, count in test["counts"].items()
                )
                + f" (chi-square {test['chi_square']:.2f}, p = {test['p_value']:.2f}); "
                f"said {', '.join(f'{letter} {count}' for letter, count in choice['letters']['said'].items())}; "
                "right where the right letter is "
                + ", ".join(f"{letter}: {percent(one)}" for letter, one in choice["letters"]["accuracy"].items())
                + ".",
                "",
            ]
            if test
            else []
        )
        rows = []
        for tag, values in choice["by"].items():
            for value, one in values.items():
                levels = [_level(one.get("chance", {}).get(guesser)) for guesser in guessers]
                rows.append([tag, value, one["accuracy"]["n"], percent(one["accuracy"]), *levels])
        lines += table(["by", "kind", "questions", "accuracy", *(f"chance: {name}" for name in guessers)], rows)
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# What every benchmark has


def _asked_tables(summary: dict[str, Any]) -> list[str]:
    rows, listed = [], []
    for name, found in summary["benchmarks"].items():
        if "denominator" not in found:
            continue
        one, fed = found["denominator"], found["plain"].get("fed", {})
        problems = ", ".join(f"{count} {kind}" for kind, count in one["problems"].items()) or "-"
        rows.append([
            name, one["published"], one["asked"], one["beyond_limit"], one["left_out"], problems, one["unreadable"],
            _level(one["accuracy_of_published"]),
            *(f"{fed[key]:.1f}" if key in fed else "-" for key in ("frames", "audio_seconds", "video_seconds")),
            fed.get("without_sound", "-"),
        ])  # fmt: skip
        if found.get("problems"):
            listed += [f"{name}, what is wrong with files and media (all of it is in `problems.jsonl`):", ""]
            listed += [f"- {kind}: {item}: {what}" for kind, item, what in found["problems"][:_PROBLEMS_SHOWN]]
            listed += [f"- ... and {len(found['problems']) - _PROBLEMS_SHOWN} more"] * (
                len(found["problems"]) > _PROBLEMS_SHOWN
            ) + [""]
    if not rows:
        return []
    header = [
        "benchmark", "published", "asked", "beyond the limit", "left out", "problems", "unreadable, counted as wrong",
        "accuracy if what is left out were wrong, %", "frames fed, mean", "seconds of sound fed, mean",
        "seconds of video, mean", "items without sound",
    ]  # fmt: skip
    return ["## What was asked, and what the model was fed", "", *table(header, rows), *listed]


def _text_tables(flat: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    lines = []
    captions = [(name, control, one["caption"]) for name, control, one in flat if "caption" in one]
    if captions:
        names = ["bleu_1", "bleu_4", "meteor", "rouge_l", "cider"]
        names = [key for key in names if any(key in one for *_, one in captions)]  # METEOR takes Java
        rows = []
        for name, control, one in captions:
            if "unavailable" in one:
                lines += [one["unavailable"], ""]
                continue
            figures = [one.get(key) for key in names]
            rows.append([
                name, control or "-", one["captions"], one["tokenizer"],
                *("-" if figure is None else percent(figure) if isinstance(figure, dict) else f"{100 * figure:.1f}"
                  for figure in figures),
            ])  # fmt: skip
        if rows:
            note = "In percent, as published tables have them; CIDEr times 100."
            lines += [note, "", *table(["benchmark", "control", "captions", "tokenizer", *names], rows)]
        lines = ["## Captions", "", *lines]
    spoken = [(name, control, one["transcript"]) for name, control, one in flat if "transcript" in one]
    if spoken:
        lines += ["## Transcripts", ""]
        lines += table(
            ["benchmark", "control", "utterances", "words", "word error rate, %"],
            [
                [name, control or "-", one["word_error_rate"]["n"], one["words"], percent(one["word_error_rate"])]
                for name, control, one in spoken
            ],
        )
    return lines


def _protocol_tables(summary: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in summary["benchmarks"].items():
        for control, one in found.get("likelihood", {}).items():
            part = found["plain"] if control == "plain" else found["controls"][control]
            said = part.get("choice") or part.get("words")
            rows.append([name, control, percent(said["accuracy"]) if said else "-", percent(one)])
    if not rows:
        return []
    header = ["benchmark", "control", "generation and parsing, %", "most probable answer, %"]
    return ["## Two protocols", "", *table(header, rows)]


def _modality_tables(summary: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in summary["benchmarks"].items():
        if "synergy" in found or "blind_gap" in found:
            without = found.get("without", {})
            rows.append([
                name, percent(found["synergy"], signed=True) if "synergy" in found else "-",
                " and ".join(without.values()) or "-",
                percent(found["blind_gap"], signed=True) if "blind_gap" in found else "-",
            ])  # fmt: skip
    if not rows:
        return []
    note = "AV synergy: accuracy minus the better of the accuracies without sound and without picture. Blind gap: "
    note += "accuracy minus that with neither."
    return ["## Sound and picture, points", "", note, "", *table(["benchmark", "AV synergy", "by", "blind gap"], rows)]


def _stability_tables(summary: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in summary["benchmarks"].items():
        for one in found.get("stability", ()):
            rows.append([
                name, f"{100 * one['share']:.0f} %", f"{100 * one['mean']:.1f} +- {100 * one['deviation']:.1f}",
                f"[{100 * one['low']:.1f}, {100 * one['high']:.1f}]",
            ])  # fmt: skip
    if not rows:
        return []
    note = (
        "Accuracy over a share of the videos, drawn 200 times: mean, standard deviation, and 5th to 95th percentile."
    )
    return ["## Stability", "", note, "", *table(["benchmark", "of the videos", "accuracy, %", "p5 to p95"], rows)]


# ---------------------------------------------------------------------------------------------------------------------
# The same tables in other forms


def tables_in(text: str) -> list[Table]:
    """The tables of a Markdown text that `table` wrote, each under the heading in front of it."""
    found: list[Table] = []
    heading, block = "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if block:
            found.append(Table(heading, block[0], block[2:]))
            block = []
        if line.startswith("#"):
            heading = line.lstrip("# ")
    return found


def latex(tables: Iterable[Table]) -> str:
    """Tables as LaTeX, for booktabs."""
    parts = []
    for one in tables:
        columns = "l" * min(2, len(one.header)) + "r" * max(0, len(one.header) - 2)
        body = [" & ".join(map(_escaped, row)) + r" \\" for row in one.rows]
        parts.append("\n".join([
            r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
            " & ".join(map(_escaped, one.header)) + r" \\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}",
            rf"\caption{{{_escaped(one.title)}}}", r"\end{table}",
        ]))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    text = re.sub(r"\*\*(.*?)\*\*", r"\1", str(text)).replace("\\", r"\textbackslash{}")
    return re.sub(r"([&%$#_{}])", r"\\\1", text).replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")


def write_tables(out_dir: str | os.PathLike, text: str) -> None:
    """`tables.json` and `tables.tex` of a report's text."""
    found = tables_in(text)
    as_json = json.dumps([one._asdict() for one in found], indent=1, ensure_ascii=False) + "\n"
    for name, content in (("tables.json", as_json), ("tables.tex", latex(found))):
        with written_whole(Path(out_dir) / name) as partial:
            Path(partial).write_text(content, encoding="utf-8")


def write_problems(out_dir: str | os.PathLike, problems: dict[str, Iterable[Problem]]) -> None:
    """`problems.jsonl`: everything that is wrong with files and media, a line for each."""
    lines = [
        json.dumps({"benchmark": name, **problem._asdict()}, ensure_ascii=False) + "\n"
        for name, those in problems.items()
        for problem in those
    ]
    with written_whole(Path(out_dir) / "problems.jsonl") as partial:
        Path(partial).write_text("".join(lines), encoding="utf-8")
