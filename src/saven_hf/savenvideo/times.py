"""Times in text: how they are written for a model to read, and how those that a question names are found.

Everything is an integer number of microseconds. Finding is deliberately conservative: a time that was not meant
moves what the model looks at, so whatever may as well be a ratio, a decade, a score or an hour of the day is left
alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

# The longest time that is believed; anything above is a number of another kind, and far from the end of int64.
LONGEST = 10_000 * HOUR

# Fields of 60 and more do not match, nor does a single digit after the colon ("4:3", "16:9").
_CLOCK = re.compile(
    r"(?<![\w:])(?<!\d\.)(?<!\d{4}-\d\d-\d\d )"
    r"(?:(?P<hours>\d{1,5}):(?P<mm>[0-5]\d)|(?P<minutes>[0-5]?\d)):(?P<seconds>[0-5]\d)"
    r"(?P<fraction>\.\d{1,9}|,\d{3})?(?!\w|:\d|\.\d)"
)
# A number with its unit, which may be glued to the next number ("1h02m03s") or joined by a hyphen in "the 90-second
# mark"; or a number alone, whose unit a later one may supply ("from 1 to 13 s").
_NUMBER = re.compile(
    r"(?:(?<![\w:])(?<!\w[.,])(?<![$€£#])|(?<=\d[hm])|(?<=\dmin))"
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)"
    r"(?:(?:[ \t]*|-(?=[a-z]+[ -](?:mark|point)\b))"
    r"(?:(?P<h>h(?:ours?|rs?)?)|(?P<min>min(?:ute)?s?)|(?P<s>s(?:ec(?:ond)?s?)?)"
    r"|(?P<ms>m(?:illi)?s(?:ec(?:ond)?s?)?)|(?P<m>m))(?![^\W\d])"
    r"|(?![\w:%/]|[.,]\d))",
    re.IGNORECASE,
)
_SCALES = {"h": HOUR, "min": MINUTE, "m": MINUTE, "s": SECOND, "ms": MILLISECOND}

_COMPOUND_GAP = re.compile(r"[ \t]*,?[ \t]*(?P<and>and[ \t]+)?", re.IGNORECASE)
_LIST_GAP = re.compile(r"\s*(?:,\s*(?:and\b|or\b)?|\band\b|\bor\b)\s*", re.IGNORECASE)
_RANGE_GAP = re.compile(
    r"(?:[\s-]+(?:mark|point))?\s*"
    r"(?:-+>?|–|—|→|\b(?:up\s+)?(?:to|until|till)\b|\bthrough\b|(?P<and>\band\b))\s*(?:the\s+)?",
    re.IGNORECASE,
)
_BETWEEN_BEFORE = re.compile(r"\bbetween\s+(?:the\s+)?$", re.IGNORECASE)
_AT_BEFORE = re.compile(r"\bat\s+(?:the\s+)?$", re.IGNORECASE)

# Readings of "12:30" that are no offset into a video.
_DAYTIME_AFTER = re.compile(
    r"\s*(?:[ap]\.?\s?m\b|o['’]?clock\b|(?:in\s+the|this)\s+(?:morning|afternoon|evening)\b|at\s+night\b)",
    re.IGNORECASE,
)
_RATIO_BEFORE = re.compile(r"\b(?:ratio|aspect|scored?|odds|scale)(?:\s+(?:of|is|was))?[\s:=]*$", re.IGNORECASE)
_RATIO_AFTER = re.compile(r"\s*(?:aspect|ratio|scale|odds|(?:wide)?screen|format)\b", re.IGNORECASE)

# Readings of "80s" that are years or ages.
_DECADE_BEFORE = re.compile(r"(?:['’]|\b(?:the|early|mid|late|my|your|his|her|its|our|their)[\s-]+)$", re.IGNORECASE)
_DECADE_AFTER = re.compile(
    r"[\s-]+(?:music|songs?|hits?|pop|rock|disco|films?|movies?|shows?|tv|cartoons?|fashion|styled?|themed?|era|"
    r"vibes?|look|outfits?|clothe?s|clothing|haircuts?|hairstyles?|bands?|party|cars?|kids?|nostalgia)\b",
    re.IGNORECASE,
)
_DECADE_GAP = re.compile(r"\s*(?:,|and|or|to|/|&|-|–)\s*(?:the\s+)?['’]?", re.IGNORECASE)
_MARK_AFTER = re.compile(r"[\s-]+(?:mark|point)\b", re.IGNORECASE)

# A length counted from the end, or a rate, has no place of its own in the video.
_NO_PLACE_BEFORE = re.compile(r"\b(?:last|final|every|each|per)\s+$", re.IGNORECASE)
_FROM_START_BEFORE = re.compile(r"\b(?:first|opening|initial)\s+$", re.IGNORECASE)


@dataclass
class _Mention:
    """A number of the text: `value` in microseconds, None for a number without a unit, which `number` holds.

    `scale` is that of the unit (of the largest one in "1 min 30 s"), None for clock readings and bare numbers.
    """

    start: int
    end: int
    value: int | None = None
    number: Fraction | None = None
    unit: str | None = None
    scale: int | None = None


def format_time(us: int) -> str:
    """Write microseconds as "HH:MM:SS.mmm", rounded to the nearest millisecond."""
    milliseconds = (abs(us) + 500) // 1000
    sign = "-" if us < 0 and milliseconds else ""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours:02d}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"


def parse_times(text: str) -> list[int]:
    """Times named in a text, in the order of their first mention, each once.

    Understood are clock readings ("1:02:03", "00:13.500"), quantities ("13.5 s", "90 seconds", "1 min 30 s",
    "1h 2m 3s") and ranges or lists whose unit comes once ("from 1 to 13 seconds", "between 5 and 10 s").

    Returns:
        Microseconds.
    """
    return list(dict.fromkeys(time for span in _spans_in_text_order(text) for time in span))


def parse_spans(text: str) -> list[tuple[int, int]]:
    """Stretches of time named in a text, in the order of mention.

    "from A to B", "between A and B", "A - B" and "the first B" make a span; any other time is the span `(t, t)`.

    Returns:
        `(start, end)` in microseconds, `start <= end`.
    """
    return [(min(span), max(span)) for span in _spans_in_text_order(text)]


def locate_spans(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The spans of `parse_spans`, each with where it is written: `(first, last)` so that `text[first:last]` names it.

    Returns:
        `((first, last), (start, end))` in the order of the text; characters, and microseconds.
    """
    return [(place, (min(span), max(span))) for place, span in _located_spans(text)]


def shift_times(text: str, offset: int) -> str:
    """The text on a clock that reads `offset` microseconds more: its clock readings moved, as "HH:MM:SS.mmm".

    Raises:
        ValueError: a time is written another way ("at 5 s", "the first minute"): nothing says whether it is a moment,
            which moves, or a length, which does not.
    """
    if has_unclear_times(text):
        raise ValueError(f"Not all times of {text[:80]!r} are clock readings (HH:MM:SS), so they cannot be moved.")

    def moved(match: re.Match) -> str:
        return match[0] if _is_ratio_or_daytime(text, match) else format_time(_clock_value(match) + offset)

    return _CLOCK.sub(moved, text)


def has_unclear_times(text: str) -> bool:
    """Whether a text has quantities of time ("5 s"), which may be moments or lengths."""
    return any(mention.scale is not None for mention in _find_mentions(text))


def _spans_in_text_order(text: str) -> list[tuple[int, int]]:
    return [span for _, span in _located_spans(text)]


@lru_cache(maxsize=1024)  # spans and times of a question are asked for one after the other
def _located_spans(text: str) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
    """Where each span is written, and the span as it is written: its end may come first."""
    mentions = _find_mentions(text)
    spans = []
    index = 0
    while index < len(mentions):
        mention, before = mentions[index], _before(text, mentions[index].start)
        end = mentions[index + 1] if index + 1 < len(mentions) else None
        if end is not None and _is_range(text, mention, end):
            start = mention.value if mention.value is not None else round(mention.number * end.scale)
            spans.append(((mention.start, end.end), (start, end.value)))
            index += 2
            continue
        index += 1
        if mention.value is None or (mention.scale is not None and _NO_PLACE_BEFORE.search(before)):
            continue
        from_start = mention.scale is not None and _FROM_START_BEFORE.search(before)
        spans.append(((mention.start, mention.end), (0 if from_start else mention.value, mention.value)))
    return tuple((place, span) for place, span in spans if max(span) <= LONGEST)


def _before(text: str, start: int) -> str:
    """The few words before a mention. All of the text would make the search quadratic."""
    return text[max(0, start - 40) : start]


def _is_range(text: str, start: _Mention, end: _Mention) -> bool:
    gap = _RANGE_GAP.fullmatch(text, start.end, end.start)
    if gap is None or end.value is None or (start.value is None and end.scale is None):
        return False
    return not gap["and"] or _BETWEEN_BEFORE.search(_before(text, start.start)) is not None


def _find_mentions(text: str) -> list[_Mention]:
    """Clock readings, quantities and bare numbers, in the order of the text."""
    mentions = []
    clocks = list(_CLOCK.finditer(text))
    for match in clocks:
        if not _is_ratio_or_daytime(text, match):
            mentions.append(_Mention(match.start(), match.end(), value=_clock_value(match)))

    quantities = []
    last_decade = None
    for match in _NUMBER.finditer(text):
        if any(match.start() < clock.end() and clock.start() < match.end() for clock in clocks):
            continue
        if _is_decade(text, match, last_decade):
            last_decade = match
            continue
        number = Fraction(match["number"].replace(",", ""))
        unit = next((name for name in _SCALES if match[name]), None)
        scale = _SCALES.get(unit)
        value = None if scale is None else round(number * scale)
        quantities.append(_Mention(match.start(), match.end(), value, number, unit, scale))

    mentions.extend(_merge_compounds(text, quantities))
    mentions.sort(key=lambda mention: mention.start)
    _give_units_to_lists(text, mentions)
    return mentions


def _clock_value(match: re.Match) -> int:
    hours = int(match["hours"] or 0)
    minutes = int(match["mm"] or match["minutes"])
    fraction = (match["fraction"] or ".")[1:].ljust(9, "0")
    return hours * HOUR + minutes * MINUTE + int(match["seconds"]) * SECOND + round(int(fraction) / 1000)


def _is_ratio_or_daytime(text: str, match: re.Match) -> bool:
    if match["fraction"]:
        return False
    if _DAYTIME_AFTER.match(text, match.end()):
        return True
    if match["hours"]:
        return False
    return bool(_RATIO_BEFORE.search(_before(text, match.start())) or _RATIO_AFTER.match(text, match.end()))


def _is_decade(text: str, match: re.Match, last_decade: re.Match | None) -> bool:
    number = match["number"]
    glued = match.end("number") == match.start("s")
    if not (match["s"] in ("s", "S") and glued and number.isdigit() and number.endswith("0")):
        return False
    if len(number) == 4:
        return True
    if len(number) != 2 or _MARK_AFTER.match(text, match.end()):
        return False
    if last_decade is not None and _DECADE_GAP.fullmatch(text, last_decade.end(), match.start()):
        return True
    return bool(_DECADE_BEFORE.search(_before(text, match.start())) or _DECADE_AFTER.match(text, match.end()))


def _merge_compounds(text: str, quantities: list[_Mention]) -> list[_Mention]:
    """Join "1 min" and "30 s" to one mention; drop a lone "m", which may be metres."""
    merged = []
    index = 0
    while index < len(quantities):
        parts = [quantities[index]]
        index += 1
        while index < len(quantities) and _continues_compound(text, quantities, parts, index):
            parts.append(quantities[index])
            index += 1
        first, last = parts[0], parts[-1]
        if len(parts) == 1:
            if first.unit != "m":
                merged.append(first)
        else:
            value = sum(part.value for part in parts)
            merged.append(_Mention(first.start, last.end, value, None, first.unit, first.scale))
    return merged


def _continues_compound(text: str, quantities: list[_Mention], parts: list[_Mention], index: int) -> bool:
    last, part = parts[-1], quantities[index]
    if last.value is None or part.value is None:
        return False
    gap = _COMPOUND_GAP.fullmatch(text, last.end, part.start)
    if gap is None or part.scale >= last.scale or part.value >= last.scale:
        return False
    if gap["and"] and _BETWEEN_BEFORE.search(_before(text, parts[0].start)):
        # "between 1 minute and 30 seconds" has two ends unless a second "and" follows.
        after = quantities[index + 1] if index + 1 < len(quantities) else None
        if after is None or _RANGE_GAP.fullmatch(text, part.end, after.start) is None:
            return False
    return True


def _give_units_to_lists(text: str, mentions: list[_Mention]) -> None:
    """Give "5" and "10" the unit of "at 5, 10 and 15 seconds"."""
    index = 0
    while index < len(mentions):
        last = index
        while (
            last + 1 < len(mentions)
            and mentions[last].value is None
            and _LIST_GAP.fullmatch(text, mentions[last].end, mentions[last + 1].start)
        ):
            last += 1
        scale = mentions[last].scale
        if last > index and scale is not None and _AT_BEFORE.search(_before(text, mentions[index].start)):
            for mention in mentions[index:last]:
                mention.value, mention.scale = round(mention.number * scale), scale
        index = last + 1
