"""What every process of `accelerate launch` runs in test_launch: python launched.py FOLDER."""

import json
import os
import sys
from pathlib import Path

from small import feature_rows, small_model

from saven_hf.training.recipe import from_dict
from saven_hf.training.trainer import train


def run(folder, name, rows, **settings):
    model, processor = small_model()
    recipe = from_dict(
        {
            "model": "given",
            "output_dir": os.path.join(folder, name),
            "global_batch_size": 4,
            "per_device_train_batch_size": 4 // int(os.environ.get("WORLD_SIZE", 1)),
            "max_steps": 4,
            "learning_rate": 1e-2,
            "warmup": 0,
            "scheduler": "constant",
            "precision": "float32",
            "logging_steps": 1,
            "merge": False,
            "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
            "trainer": {"use_cpu": True, "disable_tqdm": True},
            **settings,
        }
    )
    result = train(recipe, rows, model=model, processor=processor)
    # Whole for every process, whichever of them wrote it: its card is written last.
    assert Path(result.model, "README.md").is_file()


def main(folder):
    rows = feature_rows(*small_model(), 12, media=(0, 1, 2), turns=2)
    for number, row in enumerate(rows):
        row["messages"][1]["content"] += "!" * (5 * number)  # unequal answers, so that means of means would differ
    seen = []

    def stream():
        for row in rows:
            seen.append(row["id"])
            yield row

    run(folder, "map-align", rows, stage="align-audio")
    run(folder, "map-lora", rows, stage="saven", loss_weighting="turn")
    run(folder, "stream-align", stream, stage="align-audio")
    run(folder, "stream-lora", stream, stage="saven")
    (Path(folder) / f"seen-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
