"""The tiny model from nothing: `saven train tiny`.

Parts, world, cache and the four stages, one after the other, through the same public functions that train a 7B. Every
step is kept once it is complete and goes on from its checkpoint where it was killed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoTokenizer

from ..savenvideo.modeling_savenvideo import PLACEHOLDER_TOKENS, SAVEnVideoForConditionalGeneration
from ..savenvideo.processing_savenvideo import SAVEnVideoProcessor
from ..world.conversations import make_conversation
from ..world.scenes import Scene
from ..world.splits import sample_scene
from ..world.video import write_video, written_whole
from .cache import build_cache, list_media
from .pretrain.audio import pretrain_audio
from .pretrain.language import pretrain_language
from .pretrain.tokenizer import train_tokenizer
from .pretrain.vision import pretrain_vision
from .recipe import load_recipe
from .stages import STAGES
from .trainer import train


logger = logging.getLogger(__name__)

# What the tiny model is, beside its parts. All our decision.
CONNECTOR = {
    "resampler_hidden_size": 192,
    "resampler_layers": 3,
    "resampler_heads": 4,
    "resampler_intermediate_size": 512,
    "queries_per_window": 64,
    "window_seconds": 30.0,
    "window_frames": 128,
}
SAMPLING = {"sampling": "fps", "fps": 4.0, "max_frames": 768}

# Rows of each stage: kinds of turns as weights of `make_conversation`, and the most turns in a row. They take turns,
# so that each makes up an equal share of the rows. Captions of a whole scene are long and stand alone.
WHOLE, SPANS = 1, 4
ROWS: dict[str, list[tuple[dict[str, float], int]]] = {
    "align-visual": [({"visual_captions": 1.0}, WHOLE), ({"visual_span_caption": 1.0}, SPANS)],
    "align-audio": [
        ({"captions": 1.0, "audio_captions": 1.0}, WHOLE),
        ({"span_caption": 2.0, "audio_span_caption": 1.0}, SPANS),
    ],
    "temporal": [
        ({"span_caption": 2.0, "visual_span_caption": 1.0, "audio_span_caption": 1.0}, SPANS),
        ({"open": 1.0}, 6),
    ],
    # The paper's mix of captions and questions is 21 : 37.
    "saven": [({"span_caption": 10.0, "choice": 25.0, "open": 12.0}, 5)],
}


@dataclass
class TinyPlan:
    """How much of everything; the defaults made the shipped weights.

    videos, short_videos: scenes of 4 to 10 and of 2 to 4 segments, the latter to begin with; rows: conversations about
    a video, for each stage.
    """

    videos: int = 2000
    short_videos: int = 500
    rows: int = 6
    language_steps: int = 3000
    vision_steps: int = 3000
    audio_steps: int = 2000
    workers: int = 2


def train_tiny(output_dir: str | os.PathLike, plan: TinyPlan | None = None) -> Path:
    """Train the tiny model from nothing; run it again after an interruption.

    Args:
        output_dir: gets `language`, `vision`, `audio`, `videos`, `cache`, `rows`, `init`, and a folder a stage.
        plan: how much of everything.

    Returns:
        The folder of the trained model.
    """
    out, plan = Path(output_dir), plan or TinyPlan()
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(out / "tokenizer")
    _once(out / "language", lambda path: pretrain_language(path, tokenizer, steps=plan.language_steps))
    _once(out / "vision", lambda path: pretrain_vision(path, tokenizer, steps=plan.vision_steps))
    _once(out / "audio", lambda path: pretrain_audio(path, steps=plan.audio_steps))
    model, processor = assemble(out)
    write_videos(out / "videos", plan)
    cache_videos(out, model, processor)
    del model
    write_rows(out / "rows", plan)
    folder = out / "init"
    for stage in STAGES:
        trained = out / stage / "merged" if stage in ("temporal", "saven") else out / stage
        if (trained / "model.safetensors").is_file():
            folder = trained
            continue
        places = {
            "model": folder,
            "output_dir": out / stage,
            "data.0.path": out / "rows" / f"{stage}.jsonl",
            "data.0.cache": out / "cache",
        }
        recipe = load_recipe(f"tiny/{stage}", [f"{key}={json.dumps(str(path))}" for key, path in places.items()])
        result = train(recipe)
        folder = Path(result.merged or result.model)
    return folder


def _once(folder: Path, make: Callable[[Path], object]) -> None:
    if (folder / "config.json").is_file():
        logger.info("%s is there", folder)
        return
    make(folder)


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
    torch.manual_seed(0)
    model = SAVEnVideoForConditionalGeneration.from_components(
        out / "vision", out / "audio", out / "language", **CONNECTOR
    )
    tokenizer = AutoTokenizer.from_pretrained(out / "language")
    processor = SAVEnVideoProcessor.from_components(tokenizer, config=model.config, **SAMPLING)
    model.save_pretrained(out / "init")
    processor.save_pretrained(out / "init")
    return model, processor


def scenes_of(plan: TinyPlan) -> Iterator[Scene]:
    """All scenes that are trained on: short ones first. Seeds differ from those that the language model read."""
    first = 2**31
    for number in range(plan.short_videos):
        yield sample_scene(first + number, segments=(2, 4))
    for number in range(plan.videos):
        yield sample_scene(first + plan.short_videos + number)


def _write(task: tuple[Scene, Path]) -> None:
    scene, path = task
    if not path.is_file():
        write_video(scene, path)


def write_videos(folder: Path, plan: TinyPlan) -> None:
    """Every scene as an H.264/AAC file."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(scene, folder / f"{scene.video_id}.mp4") for scene in scenes_of(plan)]
    with ProcessPoolExecutor(plan.workers) as pool:
        for _ in tqdm(pool.map(_write, tasks, chunksize=16), total=len(tasks), desc="videos", unit="video"):
            pass


def cache_videos(out: Path, model: SAVEnVideoForConditionalGeneration, processor: SAVEnVideoProcessor) -> None:
    report = build_cache(list_media(out / "videos"), out / "cache", model, processor, dtype="bfloat16")
    if report.failed:
        raise RuntimeError(f"{len(report.failed)} videos could not be read: {next(iter(report.failed.items()))}.")
    logger.info("%s", report)


def conversation_row(scene: Scene, kinds: Mapping[str, float], turns: int, round: int, video: str) -> dict | None:
    """A row of messages (docs/data.md) about a scene; None if it has no turn of these kinds."""
    made = make_conversation(scene, kinds, turns=turns, round=round)
    if not made:
        return None
    messages = []
    for at, turn in enumerate(made):
        media = [{"type": "video"}] if at == 0 else []
        messages.append({"role": "user", "content": [*media, {"type": "text", "text": turn.user}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.assistant}]})
    return {"id": f"{scene.video_id}-{round}", "messages": messages, "videos": [video]}


def write_rows(folder: Path, plan: TinyPlan) -> None:
    """Conversations for each stage, as JSONL."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, stage in enumerate(STAGES):
        path = folder / f"{stage}.jsonl"
        if path.is_file():
            continue
        with written_whole(path) as partial, open(partial, "w", encoding="utf-8") as file:
            for scene in scenes_of(plan):
                for round in range(plan.rows):
                    kinds, most = ROWS[stage][round % len(ROWS[stage])]
                    row = conversation_row(
                        scene, kinds, most, number * plan.rows + round, f"../videos/{scene.video_id}.mp4"
                    )
                    if row is not None:
                        file.write(json.dumps(row) + "\n")
