"""The annotator without weights: measurements in words, and questions whose answers are measured.

Captions state what `measure` finds. Questions link the two streams: one part of the video is named by what its
picture shows, and its sound is asked for, or the other way round; so neither stream alone tells the answer. Options
are parts of the video itself, in a few words. Where a video has no four parts that are unlike each other, one is
compared in two ways with another or with the rest. A question is only asked where the measured values lie clearly
apart.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ...data.prompts import LETTERS
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
    (0.002, "Hardly anything moves"),
    (0.01, "Little moves"),
    (0.03, "There is movement"),
    (9.0, "There is much movement"),
)
_AMOUNTS = ((0.002, "hardly anything moves"), (0.01, "little moves"), (0.03, "some things move"), (9.0, "much moves"))
_LOUDNESS = ((-45, "very soft"), (-32, "soft"), (-20, "moderately loud"), (-10, "loud"), (99, "very loud"))
_PITCH = ((110, "very low"), (220, "low"), (440, "middle"), (880, "high"), (1e9, "very high"))
_OFTEN = ((0.3, "hardly ever"), (1.0, "now and then"), (2.5, "often"), (1e9, "very often"))
_PAUSES = ((0.1, "without pauses"), (0.5, "with pauses"), (1.1, "with long pauses"))
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
        words: upper ends of what a word of an option covers.
        most, least: anchors, behind "the part in which".
        high, low: of the two halves, behind "the picture is" or "the sound is".
        more, less: a part against another.
    """

    stream: str
    value: Callable[[dict], float | None]
    apart: float
    is_ratio: bool
    words: Sequence[tuple[float, str]]
    most: str
    least: str
    high: str
    low: str
    more: str
    less: str

    def clear(self, one: float, other: float, doubt: float = 0.0) -> bool:
        """Whether two values lie apart, by no less than a doubt about their difference."""
        if abs(one - other) < doubt:
            return False
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
        "picture", lambda facts: facts["picture"]["brightness"], 0.04, False, _BRIGHTNESS,
        "the picture is at its brightest", "the picture is at its darkest", "bright", "dark",
        "the picture is brighter", "the picture is darker",
    ),
    "motion": _Facet(
        "picture", lambda facts: facts["picture"]["motion"], 1.4, True, _AMOUNTS,
        "the picture moves most", "the picture moves least", "full of movement", "calm",
        "more moves", "less moves",
    ),
    "loudness": _Facet(
        "sound", lambda facts: max(facts["sound"]["level"], -70.0), 3.0, False, _LOUDNESS,
        "the sound is at its loudest", "the sound is at its softest", "loud", "soft",
        "the sound is louder", "the sound is softer",
    ),
    "pitch": _Facet(
        "sound", _pitch, 1.2, True, _PITCH,
        "the pitch is at its highest", "the pitch is at its lowest", "high in pitch", "low in pitch",
        "the pitch is higher", "the pitch is lower",
    ),
    "rhythm": _Facet(
        "sound", lambda facts: facts["sound"]["rhythm"], 1.5, True, _OFTEN,
        "new sounds stand out most often", "new sounds stand out least often", "busy", "sparse",
        "new sounds stand out more often", "new sounds stand out less often",
    ),
    "silence": _Facet(
        "sound", lambda facts: facts["sound"]["silent"], 0.2, False, _PAUSES,
        "there is most silence", "there is least silence", "broken by pauses", "unbroken",
        "there is more silence", "there is less silence",
    ),
}  # fmt: skip
_PICTURE = tuple(name for name, facet in _FACETS.items() if facet.stream == "picture")
_SOUND = tuple(name for name, facet in _FACETS.items() if facet.stream == "sound")
# A part with much silence is soft by itself: the two are never asked for together, nor name parts by turns.
_GOES_WITH = {"loudness": "silence", "silence": "loudness"}


class SignalAnnotator(Annotator):
    """Measures; see the module."""

    name = "signal"

    @property
    def models(self) -> list[str]:
        return ["signal"]

    def caption(self, row: dict, clips: Sequence[Clip]) -> list[dict]:
        captions = []
        for clip in clips:
            picture = measure_picture(clip.media, clip.start, clip.end, clip.segment["cuts"])
            sound = measure_sound(clip.media, clip.start, clip.end) if clip.media.has_audio else None
            captions.append(
                {
                    "visual_caption": describe_picture(picture, clip.segment["cuts"]),
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


def describe_picture(facts: PictureFacts, cuts: Sequence[float] = ()) -> str:
    """ "The picture is dark and mostly blue, with some grey. Little moves. It grows brighter."

    Args:
        facts: of a clip.
        cuts: seconds at which the shot changes inside of it; more than three are counted.
    """
    text = f"The picture is {_word(_BRIGHTNESS, facts.brightness)} and {_coloured(facts)}"
    text += f", with {_accents(facts, 2)}." if _main_colours(facts) and _accents(facts) else "."
    text += f" {_word(_MOTION, facts.motion)}"
    text += f", and all of the picture shifts {_TOWARDS[facts.direction]}." if facts.direction else "."
    if abs(facts.brightness_trend) > 0.08:
        text += f" It grows {'brighter' if facts.brightness_trend > 0 else 'darker'}."
    if len(cuts) > 3:
        text += f" The shot changes {len(cuts)} times."
    elif cuts:
        text += f" The shot changes at {', '.join(format_time(round(time * 1e6)) for time in cuts)}."
    return text


def _main_colours(facts: PictureFacts) -> list[str]:
    return [name for name, share in facts.colours.items() if share >= 0.25][:2]


def _accent_colours(facts: PictureFacts, most: int = 1) -> list[str]:
    main = _main_colours(facts)
    others = [name for name, share in facts.colours.items() if name not in main and share >= 0.03]
    return [name for name in others if name == others[0] or facts.colours[name] >= 0.08][:most]


def _accents(facts: PictureFacts, most: int = 1) -> str:
    """ "some red and white", "a little red", "" """
    names = _accent_colours(facts, most)
    return f"{'some' if facts.colours[names[0]] >= 0.08 else 'a little'} {' and '.join(names)}" if names else ""


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
        text += f" A new sound stands out {facts.rhythm:.1f} times a second{even}."
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
    often = f", where a new sound stands out {sound.rhythm:.1f} times a second" if sound.onsets else ""
    return f"We hear {heard}{often}, while we see {seen}, in which {moves}."


# ---------------------------------------------------------------------------------------------------------------------
# Questions


@dataclass(frozen=True)
class _Part:
    """A segment with what is measured of it."""

    segment: dict

    def value(self, facet: str) -> float | None:
        return _FACETS[facet].value(self.segment["facts"])

    def doubt(self, facet: str) -> float:
        """How far a value may be off by chance, by two standard deviations: of what is counted, few say little."""
        return _counting_doubt(self.value(facet), self.length) if facet == "rhythm" else 0.0

    @property
    def length(self) -> float:
        return self.segment["end"] - self.segment["start"]

    @property
    def evidence(self) -> list[float]:
        return [self.segment["start"], self.segment["end"]]


@dataclass(frozen=True)
class _Rest:
    """Several segments, by the means of what is measured of them."""

    parts: list[_Part]

    def value(self, facet: str) -> float | None:
        values = [part.value(facet) for part in self.parts]
        if None in values or facet == "pitch":  # several pitches have no mean that is heard
            return None
        lengths = [part.length for part in self.parts]
        if facet == "loudness":
            return float(10 * np.log10(np.average([10 ** (level / 10) for level in values], weights=lengths)))
        return float(np.average(values, weights=lengths))

    def doubt(self, facet: str) -> float:
        length = sum(part.length for part in self.parts)
        return _counting_doubt(self.value(facet), length) if facet == "rhythm" else 0.0


def _counting_doubt(rate: float, seconds: float) -> float:
    """Two standard deviations of a rate of which at least one was counted, if each comes by chance (Poisson)."""
    return 2 * (max(rate, 1 / seconds) / seconds) ** 0.5


def _differ(one: _Part, other: _Part | _Rest, facet: str) -> bool:
    """Whether two parts clearly differ in a facet."""
    values = one.value(facet), other.value(facet)
    return None not in values and _FACETS[facet].clear(*values, math.hypot(one.doubt(facet), other.doubt(facet)))


def _questions(row: dict) -> Iterator[dict]:
    parts = [_Part(segment) for segment in row["segments"]]
    if len(parts) < 4:
        return
    draw = random.Random(f"{row['video_id']} questions")
    used: list[str] = []
    for kind in ("global", "global", "timestamped", "timestamped", "time_range"):
        if kind == "time_range":
            made = _range_question(parts, draw)
        else:
            made = _linked(parts, kind, draw, used) or _contrast(parts, kind, draw, used)
            if made is None and kind == "timestamped":
                made = _change(parts, draw, used)
        if made is not None:
            yield made


def _stretch(parts: list[_Part], kind: str, draw: random.Random) -> tuple[list[_Part], str]:
    """The parts that a question is about, and the words that say so: all, or some in a row with their times."""
    if kind != "timestamped":
        return parts, ""
    length = draw.randint(4, len(parts))
    start = draw.randint(0, len(parts) - length)
    pool = parts[start : start + length]
    return pool, f"{_times(pool[0], pool[-1])}, "


def _times(first: _Part, last: _Part) -> str:
    """ "from 00:00:01.000 to 00:00:07.960" """
    start, end = segment_times(first.segment)[0], segment_times(last.segment)[1]
    return f"from {format_time(start)} to {format_time(end)}"


def _linked(parts: list[_Part], kind: str, draw: random.Random, used: list[str]) -> dict | None:
    """One part is named by one stream; what it is like in the other is asked, and three other parts are wrong."""
    pool, within = _stretch(parts, kind, draw)
    # Each stream is asked for by turns, as far as the video allows.
    streams = [("picture", "sound"), ("sound", "picture")]
    given_heard, given_seen = (sum(name in stream for name in used) for stream in (_SOUND, _PICTURE))
    for given, asked in streams if given_heard >= given_seen else reversed(streams):
        anchors = [(facet, is_most, at) for facet in _unused(used) if _FACETS[facet].stream == given
                   for is_most in (True, False) if (at := _extreme(pool, facet, is_most)) is not None]  # fmt: skip
        named = {at for _, _, at in anchors}
        groups = [group for group in _told_apart(pool, asked) if named & set(group)]
        if not groups:
            continue
        # The options before the answer: of four that are all unlike each other, any one may be the part named, so no
        # option is more probable than another, and none is the odd one out.
        group = draw.choice(groups)
        answer = draw.choice(sorted(named & set(group)))
        facet, is_most, _ = draw.choice([anchor for anchor in anchors if anchor[2] == answer])
        used.append(facet)
        when = _FACETS[facet].most if is_most else _FACETS[facet].least
        what = "what is heard" if asked == "sound" else "what does the picture look like"
        text = f"{within}{what} in the part{'' if within else ' of the video'} in which {when}?"
        options = [_in_short(pool[at], asked) for at in group]
        return _question(text, options, group.index(answer), kind, f"{facet} and {asked}", [pool[answer]], draw)
    return None


def _contrast(parts: list[_Part], kind: str, draw: random.Random, used: list[str]) -> dict | None:
    """One part is named by one stream; how it differs from the rest is asked, in two things, at least one of the other
    stream.

    What names the part does not tell the other stream, which does not tell what part is meant.
    """
    pool, within = _stretch(parts, kind, draw)
    found, mixed = [], []
    for facet in _unused(used):
        for is_most in (True, False):
            at = _extreme(pool, facet, is_most)
            if at is None:
                continue
            one, rest = pool[at], _Rest([*pool[:at], *pool[at + 1 :]])
            given, asked = (_PICTURE, _SOUND) if facet in _PICTURE else (_SOUND, _PICTURE)
            heard_or_seen = _differences(one, rest, asked)
            found += [((facet, is_most), one, rest, pair) for pair in combinations(heard_or_seen, 2)
                      if _GOES_WITH.get(pair[0]) != pair[1]]  # fmt: skip
            mixed += [((facet, is_most), one, rest, (beside, name)) for name in heard_or_seen
                      for beside in _differences(one, rest, given)
                      if beside not in (facet, _GOES_WITH.get(facet))]  # fmt: skip
    if not found and not mixed:
        return None
    (facet, is_most), one, rest, (first, second) = _either_way(found or mixed, draw)
    used.append(facet)
    when = _FACETS[facet].most if is_most else _FACETS[facet].least
    text = f"{within}how does the part{'' if within else ' of the video'} in which {when} differ from the rest?"
    category = f"{facet} and {_FACETS[second].stream}"
    return _comparison(text, one, rest, (first, second), kind, category, [one], draw)


def _change(parts: list[_Part], draw: random.Random, used: list[str]) -> dict | None:
    """Two parts are named by their times; how one differs from the other is asked, in one thing of each stream."""
    found = [
        (f"{_times(one, one)} {_times(other, other)}", one, other, (seen, heard))
        for one, other in combinations(parts, 2)
        for seen in _differences(one, other, _PICTURE)
        for heard in _differences(one, other, _SOUND)
    ]
    found = [candidate for candidate in found if candidate[0] not in used]
    if not found:
        return None
    times, one, other, (seen, heard) = _either_way(found, draw)
    used.append(times)
    one, other = draw.sample((one, other), 2)
    text = f"how does the video {_times(one, one)} differ from the video {_times(other, other)}?"
    return _comparison(text, one, other, (seen, heard), "timestamped", f"{seen} and {heard}", [one, other], draw)


def _differences(one: _Part, other: _Part | _Rest, facets: Sequence[str]) -> list[str]:
    """Facets in which two parts clearly differ."""
    return [facet for facet in facets if _differ(one, other, facet)]


def _either_way(found: list[tuple], draw: random.Random) -> tuple:
    """One of (..., part, other part, two facets). Whether the two rise together is drawn first: what mostly goes
    together in a video, as loud and busy may, is then not mostly right."""
    ways: dict[bool, list[tuple]] = {}
    for candidate in found:
        _, one, other, pair = candidate
        rises = [one.value(facet) > other.value(facet) for facet in pair]
        ways.setdefault(rises[0] == rises[1], []).append(candidate)
    return draw.choice(ways[draw.choice(sorted(ways))])


def _comparison(
    text: str,
    one: _Part,
    other: _Part | _Rest,
    facets: tuple[str, str],
    kind: str,
    category: str,
    evidence: Sequence[_Part],
    draw: random.Random,
) -> dict:
    """The options are all four ways in which two facets may differ, so that none is the odd one out."""
    first, second = ((_FACETS[facet].less, _FACETS[facet].more) for facet in facets)
    options = [f"{one_way}, and {other_way}" for one_way in first for other_way in second]
    rises = [one.value(facet) > other.value(facet) for facet in facets]
    return _question(text, options, 2 * rises[0] + rises[1], kind, category, evidence, draw)


def _unused(used: list[str]) -> list[str]:
    """Facets that may name a part."""
    return [facet for facet in _FACETS if facet not in used and _GOES_WITH.get(facet) not in used]


def _told_apart(pool: list[_Part], stream: str) -> list[tuple[int, ...]]:
    """All four parts that are clearly unlike each other, each to each, in one stream."""
    apart = {pair: _apart(pool[pair[0]], pool[pair[1]], stream) for pair in combinations(range(len(pool)), 2)}
    return [four for four in combinations(range(len(pool)), 4) if all(apart[pair] for pair in combinations(four, 2))]


def _apart(one: _Part, other: _Part, stream: str) -> bool:
    """Whether a word of two parts' options differs because what it stands for clearly does."""
    for facet in _PICTURE if stream == "picture" else _SOUND:
        if _differ(one, other, facet):
            words = {_word(_FACETS[facet].words, part.value(facet)) for part in (one, other)}
            if len(words) > 1:
                return True
    if stream == "sound":
        kinds = {part.segment["facts"]["sound"]["kind"] for part in (one, other)}
        return len(kinds) == 2 and "mixed" not in kinds
    here, there = (PictureFacts(**part.segment["facts"]["picture"]) for part in (one, other))
    return _has_another_colour(here, there) or _has_another_colour(there, here)


def _has_another_colour(one: PictureFacts, other: PictureFacts) -> bool:
    """Whether an option names a colour of one picture that another hardly has."""
    named, others = ({*_main_colours(facts), *_accent_colours(facts)} for facts in (one, other))
    return any(other.colours.get(name, 0) <= one.colours[name] / 4 for name in named - others)


_A_PICTURE = {word: f"{'an' if word[0] == 'a' else 'a'} {word} picture" for _, word in _BRIGHTNESS}
_A_PICTURE["of medium brightness"] = "a picture of medium brightness"


def _in_short(part: _Part, stream: str) -> str:
    """A part as an option: "a dark picture in mostly blue with a little red, where much moves", or "soft tones of a
    low pitch without pauses, in which new sounds stand out often"."""
    facts = part.segment["facts"]
    word = {facet: _word(_FACETS[facet].words, value) for facet in _FACETS if (value := part.value(facet)) is not None}
    if stream == "picture":
        picture = PictureFacts(**facts["picture"])
        main, accent = _main_colours(picture), _accents(picture)
        colours = f"mostly {' and '.join(main)}" if main else "many colours"
        colours += f" with {accent}" if main and accent else ""
        return f"{_A_PICTURE[word['brightness']]} in {colours}, where {word['motion']}"
    kind = facts["sound"]["kind"]
    if kind == "silence":
        return "silence, in which nothing at all is heard from beginning to end"
    pitch = f" of a {word['pitch']} pitch" if "pitch" in word else ""
    heard = {
        "tone": f"tones{pitch or ' of a clear pitch'}",
        "noise": "noise without a pitch",
        "speech-like": f"sound{pitch} that comes and goes like speech",
        "mixed": f"mixed sound{pitch}",
    }[kind]
    return f"{word['loudness']} {heard} {word['silence']}, in which new sounds stand out {word['rhythm']}"


def _extreme(pool: list[_Part], facet: str, is_most: bool) -> int | None:
    """Where the part with the highest or lowest value is, if it is clearly so."""
    values = [part.value(facet) for part in pool]
    if any(value is None for value in values):
        return None
    order = sorted(range(len(pool)), key=lambda at: values[at], reverse=is_most)
    return order[0] if _differ(pool[order[0]], pool[order[1]], facet) else None


def _range_question(parts: list[_Part], draw: random.Random) -> dict | None:
    """When do the two streams go together, or not; else, when is each of them as it is said to be.

    Of the first, one stream tells nothing: whatever it is, the other can make a range the odd one. Of the second, one
    leaves two ranges.
    """
    pairs = [(seen, heard) for seen in _PICTURE for heard in _SOUND]
    draw.shuffle(pairs)
    halves = {facet: found for facet in _FACETS if (found := _halves(parts, facet)) is not None}
    for ask in (_odd_range, _corner_range):
        for seen, heard in pairs:
            if seen not in halves or heard not in halves:
                continue
            sides = [_Side(one.is_high, other.is_high, one.is_clear, other.is_clear)
                     for one, other in zip(halves[seen], halves[heard], strict=True)]  # fmt: skip
            chosen = ask(sides, _FACETS[seen], _FACETS[heard], draw)
            if chosen is not None:
                when, ranges = chosen
                text = f"When is {when}, measured by the middle of the video?"
                options = [span_option(parts[at].segment) for at in ranges]
                return _question(text, options, 0, "time_range", f"{seen} and {heard}", [parts[ranges[0]]], draw)
    return None


class _Side(NamedTuple):
    """Whether a part is in the upper half in picture and in sound, and whether that is clear."""

    seen: bool
    heard: bool
    seen_is_clear: bool
    heard_is_clear: bool

    @property
    def is_clear(self) -> bool:
        return self.seen_is_clear and self.heard_is_clear

    def is_clearly_not(self, seen: bool, heard: bool) -> bool:
        return (self.seen_is_clear and self.seen != seen) or (self.heard_is_clear and self.heard != heard)


def _odd_range(sides: list[_Side], one: _Facet, other: _Facet, draw: random.Random) -> tuple[str, list[int]] | None:
    """Each of four ranges is high or low in either stream, and one is unlike: the words, and the right one first."""
    known = [at for at, side in enumerate(sides) if side.is_clear]
    ways = [True, False]
    draw.shuffle(ways)
    for together in ways:
        right = [at for at in known if (sides[at].seen == sides[at].heard) == together]
        wrong = [at for at in known if at not in right]
        if not right or len(wrong) < 3:
            continue
        answer, others = draw.choice(right), draw.sample(wrong, 3)
        # A stream that is the same in all wrong ranges and another in the right one would give it away. As either all
        # three go together or none does, one stream is the same wherever the other is.
        if len({sides[at].seen for at in others}) == 1:
            continue
        first, second = (other.high, other.low) if together else (other.low, other.high)
        when = (
            f"the picture {one.high} while the sound is {first}, or the picture {one.low} while the sound is {second}"
        )
        return when, [answer, *others]
    return None


def _corner_range(sides: list[_Side], one: _Facet, other: _Facet, draw: random.Random) -> tuple[str, list[int]] | None:
    """Four ranges, one of each way in which two streams can be high or low: the words, and the right one first."""
    ways = [(seen, heard) for seen in (True, False) for heard in (True, False)]
    draw.shuffle(ways)
    for seen, heard in ways:
        right = [at for at, side in enumerate(sides) if side.is_clear and side[:2] == (seen, heard)]
        wrong = [[at for at, side in enumerate(sides) if side.is_clearly_not(seen, heard) and side[:2] == way]
                 for way in ways if way != (seen, heard)]  # fmt: skip
        if right and all(wrong):
            when = (
                f"the picture {one.high if seen else one.low} while the sound is {other.high if heard else other.low}"
            )
            return when, [draw.choice(right), *map(draw.choice, wrong)]
    return None


class _Half(NamedTuple):
    is_high: bool
    is_clear: bool


def _halves(parts: list[_Part], facet: str) -> list[_Half] | None:
    """Whether each part is in the upper half, and whether that is clear; None if one has no value."""
    values = [one.value(facet) for one in parts]
    if None in values:
        return None
    order = sorted(values)
    middle = (order[(len(order) - 1) // 2] + order[len(order) // 2]) / 2
    chosen = _FACETS[facet]
    # Half as far from the middle as two values must lie apart.
    nearer = chosen._replace(apart=chosen.apart**0.5 if chosen.is_ratio else chosen.apart / 2)
    return [_Half(value > middle, nearer.clear(value, middle, part.doubt(facet) / 2**0.5))
            for part, value in zip(parts, values, strict=True)]  # fmt: skip


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
        "question": f"{text[0].upper()}{text[1:]}",
        "options": [options[at] for at in order],
        "answer": LETTERS[order.index(right)],
        "question_type": kind,
        "category": category,
        "evidence": [part.evidence for part in parts],
    }
