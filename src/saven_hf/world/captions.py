"""Dense captions: what is seen and heard in each segment, with its times.

Captions name every attribute of a picture and of a sound but the clutter, which means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from .questions import span_text
from .scenes import Draw, Picture, Scene, Sound
from .splits import generator, split_named
from .vocabulary import (
    MOTIONS,
    NUMBER_WORDS,
    PICTURE_NAMES,
    PICTURE_PLURALS,
    PLACES,
    SILENT,
)


# (wordings trained on, held-out wordings); {span} is "from 00:00:03.000 to 00:00:09.500".
_BOTH = (
    (
        "{Span} {seen}; {heard}.",
        "{Span}, we can see that {seen}, and hear {sound}.",
        "{Seen} and {heard} {span}.",
        "{Span}, {seen}. At the same time {heard}.",
    ),
    ("What happens {span}? {Seen}, while {heard}.", "While {heard}, {seen}, {span}."),
)
_HEARD = (("{sound} is heard", "there is {sound}", "one hears {sound}"), ("{sound} sounds", "{sound} can be heard"))
_LANES = ("left", "in the middle", "right"), ("top", "in the middle", "bottom")


@dataclass(frozen=True)
class Caption:
    """A segment in words; times in microseconds. The visual and audio texts are whole sentences without times."""

    segment: int
    start: int
    end: int
    visual: str
    audio: str
    text: str


def caption(scene: Scene, round: int = 0) -> list[Caption]:
    """Captions of all segments, in order; the same arguments always give the same captions.

    Args:
        scene: worded by its split: held-out wordings for the split "paraphrases".
        round: another number draws other wordings.
    """
    draw = Draw(generator(scene.split, scene.seed, f"captions {round}"))
    held_out = split_named(scene.split).held_out_paraphrases
    captions = []
    for at, segment in enumerate(scene.segments):
        seen = describe_picture(segment.picture)
        sound = describe_sound(segment.sound)
        heard = draw.pick(_HEARD[held_out]).format(sound=sound)
        span = span_text(segment.start, segment.end)
        text = draw.pick(_BOTH[held_out]).format(
            seen=seen, Seen=_sentence(seen), heard=heard, sound=sound, span=span, Span=_sentence(span)
        )
        captions.append(Caption(at, segment.start, segment.end, f"{_sentence(seen)}.", f"{_sentence(heard)}.", text))
    return captions


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def describe_picture(picture: Picture) -> str:
    """ "a red circle moves left along the top on a striped background" """
    many = picture.copies > 1
    subject = (
        f"{NUMBER_WORDS[picture.copies]} {PICTURE_PLURALS[picture.kind]}" if many else PICTURE_NAMES[picture.kind]
    )
    return f"{subject} {MOTIONS[picture.motion][many]} {_place(picture)} on a {picture.background} background"


def _place(picture: Picture) -> str:
    column, row = PLACES[picture.place]
    if picture.motion in ("left", "right"):
        return "in the middle" if row == 1 else f"along the {_LANES[1][row]}"
    if picture.motion in ("up", "down"):
        return "in the middle" if column == 1 else f"along the {_LANES[0][column]}"
    return f"at the {picture.place}" if picture.place != "centre" else "in the centre"


def describe_sound(sound: Sound) -> str:
    """ "a loud deep buzz that rises, in three pulses" or "silence" """
    if sound.kind == SILENT:
        return "silence"
    text = f"a {sound.loudness} {sound.kind.pitch} {sound.kind.timbre}"
    if sound.glide != "steady":
        text += f" that {'rises' if sound.glide == 'rising' else 'falls'}"
    if sound.pulses:
        text += f" in {NUMBER_WORDS[sound.pulses]} pulse{'s' if sound.pulses > 1 else ''}"
    return text
