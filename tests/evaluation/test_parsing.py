"""What an answer is taken to mean."""

import pytest

from saven_hf.data.prompts import multiple_choice_answer
from saven_hf.evaluation.parsing import Choice, interval_iou, lead_of, parse_choice, parse_range, same_words


OPTIONS = ("a red circle", "a blue bar", "two", "from 00:00:01.500 to 00:00:04.000")

CHOICES = [
    # as trained
    ("a red circle (A)", "A", "end", "A"),
    ("from 00:00:01.500 to 00:00:04.000 (D)", "D", "end", "D"),
    ("a blue bar (B).", "B", "end", "B"),
    ("a blue bar [B]", "B", "end", "B"),
    ("It is a red circle (A)", "A", "end", None),
    # the letter counts where words say another thing, and that is noted
    ("a red circle (B)", "B", "end", "A"),
    ("C. a red circle", "C", "start", "A"),
    # letters
    ("D", "D", "letter", None),
    ("d", "D", "letter", None),
    ("D.", "D", "letter", None),
    ("(b)", "B", "letter", None),
    ("**B**", "B", "letter", None),
    ("Answer: C", "C", "letter", None),
    ("The answer is (b).", "B", "letter", None),
    ("The correct option is: C", "C", "letter", None),
    ("Option D", "D", "letter", None),
    # at the start
    ("D. from 00:00:01.500 to 00:00:04.000", "D", "start", "D"),
    ("B) a blue bar", "B", "start", "B"),
    ("(B) a blue bar", "B", "start", "B"),
    ("(B). a blue bar", "B", "start", "B"),
    ("B: a blue bar, since it moves", "B", "start", None),
    ("Answer: A. a red circle", "A", "start", "A"),
    # words
    ("a red circle", "A", "words", "A"),
    ("A red circle.", "A", "words", "A"),
    ("  Two \n", "C", "words", "C"),
    ("Answer: a blue bar", "B", "words", "B"),
    ("from 00:00:01.500 to 00:00:04.000", "D", "words", "D"),
    # the conclusion of an answer that says first what it rests on
    ("a low horn from 00:00:00.000 to 00:00:01.500: a blue bar", "B", "words", "B"),
    ("a low horn: from 00:00:01.500 to 00:00:04.000", "D", "words", "D"),
    ("a blue bar: two red circles", None, "", None),
    # unparsable
    ("", None, "", None),
    ("E", None, "", None),
    ("a green circle (E)", None, "", None),
    ("a red", None, "", None),
    ("a red circle or a blue bar", None, "", None),
    ("A red bar", None, "", None),
    ("I cannot tell.", None, "", None),
    ("A or B", None, "", None),
    ("from 00:00:01.500 to 00:00:04.001", None, "", None),
]


@pytest.mark.parametrize("text, letter, rule, worded", CHOICES)
def test_choice(text, letter, rule, worded):
    assert parse_choice(text, OPTIONS) == Choice(letter, rule, worded)


def test_what_training_writes_is_read_back():
    for at, letter in enumerate("ABCD"):
        assert parse_choice(multiple_choice_answer(OPTIONS, letter), OPTIONS) == Choice(letter, "end", "ABCD"[at])


def test_options_that_read_alike_are_told_by_letter_only():
    assert parse_choice("one", ("one", "One", "two", "three")).letter is None
    assert parse_choice("one (B)", ("one", "One", "two", "three")).letter == "B"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("from 00:00:02.500 to 00:00:04.000", (2_500_000, 4_000_000)),
        ("It lasts from 00:00:02.500 to 00:00:04.000, then it ends at 00:01:00.000.", (2_500_000, 4_000_000)),
        ("at 00:00:02.500", None),
        ("from 00:00:04.000 to 00:00:04.000", None),
        ("a low buzz", None),
        ("", None),
    ],
)
def test_range(text, expected):
    assert parse_range(text) == expected


@pytest.mark.parametrize(
    "answer, expected", [((0, 4), 1.0), ((2, 4), 0.5), ((2, 6), 1 / 3), ((4, 8), 0.0), (None, 0.0)]
)
def test_iou(answer, expected):
    assert interval_iou(answer, (0, 4)) == pytest.approx(expected)


def test_exact_words():
    assert same_words(" A low  buzz.\n", "a low buzz")
    assert same_words("a red circle: a low buzz", "a low buzz") and not same_words("a low buzz: silence", "a low buzz")
    assert not same_words("a low buzz that rises", "a low buzz")


@pytest.mark.parametrize(
    "answer, lead",
    [
        ("a low hiss from 00:00:02.000 to 00:00:05.000: a red bar", "a low hiss from 00:00:02.000 to 00:00:05.000: "),
        ("a red bar: from 00:00:02.000 to 00:00:05.000", "a red bar: "),
        ("from 00:00:02.000 to 00:00:05.000", ""),
        ("a red circle (D)", ""),
        ("", ""),
    ],
)
def test_what_leads_up_to_an_answer(answer, lead):
    assert lead_of(answer) == lead
