"""The annotator without weights: measurements in words, and questions whose answers are measured.

Captions state what `measure` finds. Questions link the two streams: one part of the video is named by what its
picture shows, and its sound is asked for, or the other way round; so neither stream alone tells the answer. A
question is only asked where the measured values lie clearly apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...savenvideo.times import format_time
from ..measure import PictureFacts, SoundFacts, measure_picture, measure_sound
from ..spans import segment_times, span_option
from .base import Annotator, Clip


# Upper ends of what a word covers.
_BRIGHTNESS = (
    (0.08, "almost black"),
    (0.25, "dark"),
    (0.5, "of medium brightness"),
    (0.75, "bright"),
    (1.1, "very bright"),
)
_MOTION = (
    (0.002, "Nothing moves"),
    (0.01, "Little moves"),
    (0.03, "There is movement"),
    (9.0, "There is much movement"),
)
_LOUDNESS = ((-45, "very soft"), (-32, "soft"), (-20, "moderately loud"), (-10, "loud"), (99, "very loud"))
_PITCH = ((110, "very low"), (220, "low"), (440, "middle"), (880, "high"), (1e9, "very high"))
_KINDS = {
    "tone": "tones of a clear pitch",
    "noise": "noise without a pitch",
    "speech-like": "sound that comes and goes like speech",
    "mixed": "a mixture of sounds",
}


class _Facet(NamedTuple):
    """Something measured of every segment that can be compared.

    Attributes:
        stream: "picture" or "sound".
        value: of a segment's facts; None where it has none.
        apart: least difference that is clear to see or hear; a factor where `is_ratio`.
        most, least: anchors, behind "while".
        asked: the question; `{when}` is the anchor, `{within}` the parts compared with.
        ranks: options, from the highest value to the lowest.
        high, low: of the two halves, behind "the picture is" or "the sound is".
    """

    stream: str
    value: Callable[[dict], float | None]
    apart: float
    is_ratio: bool
    most: str
    least: str
    asked: str
    ranks: tuple[str, str, str, str]
    high: str
    low: str

    def clear(self, one: float, other: float) -> bool:
        if self.is_ratio:
            return max(one, other) >= self.apart * max(min(one, other), 1e-9)
        return abs(one - other) >= self.apart


def _pitch(facts: dict) -> float | None:
    sound = SoundFacts(**facts["sound"])
    return sound.pitch if _has_one_pitch(sound) else None


def _has_one_pitch(sound: SoundFacts) -> bool:
    """Whether one number says how high a clip's sound is: not for a melody, a chord, or mostly noise."""
    is_steady = (sound.pitch_spread or 0) < 0.4 and (sound.pitch_jumps or 0) < 0.1
    return sound.pitch is not None and sound.voiced > 0.6 and is_steady


_FACETS = {
    "brightness": _Facet(
        "picture", lambda facts: facts["picture"]["brightness"], 0.04, False,
        "the picture is at its brightest", "the picture is at its darkest",
        "how bright is the picture, compared with {within}, while {when}",
        ("the brightest of all", "brighter than most, but not the brightest",
         "darker than most, but not the darkest", "the darkest of all"),
        "bright", "dark",
    ),
    "motion": _Facet(
        "picture", lambda facts: facts["picture"]["motion"], 1.4, True,
        "the picture moves most", "the picture moves least",
        "how much moves in the picture, compared with {within}, while {when}",
        ("the most of all", "more than in most parts, but not the most",
         "less than in most parts, but not the least", "the least of all"),
        "full of movement", "calm",
    ),
    "loudness": _Facet(
        "sound", lambda facts: max(facts["sound"]["level"], -70.0), 3.0, False,
        "the sound is at its loudest", "the sound is at its softest",
        "how loud is it, compared with {within}, while {when}",
        ("the loudest of all", "louder than most, but not the loudest",
         "softer than most, but not the softest", "the softest of all"),
        "loud", "soft",
    ),
    "pitch": _Facet(
        "sound", _pitch, 1.2, True,
        "the pitch is at its highest", "the pitch is at its lowest",
        "how high is the pitch of what is heard, compared with {within}, while {when}",
        ("the highest of all", "higher than most, but not the highest",
         "lower than most, but not the lowest", "the lowest of all"),
        "high in pitch", "low in pitch",
    ),
    "rhythm": _Facet(
        "sound", lambda facts: facts["sound"]["rhythm"], 1.5, True,
        "sounds begin most often", "sounds begin least often",
        "how often do sounds begin, compared with {within}, while {when}",
        ("the most often of all", "more often than in most parts, but not the most often",
         "less often than in most parts, but not the least often", "the least often of all"),
        "busy", "sparse",
    ),
}  # fmt: skip
_PICTURE = tuple(name for name, facet in _FACETS.items() if facet.stream == "picture")
_SOUND = tuple(name for name, facet in _FACETS.items() if facet.stream == "sound")


class SignalAnnotator(Annotator):
    """Measures; see the module."""

    name = "signal"

    @property
    def models(self) -> list[str]:
        return ["signal"]

    def caption(self, row: dict, clips: Sequence[Clip]) -> list[dict]:
        captions = []
        for clip in clips:
            picture = measure_picture(clip.media, clip.start, clip.end)
            sound = measure_sound(clip.media, clip.start, clip.end) if clip.media.has_audio else None
            captions.append(
                {
                    "visual_caption": describe_picture(picture),
                    "audio_caption": None if sound is None else describe_sound(sound),
                    "facts": {"picture": picture.to_dict(), "sound": sound and sound.to_dict()},
                }
            )
        return captions

    def fuse_segments(self, row: dict) -> list[str]:
        return [_fused(segment["facts"]) for segment in row["segments"]]

    def fuse_video(self, row: dict) -> dict[str, str | None]:
        texts: dict[str, str | None] = {}
        for column in ("visual_caption", "audio_caption", "av_text"):
            parts = [(segment_times(segment), segment[column]) for segment in row["segments"]]
            merged: list[list] = []
            for (first, last), text in parts:  # what stays the same is said once, with the times of all of it
                if merged and merged[-1][2] == text:
                    merged[-1][1] = last
                else:
                    merged.append([first, last, text])
            name = "av_caption" if column == "av_text" else column
            texts[name] = None if merged[0][2] is None else " ".join(
                f"From {format_time(first)} to {format_time(last)}: {text}" for first, last, text in merged
            )  # fmt: skip
        return texts

    def ask(self, row: dict) -> list[dict]:
        if any(segment["facts"]["sound"] is None for segment in row["segments"]):
            return []
        return list(_questions(row))


# ---------------------------------------------------------------------------------------------------------------------
# Captions


def _word(steps: Sequence[tuple[float, str]], value: float) -> str:
    return next(word for upper, word in steps if value < upper)


def describe_picture(facts: PictureFacts) -> str:
    """ "The picture is dark and mostly blue, with some grey. Everything moves to the left. It grows brighter." """
    main = _main_colours(facts)
    some = [name for name, share in facts.colours.items() if name not in main and share >= 0.08][:2]
    text = f"The picture is {_word(_BRIGHTNESS, facts.brightness)} and {_coloured(facts)}"
    text += f", with some {' and '.join(some)}." if some and main else "."
    text += f" {_word(_MOTION, facts.motion)}"
    text += f", and all of the picture shifts {_TOWARDS[facts.direction]}." if facts.direction else "."
    if abs(facts.brightness_trend) > 0.08:
        text += f" It grows {'brighter' if facts.brightness_trend > 0 else 'darker'}."
    return text


def _main_colours(facts: PictureFacts) -> list[str]:
    return [name for name, share in facts.colours.items() if share >= 0.25][:2]


def _coloured(facts: PictureFacts) -> str:
    """ "mostly blue", "mostly grey and black", "of many colours, most of all green, blue and pink" """
    main = _main_colours(facts)
    if main:
        return f"mostly {' and '.join(main)}"
    return "of many colours, most of all {}, {} and {}".format(*[*facts.colours, "none", "none"][:3])


_TOWARDS = {"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"}


def describe_sound(facts: SoundFacts) -> str:
    """ "There is loud sound: tones of a clear pitch, at about 240 Hz, which is middle. Its pitch rises." """
    if facts.kind == "silence":
        return "There is silence."
    text = f"There is {_word(_LOUDNESS, facts.level)} sound: {_KINDS[facts.kind]}"
    if _has_one_pitch(facts):
        text += f", at about {facts.pitch:.0f} Hz, which is {_word(_PITCH, facts.pitch)}"
    text += "."
    if facts.onsets:
        even = {True: ", in even steps", False: ", in uneven steps", None: ""}[facts.steady]
        text += f" A sound begins {facts.rhythm:.1f} times a second{even}."
    if 0.1 < facts.silent <= 0.95:
        text += f" {100 * facts.silent:.0f} % of the time is silent."
    if abs(facts.level_trend) > 6:
        text += f" It grows {'louder' if facts.level_trend > 0 else 'softer'}."
    if facts.pitch_trend is not None and _has_one_pitch(facts) and abs(facts.pitch_trend) > 0.25:
        text += f" Its pitch {'rises' if facts.pitch_trend > 0 else 'falls'}."
    return text


def _fused(facts: dict) -> str:
    """Both streams in one sentence; the picture alone where there is no sound."""
    picture = PictureFacts(**facts["picture"])
    seen = f"a picture that is {_word(_BRIGHTNESS, picture.brightness)} and {_coloured(picture)}"
    moves = _word(_MOTION, picture.motion)
    moves = f"{moves[0].lower()}{moves[1:]}"
    if picture.direction:
        moves += f" and all of it shifts {_TOWARDS[picture.direction]}"
    if facts["sound"] is None:
        return f"We see {seen}, in which {moves}; the video has no sound."
    sound = SoundFacts(**facts["sound"])
    if sound.kind == "silence":
        return f"We see {seen}, in which {moves}, and hear silence."
    heard = f"{_word(_LOUDNESS, sound.level)} {_KINDS[sound.kind]}"
    if _has_one_pitch(sound):
        heard += f" at about {sound.pitch:.0f} Hz"
    often = f", where a sound begins {sound.rhythm:.1f} times a second" if sound.onsets else ""
    return f"We hear {heard}{often}, while we see {seen}, in which {moves}."


# ---------------------------------------------------------------------------------------------------------------------
# Questions


@dataclass(frozen=True)
class _Part:
    """A segment with what is measured of it."""

    segment: dict

    def value(self, facet: str) -> float | None:
        return _FACETS[facet].value(self.segment["facts"])

    @property
    def evidence(self) -> list[float]:
        return [self.segment["start"], self.segment["end"]]


def _questions(row: dict) -> Iterator[dict]:
    parts = [_Part(segment) for segment in row["segments"]]
    if len(parts) < 4:
        return
    draw = random.Random(f"{row['video_id']} questions")
    used: set[tuple[str, str]] = set()
    for kind in ("global", "global", "timestamped", "timestamped", "time_range"):
        made = _range_question(parts, draw) if kind == "time_range" else _linked(parts, kind, draw, used)
        if made is not None:
            yield made


def _linked(parts: list[_Part], kind: str, draw: random.Random, used: set[tuple[str, str]]) -> dict | None:
    """One part is named by one stream; how it compares with the others in the other stream is asked."""
    pool = parts
    if kind == "timestamped":
        length = draw.randint(4, len(parts))
        start = draw.randint(0, len(parts) - length)
        pool = parts[start : start + length]
    found = []
    for given in _FACETS:
        for asked in _PICTURE if _FACETS[given].stream == "sound" else _SOUND:
            for is_most in (True, False):
                part = _extreme(pool, given, is_most)
                rank = None if part is None else _rank(pool, asked, part)
                if rank is not None:
                    found.append((given, asked, is_most, part, rank))
    # Another pair of facets each time, and each way round by turns, as far as the video allows.
    heard_asked = sum(_FACETS[asked].stream == "sound" for _, asked in used)
    stream = "picture" if 2 * heard_asked > len(used) else "sound"
    fresh = [one for one in found if one[:2] not in used]
    found = [one for one in fresh if _FACETS[one[1]].stream == stream] or fresh
    if not found:
        return None
    ranks = sorted({one[4] for one in found})
    rank = draw.choice(ranks)  # the answer first, so that no option is more probable than another
    given, asked, is_most, part, _ = draw.choice([one for one in found if one[4] == rank])
    used.add((given, asked))
    anchor, facet = _FACETS[given], _FACETS[asked]
    within = "the other parts of the video"
    text = facet.asked.format(when=anchor.most if is_most else anchor.least, within=within)
    if kind == "timestamped":
        first, last = segment_times(pool[0].segment)[0], segment_times(pool[-1].segment)[1]
        within = "the rest of that stretch"
        text = facet.asked.format(when=anchor.most if is_most else anchor.least, within=within)
        text = f"from {format_time(first)} to {format_time(last)}, {text}"
    return _question(f"{text[0].upper()}{text[1:]}?", facet.ranks, rank, kind, f"{given} and {asked}", [part], draw)


def _extreme(pool: list[_Part], facet: str, is_most: bool) -> _Part | None:
    """The part with the highest or lowest value, if it is clearly so."""
    values = [part.value(facet) for part in pool]
    if any(value is None for value in values):
        return None
    order = sorted(range(len(pool)), key=lambda at: values[at], reverse=is_most)
    return pool[order[0]] if _FACETS[facet].clear(values[order[0]], values[order[1]]) else None


def _rank(pool: list[_Part], facet: str, part: _Part) -> int | None:
    """Which of a facet's four ranks a part has; None where it lies near a border between two."""
    values = [one.value(facet) for one in pool]
    if any(value is None for value in values):
        return None
    order, last = sorted(values, reverse=True), len(values) - 1
    at = order.index(part.value(facet))
    if at in (0, last):
        rank = 0 if at == 0 else 3
    elif 2 * at == last:  # the one in the middle
        return None
    else:
        rank = 1 if 2 * at < last else 2
    # Ranks meet after the first value, before the last, and in the middle of an even number.
    borders = {1, last} | ({len(order) // 2} if last % 2 else set())
    near = borders & {at, at + 1}
    return rank if all(_FACETS[facet].clear(order[border - 1], order[border]) for border in near) else None


def _range_question(parts: list[_Part], draw: random.Random) -> dict | None:
    """When do the two streams go together, or not: each of four ranges is high or low in either, and one is unlike.

    Only the one stream tells nothing: whatever it is, the other can make it the odd one.
    """
    pairs = [(seen, heard) for seen in _PICTURE for heard in _SOUND]
    draw.shuffle(pairs)
    for seen, heard in pairs:
        sides = {at: (_half(parts, seen, part), _half(parts, heard, part)) for at, part in enumerate(parts)}
        known = {at: seen_high == heard_high for at, (seen_high, heard_high) in sides.items()
                 if seen_high is not None and heard_high is not None}  # fmt: skip
        ways = [True, False]
        draw.shuffle(ways)
        for together in ways:
            right = [at for at, agrees in known.items() if agrees == together]
            wrong = [at for at, agrees in known.items() if agrees != together]
            if not right or len(wrong) < 3:
                continue
            answer = draw.choice(right)
            chosen = draw.sample(wrong, 3)
            # A stream that is the same in all wrong ranges and another in the right one would give it away.
            if any(len({sides[at][stream] for at in chosen}) == 1 and sides[answer][stream] != sides[chosen[0]][stream]
                   for stream in (0, 1)):  # fmt: skip
                continue
            one, other = _FACETS[seen], _FACETS[heard]
            first, second = (other.high, other.low) if together else (other.low, other.high)
            text = (
                f"When is the picture {one.high} while the sound is {first}, or the picture {one.low} while the sound "
                f"is {second}, measured by the middle of the video?"
            )
            options = [span_option(parts[at].segment) for at in (answer, *chosen)]
            return _question(text, options, 0, "time_range", f"{seen} and {heard}", [parts[answer]], draw)
    return None


def _half(parts: list[_Part], facet: str, part: _Part) -> bool | None:
    """Whether a part is in the upper half; None where that is not clear."""
    values = [one.value(facet) for one in parts]
    if any(value is None for value in values):
        return None
    order = sorted(values)
    middle = (order[(len(order) - 1) // 2] + order[len(order) // 2]) / 2
    own, chosen = part.value(facet), _FACETS[facet]
    # Half as far from the middle as two values must lie apart.
    nearer = chosen._replace(apart=chosen.apart**0.5 if chosen.is_ratio else chosen.apart / 2)
    return own > middle if nearer.clear(own, middle) else None


def _question(
    text: str,
    options: Sequence[str],
    right: int,
    kind: str,
    category: str,
    parts: Sequence[_Part],
    draw: random.Random,
) -> dict:
    order = draw.sample(range(4), 4)
    return {
        "question": text,
        "options": [options[at] for at in order],
        "answer": "ABCD"[order.index(right)],
        "question_type": kind,
        "category": category,
        "evidence": [part.evidence for part in parts],
    }
