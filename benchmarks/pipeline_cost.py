"""What does it cost to annotate many hours of video with the paper's models?

    python benchmarks/pipeline_cost.py [--hours 10000] [--seconds 182] [--clips 12]

Calls follow from the stages, tokens of prompts from the prompts themselves, those of frames and sound from the models'
own rules (Qwen2-VL: one for 28 x 28 pixels; Qwen2-Audio: 25 a second); lengths of replies are assumed. GPU hours are
floating-point operations (two for each parameter and token) over what a GPU does in an hour, an estimate: reading a
prompt at `--read` TFLOP/s, writing at `--write`, which is lower because each token reads all weights.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from saven_hf.pipeline.templates import Prompts


# Counted on our prompts with Qwen's own vocabulary (qwen.tiktoken of the dashscope package, which Qwen2.5 still has):
# with these two, each prompt is met within 7 %. Every digit is a token.
CHARACTERS_A_TOKEN, TOKENS_A_TIME = 4.07, 12.5
_TIME = re.compile(r"\d\d:\d\d:\d\d\.\d{3}")
PARAMETERS = {"visual": 73e9, "audio": 8.4e9, "text": 72.7e9}  # Qwen2-VL-72B, Qwen2-Audio-7B, Qwen2.5-72B
FRAMES, FRAME_SIZE = 16, (448, 252)
# Tokens of replies: assumed, after the paper's examples.
REPLIES = {"visual_caption": 200, "audio_caption": 120, "fuse_segment": 180, "fuse_video": 600, "questions": 150,
           "options": 130, "answer": 2}  # fmt: skip


@dataclass
class Stage:
    name: str
    model: str
    calls: float  # of a video
    read: float  # tokens of a call
    write: float

    def gpu_hours(self, videos: float, read: float, write: float) -> float:
        operations = 2 * PARAMETERS[self.model] * self.calls * videos
        return operations * (self.read / (read * 1e12) + self.write / (write * 1e12)) / 3600


def text_of(tokens: float) -> str:
    return "x" * round(tokens * CHARACTERS_A_TOKEN)


def stages(seconds: float, clips: int) -> list[Stage]:
    prompts, length = Prompts(), seconds / clips
    spans = [{"start": "00:00:00.000", "end": "00:00:00.000", "caption": ""}] * clips

    def tokens(name: str, **values) -> float:
        text = "\n".join(prompts.render(name, values))
        return len(_TIME.sub("", text)) / CHARACTERS_A_TOKEN + len(_TIME.findall(text)) * TOKENS_A_TIME

    caption = {name: text_of(REPLIES[name]) for name in ("visual_caption", "audio_caption")}
    final = {name: text_of(REPLIES["fuse_video"]) for name in ("visual_caption", "audio_caption", "av_caption")}
    told = [span | {"caption": text_of(REPLIES["fuse_segment"])} for span in spans]
    option = text_of(REPLIES["options"] / 5)
    asked = {"question": text_of(30), "options": [option] * 4}
    picture = FRAMES * (FRAME_SIZE[0] // 28) * (FRAME_SIZE[1] // 28)
    pieces = max(1, -(-length // 30))
    choice = {"segments": spans, "kind": "global", "question": asked["question"], **final}
    times = {"start": "00:00:00.000", "end": "00:00:00.000"}
    read = {
        "visual_caption": picture + tokens("visual_caption", frames=FRAMES, seconds=length),
        "audio_caption": 25 * length / pieces + tokens("audio_caption", seconds=length),
        "fuse_segment": tokens("fuse_segment", **times, **caption),
        "fuse_video": tokens("fuse_video", modality="av", segments=told),
        "questions": tokens("questions", segments=spans, **final),
        "options": tokens("options", **choice),
    }
    calls = {"visual_caption": clips, "audio_caption": clips * pieces, "fuse_segment": clips, "fuse_video": 3,
             "questions": 1, "options": 5}  # fmt: skip
    kinds = {"visual_caption": "visual", "audio_caption": "audio"}
    made = [Stage(f"`{name}`", kinds.get(name, "text"), calls[name], read[name], REPLIES[name]) for name in read]
    # Five questions in four orders of their options: from the text alone, from either stream's caption, and from both.
    for what, count, known in (("text alone", 20, None), ("one caption", 60, final["av_caption"])):
        made.append(
            Stage(f"`answer`, {what}", "text", count, tokens("answer", caption=known, **asked), REPLIES["answer"])
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10_000)
    parser.add_argument("--seconds", type=float, default=182, help="mean length of a video (the paper's)")
    parser.add_argument("--clips", type=int, default=12, help="clips of a video")
    parser.add_argument("--read", type=float, default=400, help="TFLOP/s of a GPU reading prompts")
    parser.add_argument("--write", type=float, default=100, help="TFLOP/s of a GPU writing, in large batches")
    arguments = parser.parse_args()
    videos = arguments.hours * 3600 / arguments.seconds
    print("| stage | model | calls a video | tokens read | tokens written | GPU hours |\n|---|---|---|---|---|---|")
    total = 0.0
    for stage in stages(arguments.seconds, arguments.clips):
        hours = stage.gpu_hours(videos, arguments.read, arguments.write)
        total += hours
        print(
            f"| {stage.name} | {stage.model} | {stage.calls:.0f} | {stage.read:.0f} | {stage.write:.0f} "
            f"| {hours:,.0f} |"
        )
    print(f"| all of {videos:,.0f} videos | | | | | {total:,.0f} |")


if __name__ == "__main__":
    main()
