"""Published scripts' rules, quirks included; expected verdicts come from the scripts themselves."""

import pytest
from answer_shapes import OPTIONS, SHAPES

from saven_hf.evaluation import official
from saven_hf.evaluation.parsing import parse_choice


LISTED = [f"{letter}. {option}" for letter, option in zip("ABCD", OPTIONS, strict=True)]


def test_there_are_enough_different_shapes():
    assert len({answer for answer, *_ in SHAPES}) == len(SHAPES) >= 150


@pytest.mark.parametrize("answer, strict, videomme, videollama2", SHAPES)
def test_shapes(answer, strict, videomme, videollama2):
    assert parse_choice(answer, OPTIONS).letter == strict
    assert official.videomme_letter(answer) == videomme
    assert official.videollama2_videomme_letter(answer, LISTED) == videollama2


@pytest.mark.parametrize(
    "answer, letter",
    [
        ("According to the sound, it is B", "A"),
        ("Based on it: C", "B"),
        ("Definitely the violin", "D"),
        ("The best option is A", "A"),  # not removed, but harmless: the first capital is the letter
        ("Best answer: C", "B"),  # not removed either, and its B counts
        ("The correct answer is C", "C"),
        ("the violin", ""),
    ],
)
def test_quirks_of_video_mme(answer, letter):
    assert official.videomme_letter(answer) == letter


def test_quirks_of_videollama2_on_video_mme():
    assert official.videollama2_videomme_letter("I do not know", LISTED) == "C"
    # Without a full stop at the end of the option its last letter is cut off.
    assert official.videollama2_videomme_letter("a violi", LISTED) == "C"
    assert official.videollama2_videomme_letter("the violi", LISTED) == "A"
    with pytest.raises(ValueError, match="not written as"):
        official.videollama2_videomme_letter("x", ["a", "b"])


def test_videollama2_on_closed_answers():
    exact = official.videollama2_exact
    assert exact("Yes.", "yes") and exact("two . .", "two")
    assert not exact(" yes", "yes") and not exact("acoustic guitar", "acoustic_guitar") and not exact("2", "two")
    assert official.videollama2_clotho_binary("Yes", "yes") is True
    assert official.videollama2_clotho_binary("Yes.", "yes") is False
    assert official.videollama2_clotho_binary("dog", "dog") is None


@pytest.mark.parametrize(
    "prediction, answer, classes, right",
    [
        ("Cough", "Cough", official.VOCALSOUND, True),
        ("It is a cough.", "Cough", official.VOCALSOUND, True),
        ("(C)", "Cough", official.VOCALSOUND, True),
        ("c", "Cough", official.VOCALSOUND, True),
        ("C.", "Cough", official.VOCALSOUND, False),
        ("(C) Sigh", "Cough", official.VOCALSOUND, False),
        ("Z", "Cough", official.VOCALSOUND, False),
        ("a scary place", "car", official.TUT2017, True),
        ("N", "tram", official.TUT2017, False),
        ("O", "tram", official.TUT2017, True),
        ("C", "bus", official.TUT2017, False),
    ],
)
def test_videollama2_on_classes(prediction, answer, classes, right):
    assert official.videollama2_contains(prediction, answer, classes) is right


@pytest.mark.parametrize("answer", official.MUSIC_ANSWERS)
def test_every_music_answer_means_itself(answer):
    shapes = [answer, answer.title(), f"{answer}.", answer.replace("_", " "), f"The answer is {answer}."]
    for shape in shapes if answer not in ("yes", "no") else shapes[:-1]:
        assert official.music_answer(shape) == answer, shape


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Acoustic guitars", "acoustic_guitar"),
        ("There are 3 instruments", "three"),
        ("3", "three"),
        ("10", "ten"),
        ("12", "more than ten"),
        ("More than 10", "more than ten"),
        ("Yes, the violin is louder than the piano.", "yes"),
        ("No, it isn't", "no"),
        ("no.", "no"),
        ("The left one", "left"),
        ("On the left", "left"),
        ("Outdoors", "outdoor"),
        ("at the same time", "simultaneously"),
        ("The cello and the violin", None),
        ("guitar", None),
        ("There is no sound", None),
        ("I cannot tell", None),
        ("", None),
        ("none", "zero"),
        ("in the centre", "middle"),
        ("sax", "saxophone"),
        ("The electric-bass", "electric_bass"),
        ("One violin", "violin"),
    ],
)
def test_music_normaliser(text, answer):
    assert official.music_answer(text) == answer
