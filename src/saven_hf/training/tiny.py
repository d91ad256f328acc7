"""The tiny model from nothing: `saven train tiny`.

Parts, world, cache and the four stages, one after the other, through the same public functions that train a 7B. Every
step is kept once it is complete and goes on from its checkpoint where it was killed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import AutoTokenizer, Qwen2ForCausalLM

from ..files import written_whole
from ..hub import load, save_plain, usable_device
from ..savenvideo.modeling_savenvideo import PLACEHOLDER_TOKENS, SAVEnVideoForConditionalGeneration
from ..savenvideo.processing_savenvideo import SAVEnVideoProcessor
from ..world.conversations import as_messages, make_conversation
from ..world.interventions import blacken_picture, edit_sound
from ..world.scenes import Scene
from ..world.splits import sample_scene
from ..world.video import write_video
from .cache import Source, build_cache
from .pretrain.audio import pretrain_audio
from .pretrain.connector import pretrain_connector
from .pretrain.language import pretrain_language, tiny_language_config
from .pretrain.tokenizer import train_tokenizer
from .pretrain.vision import pretrain_vision
from .recipe import load_recipe
from .trainer import train


logger = logging.getLogger(__name__)

# What the tiny model is, beside its parts. All our decision.
CONNECTOR = {
    "resampler_hidden_size": 192,
    # Seeing, finding where it begins and ends, and saying when that is take a layer or two each.
    "resampler_layers": 5,
    "resampler_heads": 4,
    "resampler_intermediate_size": 512,
    "queries_per_window": 48,
    "window_seconds": 30.0,
    "window_frames": 128,
    # A narrow layer needs larger weights: at 0.02, made for a width of 1024, attention starts out blind.
    "initializer_range": 0.07,
}
CONNECTOR_WEIGHTS, LEARNER = "connector.safetensors", ("resampler", "temporal_projection")
SAMPLING = {"sampling": "fps", "fps": 4.0, "max_frames": 768}
NOTICE = (
    "this tiny model was trained on the procedural world of shapes and tones (docs/world.md) and knows nothing else; "
    "for real video, take a model that learnt it, such as VideoLLaMA2.1-7B-AV as docs/peers.md converts it."
)


@dataclass(frozen=True)
class Rows:
    """Conversations of one sort.

    Attributes:
        kinds: of turns, as weights of `make_conversation`.
        turns: most in a row.
        segments: most of a scene that is talked about so; what a row costs grows with the square of its length.
        needs: "picture" or "sound", if that alone is talked about; None is anything.
    """

    kinds: Mapping[str, float]
    turns: int
    segments: int = 20
    needs: str | None = None


# Sorts take turns, so that each makes up about an equal share of a stage's rows. Captions of a whole scene are long
# and stand alone.
ROWS = {
    "align-visual": [Rows({"visual_captions": 1.0}, 1), Rows({"visual_span_caption": 1.0}, 5)],
    "align-audio": [
        Rows({"captions": 1.0}, 1, segments=5),
        Rows({"audio_captions": 1.0}, 1),
        Rows({"span_caption": 2.0, "audio_span_caption": 1.0}, 5),
    ],
    "temporal": [
        Rows({"span_caption": 2.0, "visual_span_caption": 1.0, "audio_span_caption": 1.0}, 4),
        Rows({"open": 1.0}, 6),
        Rows({"open": 1.0, "range": 2.0}, 6),
    ],
    # The paper's mix of captions and questions is 21 : 37.
    "saven": [Rows({"span_caption": 10.0, "choice": 25.0, "open": 12.0}, 5)],
}
# Of videos that lack picture or sound, by what is left: a model that was never shown a black picture loses what it
# hears under one. Learnt behind the stages, beside more rows of the usual sort, in smaller steps (our decision).
ONE_SIDED = {
    "sound": Rows({"audio_span_caption": 10.0, "choice": 25.0, "open": 12.0}, 5, needs="sound"),
    "picture": Rows({"visual_span_caption": 10.0, "choice": 25.0, "open": 12.0}, 5, needs="picture"),
}
ONE_SIDED_PASS = "one-sided"
ONE_SIDED_RECIPE = {"max_steps": 170, "learning_rate": 3.0e-4}


@dataclass
class TinyPlan:
    """How much of everything.

    videos, short_videos: scenes of 4 to 10 and of 2 to 4 segments, the latter to begin with; one_sided_videos: how
    many of them are there also with a black picture, and also in silence; rows: conversations about a video, for each
    stage; language_layers: of the language model; language_batch, connector_batch: conversations and videos of an
    update; recipe: keys that replace those of all stages' recipes; workers: processes that write and read videos;
    drawers: processes that draw conversations for the language model, 0 for its own.
    """

    videos: int = 1000
    short_videos: int = 600
    one_sided_videos: int = 200
    rows: int = 6
    language_layers: int = 5
    language_steps: int = 7000
    language_batch: int = 16
    vision_steps: int = 3000
    audio_steps: int = 2000
    connector_steps: int = 2000
    connector_batch: int = 8
    recipe: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 1
    drawers: int = 0

    @classmethod
    def for_device(cls, device: str | torch.device) -> TinyPlan:
        """Some hours on two cores; on a GPU, of which so small a model fills little, a deeper language model and
        larger batches in some minutes."""
        if torch.device(device).type == "cpu":
            return cls()
        drawers = min(6, (os.cpu_count() or 1) // 2)
        return cls(
            language_layers=7, language_steps=5000, language_batch=128, connector_steps=1000, connector_batch=64,
            recipe={"dataloader_workers": 4}, workers=max(1, (os.cpu_count() or 1) - drawers - 2), drawers=drawers,
        )  # fmt: skip


def train_tiny(
    output_dir: str | os.PathLike, plan: TinyPlan | None = None, device: str | torch.device | None = None
) -> Path:
    """Train the tiny model from nothing; run it again after an interruption.

    Args:
        output_dir: gets `language`, `vision`, `audio`, `videos`, `cache`, `rows`, `init`, `connector`, a folder a
            stage, `one-sided` (the pass on videos that lack picture or sound), `halfway` to it, and `model`.
        plan: how much of everything; that of the device if None.
        device: to train on; a GPU if there is one.

    Returns:
        `model`, the folder of the trained model.
    """
    out, device = Path(output_dir), usable_device(device)
    plan = plan or TinyPlan.for_device(device)
    out.mkdir(parents=True, exist_ok=True)
    _tokenizer(out / "tokenizer")
    # Neither needs the other: the code that both speak is agreed on.
    _side_by_side([(_language, out, plan, device), (_senses, out, plan, device)])
    folder = _joined(out)
    write_rows(out / "rows", plan)
    for stage in ROWS:
        folder = _stage(out, stage, stage, folder, plan.recipe, device)
    one_sided = _stage(out, ONE_SIDED_PASS, "saven", folder, {**ONE_SIDED_RECIPE, **plan.recipe}, device)
    return ship(_halfway(folder, one_sided, out / "halfway"), out / "model")


def _stage(out: Path, name: str, recipe: str, start: Path, settings: Mapping[str, Any], device: torch.device) -> Path:
    """Train on the rows `name` from the model in `start`; the folder of the trained model."""
    trained = out / name / "merged" if recipe in ("temporal", "saven") else out / name
    if (trained / "model.safetensors").is_file():
        return trained
    places = {
        "model": start,
        "output_dir": out / name,
        "data.0.path": out / "rows" / f"{name}.jsonl",
        "data.0.cache": out / "cache",
    }
    settings = {key: str(path) for key, path in places.items()} | dict(settings)
    settings["trainer.use_cpu"] = device.type == "cpu"
    train(load_recipe(f"tiny/{recipe}", [f"{key}={json.dumps(value)}" for key, value in settings.items()]))
    return trained


def _halfway(first: Path, second: Path, out: Path) -> Path:
    """The mean of two models, the second trained from the first, in `out`: it can what the second learnt, and has lost
    less of what the first could (Wortsman et al. 2022)."""
    model, processor = load(first, device="cpu", dtype=torch.float32)
    other, _ = load(second, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for parameter, further in zip(model.parameters(), other.parameters(), strict=True):
            parameter.lerp_(further, 0.5)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out


def _side_by_side(tasks: Sequence[tuple]) -> None:
    """Call functions with their arguments, each in a process of its own, on its share of this one's threads.

    So small a model keeps one core busy and no more.
    """
    threads = max(1, torch.get_num_threads() // len(tasks))
    spawn = get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(len(tasks), spawn, torch.set_num_threads, (threads,)) as pool:
        for done in [pool.submit(*task) for task in tasks]:
            done.result()


def _language(out: Path, plan: TinyPlan, device: torch.device) -> None:
    if not _is_there(out / "language" / "config.json"):
        tokenizer = _tokenizer(out / "tokenizer")
        pretrain_language(
            out / "language", tokenizer, steps=plan.language_steps, batch_size=plan.language_batch, device=device,
            config=tiny_language_config(tokenizer, num_hidden_layers=plan.language_layers), workers=plan.drawers,
        )  # fmt: skip


def _senses(out: Path, plan: TinyPlan, device: torch.device) -> None:
    """Towers, videos, what the towers say of them, and the connector that says it to a language model."""
    if not _is_there(out / "vision" / "config.json"):
        pretrain_vision(out / "vision", _tokenizer(out / "tokenizer"), steps=plan.vision_steps, device=device)
    if not _is_there(out / "audio" / "config.json"):
        pretrain_audio(out / "audio", steps=plan.audio_steps, device=device)
    if _is_there(out / CONNECTOR_WEIGHTS):
        return
    # The language model is still being trained; the connector needs its width alone.
    tokenizer = _tokenizer(out / "tokenizer")
    stand_in = out / "stand-in"
    Qwen2ForCausalLM(tiny_language_config(tokenizer)).save_pretrained(stand_in)
    model, processor = _assemble(out, stand_in)
    shutil.rmtree(stand_in)
    film(out, plan, model, processor)
    scenes = list(scenes_of(plan))
    parts = (model.to(device), tokenizer, scenes, [_video(out, scene) for scene in scenes], out / "cache")
    pretrain_connector(out / "connector", *parts, steps=plan.connector_steps, batch_size=plan.connector_batch)
    learnt = {
        f"{name}.{key}": value.cpu().contiguous()
        for name in LEARNER for key, value in getattr(model.model, name).state_dict().items()
    }  # fmt: skip
    with written_whole(out / CONNECTOR_WEIGHTS) as partial:
        save_file(learnt, partial)


def _joined(out: Path) -> Path:
    """The model of all pretrained parts, in `connector`."""
    folder = out / "connector"
    if not _is_there(folder / "config.json"):
        model, processor = assemble(out)
        learnt = load_file(out / CONNECTOR_WEIGHTS)
        for name in LEARNER:
            part = {key.removeprefix(f"{name}."): value for key, value in learnt.items() if key.startswith(f"{name}.")}
            getattr(model.model, name).load_state_dict(part)
        processor.save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


def _video(out: Path, scene: Scene, left: str | None = None) -> Path:
    """The file of a scene, or of what is left of it where the other of picture and sound is missing."""
    return out / "videos" / (f"{scene.video_id}.{left}-only.mp4" if left else f"{scene.video_id}.mp4")


def _is_there(path: Path) -> bool:
    if path.is_file():
        logger.info("%s is there", path)
        return True
    return False


def _tokenizer(folder: Path):
    if not (folder / "tokenizer.json").is_file():
        tokenizer = train_tokenizer()
        tokenizer.add_special_tokens(
            {"additional_special_tokens": list(PLACEHOLDER_TOKENS.values())}, replace_extra_special_tokens=False
        )
        tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def assemble(out: Path) -> tuple[SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor]:
    """The model of the pretrained parts with a fresh connector, and its processor, in `init`."""
    model, processor = _assemble(out, out / "language")
    model.save_pretrained(out / "init")
    processor.save_pretrained(out / "init")
    return model, processor


def _assemble(out: Path, language: Path) -> tuple[SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor]:
    torch.manual_seed(0)
    tokenizer = _tokenizer(out / "tokenizer")
    model = SAVEnVideoForConditionalGeneration.from_components(
        out / "vision", out / "audio", language, tokenizer, **CONNECTOR
    )
    return model, SAVEnVideoProcessor.from_components(tokenizer, config=model.config, **SAMPLING)


def ship(folder: Path, out: Path) -> Path:
    """The trained model as `hub_configs/savenvideo-tiny` holds it: bfloat16, with its notice. Returns `out`."""
    model, processor = load(folder, device="cpu", dtype=torch.bfloat16)
    model.config.notice = NOTICE
    model.generation_config.max_new_tokens = 256
    save_plain(out, model, processor)
    return out


def scenes_of(plan: TinyPlan) -> Iterator[Scene]:
    """All scenes that are trained on: short ones first. Seeds differ from those that the language model read."""
    first = 2**31
    for number in range(plan.short_videos):
        yield sample_scene(first + number, segments=(2, 4))
    for number in range(plan.videos):
        yield sample_scene(first + plan.short_videos + number)


def one_sided_scenes(plan: TinyPlan) -> Iterator[Scene]:
    """Those that are there also with a black picture, and also in silence: evenly spread over all."""
    scenes = list(scenes_of(plan))
    count = min(plan.one_sided_videos, len(scenes))
    return (scenes[at * len(scenes) // count] for at in range(count))


def film(out: Path, plan: TinyPlan, model: SAVEnVideoForConditionalGeneration, processor: SAVEnVideoProcessor) -> None:
    """Every scene as an H.264/AAC file, in `videos`, and what the towers say of it, in `cache`."""
    towers = out / "towers"
    model.save_pretrained(towers)
    processor.save_pretrained(towers)
    (out / "videos").mkdir(parents=True, exist_ok=True)
    _side_by_side([(_film_share, out, plan, towers, share) for share in range(plan.workers)])
    shutil.rmtree(towers)


def _film_share(out: Path, plan: TinyPlan, towers: Path, share: int) -> None:
    mine = [scene for at, scene in enumerate(scenes_of(plan)) if at % plan.workers == share]
    one_sided = {scene.seed for scene in one_sided_scenes(plan)}
    videos = []
    for scene in tqdm(mine, desc="videos", unit="video", disable=share > 0):
        videos.append(_video(out, scene))
        if not videos[-1].is_file():
            write_video(scene, videos[-1])
        if scene.seed in one_sided:
            videos += [_without_other(out, scene, left) for left in ONE_SIDED]
    media = [Source({"path": str(video)}, video.name) for video in videos]
    model, processor = load(towers, device="cpu", dtype=torch.float32)
    report = build_cache(media, out / "cache", model, processor, dtype="bfloat16", progress=share == 0)
    if report.failed:
        raise RuntimeError(f"{len(report.failed)} videos could not be read: {next(iter(report.failed.items()))}.")
    logger.info("%s", report)


def _without_other(out: Path, scene: Scene, left: str) -> Path:
    """Write what is left of a scene's video: its sound under a black picture, or its picture in silence."""
    video = _video(out, scene, left)
    if not video.is_file():
        if left == "sound":
            blacken_picture(_video(out, scene), video)
        else:
            edit_sound(_video(out, scene), video, mute=True)
    return video


def conversation_row(scene: Scene, rows: Rows, round: int, video: Path) -> dict | None:
    """A row of messages (docs/data.md) about a scene and its video, for a folder beside the video's; None if there is
    nothing of the sort to say."""
    if len(scene.pictures) > rows.segments:
        return None
    turns = make_conversation(scene, rows.kinds, turns=rows.turns, round=round, needs=rows.needs)
    if not turns:
        return None
    place = f"../{video.parent.name}/{video.name}"
    return {"id": f"{video.stem}-{round}", "messages": as_messages(turns), "videos": [place]}


def write_rows(folder: Path, plan: TinyPlan) -> None:
    """Conversations for each stage, and for the pass behind them, as JSONL."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate((*ROWS, ONE_SIDED_PASS)):
        path = folder / f"{name}.jsonl"
        if path.is_file():
            continue
        with written_whole(path) as partial, open(partial, "w", encoding="utf-8") as file:
            for scene, left, rows, round in _told(name, plan):
                video = _video(folder.parent, scene, left)
                row = conversation_row(scene, rows, number * plan.rows + round, video)
                if row is not None:
                    file.write(json.dumps(row) + "\n")


def _told(name: str, plan: TinyPlan) -> Iterator[tuple[Scene, str | None, Rows, int]]:
    """What a stage talks about: scene, what is left of it (None: all), in which sort of rows, in which round."""
    if name in ROWS:
        for scene in scenes_of(plan):
            for round in range(plan.rows):
                yield scene, None, ROWS[name][round % len(ROWS[name])], round
        return
    for scene in one_sided_scenes(plan):
        for left, rows in ONE_SIDED.items():
            for round in range(0, plan.rows, 2):
                yield scene, left, rows, round
    for scene in scenes_of(plan):
        yield scene, None, ROWS["saven"][0], 0
