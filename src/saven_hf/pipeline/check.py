"""Stage 5: verdicts on every question. Nothing is dropped: filters are queries over the verdicts that rows store.

What can be told from one video is told by `check`, a function of its row. Two verdicts compare rows with each other
and are made when all are there: `balance_letters`, and `mark_duplicates` for videos that are nearly the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..data.schema import LEAST_EVENTS, NOT_CHECKED
from ..savenvideo.media import Media
from ..savenvideo.times import parse_times
from .annotators import Annotator
from .errors import ReplyError
from .measure import picture_hash, sound_hash
from .parsing import Options
from .rules import Context, check_rules, lengths_balanced, similarity


ORDERS = 4  # of the options, each beginning with another one
# Our decision, after AVUT's filter by permuted answers: a question leaks if a guesser is right in 3 of 4 orders.
LEAKS_FROM = 3
SAME_QUESTION = 0.8
# Of nearly the same video: share of bits that may differ between hashes of frames and of sound, by re-encoding.
# Unrelated ones differ in half of theirs.
SAME_PICTURE, SAME_SOUND = 0.16, 0.3


def verdict(passed: bool | None, score: float | None = None, detail: str | None = None) -> dict:
    """A verdict as `data.schema.Verdict` stores it."""
    return {"passed": passed, "score": None if score is None else float(score), "detail": detail}


def check(row: dict, media: Media, annotator: Annotator) -> dict:
    """The row whose questions have "checks", and which has "picture_hash" and "sound_hash" of its video."""
    questions = row["questions"]
    blind, visual, audio = _guess(questions, annotator, (None, row["visual_caption"], row["audio_caption"]))
    checked = []
    for at, asked in enumerate(questions):
        checks = dict(NOT_CHECKED)
        checks["format"] = _format(row, asked)
        checks["consistency"] = _consistency(row, asked)
        checks["redundancy"] = _redundancy(asked, questions[:at])
        checks["leakage"], checks["visual_only"], checks["audio_only"] = blind[at], visual[at], audio[at]
        wrong = [option for letter, option in zip("ABCD", asked["options"], strict=True) if letter != asked["answer"]]
        right = asked["options"]["ABCD".index(asked["answer"])]
        longest = max(map(len, wrong))
        checks["option_length"] = verdict(lengths_balanced(right, wrong), round(len(right) / longest, 3))
        checks["events"] = verdict(row["events"] >= LEAST_EVENTS, row["events"])
        checked.append({**asked, "checks": checks})
    return {**row, "questions": checked, "picture_hash": picture_hash(media), "sound_hash": sound_hash(media)}


def _format(row: dict, asked: dict) -> dict:
    """The rules on options, and what a single question can be held to of those on questions."""
    right = "ABCD".index(asked["answer"])
    options = Options(asked["options"][right], tuple(asked["options"][:right] + asked["options"][right + 1 :]))
    kind, times = asked["question_type"], parse_times(asked["question"])
    problems = []
    if (kind == "timestamped") != bool(times):
        problems.append(f"A {kind} question {'names' if times else 'lacks'} times.")
    if not asked["question"].endswith("?"):
        problems.append("It does not end with a question mark.")
    try:
        # Ranges are compared with events, which for the world are not the segments found.
        check_rules("options", options, Context(duration=row["duration"], kind="global"))
    except ReplyError as error:
        problems += error.problems
    return verdict(not problems, None, " ".join(problems) or None)


def _consistency(row: dict, asked: dict) -> dict:
    """Times named lie in the video, the evidence too, and it does not contradict the time range that is right."""
    duration = row["duration"] + 1e-3
    texts = [asked["question"], *asked["options"]]
    late = [time / 1e6 for text in texts for time in parse_times(text) if time / 1e6 > duration]
    if late:
        return verdict(False, None, f"{late[0]:g} s lies outside of the video.")
    if any(not 0 <= start < end <= duration for start, end in asked["evidence"]):
        return verdict(False, None, "The evidence lies outside of the video.")
    if asked["question_type"] == "time_range":
        times = parse_times(asked["options"]["ABCD".index(asked["answer"])])
        inside = any(
            start - 0.05 <= times[0] / 1e6 and times[-1] / 1e6 <= end + 0.05 for start, end in asked["evidence"]
        )
        if len(times) != 2 or not inside:
            return verdict(False, None, "The right range is not the evidence.")
    return verdict(True)


def _redundancy(asked: dict, before: Sequence[dict]) -> dict:
    """Not nearly the words of an earlier question with the same times."""
    closest = max(
        (similarity(asked["question"], one["question"]) for one in before
         if parse_times(one["question"]) == parse_times(asked["question"])), default=0.0,
    )  # fmt: skip
    return verdict(closest < SAME_QUESTION, round(closest, 3))


# ---------------------------------------------------------------------------------------------------------------------
# Guessers


def orders(options: Sequence[str]) -> list[list[str]]:
    """The options in `ORDERS` orders: each stands in each place once."""
    return [[*options[at:], *options[:at]] for at in range(ORDERS)]


def _guess(questions: Sequence[dict], annotator: Annotator, captions: Sequence[str | None]) -> list[list[dict]]:
    """For each caption, verdicts of a guesser that knows no more of the video, over several orders of options."""
    asked = [{"question": one["question"], "options": order, "caption": caption}
             for caption in captions for one in questions for order in orders(one["options"])]  # fmt: skip
    chosen = annotator.choose(asked) if asked else []
    who = "by the annotator's model"
    if chosen is None:
        chosen, who = [_by_words(one) for one in asked], "by words in common"
    picked = iter([None if letter is None else one["options"]["ABCD".index(letter)]
                   for one, letter in zip(asked, chosen, strict=True)])  # fmt: skip
    verdicts = []
    for _ in captions:
        of_caption = []
        for one in questions:
            right = one["options"]["ABCD".index(one["answer"])]
            hits = sum(next(picked) == right for _ in range(ORDERS))
            of_caption.append(verdict(hits < LEAKS_FROM, hits / ORDERS, who))
        verdicts.append(of_caption)
    return verdicts


def _by_words(asked: Mapping) -> str | None:
    """The guesser without weights: the option that shares most words with what is known, if one stands out by two."""
    known = set(re.findall(r"[a-z]{3,}|\d[\d:.]+", f"{asked['question']} {asked['caption'] or ''}".lower()))
    shared = [len(known & set(re.findall(r"[a-z]{3,}|\d[\d:.]+", option.lower()))) for option in asked["options"]]
    best = max(range(len(shared)), key=shared.__getitem__)
    return "ABCD"[best] if shared[best] >= 2 + max(shared[:best] + shared[best + 1 :], default=0) else None


# ---------------------------------------------------------------------------------------------------------------------
# All rows


def balance_letters(rows: Iterable[dict]) -> dict[str, int]:
    """Store the verdict "option_position" in all questions: whether right letters are spread evenly over the rows.

    A question fails if its letter is more frequent than chance explains at the level of 1 in 1000.

    Returns:
        How often each letter is right.
    """
    questions = [one for row in rows for one in row["questions"]]
    counts = Counter(one["answer"] for one in questions)
    expected = len(questions) / 4
    deviation = (len(questions) * 3 / 16) ** 0.5
    for one in questions:
        share = counts[one["answer"]] / len(questions)
        even = counts[one["answer"]] <= expected + 3.3 * deviation
        one["checks"]["option_position"] = verdict(even, round(share, 4))
    return {letter: counts[letter] for letter in "ABCD"}


def hash_distance(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of bits in which two lists of hashes differ; 1 where they cannot be compared."""
    if not one or len(one) != len(other):
        return 1.0
    differing = sum((int(a, 16) ^ int(b, 16)).bit_count() for a, b in zip(one, other, strict=True))
    return differing / (4 * sum(map(len, one)))


def mark_duplicates(rows: Sequence[dict], others: Sequence[dict]) -> list[tuple[str, str, float]]:
    """Store the verdict "duplicate_video": no video is nearly the same as one of `others`.

    Video-MME and MUSIC-AVQA are sources of the training data and benchmarks as well, so a split must be compared with
    the ones it must not share videos with.

    Args:
        rows: with "video_id", "duration", "picture_hash", "sound_hash".
        others: the same, of another split or benchmark.

    Returns:
        (video, the other one, share of differing bits of the picture) for each pair found. With nothing to compare
        with there is no verdict.
    """
    if not others:
        return []
    pairs = []
    for row in rows:
        nearest, name = 1.0, None
        for other in others:
            distance = hash_distance(row["picture_hash"], other["picture_hash"])
            if row["sound_hash"] and other["sound_hash"]:  # either alone may agree by chance: a black screen, silence
                if hash_distance(row["sound_hash"], other["sound_hash"]) > SAME_SOUND:
                    continue
            if distance < nearest:
                nearest, name = distance, other["video_id"]
        same = nearest <= SAME_PICTURE
        if same:
            pairs.append((row["video_id"], name, nearest))
        for one in row["questions"]:
            one["checks"]["duplicate_video"] = verdict(not same, round(nearest, 4), f"as {name}" if same else None)
    return pairs
