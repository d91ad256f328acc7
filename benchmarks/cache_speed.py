"""How much faster is a training step from a feature cache than from media?

    python benchmarks/cache_speed.py [--videos 24] [--rounds 5] [--tiny]

Renders scenes of the world as mp4, caches them with `saven cache`'s own function, and takes training steps of the
connector (forward, backward, optimizer) of the tiny model from both, in turn in the same run: what is fed (processor)
and what is computed (model) are timed apart, in CPU seconds of one thread. Also prints how many media a second the
cache reads, beside one file for each. The losses of the two ways are compared. Limit: a step from the cache takes at
most half of one from media.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from saven_hf import TowerFeatures, load, world
from saven_hf.training.cache import FeatureCache, build_cache, list_media


LIMIT = 0.5
FPS = 4.0
TEXT = "<|video|>What is seen from 00:00:01.000 to 00:00:04.000? A red circle."


class Trainer:
    """Steps of the connector on batches of media or of features."""

    def __init__(self, model, processor):
        self.model, self.processor = model.train(), processor
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("resampler" in name or "temporal_projection" in name)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # The weights stay as they are, so that all steps have the same loss.
        self.optimizer = torch.optim.AdamW(trained, lr=0.0)

    def step(self, media: list) -> tuple[float, float, float]:
        """Loss, CPU seconds to make the batch, CPU seconds to learn from it."""
        start = time.process_time()
        batch = self.processor(
            text=[TEXT] * len(media), videos=media, padding=True, return_tensors="pt", videos_kwargs={"fps": FPS}
        )
        made = time.process_time()
        loss = self.model(**batch, labels=batch["input_ids"]).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item(), made - start, time.process_time() - made


def reads_per_second(read, keys: list, seconds: float = 0.5) -> float:
    start, count = time.process_time(), 0
    while time.process_time() - start < seconds:
        for key in keys:
            read(key)
        count += len(keys)
    return count / (time.process_time() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=24, help="mp4 files of the world")
    parser.add_argument("--batch", type=int, default=4, help="videos in a step")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each kind")
    parser.add_argument("--dtype", default="float16", help="of the cached features")
    parser.add_argument("--tiny", action="store_true", help="few and short videos: whether it runs, not how fast")
    args = parser.parse_args()
    if args.tiny:
        args.videos, args.batch, args.rounds = 4, 2, 2
    torch.manual_seed(0)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # the embedded model may have no weights yet
    model, processor = load(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.videos):
            scene = world.sample_scene(seed=seed, segments=2 if args.tiny else None)
            world.write_video(scene, Path(folder) / f"{seed}.mp4")
        media = list_media(folder)
        start = time.process_time()
        report = build_cache(
            media, Path(folder) / "cache", model, processor, dtype=args.dtype, progress=False, fps=FPS
        )
        encoding = time.process_time() - start
        cache = FeatureCache(Path(folder) / "cache")
        paths = [source.medium["path"] for source in media]
        single = {path: Path(folder) / f"{index}.safetensors" for index, path in enumerate(paths)}
        for path, file in single.items():
            cache[path].save(file)

        trainer = Trainer(model, processor)
        rows = {"media": [], "cache": []}
        for step in range(args.rounds):
            chosen = [paths[(step * args.batch + at) % len(paths)] for at in range(args.batch)]
            rows["media"].append(trainer.step(chosen))
            start = time.process_time()
            features = [cache[path] for path in chosen]
            reading = time.process_time() - start
            loss, making, learning = trainer.step(features)
            rows["cache"].append((loss, reading + making, learning))
        reads = reads_per_second(cache.__getitem__, paths)
        single_reads = reads_per_second(TowerFeatures.load, list(single.values()))

    feed = {name: statistics.median(row[1] for row in steps) for name, steps in rows.items()}
    compute = {name: statistics.median(row[2] for row in steps) for name, steps in rows.items()}
    ratio = (feed["cache"] + compute["cache"]) / (feed["media"] + compute["media"])
    gap = max(abs(left[0] - right[0]) for left, right in zip(rows["media"], rows["cache"], strict=True))
    for name in rows:
        print(
            f"{name}: {feed[name] * 1e3:.1f} ms to make a batch of {args.batch}, {compute[name] * 1e3:.1f} ms to learn"
        )
    result = {
        "ratio": ratio,
        "limit": LIMIT,
        "speed_up": 1 / ratio,
        "feed_ratio": feed["cache"] / feed["media"],
        "loss_gap": gap,
        "encoded_per_second": report.encoded / encoding,
        "bytes_per_medium": report.bytes / report.encoded,
        "reads_per_second": reads,
        "reads_per_second_of_single_files": single_reads,
    }
    print(json.dumps({name: float(f"{value:.4g}") for name, value in result.items()}))
    return 0 if gap < 1e-2 and (args.tiny or ratio <= LIMIT) else 1


if __name__ == "__main__":
    sys.exit(main())
