"""Pictures of a scene: frames at any times and of any size, drawn with numpy from distance functions.

Lengths are fractions of the shorter side of the frame, with x to the right and y down. A shape's edge is smoothed
over one pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .scenes import Picture, Scene
from .splits import generator
from .vocabulary import COLOURS, PLACES


_CELL = (0.25, 0.5, 0.75)  # centres of columns and rows
_PATH = (0.22, 0.78)  # where a crossing begins and ends
SCALES = (0.4, 1.15)  # of a shape that grows, at its start and end
_RADIUS, _SMALL_RADIUS, _CLUTTER_RADIUS, _CLUTTER_GREY = 0.17, 0.1, 0.03, 150.0
# Centres of several copies around their common place.
_OFFSETS = {
    1: ((0.0, 0.0),),
    2: ((-0.12, 0.0), (0.12, 0.0)),
    3: ((0.0, -0.11), (-0.12, 0.1), (0.12, 0.1)),
    4: ((-0.12, -0.12), (0.12, -0.12), (-0.12, 0.12), (0.12, 0.12)),
}


def render_frames(scene: Scene, times: Sequence[int], size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """What is on screen at given times.

    Args:
        times: microseconds, in any order. Before the first event the picture is black; after the last one it stays.
        size: (height, width) in pixels.

    Returns:
        (frames, 3, height, width) uint8, RGB.
    """
    times = np.asarray(times, dtype=np.int64)
    starts = np.array([event.start for event in scene.pictures])
    current = np.searchsorted(starts, times, side="right") - 1
    frames = np.zeros((len(times), 3, *size), dtype=np.uint8)
    clutter = _clutter(scene, size)
    for at in np.unique(current[current >= 0]):
        rows = np.flatnonzero(current == at)
        frames[rows] = _draw_event(scene.pictures[at], times[rows], size, clutter)
    for at, length in enumerate(scene.fades):
        _cross_fade(frames, scene, at, length, times, clutter)
    return frames


def _cross_fade(frames: np.ndarray, scene: Scene, at: int, length: int, times: np.ndarray, clutter) -> None:
    """Mix the frames around the change after event `at` with the event on the other side of it, in place."""
    change = scene.pictures[at].end
    rows = np.flatnonzero(np.abs(times - change) * 2 < length)
    if not len(rows):
        return
    size = frames.shape[2:]
    share = ((times[rows] - change) / length + 0.5).astype(np.float32)[:, None, None, None]
    before = _draw_event(scene.pictures[at], times[rows], size, clutter).astype(np.float32)
    after = _draw_event(scene.pictures[at + 1], times[rows], size, clutter)
    frames[rows] = np.rint(before + share * (after - before))


class Pose(NamedTuple):
    """Where the shapes of a picture are: their common centre and their scale, each `(times,)`.

    x and y are fractions of the shorter side of the frame, from the left and top of its central square.
    """

    x: np.ndarray
    y: np.ndarray
    scale: np.ndarray


def pose(event: Picture, times: np.ndarray) -> Pose:
    """The pose of a picture at times in microseconds; outside of the event its first or last one."""
    phase = np.clip((np.asarray(times) - event.start) / (event.end - event.start), 0, 1)
    column, row = PLACES[event.place]
    x, y = np.full_like(phase, _CELL[column]), np.full_like(phase, _CELL[row])
    along = _PATH[0] + (_PATH[1] - _PATH[0]) * phase
    scale = np.ones_like(phase)
    if event.motion in ("left", "right"):
        x = along if event.motion == "right" else 1 - along
    elif event.motion in ("up", "down"):
        y = along if event.motion == "down" else 1 - along
    elif event.motion in ("grow", "shrink"):
        grown = phase if event.motion == "grow" else 1 - phase
        scale = SCALES[0] + (SCALES[1] - SCALES[0]) * grown
    return Pose(x, y, scale)


def fade_at(scene: Scene, time: int) -> tuple[Picture, Picture, float] | None:
    """What is mixed at `time` (us): the picture before, the one after and its share of the mix; None if nothing is."""
    for at, length in enumerate(scene.fades):
        since = time - scene.pictures[at].end
        if abs(since) * 2 < length:
            return scene.pictures[at], scene.pictures[at + 1], since / length + 0.5
    return None


def _draw_event(event: Picture, times: np.ndarray, size: tuple[int, int], clutter: np.ndarray | None) -> np.ndarray:
    """Frames of one event, (frames, 3, height, width) uint8; times outside it show its first or last state."""
    if event.motion == "still":
        return np.repeat(_draw_poses(event, pose(event, times[:1]), size, clutter), len(times), axis=0)
    return _draw_poses(event, pose(event, times), size, clutter)


def _draw_poses(event: Picture, poses: Pose, size: tuple[int, int], clutter: np.ndarray | None) -> np.ndarray:
    """Frames of an event in some poses."""
    x, y, scale = poses
    height, width = size
    side = min(size)
    radius = (_RADIUS if event.copies == 1 else _SMALL_RADIUS) * scale
    mask = np.zeros((len(x), height, width), dtype=np.float32)
    pixel_x = ((np.arange(width) + 0.5 - (width - side) / 2) / side).astype(np.float32)
    pixel_y = ((np.arange(height) + 0.5 - (height - side) / 2) / side).astype(np.float32)
    shape = _SHAPES[event.kind.shape]
    for offset_x, offset_y in _OFFSETS[event.copies]:
        local_x = (pixel_x - (x + offset_x * scale)[:, None]) / radius[:, None]
        local_y = (pixel_y - (y + offset_y * scale)[:, None]) / radius[:, None]
        distance = shape(local_x.astype(np.float32)[:, None, :], local_y.astype(np.float32)[:, :, None])
        distance *= -(radius * side).astype(np.float32)[:, None, None]
        distance += 0.5
        np.maximum(mask, np.clip(distance, 0, 1, out=distance), out=mask)

    background = _BACKGROUNDS[event.background](*size).astype(np.float32)
    if clutter is not None:
        background = background + clutter * (_CLUTTER_GREY - background)
    frames = np.empty((len(x), 3, height, width), dtype=np.uint8)
    for channel, level in enumerate(COLOURS[event.kind.colour]):
        frames[:, channel] = background + mask * (level - background) + 0.5
    return frames


def _clutter(scene: Scene, size: tuple[int, int]) -> np.ndarray | None:
    """Coverage (height, width) of the small grey squares, or None without any."""
    if not scene.clutter:
        return None
    height, width = size
    rng = generator(scene.split, scene.seed, "clutter")
    mask = np.zeros(size, dtype=np.float32)
    for x, y in rng.uniform(0.04, 0.96, (scene.clutter, 2)):
        across = np.abs((np.arange(width) + 0.5) / width - x) * width
        down = np.abs((np.arange(height) + 0.5) / height - y) * height
        inside = _CLUTTER_RADIUS * min(size) - np.maximum(across[None, :], down[:, None])
        np.maximum(mask, np.clip(inside + 0.5, 0, 1), out=mask)
    return mask


# ---------------------------------------------------------------------------------------------------------------------
# Shapes: signed distance to the edge in units of the radius, negative inside; x (..., 1, w) and y (..., h, 1)


def _circle(x, y):
    return np.sqrt(x * x + y * y) - 1


def _square(x, y):
    return np.maximum(np.abs(x), np.abs(y)) - 0.85


def _triangle(x, y):
    return np.maximum(0.87 * np.abs(x) - 0.49 * (y + 1), y - 0.75)


def _diamond(x, y):
    return (1.35 * np.abs(x) + np.abs(y) - 1.1) / 1.68


def _cross(x, y):
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1, y - 0.33), np.maximum(y - 1, x - 0.33))


def _ring(x, y):
    return np.abs(np.sqrt(x * x + y * y) - 0.75) - 0.25


def _star(x, y):
    radius = np.sqrt(x * x + y * y)
    cosine = -y / np.maximum(radius, 1e-6)  # of the angle from straight up; cos(5 a) gives five points
    square = cosine * cosine
    return 0.7 * (radius - 0.72 - 0.33 * cosine * ((16 * square - 20) * square + 5))


def _bar(x, y):
    return np.maximum(np.abs(x) - 0.95, np.abs(y) - 0.33)


_SHAPES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
    "bar": _bar,
}


# ---------------------------------------------------------------------------------------------------------------------
# Backgrounds: grey levels (height, width) of at most 90, so that shapes and clutter stand out


def _bands(count: int) -> np.ndarray:
    """Eight dark and eight light bands over `count` pixels."""
    return (np.arange(count) * 16 // count) % 2 == 1


def _striped(height, width):
    return np.broadcast_to(np.where(_bands(width), 75.0, 25.0), (height, width))


def _checked(height, width):
    return np.where(_bands(height)[:, None] ^ _bands(width)[None, :], 75.0, 25.0)


def _dotted(height, width):
    return np.where(_bands(height)[:, None] & _bands(width)[None, :], 90.0, 20.0)


def _shaded(height, width):
    return np.broadcast_to(np.linspace(10.0, 90.0, height)[:, None], (height, width))


_BACKGROUNDS = {
    "black": lambda height, width: np.zeros((height, width)),
    "grey": lambda height, width: np.full((height, width), 70.0),
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
    "shaded": _shaded,
}
