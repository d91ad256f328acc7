"""Rows to train on, made of captions and questions: SAVEn-Vid's instructions.

The paper has 21 k captions to 37 k questions and shows one form of each (figure 2; section 4.2); how captions are
spread over whole videos and spans, and how they are asked for, is our decision.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from ..savenvideo.times import format_time, parse_spans
from .prompts import multiple_choice_answer, multiple_choice_prompt


CAPTIONS_TO_QUESTIONS = 21 / 37

# By the caption that answers: what is asked about a whole video and about a span of it.
_ASKED = {
    "av_caption": (
        "captions",
        "span_caption",
        ("Describe what is seen and heard, with its times.", "What happens in picture and sound, and when?"),
        ("Describe what is seen and heard {span}.", "Tell in detail what happens in picture and sound {span}."),
    ),
    "visual_caption": (
        "visual_captions",
        "visual_span_caption",
        ("Describe what is seen, with its times.", "What does the picture show, and when?"),
        ("Describe what is seen {span}.", "Tell in detail what the picture shows {span}."),
    ),
    "audio_caption": (
        "audio_captions",
        "audio_span_caption",
        ("Describe what is heard, with its times.", "What does one hear, and when?"),
        ("Describe what is heard {span}.", "Tell in detail what one hears {span}."),
    ),
}
_CAPTION_SLACK = 1_000  # us: times in text are rounded to milliseconds


class InstructionMaker:
    """Makes the rows of one video after the other, so that captions stand to questions as `ratio`.

    Whole videos and spans are asked about by turns, and of the three captions at random. A video with too few captions
    leaves some to the next.

    Args:
        seed: draws captions and wordings; a video's rows depend on it, on the video and on how many were left to it.
        ratio: captions for each question.
    """

    def __init__(self, seed: int = 0, ratio: float = CAPTIONS_TO_QUESTIONS):
        self.seed, self.ratio = seed, ratio
        self._owed = 0.0

    def rows(
        self,
        video: Mapping[str, Any],
        captions: Sequence[Mapping[str, Any]],
        questions: Sequence[Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        """Rows of the configuration "sft".

        Args:
            video: row of the configuration "videos"; its file is taken over.
            captions: its segments, rows of the configuration "captions".
            questions: rows of the configuration "qa".
        """
        draw = random.Random(f"{self.seed} {video['video_id']}")
        turns = [("question", *_question_turn(question)) for question in questions]
        self._owed += len(questions) * self.ratio
        candidates = _by_turns(draw, list(_of_video(draw, video)), list(_of_segments(draw, captions)))
        taken = candidates[: int(self._owed + 1e-9)]
        self._owed -= len(taken)
        turns += taken
        file = video["video"]
        return [
            {
                "id": f"{video['video_id']}-sft-{at}",
                "video_id": video["video_id"],
                "messages": _messages(user, assistant),
                "videos": [] if file is None else [file],
                "media": video["media"],
                "start": None,
                "end": None,
                "kind": kind,
                "source": video["source"],
                "provenance": video["provenance"],
            }
            for at, (kind, user, assistant) in enumerate(turns)
        ]


def _question_turn(question: Mapping[str, Any]) -> tuple[str, str]:
    options = question["options"]
    return (
        multiple_choice_prompt(question["question"], options),
        multiple_choice_answer(options, question["answer"]),
    )


def _of_video(draw: random.Random, video: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for column, (kind, _, wordings, _) in _ASKED.items():
        if video[column] is not None:
            yield kind, draw.choice(wordings), video[column]


def _of_segments(draw: random.Random, captions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for caption in captions:
        span = segment_span(caption)
        for column, (_, kind, _, wordings) in _ASKED.items():
            text = caption[column]
            if text is None:
                continue
            times = f"from {format_time(span[0])} to {format_time(span[1])}"
            says_when = span in parse_spans(text)
            yield kind, draw.choice(wordings).format(span=times), text if says_when else f"F{times[1:]}: {text}"


def segment_span(caption: Mapping[str, Any]) -> tuple[int, int]:
    """Times of a segment's first and last frame, in microseconds, as its audio-visual caption writes them.

    A row holds the end of the last frame; where the caption names no times, that stands for its beginning.
    """
    start, end = round(caption["start"] * 1e6), round(caption["end"] * 1e6)
    for first, last in parse_spans(caption["av_caption"]):
        if abs(first - start) <= _CAPTION_SLACK and first < last <= end + _CAPTION_SLACK:
            return first, last
    return start, end


def _by_turns(draw: random.Random, *groups: list) -> list:
    for group in groups:
        draw.shuffle(group)
    groups = list(groups)
    draw.shuffle(groups)
    return [one for one in chain.from_iterable(zip_longest(*groups)) if one is not None]


def _messages(user: str, assistant: str) -> list[dict[str, Any]]:
    blocks = [{"type": "video", "text": None}, {"type": "text", "text": user}]
    return [
        {"role": "user", "content": blocks},
        {"role": "assistant", "content": [{"type": "text", "text": assistant}]},
    ]
