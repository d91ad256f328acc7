"""`accelerate launch` with our configs on GPUs: FSDP2 and ZeRO-3 reach the losses of whole models, and shard all.

One process a GPU. On one GPU a shard is the whole: wrapping, mixed precision, the optimizer and what is saved are
tried all the same, the exchange between processes is not (test_sharding and test_zero3 do that, on CPUs).
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from saven_hf.training.curves import read_metrics
from saven_hf.training.recipe import recipe_file


ACCELERATE = recipe_file("7b/saven").parents[2] / "accelerate"
SCRIPT = Path(__file__).with_name("launched_on_gpu.py")
RESULT = {"align-audio": "model.safetensors", "saven": "adapter_model.safetensors"}
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def launch(folder, config, stage):
    words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE / f"{config}.yaml")]
    words += ["--num_processes", str(torch.cuda.device_count()), "--main_process_port", "0"]
    tests = SCRIPT.parents[1]
    path = os.pathsep.join(map(str, (tests.parent / "src", tests, *filter(None, [os.environ.get("PYTHONPATH")]))))
    done = subprocess.run(
        [*words, str(SCRIPT), str(folder), stage], env={**os.environ, "PYTHONPATH": path},
        cwd=ACCELERATE.parents[1], capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [line["loss"] for line in read_metrics(folder / stage / "metrics.jsonl") if "loss" in line]
    return losses, json.loads((folder / f"{stage}.json").read_text()), load_file(folder / stage / RESULT[stage])


@pytest.mark.parametrize("config", ["fsdp2", "zero3"])
@pytest.mark.parametrize("stage", RESULT)
def test_sharded_training_reaches_the_losses_of_whole_models(tmp_path, stage, config):
    whole = "multi_gpu" if torch.cuda.device_count() > 1 else "single_gpu"
    expected, seen, weights = launch(tmp_path / "whole", whole, stage)
    assert len(expected) == 4 and seen["device"] == "cuda" and seen["fsdp2"] == seen["zero3"] == 0
    if config == "zero3" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("zero3.yaml needs deepspeed")
    losses, seen, sharded = launch(tmp_path / config, config, stage)
    assert seen[config] == seen["parameters"] > 0
    assert losses == pytest.approx(expected, rel=0.02)  # in bfloat16, over other kernels
    assert {name: one.shape for name, one in sharded.items()} == {name: one.shape for name, one in weights.items()}
