"""The whole 7B with random weights: does it fit, and how long does it take?

    python benchmarks/gpu_full_size.py                 # a GPU with 80 GB or more
    python benchmarks/gpu_full_size.py --tiny          # the same code on the embedded tiny configuration

Prints one line a step, and a JSON object at the end: peak memory (GiB; on a CPU the process's resident peak so far)
and seconds of

  forward     16 frames and one hour of sound through the encoders, the resampler and the language model
  4bit-load   loading with the language model in 4 bit, and the same forward
  <stage>     one optimizer step of each training stage at batch 1 (paper 4.2): the connector stages train MLPs, TLP
              and AVTS; the LoRA stages train LoRA on the language model
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig

from saven_hf import SAVEnVideoConfig, SAVEnVideoForConditionalGeneration
from saven_hf.hub import config_folder
from saven_hf.savenvideo.layout import TokenLayout, audio_column_times


LORA_TARGETS = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
# Name, and the modules that learn; None stands for LoRA (paper 4.2.1 and 4.2.2).
STAGES = {
    "align-visual": ("resampler", "temporal_projection"),
    "align-audio": ("resampler", "temporal_projection"),
    "temporal": None,
    "saven": None,
}
WINDOW_FRAMES, WINDOW_US = 992, 9_920_000


def media(config: SAVEnVideoConfig, frames: int, audio_seconds: float, device: torch.device) -> dict:
    """Random media in the model's own input format: one video."""
    size, duration = config.vision_config.image_size, round(audio_seconds * 1e6)
    windows = -(-duration // WINDOW_US)
    return {
        "pixel_values_videos": torch.randint(0, 256, (1, frames, 3, size, size), dtype=torch.uint8, device=device),
        "frame_times": torch.tensor([[(2 * i + 1) * duration // (2 * frames) for i in range(frames)]], device=device),
        "input_features": torch.randn(1, windows, WINDOW_FRAMES, config.audio_config.num_mel_bins, device=device),
        "audio_times": torch.tensor([[i * WINDOW_US for i in range(windows)]], device=device),
        "query_times": torch.tensor([[0, duration]], device=device),
        "video_durations": torch.tensor([duration], device=device),
    }


def prompt(config: SAVEnVideoConfig, video: dict[str, torch.Tensor], answer: int = 64) -> dict[str, torch.Tensor]:
    """A prompt with the video's placeholders, and an answer to learn."""
    columns = audio_column_times(video["audio_times"][0].tolist(), [WINDOW_FRAMES] * video["audio_times"].shape[1])
    count = TokenLayout.from_config(config).num_tokens(
        video["frame_times"][0].tolist(), columns, video["video_durations"].item(), video["query_times"].shape[1]
    )
    device = video["query_times"].device
    text = torch.randint(0, 200, (1, answer), device=device)
    ids = torch.cat([torch.full((1, count), config.video_token_id, device=device), text], dim=1)
    labels = ids.masked_fill(ids == config.video_token_id, -100)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


class Meter:
    """Peak memory and seconds of each step."""

    def __init__(self, device: torch.device):
        self.device, self.steps = device, {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        yield
        if cuda:
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() / 2**30
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.steps[name] = {"seconds": round(time.perf_counter() - start, 3), "peak_gib": round(peak, 3)}
        print(f"{name:13s} {self.steps[name]['seconds']:9.3f} s   peak {peak:8.3f} GiB", flush=True)


def train_step(model, inputs: dict[str, torch.Tensor], learning_rate: float) -> None:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    loss = model(**inputs, use_cache=False).loss
    loss.backward()
    optimizer.step()
    if not torch.isfinite(loss):
        raise RuntimeError(f"The loss is {loss.item()}.")


def run(name: str, frames: int, audio_seconds: float, device: torch.device) -> dict:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    config = SAVEnVideoConfig.from_pretrained(config_folder(name))
    meter = Meter(device)
    with meter("build"), torch.device(device):
        model = SAVEnVideoForConditionalGeneration._from_config(config, dtype=dtype).eval()
    video = media(config, frames, audio_seconds, device)
    inputs = {**video, **prompt(config, video)}
    with meter("forward"), torch.no_grad():
        model(**inputs)

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)
        if device.type == "cuda":
            model.to("cpu")
            torch.cuda.empty_cache()
        with meter("4bit-load"):
            small = SAVEnVideoForConditionalGeneration.from_pretrained(
                folder, quantization_config=quantization, dtype=dtype, device_map={"": device}
            )
        with meter("4bit-forward"), torch.no_grad():
            small(**inputs)
        del small
        model.to(device)

    for stage, learns in STAGES.items():
        if learns is None:
            trained = get_peft_model(model, LoraConfig(r=128, lora_alpha=256, target_modules=LORA_TARGETS))
            rate = 2e-4
        else:
            trained, rate = model, 2e-3
            model.requires_grad_(False)
            for part in learns:
                getattr(model.model, part).requires_grad_(True)
            if stage == "align-visual":
                model.model.resampler.audio_mlp.requires_grad_(False)
        trained.gradient_checkpointing_enable({"use_reentrant": False})
        if learns is None:
            trained.enable_input_require_grads()
        with meter(stage):
            train_step(trained, inputs, rate)
        if learns is None:
            model = trained.unload()
    return {"model": name, "device": str(device), "dtype": str(dtype), "parameters": model.num_parameters(),
            "frames": frames, "audio_seconds": audio_seconds, "prompt_tokens": inputs["input_ids"].shape[1],
            "steps": meter.steps}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="the tiny configuration and one minute of sound")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.tiny:
        result = run("savenvideo-tiny", frames=16, audio_seconds=60.0, device=torch.device(args.device))
    elif args.device == "cpu":
        parser.error("the whole 7B needs a GPU; --tiny runs the same code here")
    else:
        result = run("savenvideo-7b", frames=16, audio_seconds=3600.0, device=torch.device(args.device))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
