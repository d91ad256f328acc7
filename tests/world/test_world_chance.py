"""The chance levels stored with questions, against all outcomes of the generator itself."""

from itertools import combinations, product

import numpy as np
import pytest
from walk import Rotation, best_guesses, fixed, outcomes

from saven_hf.world import chance, questions, scenes
from saven_hf.world.questions import FAMILIES
from saven_hf.world.scenes import Draw, Layout, Spec, draw_scene
from saven_hf.world.vocabulary import PICTURE_KINDS, SOUND_KINDS


VIEWS = {
    "picture": lambda scene: scene.pictures,
    "sound": lambda scene: scene.sounds,
    "text": lambda scene: None,
    "timeless": lambda scene: (
        frozenset(event._replace(start=0, end=0) for event in scene.pictures),
        frozenset(event._replace(start=0, end=0) for event in scene.sounds),
    ),
}
ROLES = ("structure", "pictures", "sounds", "attributes", "looks")


class Plain(Draw):
    """Looks that never differ."""

    def __init__(self):
        pass

    def index(self, n):
        return 0


def check(tie, rule, segments, families, walked, views=tuple(VIEWS), mean_ticks=12):
    """Counts all outcomes of the draws in `walked` ("turned": only rotations of the names) for each family and view.

    What is not walked is the same in all outcomes, so the guesser knows it: leave out only what it sees anyway, or
    what cannot matter.
    """
    spec = Spec(Layout(tie, rule), segments, PICTURE_KINDS[:segments], SOUND_KINDS[:segments], mean_ticks)

    def scene_of(walk):
        draws = {role: fixed() for role in ROLES} | {"looks": Plain()}
        if rule == "plain":
            draws["attributes"] = Plain()
        for role in walked:
            name, _, turned = role.partition(" ")
            draws[name] = Rotation(walk) if turned else walk
        return draw_scene(spec, *(draws[role] for role in ROLES), seed=0, split="train")

    asks = {family: FAMILIES[family].draw for family in families}
    for family, view, found, stored in best_guesses(scene_of, asks, {view: VIEWS[view] for view in views}):
        assert getattr(stored, view) == pytest.approx(found), (family, view)


def test_distinct_scenes():
    families = ["heard_with", "seen_with", "seen_at", "heard_at", "when_seen", "when_heard", "pair_at"]
    check("distinct", "plain", 4, families, ["pictures", "sounds"])
    check("distinct", "plain", 4, ["pair_after_time", "pair_before_time"], ["pictures", "sounds turned"])


def test_order_across_streams():
    for family in ("heard_after", "heard_before"):
        check("distinct", "plain", 5, [family], ["pictures turned", "sounds"])
    for family in ("seen_after", "seen_before"):
        check("distinct", "plain", 5, [family], ["pictures", "sounds turned"])


def test_order_within_a_stream():
    check("distinct", "plain", 5, ["seen_after_seen", "heard_after_heard"], ["pictures", "sounds turned"], ["sound"])
    check("distinct", "plain", 5, ["seen_after_seen"], ["pictures"], ["picture", "text", "timeless"])
    check("distinct", "plain", 5, ["heard_after_heard"], ["sounds"], ["picture", "text", "timeless"])


CROSSED = ["pair_at", "pair_after_time", "when_pair", "pair_after", "pair_before"]


def test_two_pictures_crossed_with_two_sounds():
    check("crossed", "plain", 4, CROSSED, ["structure", "pictures", "sounds"])


def test_two_crossed_with_three():
    check("crossed", "plain", 6, ["when_pair", "pair_after"], ["structure"], ["picture", "sound"])


def test_motion(monkeypatch):
    monkeypatch.setattr(scenes, "_PICTURE_MOTIONS", ("left", "right", "up", "down"))
    monkeypatch.setattr(scenes, "_GLIDES", ("steady",))
    monkeypatch.setattr(scenes, "_PLAIN_PULSES", (0,))
    check("distinct", "plain", 5, ["motion_with"], ["attributes", "sounds turned"])


@pytest.fixture
def one_motion(monkeypatch):
    monkeypatch.setattr(scenes, "_PICTURE_MOTIONS", ("still",))


def test_counting(monkeypatch, one_motion):
    rotated = [[1, 2, 3, 4], [2, 3, 4, 1], [3, 4, 1, 2], [4, 1, 2, 3]]
    monkeypatch.setattr(scenes, "_with_four_values", lambda values, count, draw: draw.pick(rotated))
    families = ["pulses_with", "copies_with", "copies_at", "pulses_at"]
    check("distinct", "count", 4, families, ["attributes", "pictures turned", "sounds turned"])


def test_directions(one_motion):
    families = ["when_direction_agrees", "direction_at"]
    check("distinct", "direction", 4, families, ["attributes", "pictures", "sounds turned"])
    check("distinct", "direction", 5, families, ["attributes"], ["picture", "sound", "text"])


def test_numbers(monkeypatch, one_motion):
    monkeypatch.setattr(scenes, "MAX_COPIES", 3)
    check("distinct", "number", 4, ["when_number_agrees"], ["attributes"], ["picture", "sound", "text"])


def never_in_a_row(n):
    """Labels of all ways to have n / 2 labels twice each, never in a row."""

    def pairings(free):
        if not free:
            yield []
        for other in free[1:]:
            for rest in pairings([one for one in free[1:] if one != other]):
                yield [(free[0], other), *rest]

    for pairs in pairings(list(range(n))):
        if all(b - a > 1 for a, b in pairs):
            yield [next(label for label, pair in enumerate(pairs) if at in pair) for at in range(n)]


@pytest.fixture
def six_are_enough(monkeypatch):
    monkeypatch.setattr(scenes, "possible_ties", lambda segments: ["picture_twice", "sound_twice"])


TWICE = [("sound", "picture"), ("picture", "sound")]


@pytest.mark.parametrize("asked, given", TWICE)
def test_what_comes_twice(monkeypatch, asked, given):
    arrangements = list(never_in_a_row(8))
    monkeypatch.setattr(scenes, "_each_twice", lambda n, draw: draw.pick(arrangements))
    # The guesser who sees only the stream that has each thing once reckons with all arrangements of the other.
    again = {"sound": ["heard_again", "pulses_again"], "picture": ["seen_again", "copies_again"]}[asked]
    check(f"{given}_twice", "count", 8, again, ["structure"], [asked])
    when = {"picture": "when_seen_again", "sound": "when_heard_again"}[given]
    check(f"{given}_twice", "plain", 8, [when], ["structure", f"{asked}s turned"], ["text", "timeless"])
    check(f"{given}_twice", "plain", 8, [when], ["structure"], [asked])
    check(f"{given}_twice", "plain", 8, [when], [f"{asked}s turned"], [given])


@pytest.mark.parametrize("asked, given", TWICE)
def test_names_beside_what_comes_twice(asked, given, six_are_enough):
    families = [{"sound": "heard_again", "picture": "seen_again"}[asked], "pair_after_time"]
    check(f"{given}_twice", "plain", 6, families, [f"{asked}s"], [given])


@pytest.mark.parametrize("asked, given", TWICE)
def test_numbers_beside_what_comes_twice(monkeypatch, asked, given, six_are_enough, one_motion):
    all_values = [values for values in product((1, 2, 3, 4), repeat=6) if len(set(values)) == 4]
    largest = {"picture": 4, "sound": 6}[asked]
    monkeypatch.setattr(
        scenes,
        "_with_four_values",
        lambda values, count, draw: draw.pick(all_values) if len(values) == largest else [1, 2, 3, 4, 1, 2],
    )
    family = {"sound": "pulses_again", "picture": "copies_again"}[asked]
    check(f"{given}_twice", "count", 6, [family], ["attributes"], [given])


@pytest.mark.parametrize("n", [6, 8])
def test_arrangements_are_counted_right(n):
    arrangements = list(never_in_a_row(n))
    pairs = list(combinations(range(n), 2))
    for chosen in [(pair,) for pair in pairs] + list(combinations(pairs, 2)):
        found = sum(all(labels[a] == labels[b] for a, b in chosen) for labels in arrangements)
        if len({position for pair in chosen for position in pair}) == 2 * len(chosen):
            assert chance.matchings_with(n, chosen) == found


@pytest.mark.parametrize("family, view", [("heard_when_appears", "sound"), ("seen_when_begins", "picture")])
def test_boundaries_of_their_own(family, view):
    turned = "pictures turned" if view == "sound" else "sounds turned"
    check("apart", "plain", 7, [family], ["structure", turned], [view], mean_ticks=18)


def test_boundaries_of_their_own_without_names():
    check("apart", "plain", 7, ["heard_when_appears"], ["pictures turned", "sounds"], ["picture", "text", "timeless"])
    check("apart", "plain", 7, ["pair_at"], ["pictures turned", "sounds turned"])


def test_shifts(monkeypatch):
    for module in (scenes, questions):
        monkeypatch.setattr(module, "END_TICKS", (27, 41))
    check("shifted", "plain", 3, ["in_time"], ["structure"])


def test_cuts_and_subsets_are_uniform():
    class Floyd(Draw):
        def __init__(self, walk):
            self.index = walk.index

    counts = {}
    for probability, result in outcomes(lambda walk: tuple(Floyd(walk).boundaries(17, 4, 3))):
        counts[result] = counts.get(result, 0) + probability
    assert np.allclose(list(counts.values()), 1 / len(counts))
    assert len(counts) == 56 and all(b - a >= 3 for cut in counts for a, b in zip(cut, cut[1:], strict=False))
