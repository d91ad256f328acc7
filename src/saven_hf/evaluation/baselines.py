"""Baselines: what is reached without looking, and with text alone."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..data.prompts import LETTERS
from ..savenvideo.media import open_media
from ..savenvideo.subtitles import format_subtitles, read_subtitles
from ..savenvideo.weights import weights_fingerprint
from .adapters import Asked, Likelihood, ModelAdapter, Watched, weigh
from .benchmarks import Item, Pair
from .controls import Control, ControlError
from .parsing import lead_of


class GuessingAdapter:
    """A rule that looks at nothing. Open questions are answered with nothing, or by "yes" for "always-a".

    Args:
        rule: one of `RULES`: "random" (each option with the same probability, by the item's id and the seed alone, so
            that neither order nor controls change it), "always-a" (the first option; "yes" where there is none),
            "longest" (the longest option, the first of several).
    """

    media_at_once = 1
    RULES = ("random", "always-a", "longest")

    def __init__(self, rule: str, seed: int = 0):
        if rule not in self.RULES:
            raise ValueError(f"There is no rule {rule!r}: one of {', '.join(self.RULES)}.")
        self.rule, self.seed = rule, seed
        self.settings: dict[str, Any] = {"model": rule} | ({"seed": seed} if rule == "random" else {})

    def watch(self, media: Path | Pair, control: Control) -> Watched:
        return Watched(None, {"frames": 0, "audio_seconds": 0.0, "video_seconds": 0.0})

    def answer(self, asked: Sequence[Asked], progress: tqdm | None = None) -> list[str]:
        if progress is not None:
            progress.update(len(asked))
        return [self._answer(one.item) for one in asked]

    def _answer(self, item: Item) -> str:
        if not item.options:
            return "yes" if self.rule == "always-a" else ""
        letters = LETTERS[: len(item.options)]
        if self.rule == "random":
            digest = hashlib.sha256(f"{self.seed} {item.id}".encode()).digest()
            return random.Random(digest).choice(letters)
        if self.rule == "longest":
            return letters[max(range(len(letters)), key=lambda at: (len(item.options[at]), -at))]
        return "A"


class TextAdapter(ModelAdapter):
    """A language model that reads the question, and, if asked to, what is said in the video, and nothing else.

    Args:
        model, tokenizer: a causal language model of transformers and its tokenizer; its chat template is used if it
            has one.
        name: of the model, for the run's settings.
        speech: nothing, "subtitles" (a subtitle file beside the medium, of its name), or a speech recognition pipeline
            of transformers. Sound that a control takes away is not transcribed.
        batch_size: questions answered at once.
        max_new_tokens: longest answer, in tokens.
        worded: whether the candidates that are weighed are the options' words, behind what the model itself says
            before its answer, as for a SAVEnVideo, and not letters.
    """

    media_at_once = 16  # a batch is of as many questions, and a video may have one

    def __init__(
        self,
        model,
        tokenizer,
        name: str,
        speech=None,
        batch_size: int = 16,
        max_new_tokens: int = 48,
        worded: bool = False,
    ):
        super().__init__()
        self.model, self.tokenizer, self.speech = model, tokenizer, speech
        self.batch_size, self.max_new_tokens, self.worded = batch_size, max_new_tokens, worded
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        heard = speech if speech is None or isinstance(speech, str) else getattr(speech.model, "name_or_path", "asr")
        heard = os.path.basename(os.path.normpath(heard)) if heard and os.path.isdir(heard) else heard
        if not (speech is None or isinstance(speech, str)):
            heard = f"{heard} {weights_fingerprint((speech.model,), {})}"
        name = f"{name} {weights_fingerprint((model,), {})}"
        self.settings = {"model": f"text: {name}", "speech": heard, "max_new_tokens": max_new_tokens}

    def candidates(self, item: Item) -> list[str]:
        return list(item.options) if self.worded else list(LETTERS[: len(item.options)])

    def check(self, control: Control) -> None:
        if self.speech == "subtitles" and control.edits_file and not control.mute:
            raise ControlError(f"{control.name} edits the video's file, and its subtitles are beside the original.")

    def watch(self, media: Path | Pair, control: Control) -> Watched:
        self.check(control)
        sound = media.sound if isinstance(media, Pair) else media
        fed = {"frames": 0, "audio_seconds": 0.0, "video_seconds": 0.0}
        if self.speech is None or control.no_audio:
            return Watched("", fed)
        if self.speech == "subtitles":
            beside = [sound.with_suffix(suffix) for suffix in (".srt", ".vtt")]
            found = next((path for path in beside if path.is_file()), None)
            text = format_subtitles(read_subtitles(found)) if found is not None and not control.mute else ""
            return Watched(text, fed | {"transcript_words": len(text.split())})
        with self.timed("decode"), open_media(sound) as opened:
            if not opened.has_audio:
                return Watched("", fed | {"transcript_words": 0})
            waveform, _ = opened.audio(sampling_rate=16_000)
        with self.timed("encode"):
            text = self.speech({"raw": waveform.numpy(), "sampling_rate": 16_000})["text"].strip()
        seconds = round(len(waveform) / 16_000, 2)
        return Watched(text, fed | {"audio_seconds": seconds, "transcript_words": len(text.split())})

    def answer(self, asked: Sequence[Asked], progress: tqdm | None = None) -> list[str]:
        answers: list[str] = []
        for first in range(0, len(asked), self.batch_size):
            batch = asked[first : first + self.batch_size]
            answers += self._generate(self._inputs(batch))
            if progress is not None:
                progress.update(len(batch))
        return answers

    def likelihoods(self, asked, candidates, progress=None) -> list[list[Likelihood]]:
        found: list[list[Likelihood]] = []
        for first in range(0, len(asked), self.batch_size):
            batch = slice(first, first + self.batch_size)
            inputs = self._inputs(asked[batch])
            leads = [lead_of(text) for text in self._generate(inputs)] if self.worded else None
            with self.timed("prefill"):
                found += weigh(self.model, self.tokenizer, inputs, candidates[batch], leads)
            if progress is not None:
                progress.update(len(asked[batch]))
        return found

    @torch.no_grad()
    def _generate(self, inputs: dict[str, torch.Tensor]) -> list[str]:
        with self.timed("generate"):
            output = self.model.generate(
                **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1,
                pad_token_id=self.tokenizer.pad_token_id,
            )  # fmt: skip
        said = output[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(said, skip_special_tokens=True)]

    def _inputs(self, asked: Sequence[Asked]) -> dict[str, torch.Tensor]:
        texts = []
        for one in asked:
            said = one.watched.state
            prompt = f"What is said in the video:\n{said}\n\n{one.prompt}" if said else one.prompt
            if self.tokenizer.chat_template:
                chat = [{"role": "user", "content": prompt}]
                prompt = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            texts.append(prompt)
        has_template = self.tokenizer.chat_template is not None
        inputs = self.tokenizer(
            texts, padding=True, padding_side="left", return_tensors="pt", add_special_tokens=not has_template
        )
        return {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
