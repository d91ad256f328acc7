"""Models that know everything, or nothing."""

import random

from saven_hf import world
from saven_hf.data.prompts import LETTERS, multiple_choice_answer
from saven_hf.evaluation import Watched


class Fake:
    """Answers each item by a function of it; a `watched` video is its name."""

    def __init__(self, answer, limit=None, media_at_once=1):
        self.media_at_once = media_at_once
        self._answer, self._left = answer, limit
        self.settings = {"model": "fake"}
        self.watched = []

    def watch(self, media, control):
        self.watched.append((media.name, control.name))
        return Watched(control)

    def answer(self, asked, progress=None):
        answers = []
        for one in asked:
            if self._left is not None:
                if self._left == 0:
                    raise KeyboardInterrupt
                self._left -= 1
            answers.append(self._answer(one))
        return answers


def in_form(item, words):
    """Words as an item wants them."""
    if item.form != "choice":
        return words
    return multiple_choice_answer(item.options, LETTERS[item.options.index(words)])


def oracle(one):
    """Looks the answer up in the scene, with its times moved as the control moves them."""
    item, control = one.item, one.watched.state
    split, number = item.video_id.rsplit("-", 1)
    scene = world.sample_scene(int(number), split)
    for asked in range(40):
        for question in world.make_questions(scene, round=asked):
            same_options = not item.options or tuple(map(control.text, question.options)) == item.options
            if control.text(question.text) == item.question and same_options:
                return in_form(item, control.text(world.solve(scene, question)))
    raise AssertionError(f"{item.id} is no question about its scene")


def best_text_guesser(seed=0):
    """Guesses among the options that the question does not name: nothing follows or precedes itself."""
    rng = random.Random(seed)

    def guess(one):
        item = one.item
        left = [letter for letter, text in zip("ABCD", item.options, strict=False) if text not in item.question]
        return f"({rng.choice(left)})" if left else "I cannot tell"

    return guess
