"""Ablations and connectors on the world, on cached features, under one budget: `benchmarks/ablations.yaml`.

    python benchmarks/ablations.py --base runs/tiny/init --out runs/ablations [--experiment connectors]
    python benchmarks/ablations.py --base runs/tiny/init --out runs/ablations --jobs 12    # side by side, on one GPU
    python benchmarks/ablations.py --base runs/tiny/init --out runs/ablations --plan       # what is to be done
    python benchmarks/ablations.py --base runs/tiny/init --out runs/ablations --tables-only [--docs docs/ablations.md]
    python benchmarks/ablations.py --base runs/tiny/init --out runs/long --grid benchmarks/ablations_long.yaml

Towers and language model are those of --base (a folder of `saven train tiny`: `init`), the connector of every variant
is fresh. Each run has one folder, `runs/<variant>/factor-<f>.seed-<s>`, with its configuration, the recipe and log of
each stage, every answer, and `result.json` (ablation_record.py makes one file of all). Any number of processes with
the same command work on one folder, in the order of the grid; one that was killed is started again and goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import gc
import json
import logging
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
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
from saven_hf.training.pretrain.connector import pretrain_connector
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
# Into which videos and caches are divided, so that several processes make them.
_PARTS = 16
# Of the first stage, in front of those of the grid.
MOMENTS = "moments"
_POLL_SECONDS = 1.0
# Passes over what is to be done that found nothing to do, and nobody at work, before a process leaves.
_IDLE_PASSES = 3
# By how much the tokens of a video may differ in a table of equal tokens.
_EQUAL = 0.05


class AblationError(ValueError):
    """A grid that cannot be followed, a folder that was begun with another one, or a table that would mislead."""


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
        self.name = Path(path).name
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
            if experiment.get("tokens", "equal") != "equal":
                raise AblationError(f"{path}: {name}: tokens: {experiment['tokens']!r} is none of 'equal'.")
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


@dataclass(frozen=True)
class Work:
    """What one process does while all others keep off.

    Attributes:
        name: of its lock.
        is_done: whether it is, whoever did it.
        is_ready: whether what it needs is there.
    """

    name: str
    do: Callable[[], Any]
    is_done: Callable[[], bool]
    is_ready: Callable[[], bool] = lambda: True


class Bench:
    """A folder of runs over one base model and one grid.

    Args:
        device: "cpu" or "cuda", of everything that is made from now on.

    Raises:
        AblationError: the folder was begun with another grid or model.
    """

    def __init__(self, base: str, out: str | Path, grid: Grid, device: str = "cpu"):
        self.base, self.out, self.grid, self.device = base, Path(out), grid, device
        model, _ = load(base, "cpu")
        inner = model.model
        # The connector of the base is replaced, so it is no part of what runs are known by; nor is the device.
        # Variants may be added: what each is stands with its runs.
        self.claim = {
            "grid": {name: value for name, value in grid.values.items() if name != "experiments"},
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
        for path in self.out.glob("runs/*/*/config.json"):
            variant, made = path.parts[-3], _read_json(path)["variant"]
            if variant in self.grid.variants and made != json.loads(json.dumps(vars(self.grid.variants[variant]))):
                raise AblationError(f"{path.parent} was made with another {variant!r}: give the new one a new name.")

    # -- data ---------------------------------------------------------------------------------------------------------

    def video(self, scene: Scene) -> Path:
        return self.out / "videos" / scene.split / f"{scene.video_id}.mp4"

    def _marked(self, name: str, do: Callable[[], Any], needs: Iterable[Work] = ()) -> Work:
        """Work that leaves a mark behind when it is done."""
        mark = self.out / "done" / name

        def and_mark() -> None:
            do()
            mark.parent.mkdir(exist_ok=True)
            mark.touch()

        return Work(name, and_mark, mark.is_file, lambda: all(need.is_done() for need in needs))

    @cached_property
    def videos(self) -> list[Work]:
        """All videos: those that are learnt from, tested on, and that rates are chosen on."""
        writers: list[Callable[[], Any]] = [partial(self._write_video, scene) for scene in self.scenes]
        for benchmark in (self.test, self.check):
            writers += [partial(benchmark.media, video) for video in benchmark.video_ids]

        def write(part: int) -> None:
            for writer in writers[part::_PARTS]:
                writer()

        return [self._marked(f"videos-{part}", partial(write, part)) for part in range(_PARTS)]

    def _write_video(self, scene: Scene) -> None:
        path = self.video(scene)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(scene, path)

    @cached_property
    def conversations(self) -> list[Work]:
        stages = [stage["name"] for stage in self.grid.values["stages"]]
        return [self._marked(f"rows-{stage}", partial(self.rows, stage)) for stage in stages]

    def rows(self, stage: str) -> Path:
        """Conversations of a stage about the training videos, as JSONL."""
        path = self.out / "rows" / f"{stage}.jsonl"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
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

    def cache(self, variant: Variant) -> Path:
        """Outputs of the towers for every video, with the frames of a variant."""
        return self.out / "cache" / ".".join(f"{key}-{value}" for key, value in self.grid.sampling(variant).items())

    def caching(self, variant: Variant) -> list[Work]:
        """What fills the cache of a variant."""
        sampling, folder = self.grid.sampling(variant), self.cache(variant)

        def encode(part: int) -> None:
            model, processor = self.towers
            processor = SAVEnVideoProcessor.from_components(processor.tokenizer, config=model.config, **sampling)
            report = build_cache(
                list_media(self.out / "videos"), folder, model, processor, dtype="bfloat16", shard=part,
                num_shards=_PARTS, progress=False, **sampling,
            )  # fmt: skip
            if report.failed:
                raise AblationError(
                    f"{len(report.failed)} videos cannot be read: {next(iter(report.failed.items()))}."
                )

        return [
            self._marked(f"cache-{folder.name}-{part}", partial(encode, part), self.videos) for part in range(_PARTS)
        ]

    @cached_property
    def towers(self) -> tuple[SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor]:
        """The base, to encode with."""
        return load(self.base, self.device, torch.float32)

    # -- a run --------------------------------------------------------------------------------------------------------

    def folder(self, job: Job) -> Path:
        return self.out / "runs" / job.name

    def result(self, job: Job) -> dict[str, Any] | None:
        path = self.folder(job) / "result.json"
        return _read_json(path) or None

    def trained(self, job: Job) -> dict[str, Any] | None:
        """What its training gave, with the loss that rates are chosen by."""
        return _read_json(self.folder(job) / "trained.json") or None

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

    def train(self, job: Job) -> dict[str, Any]:
        """All stages, and the loss on the check videos; what is there already is kept."""
        done = self.trained(job)
        if done is not None:
            return done
        folder, variant = self.folder(job), job.variant
        folder.mkdir(parents=True, exist_ok=True)
        made = {"variant": variant.name, "factor": job.factor, "seed": job.seed, "device": self.device}
        _write_json(folder / "config.json", {**self.claim, **made, "variant": vars(variant)})
        spent = _read_json(folder / "spent.json")
        last = folder / MOMENTS
        try:
            for stage in (None, *self.grid.values["stages"]):
                name = MOMENTS if stage is None else stage["name"]
                if name not in spent:
                    do = partial(self._tell_moments, job) if stage is None else partial(self._train, job, stage, last)
                    spent[name] = self._measured(do)
                    _write_json(folder / "spent.json", spent)
                if name != MOMENTS:
                    _remove_weights(last)
                    last = Path(folder, name, "merged") if spent[name]["merged"] else folder / name
            model, processor = load(last, self.device, torch.float32)
            loss = self._check_loss(variant, model, processor, FeatureCache(self.cache(variant)))
        except FloatingPointError as error:
            logger.warning("%s: %s", job.name, error)
            loss = math.inf
        found = {**made, "stages": spent, "check_loss": loss if math.isfinite(loss) else math.inf}
        _write_json(folder / "trained.json", {**found, "model": str(last.relative_to(folder))})
        return found

    def finish(self, variant: Variant, seed: int) -> None:
        """Train with the chosen rate and test; then no weights are needed, nor those of other rates."""
        factor = chosen_factor(self, variant)
        job = Job(variant, factor, seed)
        trained = self.train(job)
        if not math.isfinite(trained["check_loss"]):
            raise AblationError(f"{job.name} diverged: give the grid smaller factors.")
        if self.result(job) is None:
            found = {**trained, **self._test(job), "device": self.device}
            _write_json(self.folder(job) / "result.json", found)
        for one in self.grid.values["factors"]:  # logs and answers stay
            _remove_weights(self.folder(Job(variant, one, seed)))

    def _measured(self, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        reset_peak_memory(self.device)
        clock, cpu = time.perf_counter(), time.process_time()
        found = do()
        gc.collect()
        return {
            **found,
            "device": self.device,
            "seconds": round(time.perf_counter() - clock, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_mb": peak_memory(self.device),
        }

    def _tell_moments(self, job: Job) -> dict[str, Any]:
        """The first stage: a fresh connector learns to say moments as the language model reads them."""
        settings, variant = self.grid.values[MOMENTS], job.variant
        model, processor = self.assemble(variant, job.seed)
        model.to(self.device)
        folder = self.folder(job) / MOMENTS
        pretrain_connector(
            folder, model, processor.tokenizer, self.scenes, [self.video(scene) for scene in self.scenes],
            self.cache(variant), steps=settings["steps"], batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"] * job.factor, use_audio=variant.use_audio, seed=job.seed,
            shift_seconds=self.grid.values["recipe"].get("time_shift_seconds", 0.0), progress=False,
        )  # fmt: skip
        processor.save_pretrained(folder)
        model.save_pretrained(folder)
        losses = [json.loads(line)["loss"] for line in (folder / "losses.jsonl").read_text().splitlines()]
        return {"steps": settings["steps"], "loss": statistics.mean(losses[-20:])}

    def _train(self, job: Job, stage: Mapping[str, Any], start: Path) -> dict[str, Any]:
        variant = job.variant
        recipe = {**self.grid.values["recipe"], **stage["recipe"], **variant.recipe}
        for name in ("learning_rate", "connector_learning_rate"):
            if recipe.get(name) is not None:
                recipe[name] *= job.factor
        rows = self.rows(variant.rows_of.get(stage["name"], stage["name"]))
        recipe |= {
            "model": str(start),
            "output_dir": str(self.folder(job) / stage["name"]),
            "data": [{"path": str(rows), "cache": str(self.cache(variant))}],
            "video": self.grid.sampling(variant),
            "use_audio": variant.use_audio,
            "seed": job.seed,
            "trainer": {**recipe.get("trainer", {}), "use_cpu": self.device == "cpu"},
        }
        result = train(from_dict(recipe))
        return {"merged": result.merged is not None, "steps": result.steps, "loss": result.loss}

    def _test(self, job: Job) -> dict[str, Any]:
        folder, variant = self.folder(job), job.variant
        model, processor = load(folder / self.trained(job)["model"], self.device, torch.float32)
        adapter = FeatureAdapter(
            model,
            processor,
            FeatureCache(self.cache(variant)),
            variant.use_audio,
            max_new_tokens=self.grid.values["max_new_tokens"],
            **self.grid.sampling(variant),
        )
        for protocol in self.grid.values["protocols"]:
            run(self.test, adapter, folder, protocol=protocol, progress=False)
        parameters = sum(one.numel() for one in model.model.resampler.parameters())
        return {"connector_parameters": parameters, **self._cost(adapter)}

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
            batch = {name: one.to(model.device) if hasattr(one, "to") else one for name, one in batch.items()}
            learnt = int((batch["labels"][:, 1:] != -100).sum())
            total, count = total + model(**batch).loss.item() * learnt, count + learnt
        return total / max(count, 1)

    @torch.no_grad()
    def _cost(self, adapter: FeatureAdapter) -> dict[str, float]:
        """Of single questions on test videos: tokens of the medium, seconds to the first token, and the cache. On the
        CPU, whatever the device of the run: times of two devices are no column."""
        adapter.model.to("cpu")
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


def reset_peak_memory(device: str) -> None:
    """Give freed memory back, and count the peak anew where the system can."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        logger.debug("This system cannot count the peak of memory anew.")


def peak_memory(device: str) -> float:
    """Peak of the process since `reset_peak_memory`, in MB; on a GPU of what torch holds there."""
    if device == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6, 1)
    try:
        status = Path("/proc/self/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) / 1000, 1)
    except (OSError, IndexError):
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1)


def _remove_weights(folder: Path) -> None:
    for weights in [*folder.rglob("*.safetensors"), *folder.rglob("checkpoint.pt")]:
        weights.unlink(missing_ok=True)
    for checkpoint in folder.rglob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def _write_json(path: Path, value: Any) -> None:
    with written_whole(path) as partial:
        Path(partial).write_text(json.dumps(value, indent=1, default=dict) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# ---------------------------------------------------------------------------------------------------------------------
# Which runs, and who makes them


def chosen_factor(bench: Bench, variant: Variant) -> float | None:
    """The factor of the lowest loss on the check videos; None while runs of the grid are missing."""
    if variant.factor_of is not None:
        return chosen_factor(bench, bench.grid.variants[variant.factor_of])
    seed = bench.grid.values["seeds"][0]
    trained = [bench.trained(Job(variant, factor, seed)) for factor in bench.grid.values["factors"]]
    if any(one is None for one in trained):
        return None
    return min(trained, key=lambda one: one["check_loss"])["factor"]


def works(bench: Bench, variants: Iterable[Variant]) -> list[Work]:
    """All that is to be done for variants, in order: of each the rates on the first seed, then all seeds, tested."""
    found = {work.name: work for work in (*bench.videos, *bench.conversations)}

    def add(work: Work) -> None:
        found.setdefault(work.name, work)

    for variant in variants:
        head = variant if variant.factor_of is None else bench.grid.variants[variant.factor_of]
        for one in (head, variant):
            for work in bench.caching(one):
                add(work)
        begun = [*bench.conversations, *bench.caching(head)]
        for factor in bench.grid.values["factors"]:
            job = Job(head, factor, bench.grid.values["seeds"][0])
            add(Work(job.name, partial(bench.train, job), partial(_is_trained, bench, job), partial(_all_done, begun)))
        for seed in bench.grid.values["seeds"]:
            add(
                Work(
                    f"{variant.name}/seed-{seed}",
                    partial(bench.finish, variant, seed),
                    partial(_is_finished, bench, variant, seed),
                    partial(_can_finish, bench, variant),
                )
            )
    return list(found.values())


def _is_trained(bench: Bench, job: Job) -> bool:
    return bench.trained(job) is not None


def _all_done(needs: Iterable[Work]) -> bool:
    return all(need.is_done() for need in needs)


def _is_finished(bench: Bench, variant: Variant, seed: int) -> bool:
    factor = chosen_factor(bench, variant)
    return factor is not None and bench.result(Job(variant, factor, seed)) is not None


def _can_finish(bench: Bench, variant: Variant) -> bool:
    return chosen_factor(bench, variant) is not None and _all_done([*bench.conversations, *bench.caching(variant)])


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether the lock at `path` is ours. It dies with its process, so that none is ever left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def work_off(todo: list[Work], locks: Path, deadline: float = math.inf) -> list[str]:
    """Do what nobody else does, until all is done, nothing more can be, or the deadline has come.

    Args:
        deadline: of `time.monotonic`; nothing is begun after it.

    Returns:
        Names of what failed here; why is logged.
    """
    failed: list[str] = []
    idle = 0
    while idle < _IDLE_PASSES:
        idle += 1
        for work in todo:
            if work.name in failed or work.is_done() or not work.is_ready():
                continue
            if time.monotonic() > deadline:
                return failed
            with claimed(locks / f"{work.name}.lock") as mine:
                idle = 0  # or another one is at it
                if not mine or work.is_done():
                    continue
                print(work.name, flush=True)
                try:
                    work.do()
                except Exception:
                    logger.exception("%s failed", work.name)
                    failed.append(work.name)
                break  # what comes first may be ready by now
        else:
            if all(work.is_done() for work in todo):
                break
            time.sleep(_POLL_SECONDS)
    return failed


def final_results(bench: Bench, variant: Variant) -> list[tuple[Job, dict[str, Any]]]:
    """Runs of all seeds with the chosen factor, as far as they are there."""
    factor = chosen_factor(bench, variant)
    if factor is None:
        return []
    jobs = [Job(variant, factor, seed) for seed in bench.grid.values["seeds"]]
    found = [(job, bench.result(job)) for job in jobs]
    return [(job, result) for job, result in found if result is not None]


def wanted(bench: Bench, experiments: list[str], variants: list[str] | None) -> list[Variant]:
    names = list(dict.fromkeys(name for one in experiments for name in bench.grid.rows_of_table(one)))
    unknown = [name for name in variants or () if name not in bench.grid.variants]
    if unknown:
        raise AblationError(f"There is no variant {unknown[0]!r}: one of {', '.join(bench.grid.variants)}.")
    return [bench.grid.variants[name] for name in (variants or names)]


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
    row over the same questions.

    Raises:
        AblationError: rows of a table of equal tokens have not as many.
    """
    values = bench.grid.values
    steps = ", ".join(f"{stage['name']} {stage['recipe']['max_steps']}" for stage in values["stages"])
    variants = wanted(bench, experiments, None)
    devices = Counter(result["device"] for one in variants for _, result in final_results(bench, one))
    tested = ", ".join(f"{count} on {device}" for device, count in devices.most_common()) or "none"
    factors, seeds = values["factors"], len(values["seeds"])
    rates = (
        f"Learning rates are multiplied by one of {', '.join(f'{factor:g}' for factor in factors)}, chosen on seed "
        f"{values['seeds'][0]} by the loss on {values['data']['check_videos']} other videos; then {seeds} seeds. "
        if len(factors) > 1
        else f"One learning rate, {seeds} seed{'s' if seeds > 1 else ''}. "
    )
    lines = [
        f"# {values.get('title', 'Ablations on the world')}",
        "",
        f"Written by `python benchmarks/ablations.py` from `benchmarks/{bench.grid.name}`. Every run starts from the "
        f"same towers and language model and a fresh connector, on cached features of the same {len(bench.scenes)} "
        f"videos. The connector first learns to say moments ({values[MOMENTS]['steps']} updates of "
        f"{values[MOMENTS]['batch_size']} videos), then come the paper's stages ({steps} updates of "
        f"{values['recipe']['global_batch_size']} rows). {rates}Tested on {values['data']['test_videos']} unseen "
        f"videos, all seeds together; in brackets 95 % intervals, bootstrap over videos. Tested runs: {tested}.",
        "",
    ]
    for experiment in experiments:
        names = bench.grid.rows_of_table(experiment)
        found = {name: final_results(bench, bench.grid.variants[name]) for name in names}
        found = {name: results for name, results in found.items() if results}
        lines += [f"## {values['experiments'][experiment]['title']}", ""]
        if notes := values["experiments"][experiment].get("notes"):
            lines += [notes.strip(), ""]
        if not found:
            lines += ["No run is complete.", ""]
            continue
        if values["experiments"][experiment].get("tokens") == "equal":
            _check_equal_tokens(experiment, found)
        for protocol in values["protocols"]:
            lines += _accuracies(bench, found, protocol)
        lines += _costs(found, devices.most_common(1)[0][0])
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


def _check_equal_tokens(experiment: str, found: dict[str, list]) -> None:
    tokens = {name: statistics.mean(result["tokens"] for _, result in results) for name, results in found.items()}
    least, most = min(tokens, key=tokens.get), max(tokens, key=tokens.get)
    if tokens[most] > (1 + _EQUAL) * tokens[least]:
        raise AblationError(
            f"{experiment} is a table of equal tokens, but {most} spends {tokens[most]:.0f} on a video and {least} "
            f"{tokens[least]:.0f}: give them one budget, or move one to another table."
        )


def _costs(found: dict[str, list], device: str) -> list[str]:
    """What training took is shown of the runs on one device, since two are not to be compared; on a CPU the time that
    its core worked for it, since runs share the machine."""
    rows, clock = [], "cpu_seconds" if device == "cpu" else "seconds"
    for name, results in found.items():
        mean = {
            key: statistics.mean(result[key] for _, result in results)
            for key in ("tokens", "prefill_cpu_seconds", "cache_kb", "connector_parameters", "check_loss")
        }
        stages = [list(result["stages"].values()) for _, result in results]
        there = [one for one in stages if all(stage["device"] == device for stage in one)]
        peak = [max(stage["peak_mb"] for stage in one) for one in there]
        spent = [sum(stage[clock] for stage in one) / 60 for one in there]
        rows.append([
            name, f"{results[0][0].factor:g}", f"{statistics.mean(one[0]['loss'] for one in stages):.3f}",
            f"{mean['check_loss']:.3f}", f"{mean['connector_parameters'] / 1e6:.2f}",
            f"{mean['tokens']:.0f}", f"{1000 * mean['prefill_cpu_seconds']:.0f}", f"{mean['cache_kb']:.0f}",
            f"{statistics.mean(peak):.0f}" if peak else "-", f"{statistics.mean(spent):.1f}" if spent else "-",
        ])  # fmt: skip
    header = ["", "factor", "moments, loss", "check loss", "connector, M parameters", "tokens a video",
              "prefill, CPU ms", "cache a video, kB", f"peak of training, MB on {device}",
              "training, core min" if device == "cpu" else f"training, min on {device}"]  # fmt: skip
    return table(header, rows)


def _side_by_side(jobs: int, words: list[str], logs: Path) -> int:
    """Run this command in so many processes that share the cores; the worst of their exit codes."""
    logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    command = [sys.executable, str(Path(__file__).resolve()), *words, "--jobs", "1"]
    running = []
    for number in range(jobs):
        with open(logs / f"{number}.log", "a") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    return max(abs(one.wait()) for one in running)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, metavar="DIR", help="model whose towers and language model are taken")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the runs, new or begun")
    parser.add_argument("--grid", default=GRID, metavar="FILE", help="grid and budget (default: ablations.yaml)")
    parser.add_argument("--experiment", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these, whatever experiment they are of")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes side by side")
    parser.add_argument("--deadline", type=float, default=math.inf, metavar="SECONDS", help="begin nothing after that")
    parser.add_argument("--plan", action="store_true", help="only say which runs are there")
    parser.add_argument("--tables-only", action="store_true", help="train nothing, write the tables of what is there")
    parser.add_argument("--docs", metavar="FILE", help="also write the tables there")
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    deadline = time.monotonic() + args.deadline
    try:
        grid = Grid(args.grid)
        experiments = args.experiment or list(grid.values["experiments"])
        for name in experiments:
            grid.rows_of_table(name)
        bench = Bench(args.base, args.out, grid, args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        variants = wanted(bench, experiments, args.variants)
        if args.plan:
            seeds, factors = grid.values["seeds"], grid.values["factors"]
            for variant in variants:
                there = sum(_is_finished(bench, variant, seed) for seed in seeds)
                rates = sum(_is_trained(bench, Job(variant, factor, seeds[0])) for factor in factors)
                told = f"{there} of {len(seeds)} seeds are finished, {rates} rates of the first one trained"
                print(f"{variant.name}: {told}")
            return 0
        code = 0
        if args.jobs > 1 and not args.tables_only:
            code = _side_by_side(args.jobs, sys.argv[1:] if words is None else words, bench.out / "logs")
        elif not args.tables_only:
            failed = work_off(works(bench, variants), bench.out / "locks", deadline)
            for name in failed:
                print(f"ablations: error: {name} failed, see above", file=sys.stderr)
            code = int(bool(failed))
        text = document(bench, experiments)
    except AblationError as error:
        print(f"ablations: error: {error}", file=sys.stderr)
        return 2
    for path in filter(None, (bench.out / "ablations.md", args.docs and Path(args.docs))):
        with written_whole(path) as partly:
            Path(partly).write_text(text, encoding="utf-8")
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
