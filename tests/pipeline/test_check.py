"""Verdicts that need no media: on captions, on wording, and of a model that knows one caption."""

import numpy as np
import pytest

from saven_hf.pipeline import check
from saven_hf.pipeline.check import ORDERS


TEXTS = (
    "While a red ball rolls to the left a bell rings twice.",
    "While a dog sleeps on the sofa rain falls softly.",
    "While a train leaves the station somebody sings of home.",
)
ASKED = {
    "question": "Which animal rests while it rains?",
    "options": ["The cat.", "The bird.", "The dog.", "The horse."],
    "answer": "C",
    "question_type": "global",
    "category": "c",
    "evidence": [[4.0, 8.0]],
}


class Knows:
    """An annotator that chooses rightly when it is given a caption, `share` of the time, and A when it is not."""

    def __init__(self, caption: str, right: int = ORDERS):
        self.caption, self.right = caption, right

    def choose(self, asked):
        chosen, left = [], self.right
        for one in asked:
            knows = one["caption"] == self.caption and left > 0
            left -= knows
            chosen.append("ABCD"[one["options"].index("The dog.")] if knows else "A")
        return chosen


class Nobody:
    def choose(self, asked):
        return None


@pytest.fixture(autouse=True)
def no_media(monkeypatch):
    monkeypatch.setattr(check, "picture_hash", lambda media: [])
    monkeypatch.setattr(check, "sound_hash", lambda media: [])


def checks(annotator=None, texts=TEXTS, events=3, **changes) -> dict:
    segments = [{"start": 4.0 * at, "end": 4.0 * at + 4, "av_text": text} for at, text in enumerate(texts)]
    row = {"segments": segments, "duration": 4.0 * len(texts), "events": events, "visual_caption": "Seen.",
           "audio_caption": "Heard.", "av_caption": "Both.", "questions": [ASKED | changes]}  # fmt: skip
    return check.check(row, None, annotator or Nobody())["questions"][0]["checks"]


def test_who_knows_all_captions_must_choose_the_right_option():
    assert checks(Knows("Both."))["consistency"] == {
        "passed": True,
        "score": 1.0,
        "detail": "by the annotator's model",
    }
    # Right in the one of four orders in which it is told, and in the one in which the right option stands at A.
    assert checks(Knows("Both.", right=1))["consistency"]["passed"] is False
    assert checks(Knows("nothing"))["consistency"] == {
        "passed": False, "score": 0.25, "detail": "by the annotator's model",
    }  # fmt: skip


def test_without_a_model_it_is_not_known_whether_captions_agree_but_times_are_checked():
    assert checks()["consistency"]["passed"] is None and "no model" in checks()["consistency"]["detail"]
    for wrong in ({"question": "At 00:01:00.000, who rests?"}, {"evidence": [[4.0, 80.0]]}):
        assert checks(**wrong)["consistency"]["passed"] is False


@pytest.mark.parametrize("name, caption", [("visual_only", "Seen."), ("audio_only", "Heard."), ("leakage", None)])
def test_who_knows_less_must_not(name, caption):
    found = checks(Knows(caption))
    others = {"visual_only", "audio_only", "leakage"} - {name}
    assert found[name] == {"passed": False, "score": 1.0, "detail": "by the annotator's model"}
    assert all(found[other]["passed"] and found[other]["score"] == 0.25 for other in others)


def test_evidence_that_is_told_like_another_segment_is_redundant():
    assert checks()["redundancy"]["passed"] and checks()["redundancy"]["score"] < 0.5
    twice = (*TEXTS, f"{TEXTS[1]} Always.")
    found = checks(texts=twice)["redundancy"]
    assert not found["passed"] and 0.8 < found["score"] < 1 and "nearly the same caption" in found["detail"]
    # Where all of the video is the evidence, nothing beside it answers the question as well.
    assert checks(texts=twice, evidence=[[0.0, 16.0]])["redundancy"]["passed"]
    # Nor does what lies outside of the range of time that the question names.
    asked = "From 00:00:00.000 to {}, which animal rests while it rains?"
    assert checks(texts=twice, question=asked.format("00:00:11.960"))["redundancy"]["passed"]
    assert not checks(texts=twice, question=asked.format("00:00:15.960"))["redundancy"]["passed"]
    before = (TEXTS[1], *TEXTS[1:])
    for start, is_outside in (("00:00:03.999", True), ("00:00:03.960", False)):  # the segment before ends at 4 s
        asked = f"From {start} to 00:00:07.960, which animal rests while it rains?"
        assert checks(texts=before, question=asked)["redundancy"]["passed"] == is_outside


def test_a_video_has_as_many_events_as_shots():
    assert checks(events=2)["events"] == {"passed": False, "score": 2.0, "detail": None}
    assert checks(events=3)["events"]["passed"]


def test_questions_are_held_to_the_rules_whoever_wrote_them():
    assert checks()["format"]["passed"], checks()["format"]
    for question in (
        "Which animal does the narrator name?",
        "Which animal",
        "Is it true that a dog sleeps on the sofa?",
    ):
        assert not checks(question=question)["format"]["passed"], question


def test_hashes_that_cannot_be_compared_are_unlike():
    assert check.hash_distance([], []) == 1.0 and check.hash_distance(["ff"], ["ff", "00"]) == 1.0
    assert np.isclose(check.hash_distance(["ff"], ["fe"]), 1 / 8)
