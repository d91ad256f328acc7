"""Stage 4: questions that need sound and picture, in the paper's three formats."""

from __future__ import annotations

from ..data.prompts import LETTERS
from .annotators import Annotator
from .errors import AnnotatorError


def question(row: dict, annotator: Annotator) -> dict:
    """The row with its "questions", and "no_questions": why there are none, or None.

    A video without sound, or without a second thing to ask about, has none: every answer needs sound and picture.

    Raises:
        AnnotatorError: a question is incomplete.
    """
    asked = annotator.ask(row) if row["has_audio"] else []
    for one in asked:
        options, answer = one["options"], one["answer"]
        if len(options) != 4 or len(set(options)) != 4 or answer not in tuple(LETTERS[:4]) or not one["evidence"]:
            raise AnnotatorError(f"{row['video_id']}: the question {one['question']!r} is incomplete: {one}.")
    why = None
    if not asked:
        why = "nothing could be asked that needs sound and picture" if row["has_audio"] else "the video has no sound"
    return {**row, "questions": [{**one, "audio_type": audio_type(row, one)} for one in asked], "no_questions": why}


def audio_type(row: dict, asked: dict) -> str:
    """The kinds of sound measured in the evidence of a question; "" where nothing was measured."""
    kinds = {
        segment["facts"]["sound"]["kind"]
        for segment in row["segments"]
        if segment.get("facts") and any(s < segment["end"] and segment["start"] < e for s, e in asked["evidence"])
    }
    return ", ".join(sorted(kinds))
