"""What every process of `accelerate launch` runs in test_zero3: python launched_zero3.py FOLDER MODEL."""

import os
import sys

from launched_on_gpu import run
from small import small_model
from test_every_mix import rows_of


def main(folder, model):
    rows = rows_of("all in a batch", *small_model()) * 2
    for number, row in enumerate(rows):
        rows[number] = {**row, "id": str(number)}
    # Adam would hide gradients that are wrong by a factor.
    trainer = {"disable_tqdm": True, "use_cpu": False, "optim": "sgd"}
    if "LOCAL_RANK" in os.environ:
        trainer["ddp_backend"] = "gloo"  # accelerate knows none for a CPU that is not asked for
    settings = {
        "model": model,
        "precision": "float32",
        "per_device_train_batch_size": 2 // int(os.environ.get("WORLD_SIZE", 1)),  # rows are grouped by its sum
        "learning_rate": 1.0,
        "trainer": trainer,
    }
    for steps in (2, 4):  # the second time from the checkpoint of the first
        run(folder, "align-audio", rows, max_steps=steps, **settings)
        run(folder, "saven", rows, max_steps=steps, **{**settings, "merge": steps == 4})


if __name__ == "__main__":
    main(*sys.argv[1:])
