"""What every process of `accelerate launch` runs in test_gpu_launch: python launched_on_gpu.py FOLDER STAGE."""

import json
import os
import sys
from pathlib import Path

from small import feature_rows, small_model
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from saven_hf.training.recipe import from_dict
from saven_hf.training.trainer import train


class Sharded(TrainerCallback):
    """How many parameters are divided among the processes, and by whom, once a step was made."""

    def __init__(self):
        self.seen = None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        parameters = list(model.parameters())
        self.seen = {
            "parameters": len(parameters),
            "fsdp2": sum(isinstance(one, DTensor) for one in parameters),
            "zero3": sum(hasattr(one, "ds_tensor") for one in parameters),
            "device": parameters[0].device.type,
        }


def run(folder, stage, rows, loaded=(None, None), **settings):
    """Train, and in the first process write to `STAGE.json` what `Sharded` saw."""
    sharded = Sharded()
    recipe = from_dict(
        {
            "stage": stage,
            "model": "given",
            "output_dir": os.path.join(folder, stage),
            "global_batch_size": 4,
            "per_device_train_batch_size": 1,
            "max_steps": 4,
            "learning_rate": 1e-2,
            "warmup": 0,
            "scheduler": "constant",
            "logging_steps": 1,
            "save_steps": 2,
            "merge": False,
            "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
            "trainer": {"disable_tqdm": True},
            **settings,
        }
    )
    model, processor = loaded
    train(recipe, rows, [sharded], model=model, processor=processor)
    if int(os.environ.get("RANK", 0)) == 0:
        Path(folder, f"{stage}.json").write_text(json.dumps(sharded.seen), encoding="utf-8")


def main(folder, stage):
    loaded = small_model()
    run(folder, stage, feature_rows(*loaded, 12, media=(0, 1, 2), turns=2), loaded)


if __name__ == "__main__":
    main(*sys.argv[1:])
