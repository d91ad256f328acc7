"""Stage 1: a video becomes clips, cut where the picture changes for good (paper, sections 3.2 and A.1).

A detector gives every frame a score, high where a new shot begins. Boundaries are the peaks of the score; clips that
are too short, and clips beyond the most that are allowed, are merged over the weakest boundary. Frames are decoded
once, in small pieces, and known by their PTS; of each frame only its time and its score are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..savenvideo.media import Media


MIN_FRAMES, MAX_CLIPS = 50, 20  # paper, A.1
# Our decision: a question about time ranges needs four of them, so a video with fewer shots is split where it changes
# most, as far as the shortest clip allows.
MIN_CLIPS = 4

_SIZE = (18, 32)  # of frames that are compared
_CHUNK = 128  # frames decoded at a time
_WINDOW = 300_000  # us to both sides of a boundary that are compared
_LEVELS = 6  # of each colour channel
_CLOSEST = 600_000  # us between two boundaries


@dataclass(frozen=True)
class FrameScores:
    """What a detector says about all frames of a video.

    Attributes:
        times: (frames,) int64 PTS in microseconds.
        scores: (frames,) float32; a high score: a shot begins with this frame.
        threshold: scores from here on are boundaries.
    """

    times: np.ndarray
    scores: np.ndarray
    threshold: float


class ShotDetector(Protocol):
    """Gives every frame of an opened video its score."""

    @property
    def name(self) -> str:
        """Goes into provenance: the same name, the same scores."""

    def score(self, media: Media) -> FrameScores: ...


@dataclass(frozen=True)
class ChangeDetector:
    """The detector without weights: how much the next 0.3 s differ from the last 0.3 s.

    The joint colour histogram hardly changes when things move and changes when a shot does; pixels tell shots of the
    same colours apart. Comparing stretches instead of neighbouring frames finds cross-fades as well as cuts. Frames
    count as long as they are shown. What moves differs within each stretch as it does between them, so part of the
    difference between the halves of a stretch is taken off: small changes stand out of a picture at rest, and motion
    is none.

    Attributes:
        threshold: of the score, a share of pixels that changed colour; these three were tuned on the procedural world.
        pixel_weight: how much the mean difference of pixels counts beside that of histograms.
        drift_weight: how much of the difference between the halves of a stretch is taken off.
    """

    threshold: float = 0.05
    pixel_weight: float = 1.0
    drift_weight: float = 0.7

    @property
    def name(self) -> str:
        return f"change-{self.threshold:g}-{self.pixel_weight:g}-{self.drift_weight:g}"

    def score(self, media: Media) -> FrameScores:
        times = np.array(media.frame_times(), dtype=np.int64)
        shown = np.diff(times, append=2 * times[-1] - times[-2] if len(times) > 1 else times[-1] + 1)
        scores = np.zeros(len(times), dtype=np.float32)
        held = np.zeros((0, _LEVELS**3 + 3 * _SIZE[0] * _SIZE[1]), dtype=np.float32)
        first = done = 0  # frames held are first, first + 1, ...; those before `done` have their score
        for chunk in decoded(media, times, _SIZE, _CHUNK):
            held = np.concatenate([held, self._features(chunk)])
            last = first + len(held)
            # The frames whose next 0.3 s are all here.
            is_end = last == len(times)
            ready = last if is_end else int(np.searchsorted(times[:last], times[last - 1] - _WINDOW))
            if ready <= done:
                continue
            stretches = _Stretches(held, times[first:last], shown[first:last], np.arange(done - first, ready - first))
            drift = np.maximum(
                stretches.change(-_WINDOW, -_WINDOW // 2, 0), stretches.change(0, _WINDOW // 2, _WINDOW)
            )
            change = stretches.change(-_WINDOW, 0, _WINDOW, nearest=True)
            scores[done:ready] = np.maximum(0, change - self.drift_weight * drift)
            done = ready
            # Of slow video at least one frame before the next that gets its score.
            keep = min(int(np.searchsorted(times, times[min(done, len(times) - 1)] - _WINDOW)), done - 1)
            held, first = held[keep - first :], keep
        return FrameScores(times, scores, self.threshold)

    def _features(self, frames: np.ndarray) -> np.ndarray:
        """(frames, features) float32 whose sum of absolute differences is the change from frame to frame."""
        pixels = frames.reshape(len(frames), -1)
        scaled = pixels * np.float32(self.pixel_weight / 255 / pixels.shape[1])
        return np.concatenate([colour_histograms(frames) / 2, scaled], axis=1)


def decoded(media: Media, times: np.ndarray, size: tuple[int, int], chunk: int) -> Iterator[np.ndarray]:
    """Frames at ascending times as (frames, 3, height, width) uint8, at most `chunk` at a time."""
    for start in range(0, len(times), chunk):
        yield media.frames_at([int(time) for time in times[start : start + chunk]], size, "area")[0].numpy()


def colour_histograms(frames: np.ndarray, levels: int = _LEVELS) -> np.ndarray:
    """Joint histograms of colour; a pixel counts for the eight nearest bins, so that small changes stay small.

    Args:
        frames: (frames, 3, height, width) uint8.

    Returns:
        (frames, levels ** 3) float32, each row sums to 1.
    """
    count = len(frames)
    scaled = frames.reshape(count, 3, -1).astype(np.float32) * ((levels - 1) / 255)
    low = np.minimum(scaled.astype(np.int64), levels - 2)
    share = scaled - low
    rows = np.arange(count)[:, None] * levels**3
    histograms = np.zeros(count * levels**3, dtype=np.float64)
    for corner in np.ndindex(2, 2, 2):
        bins, weight = rows, np.float32(1)
        for channel, (step, factor) in enumerate(zip(corner, (levels**2, levels, 1), strict=True)):
            bins = bins + (low[:, channel] + step) * factor
            weight = weight * (share[:, channel] if step else 1 - share[:, channel])
        histograms += np.bincount(bins.ravel(), weight.ravel(), minlength=count * levels**3)
    return (histograms.reshape(count, -1) / scaled.shape[2]).astype(np.float32)


class _Stretches:
    """Means over stretches of time around frames.

    Args:
        features: (frames, features).
        times, shown: (frames,) PTS, and how long each is shown.
        at: numbers of the frames whose surroundings are compared.
    """

    def __init__(self, features: np.ndarray, times: np.ndarray, shown: np.ndarray, at: np.ndarray):
        self._times, self._at = times, at
        self._time = np.concatenate([[0], np.cumsum(shown)])
        self._sums = np.zeros((len(features) + 1, features.shape[1]))
        np.cumsum(features * shown[:, None], axis=0, out=self._sums[1:])

    def change(self, start: int, middle: int, end: int, nearest: bool = False) -> np.ndarray:
        """Sum of absolute differences between the means from `start` to `middle` and from there to `end`.

        Args:
            start, middle, end: microseconds from each frame.
            nearest: take at least one frame on each side, however far; else a side without frames is no change.
        """
        first, mid, last = (np.searchsorted(self._times, self._times[self._at] + offset)
                            for offset in (start, middle, end))  # fmt: skip
        if nearest:
            first, last = np.minimum(first, np.maximum(mid - 1, 0)), np.maximum(last, mid + 1)
        known = np.flatnonzero((first < mid) & (mid < last))
        first, mid, last = first[known], mid[known], last[known]
        change = np.zeros(len(self._at))
        change[known] = np.abs(self._mean(mid, last) - self._mean(first, mid)).sum(axis=1)
        return change

    def _mean(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        return (self._sums[last] - self._sums[first]) / (self._time[last] - self._time[first])[:, None]


def find_boundaries(found: FrameScores, closest: int = _CLOSEST) -> list[int]:
    """Numbers of the frames with which a new shot begins: peaks of the score, ascending, never frame 0.

    Args:
        closest: least microseconds between two of them; of closer ones the stronger stays.
    """
    times, scores = found.times, found.scores
    candidates = np.flatnonzero(scores >= found.threshold)
    chosen: list[int] = []
    for at in candidates[np.argsort(-scores[candidates], kind="stable")]:
        if at > 0 and all(abs(int(times[at]) - int(times[other])) >= closest for other in chosen):
            chosen.append(int(at))
    return sorted(chosen)


def merge_boundaries(
    boundaries: list[int], scores: np.ndarray, min_frames: int = MIN_FRAMES, max_clips: int = MAX_CLIPS
) -> list[int]:
    """Boundaries that are left when no clip is too short and there are not too many: the weakest go first.

    Args:
        boundaries: first frames of all clips but the first, ascending.
        scores: (frames,) of the detector.
        min_frames: least frames of a clip; a shorter video is one clip.
        max_clips: most clips.
    """
    edges = [0, *boundaries, len(scores)]
    while len(edges) > 2:
        lengths = np.diff(edges)
        inner = range(1, len(edges) - 1)
        beside_short = [at for at in inner if min(lengths[at - 1], lengths[at]) < min_frames]
        if not beside_short and len(lengths) <= max_clips:
            break
        del edges[min(beside_short or inner, key=lambda at: scores[edges[at]])]
    return edges[1:-1]


def split_long(boundaries: list[int], scores: np.ndarray, min_clips: int, min_frames: int) -> list[int]:
    """Boundaries with as many added as `min_clips` needs, each where the picture changes most.

    A stretch in which nothing changes at all is halved. There are fewer where clips would get too short.
    """
    edges = [0, *boundaries, len(scores)]
    while len(edges) - 1 < min_clips:
        allowed = [
            np.arange(start + min_frames, end - min_frames + 1)
            for start, end in zip(edges, edges[1:], strict=False)
            if end - start >= 2 * min_frames
        ]
        if not allowed:
            break
        best = max(allowed, key=lambda frames: (float(scores[frames].max()), len(frames)))
        peak = scores[best].max()
        at = best[len(best) // 2] if peak <= 0 else best[int(np.argmax(scores[best]))]
        edges = sorted([*edges, int(at)])
    return edges[1:-1]


def segment(
    row: dict,
    media: Media,
    detector: ShotDetector | None = None,
    min_frames: int = MIN_FRAMES,
    max_clips: int = MAX_CLIPS,
    min_clips: int = MIN_CLIPS,
) -> dict:
    """The row with its "segments": clips that cover the video, half-open, in seconds.

    Args:
        row: of a video.
        media: the video, opened.
        detector: `ChangeDetector()` by default.
        min_frames, max_clips: paper, A.1.
        min_clips: our decision, see above; 0 leaves shots whole.

    Returns:
        The row with "segments": {"segment", "start", "end", "first_frame", "last_frame" (their PTS), "frames",
        "strength" (score of the boundary at its start; None for the first), "cuts" (PTS of the boundaries inside,
        which were merged away)}, and "events": how many of them there would be if no shot were split for `min_clips`.
    """
    found = (detector or ChangeDetector()).score(media)
    times, scores = found.times, found.scores
    cuts = find_boundaries(found)
    shots = merge_boundaries(cuts, scores, min_frames, max_clips)
    boundaries = split_long(shots, scores, min(min_clips, max_clips), min_frames)
    edges = [0, *boundaries, len(times)]
    segments = []
    for number, (first, last) in enumerate(zip(edges, edges[1:], strict=False)):
        # The first and the last clip also take the sound that lies before and after all frames.
        start = 0 if number == 0 else int(times[first])
        end = media.duration if last == len(times) else int(times[last])
        segments.append(
            {
                "segment": number,
                "start": start / 1e6,
                "end": end / 1e6,
                "first_frame": int(times[first]) / 1e6,
                "last_frame": int(times[last - 1]) / 1e6,
                "frames": last - first,
                "strength": round(float(scores[first]), 6) if number else None,
                "cuts": [int(times[at]) / 1e6 for at in cuts if first < at < last],
            }
        )
    return {**row, "segments": segments, "events": len(shots) + 1}
