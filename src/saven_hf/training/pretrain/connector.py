"""The tiny connector, pretrained to say moments as the language model has learnt to read them.

The language model was pretrained on *timelines* (`language.py`): vectors of what a scene holds at evenly spaced
moments. Here the connector learns to make the same vectors of what the towers saw and heard, one for each of its
tokens (of the moment that `token_times` names) and for each time that is asked about. Through a small frozen language
model alone, captions had taught it nothing of picture and sound after 120 updates; told what each token should say, it
learns from all of them in each.
Our decision: the paper's connector starts from nothing, in front of a language model that forgives much.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...savenvideo.layout import NO_TIME
from ...savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration
from ...savenvideo.tower_features import TowerFeatures
from ...world.scenes import Scene
from ..cache import FeatureCache
from .language import NOTHING, SOUND_COLUMNS, SOUND_TIMES, TimelineCode, moments_of
from .loop import CHECKPOINT, fit


_MEDIA_ASKED, _MOST_ASKED = 8, 6  # videos of a step that are asked about, and times each
_SHIFT_STEP_US = 100_000


def pretrain_connector(
    output_dir: str | os.PathLike,
    model: SAVEnVideoForConditionalGeneration,
    tokenizer,
    scenes: Sequence[Scene],
    videos: Sequence[str | os.PathLike],
    cache: str | os.PathLike,
    *,
    steps: int = 2000,
    batch_size: int = 8,
    learning_rate: float = 3e-3,
    shift_seconds: float = 300.0,
    use_audio: bool = True,
    seed: int = 0,
    stop_after: int | None = None,
    progress: bool = True,
) -> bool:
    """Train the connector and the time projection of `model` in place; goes on where a killed run stopped.

    A connector whose question tokens read nothing of the medium (all but "avts") can say no more of a time that is
    asked about than that time.

    Args:
        output_dir: gets `losses.jsonl` and, until training is complete, a checkpoint.
        model: on the device to train on. Its language model has no part in it but its width: what moments
            look like is agreed on (`TimelineCode`).
        tokenizer: of the language model.
        scenes, videos: the scenes and their files, in the same order.
        cache: encoder outputs of the videos, see `build_cache`.
        batch_size: videos of a step.
        shift_seconds: the clock of half of the videos starts up to so much later.
        use_audio: whether sound is heard; without, nothing is to be said of it.
        stop_after: leave after this many steps, with a checkpoint.

    Returns:
        Whether training is complete.

    Raises:
        PretrainError: the folder was begun with other settings.
        NotCachedError: a video is not in the cache.
    """
    features = FeatureCache(cache)
    code = TimelineCode(tokenizer, model.get_input_embeddings().embedding_dim).to(model.device)
    inner = model.model
    # A model that knows no time has no time projection.
    learner = nn.ModuleList(part for part in (inner.resampler, inner.temporal_projection) if part is not None)
    model.requires_grad_(False)
    learner.requires_grad_(True)

    # Moments are short vectors: outputs of the usual size would first have to shrink.
    for layer in inner.resampler.output_layers():
        nn.init.zeros_(layer.weight)

    held: dict[int, TowerFeatures] = {}

    def watched(at: int) -> TowerFeatures:
        if model.device.type == "cpu":
            return features[videos[at]]  # read again from the disk, for all of them together are large
        if at not in held:
            held[at] = features[videos[at]].to(model.device)
        return held[at]

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, 1 + step])
        media, asked, targets = [], [], []
        for at in rng.choice(len(scenes), min(batch_size, len(scenes)), replace=False):
            medium = watched(at) if use_audio else watched(at).without_sound()
            # Questions are read medium by medium, which is what a large batch would wait for.
            count = int(rng.integers(1, _MOST_ASKED + 1)) if len(media) < _MEDIA_ASKED else 0
            times = np.sort(rng.integers(0, scenes[at].duration, count))
            offset = int(rng.integers(round(shift_seconds * 10) + 1)) * _SHIFT_STEP_US * int(rng.random() < 0.5)
            media.append(medium.shifted(offset) if offset else medium)
            asked.append(times + offset)
            rows, dates, is_asked = _truth(scenes[at], media[-1], asked[-1], offset, inner)
            targets.append((rows, dates, is_asked))
        truth = (torch.from_numpy(np.concatenate(part)).to(model.device) for part in zip(*targets, strict=True))
        questions = {name: one.to(model.device) for name, one in _questions(asked).items()}
        with torch.autocast(model.device.type, torch.bfloat16):
            told = inner.resolve_media(questions, {"video": media}).pooler_output
        target = code(*truth)
        missed = (torch.cat(list(told)).float() - target).square().mean() / target.var()
        return missed, {"explained": 1 - missed.detach()}

    complete = fit(
        learner, loss_of, output_dir, steps=steps, learning_rate=learning_rate, optimizer="muon", warmup=0.05,
        settings={"batch_size": batch_size, "seed": seed, "shift_seconds": shift_seconds, "videos": len(videos)},
        stop_after=stop_after, progress=progress,
    )  # fmt: skip
    if complete:
        (Path(output_dir) / CHECKPOINT).unlink(missing_ok=True)
    model.eval()
    return complete


def _truth(
    scene: Scene, medium: TowerFeatures, asked: np.ndarray, offset: int, model
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, times and which are asked about, of what the connector should say of a medium: each token of each window,
    then, if it answers to times in question, one for each of these."""
    windows = model.layout.plan(medium.frame_times.tolist(), medium.column_times.tolist(), medium.duration)
    moments = [model.resampler.token_times(window, medium).cpu().numpy() for window in windows]
    edges = np.repeat([(window.start, window.end) for window in windows], list(map(len, moments)), axis=0)
    if model.config.question_times == "none":
        asked = asked[:0]
    rows, times = moments_of(scene, np.concatenate([*moments, asked]) - offset)
    times += offset
    count = len(edges)
    times[:count] = np.clip(times[:count], edges[:, :1], edges[:, 1:])
    if not len(medium.column_times):
        rows[:, SOUND_COLUMNS], times[:, SOUND_TIMES] = NOTHING, NO_TIME
    times[count:] = asked[:, None]
    return rows, times, np.arange(len(rows)) >= count


def _questions(asked: list[np.ndarray]) -> dict[str, torch.Tensor]:
    longest = max(map(len, asked))
    times, mask = torch.zeros(len(asked), longest, dtype=torch.int64), torch.zeros(len(asked), longest).bool()
    for row, one in enumerate(asked):
        times[row, : len(one)], mask[row, : len(one)] = torch.from_numpy(one), True
    return {"query_times": times, "query_times_mask": mask}
