"""Pretraining of the vision tower: it learns, resumes bit-equally, loads, and never sees a held-out scene."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_config
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from saven_hf import world
from saven_hf.savenvideo.modeling_beats import SAVEnVideoBeatsModel
from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration
from saven_hf.training.pretrain import pretrain_vision, vision
from saven_hf.training.pretrain.loop import PretrainError
from saven_hf.world.captions import SIZES, Moment, moment_at
from saven_hf.world.pictures import render_frames
from saven_hf.world.vocabulary import PictureKind


CONFIG = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


def word_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    captions = (moment_at(world.sample_scene(seed), 1_000_000).describe() for seed in range(400))
    tokenizer.train_from_iterator(captions, trainers.WordLevelTrainer(special_tokens=["<unk>", "<pad>"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")


def train(folder, tokenizer, **settings):
    settings = {"config": vision.tiny_vision_config(**CONFIG), "steps": 6, "batch_size": 16, **settings}
    return pretrain_vision(folder, tokenizer, progress=False, **settings)


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "losses.jsonl").read_text().splitlines()]


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_few_steps_lower_the_loss(tmp_path, tokenizer):
    train(tmp_path, tokenizer, steps=40, batch_size=32, learning_rate=3e-3)
    told = losses(tmp_path)
    assert len(told) == 40
    assert np.mean(told[-5:]) < np.mean(told[:5]) - 1


def test_a_killed_run_goes_on_bit_equally(tmp_path, tokenizer):
    whole = train(tmp_path / "whole", tokenizer)
    assert train(tmp_path / "killed", tokenizer, stop_after=4) is None
    assert not (tmp_path / "killed" / "config.json").exists()
    with open(tmp_path / "killed" / "losses.jsonl", "a") as log:
        log.write('{"step": 4, "loss": 0.0}\n')  # a step that no checkpoint kept
    resumed = train(tmp_path / "killed", tokenizer)
    assert same(whole, resumed)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    assert not same(whole, train(tmp_path / "other", tokenizer, seed=1))


def test_another_run_in_the_same_folder_is_refused(tmp_path, tokenizer):
    train(tmp_path, tokenizer, stop_after=2)
    with pytest.raises(PretrainError, match="seed 0 instead of 1"):
        train(tmp_path, tokenizer, seed=1, stop_after=2)


def test_the_folder_is_a_component(tmp_path, tokenizer):
    tower = train(tmp_path, tokenizer, steps=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "losses.jsonl", "model.safetensors"]
    torch.manual_seed(0)
    parts = tiny_config(vision_config=tower.config)
    text = AutoModelForCausalLM.from_config(parts.text_config)
    model = SAVEnVideoForConditionalGeneration.from_components(
        str(tmp_path), SAVEnVideoBeatsModel(parts.audio_config), text, tokenizer=word_tokenizer()
    )
    assert same(model.model.vision_tower, tower)


def test_captions_are_true_of_the_frames_that_they_fit(monkeypatch):
    shown = []

    def look(scene, time):
        shown.append(moment_at(scene, time))
        return shown[-1]

    monkeypatch.setattr(vision, "moment_at", look)
    frames, captions, true = vision.frame_batch(np.random.default_rng(0), 96, 32)
    assert frames.shape == (96, 3, 32, 32) and frames.dtype == np.uint8
    assert true.diagonal().all()
    whole = [at for at, moment in enumerate(shown) if captions[at] == moment.describe()]
    assert 5 < len(whole) < 60
    for at in whole:
        assert true[:, at].tolist() == [other == shown[at] for other in shown]
    colours = [at for at, moment in enumerate(shown) if captions[at] == moment.colour]
    assert colours
    for at in colours:
        assert true[:, at].tolist() == [other.colour == shown[at].colour for other in shown]


def test_only_train_scenes_are_drawn(monkeypatch):
    drawn = []

    def sample(seed, split="train", **kwargs):
        drawn.append(split)
        return world.sample_scene(seed, split, **kwargs)

    monkeypatch.setattr(vision, "sample_scene", sample)
    vision.frame_batch(np.random.default_rng(0), 64, 32)
    assert set(drawn) == {"train"}


def test_a_twin_differs_in_one_attribute():
    picture = world.sample_scene(3).pictures[0]
    rng = np.random.default_rng(0)
    changed = set()
    for _ in range(60):
        twin = vision._twin(picture, rng)
        before, after = {**picture._asdict(), **picture.kind._asdict()}, {**twin._asdict(), **twin.kind._asdict()}
        differing = {name for name in before if name != "kind" and before[name] != after[name]}
        assert len(differing) == 1
        changed |= differing
    assert changed == {"colour", "shape", "copies", "background", "place", "motion"}


def test_a_codec_leaves_the_picture_recognisable():
    frame = render_frames(world.sample_scene(0), [500_000])[0]
    marked = vision._through_jpeg(frame, 60)
    assert marked.shape == frame.shape
    off = np.abs(marked.astype(int) - frame)
    assert 0 < off.mean() < 12


def test_a_moment_is_told_in_full_or_in_part():
    moment = Moment(2, "large", "red", "cross", 4, 11, "grey", PictureKind("blue", "star"))
    assert (
        moment.describe() == "two large red crosses at 4 across, 11 down on a grey background, fading with a blue star"
    )
    assert moment.describe(["colour", "shape"]) == "red cross"
    assert moment.describe(["copies", "shape", "row"]) == "two crosses at 11 down"
    assert moment.describe(["background"]) == "on a grey background"
    assert moment._replace(fading=None).describe(["size", "fading"]) == "large"


def test_a_moment_is_what_is_shown():
    scene = replace(world.sample_scene(0), fades=())
    picture = scene.pictures[0]._replace(motion="right", place="top", copies=2, background="grey")
    scene = replace(scene, pictures=(picture, *scene.pictures[1:]))
    early, late = moment_at(scene, picture.start), moment_at(scene, picture.end - 1)
    assert early == Moment(2, "large", *picture.kind, 4, 4, "grey")
    assert late == early._replace(column=12)
    assert moment_at(scene, -1).describe() == "nothing on a black background"
    assert moment_at(scene, scene.duration + 1) == moment_at(scene, scene.duration - 1)


def test_a_cross_fade_is_told():
    scene = world.sample_scene(1)
    before, after = scene.pictures[:2]
    assert scene.fades[0] > 0
    early, late = (moment_at(scene, before.end + side) for side in (-50_000, 50_000))
    assert (early.colour, early.shape) == before.kind == late.fading
    assert (late.colour, late.shape) == after.kind == early.fading
    assert moment_at(scene, before.end + scene.fades[0]).fading is None


def test_growth_is_told_by_size():
    scene = world.sample_scene(0)
    picture = scene.pictures[0]._replace(motion="grow", copies=1)
    scene = replace(scene, pictures=(picture, *scene.pictures[1:]), fades=())
    sizes = [moment_at(scene, int(time)).size for time in np.linspace(picture.start, picture.end - 1, 40)]
    assert tuple(dict.fromkeys(sizes)) == SIZES
