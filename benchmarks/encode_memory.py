"""Does the memory of `encode_video` grow with the video?

    python benchmarks/encode_memory.py [--minutes 10 60]

Encodes videos of each length at 384 px and one frame a second, each in a process of its own, with small towers on the
7B's patch grid (729 patches a frame) and the 7B's resampler. Prints peak resident memory on top of the loaded model,
what the encoded video itself keeps, and the ratio of the longest to the shortest without it. Limit: 1.1.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import Qwen2Config, SiglipVisionConfig

from saven_hf import (
    SAVEnVideoBeatsConfig,
    SAVEnVideoConfig,
    SAVEnVideoForConditionalGeneration,
    SAVEnVideoProcessor,
)
from saven_hf.hub import config_folder


LIMIT = 1.1


def make_video(path: Path, minutes: float) -> None:
    """A moving test picture, five frames a second, with a tone."""
    source = f"testsrc2=size=320x180:rate=5:duration={minutes * 60}"
    tone = f"sine=frequency=440:sample_rate=16000:duration={minutes * 60}"
    command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source, "-f", "lavfi", "-i", tone]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "50", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([*command, *coding, str(path)], check=True)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def encode(path: str) -> dict:
    """In a fresh process: what encoding one file takes."""
    tokenizer = SAVEnVideoProcessor.from_pretrained(config_folder("savenvideo-tiny")).tokenizer
    small = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 128}
    config = SAVEnVideoConfig(
        vision_config=SiglipVisionConfig(image_size=384, patch_size=14, vision_use_head=False, **small),
        audio_config=SAVEnVideoBeatsConfig(patch_embed_dim=32, **small),
        text_config=Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **small),
    )
    model = SAVEnVideoForConditionalGeneration(config).eval()
    processor = SAVEnVideoProcessor.from_components(tokenizer, config=config, sampling="fps", fps=1.0)
    loaded = peak_bytes()
    start = time.perf_counter()
    memory = model.encode_video(path, processor)
    return {
        "seconds": time.perf_counter() - start,
        "frames": memory.num_frames,
        "audio_seconds": memory.audio_seconds,
        "working_bytes": peak_bytes() - loaded - memory.nbytes,
        "stored_bytes": memory.nbytes,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0, 60.0])
    parser.add_argument("--encode", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.encode:
        torch.manual_seed(0)
        print(json.dumps(encode(args.encode)))
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in sorted(args.minutes):
            path = Path(folder) / f"{minutes:g}.mp4"
            make_video(path, minutes)
            command = [sys.executable, __file__, "--encode", str(path)]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"minutes": minutes, **result})
            print(
                f"{minutes:6g} min: {result['frames']} frames, {result['audio_seconds']:.0f} s of sound in "
                f"{result['seconds']:.1f} s; working memory {result['working_bytes'] / 2**20:.0f} MiB, "
                f"stored {result['stored_bytes'] / 2**20:.1f} MiB",
                flush=True,
            )
    ratio = rows[-1]["working_bytes"] / rows[0]["working_bytes"]
    print(json.dumps({"ratio": round(ratio, 3), "limit": LIMIT, "rows": rows}))
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
