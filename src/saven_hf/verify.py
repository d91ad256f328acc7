"""`saven verify`: whether a model folder is whole and the model in it makes sense, before anything rests on it.

First what can be told without loading it: files, names, shapes and values of the weights, and whether processor and
model agree. Then what it does: the same answer twice, alone and in a batch; another picture and another sound make
another answer; and golden questions, whose answers are known. They are asked about videos that are rendered here, and
read back from their files as any others. How many must be right is our decision.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from .ask import VideoSession
from .data.prompts import multiple_choice_prompt
from .evaluation.parsing import parse_choice
from .evaluation.world import WorldBenchmark
from .hub import ModelNotFoundError, load, model_type, resolve_model
from .peers.checkpoint import CheckpointError, check_fit, read_folder
from .savenvideo import SAVEnVideoConfig, SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor
from .savenvideo.layout import TokenLayout
from .world import Layout, Picture, Scene, Sound, write_video
from .world.vocabulary import PictureKind, SoundKind


# A language model of fewer words has learnt the world and nothing else.
GENERAL_VOCABULARY = 20_000
# The first scenes of a held-out split with at most four segments: whether a model works shows best where it is easy.
WORLD_SPLIT, WORLD_SEEDS = "iid", (1, 7, 14, 23, 27, 38, 77, 80)
# Models that have not seen the videos pass once in a hundred at most.
LUCK = 0.01
HEIGHT, WIDTH = 192, 256


class GoldenError(ValueError):
    """A file of golden questions that is malformed; the message names the line."""


@dataclass(frozen=True)
class GoldenQuestion:
    """A question with a known answer.

    Args:
        question: as it is asked.
        answers: words of which the answer must hold one, and none of `wrong`.
        video: path of its video; None for the rendered one.
        about: "video", or "text" for a question without a medium.
    """

    question: str
    answers: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    video: str | None = None
    about: str = "video"

    def right(self, answer: str) -> bool:
        words = "".join(letter if letter.isalnum() else " " for letter in answer.casefold()).split()
        text = f" {' '.join(words)} "

        def holds(phrases: tuple[str, ...]) -> bool:
            return any(f" {phrase.casefold()} " in text for phrase in phrases)

        return holds(self.answers) and not holds(self.wrong)


# About the rendered video: a red circle, then a blue square, each with a tone.
GOLDEN = (
    GoldenQuestion("What colour is the circle in this video? Answer with one word.", ("red",), ("blue", "green")),
    GoldenQuestion("What colour is the square in this video? Answer with one word.", ("blue",), ("red", "green")),
    GoldenQuestion("Which shape is red in this video? Answer with one word.", ("circle",), ("square", "triangle")),
    GoldenQuestion("What is two plus three? Answer with one number.", ("5", "five"), about="text"),
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `passed` is None where it does not apply."""

    name: str
    passed: bool | None
    detail: str

    def __str__(self) -> str:
        return f"{ {True: 'pass', False: 'FAIL', None: 'skip'}[self.passed] }  {self.name}: {self.detail}"


@dataclass
class Verification:
    """All checks of a model; `passed` if none failed."""

    model: str
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return all(check.passed is not False for check in self.checks)

    def to_dict(self) -> dict:
        return {"model": self.model, "passed": self.passed, "checks": [vars(check) for check in self.checks]}


def verify(
    model: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    questions: str | os.PathLike | None = None,
    weights_only: bool = False,
    on_check: Callable[[Check], None] = lambda check: None,
) -> Verification:
    """Check a converted, trained or downloaded SAVEnVideo model.

    Args:
        model: folder or Hub id; None for the embedded tiny model.
        device: where it runs, as for `load`.
        questions: JSONL of golden questions in place of the built-in ones: objects with `question`, `answer` (a text
            or a list of them), and if it is about a video its path, relative to the file, as `video`.
        weights_only: stop before the model is loaded.
        on_check: called with each check as soon as it is done.

    Returns:
        `Verification`. Later checks are left out where an earlier failure makes them meaningless.

    Raises:
        ModelNotFoundError: there is no such model, or it is of another type.
        FileNotFoundError, GoldenError: the question file is not there, or malformed.
    """
    name = resolve_model(model)
    found = model_type(name)
    if found != "savenvideo":
        raise ModelNotFoundError(f"{name!r} is a model of type {found!r}; this verifies 'savenvideo' models.")
    golden = None if questions is None else read_golden(questions)
    result = Verification(name)

    def note(check: Check) -> bool:
        result.checks.append(check)
        on_check(check)
        return check.passed is not False

    whole = all([note(check) for check in _on_disk(name)])
    if weights_only or not whole:
        return result
    start = time.perf_counter()
    loaded = load(name, device)
    note(Check("loading", True, f"{time.perf_counter() - start:.1f} s on {loaded[0].device.type}"))
    for check in _in_use(loaded, golden):
        note(check)
    return result


def read_golden(path: str | os.PathLike) -> list[GoldenQuestion]:
    """Golden questions from a JSONL file; see `verify`."""
    path = Path(path)
    questions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            answers = [row["answer"]] if isinstance(row["answer"], str) else list(row["answer"])
            video = row.get("video")
            questions.append(
                GoldenQuestion(
                    row["question"],
                    tuple(map(str, answers)),
                    video=None if video is None else str(path.parent / video),
                    about="text" if video is None else "video",
                )
            )
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise GoldenError(
                f"{path}:{number}: no golden question ({error}): each line is an object with 'question' and 'answer'."
            ) from None
    if not questions:
        raise GoldenError(f"{path} holds no golden questions.")
    return questions


# ------------------------------------------------------------------------------------------------------------ on disk


def _on_disk(name: str) -> Iterator[Check]:
    try:
        config = SAVEnVideoConfig.from_pretrained(name)
        with torch.device("meta"):
            skeleton = SAVEnVideoForConditionalGeneration(config)
    except Exception as error:  # strict configs wrap what their fields refuse
        yield Check("config", False, " ".join(str(error).split()))
        return
    expected = {key: tensor.shape for key, tensor in skeleton.state_dict().items()}
    yield Check("config", True, f"{skeleton.num_parameters() / 1e6:.1f} M parameters in {len(expected)} tensors")

    folder = name if os.path.isdir(name) else _downloaded(name)
    tied = ("lm_head.weight",) if config.text_config.tie_word_embeddings else ()
    yield from _weights_checks(folder, expected, tied)
    yield _processor_check(name, config)


def _weights_checks(folder: str, expected: dict[str, torch.Size], tied: tuple[str, ...]) -> Iterator[Check]:
    try:
        tensors = read_folder(folder)
    except CheckpointError as error:
        yield Check("files", False, str(error))
        return
    size = sum(tensor.nbytes for tensor in tensors.values())
    yield Check("files", True, f"{size / 1e9:.2f} GB, no file cut short or missing")
    start = time.perf_counter()
    try:
        check_fit(tensors, expected, "the model of config.json", optional=tied)
        fits, detail = True, f"all fit and are finite ({time.perf_counter() - start:.1f} s)"
    except CheckpointError as error:
        fits, detail = False, str(error)
    yield Check("names, shapes, values", fits, detail)


def _downloaded(name: str) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(name, allow_patterns=["*.json", "*.safetensors"])


def _processor_check(name: str, config: SAVEnVideoConfig) -> Check:
    try:
        processor = SAVEnVideoProcessor.from_pretrained(name)
        size = processor.video_processor.size
        side = config.vision_config.image_size
        kinds = ("video", "image", "audio")
        text = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "?"}]}]
        )
    except Exception as error:
        return Check("processor", False, " ".join(f"{type(error).__name__}: {error}".split()))
    wrong = [kind for kind in kinds if getattr(processor, f"{kind}_token_id") != getattr(config, f"{kind}_token_id")]
    problem = None
    if processor.token_layout != TokenLayout.from_config(config):
        problem = "its layout is not the model's, so that prompts would have the wrong number of tokens"
    elif wrong:
        problem = f"its placeholder of {wrong[0]} is another token than the model's"
    elif len(processor.tokenizer) > config.text_config.vocab_size:
        problem = (
            f"its tokenizer has {len(processor.tokenizer)} tokens, the model {config.text_config.vocab_size} rows"
        )
    elif (size["height"], size["width"]) != (side, side):
        problem = f"it makes frames of {size['height']} x {size['width']}, the model sees {side} x {side}"
    elif processor.video_token not in text:
        problem = "its chat template leaves the video out"
    return Check("processor", problem is None, problem or "it fits the model")


# ------------------------------------------------------------------------------------------------------------- in use


def _in_use(loaded: tuple, golden: list[GoldenQuestion] | None) -> Iterator[Check]:
    model, processor = loaded
    with tempfile.TemporaryDirectory() as scratch:
        video, other = Path(scratch, "golden.mp4"), Path(scratch, "other.mp4")
        write_video(_scene(("red", "circle"), ("blue", "square"), ("low", "high")), video, (HEIGHT, WIDTH))
        write_video(_scene(("green", "triangle"), ("yellow", "square"), ("high", "mid")), other, (HEIGHT, WIDTH))
        yield from _behaviour(model, processor, video, other)
        if golden is None and model.config.text_config.vocab_size < GENERAL_VOCABULARY:
            yield _world_questions(model, processor, scratch)
        else:
            yield _golden_questions(model, processor, golden or list(GOLDEN), video, required_all=golden is not None)


def _scene(first: tuple[str, str], second: tuple[str, str], tones: tuple[str, str]) -> Scene:
    half = 4_000_000
    spans = ((0, half), (half, 2 * half))
    return Scene(
        seed=0,
        split="train",
        layout=Layout("distinct"),
        duration=2 * half,
        pictures=tuple(
            Picture(*span, PictureKind(*kind), background="grey")
            for span, kind in zip(spans, (first, second), strict=True)
        ),
        sounds=tuple(Sound(*span, SoundKind("tone", tone)) for span, tone in zip(spans, tones, strict=True)),
        fades=(0,),
        frame_rate=10,
    )


def _behaviour(model, processor, video: Path, other: Path) -> Iterator[Check]:
    """That the answer depends on what it should depend on, and on nothing else."""

    def inputs(*videos: Path, **settings):
        conversations = [
            [
                {
                    "role": "user",
                    "content": [{"type": "video", "video": str(one)}, {"type": "text", "text": "What is it?"}],
                }
            ]
            for one in videos
        ]
        batch = processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "videos_kwargs": settings},
        )
        return batch.to(model.device)

    def last_logits(batch) -> torch.Tensor:
        with torch.no_grad():
            return model(**batch, logits_to_keep=1).logits[:, -1].float()

    one = inputs(video)
    alone, elsewhere = last_logits(one), last_logits(inputs(other))
    if not torch.isfinite(alone).all():
        yield Check("numbers", False, f"the logits are not finite in {model.dtype}: try another dtype or device")
        return
    spread = alone.std().item()
    again, together = last_logits(one), last_logits(inputs(video, other))
    # A batch is computed by other kernels; what they round is small beside what the logits say.
    drift = max((together[0] - alone[0]).abs().max().item(), (together[1] - elsewhere[0]).abs().max().item()) / spread
    limit = 0.25 if model.dtype in (torch.bfloat16, torch.float16) else 1e-3
    steady = torch.equal(alone, again) and drift < limit
    yield Check("the same answer", steady, f"twice, and alone or in a batch (moves by {drift:.1e} of its spread)")

    def counts(name: str, other: torch.Tensor, what: str) -> Check:
        moved = (other - alone).abs().max().item() / spread
        return Check(f"the {name} counts", moved > 10 * drift and moved > 1e-4, f"{what} moves it by {moved:.1e}")

    yield counts("picture", elsewhere, "another video")
    if model.config.has_audio_tower:
        yield counts("sound", last_logits(inputs(video, use_audio_in_video=False)), "leaving it out")
    else:
        yield Check("the sound counts", None, "this model has no audio tower")


def _golden_questions(model, processor, golden: list[GoldenQuestion], video: Path, required_all: bool) -> Check:
    sessions: dict[str, VideoSession] = {}
    wrong = []
    for question in golden:
        if question.about == "text":
            answer = _ask_text(model, processor, question.question)
        else:
            path = question.video or str(video)
            if path not in sessions:
                sessions[path] = VideoSession(path, model, processor)
            answer = sessions[path].ask(question.question, max_new_tokens=32).answer
        if not question.right(answer):
            wrong.append(f"{question.question!r} got {answer[:60]!r}, not {question.answers[0]!r}")
    right, needed = len(golden) - len(wrong), len(golden) if required_all else len(golden) - 1
    detail = f"{right} of {len(golden)} right, {needed} needed" + "".join(f"; {one}" for one in wrong)
    return Check("golden questions", right >= needed, detail)


def _ask_text(model, processor, question: str) -> str:
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": question}]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device)
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=32, do_sample=False)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def _world_questions(model, processor, scratch: str) -> Check:
    """Multiple choice about unseen scenes of the world, nine questions each and judged together."""
    right, chances = 0, []
    for seed in WORLD_SEEDS:
        world = WorldBenchmark(WORLD_SPLIT, 1, scratch, seed, forms=("choice",))
        (video,) = world.video_ids
        session = VideoSession(world.media(video), model, processor)
        for item in world.items(video):
            answer = session.ask(multiple_choice_prompt(item.question, item.options), max_new_tokens=48).answer
            right += parse_choice(answer, item.options).letter == item.answer
            chances.append(item.chance["text"])
    needed = beyond_luck(chances)
    return Check(
        "golden questions",
        right >= needed,
        f"{right} of {len(chances)} about the world right, {needed} needed (a guess: {sum(chances):.1f})",
    )


def beyond_luck(chances: Sequence[float], luck: float = LUCK) -> int:
    """The smallest number of right answers that guessing reaches with a probability of at most `luck`.

    Args:
        chances: of the best guess to be right, of each question; they are guessed independently.
    """
    exactly = np.ones(1)  # probability of each number of right guesses
    for chance in chances:
        exactly = np.convolve(exactly, [1 - chance, chance])
    at_least = np.cumsum(exactly[::-1])[::-1]
    return int(np.argmax(np.append(at_least, 0.0) <= luck))
