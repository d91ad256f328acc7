"""Questions of the signal annotator: right by what was measured, and not told by one stream."""

import math
import random
import re
from collections import Counter

import pytest

from saven_hf.pipeline.annotators import open_annotator
from saven_hf.pipeline.annotators.signal import _FACETS, describe_picture, describe_sound
from saven_hf.pipeline.check import balance_letters, orders, verdict
from saven_hf.pipeline.errors import AnnotatorError
from saven_hf.pipeline.measure import PictureFacts, SoundFacts
from saven_hf.pipeline.question import question
from saven_hf.savenvideo.times import parse_spans, parse_times


def facts(
    brightness=0.5,
    motion=0.01,
    level=-20.0,
    pitch=220.0,
    rhythm=1.0,
    silent=0.0,
    colours=("blue", "grey"),
    kind="tone",
) -> dict:
    shares = dict(zip(colours, (0.5, 0.3, 0.05), strict=False))
    picture = PictureFacts(brightness, 0.0, shares, motion, None, 0.0)
    has_pitch = kind == "tone"
    sound = SoundFacts(
        level, 0.0, 0.0, kind, pitch if has_pitch else None, 0.0, 0.9 * has_pitch, 800.0, [], rhythm, None
    )
    return {"picture": picture.to_dict(), "sound": sound.to_dict()}


def row(values: list[dict], name: str = "v", has_audio: bool = True) -> dict:
    segments = [
        {"segment": at, "start": 4.0 * at, "end": 4.0 * at + 4, "first_frame": 4.0 * at, "last_frame": 4 * at + 3.96,
         "frames": 100, "cuts": [], "facts": facts(**one)}
        for at, one in enumerate(values)
    ]  # fmt: skip
    return {"video_id": name, "duration": 4.0 * len(values), "has_audio": has_audio, "segments": segments}


def random_row(seed: int, parts: int = 7, kinds=("tone", "tone", "tone", "noise", "speech-like")) -> dict:
    """A video whose parts have nothing to do with each other; most are of medium brightness, grey and soft."""
    draw = random.Random(seed)
    values = [
        {"brightness": draw.triangular(0, 1, 0.4), "motion": draw.uniform(0.001, 0.1),
         "level": draw.triangular(-60, 0, -40), "pitch": draw.uniform(80, 900), "rhythm": draw.uniform(0.1, 4),
         "silent": draw.choice([0.0, 0.0, 0.3, 0.7]),
         "colours": draw.sample(["grey", "blue", "red", "green", "brown"], 3),
         "kind": draw.choice(kinds)} for _ in range(parts)
    ]  # fmt: skip
    return row(values, f"video-{seed}")


def like_row(seed: int, parts: int = 4) -> dict:
    """A video whose parts all have the same words, so that nothing is left but to compare them."""
    draw = random.Random(seed)
    values = [
        {"brightness": draw.uniform(0.26, 0.49), "motion": draw.uniform(0.011, 0.029),
         "level": draw.uniform(-31, -21), "pitch": draw.uniform(225, 435), "rhythm": draw.uniform(1.01, 2.4)}
        for _ in range(parts)
    ]  # fmt: skip
    return row(values, f"like-{seed}")


# The words of options, restated: what each covers.
DARK = ("almost black", 0.08), ("dark", 0.25), ("of medium brightness", 0.5), ("bright", 0.75), ("very bright", 1.1)
MOVING = ("hardly anything moves", 0.002), ("little moves", 0.01), ("some things move", 0.03), ("much moves", 9.0)
SOFT = ("very soft", -45), ("soft", -32), ("moderately loud", -20), ("loud", -10), ("very loud", 99)
HIGH = ("very low", 110), ("low", 220), ("middle", 440), ("high", 880), ("very high", 9e9)
OFTEN = ("hardly ever", 0.3), ("now and then", 1.0), ("often", 2.5), ("very often", 9e9)
PAUSES = ("without pauses", 0.1), ("with pauses", 0.5), ("with long pauses", 1.1)
# What a part of a comparison is: of which stream, what is measured of it, and whether that is higher.
COMPARED = {
    "the picture is brighter": ("picture", "brightness", True),
    "the picture is darker": ("picture", "brightness", False),
    "more moves": ("picture", "motion", True), "less moves": ("picture", "motion", False),
    "the sound is louder": ("sound", "level", True), "the sound is softer": ("sound", "level", False),
    "the pitch is higher": ("sound", "pitch", True), "the pitch is lower": ("sound", "pitch", False),
    "new sounds stand out more often": ("sound", "rhythm", True),
    "new sounds stand out less often": ("sound", "rhythm", False),
    "there is more silence": ("sound", "silent", True), "there is less silence": ("sound", "silent", False),
}  # fmt: skip
KINDS = {"tones": "tone", "noise": "noise", "speech": "speech-like"}


def said(text: str, words, value: float) -> bool:
    return text == next(word for word, upper in words if value < upper)


def fits(option: str, segment: dict) -> bool:
    """Whether an option tells of a segment."""
    picture, sound = segment["facts"]["picture"], segment["facts"]["sound"]
    seen = re.fullmatch(r"an? (.+) in mostly (\w+) and (\w+) with a little (\w+), where (.+)", option)
    if seen:
        light = seen[1].removeprefix("picture ").removesuffix(" picture")
        return (said(light, DARK, picture["brightness"]) and said(seen[5], MOVING, picture["motion"])
                and list(picture["colours"]) == list(seen.group(2, 3, 4)))  # fmt: skip
    heard = re.fullmatch(
        r"((?:very |moderately )?(?:soft|loud)) (.*) (with.* pauses), in which new sounds stand out (.*)", option
    )
    kind = next(kind for word, kind in KINDS.items() if word in heard[2])
    pitch = re.search(r"of a ([\w ]+) pitch", heard[2])
    return (said(heard[1], SOFT, sound["level"]) and said(heard[4], OFTEN, sound["rhythm"]) and kind == sound["kind"]
            and said(heard[3], PAUSES, sound["silent"]) and bool(pitch) == bool(sound["pitch"])
            and (not pitch or said(pitch[1], HIGH, sound["pitch"])))  # fmt: skip


def mean(segments: list[dict], stream: str, name: str) -> float:
    """Of parts that are equally long."""
    values = [one["facts"][stream][name] for one in segments]
    if name == "level":
        return 10 * math.log10(sum(10 ** (value / 10) for value in values) / len(values))
    return sum(values) / len(values)


def differs(option: str, one: list[dict], other: list[dict]) -> bool:
    """Whether an option tells how some parts differ from others."""
    return all((mean(one, stream, name) > mean(other, stream, name)) == is_higher
               for stream, name, is_higher in (COMPARED[part] for part in option.split(", and ")))  # fmt: skip


def is_comparison(asked: dict) -> bool:
    return " differ from " in asked["question"]


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
        if ", or the picture " in text:
            together = f"{_FACETS[seen].high} while the sound is {_FACETS[heard].high}" in text
            right = [at for at in range(len(segments)) if (high[seen][at] == high[heard][at]) == together]
        else:
            wanted = [f"picture {_FACETS[seen].high} while" in text, f"sound is {_FACETS[heard].high}," in text]
            right = [at for at in range(len(segments)) if [high[seen][at], high[heard][at]] == wanted]
        starts = [parse_spans(option)[0][0] / 1e6 for option in asked["options"]]
        hits = ["ABCD"[k] for k, start in enumerate(starts) if round(start / 4) in right]
        assert len(hits) == 1, (text, hits)
        return hits[0]
    times = parse_times(text)
    if len(times) == 4:
        one, other = ([part for part in segments if start / 1e6 <= part["start"] and part["last_frame"] <= end / 1e6]
                      for start, end in (times[:2], times[2:]))  # fmt: skip
        hits = [letter for letter, option in zip("ABCD", asked["options"], strict=True) if differs(option, one, other)]
        assert len(hits) == 1, (text, hits)
        return hits[0]
    if times:
        segments = [one for one in segments if times[0] / 1e6 <= one["start"] and one["last_frame"] <= times[1] / 1e6]
    given = _FACETS[asked["category"].split(" and ")[0]]
    order = sorted(segments, key=lambda one: given.value(one["facts"]))
    part = order[-1] if given.most in text else order[0]
    rest = [one for one in segments if one is not part]
    hits = [letter for letter, option in zip("ABCD", asked["options"], strict=True)
            if (differs(option, [part], rest) if is_comparison(asked) else fits(option, part))]  # fmt: skip
    assert len(hits) == 1, (asked, part)
    return hits[0]


def test_answers_are_what_was_measured():
    signal, kinds = open_annotator("signal"), Counter()
    # An anchor of pitch needs a pitch in every part.
    videos = [random_row(seed, 4 + seed % 8, **({"kinds": ("tone",)} if seed % 3 else {})) for seed in range(60)]
    for video in [*videos, *(like_row(seed, 4 + seed % 3) for seed in range(40))]:
        for asked in signal.ask(video):
            assert asked["answer"] == by_hand(video, asked), asked
            assert len(set(asked["options"])) == 4
            assert (asked["question_type"] == "timestamped") == bool(parse_times(asked["question"]))
            kinds[asked["question_type"], is_comparison(asked), ", or the picture " in asked["question"]] += 1
    assert kinds.total() > 300 and len(kinds) == 6 and min(kinds.values()) > 5, kinds


def mixed(video: dict, other: dict, stream: str) -> dict:
    """A video with one stream of another."""
    parts = len(video["segments"])
    changed = row([{}] * parts)
    for one, kept, new in zip(changed["segments"], video["segments"], other["segments"], strict=True):
        one["facts"] = kept["facts"] | {stream: new["facts"][stream]}
    return changed


def test_one_stream_does_not_tell_the_answer():
    """With a stream exchanged for that of another video, the same questions have other answers, and as far as the
    stream that is asked for goes, each option is a part of the video.

    One stream leaves two of the four options of a comparison, and of a range where each stream is told; else all.
    """
    signal, same, count = open_annotator("signal"), Counter(), Counter()
    for seed in range(240):
        parts = 4 + seed % 5
        video, other = ((like_row(seed, parts), like_row(seed + 1000, parts)) if seed % 2 else
                        (random_row(seed, parts, ("tone",)), random_row(seed + 1000, parts, ("tone",))))  # fmt: skip
        for asked in signal.ask(video):
            given = _FACETS[asked["category"].split(" and ")[0]].stream
            is_range = asked["question_type"] == "time_range"
            leaves_two = is_comparison(asked) or is_range and ", or the picture " not in asked["question"]
            if not is_range and not leaves_two:
                assert all(any(fits(option, one) for one in video["segments"]) for option in asked["options"])
            for stream in ("picture", "sound") if leaves_two else (given,):
                try:
                    same[leaves_two, stream] += by_hand(mixed(video, other, stream), asked) == asked["answer"]
                except AssertionError:  # no option, or several, are right now
                    pass
                count[leaves_two, stream] += 1
    assert min(count.values()) > 100
    shares = {key: same[key] / count[key] for key in count}
    assert all(share < (0.55 if leaves_two else 0.4) for (leaves_two, _), share in shares.items()), shares


@pytest.mark.parametrize("video", [random_row, like_row])
def test_options_do_not_tell_the_answer(video):
    """Guessers that see options alone, and the answers of all other questions, are near chance; so are letters."""
    signal = open_annotator("signal")
    rows = [{"questions": [{**asked, "checks": {}} for asked in signal.ask(video(seed))]} for seed in range(150)]
    letters = balance_letters(rows)
    assert min(letters.values()) > 0.15 * sum(letters.values())
    questions = [one for asked in rows for one in asked["questions"]]
    assert all(one["checks"]["option_position"]["passed"] for one in questions) and len(questions) > 300
    gold = [one["options"]["ABCD".index(one["answer"])] for one in questions]
    offered, right = Counter(option for one in questions for option in one["options"]), Counter(gold)

    def rate(option: str, own: str) -> float:  # without this question; what was not seen elsewhere, as chance
        return (right[option] - (option == own) + 0.25) / offered[option]

    hits = Counter()
    for one, own in zip(questions, gold, strict=True):
        words = {option: set(option.split()) for option in one["options"]}
        guesses = {
            "most often right elsewhere": max(one["options"], key=lambda option: rate(option, own)),
            "longest": max(one["options"], key=len),
            "shortest": min(one["options"], key=len),
            "odd one out": min(words, key=lambda option: sum(len(words[option] & words[name]) for name in words)),
            "most alike": max(words, key=lambda option: sum(len(words[option] & words[name]) for name in words)),
        }
        hits.update(name for name, guess in guesses.items() if guess == own)
    shares = {name: hits[name] / len(questions) for name in guesses}
    assert max(shares.values()) < 0.33, shares


def test_nothing_is_asked_where_nothing_stands_out_or_nothing_is_heard():
    signal = open_annotator("signal")
    alike = row([{}] * 6)
    assert question(alike, signal)["questions"] == []
    assert "nothing could be asked" in question(alike, signal)["no_questions"]
    silent = random_row(0) | {"has_audio": False}
    assert question(silent, signal)["no_questions"] == "the video has no sound"
    assert question(random_row(0, 3), signal)["questions"] == []


def test_what_was_counted_a_few_times_is_not_compared():
    """3 sounds against 6 may be chance, 45 against 90 are not."""
    signal, video = open_annotator("signal"), row([{"brightness": 0.3, "rhythm": 0.75}, {"rhythm": 1.5}] * 2)
    assert signal.ask(video) == []
    for segment in video["segments"]:
        segment |= {name: 15 * segment[name] for name in ("start", "end", "first_frame", "last_frame")}
    asked = signal.ask(video)
    assert asked and all("new sounds stand out" in option for one in asked for option in one["options"])


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
    assert describe_picture(picture, [1.5, 62.25]).endswith("The shot changes at 00:00:01.500, 00:01:02.250.")
    assert describe_picture(picture, [1.0, 2.0, 3.0, 4.0]).endswith("The shot changes 4 times.")
    sound = SoundFacts(-15.0, 0.0, 0.0, "tone", 241.2, 0.0, 0.9, 500.0, [0.1, 0.6, 1.1, 1.6], 2.0, True)
    assert describe_sound(sound) == (
        "There is loud sound: tones of a clear pitch, at about 241 Hz, which is middle. A new sound stands out 2.0 "
        "times a second, in even steps."
    )
    assert describe_sound(SoundFacts(-90.0, 0, 1.0, "silence", None, None, 0, 0, [], 0, None)) == "There is silence."


def test_the_oracle_knows_only_the_world():
    oracle = open_annotator("oracle")
    with pytest.raises(AnnotatorError, match="only videos of the world"):
        oracle.fuse_video({"video_id": "holiday", "duration": 3.0})
    with pytest.raises(AnnotatorError, match="its scene"):
        oracle.fuse_video({"video_id": "iid-00000001", "duration": 3.0})
