"""Pretraining of a tiny language model on the world's language, before it ever meets a picture or a sound.

A language model of a few million parameters has to learn two things: to speak, and to look things up in what stands
before it (in-context retrieval), which is what takes long. Both are learnt here on *timelines*: what a scene holds at
evenly spaced moments, one vector a moment, in a fixed code for its attributes and for the times at which the events of
that moment begin and end. A resampler learns to say in the same code what it saw and heard (`connector.py`). Our
decision: the paper starts from a language model that reads already.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from ...savenvideo.layout import NO_TIME
from ...savenvideo.times import parse_times
from ...world.conversations import Turn, make_conversation, shift_times
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


PLACEHOLDER, CODE = "<|video|>", "code.safetensors"
# In seconds. Parts of a minute tell its seconds apart, multiples the minutes; nobody sees finer than half a second.
CODE_PERIODS = (*(0.5, 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60), *(120, 180, 300, 600, 3600))
TIME_SCALE = 0.35  # of a phase beside an attribute: the four times weigh about what the eleven attributes do
# To say when a thing is there takes three steps: to find it by its name, to come back to it, and to read the time.
# None pays without the others, so none was learnt. So some heads are told where to look: the layers and the head, for
# each sort of `Look`. And how much that weighs.
LOOKS = {"name": ((1, 2), 0), "span": ((2,), 1), "time": ((3,), 0), "content": ((3,), 1)}
LOOKING = 0.5
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
# Of the sound, among the columns of attributes and among the four times.
SOUND_COLUMNS, SOUND_TIMES = slice(len(PICTURE_ATTRIBUTES), len(ATTRIBUTES)), slice(2, 4)
NOTHING = 0  # row of the table: no picture, or no sound, or an attribute that was not noticed
_OFFSETS = np.cumsum([1, *(len(values) for values in ATTRIBUTES.values())])
TABLE_ROWS = int(_OFFSETS[-1])
_ROWS = [
    {value: int(offset) + at for at, value in enumerate(values)}
    for offset, values in zip(_OFFSETS, ATTRIBUTES.values(), strict=False)
]


@dataclass
class Timeline:
    """A scene at some moments. at: `(n,)` int64 microseconds, evenly spaced, then the times of the question; rows:
    `(n, 11)` int64, of the table; times: `(n, 4)` int64 microseconds: start and end of the picture, start and end of
    the sound; asked: `(n,)` bool, whether the moment is a time of the question."""

    at: np.ndarray
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
        (sounds, sound_times, SOUND_COLUMNS, SOUND_TIMES),
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
    date_error: float = 150_000.0,
) -> Timeline:
    """A scene as a resampler might tell it: evenly spaced moments of each window, then the times that are asked for.

    Args:
        spacing: least and most seconds between two moments; drawn once a scene.
        asked: times of the question, in microseconds.
        forget: probability that an attribute of a moment is missing, here and for each moment alone.
        blur: standard deviation of the moment looked at, and twice that of each time told, in microseconds.
        date_error: largest standard deviation of the error that all moments share about when an event begins or ends,
            in microseconds; drawn once a scene. What is asked for or to be chosen from then says it better.
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
    error = rng.uniform(0, date_error)
    for column in times[:count].T:
        dates, which = np.unique(column, return_inverse=True)
        column += rng.normal(0, error, len(dates)).astype(np.int64)[which]
    if asked:
        # What is there at a time in question is not always told: a boundary is between two things.
        rows[count:][rng.random(len(asked)) < 0.2] = NOTHING
        times[count:] = np.array(asked)[:, None]
    times = times + rng.normal(0, blur / 2, times.shape).astype(np.int64)
    return Timeline(moments.astype(np.int64), rows, times, np.arange(len(moments)) >= count)


def _words(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokens of the word for each row of the table; none for `NOTHING`."""
    words = [
        NUMBER_WORDS[value] if isinstance(value, int) else value for values in ATTRIBUTES.values() for value in values
    ]
    return [[], *tokenizer([f" {word}" if word else "" for word in words], add_special_tokens=False).input_ids]


class TimelineCode(nn.Module):
    """A fixed code for moments: a direction for each attribute value, and one for each phase of each of four times.

    All directions are orthogonal, so that a layer reads any of them with a matrix and none blurs another. The code is
    agreed on before either side learns: the language model to read it, the resampler to write it. Words start from it:
    what is asked for and what is there look alike from the first step on, and to find a thing by its name takes a copy
    and no dictionary. Times likewise: the tokens of a written time start from phases of its minute, second, tenth.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, hidden_size: int, seed: int = 0):
        super().__init__()
        phases = 2 * len(CODE_PERIODS)
        needed = TABLE_ROWS + 5 * phases
        if hidden_size < needed:
            raise ValueError(
                f"A code of {needed} orthogonal directions does not fit a width of {hidden_size}: give the language "
                f"model a hidden_size of at least {needed}."
            )
        gaussian = torch.randn(hidden_size, needed, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        basis = torch.linalg.qr(gaussian).Q.T.to(torch.float32)
        table, times, spoken = basis.split([TABLE_ROWS, 4 * phases, phases])
        # The first row is of no value, so its direction is free to mark what was asked for.
        self.register_buffer("asked", table[NOTHING].clone())
        table[NOTHING] = 0
        self.register_buffer("table", table)
        self.register_buffer("times", times * TIME_SCALE)
        self.tokenizer, self.spoken = tokenizer, spoken

    def forward(self, rows: torch.Tensor, times: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """rows `(n, 11)`, times `(n, 4)` int64 microseconds or `NO_TIME`, asked `(n,)` -> `(n, hidden)`."""
        values = F.embedding(rows, self.table).sum(-2)
        return values + _phases(times).flatten(-2) @ self.times + asked[:, None] * self.asked

    @torch.no_grad()
    def begin(self, embedding: nn.Embedding) -> None:
        """Give a fresh table of word embeddings the words and times of this code."""
        start: dict[int, torch.Tensor] = {}
        for row, tokens in enumerate(_words(self.tokenizer)):
            for token in tokens:
                start[token] = start.get(token, 0) + self.table[row]
        for text, token in self.tokenizer.get_vocab().items():
            written = re.fullmatch(r"Ġ?(?:(\d\d):(\d\d):|(\d\d)|\.(\d\d\d))", text)
            if written is None:
                continue
            hours, minutes, seconds, milliseconds = (int(part or 0) for part in written.groups())
            # The middle of what is written the same, in the periods that tell it from what is not.
            if written[2]:
                time, told = (hours * 60 + minutes) * 60 + 30, [period > 60 for period in CODE_PERIODS]
            elif written[3]:
                time, told = seconds + 0.5, [1 < period <= 60 for period in CODE_PERIODS]
            else:
                time, told = milliseconds / 1000, [period <= 1 for period in CODE_PERIODS]
            phases = _phases(torch.tensor([round(time * 1e6)])) * torch.tensor(told * 2)
            start[token] = (phases @ self.spoken)[0]
        for token, vector in start.items():
            embedding.weight[token] = F.normalize(vector, dim=0)


def _phases(times: torch.Tensor) -> torch.Tensor:
    """`(...)` int64 microseconds -> `(..., 2 * periods)`: sines, then cosines; zeros for `NO_TIME`."""
    periods = torch.tensor([round(period * 1e6) for period in CODE_PERIODS], device=times.device)
    phase = torch.remainder(times[..., None], periods).to(torch.float32) / periods * (2 * torch.pi)
    return torch.cat([phase.sin(), phase.cos()], -1).masked_fill((times == NO_TIME)[..., None], 0.0)


def tiny_language_config(tokenizer: PreTrainedTokenizerBase, **settings) -> Qwen2Config:
    return Qwen2Config(
        **{
            "vocab_size": -(-len(tokenizer) // 8) * 8,
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            # So that a token's embedding is about as long as an attribute's direction.
            "initializer_range": 0.06,
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


SHORT = {"open": 3.0, "range": 1.5, "choice": 1.0, "span_caption": 0.7, "captions": 0.2}
ALL = {
    **{"open": 4.0, "choice": 4.0, "range": 2.0, "span_caption": 0.7},
    **{"captions": 0.3, "visual_captions": 0.15, "audio_captions": 0.15},
}
# Looking something up among two segments is learnt in minutes, among ten from scratch in hours if at all. The hardest
# part gets the most steps while the learning rate is still high; clocks differ from the first step on, or seconds are
# learnt by heart instead of read.
CURRICULUM = (
    Course(0.08, (2, 3), SHORT, 300.0),
    Course(0.16, (2, 4), ALL, 300.0),
    Course(0.40, (2, 6), ALL, 300.0),
    Course(1.00, (2, 10), ALL, 300.0),
)


class Look(NamedTuple):
    """Where to look: from the token at `position` to the moments from `first` up to `last`, as positions of tokens.

    Attributes:
        sort: "name": from the last word that names a thing to where it is; "span": from the end of a span to what
            lies in it; "time" and "content": from what is about to say a time, or a word, to what it is said of.
    """

    sort: str
    position: int
    first: int
    last: int


@dataclass
class Sample:
    """A conversation as numbers.

    ids, labels (-100 where nothing is asked) and weights of its tokens; timeline: what stands at its placeholders;
    looks: where an answer's tokens are told to look.
    """

    ids: list[int]
    labels: list[int]
    weights: list[float]
    timeline: Timeline
    looks: list[Look]


class SampleDrawer:
    """Draws samples by number: the same number always gives the same sample. Scenes are those of the split `train`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, turns: int = 8, most_tokens: int = 384):
        self.tokenizer, self.turns, self.most_tokens = tokenizer, turns, most_tokens
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
        # A quarter of the conversations are a single turn, as a user's first question is.
        count = 1 if rng.random() < 1 / 4 else int(rng.integers(1, self.turns + 1))
        turns, attempt = [], 0
        while not turns:
            turns = make_conversation(scene, course.kinds, turns=count, round=attempt)
            attempt += 1
        asked = list(dict.fromkeys(time for turn in turns for time in parse_times(turn.user)))
        timeline = draw_timeline(scene, asked or [0, scene.duration], rng)
        shift = int(rng.integers(0, round(course.shift * 10) + 1)) * 100_000 if rng.random() < 0.5 else 0
        timeline.times += shift
        timeline.at += shift
        texts = [shift_times(text, shift) for turn in turns for text in (turn.user, turn.assistant)]
        encoded = self._encode(texts)
        sample = Sample([], [], [], timeline, [])
        for at, (turn, user, answer) in enumerate(zip(turns, encoded[::2], encoded[1::2], strict=True)):
            media = [self.placeholder] * len(timeline.rows) if at == 0 else []
            prompt = [*self.user, *media, *user, *self.end, *self.assistant]
            answer = answer + self.end
            # What attention costs grows with the square: one long conversation costs more than two that say as much.
            if sample.ids and len(sample.ids) + len(prompt) + len(answer) > self.most_tokens:
                break
            self._look(sample, texts[2 * at + 1], len(sample.ids) + len(prompt), _rests(scene, turn, shift))
            sample.ids += prompt + answer
            sample.labels += [IGNORED] * len(prompt) + answer
            # Answers weigh the same whatever their length; captions a little more, for they hold many answers.
            weight = len(answer) ** (-0.5 if "caption" in turn.kind else -1.0)
            sample.weights += [0.0] * len(prompt) + [weight] * len(answer)
        return sample

    def _look(self, sample: Sample, answer: str, position: int, rests: list[tuple[int, int]]) -> None:
        """Note where to look in an answer that begins at token `position` and rests on the spans `rests`."""
        offsets = self.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        anchors = sample.timeline.at[~sample.timeline.asked]
        for sort, low, high, span in _sources(answer, rests):
            first, last = (len(self.user) + int(at) for at in np.searchsorted(anchors, span))
            if first == last:
                continue
            for at, (start, end) in enumerate(offsets, position):
                if sort in ("name", "span"):
                    if end == high:
                        sample.looks.append(Look(sort, at, first, last))
                # The space before a word is part of its first token. What says a token stands before it.
                elif low <= start + 1 and end <= high:
                    sample.looks.append(Look(sort, at - 1, first, last))


def _rests(scene: Scene, turn: Turn, shift: int) -> list[tuple[int, int]]:
    """The spans that the answer to a question rests on, as the text has them; a caption has its own in the text."""
    if turn.question is None:
        return []
    if turn.question.family == "in_time":
        spans = [(stream[1].start, stream[1].end) for stream in (scene.pictures, scene.sounds)]
    else:
        spans = list(turn.question.evidence)
    return [(start + shift, end + shift) for start, end in spans]


_STAMP = r"(\d\d:\d\d:\d\d\.\d{3})"
# "a red circle: from 00:00:03.000 to 00:00:09.500": the last word before, and the two times.
_SPAN = re.compile(rf"(?:(\w+):? )?[Ff]rom {_STAMP} to {_STAMP}")
_SENTENCE = re.compile(r"(?:[^.]|\.(?=\d))+\.?")


def _sources(answer: str, rests: list[tuple[int, int]]) -> list[tuple[str, int, int, tuple[int, int]]]:
    """What says what: sort of `Look`, first and last character, and the span in microseconds that it is said of."""
    found: list[tuple[str, int, int, tuple[int, int]]] = []
    spans = [(match, tuple(parse_times(match[0]))) for match in _SPAN.finditer(answer)]
    for match, times in spans:
        if match[1] and rests:
            found.append(("name", *match.span(1), times))
        found += [("time", *match.span(one), times) for one in (2, 3)]
    if not rests:  # a caption: the times of a sentence, or of the one before
        times = (0, 0)
        for sentence in _SENTENCE.finditer(answer):
            low, high = sentence.span()
            for match, its_times in spans:
                if low <= match.start() < high:
                    times = its_times
                    found.append(("span", *match.span(), times))
            found.append(("content", low, high, times))
    elif spans:  # what follows a span is said of it
        ends = [*(match.start() for match, _ in spans[1:]), len(answer)]
        for (match, times), end in zip(spans, ends, strict=True):
            if match.end() < end:
                found += [("span", *match.span(), times), ("content", match.end(), end, times)]
    elif stamps := list(re.finditer(_STAMP, answer)):
        found += [("time", *match.span(), times) for match, times in zip(stamps, rests, strict=False)]
    else:
        colon = answer.rindex(": ")
        found += [("name", 0, colon, rests[0]), ("content", colon + 1, len(answer), rests[0])]
    return found


class Batch(NamedTuple):
    """Conversations as tensors, padded at their ends.

    Attributes:
        ids: `(b, n)` int64.
        supervised, targets, weights: `(s,)`: where in the flat `(b * n)` something is to be said next, what, and how
            much it weighs.
        rows, times, asked: of all moments, one conversation after the other, as in a `Timeline`.
        looks: for each sort, `(looks, 4)` int64: row, position, first and last as in a `Look`.
    """

    ids: torch.Tensor
    supervised: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor
    times: torch.Tensor
    asked: torch.Tensor
    looks: dict[str, torch.Tensor]

    @classmethod
    def of(cls, samples: list[Sample], pad: int) -> Batch:
        ids, labels, weights = (
            pad_sequence([torch.tensor(getattr(one, name)) for one in samples], batch_first=True, padding_value=value)
            for name, value in (("ids", pad), ("labels", IGNORED), ("weights", 0.0))
        )
        # What is said next is said by the token before.
        labels, weights = (F.pad(one[:, 1:], (0, 1), value=value).flatten() for one, value in
                           ((labels, IGNORED), (weights, 0.0)))  # fmt: skip
        supervised = (labels != IGNORED).nonzero()[:, 0]
        looks = {
            sort: torch.tensor(
                [(row, *look[1:]) for row, one in enumerate(samples) for look in one.looks if look.sort == sort]
            ).view(-1, 4)
            for sort in LOOKS
        }
        timeline = (
            torch.from_numpy(np.concatenate([getattr(one.timeline, name) for one in samples]))
            for name in ("rows", "times", "asked")
        )
        return cls(ids, supervised, labels[supervised], weights[supervised], *timeline, looks)

    def to(self, device: torch.device) -> Batch:
        looks = {sort: one.to(device, non_blocking=True) for sort, one in self.looks.items()}
        return Batch(*(one.to(device, non_blocking=True) for one in self[:-1]), looks)


class TimelineReader(nn.Module):
    """The language model with the code it reads, as long as it is pretrained."""

    def __init__(self, language_model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        config = language_model.config
        layers = 1 + max(layer for told, _ in LOOKS.values() for layer in told)
        if config.num_hidden_layers < layers or config._attn_implementation != "eager":
            raise ValueError(
                f"Heads of the first {layers} layers are told where to look, which eager attention shows; the config "
                f"has {config.num_hidden_layers} layers and attn_implementation={config._attn_implementation!r}: set "
                f"num_hidden_layers to at least {layers}, and attn_implementation='eager'."
            )
        self.language_model, self.placeholder = language_model, tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        self.code = TimelineCode(tokenizer, language_model.config.hidden_size)
        self.code.begin(language_model.get_input_embeddings())

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted cross-entropy `()`, which supervised tokens are right `(s,)`, and for each sort of `Look` how far
        heads look astray `()`."""
        ids = batch.ids
        embeds = self.language_model.get_input_embeddings()(ids)
        moments = self.code(batch.rows, batch.times, batch.asked).to(embeds.dtype)
        embeds = embeds.masked_scatter((ids == self.placeholder)[..., None], moments)
        outputs = self.language_model.model(
            inputs_embeds=embeds,
            attention_mask=(ids != self.language_model.config.pad_token_id).long(),
            output_attentions=True,
        )
        states = outputs.last_hidden_state.flatten(0, 1)[batch.supervised]
        logits = self.language_model.lm_head(states).float()
        losses = F.cross_entropy(logits, batch.targets, reduction="none")
        loss = (losses * batch.weights).sum() / batch.weights.sum()
        return loss, logits.argmax(-1) == batch.targets, _astray(batch.looks, outputs.attentions)


def _astray(looks: dict[str, torch.Tensor], attentions: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """How little heads look where they should, for each sort of `Look`: mean of -log of what they give to it `()`."""
    at = torch.arange(attentions[0].shape[-1], device=attentions[0].device)
    astray = {}
    for sort, (layers, head) in LOOKS.items():
        if not len(looks[sort]):
            astray[sort] = attentions[0].new_zeros(())
            continue
        row, position, first, last = looks[sort].T
        inside = (at >= first[:, None]) & (at < last[:, None])
        looked = torch.stack([(attentions[layer][row, head, position].float() * inside).sum(-1) for layer in layers])
        astray[sort] = -(looked + 1e-4).log().mean()
    return astray


class _Batches(Dataset):
    """Batches by number. Conversations of a length go together, `POOLED_BATCHES` batches at a time: padding costs as
    much as tokens do. So an item is as many batches, in random order."""

    def __init__(self, drawer: SampleDrawer, pad: int, steps: int, batch_size: int, seed: int):
        self.drawer, self.pad, self.steps, self.batch_size, self.seed = drawer, pad, steps, batch_size, seed

    def __len__(self) -> int:
        return math.ceil(self.steps / POOLED_BATCHES)

    def __getitem__(self, chunk: int) -> list[Batch]:
        course = next(one for one in CURRICULUM if chunk * POOLED_BATCHES < one.share * self.steps)
        size, first = POOLED_BATCHES * self.batch_size, self.seed * 2**27
        drawn = [self.drawer.draw(first + number, course) for number in range(chunk * size, (chunk + 1) * size)]
        drawn.sort(key=lambda sample: len(sample.ids))
        order = np.random.default_rng([self.seed, chunk]).permutation(POOLED_BATCHES)
        return [Batch.of(drawn[at * self.batch_size : (at + 1) * self.batch_size], self.pad) for at in order]

    def iterate(self, first: int = 0, workers: int = 0) -> Iterator[Batch]:
        """Batches from step `first` on, drawn in so many other processes; in this one if 0."""
        chunks = range(first // POOLED_BATCHES, len(self))
        loader = DataLoader(self, sampler=chunks, batch_size=None, num_workers=workers,
                            multiprocessing_context="spawn" if workers else None)  # fmt: skip
        skipped = first % POOLED_BATCHES
        for at, batches in enumerate(loader):
            yield from batches[skipped if at == 0 else 0 :]


def pretrain_language(
    output_dir: str | os.PathLike,
    tokenizer: PreTrainedTokenizerBase,
    *,
    steps: int = 7000,
    batch_size: int = 16,
    learning_rate: float = 4e-3,
    seed: int = 0,
    config: Qwen2Config | None = None,
    stop_after: int | None = None,
    device: str | torch.device = "cpu",
    workers: int = 0,
    progress: bool = True,
) -> Path:
    """Pretrain a tiny Qwen2 on timelines of the world's training scenes; goes on where a killed run stopped.

    Args:
        output_dir: gets the language model, as `from_pretrained` loads it, `code.safetensors`, how its moments are
            written, and `losses.jsonl`.
        tokenizer: with the placeholder `<|video|>` among its tokens (see `train_tokenizer`).
        steps, batch_size: optimizer steps and conversations a step.
        config: of the language model; `tiny_language_config` if None.
        stop_after: leave after this many steps, with a checkpoint.
        workers: processes that draw conversations; 0 draws them in this one. A GPU waits for fewer than six.

    Returns:
        The folder, once training is complete.
    """
    torch.manual_seed(seed)
    device = torch.device(device)
    config = config or tiny_language_config(tokenizer)
    reader = TimelineReader(Qwen2ForCausalLM(config), tokenizer).to(device)
    batches = _Batches(SampleDrawer(tokenizer), config.pad_token_id, steps, batch_size, seed)
    following: Iterator[Batch] | None = None

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        nonlocal following
        following = following or batches.iterate(step, workers)
        with torch.autocast(device.type, torch.bfloat16):
            loss, right, astray = reader(next(following).to(device))
        loss = loss + LOOKING * sum(astray.values()) / len(LOOKS)
        return loss, {"accuracy": right.float().mean(), **astray}

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
        save_file({name: value.contiguous() for name, value in reader.code.state_dict().items()}, out / CODE)
        (out / CHECKPOINT).unlink()
    return out
