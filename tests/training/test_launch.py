"""Two processes under `accelerate launch` on a CPU (gloo, DDP) reach the losses of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from saven_hf.training.curves import read_metrics
from saven_hf.training.recipe import recipe_file


CONFIG = recipe_file("7b/saven").parents[2] / "accelerate" / "cpu_gloo.yaml"
SCRIPT = Path(__file__).with_name("launched.py")


def launch(folder, processes):
    words = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]
    words += ["--num_processes", str(processes), "--main_process_port", "0", str(SCRIPT), str(folder)]
    if processes == 1:
        words = [sys.executable, str(SCRIPT), str(folder)]
    tests = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (tests.parent / "src", tests, tests / "training")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Map-style rows and streams, in which samples have no, one and two media: nothing is cut at the wrong place."""
    launch(tmp_path / "one", 1)
    launch(tmp_path / "two", 2)
    # accelerate starts one process of some configs that ask for two, without a word.
    assert [len(list((tmp_path / count).glob("seen-*.json"))) for count in ("one", "two")] == [1, 2]
    for name in ("map-align", "map-lora", "stream-align", "stream-lora"):
        one, two = (
            [line for line in read_metrics(tmp_path / count / name / "metrics.jsonl") if "loss" in line]
            for count in ("one", "two")
        )
        assert len(one) == 4 and [line["loss"] for line in two] == pytest.approx(
            [line["loss"] for line in one], abs=2e-5
        ), name
        assert [line["mean_token_accuracy"] for line in two] == [line["mean_token_accuracy"] for line in one]
        file = "model.safetensors" if name.endswith("align") else "adapter_model.safetensors"
        left, right = (load_file(tmp_path / count / name / file) for count in ("one", "two"))
        assert all(torch.allclose(left[key], right[key], atol=2e-4) for key in left), name
