"""What answers rest on: true of the scene, in the words of the question, with the answer as conclusion."""

import pytest

from saven_hf.evaluation.parsing import conclusion
from saven_hf.savenvideo.times import parse_spans, parse_times
from saven_hf.world import FAMILIES, make_questions, sample_scene
from saven_hf.world.grounds import grounds
from saven_hf.world.vocabulary import name_of


@pytest.fixture(scope="module")
def asked():
    """Some questions of every family, with their scenes."""
    found = {family: [] for family in FAMILIES}
    for seed in range(300):
        scene = sample_scene(seed, "iid")
        for question in make_questions(scene, FAMILIES):
            found[question.family].append((scene, question))
    return found


def test_every_family_has_grounds_and_its_answer_behind_them(asked):
    for family, questions in asked.items():
        assert questions, family
        for scene, question in questions:
            said = grounds(scene, question)
            assert said and ": " not in said, family
            assert conclusion(f"{said}: {question.answer_text}") == question.answer_text


def test_what_the_question_names_is_said_again(asked):
    for questions in asked.values():
        for scene, question in questions:
            given = question.arguments["given"]
            if given:
                assert grounds(scene, question).startswith(given)


def test_times_are_where_things_change(asked):
    for questions in asked.values():
        for scene, question in questions:
            changes = {time for event in (*scene.pictures, *scene.sounds) for time in (event.start, event.end)}
            assert set(parse_times(grounds(scene, question))) <= changes


def test_a_thing_said_to_be_at_a_time_is_there(asked):
    """ "NAME from A to B": during all of it, the picture or the sound has that name."""
    checked = 0
    for family in ("heard_after", "seen_before", "heard_again", "copies_again", "when_heard_again", "seen_after_seen"):
        for scene, question in asked[family]:
            said = grounds(scene, question)
            name = said.split(" from ")[0].split(" and ")[-1]
            start, end = parse_spans(said)[0]
            middle = (start + end) // 2
            there = {name_of(scene.picture_at(middle).kind), name_of(scene.sound_at(middle).kind)}
            assert name in there, (family, said)
            checked += 1
    assert checked > 100
