"""The cards of models and Spaces, filled with what was measured.

    print(model_card("runs/own/merged", "me/my-model"))

What a model reaches comes from `results.json` beside its weights, which
`saven push --results` writes from folders of `saven eval`; where nothing was measured, the card says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .cards import has_template, render
from .files import written_whole
from .hub import DEFAULT_MODEL, ModelNotFoundError, config_folder
from .version import __version__


RESULTS_FILE = "results.json"
CARD_FILE = "README.md"
ADAPTER_FILE = "adapter_config.json"
RECIPE_FILE = "recipe.yaml"

# What a form of question is called, and the figure that counts for it.
_FORMS = {
    "choice": ("multiple choice", "accuracy"),
    "likelihood": ("multiple choice, by likelihood of the options", "accuracy"),
    "words": ("open questions, all words right", "accuracy"),
    "range": ("open time ranges, intersection over union", "mean_iou"),
}


class CardError(ValueError):
    """Results that cannot be read; the message says which, and what to do."""


@dataclass(frozen=True)
class Result:
    """One measured figure of a model.

    Args:
        benchmark: name in a run of `saven eval`, as "world-iid".
        form: of the questions: "choice", "likelihood", "words" or "range".
        value: right answers as a share, or for ranges the mean intersection over union.
        low, high: its 95 % interval, bootstrapped over videos.
        videos, questions: that it is over.
        kind: of question ("global", ...); None for all of them.
        control: what was taken away, as "mute"; None for nothing.
        chance: what a guesser reaches that has the text alone or, under a control, what the control leaves.
        frames: how frames were taken.
    """

    benchmark: str
    form: str
    value: float
    low: float | None = None
    high: float | None = None
    videos: int | None = None
    questions: int | None = None
    kind: str | None = None
    control: str | None = None
    chance: float | None = None
    frames: Mapping[str, Any] | None = None

    @property
    def metric(self) -> str:
        return _FORMS[self.form][1]

    @property
    def what(self) -> str:
        return _FORMS[self.form][0] + (f", {self.kind.replace('_', ' ')}" if self.kind else "")

    @property
    def text(self) -> str:
        """Percent, or the mean intersection over union, with its interval."""
        factor, digits = (1, 3) if self.metric == "mean_iou" else (100, 1)
        numbers = [f"{factor * one:.{digits}f}" for one in (self.value, self.low, self.high) if one is not None]
        return numbers[0] + (f" ({numbers[1]} to {numbers[2]})" if len(numbers) == 3 else "")

    @property
    def chance_text(self) -> str:
        return "" if self.chance is None else f"{100 * self.chance:.1f}"


# ------------------------------------------------------------------------------------------------------------- results


def run_results(run: str | os.PathLike) -> list[Result]:
    """What a folder of `saven eval` has measured.

    Raises:
        CardError: it is no such folder, its run is not complete, or is of a benchmark without a table (world-sync).
    """
    path = Path(run) / "summary.json"
    if not path.is_file():
        raise CardError(f"{os.fspath(run)} has no summary.json: name a folder that `saven eval --out` has completed.")
    summary = json.loads(path.read_text(encoding="utf-8"))
    if "benchmarks" not in summary:
        raise CardError(
            f"{os.fspath(run)} is a run of {summary.get('benchmark')}, which a card has no table for: leave it out."
        )
    frames = summary.get("settings", {}).get("frames")
    found = []
    for benchmark, parts in summary["benchmarks"].items():
        runs = {None: parts["plain"], **parts.get("controls", {})}
        for control, one in runs.items():
            guesser = one.get("against_plain", {}).get("guesser", "text")
            for form in ("choice", "words", "range"):
                if form in one:
                    found += _figures(benchmark, form, control, one[form], guesser, frames)
        for control, interval in parts.get("likelihood", {}).items():
            chance = runs[None].get("choice", {}).get("chance", {}).get("text") if control == "plain" else None
            name = None if control == "plain" else control
            found.append(_figure(benchmark, "likelihood", interval, control=name, chance=chance, frames=frames))
    return found


def _figures(benchmark, form, control, one, guesser, frames) -> list[Result]:
    metric = _FORMS[form][1]
    common = {"control": control, "frames": frames}
    chance = one.get("chance", {}).get(guesser)
    found = [_figure(benchmark, form, one[metric], chance=chance, **common)]
    if form == "choice" and control is None:
        for kind, of_kind in one["by"].get("question_type", {}).items():
            chance = of_kind["chance"].get(guesser)
            found.append(_figure(benchmark, form, of_kind[metric], kind=kind, chance=chance, **common))
    return found


def _figure(benchmark: str, form: str, interval: Mapping[str, Any], **more: Any) -> Result:
    value, low, high = (interval[name] for name in ("value", "low", "high"))
    return Result(benchmark, form, value, low, high, interval["clusters"], interval["n"], **more)


def read_results(folder: str | os.PathLike) -> list[Result]:
    """The measured results beside a model; none if it has no results.json.

    Raises:
        CardError: the file is not of that form.
    """
    path = Path(folder) / RESULTS_FILE
    if not path.is_file():
        return []
    try:
        found = [Result(**one) for one in json.loads(path.read_text(encoding="utf-8"))["results"]]
        for one in found:
            if one.form not in _FORMS:
                raise ValueError(f"there is no form {one.form!r}: one of {', '.join(_FORMS)}")
    except (ValueError, KeyError, TypeError) as error:
        raise CardError(f"{path} cannot be read ({error}): write it with `saven push --results RUN`.") from None
    return found


def gather_results(runs: Iterable[str | os.PathLike]) -> list[Result]:
    """Results of several runs; where two measured the same on as many videos, the later one's."""
    found = {}
    for run in runs:
        for one in run_results(run):
            found[one.benchmark, one.form, one.kind, one.control, one.videos] = one
    return list(found.values())


def results_json(results: Iterable[Result]) -> str:
    """The text of results.json."""
    rows = [{name: value for name, value in asdict(one).items() if value is not None} for one in results]
    return json.dumps({"code_version": __version__, "results": rows}, indent=1) + "\n"


def write_results(folder: str | os.PathLike, results: Iterable[Result]) -> None:
    """Write results.json beside a model."""
    with written_whole(Path(folder) / RESULTS_FILE) as partial:
        Path(partial).write_text(results_json(results), encoding="utf-8")


# -------------------------------------------------------------------------------------------------------------- models


def model_card(folder: str | os.PathLike, repo_id: str | None = None, results: Iterable[Result] | None = None) -> str:
    """The card of a model or an adapter: its configuration, its recipe and what was measured.

    Args:
        folder: with config.json or adapter_config.json; `recipe.yaml` and `results.json` are read where they are.
        repo_id: under which it will be loaded; the folder's name if None.
        results: in place of those beside the model.
    """
    from huggingface_hub import ModelCardData

    folder = Path(folder)
    results = read_results(folder) if results is None else list(results)
    recipe = _recipe(folder)
    adapter = folder / ADAPTER_FILE
    is_adapter = adapter.is_file()
    if is_adapter:
        config = {}
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
    else:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        base = recipe.get("model")
    shipped = _shipped_name(folder)
    place = folder.resolve()
    name = repo_id.split("/")[-1] if repo_id else place.parent.name if place.name == "merged" else place.name
    data = ModelCardData(
        license="apache-2.0" if shipped == DEFAULT_MODEL else None,  # of all else only its owner can say
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="video-text-to-text",
        base_model=base if _is_hub_id(base) else None,
        datasets=[one["path"] for one in recipe.get("data", ()) if _is_hub_id(one["path"])] or None,
        language=["en"],
        tags=["savenvideo", "video", "audio", "audio-visual", "video-question-answering"],
        model_name=name,
        eval_results=_eval_results(results) or None,
    )
    return render(
        shipped if shipped and has_template(shipped) else "model",
        data,
        name=name,
        load=repo_id or shipped or "path/or/id/of/this/model",
        is_adapter=is_adapter,
        base=base if _is_hub_id(base) or _is_shipped(base) else None,
        config=config,
        recipe=recipe,
        plain=[one for one in results if one.control is None],
        controlled=[one for one in results if one.control is not None],
    )


def _eval_results(results: Iterable[Result]) -> list:
    """The main figures as the Hub's model-index has them: of all questions, nothing taken away."""
    from huggingface_hub import EvalResult

    best: dict[tuple[str, str], Result] = {}
    for one in results:
        if one.kind is None and one.control is None:
            held = best.get((one.benchmark, one.form))
            if held is None or (one.videos or 0) >= (held.videos or 0):
                best[one.benchmark, one.form] = one
    return [
        EvalResult(
            task_type="video-text-to-text",
            dataset_type=one.benchmark,
            dataset_name=one.benchmark,
            metric_type=one.metric,
            metric_name=one.what,
            metric_value=round(one.value, 4),
            dataset_args={"videos": one.videos} if one.videos else None,
        )
        for one in best.values()
    ]


def _recipe(folder: Path) -> dict[str, Any]:
    """The recipe that made a model: beside it, or beside the folder `merged/` that it is."""
    for path in (folder / RECIPE_FILE, folder.parent / RECIPE_FILE):
        if path.is_file() and (path.parent == folder or folder.name == "merged"):
            import yaml

            return yaml.safe_load(path.read_text(encoding="utf-8"))
    return {}


def _is_hub_id(name: str | None) -> bool:
    return bool(name) and name.count("/") == 1 and not os.path.isabs(name) and not os.path.exists(name)


def _is_shipped(name: str | None) -> bool:
    try:
        return bool(name) and "/" not in name and config_folder(name).is_dir()
    except ModelNotFoundError:
        return False


def _shipped_name(folder: Path) -> str | None:
    name = folder.resolve().name
    return name if _is_shipped(name) and config_folder(name).resolve() == folder.resolve() else None


# -------------------------------------------------------------------------------------------------------------- Spaces


def space_card(folder: str | os.PathLike, repo_id: str) -> str:
    """The card of a Gradio Space that has none: what runs, which version of gradio, and what its model reaches."""
    from huggingface_hub import SpaceCardData

    folder = Path(folder)
    name = repo_id.split("/")[-1]
    requirements = folder / "requirements.txt"
    lines = requirements.read_text(encoding="utf-8").splitlines() if requirements.is_file() else []
    pinned = next((line.partition("==")[2].strip() for line in lines if line.strip().startswith("gradio==")), None)
    data = SpaceCardData(
        title=name.replace("-", " ").capitalize(),
        sdk="gradio",
        sdk_version=pinned,
        app_file="app.py",
        license="apache-2.0",
        tags=["savenvideo", "video", "audio"],
    )
    results = [one for one in read_results(config_folder(DEFAULT_MODEL)) if one.kind is one.control is None]
    return render("space", data, title=data.title, plain=results, controlled=[])
