"""Any model on any benchmarks: runs, controls, protocols, figures and a report in one folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ..files import written_whole
from ..training.cache import process_share
from ..version import __version__
from .adapters import Adapter, ProtocolError
from .benchmarks import FORMS, Benchmark
from .controls import PLAIN, Control, ControlError, control_named
from .report import denominator, summarise, summarise_likelihoods, write_report
from .runner import PROTOCOLS, applicable, check_control, claim_folder, run, wait_for_all
from .tables import markdown, write_problems, write_tables


def evaluate(
    benchmarks: Benchmark | Sequence[Benchmark],
    adapter: Adapter,
    out_dir: str | os.PathLike,
    controls: Sequence[str] = (),
    protocols: Sequence[str] = ("generate",),
    progress: bool = True,
    title: str | None = None,
    forms: Callable[[Control], Collection[str]] | None = None,
) -> dict[str, Any]:
    """Ask a model everything; run again, it goes on where it stopped.

        run.json                         which model, which benchmarks; a folder of another run is refused
        items/<benchmark>.<control>.jsonl                a line for each item: prompt, output, verdict, what was fed
        items/<benchmark>.<control>.likelihood.jsonl     the same for the second protocol
        hashes.json                      of prompts and of media as they were asked about
        problems.jsonl                   what is wrong with files and media, item by item
        *.results.json, *.predictions.jsonl              for the scripts of Video-MME and of VideoLLaMA 2
        timing.json                      seconds in decode, encode, prefill, generate, over all sittings
        summary.json, report.md, tables.json, tables.tex, plots/*.png

    Args:
        benchmarks: what to ask; the others are compared with the first.
        adapter: the model.
        out_dir: folder of this run.
        controls: see `control_named`; each is a run over the same items beside the plain one.
        protocols: of `PROTOCOLS`; "generate" is always among them.
        forms: which forms of items are asked under a control; all if None.

    Returns:
        What `summary.json` holds, see `summarise`: "accuracy" is that of the plain run of the first benchmark, or
        what it calls so itself (`Benchmark.figures`).

    Raises:
        ControlError, ValueError: a control or protocol that does not exist, or does not go with model or media.
        RunMismatchError: `out_dir` holds a run of another model or with other settings.
    """
    benchmarks = [benchmarks] if isinstance(benchmarks, Benchmark) else list(benchmarks)
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown:
        raise ValueError(f"There is no protocol {unknown[0]!r}: one of {', '.join(PROTOCOLS)}.")
    chosen = [PLAIN, *(control for control in map(control_named, dict.fromkeys(controls)) if control != PLAIN)]
    if "likelihood" in protocols and not hasattr(adapter, "likelihoods"):
        raise ProtocolError(f"{type(adapter).__name__} has no log-likelihoods: use the protocol 'generate'.")
    for one in benchmarks:
        items = (item for video in one.video_ids for item in one.items(video))
        if "likelihood" in protocols and not any(item.options or one.closed_set(item) for item in items):
            raise ProtocolError(f"{one.name} is open: no answers can be weighed. Use the protocol 'generate'.")
        for control in chosen:
            check_control(one, adapter, control)
    wanted = {**adapter.settings, "benchmarks": {one.name: dict(one.settings) for one in benchmarks}}
    if process_share()[0] == 0:
        claim_folder(out_dir, wanted)
    wait_for_all()
    out = claim_folder(out_dir, wanted)
    before = dict(getattr(adapter, "seconds", {}))

    def asked_under(control: Control) -> Collection[str]:
        return FORMS if forms is None else forms(control)

    def run_all(one: Benchmark, protocol: str) -> dict[Control, list[dict[str, Any]]]:
        return {
            control: run(one, adapter, out, control, asked_under(control), progress, protocol)
            for control in chosen
            if protocol == "generate" or not control.circular
        }

    every = {one.name: run_all(one, "generate") for one in benchmarks}
    weighed = {one.name: run_all(one, "likelihood") for one in benchmarks if "likelihood" in protocols}
    runs, weighed = ({name: _applied(name, those) for name, those in part.items()} for part in (every, weighed))
    if process_share()[0]:
        wait_for_all()
        return json.loads((out / "summary.json").read_text(encoding="utf-8"))
    summary = {"settings": adapter.settings, **summarise(runs)}
    for one in benchmarks:
        found, plain = summary["benchmarks"][one.name], runs[one.name][PLAIN]
        found["denominator"] = denominator(one, plain)
        for name, content in one.files(plain).items():
            with written_whole(out / name) as partial:
                Path(partial).write_text(content, encoding="utf-8")
        figures = one.figures(plain)
        if figures:
            found["figures"] = figures
        if one is benchmarks[0] and "accuracy" in figures:
            summary["accuracy"] = figures["accuracy"]
        if one.name in weighed:
            found["likelihood"] = summarise_likelihoods(weighed[one.name])
        for control, rows in every[one.name].items():
            if control != PLAIN:
                found["controls"][control.name]["not_applicable"] = len(rows) - len(runs[one.name][control])
    summary["hashes"] = _write_hashes(out, runs)
    write_problems(out, {one.name: one.problems for one in benchmarks})
    _add_timing(out, before, getattr(adapter, "seconds", {}))
    shown = summary | {"benchmarks": {}}
    for one in benchmarks:
        own = one.tables(runs[one.name][PLAIN])
        shown["benchmarks"][one.name] = {
            **summary["benchmarks"][one.name], "tables": own, "problems": list(one.problems),
        }  # fmt: skip
    notes = [f"Settings: `{json.dumps(adapter.settings)}`", ""]
    title = title or " and ".join(dict.fromkeys(one.title or one.name for one in benchmarks))
    text = markdown(shown, title, notes)
    write_tables(out, text)
    from .plots import draw_report, save_figures  # matplotlib takes its time

    save_figures(draw_report(summary, {name: those[PLAIN] for name, those in runs.items()}), out / "plots")
    result = write_report(out, summary, text)
    wait_for_all()
    return result


def read_timing(out_dir: str | os.PathLike) -> dict[str, float]:
    """Seconds in decode, encode, prefill and generate of a run so far; empty for models that do not tell."""
    path = Path(out_dir) / "timing.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _applied(name: str, by_control: dict[Control, list[dict[str, Any]]]) -> dict[Control, list[dict[str, Any]]]:
    found = {control: applicable(rows) for control, rows in by_control.items()}
    for control, rows in by_control.items():
        if rows and not found[control]:
            raise ControlError(f"{control.name} can be done to no medium of {name}: {rows[0]['not_applicable']}")
    return found


def _write_hashes(out: Path, runs: dict[str, dict[Control, list]]) -> dict[str, str]:
    """Note what was asked about what. Returns a hash of all prompts and one of all media, by benchmark."""
    noted: dict[str, Any] = {"code_version": __version__}
    short = {}
    for name, by_control in runs.items():
        rows, prompts = by_control[PLAIN], hashlib.sha256()
        for row in rows:
            prompts.update(json.dumps([row["id"], row["prompt"]]).encode())
        media = {row["video_id"]: row["media"] for row in rows}
        noted[name] = {"prompts": prompts.hexdigest(), "media": media}
        short[f"{name} prompts"] = prompts.hexdigest()[:16]
        short[f"{name} media"] = hashlib.sha256(json.dumps(media, sort_keys=True).encode()).hexdigest()[:16]
    with written_whole(out / "hashes.json") as partial:
        Path(partial).write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")
    return short


def _add_timing(out: Path, before: dict[str, float], after: dict[str, float]) -> None:
    """Add up the seconds of all sittings, of the first process where there are several. They have a file of their own,
    since all others are the same bytes whenever and wherever they are written."""
    earlier = read_timing(out)
    timing = {
        name: round(earlier.get(name, 0.0) + seconds - before.get(name, 0.0), 3) for name, seconds in after.items()
    }
    with written_whole(out / "timing.json") as partial:
        Path(partial).write_text(json.dumps(timing, indent=1) + "\n", encoding="utf-8")
