"""`plan` against what really happens."""

import copy

import pytest
import torch
from media_factory import image_file, late_audio, silent_video, sound_file

import saven_hf
from saven_hf.hub import config_folder


@pytest.fixture(scope="module")
def loaded():
    return saven_hf.load()


@pytest.mark.parametrize("make", [late_audio, silent_video, lambda folder: sound_file(folder, ".mp3")])
@pytest.mark.parametrize("sampling", [{}, {"sampling": "fps", "fps": 4.0}])
def test_plan_counts_what_the_model_is_fed(make, sampling, loaded, tmp_path):
    path = make(tmp_path).path
    session = saven_hf.VideoSession(path, *loaded, **sampling)
    session.ask("What is this?", max_new_tokens=1)
    plan = saven_hf.plan(path, **sampling)
    assert plan.tokens == session.fed.tokens
    assert plan.frames == session.fed.frames
    # Sound is heard in whole patches of 160 ms, and no longer than the medium is.
    assert plan.audio_seconds == pytest.approx(session.fed.audio_seconds, abs=0.17)
    assert session.fed.audio_seconds <= session.fed.video_seconds


def test_plan_knows_the_size_of_an_encoded_video(loaded, tmp_path):
    path = late_audio(tmp_path).path
    model, processor = loaded
    memory = model.encode_video(path, processor)
    assert saven_hf.plan(path).memory_bytes == pytest.approx(memory.nbytes, rel=0.1)


def test_plan_knows_what_trains(loaded, tmp_path):
    stages = pytest.importorskip("saven_hf.training.stages", reason="needs the [train] extra")
    from saven_hf.training.recipe import Lora

    path = late_audio(tmp_path).path
    plan = saven_hf.plan(path, lora_rank=4)
    model = stages.apply_stage(copy.deepcopy(loaded[0]), "saven", Lora(r=4))
    assert plan.trained_parameters == sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert plan.train_bytes > plan.weight_bytes + 16 * plan.trained_parameters
    faster = saven_hf.plan(path, flops_per_second=plan.flops_per_second * 10, lora_rank=4)
    assert faster.train_seconds == pytest.approx(plan.train_seconds / 10)
    assert faster.seconds["prefill"] == pytest.approx(plan.seconds["prefill"] / 10)


def test_plan_of_an_image(tmp_path):
    plan = saven_hf.plan(image_file(tmp_path, ".png"))
    assert (plan.frames, plan.windows, plan.audio_seconds) == (1, 1, 0.0)


def test_longer_sound_costs_more_and_working_memory_stays(tmp_path):
    short, long = (saven_hf.plan(sound_file(tmp_path, ".wav", seconds).path) for seconds in (30.0, 300.0))
    assert long.tokens > 8 * short.tokens
    assert long.encode_bytes <= 1.1 * short.encode_bytes


def test_plan_of_videollama2(tmp_path):
    """16 frames of 27 x 27 patches are 8 x 13 x 13 tokens, 30 s of sound 187 x 8, whatever the length."""
    path = late_audio(tmp_path).path
    plan = saven_hf.plan(path, config_folder("videollama2.1-7b-av"), dtype=torch.bfloat16)
    assert (plan.tokens, plan.frames, plan.windows) == (1352 + 1496, 16, 1)
    assert plan.audio_seconds <= 16 and plan.weight_bytes == 2 * plan.parameters
    assert 8.4e9 < plan.parameters < 8.6e9
    whole = saven_hf.plan(path, config_folder("videollama2.1-7b-av"), preprocessing="whole")
    assert whole.tokens < plan.tokens and whole.flops["resampler"] == pytest.approx(plan.flops["resampler"], rel=0.05)
