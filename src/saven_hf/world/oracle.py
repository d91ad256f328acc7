"""The truth: answers found in a scene itself, without looking at how a question was drawn.

It reads what a question names and looks it up in the two streams, as a perfect watcher and listener would. It also
answers the questions of a scene for an edited version of it (`saven_hf.world.interventions`), which says what an
intervention ought to change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from .questions import Question, direction_text, shift_text, span_text
from .scenes import Scene
from .vocabulary import DIRECTIONS, MOTIONS, NUMBER_WORDS, PICTURE_NAMES, SOUND_NAMES, name_of


_KIND_NAMED = {name: kind for names in (PICTURE_NAMES, SOUND_NAMES) for kind, name in names.items()}


def solve(scene: Scene, question: Question) -> str | None:
    """The answer in words, as one of the question's options or in the same form; None if the scene has none.

    Args:
        scene: the scene of the question, or an edited version of it.
    """
    found = _SOLVERS[question.family](scene, question)
    return found if not question.options or found in question.options else None


def _events(scene: Scene, stream: str) -> Sequence:
    return scene.pictures if stream == "picture" else scene.sounds


def _at(scene: Scene, stream: str, time: int):
    return scene.picture_at(time) if stream == "picture" else scene.sound_at(time)


def _named(scene: Scene, name: str) -> list:
    """Events of the thing named."""
    kind = _KIND_NAMED[name]
    return [event for event in (*scene.pictures, *scene.sounds) if event.kind == kind]


def _meanwhile(scene: Scene, stream: str, start: int, end: int):
    """The event of a stream that fills most of [start, end)."""
    shared: Counter = Counter()
    for event in _events(scene, stream):
        shared[event] = max(0, min(event.end, end) - max(event.start, start))
    event, length = shared.most_common(1)[0]
    return event if length else None


def _value(event, what: str) -> str | None:
    if event is None:
        return None
    if what == "kind":
        return name_of(event.kind)
    value = getattr(event, what)
    return f"it {MOTIONS[value][0]}" if what == "motion" else NUMBER_WORDS[value]


def _with(stream: str, what: str = "kind") -> Callable:
    def solver(scene: Scene, question: Question):
        for event in _named(scene, question.arguments["given"])[:1]:
            return _value(_meanwhile(scene, stream, event.start, event.end), what)

    return solver


def _beside(stream: str, later: bool) -> Callable:
    def solver(scene: Scene, question: Question):
        for event in _named(scene, question.arguments["given"])[:1]:
            return _value(_at(scene, stream, event.end if later else event.start - 1), "kind")

    return solver


def _when_begins(stream: str) -> Callable:
    def solver(scene: Scene, question: Question):
        for event in _named(scene, question.arguments["given"])[:1]:
            return _value(_at(scene, stream, event.start), "kind")

    return solver


def _pair(scene: Scene, time: int) -> str | None:
    picture, sound = scene.picture_at(time), scene.sound_at(time)
    return f"{name_of(picture.kind)} and {name_of(sound.kind)}" if picture and sound else None


def _spans_of_pair(scene: Scene, names: str) -> list[tuple[int, int]]:
    pictures, sounds = (_named(scene, name) for name in names.split(" and "))
    overlaps = [(max(a.start, b.start), min(a.end, b.end)) for a in pictures for b in sounds]
    return [(start, end) for start, end in overlaps if start < end]


def _pair_beside(later: bool) -> Callable:
    def solver(scene: Scene, question: Question):
        spans = _spans_of_pair(scene, question.arguments["given"])
        return _pair(scene, spans[0][1] if later else spans[0][0] - 1) if len(spans) == 1 else None

    return solver


def _middle(question: Question) -> int:
    return sum(question.arguments["times"]) // 2


def _pair_at(scene: Scene, question: Question):
    return _pair(scene, _middle(question))


def _pair_beside_time(later: bool) -> Callable:
    def solver(scene: Scene, question: Question):
        start, end = question.arguments["times"]
        return _pair(scene, end if later else start - 1)

    return solver


def _stream_at(stream: str, what: str = "kind") -> Callable:
    return lambda scene, question: _value(_at(scene, stream, _middle(question)), what)


def _other_time(scene: Scene, event):
    """The one other event of the same identity in the same stream."""
    same = [one for one in (*scene.pictures, *scene.sounds) if one.kind == event.kind and one != event]
    return same[0] if len(same) == 1 else None


def _again(stream: str, what: str = "kind") -> Callable:
    repeated = "sound" if stream == "picture" else "picture"

    def solver(scene: Scene, question: Question):
        event = _at(scene, repeated, _middle(question))
        other = event and _other_time(scene, event)
        return _value(_meanwhile(scene, stream, other.start, other.end), what) if other else None

    return solver


def _direction_at(scene: Scene, question: Question):
    picture, sound = scene.picture_at(_middle(question)), scene.sound_at(_middle(question))
    moves = picture and picture.motion in DIRECTIONS and sound and sound.glide != "steady"
    return direction_text(picture.motion, sound.glide) if moves else None


def _in_time(scene: Scene, question: Question):
    if len(scene.pictures) != len(scene.sounds):
        return None
    lags = {sound.start - picture.start for picture, sound in zip(scene.pictures[1:], scene.sounds[1:], strict=True)}
    lag = lags.pop() if len(lags) == 1 else None
    return shift_text(lag) if lag in scene.shift_options else None


def _one_span(spans: Iterable[tuple[int, int]]) -> str | None:
    spans = list(spans)
    return span_text(*spans[0]) if len(spans) == 1 else None


def _when_pair(scene: Scene, question: Question):
    return _one_span(_spans_of_pair(scene, question.arguments["given"]))


def _when(scene: Scene, question: Question):
    return _one_span((event.start, event.end) for event in _named(scene, question.arguments["given"]))


def _when_agrees(agree: Callable) -> Callable:
    def solver(scene: Scene, question: Question):
        return _one_span((one.start, one.end) for one in scene.segments if agree(one.picture, one.sound))

    return solver


def _when_again(stream: str) -> Callable:
    def solver(scene: Scene, question: Question):
        for event in _named(scene, question.arguments["given"])[:1]:
            found = _meanwhile(scene, stream, event.start, event.end)
            other = found and _other_time(scene, found)
            return span_text(other.start, other.end) if other else None

    return solver


_SOLVERS: dict[str, Callable[[Scene, Question], str | None]] = {
    "heard_with": _with("sound"),
    "seen_with": _with("picture"),
    "motion_with": _with("picture", "motion"),
    "pulses_with": _with("sound", "pulses"),
    "copies_with": _with("picture", "copies"),
    "heard_after": _beside("sound", later=True),
    "heard_before": _beside("sound", later=False),
    "seen_after": _beside("picture", later=True),
    "seen_before": _beside("picture", later=False),
    "pair_after": _pair_beside(later=True),
    "pair_before": _pair_beside(later=False),
    "heard_when_appears": _when_begins("sound"),
    "seen_when_begins": _when_begins("picture"),
    "in_time": _in_time,
    "seen_after_seen": _beside("picture", later=True),
    "heard_after_heard": _beside("sound", later=True),
    "pair_at": _pair_at,
    "pair_after_time": _pair_beside_time(later=True),
    "pair_before_time": _pair_beside_time(later=False),
    "heard_again": _again("sound"),
    "seen_again": _again("picture"),
    "pulses_again": _again("sound", "pulses"),
    "copies_again": _again("picture", "copies"),
    "direction_at": _direction_at,
    "seen_at": _stream_at("picture"),
    "heard_at": _stream_at("sound"),
    "copies_at": _stream_at("picture", "copies"),
    "pulses_at": _stream_at("sound", "pulses"),
    "when_pair": _when_pair,
    "when_number_agrees": _when_agrees(lambda picture, sound: picture.copies == sound.pulses),
    "when_direction_agrees": _when_agrees(lambda picture, sound: DIRECTIONS.get(picture.motion) == sound.glide),
    "when_seen_again": _when_again("picture"),
    "when_heard_again": _when_again("sound"),
    "when_seen": _when,
    "when_heard": _when,
}
