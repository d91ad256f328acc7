"""Dense captions: what is seen and heard in each segment, with its times.

Captions name every attribute of a picture and of a sound but the clutter, which means nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from .pictures import SCALES, fade_at, pose
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
    PictureKind,
    plural_of,
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
# Of a moment: sizes from the smallest to the largest that a growing shape has, and steps across and down a frame.
SIZES = ("tiny", "small", "smallish", "medium", "large", "huge")
GRID = 16
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


class Moment(NamedTuple):
    """What one frame shows by itself, as finely as it can be seen, and nothing that takes two frames.

    Attributes:
        copies: 0 before the first event, when nothing but black is shown.
        size: a word of `SIZES`.
        column, row: place in sixteenths of the frame, from the left and from the top.
        fading: in a cross-fade, the weaker of the two pictures; all else is that of the stronger one.
    """

    copies: int
    size: str | None
    colour: str | None
    shape: str | None
    column: int | None
    row: int | None
    background: str
    fading: PictureKind | None = None

    def describe(self, told: Collection[str] | None = None) -> str:
        """ "two large red circles at 4 across, 11 down on a striped background, fading with a blue star"

        Args:
            told: names of the fields that are told; None for all. "large red", "at 4 across on a striped background".
        """
        told = self._fields if told is None else told
        if not self.copies:
            return f"nothing on a {self.background} background"
        words = [NUMBER_WORDS[self.copies]] if "copies" in told else []
        words += [getattr(self, name) for name in ("size", "colour") if name in told]
        if "shape" in told:
            many = "copies" in told and self.copies > 1
            words.append(plural_of(self.shape) if many else self.shape)
        places = [f"{self.column} across"] if "column" in told else []
        places += [f"{self.row} down"] if "row" in told else []
        if places:
            words += ["at", ", ".join(places)]
        if "background" in told:
            words.append(f"on a {self.background} background")
        text = " ".join(words)
        if "fading" in told and self.fading is not None:
            text += f", fading with {PICTURE_NAMES[self.fading]}"
        return text


def moment_at(scene: Scene, time: int) -> Moment:
    """What the frame at `time` (us) shows."""
    fade = fade_at(scene, time)
    if fade is not None:
        before, after, share = fade
        shown, other = (after, before) if share > 0.5 else (before, after)
        return _moment_of(shown, time)._replace(fading=other.kind)
    if time < scene.pictures[0].start:
        return Moment(0, None, None, None, None, None, "black")
    return _moment_of(scene.picture_at(time) or scene.pictures[-1], time)


def _moment_of(picture: Picture, time: int) -> Moment:
    x, y, scale = (float(value[0]) for value in pose(picture, [time]))
    size = min(int((scale - SCALES[0]) / (SCALES[1] - SCALES[0]) * len(SIZES)), len(SIZES) - 1)
    return Moment(picture.copies, SIZES[size], *picture.kind, round(x * GRID), round(y * GRID), picture.background)


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
