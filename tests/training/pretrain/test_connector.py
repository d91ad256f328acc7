"""The tiny connector learns to say moments as the language model reads them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipVisionModel

from saven_hf import SAVEnVideoForConditionalGeneration
from saven_hf.savenvideo import SAVEnVideoBeatsModel
from saven_hf.savenvideo.layout import NO_TIME
from saven_hf.training.cache import FeatureCache
from saven_hf.training.pretrain.audio import tiny_audio_config
from saven_hf.training.pretrain.connector import _truth, pretrain_connector
from saven_hf.training.pretrain.language import (
    CODE,
    NOTHING,
    PICTURE_ATTRIBUTES,
    SOUND_COLUMNS,
    SOUND_TIMES,
    TimelineCode,
    pretrain_language,
)
from saven_hf.training.pretrain.loop import PretrainError
from saven_hf.training.pretrain.vision import tiny_vision_config
from saven_hf.training.tiny import (
    CONNECTOR,
    TinyPlan,
    _tokenizer,
    _video,
    assemble,
    film,
    one_sided_scenes,
    scenes_of,
)


PLAN = TinyPlan(videos=1, short_videos=2, one_sided_videos=1, workers=2)


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


def assemble_as(world, **settings):
    """The parts with another connector."""
    tokenizer = _tokenizer(world / "tokenizer")
    torch.manual_seed(0)
    return SAVEnVideoForConditionalGeneration.from_components(
        world / "vision", world / "audio", world / "language", tokenizer,
        **CONNECTOR | {"resampler_layers": 1, "queries_per_window": 60} | settings,
    )  # fmt: skip


def learn(world, folder, connector=None, **options):
    model, processor = assemble(world)
    if connector is not None:
        model = assemble_as(world, **connector)
    scenes = list(scenes_of(PLAN))
    videos = [_video(world, scene) for scene in scenes]
    parts = (model, processor.tokenizer, scenes, videos, world / "cache")
    done = pretrain_connector(folder, *parts, batch_size=3, progress=False, **options)
    losses = [json.loads(line)["loss"] for line in (folder / "losses.jsonl").read_text().splitlines()]
    return done, losses, model


def test_a_share_of_the_videos_lacks_picture_or_sound(world):
    scene, cache = next(one_sided_scenes(PLAN)), FeatureCache(world / "cache")
    assert len(list((world / "videos").iterdir())) == 3 + 2
    whole, heard, seen = (cache[_video(world, scene, left)] for left in (None, "sound", "picture"))
    assert torch.equal(whole.frame_times, heard.frame_times) and torch.equal(whole.column_times, seen.column_times)
    # What is left is as it was, and of the other every moment is like the next.
    assert torch.equal(whole.sound, heard.sound) and not torch.equal(whole.picture, heard.picture)
    assert torch.equal(heard.picture, heard.picture[:1].expand_as(heard.picture))
    assert torch.equal(whole.picture, seen.picture) and not torch.equal(whole.sound, seen.sound)


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


@pytest.mark.parametrize(
    "connector",
    [
        {"resampler_type": "mlp_pool"},
        {"resampler_type": "stc", "stc_depth": 1, "stc_tokens_per_window": 60},
        {"resampler_type": "causal_qformer", "qformer_rows": 16, "resampler_hidden_size": 48},
        {"resampler_type": "mlp"},
        {"resampler_type": "stc", "stc_depth": 1},
        {"question_times": "none"},
        {"question_times": "joint"},
        {"question_times": "none", "time_fusion": "none", "query_anchors": False},
    ],
    ids=lambda one: "-".join(map(str, one.values())),
)
def test_every_connector_learns_to_say_moments(world, tmp_path, connector):
    done, losses, model = learn(world, tmp_path, connector, steps=8)
    assert done and losses[-1] < 0.97 * losses[0]
    assert not any(parameter.requires_grad for parameter in model.model.language_model.parameters())


def test_what_is_not_heard_is_not_to_be_said(world, tmp_path):
    model, processor = assemble(world)
    scene = next(iter(scenes_of(PLAN)))
    medium = FeatureCache(world / "cache")[_video(world, scene)].without_sound()
    rows, times, asked = _truth(scene, medium, np.array([1_000_000]), 0, model.model)
    assert (rows[:, SOUND_COLUMNS] == NOTHING).all() and (rows[:, : len(PICTURE_ATTRIBUTES)] != NOTHING).all()
    assert (times[:-1, SOUND_TIMES] == NO_TIME).all() and times[-1].tolist() == [1_000_000] * 4
    code = TimelineCode(processor.tokenizer, model.config.text_config.hidden_size)
    said = code(*map(torch.from_numpy, (rows[:-1], times[:-1], asked[:-1])))
    # Nothing in the directions of the sound's times, and as much as ever in those of the picture's.
    weights = said @ code.times.T
    heard = weights.shape[-1] // 2
    assert weights[:, heard:].abs().max() < 1e-5 < weights[:, :heard].abs().max()
    with_sound = learn(world, tmp_path / "both", {}, steps=1)[1]
    assert learn(world, tmp_path / "picture", {}, steps=1, use_audio=False)[1] != with_sound


def test_the_code_is_the_same_when_it_is_made_anew(world):
    model, processor = assemble(world)
    anew = TimelineCode(processor.tokenizer, model.config.text_config.hidden_size)
    for name, values in load_file(world / "language" / CODE).items():
        torch.testing.assert_close(getattr(anew, name), values)
