"""Intervals and tests. Questions on one video are no independent samples, so videos are what is resampled.

Everything is a ratio of sums over questions; a resample of the videos adds their sums up again. Seeds are fixed: the
same answers always give the same interval.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ..data.prompts import LETTERS


SAMPLES, LEVEL = 2_000, 0.95
_ROWS_AT_ONCE = 500  # resamples held in memory


class Interval(NamedTuple):
    """An estimate, its interval, and the number of questions and of clusters (videos) that it is made of."""

    value: float
    low: float
    high: float
    n: int
    clusters: int

    def contains(self, level: float) -> bool:
        return self.low <= level <= self.high


def bootstrap(
    columns: np.ndarray,
    clusters: Sequence,
    statistic: Callable[[np.ndarray], np.ndarray],
    samples: int = SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic of column sums, by resampling whole clusters.

    Args:
        columns: `(n, k)`, one row a question.
        clusters: `(n,)`, to which cluster each row belongs.
        statistic: from sums `(..., k)` to `(...,)`.
        samples: number of resamples.
        level: share of them inside the interval.

    Returns:
        `Interval`; NaN throughout if there are no rows.

    Raises:
        ValueError: rows and clusters differ in number.
    """
    columns = np.asarray(columns, dtype=np.float64)
    if len(columns) != len(clusters):
        raise ValueError(f"There are {len(columns)} rows for {len(clusters)} clusters: give one cluster for each row.")
    if not len(columns):
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    names, owner = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, owner, columns)
    rng = np.random.default_rng(seed)
    drawn = []
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may lack what a ratio divides by
        for first in range(0, samples, _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, samples - first)
            weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rows)
            drawn.append(statistic(weights @ sums))
        value = float(statistic(sums.sum(0)))
    drawn = np.concatenate(drawn)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.nanquantile(drawn, tails) if np.isfinite(drawn).any() else (float("nan"), float("nan"))
    return Interval(value, float(low), float(high), len(columns), len(names))


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def mean_interval(values: Sequence[float], clusters: Sequence, **options) -> Interval:
    """Mean over questions: accuracy for values of 0 and 1, mean IoU, or a paired difference of two runs."""
    values = np.asarray(values, dtype=np.float64)
    return bootstrap(np.stack([values, np.ones_like(values)], axis=-1), clusters, _ratio, **options)


def difference_interval(
    one: Sequence[float], clusters: Sequence, other: Sequence[float], other_clusters: Sequence, **options
) -> Interval:
    """Mean of `one` minus mean of `other`, over different questions on different videos.

    For two runs over the same questions take `mean_interval` of the differences, which is far narrower. Clusters that
    share a name are resampled together.
    """
    rows = [(value, 1.0, 0.0, 0.0) for value in one] + [(0.0, 0.0, value, 1.0) for value in other]
    return bootstrap(
        np.array(rows, dtype=np.float64).reshape(-1, 4),
        [*clusters, *other_clusters],
        lambda sums: _ratio(sums[..., :2]) - _ratio(sums[..., 2:]),
        **options,
    )


def balanced_accuracy(truth: Sequence[bool], right: Sequence[bool], clusters: Sequence, **options) -> Interval:
    """Mean of the two accuracies where `truth` holds and where it does not; `right`: whether it was answered so."""
    rows = [
        (float(ok), 1.0, 0.0, 0.0) if yes else (0.0, 0.0, float(ok), 1.0) for yes, ok in zip(truth, right, strict=True)
    ]
    return bootstrap(
        np.array(rows, dtype=np.float64).reshape(-1, 4),
        clusters,
        lambda sums: (_ratio(sums[..., :2]) + _ratio(sums[..., 2:])) / 2,
        **options,
    )


class LetterTest(NamedTuple):
    """How often each letter is right, how often it is expected to be, and how probable counts as uneven are if all
    options of a question are equally probable."""

    counts: dict[str, int]
    expected: dict[str, float]
    chi_square: float
    p_value: float


def letter_test(letters: Sequence[str], options: Sequence[int]) -> LetterTest:
    """Test that the right answers are spread evenly over the options.

    Pearson's chi-square where all questions have as many options. Where they differ in it, counts of letters are sums
    of multinomials of different width, and their covariance takes the place of the multinomial's.

    Args:
        letters: the right one of each question.
        options: how many options each has, of which the first is A.

    Raises:
        ValueError: letters and options differ in number, or a letter is none of its question's options.
    """
    widths = Counter(options)
    alphabet = LETTERS[: max(widths, default=0)]
    for letter, width in zip(letters, options, strict=True):
        if letter not in LETTERS[:width]:
            raise ValueError(f"{letter!r} is none of the letters {LETTERS[:width]!r} of its question.")
    counts = np.array([list(letters).count(letter) for letter in alphabet], dtype=np.float64)
    expected, covariance = np.zeros(len(alphabet)), np.zeros((len(alphabet), len(alphabet)))
    for width, questions in widths.items():
        share = np.where(np.arange(len(alphabet)) < width, 1 / width, 0.0)
        expected += questions * share
        covariance += questions * (np.diag(share) - np.outer(share, share))
    named = {letter: int(count) for letter, count in zip(alphabet, counts, strict=True)}
    wanted = {letter: float(count) for letter, count in zip(alphabet, expected, strict=True)}
    if len(alphabet) < 2:
        return LetterTest(named, wanted, float("nan"), float("nan"))
    off = counts - expected
    chi_square = max(0.0, float(off @ np.linalg.pinv(covariance, hermitian=True) @ off))
    # The upper tail of the chi-square distribution, with one degree of freedom fewer than there are letters.
    half = torch.tensor([(len(alphabet) - 1) / 2, chi_square / 2], dtype=torch.float64)
    return LetterTest(named, wanted, chi_square, torch.special.gammaincc(half[0], half[1]).item())


# ---------------------------------------------------------------------------------------------------------------------
# Two runs over the same questions, and what sound and picture give together


class McNemar(NamedTuple):
    """Questions that only one of two runs has right, and how probable a difference as large is if both are as good."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's exact two-sided test. It takes questions as independent, which those on one video are not: where it
    and the interval over videos disagree, believe the interval."""
    one = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    other = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    if one == other:
        return McNemar(one, other, 1.0)
    n, fewer = one + other, min(one, other)
    # Twice the lower tail of a fair coin, in logarithms: thousands of tosses pass the range of floats.
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(fewer + 1)
    ]
    return McNemar(one, other, min(1.0, 2 * math.fsum(map(math.exp, logs))))


def synergy_interval(
    both: Sequence[float], sound: Sequence[float], picture: Sequence[float], clusters: Sequence, **options
) -> Interval:
    """Accuracy with sound and picture minus the better of the accuracies with one of them, over the same questions.

    The better one is chosen anew in each resample.
    """
    columns = np.stack([np.asarray(one, dtype=np.float64) for one in (both, sound, picture)], axis=-1)
    columns = np.concatenate([columns, np.ones((len(columns), 1))], axis=-1)

    def statistic(sums: np.ndarray) -> np.ndarray:
        return (sums[..., 0] - np.maximum(sums[..., 1], sums[..., 2])) / sums[..., 3]

    return bootstrap(columns, clusters, statistic, **options)


class Stability(NamedTuple):
    """Accuracy on random parts of a benchmark: mean, standard deviation, 5th and 95th percentile, by share."""

    share: float
    mean: float
    deviation: float
    low: float
    high: float


def subsampling(
    values: Sequence[float],
    clusters: Sequence,
    shares: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0),
    samples: int = 200,
    seed: int = 0,
) -> list[Stability]:
    """How far accuracy moves if only a share of the videos is asked about, drawn without replacement: as Daily-Omni
    reports it, with whole videos in place of questions."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return []
    names, owner = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(owner, weights=values), np.bincount(owner)
    rng = np.random.default_rng(seed)
    found = []
    for share in shares:
        size = max(1, round(share * len(names)))
        means = []
        for _ in range(samples):
            drawn = rng.permutation(len(names))[:size]
            means.append(sums[drawn].sum() / counts[drawn].sum())
        low, high = np.quantile(means, [0.05, 0.95])
        found.append(Stability(share, float(np.mean(means)), float(np.std(means)), float(low), float(high)))
    return found
