"""Prompts around the media of `tiny`, and what a test of the model measures."""

from __future__ import annotations

import torch
from tiny import AUDIO, IMAGE, VIDEO, join_media

from saven_hf.savenvideo.layout import NO_TIME, audio_column_times, speech_column_times


def dated(medium: dict[str, torch.Tensor]) -> tuple[list[int], list[int], list[int]]:
    """Times of the valid frames, of the valid audio columns and of those of the speech tower of one medium."""
    frames, columns, speech = [], [], []
    if "frame_times" in medium:
        frames = medium["frame_times"][0][medium["frame_mask"][0]].tolist()
    if "audio_times" in medium:
        columns = audio_column_times(
            medium["audio_times"][0].tolist(), medium["input_features_mask"][0].sum(-1).tolist()
        )
    if "speech_times" in medium:
        speech = speech_column_times(
            medium["speech_times"][0].tolist(), medium["speech_features_mask"][0].sum(-1).tolist()
        )
    return frames, columns, speech


def num_tokens(model, medium: dict[str, torch.Tensor]) -> int:
    """Placeholders that a processor would write for a medium."""
    questions = int(medium["query_times_mask"].sum()) if "query_times" in medium else 0
    frames, columns, speech = dated(medium)
    return model.base_model.layout.num_tokens(frames, columns, int(medium["video_durations"]), questions, speech)


def placeholder(medium: dict[str, torch.Tensor]) -> int:
    frames, *_ = dated(medium)
    if not frames:
        return AUDIO
    return IMAGE if frames == [NO_TIME] else VIDEO


def inputs_for(model, *samples: list[dict], seeds=None, fill=0, side="left", words=4) -> dict[str, torch.Tensor]:
    """A batch as the processor returns it: each sample is a list of media, with text before, between and after them.

    The text of a sample depends on its seed alone (default: its place in the batch).
    """
    rows = []
    for seed, media in zip(seeds or range(len(samples)), samples, strict=True):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randint(3, 90, (len(media) + 1, words), generator=generator).tolist()
        row = list(text[0])
        for medium, following in zip(media, text[1:], strict=True):
            row += [placeholder(medium)] * num_tokens(model, medium) + following
        rows.append(row)
    length = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        where = slice(length - len(row), None) if side == "left" else slice(0, len(row))
        ids[index, where], mask[index, where] = torch.tensor(row), 1
    media = [medium for sample in samples for medium in sample]
    joined = join_media(*media, fill=fill) if media else {}
    return {"input_ids": ids, "attention_mask": mask, **joined}


def logits_of(model, inputs: dict[str, torch.Tensor], **kwargs) -> list[torch.Tensor]:
    """Logits of each sample, padding cut off."""
    with torch.no_grad():
        logits = model(**inputs, **kwargs).logits
    return [row[keep.bool()] for row, keep in zip(logits, inputs["attention_mask"], strict=True)]


def gap(left: torch.Tensor, right: torch.Tensor) -> float:
    """Largest absolute difference."""
    assert left.shape == right.shape, (left.shape, right.shape)
    return (left.float() - right.float()).abs().max().item()


def realigned(model):
    """The same weights in memory of torch's own: a mapped file is aligned differently, which picks other kernels on
    some CPUs and moves results by a last bit."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model
