"""Shift awareness: does a model notice that sound and picture do not belong together in time?

Half of the videos are in time, in the others the sound's changes come early or late by one of several offsets. The
sound is placed as the world's layout "shifted" places it: the first sound begins with the first picture and the last
one ends with the last picture, so that no gap gives the shift away.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..world import Scene, sample_scene
from ..world.scenes import MAX_SHIFT_TICKS, MIN_TICKS, SHIFT_TICKS, TICK
from ..world.splits import split_named
from ..world.wordings import WORDINGS
from .adapters import Adapter, MemoryAdapter
from .benchmarks import Benchmark, Item, Table
from .evaluate import evaluate
from .parsing import normalise
from .report import videos_of
from .statistics import balanced_accuracy, mean_interval
from .tables import percent
from .world import rendered, scene_checksum


OFFSETS = (0.5, 0.6, 0.8, 1.0, 1.3, 1.7, 2.0, 3.0)
TRAINED_OFFSETS = tuple(ticks * TICK / 1e6 for ticks in (*SHIFT_TICKS, MAX_SHIFT_TICKS))
DEFAULT_VIDEOS = 640

_IN_TIME = re.compile(r"\bin (?:time|step|sync)\b|\b(?:together|aligned|synchron(?:ous|ized|ised))\b")
_NOT = re.compile(r"\b(?:not|no|never|isn't|don't|out of)\b")
_LATE, _EARLY = re.compile(r"\b(?:late|later|behind|lags?)\b"), re.compile(r"\b(?:early|earlier|ahead|leads?)\b")


def parse_alignment(text: str) -> str | None:
    """ "in time", "late", "early", "apart" (not in time, without saying how), or None if an answer says none of it."""
    words = normalise(text)
    late, early = bool(_LATE.search(words)), bool(_EARLY.search(words))
    if late != early:
        return "late" if late else "early"
    if late or not _IN_TIME.search(words):
        return "apart" if re.search(r"\bout of (?:time|step|sync)\b", words) else None
    return "apart" if _NOT.search(words) else "in time"


def shifted_scene(scene: Scene, seconds: float) -> Scene:
    """A scene of as many pictures as sounds, with the sound's changes `seconds` after the picture's.

    The first and the last sound become longer or shorter instead of leaving a gap.

    Raises:
        ValueError: the scene has another layout, or its first or last event is too short for this.
    """
    shift = round(seconds * 1e6 / TICK) * TICK
    cuts = [picture.start + shift for picture in scene.pictures[1:]]
    edges = [scene.lead_in, *cuts, scene.duration]
    if len(scene.sounds) != len(scene.pictures):
        raise ValueError(f"{scene.video_id} has {len(scene.pictures)} pictures for {len(scene.sounds)} sounds.")
    if edges[1] - edges[0] < MIN_TICKS * TICK or edges[-1] - edges[-2] < MIN_TICKS * TICK:
        raise ValueError(f"{scene.video_id} begins or ends with too short an event to shift it by {seconds:+g} s.")
    sounds = tuple(
        sound._replace(start=start, end=end) for sound, start, end in zip(scene.sounds, edges, edges[1:], strict=False)
    )
    return replace(scene, sounds=sounds, shift=shift, edits=(*scene.edits, f"sound {shift / 1e6:+.1f} s"))


class SyncBenchmark(Benchmark):
    """Videos of the layout "shifted": every other one is in time, the others take each signed offset in turn.

    Args:
        split: whose scenes and wordings are used.
        videos: how many.
        media_dir: where the files are; those that are not there yet are rendered.
        offsets: seconds, multiples of 0.1; each is used early and late.
        trained: those of them that training had, in seconds, of either sign.
        seed: scene seed to start looking for fitting scenes at.
        size: (height, width) of the pictures.
    """

    keeps_edits = True

    def __init__(
        self,
        split: str,
        videos: int,
        media_dir: str | os.PathLike,
        offsets: Sequence[float] = OFFSETS,
        trained: Sequence[float] = TRAINED_OFFSETS,
        seed: int = 0,
        size: tuple[int, int] = (64, 64),
    ):
        if not offsets or min(offsets) < 0.1:
            raise ValueError(f"Offsets are at least 0.1 s, not {list(offsets)}.")
        if videos < 2:
            raise ValueError(f"A test of shifts has at least two videos; {videos} were asked for.")
        self.name, self.media_dir, self.size = f"sync-{split}", Path(media_dir), tuple(size)
        self.title, self.trained = f"Shift awareness: {split}", tuple(trained)
        self.settings = {"offsets": list(offsets), "seed": seed, "size": list(size)}
        self._wordings = WORDINGS["in_time"][split_named(split).held_out_paraphrases]
        signed = [sign * offset for offset in offsets for sign in (1, -1)]
        self._scenes: dict[str, tuple[Scene, float]] = {}
        while len(self._scenes) < videos:
            number = len(self._scenes)
            offset = 0.0 if number % 2 == 0 else signed[number // 2 % len(signed)]
            # The same scenes fit every offset, so that nothing but the offset differs between them.
            scene = sample_scene(seed, split, layout="shifted")
            seed += 1
            shortest = MIN_TICKS * TICK + round(max(offsets) * 1e6)
            if all(picture.end - picture.start >= shortest for picture in (scene.pictures[0], scene.pictures[-1])):
                self._scenes[scene.video_id] = (shifted_scene(scene, offset), offset)
        self.video_ids = list(self._scenes)

    def media(self, video_id: str) -> Path:
        return rendered(self._scenes[video_id][0], self.media_dir, self.size)

    def media_hash(self, video_id: str) -> str:
        return f"scene:{scene_checksum(self._scenes[video_id][0], self.size)}"

    def items(self, video_id: str) -> list[Item]:
        offset = self._scenes[video_id][1]
        answer = "in time" if offset == 0 else "late" if offset > 0 else "early"
        tags = {"offset": f"{offset:+.1f}"}
        return [
            Item(f"{video_id}-{number}", video_id, "words", question, answer, tags=tags)
            for number, question in enumerate(self._wordings)
        ]

    def score(self, item: Item, output: str) -> dict[str, Any]:
        """ "parsed": see `parse_alignment`; "correct": whether a shift was told from none; "direction": and which."""
        said = parse_alignment(output)
        shifted = item.answer != "in time"
        return {
            "parsed": said,
            "correct": said is not None and (said != "in time") == shifted,
            "direction": said == item.answer,
        }

    def figures(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Balanced accuracy of telling shifted videos from those in time: 0.5 for who cannot tell.

        Returns:
            "balanced_accuracy" over all offsets, "unseen" over those that training had not, and "accuracy", the value
            of the latter if there are such; "false_alarms", the share of videos in time that are called shifted;
            "unparsable" (wrong, and no false alarm); "by_offset", for each signed offset the share that was noticed
            and the share whose direction was told; "by_distance", balanced accuracy for both signs of an offset.
        """
        in_time = [row for row in rows if row["answer"] == "in time"]
        shifted = [row for row in rows if row["answer"] != "in time"]

        def distance(row: dict[str, Any]) -> float:
            return abs(float(row["tags"]["offset"]))

        def balanced(some: list[dict[str, Any]]) -> dict[str, Any]:
            both = [*in_time, *some]
            truth = [row["answer"] != "in time" for row in both]
            return balanced_accuracy(truth, [row["correct"] for row in both], videos_of(both))._asdict()

        def mean(some: list[dict[str, Any]], value) -> dict[str, Any]:
            return mean_interval([float(value(row)) for row in some], videos_of(some))._asdict()

        by_offset = {}
        for offset in sorted({row["tags"]["offset"] for row in shifted}, key=float):
            some = [row for row in shifted if row["tags"]["offset"] == offset]
            by_offset[offset] = {
                "noticed": mean(some, lambda row: row["correct"]),
                "direction": mean(some, lambda row: row["direction"]),
            }
        distances = sorted({distance(row) for row in shifted})
        unseen = [row for row in shifted if distance(row) not in self.trained]
        every, new = balanced(shifted), balanced(unseen) if unseen else None
        return {
            "accuracy": (new or every)["value"],
            "videos": len(set(videos_of(rows))),
            "items": len(rows),
            "balanced_accuracy": every,
            "unseen": new,
            "trained_offsets": list(self.trained),
            "false_alarms": mean(in_time, lambda row: row["parsed"] not in ("in time", None)),
            "unparsable": sum(row["parsed"] is None for row in rows),
            "by_offset": by_offset,
            "by_distance": {
                f"{one:.1f}": balanced([row for row in shifted if distance(row) == one]) for one in distances
            },
        }

    def tables(self, rows: list[dict[str, Any]]) -> list[Table]:
        found = self.figures(rows)
        unseen = percent(found["unseen"]) if found["unseen"] else "-"
        by_offset = [
            [offset, "yes" if abs(float(offset)) in self.trained else "no", percent(one["noticed"]),
             percent(one["direction"])]
            for offset, one in found["by_offset"].items()
        ]  # fmt: skip
        return [
            Table(
                "Shifts of sound against picture",
                ["videos", "balanced accuracy, %", "offsets not trained on, %", "false alarms, %", "unparsable"],
                [[str(found["videos"]), percent(found["balanced_accuracy"]), unseen, percent(found["false_alarms"]),
                  str(found["unparsable"])]],
            ),
            Table("By offset", ["offset, s", "trained on", "noticed, %", "direction told, %"], by_offset),
            Table(
                "By distance",
                ["distance, s", "balanced accuracy, %"],
                [[distance, percent(one)] for distance, one in found["by_distance"].items()],
            ),
        ]  # fmt: skip


def evaluate_sync(
    model,
    processor,
    out_dir: str | os.PathLike,
    split: str = "iid",
    videos: int = DEFAULT_VIDEOS,
    media_dir: str | os.PathLike | None = None,
    offsets: Sequence[float] = OFFSETS,
    trained: Sequence[float] = TRAINED_OFFSETS,
    seed: int = 0,
    progress: bool = True,
    **options,
) -> dict[str, Any]:
    """Ask a model whether sound and picture are in time; run again, it goes on where it stopped.

    Writes what `evaluate` writes; arguments as for `evaluate_world` and `SyncBenchmark`.

    Returns:
        What `summary.json` holds; "accuracy" is the balanced accuracy on offsets that training had not (on all, if
        there are no others).
    """
    adapter = MemoryAdapter(model, processor, **options)
    return evaluate_sync_with(adapter, out_dir, split, videos, media_dir, offsets, trained, seed, progress)


def evaluate_sync_with(
    adapter: Adapter,
    out_dir: str | os.PathLike,
    split: str,
    videos: int = DEFAULT_VIDEOS,
    media_dir: str | os.PathLike | None = None,
    offsets: Sequence[float] = OFFSETS,
    trained: Sequence[float] = TRAINED_OFFSETS,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """`evaluate_sync` for any adapter."""
    folder = Path(media_dir) if media_dir is not None else Path(out_dir) / "videos"
    benchmark = SyncBenchmark(split, videos, folder, offsets, trained, seed)
    return evaluate(benchmark, adapter, out_dir, progress=progress)
