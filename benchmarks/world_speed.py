"""How fast is the world made?

    python benchmarks/world_speed.py [--scenes 2000]

On one core: scenes with their five questions (and exact chance levels) and their captions, without pixels; frames and
seconds of sound rendered in memory; whole mp4 files written. The last line is the ratio of scenes a second without
pixels to files a second: what it saves to train from scenes rendered in memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from saven_hf import world


def timed(work) -> tuple[float, float]:
    """Seconds that `work()` took, and what it returned."""
    start = time.perf_counter()
    amount = work()
    return time.perf_counter() - start, amount


def make_text(count: int) -> int:
    for seed in range(count):
        scene = world.sample_scene(seed)
        world.make_questions(scene)
        world.caption(scene)
    return count


def make_frames(scenes, side: int) -> int:
    return sum(len(world.render_frames(scene, world.frame_times(scene), (side, side))) for scene in scenes)


def make_sound(scenes) -> float:
    return sum(len(world.render_sound(scene)) for scene in scenes) / 16_000


def make_files(scenes, folder: str) -> int:
    for scene in scenes:
        world.write_video(scene, Path(folder) / f"{scene.video_id}.mp4")
    return len(scenes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000, help="scenes to make without pixels")
    arguments = parser.parse_args()
    scenes = [world.sample_scene(seed) for seed in range(32)]

    seconds, count = timed(lambda: make_text(arguments.scenes))
    scenes_a_second = count / seconds
    print(f"scenes with five questions and captions   {scenes_a_second:10.0f} a second")
    for side in (64, 128):
        seconds, count = timed(lambda side=side: make_frames(scenes, side))
        print(f"frames of {side:3d} x {side:3d}                       {count / seconds:10.0f} a second")
    seconds, count = timed(lambda: make_sound(scenes))
    print(f"sound at 16 kHz                           {count / seconds:10.0f} seconds a second")
    with tempfile.TemporaryDirectory() as folder:
        seconds, count = timed(lambda: make_files(scenes, folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / count
    print(f"mp4 files of 64 x 64, mean {size / 1000:4.0f} kB          {count / seconds:10.1f} a second")
    print(f"ratio of scenes to files                  {scenes_a_second * seconds / count:10.0f}")


if __name__ == "__main__":
    main()
