"""The tiny connector learns to say moments as the language model reads them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipVisionModel

from saven_hf.savenvideo import SAVEnVideoBeatsModel
from saven_hf.training.cache import FeatureCache
from saven_hf.training.pretrain.audio import tiny_audio_config
from saven_hf.training.pretrain.connector import _truth, pretrain_connector
from saven_hf.training.pretrain.language import CODE, pretrain_language
from saven_hf.training.pretrain.loop import PretrainError
from saven_hf.training.pretrain.vision import tiny_vision_config
from saven_hf.training.tiny import TinyPlan, _tokenizer, _video, assemble, film, scenes_of


PLAN = TinyPlan(videos=1, short_videos=2, workers=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Parts that were hardly trained, three videos and what the towers say of them."""
    out = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    SiglipVisionModel(tiny_vision_config()).save_pretrained(out / "vision")
    SAVEnVideoBeatsModel(tiny_audio_config()).save_pretrained(out / "audio")
    pretrain_language(out / "language", _tokenizer(out / "tokenizer"), steps=2, batch_size=2, progress=False)
    film(out, PLAN, *assemble(out))
    return out


def learn(world, folder, **options):
    model, processor = assemble(world)
    scenes = list(scenes_of(PLAN))
    videos = [_video(world, scene) for scene in scenes]
    parts = (model, processor.tokenizer, scenes, videos, world / "cache")
    done = pretrain_connector(folder, *parts, batch_size=3, progress=False, **options)
    losses = [json.loads(line)["loss"] for line in (folder / "losses.jsonl").read_text().splitlines()]
    return done, losses, model


def test_it_learns_and_goes_on_where_it_was_stopped(world, tmp_path):
    done, losses, model = learn(world, tmp_path / "whole", steps=8)
    assert done and len(losses) == 8 and losses[-1] < 0.9 * losses[0]
    trained = {name.split(".")[1] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"resampler", "temporal_projection"}
    assert learn(world, tmp_path / "parts", steps=8, stop_after=5)[0] is False
    done, resumed, _ = learn(world, tmp_path / "parts", steps=8)
    assert done and resumed == losses
    learn(world, tmp_path / "other", steps=8, stop_after=2)
    with pytest.raises(PretrainError, match="seed"):
        learn(world, tmp_path / "other", steps=8, seed=1)


def test_the_code_is_kept_with_the_language_model(world):
    assert set(load_file(world / "language" / CODE)) == {"table", "times", "asked"}


def test_a_moved_clock_moves_the_truth(world):
    model, _ = assemble(world)
    scene = next(scene for scene in scenes_of(PLAN) if scene.duration < 30_000_000)  # one window
    medium = FeatureCache(world / "cache")[_video(world, scene)]
    asked = np.array([1_000_000])
    rows, times, is_asked = _truth(scene, medium, asked, 0, model.model)
    queries = model.config.queries_per_window
    assert len(rows) == queries + 1 and is_asked.tolist() == [False] * queries + [True]
    assert times[-1].tolist() == [1_000_000] * 4
    picture = scene.picture_at(1_000_000)
    at = np.abs(times[:-1, 0] - picture.start).argmin()
    assert (times[at, 0], times[at, 1]) == (picture.start, picture.end)
    late = 5_000_000
    moved_rows, moved, _ = _truth(scene, medium.shifted(late), asked + late, late, model.model)
    assert moved_rows[-1].tolist() == rows[-1].tolist() and moved[-1].tolist() == [6_000_000] * 4
    assert set(moved[:-1, 0]) == {one.start + late for one in scene.pictures}
