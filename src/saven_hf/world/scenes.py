"""Scenes: what is seen and heard when, without a pixel or a sample.

A scene is two streams of events, pictures and sounds, drawn independently of each other and tied together by a
*layout* alone, which decides how often an identity occurs and how the boundaries of the two streams lie. Times are
integer microseconds and multiples of 100 ms; events are half-open, [start, end).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .vocabulary import (
    BACKGROUNDS,
    DIRECTIONS,
    GLIDES,
    LOUDNESSES,
    MAX_COPIES,
    MAX_PULSES,
    MOTIONS,
    PLACES,
    SILENT,
    PictureKind,
    SoundKind,
)


TICK = 100_000  # us; every boundary is a multiple of it
MIN_TICKS = 12  # the shortest event: 1.2 s
# Layout "apart": pictures change at multiples of a step, sounds half a step later, so no two changes are closer than
# 0.3 s and "when the picture appears" has one answer.
STEP_TICKS, MIN_STEPS = 6, 2
SHIFT_TICKS, MAX_SHIFT_TICKS = (5, 10), 15
END_TICKS = (MIN_TICKS + MAX_SHIFT_TICKS, 127)  # layout "shifted": the first and the last picture

_PICTURE_MOTIONS, _PLACES, _LOUDNESSES, _GLIDES = tuple(MOTIONS), tuple(PLACES), tuple(LOUDNESSES), tuple(GLIDES)
_PLAIN_PULSES = (0,) * MAX_PULSES + tuple(range(1, MAX_PULSES + 1))


class Draw:
    """Uniform draws from a numpy Generator, taken in blocks: several times faster than one call for each.

    Everything random in the world goes through `index`, so a test can put in an object that walks through all
    outcomes and compare what it finds with the chance levels stored.
    """

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._block: list[float] = []

    def index(self, n: int) -> int:
        """Uniform over 0 .. n - 1."""
        if not self._block:
            self._block = self._rng.random(192).tolist()
        return int(self._block.pop() * n)

    def rejected(self):
        """Told of every arrangement that is thrown away and drawn anew."""

    def pick(self, items):
        return items[self.index(len(items))]

    def sample(self, items, count: int) -> list:
        """`count` different items in random order."""
        items = list(items)
        for position in range(count):
            other = position + self.index(len(items) - position)
            items[position], items[other] = items[other], items[position]
        return items[:count]

    def subset(self, n: int, count: int) -> list[int]:
        """A uniform `count`-subset of 0 .. n - 1, ascending (Floyd's algorithm)."""
        chosen = set()
        for top in range(n - count, n):
            candidate = self.index(top + 1)
            chosen.add(top if candidate in chosen else candidate)
        return sorted(chosen)

    def boundaries(self, total: int, parts: int, least: int) -> list[int]:
        """Uniform over all ways to cut `total` units into `parts` of at least `least`: [0, ..., total]."""
        spare = total - parts * least + parts - 1
        cuts = self.subset(spare, parts - 1)
        return [0, *(cut + (least - 1) * (position + 1) + 1 for position, cut in enumerate(cuts)), total]


class Picture(NamedTuple):
    """One event of the picture; start and end in microseconds."""

    start: int
    end: int
    kind: PictureKind
    motion: str = "still"
    place: str = "centre"
    background: str = "black"
    copies: int = 1


class Sound(NamedTuple):
    """One event of the sound; `pulses` 0 is a sound that goes on, n > 0 is n short ones, evenly spaced.

    `whole` is the start and end of a sound of which an intervention has left only [start, end).
    """

    start: int
    end: int
    kind: SoundKind
    glide: str = "steady"
    pulses: int = 0
    loudness: str = "loud"
    detune: float = 1.0
    whole: tuple[int, int] | None = None


class Segment(NamedTuple):
    """A stretch in which neither picture nor sound changes."""

    start: int
    end: int
    picture: Picture
    sound: Sound


class Layout(NamedTuple):
    """How the two streams are tied together.

    tie: "distinct" (every picture and every sound once, same boundaries), "crossed" (k pictures x m sounds, each pair
        once), "picture_twice" / "sound_twice" (each of that stream twice, never in a row), "apart" (own boundaries
        for each stream), "shifted" (distinct, the sound as a whole early, late or in time).
    rule: "plain", "count" (copies and pulses vary), "direction" / "number" (motion and glide, or copies and pulses,
        agree in one segment and in no other).
    """

    tie: str
    rule: str = "plain"


class Spec(NamedTuple):
    """What `draw_scene` needs to know; `saven_hf.world.splits` makes it from a split's name."""

    layout: Layout
    segments: int
    pictures: tuple[PictureKind, ...]
    sounds: tuple[SoundKind, ...]
    mean_ticks: int = 30
    lead_in_ticks: int = 0
    clutter: int = 0


@dataclass(frozen=True)
class Scene:
    """A scene. Times in microseconds.

    Attributes:
        pictures, sounds: the events, in order, without gaps from `lead_in` to `duration`.
        lead_in: black and silent time before the first event.
        fades: length of the cross-fade at each change of picture, centred on it; 0 is a hard cut.
        shift: layout "shifted": by how much the sound's changes lag behind the picture's; negative is early.
        shift_options: the four shifts that were possible.
        clutter: grey shapes in the picture and clicks in the sound that mean nothing.
        frame_rate, variable_rate, start_time: how a file of the scene is written, see `write_video`.
        edits: interventions made, in order; an edited scene has no questions of its own.
    """

    seed: int
    split: str
    layout: Layout
    duration: int
    pictures: tuple[Picture, ...]
    sounds: tuple[Sound, ...]
    lead_in: int = 0
    fades: tuple[int, ...] = ()
    shift: int = 0
    shift_options: tuple[int, ...] = ()
    clutter: int = 0
    frame_rate: int = 20
    variable_rate: bool = False
    start_time: int = 0
    edits: tuple[str, ...] = ()

    @property
    def video_id(self) -> str:
        return f"{self.split}-{self.seed:08d}"

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The stretches between any two changes, of picture or sound."""
        if len(self.pictures) == len(self.sounds) and all(
            picture.start == sound.start for picture, sound in zip(self.pictures, self.sounds, strict=True)
        ):
            return tuple(
                Segment(picture.start, picture.end, picture, sound)
                for picture, sound in zip(self.pictures, self.sounds, strict=True)
            )
        found, at, of = [], 0, 0
        while at < len(self.pictures) and of < len(self.sounds):
            picture, sound = self.pictures[at], self.sounds[of]
            start, end = max(picture.start, sound.start), min(picture.end, sound.end)
            found.append(Segment(start, end, picture, sound))
            at += picture.end == end
            of += sound.end == end
        return tuple(found)

    def picture_at(self, time: int) -> Picture | None:
        """What is seen at `time` (us); None before the first event and after the last."""
        return next((event for event in self.pictures if event.start <= time < event.end), None)

    def sound_at(self, time: int) -> Sound | None:
        """What is heard at `time` (us)."""
        return next((event for event in self.sounds if event.start <= time < event.end), None)


def possible_ties(segments: int) -> list[str]:
    """Layout ties that a number of segments allows."""
    ties = ["distinct", "shifted"]
    if factor_pairs(segments):
        ties.append("crossed")
    if segments >= 8 and segments % 2 == 0:
        ties += ["picture_twice", "sound_twice"]
    if segments >= 7 and segments % 2 == 1:
        ties.append("apart")
    return ties


def factor_pairs(segments: int) -> list[tuple[int, int]]:
    """(pictures, sounds) of a crossed layout with this many segments, at least two of each."""
    return [(k, segments // k) for k in range(2, segments // 2 + 1) if segments % k == 0 and segments // k >= 2]


def draw_scene(
    spec: Spec, structure: Draw, pictures: Draw, sounds: Draw, attributes: Draw, looks: Draw, **fields
) -> Scene:
    """Draw a scene.

    Args:
        structure: draws the arrangement and the boundaries.
        pictures, sounds: draw which identities take part, and which of them is which.
        attributes: draws motions, copies, glides and pulses, which questions may ask for.
        looks: draws what no question asks for.
        fields: `Scene` fields to set: seed, split, and how a file is written.
    """
    layout, n = spec.layout, spec.segments
    if layout.tie not in possible_ties(n):
        raise ValueError(f"A scene of {n} segments cannot have the layout {layout.tie!r}: one of {possible_ties(n)}.")
    picture_labels, sound_labels = _arrange(layout.tie, n, structure)
    seen = pictures.sample(spec.pictures, max(picture_labels) + 1)
    pool = spec.sounds if layout.rule == "plain" else [kind for kind in spec.sounds if kind != SILENT]
    heard = sounds.sample(pool, max(sound_labels) + 1)
    picture_times, sound_times, shift, options = _lay_out(spec, len(picture_labels), len(sound_labels), structure)
    motions, glides, copies, pulses = _attributes(layout.rule, len(picture_labels), len(sound_labels), attributes)

    offset = spec.lead_in_ticks
    picture_events = tuple(
        Picture(
            (offset + picture_times[at]) * TICK, (offset + picture_times[at + 1]) * TICK, seen[label], motions[at],
            looks.pick(_PLACES), looks.pick(BACKGROUNDS), copies[at],
        )
        for at, label in enumerate(picture_labels)
    )  # fmt: skip
    sound_events = []
    for at, label in enumerate(sound_labels):
        start, end, kind = (offset + sound_times[at]) * TICK, (offset + sound_times[at + 1]) * TICK, heard[label]
        if kind == SILENT:
            sound_events.append(Sound(start, end, kind))
        else:
            loudness, detune = looks.pick(_LOUDNESSES), 0.96 + 0.01 * looks.index(9)
            sound_events.append(Sound(start, end, kind, glides[at], pulses[at], loudness, detune))
    # Half of the changes are hard cuts.
    fades = tuple(max(0, looks.index(6) - 2) * 200_000 for _ in picture_events[1:])
    return Scene(
        layout=layout, duration=picture_events[-1].end, pictures=picture_events, sounds=tuple(sound_events),
        lead_in=offset * TICK, fades=fades, shift=shift * TICK,
        shift_options=tuple(option * TICK for option in options), clutter=spec.clutter, **fields,
    )  # fmt: skip


def _arrange(tie: str, n: int, draw: Draw) -> tuple[list[int], list[int]]:
    """Which picture and which sound each event has, as labels."""
    if tie == "crossed":
        k, m = draw.pick(factor_pairs(n))
        order = draw.sample(range(n), n)
        return [cell // m for cell in order], [cell % m for cell in order]
    if tie == "apart":
        # As many sounds as pictures: who sees the one stream knows how many events the other one has.
        return list(range((n + 1) // 2)), list(range((n + 1) // 2))
    once = list(range(n))
    if tie == "picture_twice":
        return _each_twice(n, draw), once
    if tie == "sound_twice":
        return once, _each_twice(n, draw)
    return once, list(once)


def _each_twice(n: int, draw: Draw) -> list[int]:
    """Uniform over the arrangements of n / 2 labels, each twice, never twice in a row."""
    while True:
        labels = [cell // 2 for cell in draw.sample(range(n), n)]
        if all(before != after for before, after in zip(labels, labels[1:], strict=False)):
            return labels
        draw.rejected()


def _lay_out(spec: Spec, pictures: int, sounds: int, draw: Draw):
    """Boundaries of both streams, the shift and its options, in ticks."""
    if spec.layout.tie == "apart":
        steps = max(pictures, sounds) * round(spec.mean_ticks / STEP_TICKS)
        seen = [STEP_TICKS * step for step in draw.boundaries(steps, pictures, MIN_STEPS)]
        heard = [STEP_TICKS * step + STEP_TICKS // 2 for step in draw.boundaries(steps, sounds, MIN_STEPS)]
        return seen, [0, *heard[1:-1], seen[-1]], 0, ()
    total = pictures * spec.mean_ticks
    if spec.layout.tie != "shifted":
        times = draw.boundaries(total, pictures, MIN_TICKS)
        return times, times, 0, ()
    # The first and the last event are longer, and uniform: their lengths are all that the sound alone tells about the
    # shift, and in this way only a length near the end of what is possible does.
    first, last = (END_TICKS[0] + draw.index(END_TICKS[1] - END_TICKS[0] + 1) for _ in range(2))
    inner = draw.boundaries((pictures - 2) * spec.mean_ticks, pictures - 2, MIN_TICKS) if pictures > 2 else [0]
    cuts = [first + cut for cut in inner]
    end = cuts[-1] + last
    small, large = draw.pick(SHIFT_TICKS), MAX_SHIFT_TICKS
    options = (0, small, -small, large if draw.index(2) else -large)
    shift = draw.pick(options)
    return [0, *cuts, end], [0, *(cut + shift for cut in cuts), end], shift, options


def _attributes(rule: str, pictures: int, sounds: int, draw: Draw):
    """Motions and copies of the pictures, glides and pulses of the sounds."""
    motions = [draw.pick(_PICTURE_MOTIONS) for _ in range(pictures)]
    copies, glides, pulses = [1] * pictures, ["steady"] * sounds, [0] * sounds
    if rule == "plain":
        glides = [draw.pick(_GLIDES) for _ in range(sounds)]
        pulses = [draw.pick(_PLAIN_PULSES) for _ in range(sounds)]
    elif rule == "count":
        copies = _with_four_values(range(1, MAX_COPIES + 1), pictures, draw)
        pulses = _with_four_values(range(1, MAX_PULSES + 1), sounds, draw)
    else:
        # One segment agrees: "when do they agree" has one answer, in open form too.
        agreeing = draw.index(pictures)
        if rule == "direction":
            motions = [draw.pick(tuple(DIRECTIONS)) for _ in range(pictures)]
            others = {"up": "down", "down": "up"}
            glides = [DIRECTIONS[one if at == agreeing else others[one]] for at, one in enumerate(motions)]
        else:
            copies = [1 + draw.index(MAX_COPIES) for _ in range(pictures)]
            pulses = [
                one if at == agreeing else (one + draw.index(MAX_COPIES - 1)) % MAX_COPIES + 1
                for at, one in enumerate(copies)
            ]
    return motions, glides, copies, pulses


def _with_four_values(values: range, count: int, draw: Draw) -> list[int]:
    """Uniform values of which at least four differ, exchangeable over their positions."""
    chosen = draw.sample(values, min(4, count))
    chosen += [draw.pick(values) for _ in range(count - len(chosen))]
    return draw.sample(chosen, count)
