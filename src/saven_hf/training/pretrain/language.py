"""Pretraining of a tiny language model on the world's language, before it ever meets a picture or a sound.

A language model of a few million parameters has to learn two things: to speak, and to look things up in what stands
before it (in-context retrieval), which is what takes long. Both are learnt here on *timelines*: what a scene holds at
evenly spaced moments, one vector a moment, from the words of its attributes and the sinusoids of the times at which
the events of that moment begin and end. How these vectors are made is thrown away afterwards; a resampler then learns
to say in the same way what it saw and heard. Our decision: the paper starts from a language model that reads already.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from ...savenvideo.configuration_savenvideo import CLOCK_PERIODS
from ...savenvideo.times import parse_times
from ...world.conversations import make_conversation, shift_times
from ...world.scenes import Scene
from ...world.splits import sample_scene
from ...world.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    GLIDES,
    LOUDNESSES,
    MAX_COPIES,
    MAX_PULSES,
    MOTIONS,
    NUMBER_WORDS,
    PITCHES,
    PLACES,
    SHAPES,
    SILENCE,
    TIMBRES,
)
from .loop import CHECKPOINT, config_settings, fit


PLACEHOLDER, TIMELINE = "<|video|>", "timeline.safetensors"
IGNORED = -100  # label of a token that is not asked for
POOLED_BATCHES = 8  # drawn at once, and sorted by length


# What a moment holds, in the order of its columns: six attributes of the picture, five of the sound.
PICTURE_ATTRIBUTES = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "copies": tuple(range(1, MAX_COPIES + 1)),
    "motion": tuple(MOTIONS),
    "place": tuple(PLACES),
    "background": BACKGROUNDS,
}
SOUND_ATTRIBUTES = {
    "timbre": (*TIMBRES, SILENCE),
    "pitch": (*PITCHES, ""),
    "glide": tuple(GLIDES),
    "pulses": tuple(range(MAX_PULSES + 1)),
    "loudness": tuple(LOUDNESSES),
}
ATTRIBUTES = {**PICTURE_ATTRIBUTES, **SOUND_ATTRIBUTES}
NOTHING = 0  # row of the table: no picture, or no sound, or an attribute that was not noticed
_OFFSETS = np.cumsum([1, *(len(values) for values in ATTRIBUTES.values())])
TABLE_ROWS = int(_OFFSETS[-1])
_ROWS = [
    {value: int(offset) + at for at, value in enumerate(values)}
    for offset, values in zip(_OFFSETS, ATTRIBUTES.values(), strict=False)
]


@dataclass
class Timeline:
    """A scene at some moments. rows: `(n, 11)` int64, of the table; times: `(n, 4)` int64 microseconds: start and end
    of the picture, start and end of the sound; asked: `(n,)` bool, whether the moment is a time of the question."""

    rows: np.ndarray
    times: np.ndarray
    asked: np.ndarray


def _events(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows and times of all pictures, then of all sounds."""
    pictures = np.array(
        [
            [
                table[value]
                for table, value in zip(
                    _ROWS, (one.kind.colour, one.kind.shape, one.copies, one.motion, one.place, one.background),
                    strict=False,
                )
            ]
            for one in scene.pictures
        ]
    )  # fmt: skip
    sounds = np.array(
        [
            [
                table[value]
                for table, value in zip(
                    _ROWS[6:], (one.kind.timbre, one.kind.pitch, one.glide, one.pulses, one.loudness), strict=True
                )
            ]
            for one in scene.sounds
        ]
    )
    picture_times = np.array([(one.start, one.end) for one in scene.pictures])
    sound_times = np.array([(one.start, one.end) for one in scene.sounds])
    return pictures, picture_times, sounds, sound_times


def moments_of(scene: Scene, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a scene holds at `moments (n,)` microseconds: rows `(n, 11)` and times `(n, 4)`, as in a `Timeline`.

    Before its first event it is what begins there, after its last one what has ended.
    """
    pictures, picture_times, sounds, sound_times = _events(scene)
    rows = np.zeros((len(moments), len(ATTRIBUTES)), dtype=np.int64)
    times = np.zeros((len(moments), 4), dtype=np.int64)
    for events, spans, columns, dates in (
        (pictures, picture_times, slice(0, 6), slice(0, 2)),
        (sounds, sound_times, slice(6, 11), slice(2, 4)),
    ):
        at = np.clip(np.searchsorted(spans[:, 0], moments, side="right") - 1, 0, len(spans) - 1)
        rows[:, columns] = events[at]
        times[:, dates] = spans[at]
    return rows, times


def draw_timeline(
    scene: Scene,
    asked: list[int],
    rng: np.random.Generator,
    window_seconds: float = 30.0,
    spacing: tuple[float, float] = (0.3, 0.65),
    forget: float = 0.03,
    blur: float = 50_000.0,
) -> Timeline:
    """A scene as a resampler might tell it: evenly spaced moments of each window, then the times that are asked for.

    Args:
        spacing: least and most seconds between two moments; drawn once a scene.
        asked: times of the question, in microseconds.
        forget: probability that an attribute of a moment is missing, here and for each moment alone.
        blur: standard deviation of each time told, and of the moment looked at, in microseconds.
    """
    windows = max(1, math.ceil(scene.duration / (window_seconds * 1e6)))
    window_queries = math.ceil(scene.duration / windows / (rng.uniform(*spacing) * 1e6))
    count = windows * window_queries
    anchors = (np.arange(count) + 0.5) * scene.duration / count
    moments = np.concatenate([anchors, np.array(asked, dtype=float)])
    rows, times = moments_of(scene, moments + rng.normal(0, blur, len(moments)))
    # A window ends what it cannot see beyond.
    edges = np.arange(windows + 1) * scene.duration / windows
    of_window = np.repeat(np.arange(windows), window_queries)
    low, high = edges[of_window][:, None], edges[of_window + 1][:, None]
    times[:count] = np.clip(times[:count], low, high)
    rows[:count][rng.random((count, len(ATTRIBUTES))) < forget] = NOTHING
    if asked:
        # What is there at a time in question is not always told: a boundary is between two things.
        rows[count:][rng.random(len(asked)) < 0.2] = NOTHING
        times[count:] = np.array(asked)[:, None]
    times = times + rng.normal(0, blur / 2, times.shape).astype(np.int64)
    return Timeline(rows, times, np.arange(len(moments)) >= count)


def _words(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokens of the word for each row of the table; none for `NOTHING`."""
    words = [
        NUMBER_WORDS[value] if isinstance(value, int) else value for values in ATTRIBUTES.values() for value in values
    ]
    return [[], *tokenizer([f" {word}" if word else "" for word in words], add_special_tokens=False).input_ids]


class TimelineEmbedding(nn.Module):
    """Moments as vectors of the language model's width: attribute values, and sinusoids of the four times.

    A value is the language model's own embedding of its word, and a vector of its own beside it. So what is asked for
    and what is there look alike from the first step on: to find a thing by its name takes a copy, and no dictionary.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, hidden_size: int, time_periods: list[float]):
        super().__init__()
        words = _words(tokenizer)
        self.tokens = [token for word in words for token in word]
        self.offsets = np.cumsum([0, *map(len, words[:-1])]).tolist()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.table = nn.Embedding(TABLE_ROWS, hidden_size, padding_idx=NOTHING)
        self.periods = [round(period * 1e6) for period in time_periods]
        self.time_projection = nn.Linear(8 * len(self.periods), hidden_size)
        self.asked = nn.Parameter(torch.zeros(hidden_size))
        nn.init.normal_(self.table.weight, std=0.05)
        with torch.no_grad():
            self.table.weight[NOTHING] = 0

    def forward(
        self, rows: torch.Tensor, times: torch.Tensor, asked: torch.Tensor, word_embeddings: torch.Tensor
    ) -> torch.Tensor:
        """rows `(n, 11)`, times `(n, 4)` int64 microseconds, asked `(n,)`, word_embeddings `(vocabulary, hidden)` ->
        `(n, hidden)`."""
        periods = torch.tensor(self.periods)
        phase = torch.remainder(times[..., None], periods).to(torch.float32) / periods * (2 * torch.pi)
        features = torch.cat([phase.sin(), phase.cos()], -1).flatten(-2)
        # Rows without words are zeros.
        words = F.embedding_bag(torch.tensor(self.tokens), word_embeddings, torch.tensor(self.offsets), mode="mean")
        values = F.embedding(rows, self.table.weight + self.scale * words).sum(-2)
        return values + self.time_projection(features) + asked[:, None] * self.asked


def tiny_language_config(tokenizer: PreTrainedTokenizerBase, **settings) -> Qwen2Config:
    return Qwen2Config(
        **{
            "vocab_size": -(-len(tokenizer) // 8) * 8,
            "hidden_size": 192,
            "intermediate_size": 512,
            # Depth before width: a look-up of a look-up takes a layer for every step.
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            # On a CPU, and for so few tokens, twice as fast as sdpa in bfloat16.
            "attn_implementation": "eager",
            **settings,
        }
    )


@dataclass(frozen=True)
class Course:
    """One part of the curriculum.

    Attributes:
        share: of all steps, up to the end of this part.
        segments: fewest and most of a scene.
        kinds: of turns, see `make_conversation`.
        shift: the clock of half of the scenes starts up to so many seconds later, and with it every time in the text.
    """

    share: float
    segments: tuple[int, int]
    kinds: Mapping[str, float]
    shift: float


SPEAKING = {"captions": 2.0, "visual_captions": 1.0, "audio_captions": 1.0, "span_caption": 1.0, "open": 2.0}
ASKING = {
    **{"choice": 4.0, "open": 4.0, "span_caption": 0.7},
    **{"captions": 0.3, "visual_captions": 0.15, "audio_captions": 0.15},
}
RANGES = {"range": 6.0, "open": 1.0, "choice": 1.0}
ALL = {**ASKING, "range": 2.0}
# Looking something up among two segments is learnt in minutes, among ten from scratch in hours if at all. When a thing
# is there is learnt last, and among all else not at all: so it is asked for a while and little else is.
CURRICULUM = (
    Course(0.03, (2, 2), SPEAKING, 0.0),
    Course(0.34, (2, 2), ASKING, 0.0),
    Course(0.3529, (2, 3), ASKING, 20.0),
    Course(0.62, (2, 2), RANGES, 0.0),
    Course(0.70, (2, 4), ALL, 100.0),
    Course(0.82, (2, 6), ALL, 300.0),
    Course(1.00, (2, 10), ALL, 300.0),
)


@dataclass
class Sample:
    """A conversation as numbers: ids, labels (-100 where nothing is asked) and weights of its tokens, its timeline."""

    ids: list[int]
    labels: list[int]
    weights: list[float]
    timeline: Timeline


class SampleDrawer:
    """Draws samples by number: the same number always gives the same sample. Scenes are those of the split `train`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, turns: int = 5):
        self.tokenizer, self.turns = tokenizer, turns
        self.placeholder = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        # ChatML as the model's chat template writes it.
        self.user, self.end, self.assistant = self._encode(
            ["<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n"]
        )

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False).input_ids

    def draw(self, number: int, course: Course) -> Sample:
        rng = np.random.default_rng([number, zlib.crc32(b"pretrain language")])
        scene = sample_scene(number, segments=course.segments)
        # A third of the conversations are a single turn, as a user's first question is.
        count = 1 if rng.random() < 1 / 3 else int(rng.integers(1, self.turns + 1))
        turns, attempt = [], 0
        while not turns:
            turns = make_conversation(scene, course.kinds, turns=count, round=attempt)
            attempt += 1
        asked = list(dict.fromkeys(time for turn in turns for time in parse_times(turn.user)))
        timeline = draw_timeline(scene, asked or [0, scene.duration], rng)
        shift = int(rng.integers(0, round(course.shift * 10) + 1)) * 100_000 if rng.random() < 0.5 else 0
        timeline.times += shift
        texts = [shift_times(text, shift) for turn in turns for text in (turn.user, turn.assistant)]
        encoded = self._encode(texts)
        sample = Sample([], [], [], timeline)
        for at, (turn, user, answer) in enumerate(zip(turns, encoded[::2], encoded[1::2], strict=True)):
            media = [self.placeholder] * len(timeline.rows) if at == 0 else []
            prompt = [*self.user, *media, *user, *self.end, *self.assistant]
            answer = answer + self.end
            sample.ids += prompt + answer
            sample.labels += [IGNORED] * len(prompt) + answer
            # Answers weigh the same whatever their length; captions a little more, for they hold many answers.
            weight = len(answer) ** (-0.5 if "caption" in turn.kind else -1.0)
            sample.weights += [0.0] * len(prompt) + [weight] * len(answer)
        return sample


class TimelineReader(nn.Module):
    """The language model with the table it reads from, as long as it is pretrained."""

    def __init__(
        self, language_model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, time_periods: list[float]
    ):
        super().__init__()
        self.language_model, self.placeholder = language_model, tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        self.timeline = TimelineEmbedding(tokenizer, language_model.config.hidden_size, time_periods)

    def forward(self, samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted cross-entropy `()` and which supervised tokens are right `(n,)`."""
        pad = self.language_model.config.pad_token_id
        ids, labels, weights = (
            pad_sequence([torch.tensor(getattr(one, name)) for one in samples], batch_first=True, padding_value=value)
            for name, value in (("ids", pad), ("labels", IGNORED), ("weights", 0.0))
        )
        rows, times, asked = (
            torch.from_numpy(np.concatenate([getattr(one.timeline, name) for one in samples]))
            for name in ("rows", "times", "asked")
        )
        table = self.language_model.get_input_embeddings()
        embeds = table(ids)
        moments = self.timeline(rows, times, asked, table.weight).to(embeds.dtype)
        embeds = embeds.masked_scatter((ids == self.placeholder)[..., None], moments)
        states = self.language_model.model(inputs_embeds=embeds, attention_mask=(ids != pad).long()).last_hidden_state
        asked_for = labels[:, 1:] != IGNORED
        targets, weights = labels[:, 1:][asked_for], weights[:, 1:][asked_for]
        logits = self.language_model.lm_head(states[:, :-1][asked_for]).float()
        losses = F.cross_entropy(logits, targets, reduction="none")
        return (losses * weights).sum() / weights.sum(), logits.argmax(-1) == targets


def pretrain_language(
    output_dir: str | os.PathLike,
    tokenizer: PreTrainedTokenizerBase,
    *,
    steps: int = 3400,
    batch_size: int = 16,
    learning_rate: float = 4e-3,
    seed: int = 0,
    config: Qwen2Config | None = None,
    time_periods: list[float] | tuple[float, ...] = CLOCK_PERIODS,
    stop_after: int | None = None,
    progress: bool = True,
) -> Path:
    """Pretrain a tiny Qwen2 on timelines of the world's training scenes; goes on where a killed run stopped.

    Args:
        output_dir: gets the language model, as `from_pretrained` loads it, `timeline.safetensors`, how its moments
            are made, and `losses.jsonl`.
        tokenizer: with the placeholder `<|video|>` among its tokens (see `train_tokenizer`).
        steps, batch_size: optimizer steps and conversations a step.
        config: of the language model; `tiny_language_config` if None.
        time_periods: of the sinusoids of time, as the model has them that will speak through this language model.
        stop_after: leave after this many steps, with a checkpoint.

    Returns:
        The folder, once training is complete.
    """
    torch.manual_seed(seed)
    config = config or tiny_language_config(tokenizer)
    drawer = SampleDrawer(tokenizer)
    reader = TimelineReader(Qwen2ForCausalLM(config), tokenizer, list(time_periods))
    first = seed * 2**27
    pool: dict[int, list[list[Sample]]] = {}

    def batch_of(step: int) -> list[Sample]:
        chunk = step // POOLED_BATCHES
        if chunk not in pool:
            pool.clear()
            course = next(one for one in CURRICULUM if chunk * POOLED_BATCHES < one.share * steps)
            size = POOLED_BATCHES * batch_size
            drawn = [drawer.draw(first + number, course) for number in range(chunk * size, (chunk + 1) * size)]
            # Conversations of a length go together: padding costs as much as tokens do. Batches in random order.
            drawn.sort(key=lambda sample: len(sample.ids))
            order = np.random.default_rng([seed, chunk]).permutation(POOLED_BATCHES)
            pool[chunk] = [drawn[at * batch_size : (at + 1) * batch_size] for at in order]
        return pool[chunk][step % POOLED_BATCHES]

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, right = reader(batch_of(step))
        return loss, {"accuracy": right.float().mean().item()}

    out = Path(output_dir)
    done = fit(
        reader,
        loss_of,
        out,
        steps=steps,
        learning_rate=learning_rate,
        optimizer="muon",
        warmup=0.02,
        settings={"batch_size": batch_size, "seed": seed, "config": config_settings(config)},
        stop_after=stop_after,
        progress=progress,
    )
    if done:
        # Without the tokenizer: beside a Qwen2, AutoTokenizer would read it as Qwen2's, which cuts times otherwise.
        reader.language_model.save_pretrained(out)
        save_file({name: value.contiguous() for name, value in reader.timeline.state_dict().items()}, out / TIMELINE)
        (out / CHECKPOINT).unlink()
    return out
