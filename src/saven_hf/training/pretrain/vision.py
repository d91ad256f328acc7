"""A tiny SigLIP, pretrained on frames of the world and what they show, with SigLIP's own sigmoid loss."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerBase, SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from ...world.captions import Moment, moment_at
from ...world.pictures import render_frames
from ...world.scenes import Picture, Scene
from ...world.splits import sample_scene
from ...world.vocabulary import BACKGROUNDS, COLOURS, MAX_COPIES, MOTIONS, PLACES, SHAPES
from .loop import CHECKPOINT, config_settings, fit


# Attributes in which a frame and its twin may differ, and their values.
_TRAITS = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "copies": tuple(range(1, MAX_COPIES + 1)),
    "background": BACKGROUNDS,
    "place": tuple(PLACES),
    "motion": tuple(MOTIONS),
}
_TRAIT_SHARES = (0.15, 0.3, 0.15, 0.1, 0.15, 0.15)
_FIELDS = Moment._fields
_LEAD = np.array([0.2 * (name == "shape") for name in _FIELDS])
# Share of the captions that tell all; the others tell one or two things, which is learnt many times faster.
_FULL_SHARE, _MOST_TOLD = 0.15, 2
_EMPTY_SHARE = 1 / 64  # of the scenes: a look at the black before the first event
_JPEG_SHARE, _JPEG_QUALITY = 0.6, (40, 96)
_SCENE_SEEDS = 2**31  # train scenes are drawn from that many
_PROBED_CAPTIONS, _SPARE_TOKENS = 2048, 8


def tiny_vision_config(**settings) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        **{
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 16,
            "vision_use_head": False,
            **settings,
        }
    )


def pretrain_vision(
    output_dir: str | os.PathLike,
    tokenizer: PreTrainedTokenizerBase,
    *,
    config: SiglipVisionConfig | None = None,
    steps: int = 3000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    save_steps: int = 200,
    stop_after: int | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> SiglipVisionModel | None:
    """Train a vision tower from nothing on random frames of train scenes; run again, it goes on where it was killed.

    The text half and the pooling head of the SigLIP are thrown away afterwards.

    Args:
        output_dir: gets the tower (`save_pretrained`), `losses.jsonl` and, until it is complete, a checkpoint.
        tokenizer: of the captions.
        config: of the tower; `tiny_vision_config()` if None.
        batch_size: frames of a step; five of a scene, some of which differ in one attribute alone.
        stop_after: leave after this many steps with a checkpoint.

    Returns:
        The tower, or None if `stop_after` came first.

    Raises:
        PretrainError: the folder was begun with other settings.
    """
    config = config or tiny_vision_config()
    looked_at = islice(_looks(np.random.default_rng([seed, 0])), _PROBED_CAPTIONS)
    captions = [moment_at(scene, time).describe() for scene, time in looked_at]
    length = max(map(len, tokenizer(captions, add_special_tokens=False).input_ids)) + _SPARE_TOKENS
    torch.manual_seed(seed)
    model = _siglip(config, len(tokenizer), length).to(device)

    def loss_of(step: int):
        frames, captions, true = frame_batch(np.random.default_rng([seed, 1 + step]), batch_size, config.image_size)
        ids, true = _token_ids(tokenizer, captions, length).to(device), true.to(device)
        pixels = torch.from_numpy(frames).to(device).float() / 127.5 - 1
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
            logits = model(input_ids=ids, pixel_values=pixels).logits_per_image.float()
        # SigLIP's loss, each pair by itself; but captions that tell little are true of many frames.
        loss = -nn.functional.logsigmoid(torch.where(true, logits, -logits)).sum(1).mean()
        right = ((logits > 0) & true).sum() / ((logits > 0) | true).sum()
        return loss, {"overlap": right.item()}

    settings = {"seed": seed, "batch_size": batch_size, "text_length": length, "config": config_settings(config)}
    complete = fit(
        model, loss_of, output_dir, steps=steps, learning_rate=learning_rate, settings=settings,
        save_steps=save_steps, stop_after=stop_after, progress=progress,
    )  # fmt: skip
    if not complete:
        return None
    tower = SiglipVisionModel(config)
    trained = model.vision_model.state_dict()
    tower.load_state_dict({name: trained[name] for name in tower.state_dict()})
    tower.save_pretrained(output_dir)
    (Path(output_dir) / CHECKPOINT).unlink()
    return tower.eval()


def _siglip(config: SiglipVisionConfig, vocab_size: int, text_length: int) -> SiglipModel:
    """The tower with a pooling head, and a text tower of half its depth and width."""
    text = {
        "vocab_size": vocab_size,
        "hidden_size": config.hidden_size // 2,
        "intermediate_size": config.intermediate_size // 2,
        "num_hidden_layers": max(1, config.num_hidden_layers // 2),
        "num_attention_heads": max(1, config.num_attention_heads // 2),
        "max_position_embeddings": text_length,
        "projection_size": config.hidden_size,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=config.to_dict() | {"vision_use_head": True}))
    # As SigLIP starts (Zhai et al. 2023, 3.2); its bias of -10 would fit a batch of 32 k with one true pair a row.
    nn.init.constant_(model.logit_scale, math.log(10.0))
    nn.init.constant_(model.logit_bias, -3.0)
    return model


def _token_ids(tokenizer: PreTrainedTokenizerBase, captions: list[str], length: int) -> torch.Tensor:
    """`(captions, length)`: padded on the left, since SigLIP reads a caption off its last position."""
    rows = tokenizer(captions, add_special_tokens=False).input_ids
    longest = max(map(len, rows))
    if longest > length:
        raise ValueError(f"A caption has {longest} tokens, but the text tower takes {length}.")
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    for at, row in enumerate(rows):
        ids[at, length - len(row) :] = torch.tensor(row)
    return ids


# ---------------------------------------------------------------------------------------------------------------------
# Frames and what they show


def frame_batch(rng: np.random.Generator, count: int, side: int) -> tuple[np.ndarray, list[str], torch.Tensor]:
    """Random frames of train scenes and what they show, in full or in part.

    Returns:
        frames `(count, 3, side, side)` uint8, most of them with the marks of a lossy codec; a caption of each; and
        `(count, count)` bool, whether the caption of the column is true of the frame of the row.
    """
    looked_at = list(islice(_looks(rng), count))
    frames = np.stack([render_frames(scene, [time], (side, side))[0] for scene, time in looked_at])
    for at in np.flatnonzero(rng.random(count) < _JPEG_SHARE):
        frames[at] = _through_jpeg(frames[at], int(rng.integers(*_JPEG_QUALITY)))
    moments = [moment_at(scene, time) for scene, time in looked_at]
    there = np.array([[value is not None for value in moment] for moment in moments])
    # What ranks first is told first; shapes lead, for they take longest to learn.
    ranks = np.where(there, rng.random(there.shape) - _LEAD, 2).argsort(1).argsort(1)
    told = ranks < 1 + rng.integers(_MOST_TOLD, size=(count, 1))
    told |= (rng.random((count, 1)) < _FULL_SHARE) | np.array([[not moment.copies] for moment in moments])
    told &= there
    captions = [
        moment.describe([name for name, one in zip(_FIELDS, row, strict=True) if one])
        for moment, row in zip(moments, told, strict=True)
    ]
    numbers: dict = {}
    values = np.array([[numbers.setdefault(value, len(numbers)) for value in moment] for moment in moments])
    true = ((values[:, None] == values[None]) | ~told[None]).all(-1)
    return frames, captions, torch.from_numpy(true)


def _looks(rng: np.random.Generator) -> Iterator[tuple[Scene, int]]:
    """Scenes and times to look at, without end: of each scene two of one event, a twin of each, and any one.

    They are each other's hard negatives: the same picture an instant later, or the same but for one attribute.
    """
    while True:
        scene = sample_scene(int(rng.integers(_SCENE_SEEDS)), "train")
        at = int(rng.integers(len(scene.pictures)))
        event = scene.pictures[at]
        times = [int(time) for time in rng.integers(event.start, event.end, 2)]
        yield from ((scene, time) for time in times)
        for time in times:
            pictures = list(scene.pictures)
            pictures[at] = _twin(event, rng)
            yield replace(scene, pictures=tuple(pictures)), time
        yield scene, -1 if rng.random() < _EMPTY_SHARE else int(rng.integers(scene.duration))


def _twin(picture: Picture, rng: np.random.Generator) -> Picture:
    """The same but for one attribute."""
    trait = rng.choice(list(_TRAITS), p=_TRAIT_SHARES)
    owner = picture.kind if trait in picture.kind._fields else picture
    others = [value for value in _TRAITS[trait] if value != getattr(owner, trait)]
    changed = owner._replace(**{trait: others[rng.integers(len(others))]})
    return picture._replace(kind=changed) if owner is picture.kind else changed


def _through_jpeg(frame: np.ndarray, quality: int) -> np.ndarray:
    """A frame `(3, height, width)` after JPEG: blocks, ringing and colour at half the resolution, as in H.264."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)
