"""The world's splits as benchmarks, and the run over splits and controls that a trained model is judged by."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..version import __version__
from ..world import Question, Scene, make_questions, sample_scene, write_video
from ..world.splits import split_named
from .adapters import Adapter, MemoryAdapter
from .benchmarks import Benchmark, Item
from .evaluate import evaluate


DEFAULT_VIDEOS, DEFAULT_PER_FORMAT = 400, 3
QUESTION_TYPES = ("global", "timestamped", "time_range")
_MOST_ROUNDS = 40


class WorldBenchmark(Benchmark):
    """Questions on scenes of one split, as real mp4 files.

    Every question is asked twice where it can be: as multiple choice and in open form. Questions come from several
    rounds of `make_questions`, so that their mixture of families is the world's own.

    Args:
        split: a name in `saven_hf.world.SPLITS`.
        videos: how many; their scene seeds are seed, seed + 1, ...
        media_dir: where the files are; those that are not there yet are rendered.
        per_format: questions of each of the paper's three formats on a video; a scene that has not enough different
            ones gives fewer.
        forms: of "choice" and "open".
        size: (height, width) of the pictures.

    Raises:
        ValueError: an unknown split or form, or `videos` below 1.
    """

    keeps_edits = True

    def __init__(
        self,
        split: str,
        videos: int,
        media_dir: str | os.PathLike,
        seed: int = 0,
        per_format: int = DEFAULT_PER_FORMAT,
        forms: Sequence[str] = ("choice", "open"),
        size: tuple[int, int] = (64, 64),
    ):
        split_named(split)
        if videos < 1:
            raise ValueError(f"A benchmark has at least one video; {videos} were asked for.")
        if not forms or set(forms) - {"choice", "open"}:
            raise ValueError(f"Questions are asked in the forms 'choice' and 'open', not {list(forms)}.")
        self.name, self.split, self.media_dir = f"world-{split}", split, Path(media_dir)
        self.per_format, self.forms, self.size = per_format, tuple(forms), tuple(size)
        self.settings = {"seed": seed, "per_format": per_format, "forms": list(forms), "size": list(size)}
        self._seeds = {sample_scene(number, split).video_id: number for number in range(seed, seed + videos)}
        self.video_ids = list(self._seeds)

    def scene(self, video_id: str) -> Scene:
        return sample_scene(self._seeds[video_id], self.split)

    def media(self, video_id: str) -> Path:
        return rendered(self.scene(video_id), self.media_dir, self.size)

    def media_hash(self, video_id: str) -> str:
        """Of the scene: encoders promise no bytes."""
        return f"scene:{scene_checksum(self.scene(video_id), self.size)}"

    def items(self, video_id: str) -> list[Item]:
        items, open_texts = [], set()
        for number, question in enumerate(_questions(self.split, self._seeds[video_id], self.per_format)):
            tags = {
                "question_type": question.question_type,
                "category": question.category,
                "needs": question.needs,
                "family": question.family,
            }
            identity = f"{video_id}-{number}"
            if "choice" in self.forms and question.options:
                chance = {name: round(level, 6) for name, level in question.chance._asdict().items()}
                items.append(
                    Item(
                        f"{identity}-choice", video_id, "choice", question.text, question.answer, question.options,
                        tags, chance,
                    )
                )  # fmt: skip
            # Two choices may differ in their options alone.
            if "open" in self.forms and question.text not in open_texts:
                open_texts.add(question.text)
                form = "range" if question.question_type == "time_range" else "words"
                items.append(Item(f"{identity}-open", video_id, form, question.text, question.answer_text, tags=tags))
        return items


def _questions(split: str, seed: int, per_format: int) -> tuple[Question, ...]:
    """The first `per_format` questions of each format, from as many rounds as it takes; none is asked twice."""
    scene, taken = sample_scene(seed, split), {question_type: {} for question_type in QUESTION_TYPES}
    for number in range(_MOST_ROUNDS):
        for question in make_questions(scene, round=number):
            found = taken[question.question_type]
            if len(found) < per_format:
                found.setdefault(question.prompt(), question)
        if all(len(found) == per_format for found in taken.values()):
            break
    return tuple(question for found in taken.values() for question in found.values())


def scene_checksum(scene: Scene, size: tuple[int, int]) -> str:
    """Of everything that makes a scene's file."""
    return f"{zlib.crc32(repr((__version__, size, scene)).encode()):08x}"


def rendered(scene: Scene, media_dir: Path, size: tuple[int, int]) -> Path:
    """The mp4 file of a scene, written if it is not there.

    Its name holds a checksum of the scene, so that a folder filled by another version is never taken for this one's.
    """
    path = Path(media_dir) / scene.split / f"{scene.video_id}-{scene_checksum(scene, size)}.mp4"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(scene, path, size)
    return path


def evaluate_world(
    model,
    processor,
    out_dir: str | os.PathLike,
    splits: Sequence[str] = ("iid",),
    controls: Sequence[str] = (),
    videos: int = DEFAULT_VIDEOS,
    media_dir: str | os.PathLike | None = None,
    seed: int = 0,
    per_format: int = DEFAULT_PER_FORMAT,
    forms: Sequence[str] = ("choice", "open"),
    progress: bool = True,
    protocols: Sequence[str] = ("generate",),
    **options,
) -> dict[str, Any]:
    """Ask a model about held-out videos of the world; run again, it goes on where it stopped.

    Writes what `evaluate` writes, with `items/world-iid.plain.jsonl` and its like for each split and control.

    Args:
        model, processor: as `saven_hf.load` gives them.
        out_dir: folder of this run.
        splits: names in `saven_hf.world.SPLITS`; the others are compared with the first.
        controls: see `control_named`; each is run on every split, beside the plain run, with the forms of questions
            that say something under it (`Control.forms`).
        videos: how many of each split.
        media_dir: where video files are kept, which may be shared between runs; `out_dir`/videos if None.
        seed: scene seed of the first video.
        per_format: questions of each of the three formats on a video.
        forms: of "choice" and "open".
        protocols: see `evaluate`.
        options: `batch_size`, `max_new_tokens`, and how frames are sampled, see `MemoryAdapter`.

    Returns:
        What `summary.json` holds, see `summarise`: "accuracy" is that of multiple choice, without control, on the
        first split.

    Raises:
        ValueError: a split, control or form that does not exist.
        RunMismatchError: `out_dir` holds a run of another model or with other settings.
    """
    return evaluate_with(
        MemoryAdapter(model, processor, **options),
        out_dir,
        splits,
        controls,
        videos,
        media_dir,
        seed=seed,
        per_format=per_format,
        forms=forms,
        progress=progress,
        protocols=protocols,
    )


def evaluate_with(
    adapter: Adapter,
    out_dir: str | os.PathLike,
    splits: Sequence[str],
    controls: Sequence[str],
    videos: int = DEFAULT_VIDEOS,
    media_dir: str | os.PathLike | None = None,
    seed: int = 0,
    per_format: int = DEFAULT_PER_FORMAT,
    forms: Sequence[str] = ("choice", "open"),
    progress: bool = True,
    protocols: Sequence[str] = ("generate",),
) -> dict[str, Any]:
    """`evaluate_world` for any adapter."""
    folder = Path(media_dir) if media_dir is not None else Path(out_dir) / "videos"
    worlds = [WorldBenchmark(split, videos, folder, seed, per_format, forms) for split in splits]
    return evaluate(
        worlds, adapter, out_dir, controls, protocols, progress, "The world", lambda control: control.forms
    )
