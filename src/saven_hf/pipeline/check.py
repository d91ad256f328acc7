"""Stage 5: verdicts on every question. Nothing is dropped: filters are queries over the verdicts that rows store.

What can be told from one video is told by `check`, a function of its row. Two verdicts compare rows with each other
and are made when all are there: `balance_letters`, and `mark_duplicates` for videos that are nearly the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..data.prompts import LETTERS
from ..data.schema import LEAST_EVENTS, NOT_CHECKED, OPTIONS
from ..savenvideo.media import Media
from ..savenvideo.times import parse_spans, parse_times
from .annotators import Annotator
from .errors import ReplyError
from .measure import picture_hash, sound_hash
from .parsing import Options
from .rules import Context, check_rules, lengths_balanced, question_problems, similarity


ORDERS = 4  # of the options, each beginning with another one
# Our decision, after AVUT's filter by permuted answers: a guesser knows what it gets right in 3 of 4 orders.
KNOWN_FROM = 3 / ORDERS
SAME_TEXT = 0.8  # share of words of nearly the same questions or captions
# Of nearly the same video: share of bits that may differ between hashes of frames and of sound, by re-encoding.
# Unrelated ones differ in half of theirs.
SAME_PICTURE, SAME_SOUND = 0.16, 0.3


def verdict(passed: bool | None, score: float | None = None, detail: str | None = None) -> dict:
    """A verdict as `data.schema.Verdict` stores it."""
    return {"passed": passed, "score": None if score is None else float(score), "detail": detail}


def check(row: dict, media: Media, annotator: Annotator) -> dict:
    """The row whose questions have "checks", and which has "picture_hash" and "sound_hash" of its video."""
    questions = row["questions"]
    known = {"leakage": None, "visual_only": row["visual_caption"], "audio_only": row["audio_caption"],
             "consistency": row["av_caption"]}  # fmt: skip
    right_in, who = _guess(questions, annotator, list(known.values()))
    rates = dict(zip(known, right_in, strict=True))
    checked = []
    for at, asked in enumerate(questions):
        checks = dict(NOT_CHECKED)
        checks["format"] = _format(row, asked)
        checks["consistency"] = _consistency(row, asked, rates["consistency"][at] if who == _MODEL else None)
        checks["redundancy"] = _redundancy(row, asked, questions[:at])
        for name in ("leakage", "visual_only", "audio_only"):
            checks[name] = verdict(rates[name][at] < KNOWN_FROM, rates[name][at], who)
        right, wrong = _right_and_wrong(asked)
        longest = max(map(len, wrong))
        checks["option_length"] = verdict(lengths_balanced(right, wrong), round(len(right) / longest, 3))
        checks["events"] = verdict(row["events"] >= LEAST_EVENTS, row["events"])
        checked.append({**asked, "checks": checks})
    return {**row, "questions": checked, "picture_hash": picture_hash(media), "sound_hash": sound_hash(media)}


def _right_and_wrong(asked: Mapping) -> tuple[str, tuple[str, ...]]:
    right = LETTERS.index(asked["answer"])
    return asked["options"][right], tuple(asked["options"][:right] + asked["options"][right + 1 :])


def _format(row: dict, asked: dict) -> dict:
    """The rules on options, and those on questions that a single one can be held to."""
    context = Context(captions=[one["av_text"] for one in row["segments"]], duration=row["duration"], kind="global")
    problems = question_problems(asked["question"], asked["question_type"], context)
    try:
        # Ranges are compared with events, which for the world are not the segments found.
        check_rules("options", Options(*_right_and_wrong(asked)), context)
    except ReplyError as error:
        problems += error.problems
    return verdict(not problems, None, " ".join(problems) or None)


def _consistency(row: dict, asked: dict, known: float | None) -> dict:
    """Times named lie in the video, the evidence too, it does not contradict the time range that is right, and who
    knows the captions chooses the right option.

    Args:
        known: share of orders in which a model that was given the final caption is right; None without a model, which
            leaves undecided whether the captions agree.
    """
    duration = row["duration"] + 1e-3
    texts = [asked["question"], *asked["options"]]
    late = [time / 1e6 for text in texts for time in parse_times(text) if time / 1e6 > duration]
    if late:
        return verdict(False, None, f"{late[0]:g} s lies outside of the video.")
    if any(not 0 <= start < end <= duration for start, end in asked["evidence"]):
        return verdict(False, None, "The evidence lies outside of the video.")
    if asked["question_type"] == "time_range":
        times = parse_times(_right_and_wrong(asked)[0])
        inside = any(
            start - 0.05 <= times[0] / 1e6 and times[-1] / 1e6 <= end + 0.05 for start, end in asked["evidence"]
        )
        if len(times) != 2 or not inside:
            return verdict(False, None, "The right range is not the evidence.")
    if known is None:
        return verdict(None, None, "The times agree; no model was asked whether the captions do.")
    return verdict(known >= KNOWN_FROM, known, _MODEL)


def _redundancy(row: dict, asked: dict, before: Sequence[dict]) -> dict:
    """Not nearly the words of an earlier question with the same times; and what is told of the evidence is not nearly
    what is told of another segment, which would answer it as well: one that the question's range of time includes."""
    closest = max(
        (similarity(asked["question"], one["question"]) for one in before
         if parse_times(one["question"]) == parse_times(asked["question"])), default=0.0,
    )  # fmt: skip
    inside, outside = [], []
    # Text rounds to 1 ms, by which a range may reach into the segment before.
    named = [(start / 1e6 + 1e-3, end / 1e6) for start, end in parse_spans(asked["question"]) if start < end]
    for one in row["segments"]:
        if _overlaps(one, asked["evidence"]):
            inside.append(one["av_text"])
        elif not named or _overlaps(one, named):
            outside.append(one["av_text"])
    told = max((similarity(one, other) for one in inside for other in outside), default=0.0)
    detail = "A segment beside the evidence has nearly the same caption." if told >= SAME_TEXT else None
    return verdict(max(closest, told) < SAME_TEXT, round(max(closest, told), 3), detail)


def _overlaps(segment: dict, spans: Iterable[Sequence[float]]) -> bool:
    return any(start < segment["end"] and segment["start"] < end for start, end in spans)


# ---------------------------------------------------------------------------------------------------------------------
# Guessers


def orders(options: Sequence[str]) -> list[list[str]]:
    """The options in `ORDERS` orders: each stands in each place once."""
    return [[*options[at:], *options[:at]] for at in range(ORDERS)]


_MODEL, _WORDS = "by the annotator's model", "by words in common"


def _guess(
    questions: Sequence[dict], annotator: Annotator, captions: Sequence[str | None]
) -> tuple[list[list[float]], str]:
    """How often a guesser that knows no more of the video than one caption is right, over several orders of options.

    Returns:
        For each caption the share of right choices of each question; and who guessed.
    """
    asked = [{"question": one["question"], "options": order, "caption": caption}
             for caption in captions for one in questions for order in orders(one["options"])]  # fmt: skip
    chosen, who = annotator.choose(asked) if asked else [], _MODEL
    if chosen is None:
        chosen, who = [_by_words(one) for one in asked], _WORDS
    picked = iter([None if letter is None else one["options"][LETTERS.index(letter)]
                   for one, letter in zip(asked, chosen, strict=True)])  # fmt: skip
    gold = [_right_and_wrong(one)[0] for one in questions]
    return [[sum(next(picked) == right for _ in range(ORDERS)) / ORDERS for right in gold] for _ in captions], who


def _by_words(asked: Mapping) -> str | None:
    """The guesser without weights: the option that shares most words with what is known, if one stands out by two."""
    known = set(re.findall(r"[a-z]{3,}|\d[\d:.]+", f"{asked['question']} {asked['caption'] or ''}".lower()))
    shared = [len(known & set(re.findall(r"[a-z]{3,}|\d[\d:.]+", option.lower()))) for option in asked["options"]]
    best = max(range(len(shared)), key=shared.__getitem__)
    return LETTERS[best] if shared[best] >= 2 + max(shared[:best] + shared[best + 1 :], default=0) else None


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
    return {letter: counts[letter] for letter in LETTERS[:OPTIONS]}


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
