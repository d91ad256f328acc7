"""Answers questions of the world from captions alone. It knows English, and nothing of the world's code.

With both captions it finds the answer; with one of them it keeps the options that this one does not rule out, and
takes one of these at random. So its accuracy on one caption is what that stream alone gives away.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple


COLOUR = "red|green|blue|yellow|purple|cyan|orange|white"
SHAPE = "circle|square|triangle|diamond|cross|ring|star|bar"
PITCH = "deep|low|mid|high|shrill"
TIMBRE = "tone|buzz|reed|organ|chime|horn|warble|hiss"
COUNTS = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
TIME = r"(\d+):(\d\d):(\d\d)\.(\d{3})"
_SEEN = re.compile(rf"\b(?:an? )?({COLOUR}) ({SHAPE})(?:e?s)?\b")
_HEARD = re.compile(rf"\b(?:an? )?(?:(?:soft|loud) )?({PITCH}) ({TIMBRE})\b|\b(silence)\b")
_CAPTION = re.compile(rf"From {TIME} to {TIME} (.*?)\.(?= From|$)")


class Event(NamedTuple):
    start: int  # milliseconds
    end: int
    kind: tuple[str, ...]
    count: int
    way: str  # what a picture does ("moves left"), or where a pitch goes ("rises"); "" if nowhere


def read(caption: str) -> list[Event]:
    events = []
    for *times, text in _CAPTION.findall(caption):
        start, end = (_milliseconds(times[at : at + 4]) for at in (0, 4))
        seen, heard = _SEEN.search(text), _HEARD.search(text)
        kind = tuple(filter(None, (seen or heard).groups()))
        if seen:
            number = re.match(r"\w+", text)[0]
            way = re.search(r"\b(stays? still|grows?|shrinks?|moves? \w+)", text)[1]
            way = re.sub(r"^(stay|grow|shrink|move)\b", r"\1s", way)
            events.append(Event(start, end, kind, COUNTS.get(number, 1), way))
        else:
            pulses = re.search(r"in (\w+) pulses?", text)
            way = re.search(r"that (rises|falls)", text)
            events.append(Event(start, end, kind, COUNTS[pulses[1]] if pulses else 0, way[1] if way else ""))
    return events


def _milliseconds(parts) -> int:
    hours, minutes, seconds, rest = map(int, parts)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def _times(text: str) -> list[int]:
    return [_milliseconds(found) for found in re.findall(TIME, text)]


def _names(text: str) -> tuple[tuple | None, tuple | None]:
    seen, heard = _SEEN.search(text), _HEARD.search(text)
    return seen and seen.groups(), heard and tuple(filter(None, heard.groups()))


def _at(events: list[Event], time: float) -> Event | None:
    return next((event for event in events if event.start <= time < event.end), None)


def _overlapping(events: list[Event], other: Event) -> Event | None:
    return max(events, key=lambda event: min(event.end, other.end) - max(event.start, other.start), default=None)


def possible(question: str, options: list[str], visual: str | None, audio: str | None) -> list[int]:
    """Options that the captions do not rule out."""
    pictures, sounds = (None if caption is None else read(caption) for caption in (visual, audio))
    fits = _test(question, options, pictures, sounds)
    kept = [at for at, option in enumerate(options) if fits(option)]
    return kept or list(range(len(options)))


def answer(question: str, options: list[str], visual: str | None, audio: str | None, seed: int = 0) -> str:
    """The letter of an option that the captions do not rule out."""
    kept = possible(question, options, visual, audio)
    return "ABCD"[random.Random(f"{seed} {question} {options}").choice(kept)]


def _test(question: str, options: list[str], pictures, sounds):
    """Whether an option can be right, as a function."""
    text = question.lower()
    is_before = bool(re.search(r"\b(before|precede|leads? up)\b", text))
    is_after = bool(re.search(r"\b(after|next|follows?|once)\b", text)) and not is_before
    again = bool(re.search(r"\b(other|else)\b", text))
    if len(_times(options[0])) == 2:
        return _range_test(text, again, pictures, sounds)
    if any("in time" in option for option in options):
        return _lag_test(pictures, sounds)
    if "the shape goes" in options[0]:
        middle = sum(_times(question)) / len(_times(question))
        seen, heard = (None if events is None else _at(events, middle) for events in (pictures, sounds))
        return lambda option: (
            (seen is None or f"goes {seen.way.removeprefix('moves ')}" in option)
            and (heard is None or f"pitch {heard.way}" in option)
        )
    if all(_names(option) != (None, None) and " and " in option for option in options):
        return _pair_test(question, is_before, is_after, pictures, sounds)
    return _single_test(question, options, is_before, is_after, again, pictures, sounds)


def _range_test(text: str, again: bool, pictures, sounds):
    def over(events, option):
        start, end = _times(option)
        return None if events is None else _at(events, (start + end) / 2)

    seen, heard = _names(text)
    agreement = re.search(r"\b(as many|number|counts|same way|same direction|both going|motion of the shape)\b", text)
    if agreement and not (seen or heard):
        by_number = agreement[1] in ("as many", "number", "counts")

        def agrees(option):
            picture, sound = over(pictures, option), over(sounds, option)
            if picture is None or sound is None:
                one = picture or sound
                # Alone, a stream rules out what does not go up or down at all.
                return by_number or one is None or one.way in ("moves up", "moves down", "rises", "falls")
            if by_number:
                return picture.count == sound.count
            return (picture.way, sound.way) in (("moves up", "rises"), ("moves down", "falls"))

        return agrees
    if again:
        given_events, given, asked = (sounds, heard, pictures) if heard else (pictures, seen, sounds)
        if given_events is None and asked is None:
            return lambda option: True
        if given_events is None or asked is None:
            own = asked if asked is not None else given_events
            if asked is None:  # the other time is not the one when the given thing is there
                first = next(event for event in own if event.kind == given)
                return lambda option: over(own, option) != first
            return lambda option: over(own, option) is not None
        first = _overlapping(asked, next(event for event in given_events if event.kind == given))
        return lambda option: (one := over(asked, option)) is not None and one.kind == first.kind and one != first

    def there(option):
        found = ((seen, over(pictures, option), pictures), (heard, over(sounds, option), sounds))
        return all(
            kind is None or events is None or (one is not None and one.kind == kind) for kind, one, events in found
        )

    return there


def _lag_test(pictures, sounds):
    if pictures is None or sounds is None:
        return lambda option: True
    lag = sounds[1].start - pictures[1].start
    words = {500: "half a second", 1000: "one second", 1500: "one and a half seconds"}
    side = "late" if lag > 0 else "early"
    said = "it is in time" if lag == 0 else f"it comes {words[abs(lag)]} {side}"
    return lambda option: option == said


def _pair_test(question: str, is_before: bool, is_after: bool, pictures, sounds):
    times, (seen, heard) = _times(question), _names(question)
    edges = sorted({time for events in (pictures, sounds) if events for event in events for time in event[:2]})
    known = [(events, kind) for events, kind in ((pictures, seen), (sounds, heard)) if events is not None]
    if times:
        middles = [sum(times) / len(times)]
    else:
        every = [(start + end) / 2 for start, end in zip(edges, edges[1:], strict=False)]
        middles = [
            middle
            for middle in every
            if all((one := _at(events, middle)) is not None and one.kind == kind for events, kind in known)
        ]
    found = []
    for middle in middles:
        if is_after:
            later = [edge for edge in edges if edge > middle]
            middle = (times[1] if len(times) == 2 else later[0]) + 0.5 if later else -1
        elif is_before:
            earlier = [edge for edge in edges if edge <= middle]
            middle = (times[0] if len(times) == 2 else earlier[-1]) - 0.5 if earlier else -1
        found.append(tuple(None if events is None else _at(events, middle) for events in (pictures, sounds)))

    def fits(option):
        names = _names(option)
        return any(
            all(events is None or (one is not None and one.kind == name)
                for events, one, name in zip((pictures, sounds), pair, names, strict=True))
            for pair in found
        )  # fmt: skip

    return fits


def _single_test(question: str, options: list[str], is_before: bool, is_after: bool, again: bool, pictures, sounds):
    """Options of one stream: names, numbers, or what a shape does."""
    seen, heard = _names(options[0])
    times, (given_seen, given_heard) = _times(question), _names(question)
    if options[0].startswith("it "):
        stream, value = "picture", lambda event: f"it {event.way}"
    elif options[0] in COUNTS:
        of_shapes = bool(re.search(r"\bshapes\b", question.lower()))
        stream = "picture" if of_shapes else "sound"
        value = lambda event: next(word for word, count in COUNTS.items() if count == event.count)  # noqa: E731
    else:
        stream, value = ("picture", None) if seen else ("sound", None)
    asked, other = (pictures, sounds) if stream == "picture" else (sounds, pictures)
    given = given_heard if stream == "picture" else given_seen
    if asked is None:
        return lambda option: True

    def matches(event, option):
        if event is None:
            return False
        if value is not None:
            return value(event) == option
        return event.kind == _names(option)[0 if stream == "picture" else 1]

    events: list[Event | None] = list(asked)
    if again:
        here = _at(other, sum(times) / len(times)) if other is not None else None
        if here is not None:
            events = [_overlapping(asked, one) for one in other if one.kind == here.kind and one != here]
        elif times:
            now = _at(asked, sum(times) / len(times))
            events = [event for event in asked if event != now]
    elif times:
        events = [_at(asked, sum(times) / len(times))]
    elif other is not None and given is not None:
        anchors = [event for event in other if event.kind == given]
        moment = re.search(r"\b(moment|just as|comes on|is on when|first show|set in)\b", question)
        if is_after:
            events = [_at(asked, one.end + 0.5) for one in anchors]
        elif is_before:
            events = [_at(asked, one.start - 0.5) for one in anchors]
        elif moment:
            events = [_at(asked, one.start + 0.5) for one in anchors]
        else:
            events = [_overlapping(asked, one) for one in anchors]
    return lambda option: any(matches(event, option) for event in events)
