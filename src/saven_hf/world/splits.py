"""Splits: which scenes are trained on, and in which way each held-out split differs from them.

The seed of a scene is (split, number), so no two splits share a scene whatever numbers are asked for, and everything
about a scene (questions, captions, file) follows from these two.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from .scenes import Draw, Layout, Scene, Spec, draw_scene, possible_ties
from .vocabulary import PICTURE_GROUPS, SILENT, SOUND_GROUPS


TRAINED_SEGMENTS = (4, 10)
TRAINED_MEAN_TICKS = (20, 40)  # mean length of a segment in 100 ms: scenes of 8 to 40 s

# Layouts and how often each is drawn where the number of segments allows it. Crossed layouts and the rules of
# agreement weigh most: with them, no modality alone knows when something happens.
LAYOUT_WEIGHTS = {
    Layout("distinct", "plain"): 1,
    Layout("distinct", "count"): 2,
    Layout("distinct", "direction"): 4,
    Layout("distinct", "number"): 4,
    Layout("crossed", "plain"): 7,
    Layout("picture_twice", "plain"): 2,
    Layout("sound_twice", "plain"): 2,
    Layout("picture_twice", "count"): 3,
    Layout("sound_twice", "count"): 3,
    Layout("apart", "plain"): 2,
    Layout("shifted", "plain"): 2,
}


@dataclass(frozen=True)
class Split:
    """How the scenes of a split are drawn.

    Attributes:
        description: one line for cards.
        held_out: not for training, neither of the model nor of its language model.
        segments: smallest and largest number of segments.
        segment_scale: factor on the length of segments.
        unseen_pairs: pictures and sounds that training never shows together.
        lead_in_ticks: largest black and silent start, in 100 ms; 0 for none, else at least 2 s.
        clutter: smallest and largest number of grey shapes and clicks.
        variable_rate, start_time: how files are written (`write_video`); start_time is the latest first PTS in us.
        held_out_paraphrases: questions and captions use wordings that training never uses.
    """

    description: str
    held_out: bool = True
    segments: tuple[int, int] = TRAINED_SEGMENTS
    segment_scale: int = 1
    unseen_pairs: bool = False
    lead_in_ticks: int = 0
    clutter: tuple[int, int] = (0, 1)
    variable_rate: bool = False
    start_time: int = 0
    held_out_paraphrases: bool = False


SPLITS: dict[str, Split] = {
    "train": Split("what is trained on: 4 to 10 segments, mostly 8 to 40 s", held_out=False),
    "iid": Split("drawn as `train`"),
    "unseen_pairs": Split("pictures and sounds that never occur together in training", unseen_pairs=True),
    "long2": Split("2 x longer: twice as many segments", segments=(8, 20)),
    "long4": Split("4 x longer: twice as many segments, each twice as long", segments=(8, 20), segment_scale=2),
    "shifted_start": Split(
        "2 to 20 s of black and silence before the first event; the file's own clock does not start at 0",
        lead_in_ticks=200,
        start_time=60_000_000,
    ),
    "vfr": Split("variable frame rate: 25 to 125 ms between frames", variable_rate=True),
    "distractors": Split(
        "3 to 6 grey shapes in the picture and clicks in the sound that mean nothing", clutter=(3, 6)
    ),
    "paraphrases": Split("wordings of questions and captions that training never uses", held_out_paraphrases=True),
}


def split_named(name: str) -> Split:
    """A split by name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in SPLITS:
        raise ValueError(f"There is no split {name!r}: choose one of {', '.join(SPLITS)}.")
    return SPLITS[name]


def generator(split: str, seed: int, purpose: str) -> np.random.Generator:
    """The random numbers of one scene for one purpose ("scene", "questions", "captions", "sound" ...)."""
    if seed < 0:
        raise ValueError(f"A seed is an integer of at least 0, not {seed}.")
    # crc32 rather than hash(): the latter differs from process to process.
    return np.random.default_rng([zlib.crc32(split.encode()), zlib.crc32(purpose.encode()), seed])


def sample_scene(
    seed: int,
    split: str = "train",
    segments: int | tuple[int, int] | None = None,
    layout: Layout | str | None = None,
) -> Scene:
    """Draw a scene; the same arguments always give the same scene.

    Args:
        seed: any integer of at least 0.
        split: a name in `SPLITS`.
        segments: number of segments, or the smallest and the largest, 2 to 20; None for the split's own. Scenes of 2
            and 3 segments are for a curriculum: most of their questions have no four options.
        layout: a `Layout`, or the name of its tie; None draws one.

    Returns:
        A `Scene`, times in microseconds.

    Raises:
        ValueError: a split, a number of segments or a layout that does not exist, or does not go with the others.
    """
    spec = split_named(split)
    low, high = spec.segments if segments is None else (segments, segments) if isinstance(segments, int) else segments
    if not 2 <= low <= high <= 20:
        raise ValueError(f"A scene has 2 to 20 segments; {low} to {high} were asked for.")
    draw = Draw(generator(split, seed, "scene"))
    choices = _layouts(low, high, layout)
    count = draw.pick(tuple(choices))
    chosen = draw.pick(choices[count])

    group = draw.index(2)
    pictures, sounds = PICTURE_GROUPS[group], SOUND_GROUPS[group ^ spec.unseen_pairs] + (SILENT,)
    shortest, longest = (ticks * spec.segment_scale for ticks in TRAINED_MEAN_TICKS)
    drawn = Spec(
        chosen,
        count,
        pictures,
        sounds,
        mean_ticks=shortest + draw.index(longest - shortest + 1),
        lead_in_ticks=20 + draw.index(spec.lead_in_ticks - 19) if spec.lead_in_ticks else 0,
        clutter=spec.clutter[0] + draw.index(spec.clutter[1] - spec.clutter[0] + 1),
    )
    return draw_scene(
        drawn,
        draw,
        draw,
        draw,
        draw,
        draw,
        seed=seed,
        split=split,
        variable_rate=spec.variable_rate,
        start_time=1_000_000 * (1 + draw.index(spec.start_time // 1_000_000)) if spec.start_time else 0,
    )


_LAYOUTS: dict[tuple, dict[int, tuple[Layout, ...]]] = {}


def _layouts(low: int, high: int, layout: Layout | str | None) -> dict[int, tuple[Layout, ...]]:
    """Layouts that can be drawn for each number of segments, each as often as it weighs."""
    key = (low, high, layout)
    if key not in _LAYOUTS:
        found = {}
        for count in range(low, high + 1):
            allowed = []
            for one, weight in LAYOUT_WEIGHTS.items():
                if one.tie not in possible_ties(count) or layout not in (None, one, one.tie):
                    continue
                # Rules need four segments to choose from; two or three segments are for looking things up.
                if count < 4 and one not in (Layout("distinct", "plain"), Layout("shifted", "plain")):
                    continue
                allowed += [one] * weight
            if allowed:
                found[count] = tuple(allowed)
        if not found:
            raise ValueError(f"No scene of {low} to {high} segments has the layout {layout!r}.")
        _LAYOUTS[key] = found
    return _LAYOUTS[key]
