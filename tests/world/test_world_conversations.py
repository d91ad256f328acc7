"""Conversations: what they say is true of the scene, and nothing held out is in them."""

import re
from collections import Counter

import pytest

from saven_hf.data.messages import check_row
from saven_hf.savenvideo.times import parse_spans, parse_times
from saven_hf.world import FAMILIES, SPLITS, mute, sample_scene, shift_sound, solve
from saven_hf.world.captions import describe_picture, describe_sound
from saven_hf.world.conversations import (
    INSTRUCTIONS,
    TURNS,
    as_messages,
    describe_scene,
    make_conversation,
    shift_times,
)
from saven_hf.world.wordings import FURTHER, WORDINGS


ALL = dict.fromkeys(TURNS, 1.0)


def turns_of(seeds, split="train", segments=None, turns=12, kinds=ALL):
    for seed in seeds:
        scene = sample_scene(seed, split, segments)
        for turn in make_conversation(scene, kinds, turns=turns):
            yield scene, turn


def test_the_same_arguments_give_the_same_turns():
    scene = sample_scene(3)
    one = make_conversation(scene, ALL, turns=8)
    assert one == make_conversation(sample_scene(3), ALL, turns=8)
    assert one != make_conversation(scene, ALL, turns=8, round=1) != []
    # Fewer turns are the first ones of more.
    assert make_conversation(scene, ALL, turns=3) == one[:3]


def test_times_are_those_of_the_scene():
    seen = Counter()
    for scene, turn in turns_of(range(150)):
        events = {
            "visual": [(event.start, event.end) for event in scene.pictures],
            "audio": [(event.start, event.end) for event in scene.sounds],
            "both": [(segment.start, segment.end) for segment in scene.segments],
        }
        stream = turn.kind.split("_")[0] if turn.kind.startswith(("visual", "audio")) else "both"
        if turn.kind.endswith("captions"):
            assert parse_spans(turn.assistant) == events[stream]
        elif turn.kind.endswith("span_caption"):
            assert parse_spans(turn.assistant) == parse_spans(turn.user)
            assert parse_spans(turn.user)[0] in events[stream]
        else:
            known = {time for spans in events.values() for span in spans for time in span}
            assert set(parse_times(turn.assistant)) <= known
        seen[turn.kind] += 1
    assert set(seen) == set(TURNS)


def test_captions_describe_what_is_there_then():
    for scene, turn in turns_of(range(60), kinds={"visual_span_caption": 1, "audio_span_caption": 1}, turns=4):
        start = parse_spans(turn.user)[0][0]
        if turn.kind == "visual_span_caption":
            assert turn.assistant.endswith(f" {describe_picture(scene.picture_at(start))}.")
        else:
            assert turn.assistant.endswith(f" {describe_sound(scene.sound_at(start))}.")


def test_answers_are_the_truth_behind_the_last_colon():
    for scene, turn in turns_of(range(150), kinds={"choice": 1, "open": 1}):
        grounds, _, conclusion = turn.assistant.rpartition(": ")
        assert grounds and conclusion == turn.question.answer_text == solve(scene, turn.question)
        assert turn.user == turn.question.prompt(turn.kind)
        assert turn.kind == "open" or conclusion in turn.user


def test_no_turn_is_a_repeat():
    for seed in range(60):
        scene = sample_scene(seed, segments=(2, 5))
        turns = make_conversation(scene, ALL, turns=40)
        subjects = [
            (turn.kind, *parse_times(turn.user))
            if turn.question is None
            else (turn.question.family, str(turn.question.arguments))
            for turn in turns
        ]
        assert len(set(subjects)) == len(subjects)
        assert len({turn.user for turn in turns}) == len(turns)


@pytest.mark.parametrize("segments", [2, 3])
def test_the_smallest_scenes(segments):
    for seed in range(80):
        scene = sample_scene(seed, segments=segments)
        assert make_conversation(scene, {"captions": 1.0})
        for kind in TURNS:
            for turn in make_conversation(scene, {kind: 1.0}, turns=6):
                assert turn.kind == kind and turn.user and turn.assistant
                assert (kind == "choice") <= (turn.question is not None and len(turn.question.options) == 4)


def _is_worded(text, wording):
    return re.fullmatch(re.sub(r"\\{\w+\\}", ".+", re.escape(wording)), text, re.IGNORECASE) is not None


def test_further_wordings_are_learnt_from_and_not_asked():
    """Half of what is learnt from is in further wordings, all of them; none is a held-out one."""
    assert set(FURTHER) == set(WORDINGS)
    further = Counter()
    for _, turn in turns_of(range(3000), kinds={"open": 1.0}):
        family = turn.question.family
        further[any(_is_worded(turn.question.text, one) for one in FURTHER[family])] += 1
    assert further[True] / further.total() > 0.5
    for family, wordings in FURTHER.items():
        asked, held_out = WORDINGS[family]
        assert len(wordings) >= 4 and not {*asked, *held_out} & set(wordings)


@pytest.mark.parametrize("split", SPLITS)
def test_held_out_wordings_stay_out(split):
    held_out = SPLITS[split].held_out_paraphrases
    for _, turn in turns_of(range(25), split):
        if turn.question is not None:
            wordings = WORDINGS[turn.question.family][held_out]
            wordings += FURTHER[turn.question.family] if split == "train" else ()
            assert any(_is_worded(turn.question.text, wording) for wording in wordings)
        elif turn.kind in ("captions", "span_caption"):
            assert ("while" in turn.assistant.lower()) == held_out  # in both held-out wordings, in none of the others


def test_kinds_are_drawn_by_weight():
    kinds = {"visual_span_caption": 3.0, "audio_span_caption": 1.0, "captions": 0.0}
    counts = Counter(turn.kind for _, turn in turns_of(range(800), turns=1, kinds=kinds))
    assert set(counts) == {"visual_span_caption", "audio_span_caption"}
    assert counts["visual_span_caption"] / 800 == pytest.approx(0.75, abs=0.06)  # four standard deviations


def test_questions_of_all_formats_alike():
    counts = Counter(turn.question.question_type for _, turn in turns_of(range(600), turns=1, kinds={"choice": 1}))
    for count in counts.values():
        assert count / counts.total() == pytest.approx(1 / 3, abs=0.09)


@pytest.mark.parametrize(("needs", "caption"), [("picture", "visual_span_caption"), ("sound", "audio_span_caption")])
def test_what_one_modality_tells(needs, caption):
    """The answers are those of the scene without its other modality; and of such there are many."""
    seen = Counter()
    for seed in range(60):
        scene = sample_scene(seed)
        for turn in make_conversation(scene, {caption: 1.0, "open": 1.0, "choice": 1.0}, turns=5, needs=needs):
            seen[turn.kind, turn.question and turn.question.family] += 1
            if turn.question is not None:
                assert FAMILIES[turn.question.family].needs == needs
                if needs == "picture":
                    assert solve(mute(scene), turn.question) == turn.question.answer_text
    families = {name for name, family in FAMILIES.items() if family.needs == needs}
    assert {family for _, family in seen} == families | {None} and seen.total() > 150


def test_bad_arguments_are_named():
    scene = sample_scene(0)
    with pytest.raises(ValueError, match="'picture' or 'sound' alone, or None for both; given is 'both'"):
        make_conversation(scene, {"open": 1.0}, needs="both")
    with pytest.raises(ValueError, match="'span_caption' tell of both, not of the sound alone"):
        make_conversation(scene, {"open": 1.0, "span_caption": 1.0}, needs="sound")
    with pytest.raises(ValueError, match="no kind of turn 'poem'"):
        make_conversation(scene, {"poem": 1.0})
    for kinds in ({}, {"open": 0.0}, {"open": 2.0, "choice": -1.0}, {"open": float("nan")}):
        with pytest.raises(ValueError, match="Weights of kinds"):
            make_conversation(scene, kinds)
    with pytest.raises(ValueError, match="was edited"):
        make_conversation(shift_sound(scene, 0.5), ALL)
    with pytest.raises(ValueError, match="has no 'poem'"):
        describe_scene(scene, "poem")


def test_turns_as_messages():
    turns = make_conversation(sample_scene(1), ALL, turns=4)
    messages = as_messages(turns)
    check_row({"messages": messages, "videos": ["a.mp4"]})
    blocks = [block["type"] for message in messages for block in message["content"]]
    assert blocks == ["video"] + ["text"] * 2 * len(turns)
    assert messages[-1]["content"][0]["text"] == turns[-1].assistant
    assert as_messages([]) == []


def test_times_are_shifted_together():
    text = "from 00:00:01.000 to 00:59:59.999, and at 100:00:00.250: 3 circles"
    assert shift_times(text, 500_000) == "from 00:00:01.500 to 01:00:00.499, and at 100:00:00.750: 3 circles"
    assert shift_times(text, 0) == text
    for _, turn in turns_of(range(30)):
        for text in (turn.user, turn.assistant):
            moved = shift_times(text, 123_400_000)
            assert parse_times(moved) == [time + 123_400_000 for time in parse_times(text)]
            assert shift_times(moved, -123_400_000) == text


def test_each_kind_of_caption_has_instructions():
    assert set(INSTRUCTIONS) == {kind for kind in TURNS if "caption" in kind}
    assert len({text for texts in INSTRUCTIONS.values() for text in texts}) == sum(map(len, INSTRUCTIONS.values()))
