"""Questions of the signal annotator: right by what was measured, and not told by one stream."""

import random

import pytest

from saven_hf.pipeline.annotators import open_annotator
from saven_hf.pipeline.annotators.signal import _FACETS, describe_picture, describe_sound
from saven_hf.pipeline.check import balance_letters, orders, verdict
from saven_hf.pipeline.errors import AnnotatorError
from saven_hf.pipeline.measure import PictureFacts, SoundFacts
from saven_hf.pipeline.question import question
from saven_hf.savenvideo.times import parse_spans, parse_times


def facts(brightness=0.5, motion=0.01, level=-20.0, pitch=220.0, rhythm=1.0) -> dict:
    picture = PictureFacts(brightness, 0.0, {"blue": 0.7, "grey": 0.3}, motion, None, 0.0)
    sound = SoundFacts(level, 0.0, 0.0, "tone", pitch, 0.0, 0.9, 800.0, [], rhythm, None)
    return {"picture": picture.to_dict(), "sound": sound.to_dict()}


def row(values: list[dict], name: str = "v", has_audio: bool = True) -> dict:
    segments = [
        {"segment": at, "start": 4.0 * at, "end": 4.0 * at + 4, "first_frame": 4.0 * at, "last_frame": 4 * at + 3.96,
         "frames": 100, "facts": facts(**one)}
        for at, one in enumerate(values)
    ]  # fmt: skip
    return {"video_id": name, "duration": 4.0 * len(values), "has_audio": has_audio, "segments": segments}


def random_row(seed: int, parts: int = 7) -> dict:
    draw = random.Random(seed)
    values = [
        {"brightness": draw.uniform(0, 1), "motion": draw.uniform(0.001, 0.1), "level": draw.uniform(-60, 0),
         "pitch": draw.uniform(80, 900), "rhythm": draw.uniform(0.1, 8)} for _ in range(parts)
    ]  # fmt: skip
    return row(values, f"video-{seed}")


def by_hand(video: dict, asked: dict) -> str:
    """The right letter, from the facts and the words of the question."""
    text, segments = asked["question"], video["segments"]
    if asked["question_type"] == "time_range":
        seen, heard = asked["category"].split(" and ")
        high = {}
        for name in (seen, heard):
            values = sorted(_FACETS[name].value(one["facts"]) for one in segments)
            middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
            high[name] = [_FACETS[name].value(one["facts"]) > middle for one in segments]
        together = f"{_FACETS[seen].high} while the sound is {_FACETS[heard].high}" in text
        right = [at for at in range(len(segments)) if (high[seen][at] == high[heard][at]) == together]
        starts = [parse_spans(option)[0][0] / 1e6 for option in asked["options"]]
        hits = ["ABCD"[k] for k, start in enumerate(starts) if round(start / 4) in right]
        assert len(hits) == 1, (text, hits)
        return hits[0]
    times = parse_times(text)
    if times:
        segments = [one for one in segments if times[0] / 1e6 <= one["start"] and one["last_frame"] <= times[1] / 1e6]
    given, wanted = (_FACETS[name] for name in asked["category"].split(" and "))
    order = sorted(segments, key=lambda one: given.value(one["facts"]))
    part = order[-1] if given.most in text else order[0]
    values = sorted((wanted.value(one["facts"]) for one in segments), reverse=True)
    at = values.index(wanted.value(part["facts"]))
    rank = 0 if at == 0 else 3 if at == len(values) - 1 else 1 if at + 1 <= len(values) / 2 else 2
    return "ABCD"[asked["options"].index(wanted.ranks[rank])]


def test_answers_are_what_was_measured():
    signal, count, kinds = open_annotator("signal"), 0, set()
    for seed in range(60):
        video = random_row(seed, 4 + seed % 8)
        for asked in signal.ask(video):
            assert asked["answer"] == by_hand(video, asked), asked
            assert len(set(asked["options"])) == 4
            assert (asked["question_type"] == "timestamped") == bool(parse_times(asked["question"]))
            count, kinds = count + 1, kinds | {asked["question_type"]}
    assert count > 150 and kinds == {"global", "timestamped", "time_range"}


def test_one_stream_does_not_tell_the_answer():
    """With the other stream exchanged for that of another video, the same questions have other answers."""
    signal, same, count = open_annotator("signal"), 0, 0
    for seed in range(120):
        video, other = random_row(seed), random_row(seed + 1000)
        for asked in signal.ask(video):
            mixed = row([{}] * 7)
            for at, one in enumerate(mixed["segments"]):
                one["facts"] = {"picture": video["segments"][at]["facts"]["picture"],
                                "sound": other["segments"][at]["facts"]["sound"]}  # fmt: skip
            try:
                same += by_hand(mixed, asked) == asked["answer"]
            except AssertionError:  # no range, or several, are right now
                pass
            count += 1
    assert count > 300 and same / count < 0.4


def test_letters_and_ranks_are_spread():
    signal = open_annotator("signal")
    rows = [{"questions": [{**asked, "checks": {}} for asked in signal.ask(random_row(seed))]} for seed in range(120)]
    letters = balance_letters(rows)
    assert min(letters.values()) > 0.15 * sum(letters.values())
    assert all(one["checks"]["option_position"]["passed"] for video in rows for one in video["questions"])


def test_nothing_is_asked_where_nothing_stands_out_or_nothing_is_heard():
    signal = open_annotator("signal")
    alike = row([{}] * 6)
    assert question(alike, signal)["questions"] == []
    assert "nothing could be asked" in question(alike, signal)["no_questions"]
    silent = random_row(0) | {"has_audio": False}
    assert question(silent, signal)["no_questions"] == "the video has no sound"
    assert question(random_row(0, 3), signal)["questions"] == []


def test_letters_that_are_not_balanced_fail():
    rows = [{"questions": [{"answer": "A", "checks": {}} for _ in range(40)]}]
    assert balance_letters(rows) == {"A": 40, "B": 0, "C": 0, "D": 0}
    assert rows[0]["questions"][0]["checks"]["option_position"] == verdict(False, 1.0)
    assert [order[0] for order in orders("abcd")] == list("abcd")


def test_captions_say_numbers_in_words():
    picture = PictureFacts(0.15, 0.2, {"blue": 0.6, "red": 0.1}, 0.02, "left", 0.3)
    assert describe_picture(picture) == (
        "The picture is dark and mostly blue, with some red. There is movement, and all of the picture shifts to the "
        "left. It grows brighter."
    )
    sound = SoundFacts(-15.0, 0.0, 0.0, "tone", 241.2, 0.0, 0.9, 500.0, [0.1, 0.6, 1.1, 1.6], 2.0, True)
    assert describe_sound(sound) == (
        "There is loud sound: tones of a clear pitch, at about 241 Hz, which is middle. A sound begins 2.0 times a "
        "second, in even steps."
    )
    assert describe_sound(SoundFacts(-90.0, 0, 1.0, "silence", None, None, 0, 0, [], 0, None)) == "There is silence."


def test_the_oracle_knows_only_the_world():
    oracle = open_annotator("oracle")
    with pytest.raises(AnnotatorError, match="only videos of the world"):
        oracle.fuse_video({"video_id": "holiday", "duration": 3.0})
    with pytest.raises(AnnotatorError, match="its scene"):
        oracle.fuse_video({"video_id": "iid-00000001", "duration": 3.0})
