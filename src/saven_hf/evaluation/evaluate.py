"""Any model on any benchmarks: runs, controls, protocols, figures and a report in one folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ..files import written_whole
from ..savenvideo.media_errors import MediaError
from ..training.cache import process_share
from ..version import __version__
from .adapters import Adapter
from .benchmarks import FORMS, Benchmark
from .controls import PLAIN, Control, control_named
from .report import denominator, summarise, summarise_likelihoods, write_report
from .runner import PROTOCOLS, claim_folder, run, wait_for_all
from .tables import markdown, write_problems, write_tables


def evaluate(
    benchmarks: Benchmark | Sequence[Benchmark],
    adapter: Adapter,
    out_dir: str | os.PathLike,
    controls: Sequence[str] = (),
    protocols: Sequence[str] = ("generate",),
    progress: bool = True,
    title: str | None = None,
    settings: dict[str, Any] | None = None,
    forms: Callable[[Control], Collection[str]] | None = None,
) -> dict[str, Any]:
    """Ask a model everything; run again, it goes on where it stopped.

        run.json                         which model, which settings; a folder of another run is refused
        items/<benchmark>.<control>.jsonl                a line for each item: prompt, output, verdict, what was fed
        items/<benchmark>.<control>.likelihood.jsonl     the same for the second protocol
        hashes.json                      of prompts and media, by which `compare` tells whether runs are comparable
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
        settings: what else runs are told apart by, as JSON.
        forms: which forms of items are asked under a control; all if None.

    Returns:
        What `summary.json` holds, see `summarise`: "accuracy" is that of the plain run of the first benchmark.

    Raises:
        ControlError, ValueError: a control or protocol that does not exist, or does not go with model or media.
        RunMismatchError: `out_dir` holds a run of another model or with other settings.
    """
    benchmarks = [benchmarks] if isinstance(benchmarks, Benchmark) else list(benchmarks)
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown:
        raise ValueError(f"There is no protocol {unknown[0]!r}: one of {', '.join(PROTOCOLS)}.")
    chosen = [PLAIN, *(control for control in map(control_named, dict.fromkeys(controls)) if control != PLAIN)]
    wanted = {**adapter.settings, **(settings or {})}
    if process_share()[0] == 0:
        claim_folder(out_dir, wanted)
    wait_for_all()
    out = claim_folder(out_dir, wanted)
    before = dict(getattr(adapter, "seconds", {}))

    def asked_under(control: Control) -> Collection[str]:
        return FORMS if forms is None else forms(control)

    runs = {
        one.name: {control: run(one, adapter, out, control, asked_under(control), progress) for control in chosen}
        for one in benchmarks
    }
    weighed = {
        one.name: {
            control: run(one, adapter, out, control, asked_under(control), progress, "likelihood")
            for control in chosen
            if not control.circular
        }
        for one in (benchmarks if "likelihood" in protocols else ())
    }
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
        if one.name in weighed:
            found["likelihood"] = summarise_likelihoods(weighed[one.name])
    summary["hashes"] = _write_hashes(out, benchmarks, runs)
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


def _write_hashes(out: Path, benchmarks: Sequence[Benchmark], runs: dict[str, dict[Control, list]]) -> dict[str, str]:
    """Note what was asked about what. Returns a hash of all prompts and one of all media, by benchmark."""
    noted: dict[str, Any] = {"code_version": __version__}
    short = {}
    for one in benchmarks:
        prompts = hashlib.sha256()
        for row in runs[one.name][PLAIN]:
            prompts.update(json.dumps([row["id"], row["prompt"]]).encode())
        media = {}
        for video in one.video_ids:
            try:
                media[video] = one.media_hash(video)
            except (MediaError, OSError):
                media[video] = None
        noted[one.name] = {"prompts": prompts.hexdigest(), "media": media}
        short[f"{one.name} prompts"] = prompts.hexdigest()[:16]
        short[f"{one.name} media"] = hashlib.sha256(json.dumps(media, sort_keys=True).encode()).hexdigest()[:16]
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
