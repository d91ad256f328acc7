"""Conversations about a scene: what the stages of training are made of.

A turn is one instruction and its answer. Captions say what is there and when (whole scene, one stream or both, or one
span: design of SAVEn-Vid's supervised data); questions come as multiple choice and in open form. A conversation holds
several turns on one scene, because the scene is what costs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..savenvideo.times import format_time
from .captions import caption, describe_picture, describe_sound
from .grounds import grounds
from .questions import FAMILIES, Question, draw_question, span_text
from .scenes import Draw, Scene
from .splits import generator, split_named


@dataclass(frozen=True)
class Turn:
    """One instruction and its answer.

    Attributes:
        kind: a key of `TURNS`.
        user, assistant: the two texts; times are written HH:MM:SS.mmm.
        question: the question asked, for kinds "choice" and "open".
    """

    kind: str
    user: str
    assistant: str
    question: Question | None = None


# Instructions trained on. Questions bring their own wordings.
INSTRUCTIONS = {
    "visual_captions": ("Describe the picture with its times.", "What is seen, and when?", "Tell when you see what."),
    "audio_captions": ("Describe the sound with its times.", "What is heard, and when?", "Tell when you hear what."),
    "captions": (
        "Describe picture and sound with their times.",
        "What is seen and heard, and when?",
        "Tell when you see and hear what.",
    ),
    "span_caption": ("Describe what is seen and heard {span}.", "Tell in detail what happens {span}."),
    "visual_span_caption": ("Describe what is seen {span}.", "Tell in detail what the picture shows {span}."),
    "audio_span_caption": ("Describe what is heard {span}.", "Tell in detail what the sound is {span}."),
}


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _stream_captions(events, describe) -> list[str]:
    return [_sentence(f"{span_text(event.start, event.end)} {describe(event)}") for event in events]


def _whole(kind: str) -> Callable[[Scene, Draw, bool], Turn]:
    def turn(scene: Scene, draw: Draw, held_out: bool) -> Turn:
        if kind == "captions":
            sentences = [one.text for one in caption(scene, round=draw.index(1 << 30))]
        elif kind == "visual_captions":
            sentences = _stream_captions(scene.pictures, describe_picture)
        else:
            sentences = _stream_captions(scene.sounds, describe_sound)
        return Turn(kind, draw.pick(INSTRUCTIONS[kind]), " ".join(sentences))

    return turn


def _span(kind: str) -> Callable[[Scene, Draw, bool], Turn]:
    def turn(scene: Scene, draw: Draw, held_out: bool) -> Turn:
        if kind == "span_caption":
            chosen = draw.pick(caption(scene, round=draw.index(1 << 30)))
            answer = chosen.text
        elif kind == "visual_span_caption":
            chosen = draw.pick(scene.pictures)
            answer = _stream_captions([chosen], describe_picture)[0]
        else:
            chosen = draw.pick(scene.sounds)
            answer = _stream_captions([chosen], describe_sound)[0]
        instruction = draw.pick(INSTRUCTIONS[kind]).format(span=span_text(chosen.start, chosen.end))
        return Turn(kind, instruction, answer)

    return turn


# Chosen evenly by format, then by family, so that no format drowns the others: the paper asks all of each video.
_BY_FORMAT = {
    form: [name for name, family in FAMILIES.items() if family.question_type == form]
    for form in ("global", "timestamped", "time_range")
}


def _question(form: str) -> Callable[[Scene, Draw, bool], Turn | None]:
    def turn(scene: Scene, draw: Draw, held_out: bool) -> Turn | None:
        for question_type in draw.sample(_BY_FORMAT, len(_BY_FORMAT)):
            names = _BY_FORMAT[question_type]
            for name in draw.sample(names, len(names)):
                question = draw_question(scene, name, draw, held_out)
                if question is not None and (form == "open" or question.options):
                    answer = f"{grounds(scene, question)}: {question.answer_text}"
                    return Turn(form, question.prompt(form), answer, question)
        return None

    return turn


TURNS: dict[str, Callable[[Scene, Draw, bool], Turn | None]] = {
    **{kind: _whole(kind) for kind in ("visual_captions", "audio_captions", "captions")},
    **{kind: _span(kind) for kind in ("visual_span_caption", "audio_span_caption", "span_caption")},
    "choice": _question("choice"),
    "open": _question("open"),
}


def make_conversation(scene: Scene, kinds: Mapping[str, float], turns: int = 1, round: int = 0) -> list[Turn]:
    """Turns about a scene; the same arguments always give the same turns.

    Args:
        scene: as `sample_scene` gives it; worded by its split.
        kinds: keys of `TURNS` and how often each is drawn, as weights.
        turns: how many to draw. A turn that comes twice is kept once, and a scene may lack a kind (two segments have
            no four options), so there may be fewer, but never none where a caption is among `kinds`.
        round: another number draws another conversation.

    Raises:
        ValueError: a kind that does not exist, or the scene was edited and so has no questions of its own.
    """
    unknown = [kind for kind in kinds if kind not in TURNS]
    if unknown:
        raise ValueError(f"There is no kind of turn {unknown[0]!r}: one of {', '.join(TURNS)}.")
    if scene.edits:
        raise ValueError(f"The scene was edited ({', '.join(scene.edits)}): talk about the scene it was made from.")
    draw = Draw(generator(scene.split, scene.seed, f"conversation {round}"))
    held_out = split_named(scene.split).held_out_paraphrases
    scale = 10_000 / sum(kinds.values())
    names = [name for name, weight in kinds.items() for _ in range(max(1, int(weight * scale)))]
    made: dict[str, Turn] = {}
    for _ in range(turns):
        turn = TURNS[draw.pick(names)](scene, draw, held_out)
        if turn is not None:
            made.setdefault(turn.user, turn)
    return list(made.values())


_TIME = re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}\b")


def shift_times(text: str, offset: int) -> str:
    """The world's text with every HH:MM:SS.mmm moved by `offset` microseconds."""

    def moved(match: re.Match) -> str:
        hours, minutes, seconds = match.group().split(":")
        return format_time(round((int(hours) * 3600 + int(minutes) * 60) * 1e6 + float(seconds) * 1e6) + offset)

    return _TIME.sub(moved, text)
