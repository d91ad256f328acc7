"""Questions: formats, balance, answers. Their chance levels are in test_world_chance.py."""

from collections import Counter, defaultdict

import pytest

from saven_hf.savenvideo.times import parse_spans, parse_times
from saven_hf.world import FAMILIES, SPLITS, make_questions, mute, sample_scene, shift_sound, solve
from saven_hf.world.questions import LETTERS, PAPER_FORMATS, draw_question
from saven_hf.world.scenes import Draw
from saven_hf.world.splits import generator
from saven_hf.world.vocabulary import MOTIONS, NUMBER_WORDS, name_of
from saven_hf.world.wordings import WORDINGS


@pytest.fixture(scope="module")
def asked():
    """(scene, question) of 1500 scenes, five questions each."""
    scenes = [sample_scene(seed) for seed in range(1500)]
    return [(scene, question) for scene in scenes for question in make_questions(scene)]


def test_the_papers_formats(asked):
    formats = defaultdict(Counter)
    for scene, question in asked:
        formats[scene.video_id][question.question_type] += 1
        times = parse_times(question.text)
        if question.question_type == "timestamped":
            start, end = question.arguments["times"]
            assert times == [start, end] or times == [(start + end) // 2]
        else:
            assert times == []
        in_options = [parse_spans(option) for option in question.options]
        assert all(len(spans) == (question.question_type == "time_range") for spans in in_options)
    assert all(count <= Counter(PAPER_FORMATS) for count in formats.values())
    assert sum(count == Counter(PAPER_FORMATS) for count in formats.values()) > 0.95 * len(formats)


def test_each_format_has_each_skill_from_both_modalities():
    skills = {(family.question_type, family.category) for family in FAMILIES.values() if family.needs == "both"}
    assert skills == {
        (question_type, category)
        for question_type in ("global", "timestamped", "time_range")
        for category in ("recognition", "counting", "order", "agreement")
    }


def test_most_questions_need_both(asked):
    needs = defaultdict(Counter)
    for _, question in asked:
        needs[question.question_type][question.needs] += 1
    for counts in needs.values():
        assert counts["both"] / counts.total() > 0.6
        assert min(counts["picture"], counts["sound"]) / counts.total() > 0.02
    # No modality alone is sure of an answer that needs both, and none falls below a blind guess.
    for _, question in asked:
        alone = question.chance.picture, question.chance.sound
        assert all(0.25 <= chance <= 1 for chance in question.chance)
        assert max(alone) == 1 if question.needs != "both" else question.chance.text <= 1 / 3
    both = [question.chance for _, question in asked if question.needs == "both"]
    assert sum(max(chance.picture, chance.sound) < 1 for chance in both) / len(both) > 0.97


def test_letters_are_balanced(asked):
    for question_type in set(PAPER_FORMATS):
        counts = Counter(question.answer for _, question in asked if question.question_type == question_type)
        assert set(counts) == set(LETTERS)
        expected = counts.total() / 4
        # chi squared with 3 degrees of freedom is above 16.3 once in 1000
        assert sum((counts[letter] - expected) ** 2 / expected for letter in LETTERS) < 16.3


def test_no_number_is_more_often_right(asked):
    offered, right = Counter(), Counter()
    for _, question in asked:
        if question.category == "counting" and question.question_type != "time_range":
            offered.update(question.options)
            right[question.answer_text] += 1
    for number, count in offered.items():
        assert abs(right[number] - count / 4) < 4 * (count * 3 / 16) ** 0.5


def test_options_come_from_the_scene(asked):
    for scene, question in asked:
        assert len(set(question.options)) == 4
        names = {name_of(event.kind) for event in (*scene.pictures, *scene.sounds)}
        events = (*scene.pictures, *scene.sounds, *scene.segments)
        spans = {(event.start, event.end) for event in events}
        numbers = {NUMBER_WORDS[event.copies] for event in scene.pictures}
        numbers |= {NUMBER_WORDS[event.pulses] for event in scene.sounds}
        motions = {f"it {MOTIONS[event.motion][0]}" for event in scene.pictures}
        for option in question.options:
            if question.question_type == "time_range":
                assert parse_spans(option)[0] in spans
            elif question.family not in ("in_time", "direction_at"):
                assert option in names | numbers | motions or set(option.split(" and ")) <= names


def test_evidence_lies_in_the_scene(asked):
    for scene, question in asked:
        assert question.evidence
        assert all(scene.lead_in <= start < end <= scene.duration for start, end in question.evidence)


@pytest.mark.parametrize("split", SPLITS)
def test_the_truth_is_found_in_the_scene(split):
    seen = Counter()
    for seed in range(400):
        scene = sample_scene(seed, split)
        for question in make_questions(scene, FAMILIES):
            assert solve(scene, question) == question.answer_text
            assert question.options[LETTERS.index(question.answer)] == question.answer_text
            seen[question.family] += 1
    assert set(seen) == set(FAMILIES)


def test_two_and_three_segments_give_open_questions():
    for segments in (2, 3):
        open_ones = 0
        for seed in range(30):
            scene = sample_scene(seed, segments=segments)
            for question in make_questions(scene):
                assert len(question.options) in (0, 4)
                open_ones += not question.options
                assert (question.chance is None) == (not question.options) == (question.answer == "")
                assert solve(scene, question) == question.answer_text
        assert open_ones


def test_prompts():
    question = next(one for one in make_questions(sample_scene(0)) if one.options)
    choice = question.prompt().split("\n")
    assert choice[0] == question.prompt("open") == question.text
    assert choice[1:] == [f"{letter}. {option}" for letter, option in zip("ABCD", question.options, strict=True)]
    with pytest.raises(ValueError, match="'choice' or 'open'"):
        question.prompt("yes or no")


def test_wordings_are_held_out():
    assert set(WORDINGS) == set(FAMILIES)
    for trained, held_out in WORDINGS.values():
        assert len(trained) >= 2 and held_out and not set(trained) & set(held_out)
    for seed in range(40):
        for split, index in (("iid", 0), ("paraphrases", 1)):
            for question in make_questions(sample_scene(seed, split)):
                starts = [wording.split("{")[0] for wording in WORDINGS[question.family][index]]
                assert question.text.startswith(tuple(starts))


def test_interventions_change_what_ought_to_change():
    changed = Counter()
    for seed in range(200):
        scene = sample_scene(seed)
        moved, silent = shift_sound(scene, 1.0), mute(scene)
        for question in make_questions(scene):
            if question.needs == "picture":
                assert solve(moved, question) == solve(silent, question) == question.answer_text
            elif question.answer_text != "silence" and question.needs == "both":
                changed["mute"] += solve(silent, question) != question.answer_text
                changed["mute of"] += 1
            if question.family == "in_time":
                shifted = solve(shift_sound(scene, -scene.shift / 1e6), question)
                assert shifted in ("it is in time", None)
    assert changed["mute"] / changed["mute of"] > 0.85


def test_families_by_name():
    scene = sample_scene(0, layout="crossed")
    assert [question.family for question in make_questions(scene, ["when_pair", "heard_with"])] == ["when_pair"]
    with pytest.raises(ValueError, match="no family of questions 'riddle'"):
        draw_question(scene, "riddle", Draw(generator("train", 0, "test")))
