"""Intervals and tests against closed forms."""

import math

import numpy as np
import pytest

from saven_hf.evaluation.report import summarise_run
from saven_hf.evaluation.statistics import (
    balanced_accuracy,
    difference_interval,
    letter_test,
    mcnemar,
    mean_interval,
    subsampling,
    synergy_interval,
)


RNG = np.random.default_rng(3)
HITS = (RNG.random(1000) < 0.3).astype(float)


def half_width(interval):
    return (interval.high - interval.low) / 2


def binomial_half_width(share, n):
    return 1.96 * math.sqrt(share * (1 - share) / n)


def test_mean_of_independent_questions_is_the_binomial_interval():
    found = mean_interval(HITS, range(1000))
    assert (found.value, found.n, found.clusters) == (HITS.mean(), 1000, 1000)
    assert half_width(found) == pytest.approx(binomial_half_width(HITS.mean(), 1000), rel=0.05)
    assert found.contains(HITS.mean()) and not found.contains(0.4)


def test_questions_that_share_their_video_count_once():
    # Each video's question is asked nine times: three times as wide as if they were independent.
    found = mean_interval(np.repeat(HITS, 9), np.repeat(np.arange(1000), 9))
    assert half_width(found) == pytest.approx(binomial_half_width(HITS.mean(), 1000), rel=0.05)


def test_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        share = np.clip(rng.normal(0.6, 0.2, 60), 0, 1)  # videos differ in difficulty
        hits = (rng.random((60, 10)) < share[:, None]).ravel()
        truth = 0.597  # mean of the clipped normal, to a thousandth
        covered += mean_interval(hits, np.repeat(np.arange(60), 10), samples=400).contains(truth)
    assert 0.90 <= covered / 300 <= 0.98


def test_paired_difference_is_narrower_than_an_unpaired_one():
    other = HITS.copy()
    other[:50] = 1 - other[:50]
    videos = [f"video {at}" for at in range(1000)]
    paired = mean_interval(HITS - other, videos)
    unpaired = difference_interval(HITS, videos, other, [f"other {at}" for at in range(1000)])
    assert paired.value == pytest.approx(unpaired.value) == pytest.approx(HITS.mean() - other.mean())
    expected = math.hypot(*(binomial_half_width(one.mean(), 1000) for one in (HITS, other)))
    assert half_width(unpaired) == pytest.approx(expected, rel=0.05)
    assert half_width(paired) < half_width(unpaired) / 2


def test_balanced_accuracy_weighs_both_sides_alike():
    truth = [True] * 100 + [False] * 300
    right = [True] * 90 + [False] * 10 + [True] * 150 + [False] * 150
    found = balanced_accuracy(truth, right, range(400))
    assert found.value == pytest.approx((0.9 + 0.5) / 2)
    assert balanced_accuracy(truth, [not yes for yes in truth], range(400)).value == 0.5  # who always says no


def test_nothing_gives_nan():
    assert math.isnan(mean_interval([], []).value)


def test_rows_and_clusters_must_match():
    with pytest.raises(ValueError, match="3 rows for 2 clusters"):
        mean_interval([1, 0, 1], [0, 1])


def test_letters():
    even = letter_test("ABCD" * 50, [4] * 200)
    assert even.chi_square == pytest.approx(0, abs=1e-9) and even.p_value == pytest.approx(1)
    # chi-square 7.815 is the 5 % point of three degrees of freedom, 11.345 the 1 % point.
    found = letter_test("A" * 30 + "B" * 20 + "C" * 20 + "D" * 10, [4] * 80)
    assert found.counts == {"A": 30, "B": 20, "C": 20, "D": 10}
    assert found.expected == dict.fromkeys("ABCD", 20)
    assert found.chi_square == pytest.approx(10)
    assert found.p_value == pytest.approx(0.018566, abs=1e-6)
    with pytest.raises(ValueError, match="'E' is none of the letters 'ABCD'"):
        letter_test("ABE", [4, 4, 4])
    assert np.isnan(letter_test("", []).p_value)


def test_letters_of_questions_with_other_numbers_of_options():
    # One degree of freedom, by hand: (60 - 50)^2 / 50 twice.
    two = letter_test("A" * 60 + "B" * 40, [2] * 100)
    assert set(two.counts) == {"A", "B"} and two.chi_square == pytest.approx(4)
    assert two.p_value == pytest.approx(math.erfc(math.sqrt(2)))
    five = letter_test("ABCDE" * 20, [5] * 100)
    assert five.expected == dict.fromkeys("ABCDE", 20) and five.p_value == pytest.approx(1)
    # Half have two options, half have five: C is right a fifth of the latter, and that is no bias.
    mixed = letter_test("AB" * 25 + "ABCDE" * 10, [2] * 50 + [5] * 50)
    assert mixed.expected == {"A": 35, "B": 35, "C": 10, "D": 10, "E": 10}
    assert mixed.chi_square == pytest.approx(0, abs=1e-9)
    # Even answers are called uneven as often as the level says.
    rng, widths = np.random.default_rng(0), [2] * 150 + [5] * 100
    drawn = [letter_test(["ABCDE"[rng.integers(width)] for width in widths], widths).p_value for _ in range(400)]
    assert 0.02 < np.mean(np.array(drawn) < 0.05) < 0.085


def test_a_run_over_questions_with_two_options():
    def row(video, answer, parsed):
        return {
            "video_id": video, "form": "choice", "options": ["yes", "no"], "answer": answer, "parsed": parsed,
            "correct": parsed == answer, "worded": None, "tags": {"task": "matching"}, "chance": {"text": 0.5},
            "fed": {"frames": 4, "audio_seconds": 0.0},
        }  # fmt: skip

    # A is right 18 times, B twice; it says A whenever it says something.
    rows = [row(f"v{at}", "A" if at < 18 else "B", "A" if at % 4 else None) for at in range(20)]
    found = summarise_run(rows)
    choice, letters = found["choice"], found["choice"]["letters"]
    assert letters["right"]["counts"] == {"A": 18, "B": 2} and letters["right"]["expected"] == {"A": 10, "B": 10}
    # One degree of freedom, by hand: (18 - 10)^2 / 10 twice.
    assert letters["right"]["chi_square"] == pytest.approx(12.8)
    assert letters["right"]["p_value"] == pytest.approx(math.erfc(math.sqrt(6.4)))
    assert letters["said"] == {"A": 15, "none": 5} and choice["unparsable"] == 5
    assert set(letters["accuracy"]) == {"A", "B"} and letters["accuracy"]["B"]["value"] == 0
    assert letters["accuracy"]["A"]["value"] == pytest.approx(13 / 18)
    assert choice["accuracy"]["value"] == choice["by"]["task"]["matching"]["accuracy"]["value"] == 13 / 20
    assert choice["chance"] == {"text": 0.5} and found["fed"]["without_sound"] == 20


# ---------------------------------------------------------------------------------------------------------------------
# Two runs, and two modalities


def test_mcnemar_is_the_binomial_test():
    first, second = [True] * 9 + [False] * 3 + [True] * 50, [False] * 9 + [True] * 3 + [True] * 50
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (9, 3)
    tail = sum(math.comb(12, k) for k in range(4)) / 2**12
    assert found.p_value == pytest.approx(2 * tail)
    assert mcnemar([True, False], [False, True]).p_value == 1.0 == mcnemar([], []).p_value
    many = mcnemar([True] * 3000 + [False] * 2000, [False] * 3000 + [True] * 2000)
    assert 0 < many.p_value < 1e-40


def test_synergy_is_over_the_better_of_the_two():
    rng = np.random.default_rng(0)
    videos = np.repeat(np.arange(100), 5)
    both, sound, picture = (rng.random(500) < level for level in (0.8, 0.3, 0.5))
    found = synergy_interval(both, sound, picture, videos)
    assert found.value == pytest.approx(both.mean() - max(sound.mean(), picture.mean()))
    assert found.low < 0.3 < found.high and found.clusters == 100
    nothing = synergy_interval(picture, sound, picture, videos)
    assert nothing.value == 0 and nothing.high <= 0


def test_accuracy_of_a_part_scatters_more_the_smaller_it_is():
    rng = np.random.default_rng(0)
    values, videos = rng.random(600) < 0.6, np.repeat(np.arange(200), 3)
    found = subsampling(values, videos)
    assert [one.share for one in found] == [0.2, 0.4, 0.6, 0.8, 1.0]
    deviations = [one.deviation for one in found]
    assert deviations == sorted(deviations, reverse=True) and deviations[-1] == pytest.approx(0, abs=1e-12)
    assert found[-1].mean == pytest.approx(values.mean())
    assert all(one.low <= one.mean <= one.high for one in found[:-1])
    assert subsampling(values, videos) == found and subsampling([], []) == []
