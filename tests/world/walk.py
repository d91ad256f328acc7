"""Walks through every outcome of a random procedure that draws through `Draw`."""

from collections import defaultdict
from itertools import combinations, permutations

import numpy as np

from saven_hf.world.scenes import Draw


class Discarded(Exception):
    """The procedure threw this outcome away and would draw anew."""


class Walk(Draw):
    """A `Draw` whose choices follow a path; `outcomes` makes it take every path once."""

    def __init__(self):
        self.path, self.sizes, self.position = [], [], 0

    def index(self, n):
        if self.position == len(self.path):
            self.path.append(0)
            self.sizes.append(n)
        assert self.sizes[self.position] == n
        self.position += 1
        return self.path[self.position - 1]

    def rejected(self):
        raise Discarded

    # One choice among all results instead of several choices: the same distribution on fewer paths.
    def subset(self, n, count):
        return list(self.pick(list(combinations(range(n), count))))

    def sample(self, items, count):
        return list(self.pick(list(permutations(items, count))))

    def restart(self):
        self.position = 0

    def advance(self):
        """On to the next path; False after the last."""
        del self.path[self.position :], self.sizes[self.position :]
        while self.path and self.path[-1] == self.sizes[-1] - 1:
            self.path.pop()
            self.sizes.pop()
        if not self.path:
            return False
        self.path[-1] += 1
        return True

    @property
    def probability(self):
        return 1 / np.prod(self.sizes[: self.position], dtype=float)


class Rotation(Draw):
    """Orders things by one rotation, drawn by a walk: each thing is at each place equally often, on few paths."""

    def __init__(self, walk):
        self.walk = walk

    def sample(self, items, count):
        items = list(items)[:count]
        start = self.walk.index(count)
        return items[start:] + items[:start]


def fixed():
    """A `Draw` that gives the same results every time it is made."""
    return Draw(np.random.default_rng(7))


def outcomes(procedure):
    """(probability, result) of every outcome of `procedure(walk)`; discarded outcomes are left out."""
    walk = Walk()
    while True:
        walk.restart()
        try:
            result = procedure(walk)
        except Discarded:
            result = None
        if result is not None:
            yield walk.probability, result
        if not walk.advance():
            return


class Chooser(Draw):
    """For questions, whose right option comes first and whose wrong ones have no order: fewer paths than `Walk`."""

    def __init__(self, walk):
        self.index = walk.index

    def sample(self, items, count):
        items = list(items)
        first = items.pop(self.index(len(items)))
        return [first, *self.pick(list(combinations(items, count - 1)))]


def best_guesses(scene_of, families, view_of):
    """What the best guesser reaches that sees a view of the scene, and the question with its options.

    Args:
        scene_of: a procedure, called with a walk, that returns a scene.
        families: name to a function of a scene and a `Draw` that returns a question before it is worded.
        view_of: name to a function of a scene.

    Yields:
        Family, view, the chance level found by counting all outcomes, and the question, for every kind of question.
    """
    posterior = defaultdict(lambda: defaultdict(float))
    stored = defaultdict(set)
    for scene_probability, scene in outcomes(scene_of):
        views = {name: view(scene) for name, view in view_of.items()}
        for family, ask in families.items():
            for probability, asked in outcomes(lambda walk, ask=ask, scene=scene: ask(scene, Chooser(walk))):
                question = (family, asked.given, asked.times, frozenset(asked.options))
                for name, seen in views.items():
                    key = (name, seen, *question)
                    posterior[key][asked.options[0]] += scene_probability * probability
                    stored[key].add(asked.chance)
    assert {key[2] for key in posterior} == set(families)
    for key, weights in posterior.items():
        for chance in stored[key]:
            yield key[2], key[0], max(weights.values()) / sum(weights.values()), chance
