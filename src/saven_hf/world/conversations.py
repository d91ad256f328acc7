"""Conversations about a scene: what the stages of training are made of.

A turn is one instruction and its answer. Captions say what is there and when (whole scene, one stream or both, or one
span: design of SAVEn-Vid's supervised data); questions come as multiple choice and in open form. A conversation holds
several turns on one scene, because the scene is what costs.
"""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

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
        question: the question asked, for kinds "choice", "open" and "range".
    """

    kind: str
    user: str
    assistant: str
    question: Question | None = None


_MANY = 1 << 30  # steps of a draw that stands for any number

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


def describe_scene(scene: Scene, kind: str = "captions", round: int = 0) -> str:
    """A whole scene in words and times: a sentence for each segment, or for each event of one stream.

    Args:
        kind: "captions", "visual_captions" (the picture alone) or "audio_captions" (the sound alone).
        round: another number draws other wordings of "captions".

    Raises:
        ValueError: there is no such kind.
    """
    if kind == "captions":
        return " ".join(one.text for one in caption(scene, round))
    if kind == "visual_captions":
        return " ".join(_stream_captions(scene.pictures, describe_picture))
    if kind == "audio_captions":
        return " ".join(_stream_captions(scene.sounds, describe_sound))
    raise ValueError(f"A scene has no {kind!r}: one of captions, visual_captions, audio_captions.")


# Of a scene, by a draw, in held-out words or not, about what needs this modality alone (None: about anything).
_Talk = Callable[[Scene, Draw, bool, str | None], Turn | None]


def _whole(kind: str) -> _Talk:
    def turn(scene: Scene, draw: Draw, held_out: bool, needs: str | None) -> Turn:
        text = describe_scene(scene, kind, round=draw.index(_MANY))
        return Turn(kind, draw.pick(INSTRUCTIONS[kind]), text)

    return turn


def _span(kind: str) -> _Talk:
    def turn(scene: Scene, draw: Draw, held_out: bool, needs: str | None) -> Turn:
        if kind == "span_caption":
            chosen = draw.pick(caption(scene, round=draw.index(_MANY)))
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


def _question(kind: str, form: str, formats: Sequence[str]) -> _Talk:
    def turn(scene: Scene, draw: Draw, held_out: bool, needs: str | None) -> Turn | None:
        for question_type in draw.sample(formats, len(formats)):
            names = _BY_FORMAT[question_type]
            for name in draw.sample(names, len(names)):
                if needs is not None and FAMILIES[name].needs != needs:
                    continue
                question = draw_question(scene, name, draw, held_out, further=scene.split == "train")
                if question is not None and (form == "open" or question.options):
                    answer = f"{grounds(scene, question)}: {question.answer_text}"
                    return Turn(kind, question.prompt(form), answer, question)
        return None

    return turn


TURNS: dict[str, _Talk] = {
    **{kind: _whole(kind) for kind in ("visual_captions", "audio_captions", "captions")},
    **{kind: _span(kind) for kind in ("visual_span_caption", "audio_span_caption", "span_caption")},
    "choice": _question("choice", "choice", tuple(_BY_FORMAT)),
    "open": _question("open", "open", tuple(_BY_FORMAT)),
    "range": _question("range", "open", ("time_range",)),
}


# What captions tell of.
_TELLS = {
    "visual_captions": "picture", "visual_span_caption": "picture",
    "audio_captions": "sound", "audio_span_caption": "sound",
    "captions": "both", "span_caption": "both",
}  # fmt: skip


def make_conversation(
    scene: Scene, kinds: Mapping[str, float], turns: int = 1, round: int = 0, needs: str | None = None
) -> list[Turn]:
    """Turns about a scene; the same arguments always give the same turns.

    Args:
        scene: as `sample_scene` gives it; worded by its split.
        kinds: keys of `TURNS` and how often each is drawn, as weights.
        turns: how many to draw. What comes twice, in whatever words, is kept once, and a scene may lack a kind (two
            segments have no four options), so there may be fewer; with captions alone there is always one.
        round: another number draws another conversation.
        needs: "picture" or "sound" talks only of what this alone tells, as about a video that lacks the other; there
            may then be no turn at all.

    Raises:
        ValueError: a kind that does not exist or tells of more than `needs`, weights that are no weights, or the scene
            was edited and so has no questions of its own.
    """
    unknown = [kind for kind in kinds if kind not in TURNS]
    if unknown:
        raise ValueError(f"There is no kind of turn {unknown[0]!r}: one of {', '.join(TURNS)}.")
    if needs is not None:
        if needs not in ("picture", "sound"):
            raise ValueError(f"A conversation needs 'picture' or 'sound' alone, or None for both; given is {needs!r}.")
        wrong = [kind for kind in kinds if _TELLS.get(kind, needs) != needs]
        if wrong:
            raise ValueError(f"Turns of the kind {wrong[0]!r} tell of {_TELLS[wrong[0]]}, not of the {needs} alone.")
    if scene.edits:
        raise ValueError(f"The scene was edited ({', '.join(scene.edits)}): talk about the scene it was made from.")
    total = sum(kinds.values())
    if not (all(weight >= 0 for weight in kinds.values()) and 0 < total < math.inf):
        raise ValueError(f"Weights of kinds are at least 0 and at least one is above; given are {dict(kinds)}.")
    draw = Draw(generator(scene.split, scene.seed, f"conversation {round}"))
    held_out = split_named(scene.split).held_out_paraphrases
    names, ends = list(kinds), list(accumulate(kinds.values()))
    made: dict[Hashable, Turn] = {}
    for _ in range(turns):
        kind = names[bisect(ends, draw.index(_MANY) / _MANY * total)]
        turn = TURNS[kind](scene, draw, held_out, needs)
        if turn is not None:
            made.setdefault(_subject(turn), turn)
    return list(made.values())


def _subject(turn: Turn) -> Hashable:
    """What a turn is about: the same for all wordings, and for a question in either form."""
    if turn.question is None:
        return turn.kind, *_TIME.findall(turn.user)
    return turn.question.family, turn.question.arguments["given"], turn.question.arguments.get("times")


def as_messages(turns: Sequence[Turn]) -> list[dict]:
    """Turns as chat messages about one video, whose bare block opens the first of them."""
    messages = []
    for at, turn in enumerate(turns):
        media = [{"type": "video"}] if at == 0 else []
        messages.append({"role": "user", "content": [*media, {"type": "text", "text": turn.user}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.assistant}]})
    return messages


_TIME = re.compile(r"\b(\d{2,}):(\d\d):(\d\d)\.(\d{3})\b")


def shift_times(text: str, offset: int) -> str:
    """The world's text with every HH:MM:SS.mmm moved by `offset` microseconds."""

    def moved(match: re.Match) -> str:
        hours, minutes, seconds, milliseconds = map(int, match.groups())
        return format_time(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + milliseconds * 1000 + offset)

    return _TIME.sub(moved, text)
