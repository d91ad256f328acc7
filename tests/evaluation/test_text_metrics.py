"""Word errors, captions and short answers, against values worked out by hand."""

import pytest

from saven_hf.evaluation import text_metrics
from saven_hf.evaluation.text_metrics import (
    caption_metrics,
    count_word_errors,
    normalise_answer,
    vqa_accuracy,
    word_error_rate,
)


@pytest.mark.parametrize(
    "reference, said, errors, words",
    [
        ("He began.", "he began", 0, 2),
        ("I can't see twenty-two dogs", "I can not see 22 dogs", 0, 6),
        ("rain falls here", "rain here", 1, 3),
        ("rain falls here", "", 3, 3),
        ("hello", "hello there you", 2, 1),
        ("", "something", 1, 0),
    ],
)
def test_word_errors(reference, said, errors, words):
    pytest.importorskip("jiwer")
    assert count_word_errors(reference, said) == (errors, words)


def test_word_error_rate_is_of_the_corpus():
    found = word_error_rate([1, 0], [2, 8], ["a", "b"])
    assert found["value"] == 0.1 and found["clusters"] == 2


CAPTIONS = ["a dog barks loudly", "rain falls on a roof", "two men speak"]
REFERENCES = [
    ["a dog barks loudly", "a dog is barking"], ["rain falls on the roof", "it rains"], ["a bell rings", "bells ring"],
]  # fmt: skip


@pytest.mark.parametrize("java", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_captions(java, monkeypatch):
    pytest.importorskip("pycocoevalcap")
    if java and text_metrics.shutil.which("java") is None:
        pytest.skip("needs Java")
    if not java:
        monkeypatch.setattr(text_metrics.shutil, "which", lambda name: None)
    found = caption_metrics(CAPTIONS, REFERENCES, ["a", "b", "c"])
    assert found["captions"] == 3 and found["tokenizer"] == ("ptb" if java else "simple")
    # Unigrams: 4 + 4 of 12 words are in a reference; no reference is longer than its caption, but one.
    assert found["bleu_1"] == pytest.approx(8 / 12, abs=0.05)
    assert found["rouge_l"]["value"] == pytest.approx((1 + 0.8 + 0) / 3, abs=0.03)
    assert found["cider"]["value"] > 1 and found["cider"]["n"] == 3
    assert ("meteor" in found) == java
    if not java:
        with pytest.raises(text_metrics.MetricUnavailableError, match="Java"):
            caption_metrics(CAPTIONS, REFERENCES, ["a", "b", "c"], spice=True)
    assert caption_metrics([], [], []) == {}


def test_perfect_captions_beat_wrong_ones_and_empty_ones_count(monkeypatch):
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setattr(text_metrics.shutil, "which", lambda name: None)
    truth = [["a dog barks"], ["rain falls"], ["a bell rings"]]
    best = caption_metrics([one[0] for one in truth], truth, list("abc"))
    worst = caption_metrics(["", "a bell rings", "rain falls"], truth, list("abc"))
    assert best["rouge_l"]["value"] == 1 and worst["rouge_l"]["value"] < 0.5
    assert best["cider"]["value"] > worst["cider"]["value"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The Dakota!", "dakota"),
        ("two dogs", "2 dogs"),
        ("5:41", "5:41"),
        ("$3.82", "$3.82"),
        ("1,000", "1000"),
        ("King's Cross", "kings cross"),
        ("a", ""),
    ],
)
def test_answers_are_normalised(text, expected):
    assert normalise_answer(text) == expected


def test_vqa_accuracy_leaves_each_one_out():
    references = ["dakota"] * 2 + ["x"] * 8
    # Leaving out one of the two who agree: 1 of 3; leaving out another: 2 of 3.
    assert vqa_accuracy("Dakota", references) == pytest.approx((2 * (1 / 3) + 8 * (2 / 3)) / 10)
    assert vqa_accuracy("dakota", ["dakota"] * 10) == 1
    assert vqa_accuracy("no", ["No."]) == 1 and vqa_accuracy("yes", ["no"]) == 0
