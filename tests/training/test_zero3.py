"""`accelerate launch` with `zero3.yaml`, on the CPU: the losses and weights of whole models, with other media on each.

In float32, and with no weight of the language model too small to be divided.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small import save_small_model, small_model

from saven_hf.training.curves import read_metrics
from saven_hf.training.recipe import RecipeError, recipe_file
from saven_hf.training.zero3 import keep_media_whole


ACCELERATE = recipe_file("7b/saven").parents[2] / "accelerate"
SCRIPT = Path(__file__).with_name("launched_zero3.py")
RESULTS = {
    "align-audio": ("model.safetensors",),
    "saven": ("adapter_model.safetensors", "merged/model.safetensors"),
}


def on_cpu(folder):
    """`zero3.yaml` for float32 and a threshold of 0."""
    settings = json.loads((ACCELERATE / "zero3.json").read_text())
    del settings["bf16"]
    settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (folder / "zero3.json").write_text(json.dumps(settings))
    config = yaml.safe_load((ACCELERATE / "zero3.yaml").read_text())
    config["deepspeed_config"]["deepspeed_config_file"] = str(folder / "zero3.json")
    (folder / "zero3.yaml").write_text(yaml.safe_dump(config))
    return folder / "zero3.yaml"


def launch(folder, model, processes=None):
    """Train in one process without a launcher, or in several that DeepSpeed shares weights among."""
    words = [sys.executable]
    if processes is not None:
        words += ["-m", "accelerate.commands.launch", "--config_file", str(on_cpu(folder))]
        words += ["--num_processes", str(processes), "--main_process_port", "0"]
    tests = SCRIPT.parents[1]
    path = os.pathsep.join(map(str, (tests.parent / "src", tests, *filter(None, [os.environ.get("PYTHONPATH")]))))
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "PYTHONPATH": path}
    done = subprocess.run(
        [*words, str(SCRIPT), str(folder), model], env={**os.environ, **environment},
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        stage: {
            "steps": [line for line in read_metrics(folder / stage / "metrics.jsonl") if "loss" in line],
            "seen": json.loads((folder / f"{stage}.json").read_text()),
            "weights": {file: load_file(folder / stage / file) for file in files},
        }
        for stage, files in RESULTS.items()
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    return launch(tmp_path_factory.mktemp("whole"), model)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed: pip install '.[deepspeed]'"
)
@pytest.mark.parametrize("processes", [1, 2])
def test_zero3_equals_whole(whole, model, processes, tmp_path):
    sharded = launch(tmp_path, model, processes)
    for stage in RESULTS:
        expected, result = whole[stage], sharded[stage]
        assert result["seen"]["zero3"] == result["seen"]["parameters"] > 0 == expected["seen"]["zero3"]
        assert [line["step"] for line in result["steps"]] == [1, 2, 3, 4]
        for name in ("loss", "grad_norm"):
            assert [line[name] for line in result["steps"]] == pytest.approx(
                [line[name] for line in expected["steps"]], rel=1e-4
            ), (stage, name)
        for file, weights in expected["weights"].items():
            written = result["weights"][file]
            assert written.keys() == weights.keys()
            for name, weight in weights.items():
                assert torch.allclose(written[name], weight, atol=1e-6), (file, name)


def test_gradients_of_several_exchanges_are_refused():
    inner = small_model()[0].model
    for parameter in inner.parameters():
        parameter.ds_numel = parameter.numel()
    trained = sum(parameter.numel() for parameter in inner.parameters() if parameter.requires_grad)
    with pytest.raises(RecipeError, match=f"set zero_optimization.reduce_bucket_size .* to {trained} or more"):
        keep_media_whole(inner, SimpleNamespace(reduce_bucket_size=trained - 1))
