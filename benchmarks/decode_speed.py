"""Reading frames from a long video: ours against torchcodec, in the same run.

    python benchmarks/decode_speed.py [--minutes 10] [--frames 64] [--rounds 3]

Both decode on one thread and scale to 224 x 224. `uniform`: the same frames, at the same times. `keyframe`: ours
only, the key frames nearest to those times (there may be fewer). Prints the median of each in seconds, and the ratio
ours / torchcodec: of uniform as a whole, of key frames per frame.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from saven_hf.savenvideo.media import open_media


SIDE = 224


def make_video(path: Path, minutes: float) -> None:
    """640 x 360 at 25 frames a second, x264 as it comes: B-frames, a key frame every ten seconds."""
    source = f"testsrc2=size=640x360:rate=25:duration={minutes * 60}"
    command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset"]
    subprocess.run([*command, "veryfast", "-g", "250", "-pix_fmt", "yuv420p", str(path)], check=True)


def ours(path: Path, sampling: str, frames: int) -> list[float]:
    with open_media(path) as media:
        _, times = media.frames_at(media.sample_times(sampling, num_frames=frames), size=(SIDE, SIDE))
    return [time / 1e6 for time in times]


def torchcodec(path: Path, times: list[float]) -> list[float]:
    from torchcodec.decoders import VideoDecoder

    batch = VideoDecoder(str(path), num_ffmpeg_threads=1, seek_mode="exact").get_frames_played_at(seconds=times)
    torch.nn.functional.interpolate(batch.data, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    return batch.pts_seconds.tolist()


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        make_video(path, args.minutes)
        times = ours(path, "uniform", args.frames)
        result = {
            "minutes": args.minutes,
            "frames": len(times),
            "key_frames": len(ours(path, "keyframe", args.frames)),
            "uniform": median_seconds(lambda: ours(path, "uniform", args.frames), args.rounds),
            "keyframe": median_seconds(lambda: ours(path, "keyframe", args.frames), args.rounds),
        }
        try:
            shown = torchcodec(path, times)
        except (ImportError, RuntimeError) as error:
            print(f"torchcodec cannot be used here ({type(error).__name__}): no peer to compare with", file=sys.stderr)
        else:
            if max(abs(a - b) for a, b in zip(shown, times, strict=True)) > 1e-3:
                raise RuntimeError("The two decoders did not return the same frames.")
            result["torchcodec"] = median_seconds(lambda: torchcodec(path, times), args.rounds)
            result["uniform_ratio"] = result["uniform"] / result["torchcodec"]
            per_frame = result["keyframe"] / result["key_frames"], result["torchcodec"] / result["frames"]
            result["keyframe_ratio_per_frame"] = per_frame[0] / per_frame[1]
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
