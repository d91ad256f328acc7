"""`plan` against what really happens."""

import copy
import re
from pathlib import Path

import pytest
import torch
from media_factory import ffmpeg, image_file, late_audio, silent_video, sound_file

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


def dull_video(path, seconds):
    """A video with sound of exactly so many seconds, quickly made however long."""
    picture, sound = f"color=d={seconds}:s=32x24:r=2", f"sine=d={seconds}:r=8000"
    ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, "-preset", "ultrafast", path)
    return path


@pytest.fixture(scope="module")
def lengths(tmp_path_factory):
    """A minute and an hour."""
    folder = tmp_path_factory.mktemp("lengths")
    return [dull_video(folder / f"{seconds}.mp4", seconds) for seconds in (60, 3600)]


# Rows of the table "Which model, what it hears, what it costs" of docs/peers.md, by how they begin.
COSTS = {
    "`savenvideo-7b`": ("savenvideo-7b", {}),
    "`videollama2.1-7b-av`, as published": ("videollama2.1-7b-av", {}),
    'the same, `preprocessing="whole"`': ("videollama2.1-7b-av", {"preprocessing": "whole"}),
    "`favor-7b`": ("favor-7b", {}),
    "`video-salmonn-13b`": ("video-salmonn-13b", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", COSTS)
def test_the_table_of_costs(row, lengths):
    text = (Path(__file__).parents[1] / "docs" / "peers.md").read_text(encoding="utf-8")
    cells = next(line for line in text.splitlines() if line.startswith(f"| {row} |")).strip("| ").split(" | ")
    model, settings = COSTS[row]
    minute, hour = (
        saven_hf.plan(length, model, dtype=torch.bfloat16, flops_per_second=1e14, **settings) for length in lengths
    )
    tokens, long, parameters, weights, cache = cells[-5:]
    assert (int(tokens), int(long)) == (minute.tokens, hour.tokens)
    if parameters != "the same":
        assert parameters == f"{minute.parameters / 1e9:.2f} B"
        assert float(weights.split()[0]) == pytest.approx(minute.weight_bytes / 1e9, abs=0.05)
    assert float(cache.split()[0]) == pytest.approx(minute.cache_bytes / 1e6, rel=0.015)  # rounded there


def test_the_first_hour_says_what_a_7b_costs(tmp_path):
    """docs/first_hour.md: a video of 60 s on a machine of 100 TFLOP/s."""
    text = (Path(__file__).parents[1] / "docs" / "first_hour.md").read_text(encoding="utf-8")
    video = dull_video(tmp_path / "minute.mp4", 60)
    plan = saven_hf.plan(video, "savenvideo-7b", dtype=torch.bfloat16, flops_per_second=1e14)
    resident = plan.weight_bytes + plan.encode_bytes + plan.memory_bytes + plan.cache_bytes
    spent = sum(seconds for part, seconds in plan.seconds.items() if part != "decode")
    asked = re.search(r"([\d.]+) tokens, ([\d.]+) GB, ([\d.]+) s", text).groups()
    assert [*asked] == [f"{plan.tokens}", f"{resident / 1e9:.1f}", f"{spent:.2f}"]
    trained = re.search(r"([\d.]+) GB, ([\d.]+) s a row of 60 s", text).groups()
    assert [*trained] == [f"{plan.train_bytes / 1e9:.1f}", f"{plan.train_seconds:.2f}"]
    assert re.search(r"([\d.]+) GB of weights", text)[1] == f"{plan.weight_bytes / 1e9:.1f}"
    times, seconds = re.search(r"(\d+) times asking: ([\d.]+) s", text).groups()
    assert seconds == f"{int(times) * spent:.1f}"
