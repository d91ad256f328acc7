"""Models as benchmarks see them: something that watches a video and then answers questions about it."""

from __future__ import annotations

import inspect
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from tqdm.auto import tqdm
from transformers import StoppingCriteria, StoppingCriteriaList

from ..ask import TimedProcessor, seconds_of
from ..data.prompts import LETTERS
from ..savenvideo.layout import FBANK_FRAMES_PER_PATCH, PATCH_STEP_US
from ..savenvideo.media import open_media
from ..savenvideo.weights import weights_fingerprint
from .benchmarks import Item, Pair
from .controls import Control, ControlError, NotApplicableError
from .parsing import lead_of


PARTS = ("decode", "encode", "prefill", "generate")


class ProtocolError(ValueError):
    """Something is asked of an adapter that its model cannot do."""


@dataclass
class Watched:
    """A video that a model has seen.

    Attributes:
        state: whatever the adapter needs to answer about it.
        fed: what the model was given: "frames", "audio_seconds", "video_seconds".
        frame_times: of the frames it was given, in seconds; empty if they are not known before it answers.
    """

    state: Any
    fed: dict[str, float] = field(default_factory=dict)
    frame_times: Sequence[float] = ()


class Asked(NamedTuple):
    """A question on its way to a model; `item` is for baselines that need no model."""

    watched: Watched
    prompt: str
    item: Item


class Likelihood(NamedTuple):
    """How probable an answer is: the logarithm for all of its tokens together, and how many those are."""

    logprob: float
    tokens: int

    @property
    def per_token(self) -> float:
        return self.logprob / max(self.tokens, 1)


class Adapter(Protocol):
    """What a benchmark needs of a model.

    settings: whatever changes its answers, as JSON: weights, sampling, generation. Runs are compared by it.
    media_at_once: about how many media questions are answered together, and then written together. More than one only
        if that is faster: it is what a run that is killed loses.
    """

    settings: dict[str, Any]
    media_at_once: int

    def watch(self, media: Path | Pair, control: Control) -> Watched:
        """Take in a video once. The file is edited already; times, and what is left out, are the adapter's matter."""

    def answer(self, asked: Sequence[Asked], progress: tqdm | None = None) -> list[str]:
        """Answer questions, also about several videos at once."""


class ModelAdapter:
    """What adapters that run a model share: time spent, and answers as candidates that are weighed.

    Attributes:
        seconds: spent in "decode", "encode", "prefill" (to the first token of a batch) and "generate", so far.
    """

    settings: dict[str, Any]
    media_at_once = 1

    def __init__(self):
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def check(self, control: Control) -> None:
        """Whether the model can be asked under a control; media may still be of a kind that it does not go with.

        Raises:
            ControlError: it cannot.
        """

    def candidates(self, item: Item) -> list[str]:
        """What the model would say for each option of a choice."""
        return list(LETTERS[: len(item.options)])

    def likelihoods(
        self, asked: Sequence[Asked], candidates: Sequence[Sequence[str]], progress: tqdm | None = None
    ) -> list[list[Likelihood]]:
        """How probable each of some answers is, for each question.

        Raises:
            ProtocolError: the model does not tell.
        """
        raise ProtocolError(f"{type(self).__name__} has no log-likelihoods: use the protocol 'generate'.")


class MemoryAdapter(ModelAdapter):
    """SAVEnVideo: each video is decoded and encoded once; questions on several videos are answered in one batch.

    Where a video cannot be encoded ahead of the question (images, sounds, a control that leaves only one of the two,
    a model of question_times="joint", or sampling "query"), each question takes it in anew.

    Args:
        model, processor: as `saven_hf.load` gives them.
        batch_size: questions answered at once.
        max_new_tokens: longest answer, in tokens.
        sampling: `sampling`, `num_frames`, `fps`, `max_frames`, as for the processor.
    """

    media_at_once = 16

    def __init__(self, model, processor, batch_size: int = 64, max_new_tokens: int = 48, **sampling):
        super().__init__()
        self.model, self.processor = model, processor
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.sampling = {name: value for name, value in sampling.items() if value is not None}
        frames = processor.video_processor.settings(**self.sampling)
        self.by_question = frames["sampling"] == "query" or model.model.resampler.joint
        self.settings = {
            "model": weights_fingerprint((model,), model.config.media_settings()),
            "max_new_tokens": max_new_tokens,
            "frames": {name: frames[name] for name in ("sampling", "num_frames", "fps", "max_frames")},
        }
        if frames["preprocessing"] != "whole":
            self.settings["frames"]["preprocessing"] = frames["preprocessing"]

    def candidates(self, item: Item) -> list[str]:
        """The options' own words, which it was trained to answer with; a letter behind them would tell no more."""
        return list(item.options)

    # -- watching -----------------------------------------------------------------------------------------------------

    def check(self, control: Control) -> None:
        if control.retimes and (self.by_question or control.no_video):
            raise ControlError(
                f"{control.name} changes times between decoder and encoder, so it needs videos that are encoded ahead "
                "of the question: it goes neither with 'no-video' nor with sampling 'query' and models of "
                "question_times='joint'."
            )

    def watch(self, media: Path | Pair, control: Control) -> Watched:
        blocks = _blocks(media, control)
        if [kind for kind, _ in blocks] != ["video"] or self.by_question:
            self.check(control)
            if control.retimes:
                raise NotApplicableError(f"{control.name} changes times of videos, and this is {_named(media)}.")
            options = {"use_audio_in_video": False} if control.no_audio else {}
            return Watched(_Blocks(tuple(blocks), options))
        heard = {"use_audio_in_video": False} if control.no_audio else {}
        timed = TimedProcessor(control.processor(self.processor))
        start = time.perf_counter()
        memory = self.model.encode_video(media, timed, **self.sampling, **heard)
        self.seconds["decode"] += timed.seconds
        self.seconds["encode"] += time.perf_counter() - start - timed.seconds
        return Watched(
            memory,
            {
                "frames": memory.num_frames,
                "audio_seconds": round(memory.audio_seconds, 2),
                "video_seconds": memory.duration / 1e6,
            },
            seconds_of(timed.frame_times),
        )

    # -- answering ----------------------------------------------------------------------------------------------------

    def answer(self, asked: Sequence[Asked], progress: tqdm | None = None) -> list[str]:
        answers = [""] * len(asked)
        for batch in self._batches(asked):
            for at, text in zip(batch, self._generate(self._inputs([asked[at] for at in batch])), strict=True):
                answers[at] = text
            if progress is not None:
                progress.update(len(batch))
        return answers

    def likelihoods(self, asked, candidates, progress=None):
        found: list[list[Likelihood]] = [[] for _ in asked]
        for batch in self._batches(asked):
            inputs = self._inputs([asked[at] for at in batch])
            leads = [lead_of(text) for text in self._generate(inputs)]
            with self.timed("prefill"):
                weighed = weigh(self.model, self.processor.tokenizer, inputs, [candidates[at] for at in batch], leads)
            for at, those in zip(batch, weighed, strict=True):
                found[at] = those
            if progress is not None:
                progress.update(len(batch))
        return found

    def _batches(self, asked: Sequence[Asked]) -> Iterator[list[int]]:
        """Prompts of like length share a batch, so that little of it is padding; and so do prompts of like media."""

        def kind(one: Asked) -> tuple:
            state = one.watched.state
            return (tuple(kind for kind, _ in state.blocks), *state.options) if isinstance(state, _Blocks) else ()

        lengths = [
            getattr(one.watched.state, "num_tokens", 0) + len(self.processor.tokenizer(one.prompt).input_ids)
            for one in asked
        ]
        order = sorted(range(len(asked)), key=lambda at: (kind(asked[at]), lengths[at], at))
        first = 0
        while first < len(order):
            of = kind(asked[order[first]])
            alike = [at for at in order[first : first + self.batch_size] if kind(asked[at]) == of]
            yield alike
            first += len(alike)

    def _inputs(self, asked: list[Asked]) -> dict[str, Any]:
        states = [one.watched.state for one in asked]
        if isinstance(states[0], _Blocks):
            return self._read_inputs(asked)
        chats = [
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": one.prompt}]}] for one in asked
        ]
        texts = self.processor.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
        inputs = self.processor(
            text=texts, videos=[[state] for state in states], padding=True, padding_side="left", return_tensors="pt"
        )
        return dict(inputs.to(self.model.device))

    def _read_inputs(self, asked: list[Asked]) -> dict[str, Any]:
        """Inputs whose media are decoded now."""
        options = {"padding": True, "padding_side": "left"}
        blocks = asked[0].watched.state
        if any(kind == "video" for kind, _ in blocks.blocks):
            options["videos_kwargs"] = self.sampling | blocks.options
        chats = []
        for one in asked:
            media = [{"type": kind, kind: path} for kind, path in one.watched.state.blocks]
            chats.append([{"role": "user", "content": [*media, {"type": "text", "text": one.prompt}]}])
        with self.timed("decode"):
            inputs = self.processor.apply_chat_template(
                chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
                processor_kwargs=options,
            )  # fmt: skip
        for at, one in enumerate(asked):
            _note_fed(one.watched, inputs, at, len(blocks.blocks))
        return dict(inputs.to(self.model.device))

    @torch.no_grad()
    def _generate(self, inputs: dict[str, Any]) -> list[str]:
        watch = FirstToken()
        start = time.perf_counter()
        output = self.model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1,
            stopping_criteria=StoppingCriteriaList([watch]),
        )  # fmt: skip
        end = time.perf_counter()
        self.seconds["prefill"] += (watch.at or end) - start
        self.seconds["generate"] += end - (watch.at or end)
        answers = output[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.batch_decode(answers, skip_special_tokens=True)]


@dataclass(frozen=True)
class _Blocks:
    """Media that are decoded with the question: (kind, path), and the processor's options for videos."""

    blocks: tuple[tuple[str, str], ...]
    options: dict[str, Any] = field(default_factory=dict)


def _named(media: Path | Pair) -> str:
    return "an image and a sound" if isinstance(media, Pair) else media.name


def _blocks(media: Path | Pair, control: Control) -> list[tuple[str, str]]:
    """Blocks of a chat that show what a control leaves of a medium."""
    if isinstance(media, Pair):
        blocks = [("image", str(media.image)), ("audio", str(media.sound))]
    else:
        with open_media(media) as opened:
            kind, has_audio = opened.kind, opened.has_audio
        blocks = [(kind, str(media))]
        if kind == "video" and control.no_video:
            blocks = [("audio", str(media))] if has_audio else []
    unwanted = {"audio"} if control.no_audio else set()
    unwanted |= {"image", "video"} if control.no_video else set()
    return [block for block in blocks if block[0] not in unwanted]


def _note_fed(watched: Watched, inputs: dict[str, torch.Tensor], at: int, media: int) -> None:
    """What one question of a batch was given, read off the tensors that the processor made."""
    rows = slice(at * media, (at + 1) * media)
    frames = inputs["frame_mask"][rows].sum().item() if media and "frame_mask" in inputs else 0
    heard = inputs["input_features_mask"][rows].sum().item() if media and "input_features_mask" in inputs else 0
    durations = inputs["video_durations"][rows].sum().item() if media and "video_durations" in inputs else 0
    watched.fed.update(
        frames=int(frames),
        audio_seconds=round(heard // FBANK_FRAMES_PER_PATCH * PATCH_STEP_US / 1e6, 2),
        video_seconds=durations / 1e6,
    )


class FirstToken(StoppingCriteria):
    """Notes when the first token of a batch was there, and stops nothing."""

    def __init__(self):
        self.at: float | None = None

    def __call__(self, input_ids, scores, **kwargs):
        if self.at is None:
            self.at = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@torch.no_grad()
def weigh(
    model, tokenizer, inputs: dict[str, Any], candidates: Sequence[Sequence[str]], leads: Sequence[str] | None = None
) -> list[list[Likelihood]]:
    """Log-likelihoods of candidate answers behind prompts that are padded on the left.

    Where every candidate is one token, as letters are, one pass over the prompts is enough; else there is one for each
    candidate, since not every model of today takes its cache up again with new tokens.

    Args:
        inputs: of the model, with `input_ids` and `attention_mask` `(batch, seq)`.
        candidates: for each prompt; as many for one as for another, or fewer.
        leads: words between each prompt and its candidates, which are not weighed, see `lead_of`.
    """
    leads = [""] * len(candidates) if leads is None else leads
    words = [[_behind(tokenizer, lead, text) for text in some] for lead, some in zip(leads, candidates, strict=True)]
    if all(len(tokens) == 1 for some in words for tokens, _ in some):
        logprobs = _last_logprobs(model, inputs, 1)[:, 0]
        return [[Likelihood(logprobs[row, one[0]].item(), 1) for one, _ in some] for row, some in enumerate(words)]
    found: list[list[Likelihood]] = [[] for _ in words]
    for number in range(max(map(len, words))):
        chosen = [some[number] if number < len(some) else some[0] for some in words]
        longest = max(len(tokens) for tokens, _ in chosen)
        extended = _extended(inputs, [tokens for tokens, _ in chosen], longest)
        logits = _last_logprobs(model, extended, longest + 1)
        for row, (some, (tokens, first)) in enumerate(zip(words, chosen, strict=True)):
            if number < len(some):
                picked = logits[row, torch.arange(first, len(tokens)), torch.tensor(tokens[first:])]
                found[row].append(Likelihood(picked.sum().item(), len(picked)))
    if not all(math.isfinite(one.logprob) for some in found for one in some):
        raise ProtocolError("A log-likelihood is not finite: the model overflows in this precision.")
    return found


def _behind(tokenizer, lead: str, candidate: str) -> tuple[list[int], int]:
    """Tokens of a lead and a candidate, and at which of them the candidate begins: one of both is the candidate's."""
    before, tokens = (tokenizer(text, add_special_tokens=False).input_ids for text in (lead, lead + candidate))
    first = len(os.path.commonprefix([before, tokens]))
    if first == len(tokens):
        raise ProtocolError(f"The candidate answer {candidate!r} has no tokens.")
    return tokens, first


def _last_logprobs(model, inputs: dict[str, Any], keep: int) -> torch.Tensor:
    """`(batch, keep, vocabulary)` at the last `keep` positions; a model that can computes no others."""
    less = {"logits_to_keep": keep} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    return model(**inputs, use_cache=False, **less).logits[:, -keep:].float().log_softmax(-1)


def _extended(inputs: dict[str, Any], tokens: list[list[int]], longest: int) -> dict[str, Any]:
    """Inputs with an answer behind each prompt, padded on the right."""
    device = inputs["input_ids"].device
    added = torch.zeros(len(tokens), longest, dtype=torch.long)
    mask = torch.zeros(len(tokens), longest, dtype=torch.long)
    for row, those in enumerate(tokens):
        added[row, : len(those)], mask[row, : len(those)] = torch.tensor(those), 1
    extended = dict(inputs)
    for name, values in (("input_ids", added), ("attention_mask", mask)):
        extended[name] = torch.cat([inputs[name], values.to(device, inputs[name].dtype)], dim=1)
    for name in ("token_type_ids", "mm_token_type_ids"):  # zero is text
        if name in inputs:
            extended[name] = torch.cat([inputs[name], torch.zeros_like(added).to(device, inputs[name].dtype)], dim=1)
    return extended
