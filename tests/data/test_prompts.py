"""How questions are put and answered in multiple choice."""

import pytest

from saven_hf.data.prompts import multiple_choice_answer, multiple_choice_prompt
from saven_hf.world import make_questions, sample_scene


OPTIONS = ["a red circle", "a low buzz", "silence", "from 00:00:01.000 to 00:00:02.500"]


def test_options_stand_below_the_question():
    assert multiple_choice_prompt("What is it?", OPTIONS[:2]) == "What is it?\nA. a red circle\nB. a low buzz"


def test_the_answer_is_words_then_letter():
    assert multiple_choice_answer(OPTIONS, "D") == "from 00:00:01.000 to 00:00:02.500 (D)"


def test_the_world_asks_in_the_same_words():
    for question in make_questions(sample_scene(seed=3, split="iid")):
        if question.options:
            assert question.prompt() == multiple_choice_prompt(question.text, question.options)


@pytest.mark.parametrize(
    "options, letter, names",
    [
        (OPTIONS, "E", "'E'"),
        (OPTIONS, "d", "'d'"),
        (OPTIONS, "", "''"),
        (OPTIONS, "AB", "'AB'"),
        (OPTIONS[:1], "A", "not 1"),
        ([*"abcdefghijklmnopqrstuvwxyzz"], "A", "not 27"),
        ("abcd", "A", "list"),
        (["one", " "], "A", "Option B"),
        (["one\nB. two", "three"], "A", "Option A"),
    ],
)
def test_what_makes_no_choice_is_refused(options, letter, names):
    with pytest.raises(ValueError, match=names):
        multiple_choice_answer(options, letter)


def test_an_empty_question_is_refused():
    with pytest.raises(ValueError, match="empty"):
        multiple_choice_prompt(" ", OPTIONS)
