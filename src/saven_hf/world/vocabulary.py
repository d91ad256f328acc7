"""What can be seen and heard in the world, how it looks and sounds, and what it is called.

A picture is known by colour and shape, a sound by timbre and pitch: these two make its *identity*, which questions
and options name. Everything else (motion, place, background, number of copies; glide, pulses, loudness) is an
attribute that captions tell and some questions ask for.
"""

from __future__ import annotations

from typing import NamedTuple


# Red, green, blue in 0..255. Greys belong to backgrounds and clutter, so that no shape hides in them.
COLOURS = {
    "red": (225, 30, 30),
    "green": (30, 190, 50),
    "blue": (50, 80, 255),
    "yellow": (245, 225, 40),
    "purple": (165, 50, 215),
    "cyan": (40, 215, 225),
    "orange": (255, 140, 20),
    "white": (255, 255, 255),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "star", "bar")
# What a moving picture does is spread over its whole event: it crosses the frame once, or grows from small to large.
MOTIONS = {
    "still": ("stays still", "stay still"),
    "left": ("moves left", "move left"),
    "right": ("moves right", "move right"),
    "up": ("moves up", "move up"),
    "down": ("moves down", "move down"),
    "grow": ("grows", "grow"),
    "shrink": ("shrinks", "shrink"),
}
# Columns and rows of a three by three grid, by name; a moving picture keeps the lane across its motion.
PLACES = {
    "top left": (0, 0), "top": (1, 0), "top right": (2, 0),
    "left": (0, 1), "centre": (1, 1), "right": (2, 1),
    "bottom left": (0, 2), "bottom": (1, 2), "bottom right": (2, 2),
}  # fmt: skip
BACKGROUNDS = ("black", "grey", "striped", "checked", "dotted", "shaded")
MAX_COPIES = 4
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six")

# Fundamental in Hz, an octave apart; the highest partial of the highest glide stays below 8 kHz.
PITCHES = {"deep": 120.0, "low": 240.0, "mid": 480.0, "high": 960.0, "shrill": 1920.0}
# (frequency ratio, amplitude) of the partials. Warbles have tremolo, hisses are bands of noise.
TIMBRES = {
    "tone": ((1.0, 1.0),),
    "buzz": ((1.0, 1.0), (2.0, 0.7), (3.0, 0.55)),
    "reed": ((1.0, 1.0), (3.0, 0.6)),
    "organ": ((0.5, 0.6), (1.0, 1.0), (2.0, 0.6)),
    "chime": ((1.0, 1.0), (1.52, 0.7), (2.41, 0.6)),
    "horn": ((1.0, 1.0), (2.0, 0.9)),
    "warble": ((1.0, 1.0), (2.0, 0.3)),
    "hiss": ((1.0, 1.0),),
}
SILENCE = "silence"
GLIDES = {"steady": 0.0, "rising": 1.0, "falling": -1.0}
LOUDNESSES = {"soft": 0.1, "loud": 0.4}  # peak amplitude, full scale is 1
MAX_PULSES = 6

# Motion and glide that go the same way: the rule of agreement between picture and sound.
DIRECTIONS = {"up": "rising", "down": "falling"}


class PictureKind(NamedTuple):
    """The identity of a picture."""

    colour: str
    shape: str


class SoundKind(NamedTuple):
    """The identity of a sound; silence has no pitch."""

    timbre: str
    pitch: str


SILENT = SoundKind(SILENCE, "")
PICTURE_KINDS = tuple(PictureKind(colour, shape) for colour in COLOURS for shape in SHAPES)
SOUND_KINDS = tuple(SoundKind(timbre, pitch) for timbre in TIMBRES for pitch in PITCHES)


def group_of(kind: PictureKind | SoundKind) -> int:
    """0 or 1: every attribute value is in both groups, every identity in one. Silence is in both and counts as 0.

    A scene takes its pictures from one group and its sounds from one. Trained scenes have both from groups of the
    same number, scenes of unseen pairs have not: each picture and each sound is known, none of the pairs is. Within
    a scene all pictures and all sounds are exchangeable, so holding out pairs leaves every chance level as it is.
    """
    if isinstance(kind, PictureKind):
        return (tuple(COLOURS).index(kind.colour) + SHAPES.index(kind.shape)) % 2
    return (tuple(TIMBRES).index(kind.timbre) + tuple(PITCHES).index(kind.pitch)) % 2 if kind != SILENT else 0


PICTURE_GROUPS = tuple(tuple(kind for kind in PICTURE_KINDS if group_of(kind) == group) for group in (0, 1))
SOUND_GROUPS = tuple(tuple(kind for kind in SOUND_KINDS if group_of(kind) == group) for group in (0, 1))


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def plural_of(shape: str) -> str:
    """ "crosses", "circles" """
    return f"{shape}{'es' if shape == 'cross' else 's'}"


# Names are made once: questions and captions need thousands of them a second.
PICTURE_NAMES = {kind: f"{_article(kind.colour)} {kind.colour} {kind.shape}" for kind in PICTURE_KINDS}
PICTURE_PLURALS = {kind: f"{kind.colour} {plural_of(kind.shape)}" for kind in PICTURE_KINDS}
SOUND_NAMES = {kind: f"{_article(kind.pitch)} {kind.pitch} {kind.timbre}" for kind in SOUND_KINDS} | {SILENT: SILENCE}


def name_of(kind: PictureKind | SoundKind) -> str:
    """ "a red circle", "a deep buzz", "silence". The number of copies is left out, so that a name gives none away."""
    return PICTURE_NAMES[kind] if isinstance(kind, PictureKind) else SOUND_NAMES[kind]
