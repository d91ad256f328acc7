"""From rows of messages to a batch: media, tokens, and labels on the assistant's words alone."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers.utils.chat_template_utils import render_jinja_template

from ..data.messages import DataError, attach_media
from ..savenvideo.processing_savenvideo import KINDS, TURN_END, SAVEnVideoProcessor
from ..savenvideo.times import has_unclear_times, shift_times
from ..savenvideo.tower_features import is_tower_features
from .media import move_clock, take_part


logger = logging.getLogger(__name__)

IGNORED = -100
LOSS_WEIGHTINGS = ("token", "turn")
_SHIFT_STEP_US = 100_000

# Texts come again in every epoch, and finding times in them is the slower part of moving them.
_has_unclear_times = lru_cache(maxsize=1 << 16)(has_unclear_times)


@dataclass
class _Conversation:
    """A row after its media were taken out: messages with bare blocks, media by kind, weight in the loss."""

    messages: list[dict[str, Any]]
    media: dict[str, list]
    weight: float


class SAVEnVideoCollator:
    """
    Turns rows of messages (docs/data.md) into what [`SAVEnVideoTrainer`] trains on.

    Loss is on what the chat template marks as the assistant's (`{% generation %}`), up to and with the token that
    ends its turn. Question times come from the user's turns, as everywhere. Padding is on the right.

    Args:
        processor: of the model.
        loss_weighting: "token" weighs all tokens of all answers the same, "turn" all answers. A row's `weight`
            multiplies either.
        time_shift_seconds: augmentation: the clock of a row's medium and every time in its text move by one random
            multiple of 0.1 s between 0 and this. The same for the same seed, epoch and row. Rows whose text has
            quantities of time ("for 5 s") stay where they are: nothing says whether those are moments or lengths.
        seed: of the augmentation.
        use_audio: whether the sound of videos is heard.
        video: how frames are taken, as settings of the video processor.
        max_length: longest row, in tokens.
        skip_bad_rows: leave rows out that cannot be read, with a warning each. A batch keeps at least one.
    """

    def __init__(
        self,
        processor: SAVEnVideoProcessor,
        loss_weighting: str = "token",
        time_shift_seconds: float = 0.0,
        seed: int = 0,
        use_audio: bool = True,
        video: Mapping[str, Any] | None = None,
        max_length: int | None = None,
        skip_bad_rows: bool = False,
    ):
        if loss_weighting not in LOSS_WEIGHTINGS:
            raise ValueError(f"loss_weighting is {loss_weighting!r}, but must be one of {LOSS_WEIGHTINGS}.")
        self.processor = processor
        self.loss_weighting = loss_weighting
        self.time_shift_seconds = time_shift_seconds
        self.seed = seed
        self.use_audio = use_audio
        self.video = dict(video or {})
        if not use_audio:
            self.video["use_audio_in_video"] = False
        self.max_length = max_length
        self.skip_bad_rows = skip_bad_rows
        # Templates without turn markers (Mistral's) end a turn with the text.
        marked = TURN_END in processor.tokenizer.get_vocab()
        self._turn_end_token = TURN_END if marked else processor.tokenizer.eos_token
        self._turn_end = processor.tokenizer.convert_tokens_to_ids(self._turn_end_token)
        self._pad = processor.tokenizer.pad_token_id
        # Shared memory, so that workers that outlive an epoch learn of the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """Of the augmentation: another epoch, other shifts. Setting it reaches running workers, too."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """
        Args:
            samples: rows of messages, or `{"row": row, "index": its number}` as `training.sources` gives them.

        Returns:
            `input_ids`, `attention_mask`, `labels` (-100 where nothing is learnt) and `loss_weights` (float32), all
            `(batch, seq)`, and the media of the batch as the processor returns them.

        Raises:
            DataError: a row that cannot be trained on.
            MediaError: a medium that cannot be read.
        """
        try:
            return self._collate(samples)
        except (ValueError, OSError) as error:
            if not self.skip_bad_rows:
                raise
            good = [sample for sample in samples if self._is_good(sample)]
            if not good:
                raise DataError(f"No row of a batch of {len(samples)} can be read; the last error: {error}") from error
            return self._collate(good)

    def _is_good(self, sample: Mapping[str, Any]) -> bool:
        try:
            self._collate([sample])
        except (ValueError, OSError) as error:
            row = sample.get("row", sample)
            logger.warning("left out row %s: %s", row.get("id", sample.get("index", "?")), error)
            return False
        return True

    def _collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        rows = [self._open(sample) for sample in samples]
        tokenizer = self.processor.tokenizer
        texts, answers = render_jinja_template(
            [row.messages for row in rows],
            chat_template=self.processor.chat_template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
        media = {kind: [one for row in rows for one in row.media[kind]] for kind in KINDS}
        batch = dict(
            self.processor(
                text=texts,
                videos=media["video"] or None,
                images=media["image"] or None,
                audio=media["audio"] or None,
                padding=False,
                add_special_tokens=False,
                return_offsets_mapping=True,
                return_text_replacement_offsets=True,
                **self.video,
            )
        )
        ids, offsets = batch.pop("input_ids"), batch.pop("offset_mapping")
        replaced = batch.pop("text_replacement_offsets") or [[]] * len(rows)
        del batch["attention_mask"]
        length = max(map(len, ids))
        if self.max_length is not None and length > self.max_length:
            raise DataError(
                f"A row has {length} tokens, more than max_length={self.max_length}: take fewer frames or turns, or "
                "raise max_length."
            )
        shape = len(rows), length
        input_ids, mask = np.full(shape, self._pad, np.int64), np.zeros(shape, np.int64)
        labels, weights = np.full(shape, IGNORED, np.int64), np.zeros(shape, np.float32)
        for at, row in enumerate(rows):
            count = len(ids[at])
            input_ids[at, :count], mask[at, :count] = ids[at], 1
            if len(answers[at]) != sum(message["role"] == "assistant" for message in row.messages):
                raise DataError(
                    f"The chat template marks {len(answers[at])} answers of a row that has "
                    f"{sum(message['role'] == 'assistant' for message in row.messages)}: it needs "
                    "{% generation %} around each of the assistant's turns."
                )
            starts = np.fromiter((start for start, _ in offsets[at]), np.int64, count)
            for answer in answers[at]:
                first, last = np.searchsorted(starts, _after_expansion(answer, replaced[at]))
                ends = np.flatnonzero(input_ids[at, first:last] == self._turn_end)
                if not len(ends):
                    raise DataError(
                        f"The chat template marks an answer without the {self._turn_end_token} that ends it."
                    )
                # What follows the end of a turn is never generated, so it is not learnt.
                last = first + ends[-1] + 1
                labels[at, first:last] = input_ids[at, first:last]
                weights[at, first:last] = row.weight / (last - first if self.loss_weighting == "turn" else 1)
        text = {"input_ids": input_ids, "attention_mask": mask, "labels": labels, "loss_weights": weights}
        return {**{name: torch.from_numpy(array) for name, array in text.items()}, **batch}

    def _open(self, sample: Mapping[str, Any]) -> _Conversation:
        """A row with its media taken out, cut and moved."""
        row = sample.get("row", sample)
        messages = attach_media(row)
        start, end = row.get("start"), row.get("end")
        offset = self._draw_offset(sample, messages) if self.time_shift_seconds else 0
        media: dict[str, list] = {kind: [] for kind in KINDS}
        bare = []
        for message in messages:
            content = message["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            blocks = []
            for block in content:
                kind = block["type"]
                if kind == "text":
                    text = shift_times(block["text"], offset) if offset else block["text"]
                    blocks.append({"type": "text", "text": text})
                    continue
                source = block[kind]
                if kind == "video" and not self.use_audio and is_tower_features(source):
                    source = source.without_sound()
                if kind != "image":
                    source = take_part(source, start, end)
                    if offset:
                        # Sounds, too: only a video in memory can begin at another time than 0.
                        source = move_clock(source, kind, offset, self.processor, self.video)
                        kind = "video"
                media[kind].append(source)
                blocks.append({"type": kind})
            bare.append({"role": message["role"], "content": blocks})
        weight = row.get("weight")
        return _Conversation(bare, media, 1.0 if weight is None else float(weight))

    def _draw_offset(self, sample: Mapping[str, Any], messages: list[dict[str, Any]]) -> int:
        """Microseconds by which this row moves in this epoch."""
        texts = [
            block["text"]
            for message in messages
            for block in (
                [{"text": message["content"]}] if isinstance(message["content"], str) else message["content"]
            )
            if "text" in block
        ]
        if any(map(_has_unclear_times, texts)):
            return 0
        index = sample.get("index")
        if index is None:
            index = zlib.crc32("\n".join(texts).encode())
        steps = round(self.time_shift_seconds * 1e6) // _SHIFT_STEP_US
        generator = np.random.default_rng([self.seed, self.epoch, index])
        return int(generator.integers(steps + 1)) * _SHIFT_STEP_US


def _after_expansion(span: tuple[int, int], replaced: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Where a span of characters is after placeholders were expanded.

    Raises:
        DataError: there is a placeholder inside: a medium in the assistant's turn.
    """
    start, end = span
    shift = 0
    for one in replaced:
        first, last = one["span"]
        if start <= first < end:
            raise DataError("A medium stands in the assistant's turn: media belong into the user's.")
        if last <= start:
            shift += len(one["replacement"]) - (last - first)
    return start + shift, end + shift
