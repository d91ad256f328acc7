"""`saven demo`: an unseen video, questions in the paper's formats, answers beside the truth, and a picture of all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .ask import Fed, VideoSession
from .data.prompts import multiple_choice_answer, multiple_choice_prompt
from .evaluation.parsing import conclusion, parse_choice
from .hub import load
from .savenvideo.times import format_time, parse_spans
from .timeline import SpanRow, draw_timeline, one_line
from .world import Question, Scene, make_questions, sample_scene, write_video


SPLIT = "iid"  # drawn as the training scenes are, and held out
# The film strip should be sharp; the model's processor scales frames down to what it was trained on.
HEIGHT = WIDTH = 128
MAX_NEW_TOKENS = 96


@dataclass(frozen=True)
class DemoAnswer:
    """What a model answered to a question of the world.

    Attributes:
        answer: its whole answer: what it rests on, then the conclusion.
        right: whether it names the right option, by the rules of `saven eval`.
    """

    question: Question
    answer: str
    right: bool

    @property
    def truth(self) -> str:
        return multiple_choice_answer(self.question.options, self.question.answer)

    def span_row(self) -> SpanRow:
        """The question as a row of the picture."""
        return SpanRow(
            self.question.text,
            conclusion(one_line(self.answer)),
            self.question.answer_text,
            self.right,
            asked=_seconds(parse_spans(self.question.text)),
            true=_seconds(self.question.evidence),
            answered=_seconds(parse_spans(self.answer)),
        )


@dataclass(frozen=True)
class Demo:
    """What a demo made.

    Attributes:
        video, picture: the files written.
        fed: what the model was given.
    """

    scene: Scene
    video: Path
    picture: Path
    answers: list[DemoAnswer]
    fed: Fed

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(answer.right for answer in self.answers)


def demo(
    model=None,
    device: str | None = None,
    out: str | os.PathLike = "saven-demo",
    seed: int = 0,
    progress: bool = True,
) -> Demo:
    """Render an unseen video of the world, ask a model about it, and draw what came out.

    Args:
        model: folder or Hub id, None for the embedded tiny model; or `(model, processor)` as `load` gives them.
        device: a torch device.
        out: folder for the video and the picture; made where it does not exist.
        seed: of the scene; another number is another video.
        progress: print questions and answers as they come.

    Raises:
        FileExistsError: `out` is a file.
        ValueError: a negative seed.
    """
    scene = sample_scene(seed, SPLIT)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{os.fspath(out)!r} is a file: name a folder for the video and the picture.")
    say = print if progress else _say_nothing
    model, processor = model if isinstance(model, tuple) else load(model, device)

    folder.mkdir(parents=True, exist_ok=True)
    video = folder / f"{scene.video_id}.mp4"
    write_video(scene, video, (HEIGHT, WIDTH))
    say(
        f"{video}: {scene.duration / 1e6:.1f} s of H.264 and AAC, {len(scene.pictures)} pictures and "
        f"{len(scene.sounds)} sounds; not a scene of training"
    )
    session = VideoSession(video, model, processor)
    answers = []
    for number, question in enumerate((one for one in make_questions(scene) if one.options), 1):
        lines = multiple_choice_prompt(question.text, question.options).replace("\n", "\n   ")
        say(f"\n{number}. {lines}")
        answers.append(_ask(session, question))
        say(_verdict(answers[-1]))
    picture = video.with_suffix(".png")
    draw_timeline(video, [answer.span_row() for answer in answers], session.fed.frame_times).savefig(picture)

    result = Demo(scene, video, picture, answers, session.fed)
    blind = sum(answer.question.chance.text for answer in answers)
    say(f"\n{result.right} of {len(answers)} right, where the best guess without the video gets {blind:.1f}")
    say(f"{session.fed}\npicture: {picture}")
    if model.config.notice:
        say(f"\nNote: {model.config.notice}")
    return result


def _say_nothing(text: str) -> None:
    pass


def _ask(session: VideoSession, question: Question) -> DemoAnswer:
    prompt = multiple_choice_prompt(question.text, question.options)
    answer = session.ask(prompt, max_new_tokens=MAX_NEW_TOKENS).answer
    return DemoAnswer(question, answer, parse_choice(answer, question.options).letter == question.answer)


def _verdict(answer: DemoAnswer) -> str:
    moments = ", ".join(
        f"{format_time(start)} to {format_time(end)}" for start, end in sorted(answer.question.evidence)
    )
    return (
        f"   answer  {one_line(answer.answer) or '(nothing)'}   [{'right' if answer.right else 'wrong'}]\n"
        f"   truth   {answer.truth}\n"
        f"   moment  {moments}"
    )


def _seconds(spans: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(start / 1e6, end / 1e6) for start, end in spans]
