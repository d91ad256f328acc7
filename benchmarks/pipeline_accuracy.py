"""How right are the measurements that `saven build` makes without weights?

    python benchmarks/pipeline_accuracy.py [--videos 60]

On mp4 files of the world, of seeds that nothing was tuned on: F1 of picture changes (cuts and cross-fades; within half
the fade, at least 0.1 s) and of the beginnings of sounds (within 50 ms), as `signal` measures them in the clips that
videos are cut into; and a solver that reads captions alone on the
world's questions, with both captions, with one, and with none. The last column is what the best guesser with that
stream reaches.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saven_hf.pipeline.measure import measure_sound
from saven_hf.pipeline.segment import ChangeDetector, FrameScores, find_boundaries, segment
from saven_hf.savenvideo.media import open_media
from saven_hf.world.conversations import describe_scene
from saven_hf.world.questions import make_questions
from saven_hf.world.sounds import pulse_times
from saven_hf.world.splits import sample_scene
from saven_hf.world.video import write_video


sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "pipeline"))
from world_solver import answer  # noqa: E402 - beside the tests, because it knows nothing of the world


FIRST_SEED = 10_000


def matched(found: list[float], truth: list[tuple[float, float]]) -> int:
    """How many of (time, tolerance) have a found time of their own."""
    left, hits = sorted(found), 0
    for time, slack in sorted(truth):
        near = [one for one in left if abs(one - time) <= slack]
        if near:
            left.remove(min(near, key=lambda one: abs(one - time)))
            hits += 1
    return hits


def f1(found: int, wanted: int, hits: int) -> str:
    return f"F1 {2 * hits / (found + wanted):.3f}  precision {hits / found:.3f}  recall {hits / wanted:.3f}"


@dataclass
class _Scored:
    """A detector that has looked at the video already."""

    scores: FrameScores
    name: str = "scored"

    def score(self, media) -> FrameScores:
        return self.scores


def measure(split: str, videos: int) -> None:
    cuts, onsets = np.zeros(3, dtype=int), np.zeros(3, dtype=int)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(FIRST_SEED, FIRST_SEED + videos):
            scene = sample_scene(seed, split)
            path = Path(folder) / "video.mp4"
            write_video(scene, path)
            with open_media(path) as media:
                scores = ChangeDetector().score(media)
                clips = segment({}, media, _Scored(scores))["segments"]
                sounds = [measure_sound(media, clip["start"], clip["end"]) for clip in clips]
            found = [float(scores.times[at]) for at in find_boundaries(scores)]
            truth = [(event.end, max(fade / 2, 1e5)) for event, fade in zip(scene.pictures, scene.fades, strict=False)]
            cuts += len(found), len(truth), matched(found, truth)
            found = [1e6 * time for sound in sounds for time in sound.onsets]
            truth = [(first, 5e4) for event in scene.sounds for first, _ in pulse_times(event)]
            onsets += len(found), len(truth), matched(found, truth)
    print(f"{split}, {videos} videos: {cuts[1]} changes of picture   {f1(*cuts)}")
    print(f"{split}, {videos} videos: {onsets[1]} sounds begin        {f1(*onsets)}")


def solve(scenes: int) -> None:
    right, best, count = np.zeros(4), np.zeros(4), 0
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        scene = sample_scene(seed, "iid")
        visual, audio = (describe_scene(scene, f"{stream}_captions") for stream in ("visual", "audio"))
        for one in make_questions(scene):
            if one.options and one.needs == "both":
                known = ((visual, audio), (visual, None), (None, audio), (None, None))
                right += [answer(one.text, list(one.options), *two, seed=random.Random(seed).random()) == one.answer
                          for two in known]  # fmt: skip
                best += 1, one.chance.picture, one.chance.sound, one.chance.text
                count += 1
    for name, hits, chance in zip(
        ("both captions", "picture alone", "sound alone", "neither"), right, best, strict=True
    ):
        print(f"{count} questions, {name:14} {hits / count:.3f}   best {chance / count:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=60, help="of each split")
    parser.add_argument("--scenes", type=int, default=300, help="whose questions are asked")
    arguments = parser.parse_args()
    for split in ("iid", "vfr", "distractors"):
        measure(split, arguments.videos)
    solve(arguments.scenes)


if __name__ == "__main__":
    main()
