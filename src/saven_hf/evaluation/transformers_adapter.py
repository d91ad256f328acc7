"""Any multimodal model of transformers as an adapter."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import StoppingCriteriaList

from ..peers.auto import Material, PeerModel
from .adapters import Asked, FirstToken, Likelihood, ModelAdapter, Watched, weigh
from .benchmarks import Pair
from .controls import Control, ControlError


class TransformersAdapter(ModelAdapter):
    """AutoModelForMultimodalLM and AutoProcessor: Qwen2.5-Omni and Qwen3-Omni thinkers, Gemma, VideoLLaMA3, ...

    Files are decoded once for all questions about them, and questions on one video share a batch: models place frames
    by rates that processors take once a batch, and weave in sound for all of a batch or for none.

    Args:
        peer: the model, see `PeerModel.load`.
        batch_size: questions answered at once.
        max_new_tokens: longest answer, in tokens.
    """

    def __init__(self, peer: PeerModel, batch_size: int = 8, max_new_tokens: int = 48):
        super().__init__()
        self.peer, self.batch_size, self.max_new_tokens = peer, batch_size, max_new_tokens
        self.settings = {**peer.settings, "max_new_tokens": max_new_tokens}

    def check(self, control: Control) -> None:
        if control.retimes:
            raise ControlError(
                f"{control.name} changes times between decoder and model, which only models of this library allow."
            )

    def watch(self, media: Path | Pair, control: Control) -> Watched:
        self.check(control)
        picture, sound = not control.no_video, not control.no_audio
        with self.timed("decode"):
            if isinstance(media, Pair):
                materials = [
                    self.peer.read(media.image, picture, sound=False),
                    self.peer.read(media.sound, picture=False, sound=sound),
                ]
            else:
                materials = [self.peer.read(media, picture, sound)]
        shown = [material for material in materials if material.kind != "none"]
        times = [moment for material in shown for moment in material.frame_times]
        return Watched(tuple(shown), {}, times)

    def answer(self, asked: Sequence[Asked], progress: tqdm | None = None) -> list[str]:
        answers: list[str] = []
        for batch, inputs in self._batches(asked):
            first = FirstToken()
            start = time.perf_counter()
            answers += self.peer.generate(
                inputs, max_new_tokens=self.max_new_tokens, stopping_criteria=StoppingCriteriaList([first])
            )
            end = time.perf_counter()
            self.seconds["prefill"] += (first.at or end) - start
            self.seconds["generate"] += end - (first.at or end)
            if progress is not None:
                progress.update(len(batch))
        return answers

    def likelihoods(self, asked, candidates, progress=None) -> list[list[Likelihood]]:
        found: list[list[Likelihood]] = []
        done = 0
        for batch, inputs in self._batches(asked):
            with self.timed("prefill"):
                found += weigh(self.peer.model, self.peer.tokenizer, inputs, candidates[done : done + len(batch)])
            done += len(batch)
            if progress is not None:
                progress.update(len(batch))
        return found

    def _batches(self, asked: Sequence[Asked]) -> Iterator[tuple[list[Asked], dict[str, Any]]]:
        """Questions in order, those on one video together, and the model's inputs."""
        first = 0
        while first < len(asked):
            materials: tuple[Material, ...] = asked[first].watched.state
            batch = []
            for one in asked[first : first + self.batch_size]:
                if one.watched.state is not materials:
                    break
                batch.append(one)
            with self.timed("encode"):
                inputs, fed = self.peer.inputs(materials, [one.prompt for one in batch])
            for one in batch:
                one.watched.fed.update(fed)
            yield batch, inputs
            first += len(batch)
