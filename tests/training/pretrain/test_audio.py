"""Pretraining of the audio tower: it learns, resumes bit-equally, loads, and never hears a held-out scene."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_config
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, SiglipVisionModel

from saven_hf import world
from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration
from saven_hf.training.pretrain import audio, pretrain_audio
from saven_hf.world.scenes import Sound
from saven_hf.world.vocabulary import SILENT, SoundKind


CONFIG = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_embed_dim": 16,
    "num_buckets": 16,
    "max_bucket_distance": 64,
}


@pytest.fixture(autouse=True)
def few_recordings(monkeypatch):
    monkeypatch.setattr(audio, "ENCODED_SCENES", 1)


def train(folder, **settings):
    settings = {"config": audio.tiny_audio_config(**CONFIG), "steps": 5, "batch_columns": 62, **settings}
    return pretrain_audio(folder, progress=False, **settings)


def logged(folder):
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def scene_of(*sounds):
    scene = world.sample_scene(0)
    return replace(scene, sounds=sounds, duration=sounds[-1].end, clutter=0)


def test_a_few_steps_lower_the_loss(tmp_path):
    train(tmp_path, steps=40, learning_rate=3e-3, batch_columns=124)
    told = [line["loss"] for line in logged(tmp_path)]
    assert np.mean(told[-5:]) < np.mean(told[:5]) - 1


def test_a_killed_run_goes_on_bit_equally(tmp_path):
    whole = train(tmp_path / "whole")
    assert train(tmp_path / "killed", stop_after=3) is None
    assert same(whole, train(tmp_path / "killed"))
    assert logged(tmp_path / "whole") == logged(tmp_path / "killed")


def test_the_folder_is_a_component(tmp_path):
    tower = train(tmp_path, steps=2)
    parts = tiny_config(audio_config=tower.config)
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    torch.manual_seed(0)
    model = SAVEnVideoForConditionalGeneration.from_components(
        SiglipVisionModel(parts.vision_config),
        str(tmp_path),
        AutoModelForCausalLM.from_config(parts.text_config),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="b", pad_token="a"),
    )
    assert same(model.model.audio_tower, tower)


def test_only_train_scenes_are_drawn(monkeypatch):
    drawn = []

    def sample(seed, split="train", **kwargs):
        drawn.append(split)
        return world.sample_scene(seed, split, **kwargs)

    monkeypatch.setattr(audio, "sample_scene", sample)
    recordings = audio.Recordings(seed=0, encoded=1)
    audio.sound_batch(recordings, np.random.default_rng(0), 124, audio.tiny_audio_config())
    assert len(drawn) > 1 and set(drawn) == {"train"}


def test_labels_follow_the_sound():
    buzz, chime = SoundKind("buzz", "low"), SoundKind("chime", "high")
    scene = scene_of(
        Sound(0, 1_600_000, buzz, "rising", 2, "soft", 1.0),
        Sound(1_600_000, 3_200_000, SILENT),
        Sound(3_200_000, 4_800_000, chime, "steady", 0, "loud", 1.04),
    )
    labels = audio.column_labels(scene, 30)
    # Two pulses of 0.4 s at 0 and 0.8 s: columns 0, 1 and half of 2; then 5, 6 and half of 7.
    buzzing = [audio.ATTRIBUTES["timbre"].index("buzz")] * 3
    unknown = [audio.UNKNOWN] * 2
    assert labels["timbre"][:10].tolist() == [*buzzing, *unknown, *buzzing, *unknown]
    assert labels["timbre"][10:20].eq(audio.UNKNOWN).all() and labels["sounding"][10:20].eq(0).all()
    assert labels["sounding"][2].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert labels["pulses"][0] == 2 and labels["pulses"][25] == 0
    assert labels["octave"][0] < -0.1 < 0.1 < labels["octave"][2]  # each pulse glides
    assert labels["octave"][20:30].sub(np.log2(1.04)).abs().max() < 1e-6
    assert labels["loudness"][0] == 0 and labels["loudness"][20] == 1
    # From 0.8 s on, the first event is cut: its pulses cannot be counted.
    later = audio.column_labels(scene, 10, start=800_000)
    assert later["timbre"][0] == buzzing[0] and later["pulses"][0] == audio.UNKNOWN


def test_clicks_are_labelled_where_they_are_heard():
    scene = replace(world.sample_scene(2), clutter=4)
    silent = replace(scene, sounds=(Sound(0, scene.duration, SILENT),))
    heard = np.abs(world.render_sound(silent)) > 0
    columns = scene.duration // 160_000
    labels = audio.column_labels(scene, columns)["click"].bool().numpy()
    loud = heard[: columns * 2560].reshape(columns, 2560).any(1)
    assert labels.sum() > 0
    # A click that begins at the end of a column goes on in the next one.
    assert not (labels & ~loud).any() and (loud & ~labels).sum() <= 1


def test_a_codec_keeps_the_time():
    scene = world.sample_scene(4)
    plain, coded = world.render_sound(scene), audio._through_aac(world.render_sound(scene, 48_000))
    assert abs(len(plain) - len(coded)) <= 1
    loudness = [np.abs(sound[: len(sound) // 320 * 320]).reshape(-1, 320).mean(1) for sound in (plain, coded)]
    lags = range(-3, 4)
    count = min(map(len, loudness)) - 6
    match = [np.corrcoef(loudness[0][3 : 3 + count], loudness[1][3 + lag : 3 + lag + count])[0, 1] for lag in lags]
    assert lags[int(np.argmax(match))] == 0 and max(match) > 0.95


def test_padding_has_no_label():
    recordings = audio.Recordings(seed=0, encoded=0)
    config = audio.tiny_audio_config()
    padded = 0
    for step in range(6):
        features, mask, labels = audio.sound_batch(recordings, np.random.default_rng(step), 186, config)
        heard = mask.unflatten(1, (-1, 16)).all(-1)
        assert features.shape == (*mask.shape, 128) and labels["timbre"].shape == heard.shape
        assert all(values[~heard].eq(audio.UNKNOWN).all() for values in labels.values())
        padded += (~heard).sum()
    assert padded > 0
