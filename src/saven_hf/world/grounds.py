"""What an answer rests on, said before the answer itself.

"a white diamond: a low horn" is learnt far sooner than "a low horn". A small language model finds a thing by the words
that it has just said; to find it by words that lie somewhere in the question is a look-up of a look-up. Saying first
what the question names, and where a question takes several steps each of them, makes every answer the completion of a
description. The conclusion stands behind the last ": " (our decision).
"""

from __future__ import annotations

from ..savenvideo.times import format_time
from .questions import Question, direction_text, span_text
from .scenes import Scene
from .vocabulary import NUMBER_WORDS, name_of


def grounds(scene: Scene, question: Question) -> str:
    """What the answer to a question rests on, in words.

    Args:
        scene: the scene the question is about.
        question: of `make_questions` or `draw_question`.

    Returns:
        "a white diamond", "from 00:00:01.000 to 00:00:03.000", "a low buzz from ... to ..., from ... to ...", as the
        family of the question asks for.
    """
    family, given = question.family, question.arguments["given"]
    spans = [span_text(*one) for one in question.evidence]
    if family == "in_time":
        changes = (format_time(stream[1].start) for stream in (scene.pictures, scene.sounds))
        return "the picture changes at {}, the sound at {}".format(*changes)
    if family == "when_number_agrees":
        number = NUMBER_WORDS[_picture(scene, question).copies]
        return f"{number} and {number}"
    if family == "when_direction_agrees":
        return direction_text(_picture(scene, question).motion, _sound(scene, question).glide)
    if family in ("when_seen_again", "when_heard_again"):
        found = _picture(scene, question) if family == "when_seen_again" else _sound(scene, question)
        return f"{given} and {name_of(found.kind)} {spans[0]}"
    if question.question_type == "time_range":
        return given
    if family.endswith("_again"):
        # What occurs twice is of the other stream than what is asked for.
        of_sound = family in ("seen_again", "copies_again")
        found = _sound(scene, question) if of_sound else _picture(scene, question)
        return f"{name_of(found.kind)} {spans[0]} and {spans[1]}"
    if question.question_type == "timestamped":
        return spans[0]
    if len(spans) == 2 or family in ("heard_when_appears", "seen_when_begins"):
        return f"{given} {', '.join(spans)}"
    return given


def _picture(scene: Scene, question: Question):
    return scene.picture_at(question.evidence[0][0])


def _sound(scene: Scene, question: Question):
    return scene.sound_at(question.evidence[0][0])
