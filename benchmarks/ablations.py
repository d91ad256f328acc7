"""Ablations and connectors on the world, on cached features, under one budget: `benchmarks/ablations.yaml`.

    python benchmarks/ablations.py --base runs/tiny/init --out runs/ablations [--experiment connectors]
    python benchmarks/ablations.py --base runs/tiny/init --out runs/ablations --plan       # what is to be done
    python benchmarks/ablations.py --base runs/tiny/init --out runs/ablations --tables-only [--docs docs/ablations.md]

Towers and language model are those of --base (a folder of `saven train tiny`: `init`), the connector of every variant
is fresh. Each run has one folder, `runs/<variant>/factor-<f>.seed-<s>`, with its configuration, the recipe and log of
each stage, every answer, and `result.json`; a run that was stopped goes on. `--share 0/2` and `--share 1/2` divide the
variants over two processes.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from saven_hf import SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor, load
from saven_hf.ask import seconds_of
from saven_hf.evaluation import Asked, MemoryAdapter, Watched, WorldBenchmark, control_named, run
from saven_hf.evaluation.statistics import Interval, mean_interval
from saven_hf.evaluation.tables import percent, table
from saven_hf.files import written_whole
from saven_hf.savenvideo.configuration_savenvideo import SAVEnVideoConfig
from saven_hf.savenvideo.modeling_savenvideo import PLACEHOLDER_TOKENS
from saven_hf.savenvideo.weights import weights_fingerprint
from saven_hf.training.cache import FeatureCache, build_cache, list_media
from saven_hf.training.collator import SAVEnVideoCollator
from saven_hf.training.recipe import from_dict
from saven_hf.training.trainer import train
from saven_hf.version import __version__
from saven_hf.world import Scene, sample_scene, write_video
from saven_hf.world.conversations import as_messages, make_conversation


logger = logging.getLogger(__name__)

GRID = Path(__file__).with_suffix(".yaml")
FORMATS = ("global", "timestamped", "time_range")
PLAIN = control_named("plain")
# Far from the seeds of the test videos.
FIRST_CHECK_SEED = 1_000_000
_TIMED_VIDEOS = 8


class AblationError(ValueError):
    """A grid that cannot be followed, or a folder that was begun with another one."""


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        model: fields of the model's configuration; sampling: of the frames, in place of the shared one.
        use_audio: whether sound is heard, in training and after.
        rows_of: for a stage, the stage whose rows it learns from instead.
        recipe: keys of all its recipes.
        factor_of: the variant whose learning rate is taken; None to choose one.
    """

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] | None = None
    use_audio: bool = True
    rows_of: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    factor_of: str | None = None


@dataclass(frozen=True)
class Job:
    """One training and its test."""

    variant: Variant
    factor: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant.name}/factor-{self.factor:g}.seed-{self.seed}"


class Grid:
    """`ablations.yaml`: what is trained, on what, for how long.

    Raises:
        AblationError: a variant of unknown keys, or that refers to what is not there.
    """

    def __init__(self, path: str | Path):
        self.values: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        self.variants: dict[str, Variant] = {}
        for experiment in self.values["experiments"].values():
            for name, settings in experiment["variants"].items():
                try:
                    variant = Variant(name, **settings)
                except TypeError as error:
                    raise AblationError(f"{path}: variant {name!r}: {error}.") from None
                if name in self.variants:
                    raise AblationError(f"{path}: two variants are named {name!r}: rename one.")
                self.variants[name] = variant
        stages = [stage["name"] for stage in self.values["stages"]]
        for variant in self.variants.values():
            if variant.factor_of is not None and variant.factor_of not in self.variants:
                raise AblationError(f"{path}: {variant.name} takes the rate of {variant.factor_of!r}, which is none.")
            unknown = [name for pair in variant.rows_of.items() for name in pair if name not in stages]
            if unknown:
                raise AblationError(
                    f"{path}: {variant.name}: there is no stage {unknown[0]!r} of {', '.join(stages)}."
                )
        for name, experiment in self.values["experiments"].items():
            missing = [one for one in experiment.get("beside", ()) if one not in self.variants]
            if missing:
                raise AblationError(f"{path}: {name}: there is no variant {missing[0]!r} to stand beside.")

    def rows_of_table(self, experiment: str) -> list[str]:
        """Names of its variants, those that stand beside them first.

        Raises:
            AblationError: there is no such experiment.
        """
        if experiment not in self.values["experiments"]:
            known = ", ".join(self.values["experiments"])
            raise AblationError(f"There is no experiment {experiment!r}: one of {known}.")
        one = self.values["experiments"][experiment]
        return [*one.get("beside", ()), *one["variants"]]

    def sampling(self, variant: Variant) -> dict[str, Any]:
        return dict(self.values["data"]["sampling"] if variant.sampling is None else variant.sampling)


class Bench:
    """A folder of runs over one base model and one grid.

    Raises:
        AblationError: the folder was begun with another grid or model.
    """

    def __init__(self, base: str, out: str | Path, grid: Grid):
        self.base, self.out, self.grid = base, Path(out), grid
        model, _ = load(base, "cpu")
        inner = model.model
        # The connector of the base is replaced, so it is no part of what runs are known by.
        self.claim = {
            "grid": grid.values,
            "code_version": __version__,
            "parts": weights_fingerprint(
                (inner.vision_tower, inner.audio_tower, inner.language_model, model.lm_head), PLACEHOLDER_TOKENS
            ),
        }
        self._claim_folder()
        self.scenes = [
            sample_scene(grid.values["data"]["first_seed"] + number, segments=segments)
            for number, segments in enumerate(_segments(grid.values["data"]["scenes"]))
        ]
        videos = self.out / "videos"
        self.test = WorldBenchmark("iid", grid.values["data"]["test_videos"], videos)
        self.check = WorldBenchmark("iid", grid.values["data"]["check_videos"], videos, seed=FIRST_CHECK_SEED)

    def _claim_folder(self) -> None:
        path = self.out / "ablations.json"
        self.out.mkdir(parents=True, exist_ok=True)
        claim = json.loads(json.dumps(self.claim))
        if not path.is_file():
            _write_json(path, claim)
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in claim:
            if found.get(name) != claim[name]:
                raise AblationError(
                    f"{self.out} was begun with another {name}: results are of one grid, one model and one version. "
                    "Take another folder."
                )

    # -- data ---------------------------------------------------------------------------------------------------------

    def video(self, scene: Scene) -> Path:
        return self.out / "videos" / scene.split / f"{scene.video_id}.mp4"

    def write_videos(self) -> None:
        for scene in self.scenes:
            path = self.video(scene)
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_video(scene, path)
        for benchmark in (self.test, self.check):
            for video in benchmark.video_ids:
                benchmark.media(video)

    def rows(self, stage: str) -> Path:
        """Conversations of a stage about the training videos, as JSONL."""
        path = self.out / "rows" / f"{stage}.jsonl"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            numbers = [one["name"] for one in self.grid.values["stages"]]
            first = numbers.index(stage) * self.grid.values["data"]["rows"]
            with written_whole(path) as partial, open(partial, "w", encoding="utf-8") as file:
                for scene in self.scenes:
                    for number in range(self.grid.values["data"]["rows"]):
                        row = self.row(scene, stage, number, first + number, f"../videos/train/{scene.video_id}.mp4")
                        if row is not None:
                            file.write(json.dumps(row) + "\n")
        return path

    def row(self, scene: Scene, stage: str, number: int, round: int, video: Any) -> dict | None:
        sorts = next(one["rows"] for one in self.grid.values["stages"] if one["name"] == stage)
        sort = sorts[number % len(sorts)]
        turns = make_conversation(scene, sort["kinds"], sort["turns"], round)
        if not turns:  # two segments have no four options
            return None
        return {"id": f"{scene.video_id}-{round}", "messages": as_messages(turns), "videos": [video]}

    def cache(self, variant: Variant, model, processor) -> Path:
        """Outputs of the towers for every video, with the frames of a variant."""
        sampling = self.grid.sampling(variant)
        name = ".".join(f"{key}-{value}" for key, value in sampling.items())
        report = build_cache(
            list_media(self.out / "videos"), self.out / "cache" / name, model, processor, dtype="bfloat16", **sampling
        )
        if report.failed:
            raise AblationError(f"{len(report.failed)} videos cannot be read: {next(iter(report.failed.items()))}.")
        return self.out / "cache" / name

    # -- a run --------------------------------------------------------------------------------------------------------

    def folder(self, job: Job) -> Path:
        return self.out / "runs" / job.name

    def result(self, job: Job) -> dict[str, Any] | None:
        path = self.folder(job) / "result.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def assemble(self, variant: Variant, seed: int) -> tuple[SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor]:
        """The base with a fresh connector of a variant."""
        base, processor = load(self.base, "cpu")
        inner, settings = base.model, {**self.grid.values["model"], **variant.model}
        kept = {name: getattr(base.config, name) for name in (*PLACEHOLDER_TOKENS, "vision_feature_layer")}
        kept |= {name: getattr(base.config, name) for name in ("image_mean", "image_std")}
        config = SAVEnVideoConfig(
            **kept, **settings, vision_config=base.config.vision_config, audio_config=base.config.audio_config,
            text_config=base.config.text_config,
        )  # fmt: skip
        torch.manual_seed(seed)
        model = SAVEnVideoForConditionalGeneration.assemble(
            config, inner.vision_tower, inner.audio_tower, inner.language_model, base.lm_head, base.generation_config,
            torch.float32,
        )  # fmt: skip
        processor = SAVEnVideoProcessor.from_components(
            processor.tokenizer, config=config, **self.grid.sampling(variant)
        )
        return model.eval(), processor

    def carry_out(self, job: Job) -> dict[str, Any]:
        """Train, test, and note what was found; what is there already is kept."""
        done = self.result(job)
        if done is not None:
            return done
        folder, variant = self.folder(job), job.variant
        folder.mkdir(parents=True, exist_ok=True)
        spent = _read_json(folder / "spent.json")
        if not (folder / "start").is_dir():
            model, processor = self.assemble(variant, job.seed)
            partial = folder / "start.partial"
            processor.save_pretrained(partial)
            model.save_pretrained(partial)
            partial.rename(folder / "start")
            del model
        model, processor = load(folder / "start", "cpu")
        cache = self.cache(variant, model, processor)
        del model
        _write_json(
            folder / "config.json", {**self.claim, "variant": vars(variant), "factor": job.factor, "seed": job.seed}
        )
        last = folder / "start"
        for stage in self.grid.values["stages"]:
            name = stage["name"]
            if name not in spent:
                spent[name] = self._train(job, stage, last, cache)
                _write_json(folder / "spent.json", spent)
            last = Path(folder, name, "merged") if spent[name]["merged"] else folder / name
        found = {"variant": variant.name, "factor": job.factor, "seed": job.seed, "stages": spent}
        found |= self._test(variant, folder, last, cache)
        _write_json(folder / "result.json", found)
        for weights in folder.rglob("*.safetensors"):  # logs and answers stay
            weights.unlink()
        for checkpoint in folder.glob("*/checkpoint-*"):
            shutil.rmtree(checkpoint)
        return found

    def _train(self, job: Job, stage: Mapping[str, Any], start: Path, cache: Path) -> dict[str, Any]:
        variant = job.variant
        recipe = {**self.grid.values["recipe"], **stage["recipe"], **variant.recipe}
        for name in ("learning_rate", "connector_learning_rate"):
            if recipe.get(name) is not None:
                recipe[name] *= job.factor
        rows = self.rows(variant.rows_of.get(stage["name"], stage["name"]))
        recipe |= {
            "model": str(start),
            "output_dir": str(self.folder(job) / stage["name"]),
            "data": [{"path": str(rows), "cache": str(cache)}],
            "video": self.grid.sampling(variant),
            "use_audio": variant.use_audio,
            "seed": job.seed,
        }
        reset_peak_memory()
        clock, cpu = time.perf_counter(), time.process_time()
        result = train(from_dict(recipe))
        gc.collect()
        return {
            "merged": result.merged is not None,
            "steps": result.steps,
            "loss": result.loss,
            "seconds": round(time.perf_counter() - clock, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_mb": peak_memory(),
        }

    def _test(self, variant: Variant, folder: Path, trained: Path, cache: Path) -> dict[str, Any]:
        model, processor = load(trained, "cpu")
        features = FeatureCache(cache)
        sampling = self.grid.sampling(variant)
        adapter = FeatureAdapter(
            model,
            processor,
            features,
            variant.use_audio,
            max_new_tokens=self.grid.values["max_new_tokens"],
            **sampling,
        )
        for protocol in self.grid.values["protocols"]:
            run(self.test, adapter, folder, protocol=protocol, progress=False)
        return {
            "check_loss": self._check_loss(variant, model, processor, features),
            "connector_parameters": sum(one.numel() for one in model.model.resampler.parameters()),
            **self._cost(adapter),
        }

    @torch.no_grad()
    def _check_loss(self, variant: Variant, model, processor, features: FeatureCache) -> float:
        """Mean loss over the answers of the last stage's conversations about the check videos."""
        collator = SAVEnVideoCollator(processor, use_audio=variant.use_audio, video=self.grid.sampling(variant))
        total = count = 0
        stage = self.grid.values["stages"][-1]["name"]
        for video in self.check.video_ids:
            row = self.row(self.check.scene(video), stage, 0, 0, features[self.check.media(video)])
            if row is None:
                continue
            batch = collator([row])
            batch.pop("loss_weights")
            learnt = int((batch["labels"][:, 1:] != -100).sum())
            total, count = total + model(**batch).loss.item() * learnt, count + learnt
        return total / max(count, 1)

    @torch.no_grad()
    def _cost(self, adapter: FeatureAdapter) -> dict[str, float]:
        """Of single questions on test videos: tokens of the medium, seconds to the first token, and the cache."""
        tokens, seconds = [], []
        text = adapter.model.config.text_config
        for video in list(self.test.video_ids)[:_TIMED_VIDEOS]:
            item = self.test.items(video)[0]
            watched = adapter.watch(self.test.media(video), PLAIN)
            inputs = adapter.inputs_of(watched, self.test.prompt(item, watched.frame_times))
            tokens.append(int((inputs["input_ids"] == adapter.model.config.video_token_id).sum()))
            start = time.process_time()
            adapter.model(**inputs, logits_to_keep=1)
            seconds.append(time.process_time() - start)
        heads = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * heads * 4
        return {
            "tokens": statistics.mean(tokens),
            "prefill_cpu_seconds": statistics.median(seconds),
            "cache_kb": statistics.mean(tokens) * per_token / 1000,
        }


class FeatureAdapter(MemoryAdapter):
    """Answers from cached outputs of the towers: the connector runs with every question, nothing is decoded."""

    def __init__(self, model, processor, features: FeatureCache, use_audio: bool, **options):
        super().__init__(model, processor, **options)
        self.features, self.use_audio = features, use_audio

    def watch(self, media, control) -> Watched:
        found = self.features[media]
        found = found if self.use_audio else found.without_sound()
        fed = {
            "frames": found.num_frames,
            "audio_seconds": round(found.audio_seconds, 2),
            "video_seconds": found.duration / 1e6,
        }
        return Watched(found, fed, seconds_of(found.frame_times))

    def inputs_of(self, watched: Watched, prompt: str) -> dict[str, Any]:
        return self._inputs([Asked(watched, prompt, None)])


def _segments(scenes: list[Mapping[str, Any]]) -> Iterator[tuple[int, int] | None]:
    for part in scenes:
        yield from [tuple(part["segments"]) if part.get("segments") else None] * part["videos"]


def reset_peak_memory() -> None:
    """Give freed memory back, and count the peak anew where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        logger.debug("This system cannot count the peak of memory anew.")


def peak_memory() -> float:
    """Peak of the process since `reset_peak_memory`, in MB; on a GPU of what torch holds there."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    try:
        status = Path("/proc/self/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) / 1000, 1)
    except (OSError, IndexError):
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1)


def _write_json(path: Path, value: Any) -> None:
    with written_whole(path) as partial:
        Path(partial).write_text(json.dumps(value, indent=1, default=dict) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# ---------------------------------------------------------------------------------------------------------------------
# Which runs


def chosen_factor(bench: Bench, variant: Variant) -> float | None:
    """The factor of the lowest loss on the check videos; None while runs of the grid are missing."""
    if variant.factor_of is not None:
        return chosen_factor(bench, bench.grid.variants[variant.factor_of])
    seed = bench.grid.values["seeds"][0]
    results = [bench.result(Job(variant, factor, seed)) for factor in bench.grid.values["factors"]]
    if any(result is None for result in results):
        return None
    return min(results, key=lambda result: result["check_loss"])["factor"]


def next_job(bench: Bench, variant: Variant) -> Job | None:
    """The next run that a variant lacks: first the grid on the first seed, then all seeds with what it chose."""
    values = bench.grid.values
    if variant.factor_of is not None and chosen_factor(bench, variant) is None:
        return next_job(bench, bench.grid.variants[variant.factor_of])
    if variant.factor_of is None:
        for factor in values["factors"]:
            job = Job(variant, factor, values["seeds"][0])
            if bench.result(job) is None:
                return job
    factor = chosen_factor(bench, variant)
    jobs = (Job(variant, factor, seed) for seed in values["seeds"])
    return next((job for job in jobs if bench.result(job) is None), None)


def final_results(bench: Bench, variant: Variant) -> list[tuple[Job, dict[str, Any]]]:
    """Runs of all seeds with the chosen factor, as far as they are there."""
    factor = chosen_factor(bench, variant)
    if factor is None:
        return []
    jobs = [Job(variant, factor, seed) for seed in bench.grid.values["seeds"]]
    found = [(job, bench.result(job)) for job in jobs]
    return [(job, result) for job, result in found if result is not None]


def wanted(bench: Bench, experiments: list[str], variants: list[str] | None, share: tuple[int, int]) -> list[Variant]:
    names = list(dict.fromkeys(name for one in experiments for name in bench.grid.rows_of_table(one)))
    unknown = [name for name in variants or () if name not in bench.grid.variants]
    if unknown:
        raise AblationError(f"There is no variant {unknown[0]!r}: one of {', '.join(bench.grid.variants)}.")
    chosen = [bench.grid.variants[name] for name in (variants or names)]
    # Variants that share a learning rate are of one process: one of them waits for the other.
    heads = list(dict.fromkeys(one.factor_of or one.name for one in chosen))
    mine = {head for at, head in enumerate(heads) if at % share[1] == share[0]}
    return [one for one in chosen if (one.factor_of or one.name) in mine]


# ---------------------------------------------------------------------------------------------------------------------
# Tables


def answers(bench: Bench, results: list[tuple[Job, dict[str, Any]]], protocol: str) -> list[dict[str, Any]]:
    """Rows of all seeds, each with its seed."""
    suffix = ".likelihood" if protocol == "likelihood" else ""
    rows = []
    for job, result in results:
        path = bench.folder(job) / "items" / f"{bench.test.name}.plain{suffix}.jsonl"
        rows += [{**json.loads(line), "seed": result["seed"]} for line in path.read_text().splitlines()]
    return rows


def _mean(rows: list[dict[str, Any]], value: str = "correct") -> Interval:
    return mean_interval([float(row[value]) for row in rows], [row["video_id"] for row in rows])


def _shown(rows: list[dict[str, Any]], value: str = "correct") -> str:
    return percent(_mean(rows, value)._asdict()) if rows else "-"


def document(bench: Bench, experiments: list[str]) -> str:
    """A table for each experiment: accuracy by format over all seeds, what it costs, and the difference to the first
    row over the same questions."""
    values, lines = bench.grid.values, ["# Ablations on the world", ""]
    steps = ", ".join(f"{stage['name']} {stage['recipe']['max_steps']}" for stage in values["stages"])
    lines += [
        "Written by `python benchmarks/ablations.py` from `benchmarks/ablations.yaml`. Every run has the same updates "
        f"({steps}) of {values['recipe']['global_batch_size']} rows on the same {len(bench.scenes)} videos, from the "
        "same towers and language model and a fresh connector, on cached features. Learning rates are multiplied by "
        f"one of {', '.join(f'{factor:g}' for factor in values['factors'])}, chosen on seed {values['seeds'][0]} by "
        f"the loss on {values['data']['check_videos']} other videos; then {len(values['seeds'])} seeds. Tested on "
        f"{values['data']['test_videos']} unseen videos, all seeds together; in brackets 95 % intervals, bootstrap "
        "over videos.",
        "",
    ]
    for experiment in experiments:
        names = bench.grid.rows_of_table(experiment)
        found = {name: final_results(bench, bench.grid.variants[name]) for name in names}
        found = {name: results for name, results in found.items() if results}
        lines += [f"## {values['experiments'][experiment]['title']}", ""]
        if not found:
            lines += ["No run is complete.", ""]
            continue
        for protocol in values["protocols"]:
            lines += _accuracies(bench, found, protocol)
        lines += _costs(found)
    return "\n".join(lines)


def _accuracies(bench: Bench, found: dict[str, list], protocol: str) -> list[str]:
    rows, first = [], None
    for name, results in found.items():
        every = answers(bench, results, protocol)
        choices = [row for row in every if row["form"] == "choice"]
        by_seed = [_mean([row for row in choices if row["seed"] == job.seed]).value for job, _ in results]
        right = {(row["seed"], row["id"]): float(row["correct"]) for row in choices}
        video = {row["id"]: row["video_id"] for row in choices}
        first = first or right
        both = [key for key in right if key in first]
        differences = [right[key] - first[key] for key in both]
        change = mean_interval(differences, [video[key[1]] for key in both]) if both else None
        cells = [name, len(results), _shown(choices), " ".join(f"{100 * one:.1f}" for one in by_seed)]
        cells += [_shown([row for row in choices if row["tags"]["question_type"] == kind]) for kind in FORMATS]
        cells.append("-" if change is None or right is first else percent(change._asdict(), signed=True))
        if protocol == "generate":
            cells += [
                _shown([row for row in every if row["form"] == "words"]),
                _shown([row for row in every if row["form"] == "range"], "iou"),
            ]
        rows.append(cells)
    header = ["", "seeds", "multiple choice, %", "each seed", *FORMATS, "difference to the first"]
    if protocol == "generate":
        return table([*header, "open, all words right, %", "open ranges, mean IoU, %"], rows)
    return ["By the most probable option:", "", *table(header, rows)]


def _costs(found: dict[str, list]) -> list[str]:
    rows = []
    for name, results in found.items():
        mean = {
            key: statistics.mean(result[key] for _, result in results)
            for key in ("tokens", "prefill_cpu_seconds", "cache_kb", "connector_parameters", "check_loss")
        }
        stages = [list(result["stages"].values()) for _, result in results]
        rows.append([
            name, f"{results[0][0].factor:g}", f"{mean['check_loss']:.3f}",
            f"{mean['connector_parameters'] / 1e6:.2f}",
            f"{mean['tokens']:.0f}", f"{1000 * mean['prefill_cpu_seconds']:.0f}", f"{mean['cache_kb']:.0f}",
            f"{statistics.mean(max(stage['peak_mb'] for stage in one) for one in stages):.0f}",
            f"{statistics.mean(sum(stage['cpu_seconds'] for stage in one) for one in stages) / 60:.1f}",
        ])  # fmt: skip
    header = ["", "factor", "check loss", "connector, M parameters", "tokens a video", "prefill, CPU ms",
              "cache a video, kB", "peak of training, MB", "training, CPU min"]  # fmt: skip
    return table(header, rows)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, metavar="DIR", help="model whose towers and language model are taken")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the runs, new or begun")
    parser.add_argument("--grid", default=GRID, metavar="FILE", help="grid and budget (default: ablations.yaml)")
    parser.add_argument("--experiment", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these, whatever experiment they are of")
    parser.add_argument("--share", default="0/1", metavar="I/N", help="this process's part of the variants")
    parser.add_argument("--plan", action="store_true", help="only say which runs are there")
    parser.add_argument("--tables-only", action="store_true", help="train nothing, write the tables of what is there")
    parser.add_argument("--docs", metavar="FILE", help="also write the tables there")
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        part, _, parts = args.share.partition("/")
        if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
            raise AblationError(f"--share is I/N with I below N, not {args.share!r}.")
        grid = Grid(args.grid)
        experiments = args.experiment or list(grid.values["experiments"])
        for name in experiments:
            grid.rows_of_table(name)
        bench = Bench(args.base, args.out, grid)
        mine = wanted(bench, experiments, args.variants, (int(part), int(parts)))
    except AblationError as error:
        print(f"ablations: error: {error}", file=sys.stderr)
        return 2
    if args.plan:
        for variant in mine:
            job = next_job(bench, variant)
            there = len(list(Path(bench.out, "runs", variant.name).glob("*/result.json")))
            print(f"{variant.name}: {there} runs are there, " + (f"next {job.name}" if job else "complete"))
        return 0
    if not args.tables_only:
        bench.write_videos()
        for variant in mine:
            while (job := next_job(bench, variant)) is not None:
                print(f"\n{job.name}", flush=True)
                bench.carry_out(job)
    text = document(bench, experiments)
    for path in filter(None, (bench.out / "ablations.md", args.docs and Path(args.docs))):
        with written_whole(path) as partial:
            Path(partial).write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
