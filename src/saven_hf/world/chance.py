"""Exact chance levels: what the best possible guesser reaches that sees only a part of a scene.

Four guessers are told the question with its options, and

    picture    the picture stream with its times,
    sound      the sound stream with its times,
    text       nothing else,
    timeless   the set of what is seen and the set of what is heard: no time, no order, no simultaneity, no duration.

Each knows how scenes and questions are generated and answers with the most probable option. Its chance level is the
posterior probability of that option, given what it sees. The layouts make most posteriors uniform over the options;
the others are computed here by counting the arrangements that remain possible. tests/world/test_world_chance.py walks
through all outcomes of the generator itself in small cases and finds the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from math import comb
from typing import NamedTuple


class Chance(NamedTuple):
    """Probability of a right answer for each guesser; 1 for the modality that a question is about alone."""

    picture: float = 0.25
    sound: float = 0.25
    text: float = 0.25
    timeless: float = 0.25

    def swapped(self) -> Chance:
        """The same with the roles of picture and sound exchanged."""
        return self._replace(picture=self.sound, sound=self.picture)


def best_guess(weights: Sequence[float]) -> float:
    """Posterior probability of the most probable option, from unnormalised weights."""
    return max(weights) / sum(weights)


# ---------------------------------------------------------------------------------------------------------------------
# Layouts in which each label comes twice, never in a row


@cache
def _matchings(paths: tuple[int, ...]) -> int:
    """Ways to pair up all vertices of disjoint paths such that no two neighbours of a path are a pair.

    Inclusion and exclusion over sets of pairs of neighbours: r of them fit into a path of n vertices in C(n - r, r)
    ways, and v free vertices can be paired in (v - 1)!! ways.
    """
    counts = [1]
    for length in paths:
        ways = [comb(length - pairs, pairs) for pairs in range(length // 2 + 1)]
        merged = [0] * (len(counts) + len(ways) - 1)
        for a, one in enumerate(counts):
            for b, other in enumerate(ways):
                merged[a + b] += one * other
        counts = merged
    free, total = sum(paths), 0
    for pairs, ways in enumerate(counts):
        double_factorial = 1
        for odd in range(free - 2 * pairs - 1, 1, -2):
            double_factorial *= odd
        total += (-1) ** pairs * ways * double_factorial
    return total


@cache
def matchings_with(n: int, pairs: tuple[tuple[int, int], ...]) -> int:
    """Arrangements of n events, each label twice and never in a row, in which the given positions share a label."""
    taken = sorted(position for pair in pairs for position in pair)
    if len(set(taken)) < len(taken) or any(abs(a - b) == 1 for a, b in pairs):
        return 0
    edges = [-1, *taken, n]
    return _matchings(tuple(sorted(after - before - 1 for before, after in zip(edges, edges[1:], strict=False))))


def twin_weights(n: int, position: int, candidates: Sequence[int]) -> list[int]:
    """How probable it is that each candidate has the label of `position`, for one who sees no labels."""
    return [matchings_with(n, ((position, other),)) if other != position else 0 for other in candidates]


@lru_cache(maxsize=65536)
def when_again(n: int, position: int, options: tuple[int, ...]) -> float:
    """Chance of one who sees no labels and is asked for the twin of `position` among options of different labels."""
    weights = []
    for answer in options:
        others = [option for option in options if option != answer]
        weight = matchings_with(n, ((position, answer),))
        for at, one in enumerate(others):
            for other in others[at + 1 :]:
                weight -= matchings_with(n, ((position, answer), (min(one, other), max(one, other))))
        weights.append(weight)
    return best_guess(weights)


# ---------------------------------------------------------------------------------------------------------------------
# Crossed layouts


def next_pair(
    shown: Sequence, given: tuple, options: Sequence[tuple], other_labels: int, step: int
) -> tuple[float, float]:
    """Chance levels for "what comes next to `given`", where every pair of labels occurs once, in random order.

    Args:
        shown: labels of the stream that the guesser sees, event by event.
        given: (label of the stream seen, label of the other one) that the question names.
        options: four such pairs.
        other_labels: how many labels the other stream has.
        step: 1 for the next event, -1 for the one before.

    Returns:
        Chance of one who sees the one stream, and of one who sees none.
    """
    weights = [0.0] * 4
    for position, label in enumerate(shown):
        if label != given[0] or not 0 <= position + step < len(shown):
            continue
        beside = shown[position + step]
        for at, (one, other) in enumerate(options):
            if one == beside and beside == given[0]:
                weights[at] += (other != given[1]) / (other_labels - 1)
            elif one == beside:
                weights[at] += 1 / other_labels
    return best_guess(weights), best_guess([float(option != given) for option in options])


# ---------------------------------------------------------------------------------------------------------------------
# Boundaries


@cache
def _cut_probabilities(total: int, parts: int) -> tuple[float, ...]:
    """Probability that there is a cut at 0 .. total, over all ways to cut into `parts` of at least 2 steps."""

    def ways(length: int, count: int) -> int:
        return comb(length - count - 1, count - 1) if length >= 2 * count else 0

    return tuple(
        sum(ways(cut, before) * ways(total - cut, parts - before) for before in range(1, parts)) / ways(total, parts)
        for cut in range(total + 1)
    )


def event_weights(total: int, parts: int, spans: Sequence[tuple[int, int]]) -> list[float]:
    """Expected number of cuts, of a stream one does not see, within each span [first, last) of steps."""
    probabilities = _cut_probabilities(total, parts)
    return [sum(probabilities[first:last]) for first, last in spans]


def in_time(first: int, last: int, bounds: tuple[int, int], options: Sequence[int]) -> float:
    """Chance of one who hears how long the first and the last sound are and is asked for the shift between streams.

    A shift makes the first sound longer and the last one shorter by itself. The lengths of the first and the last
    picture are uniform within `bounds` (both included), so each shift that keeps to them is as probable as any other.
    All arguments are in one unit.
    """
    least, most = bounds
    return 1 / sum(least <= first - shift <= most and least <= last + shift <= most for shift in options)


# ---------------------------------------------------------------------------------------------------------------------
# Directions that agree


@cache
def direction_at(n: int, up: int, rising: int) -> float:
    """Chance of one who knows that `up` of n pictures go up and `rising` of n sounds rise, asked about one segment.

    Generator: each picture goes up or down, all ways equally probable; one segment agrees, and is asked about with
    probability 1/2, else one of the others is.
    """
    if rising == n - up + 1:  # the one that agrees goes up and rises
        up, agrees = up - 1, (0.5, 0.0)
    else:
        up, agrees = up, (0.0, 0.5)
    return best_guess([*agrees, 0.5 * up / (n - 1), 0.5 * (n - 1 - up) / (n - 1)])
