"""Videos to try the page with: scenes of the procedural world, whose answers are known."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..evaluation.parsing import interval_iou, parse_range, same_words
from ..world import Question, Scene, make_questions, sample_scene, write_video
from . import AppError


SPLIT = "iid"  # as the training scenes are drawn, and held out
HEIGHT = WIDTH = 128  # sharp enough for a player; the processor scales down to what the model was trained on
SURE = 0.5  # intersection over union from which on a range of time counts as found


@dataclass(frozen=True)
class Example:
    """A scene, by number, and the families of questions that are suggested about it.

    Args:
        title: what visitors choose by.
        seed: of the scene.
        families: see `saven_hf.world.FAMILIES`.
    """

    title: str
    seed: int
    families: tuple[str, ...]

    @cached_property
    def scene(self) -> Scene:
        return sample_scene(self.seed, SPLIT)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        return tuple(make_questions(self.scene, self.families))

    def question(self, text: str) -> Question | None:
        """The suggested question of these words, whose answer is known; None for any other."""
        words = " ".join(text.split())
        return next((question for question in self.questions if question.text == words), None)


_ONE_EACH = ("seen_at", "heard_at", "when_seen", "when_heard")

# Rendered when they are first opened: a second or two each, in place of files that every wheel would carry.
EXAMPLES = (
    Example("Shapes and tones, 14 s", 12, _ONE_EACH),
    Example("Sound out of step, 30 s", 39, _ONE_EACH),
    Example("Counting, 26 s", 42, ("seen_at", "heard_at", "pulses_at", "copies_at")),
)
_rendering = threading.Lock()


def example_named(title: str) -> Example:
    """An example by its title.

    Raises:
        AppError: there is none.
    """
    for example in EXAMPLES:
        if example.title == title:
            return example
    raise AppError(f"There is no example {title!r}: one of {', '.join(example.title for example in EXAMPLES)}.")


def example_file(example: Example, folder: Path) -> Path:
    """The example as mp4 in `folder`, made if it is not there."""
    path = folder / f"{example.scene.video_id}.mp4"
    with _rendering:
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_video(example.scene, path, (HEIGHT, WIDTH))
    return path


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer is right: all its words are, or its range of time overlaps the true one by half or more."""
    if same_words(answer, question.answer_text):
        return True
    if question.question_type != "time_range":
        return False
    return max(interval_iou(parse_range(answer), span) for span in question.evidence) >= SURE
