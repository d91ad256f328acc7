"""Models as benchmarks see them: something that watches a video and then answers questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from tqdm.auto import tqdm

from ..savenvideo.weights import weights_fingerprint
from .benchmarks import Item
from .controls import Control


@dataclass
class Watched:
    """A video that a model has seen.

    Attributes:
        state: whatever the adapter needs to answer about it.
        fed: what the model was given: "frames", "audio_seconds", "video_seconds".
    """

    state: Any
    fed: dict[str, float] = field(default_factory=dict)


class Asked(NamedTuple):
    """A question on its way to a model; `item` is for baselines that need no model."""

    watched: Watched
    prompt: str
    item: Item


class Adapter(Protocol):
    """What a benchmark needs of a model.

    settings: whatever changes its answers, as JSON: weights, sampling, generation. Runs are compared by it.
    """

    settings: dict[str, Any]

    def watch(self, media: Path, control: Control) -> Watched:
        """Take in a video once. The file is edited already; times are the adapter's to change."""

    def answer(self, asked: Sequence[Asked], progress: tqdm | None = None) -> list[str]:
        """Answer questions, also about several videos at once."""


class MemoryAdapter:
    """SAVEnVideo: each video is decoded and encoded once; questions on several videos are answered in one batch.

    Args:
        model, processor: as `saven_hf.load` gives them.
        batch_size: questions answered at once.
        max_new_tokens: longest answer, in tokens.
        sampling: `sampling`, `num_frames`, `fps`, `max_frames`, as for the processor.

    Raises:
        ValueError: the model's tokens depend on the question (question_times="joint"), or `sampling` is "query".
    """

    def __init__(self, model, processor, batch_size: int = 64, max_new_tokens: int = 48, **sampling):
        self.model, self.processor = model, processor
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.sampling = {name: value for name, value in sampling.items() if value is not None}
        frames = processor.video_processor.settings(**self.sampling)
        if frames["sampling"] == "query" or model.model.resampler.joint:
            raise ValueError(
                "Here a video is encoded once for all questions about it, so its frames and tokens cannot depend on "
                "the question: choose another sampling than 'query', and a model of question_times='separate'."
            )
        self.settings = {
            "model": weights_fingerprint((model,), model.config.media_settings()),
            "max_new_tokens": max_new_tokens,
            "frames": {name: frames[name] for name in ("sampling", "num_frames", "fps", "max_frames")},
        }
        if frames["preprocessing"] != "whole":
            self.settings["frames"]["preprocessing"] = frames["preprocessing"]

    def watch(self, media: Path, control: Control) -> Watched:
        heard = {"use_audio_in_video": False} if control.no_audio else {}
        memory = self.model.encode_video(media, control.processor(self.processor), **self.sampling, **heard)
        return Watched(
            memory,
            {
                "frames": memory.num_frames,
                "audio_seconds": round(memory.audio_seconds, 2),
                "video_seconds": memory.duration / 1e6,
            },
        )

    def answer(self, asked: Sequence[Asked], progress: tqdm | None = None) -> list[str]:
        # Prompts of like length share a batch, so that little of it is padding.
        lengths = [one.watched.state.num_tokens + len(self.processor.tokenizer(one.prompt).input_ids) for one in asked]
        order = sorted(range(len(asked)), key=lambda at: (lengths[at], at))
        answers = [""] * len(asked)
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            for at, text in zip(batch, self._generate([asked[at] for at in batch]), strict=True):
                answers[at] = text
            if progress is not None:
                progress.update(len(batch))
        return answers

    @torch.no_grad()
    def _generate(self, asked: list[Asked]) -> list[str]:
        chats = [
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": one.prompt}]}] for one in asked
        ]
        texts = self.processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        inputs = self.processor(
            text=texts, videos=[[one.watched.state] for one in asked], padding=True, padding_side="left",
            return_tensors="pt",
        ).to(self.model.device)  # fmt: skip
        output = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1)
        answers = output[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(answers, skip_special_tokens=True)]
