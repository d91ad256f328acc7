"""The annotator of the procedural world: what is truly there, from the scene that a file was rendered from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...world import SPLITS, Scene, make_questions, sample_scene
from ...world.captions import describe_picture, describe_sound
from ...world.conversations import describe_scene
from ...world.questions import span_text
from ..errors import AnnotatorError
from .base import Annotator, Clip


_NAME = re.compile(r"(?P<split>[a-z0-9_]+)-(?P<seed>\d{8})$")
_KINDS = ("global", "global", "timestamped", "timestamped", "time_range")
_TOLERANCE = 0.1  # seconds by which a file may be longer than its scene: the last frame and codec padding


class OracleAnnotator(Annotator):
    """Truth of videos whose name is that of a scene, as `saven world` writes them: `<split>-<seed>.mp4`.

    Args:
        segments: as in `sample_scene`; those of the world that the files come from.
    """

    name = "oracle"

    def __init__(self, segments: int | tuple[int, int] | None = None):
        self._segments = segments

    @property
    def models(self) -> list[str]:
        return ["oracle"]

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"segments": self._segments}

    def scene_of(self, row: dict) -> Scene:
        """The scene of a row's video.

        Raises:
            AnnotatorError: it is no video of the world, or one of other arguments.
        """
        match = _NAME.search(row["video_id"])
        if match is None or match["split"] not in SPLITS:
            raise AnnotatorError(
                f"{row['video_id']}: only videos of the world have a known truth, and are named such as "
                "'train-00000007'; take another annotator for it."
            )
        scene = sample_scene(int(match["seed"]), match["split"], self._segments)
        if abs(scene.duration / 1e6 - row["duration"]) > _TOLERANCE:
            raise AnnotatorError(
                f"{row['video_id']}: the file lasts {row['duration']:.2f} s and its scene {scene.duration / 1e6:.2f} "
                "s: it was made with other arguments."
            )
        return scene

    def caption(self, row: dict, clips: Sequence[Clip]) -> list[dict]:
        scene = self.scene_of(row)
        return [
            {
                "visual_caption": _told(scene.pictures, clip, describe_picture) or "Nothing is shown.",
                "audio_caption": _told(scene.sounds, clip, describe_sound) or "Nothing is heard.",
            }
            for clip in clips
        ]

    def fuse_segments(self, row: dict) -> list[str]:
        return [f"{one['visual_caption']} {one['audio_caption']}" for one in row["segments"]]

    def fuse_video(self, row: dict) -> dict[str, str | None]:
        scene = self.scene_of(row)
        kinds = {"visual_caption": "visual_captions", "audio_caption": "audio_captions", "av_caption": "captions"}
        return {column: describe_scene(scene, kind) for column, kind in kinds.items()}

    def ask(self, row: dict) -> list[dict]:
        left = [question for question in make_questions(self.scene_of(row))
                if question.options and question.needs == "both"]  # fmt: skip
        asked = []
        for kind in _KINDS:
            question = next((one for one in left if one.question_type == kind), None)
            if question is not None:
                left.remove(question)
                asked.append(
                    {
                        "question": question.text,
                        "options": list(question.options),
                        "answer": question.answer,
                        "question_type": kind,
                        "category": question.category,
                        "evidence": [[start / 1e6, end / 1e6] for start, end in question.evidence],
                    }
                )
        return asked


def _told(events, clip: Clip, describe) -> str:
    """What of a stream lies in a clip, with the times of the part that does."""
    start, end = round(clip.start * 1e6), round(clip.end * 1e6)
    sentences = []
    for event in events:
        first, last = max(event.start, start), min(event.end, end)
        if first < last:
            span = span_text(first, last)
            sentences.append(f"{span[0].upper()}{span[1:]} {describe(event)}.")
    return " ".join(sentences)
