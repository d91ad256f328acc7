"""Questions about a scene, in the paper's three formats, with their answers and exact chance levels.

A family is a function that draws one question of a kind, or returns None where the scene has none. Most families are
answerable only from sound and picture together, because one names something in one stream and asks for the other, or
because its options differ in both. Options always come from the scene itself. Where counts are asked for, the answer
is drawn first and then a segment that has it, so that no number is more probable than another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from ..savenvideo.times import format_time
from . import chance as chances
from .chance import Chance
from .scenes import END_TICKS, STEP_TICKS, TICK, Draw, Scene
from .splits import generator, sample_scene, split_named
from .vocabulary import DIRECTIONS, MOTIONS, NUMBER_WORDS, name_of
from .wordings import FURTHER, WORDINGS


LETTERS = "ABCD"
_COINCIDING = ("distinct", "crossed", "picture_twice", "sound_twice")
_SHORTEST_ASKED = 3 * TICK  # of a stretch between two changes: shorter ones are hardly seen


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        family: how it was made; a key of `FAMILIES`.
        question_type: "global", "timestamped" (times in the question) or "time_range" (the options are times).
        category: the skill: "recognition", "counting", "order" or "agreement".
        needs: "both", or the one modality, "picture" or "sound", that is enough.
        text: the question without options.
        options: four texts, or none where the scene is too small to give four: such a question is open only.
        answer: "A" to "D", or "" without options.
        answer_text: the answer in words; times are written HH:MM:SS.mmm.
        evidence: the stretches that answer it, (start, end) in microseconds.
        chance: probability of a right choice for guessers that see a part only; None without options.
        arguments: what `solve` needs to find the answer in a scene on its own: names and times of the question.
    """

    family: str
    question_type: str
    category: str
    needs: str
    text: str
    options: tuple[str, ...]
    answer: str
    answer_text: str
    evidence: tuple[tuple[int, int], ...]
    chance: Chance | None
    arguments: dict = field(default_factory=dict)

    def prompt(self, form: str = "choice") -> str:
        """What a model is asked: "choice" has the options below the question, "open" is the question alone."""
        if form not in ("choice", "open"):
            raise ValueError(f"A question is asked as 'choice' or 'open', not {form!r}.")
        if form == "open" or not self.options:
            return self.text
        return "\n".join(
            [self.text, *(f"{letter}. {text}" for letter, text in zip(LETTERS, self.options, strict=True))]
        )


class _Asked(NamedTuple):
    """A question before it is worded: the right answer is the first of `options`, of which there are four or one."""

    options: Sequence[str]
    evidence: Sequence
    chance: Chance = Chance()
    given: str = ""
    times: tuple[int, int] | None = None


def span_text(start: int, end: int) -> str:
    """ "from 00:00:03.000 to 00:00:09.500" """
    return f"from {format_time(start)} to {format_time(end)}"


def _span(event) -> tuple[int, int]:
    return event.start, event.end


def _stream(scene: Scene, stream: str) -> tuple:
    return scene.pictures if stream == "picture" else scene.sounds


def _other(stream: str) -> str:
    return "sound" if stream == "picture" else "picture"


def _is_distinct(events: Sequence) -> bool:
    return len({event.kind for event in events}) == len(events)


def _pair_text(picture, sound) -> str:
    return f"{name_of(picture)} and {name_of(sound)}"


def _for_stream(seen: str, chance: Chance) -> Chance:
    """`chance` as written for a question whose first modality is the picture, for one whose first is `seen`."""
    return chance if seen == "picture" else chance.swapped()


def _with_wrong_names(draw: Draw, answer, others: Iterable) -> list[str] | None:
    """The answer's name and three others; the answer alone if there are not enough."""
    wrong = [kind for kind in dict.fromkeys(others) if kind != answer]
    chosen = [answer, *(draw.sample(wrong, 3) if len(wrong) >= 3 else ())]
    return [name_of(kind) for kind in chosen]


def _value_first(draw: Draw, values: Sequence) -> tuple | None:
    """A position whose value was drawn first, and three other values; None if there are not four different ones."""
    distinct = sorted(set(values))
    if len(distinct) < 4:
        return None
    chosen = draw.sample(distinct, 4)
    return draw.pick([at for at, value in enumerate(values) if value == chosen[0]]), chosen


# ---------------------------------------------------------------------------------------------------------------------
# Global


def _with(asked: str, scene: Scene, draw: Draw) -> _Asked | None:
    """The other stream's event in the segment named."""
    events, given = _stream(scene, asked), _stream(scene, _other(asked))
    if scene.layout.tie not in ("distinct", "picture_twice", "sound_twice") or not _is_distinct(given):
        return None
    at = draw.index(len(events))
    options = _with_wrong_names(draw, events[at].kind, (event.kind for event in events))
    return _Asked(options, [given[at]], given=name_of(given[at].kind))


def _motion_with(scene: Scene, draw: Draw) -> _Asked | None:
    if scene.layout.tie not in ("distinct", "picture_twice") or scene.layout.rule == "direction":
        return None
    drawn = _value_first(draw, [event.motion for event in scene.pictures])
    if drawn is None:
        return None
    at, values = drawn
    options = [f"it {MOTIONS[value][0]}" for value in values]
    return _Asked(options, [scene.pictures[at]], given=name_of(scene.sounds[at].kind))


def _number_with(asked: str, scene: Scene, draw: Draw) -> _Asked | None:
    """How many copies or pulses the segment has whose other stream is named."""
    ties = ("distinct", "picture_twice" if asked == "picture" else "sound_twice")
    if scene.layout.tie not in ties or scene.layout.rule != "count":
        return None
    at, values = _value_first(draw, _numbers(scene, asked))
    given = _stream(scene, _other(asked))[at]
    return _Asked([NUMBER_WORDS[value] for value in values], [given], given=name_of(given.kind))


def _numbers(scene: Scene, stream: str) -> list[int]:
    return [event.copies for event in scene.pictures] if stream == "picture" else [
        event.pulses for event in scene.sounds
    ]  # fmt: skip


def _beside(asked: str, given: str, step: int, scene: Scene, draw: Draw) -> _Asked | None:
    """What one stream has right after or before an event of the other, or of the same, stream."""
    events, named, count = _stream(scene, asked), _stream(scene, given), len(_stream(scene, asked))
    same = asked == given
    if scene.layout.tie != "distinct" and not (same and scene.layout.tie in ("apart", "shifted")):
        return None
    # In between streams, wrong options come from where the answer can lie; one that lies at the end could be excluded.
    first, last = (0, count - 1) if same else (max(step, 0), count - 1 + min(step, 0))
    at = max(step, 0) + draw.index(count - 1)
    wrong = [event.kind for event in events[first : last + 1]]
    if same:
        wrong.remove(named[at - step].kind)
    options = _with_wrong_names(draw, events[at].kind, wrong)
    if len(options) == 1 and count >= 4:
        return None
    chance = _for_stream(asked, Chance(picture=1.0)) if same else Chance()
    return _Asked(options, [named[at - step], events[at]], chance, name_of(named[at - step].kind))


def _next_pair(step: int, scene: Scene, draw: Draw) -> _Asked | None:
    """Crossed layouts: the pair that comes after or before a pair."""
    if scene.layout.tie != "crossed":
        return None
    pairs = [(segment.picture.kind, segment.sound.kind) for segment in scene.segments]
    at = max(-step, 0) + draw.index(len(pairs) - 1)
    given, options = pairs[at], _square(scene, draw, pairs[at + step])
    swap = [(sound, picture) for picture, sound in options]
    picture, blind = chances.next_pair([pair[0] for pair in pairs], given, options, len({b for _, b in pairs}), step)
    sound, _ = chances.next_pair([pair[1] for pair in pairs], given[::-1], swap, len({a for a, _ in pairs}), step)
    return _Asked(
        [_pair_text(*option) for option in options],
        [scene.segments[at], scene.segments[at + step]],
        Chance(picture, sound, blind, blind),
        _pair_text(*given),
    )


def _square(scene: Scene, draw: Draw, pair: tuple) -> list[tuple]:
    """A pair, and the three that have another picture, another sound, or both: a modality alone halves them."""
    pictures = [kind for kind in dict.fromkeys(event.kind for event in scene.pictures) if kind != pair[0]]
    sounds = [kind for kind in dict.fromkeys(event.kind for event in scene.sounds) if kind != pair[1]]
    picture, sound = draw.pick(pictures), draw.pick(sounds)
    return [pair, (picture, pair[1]), (pair[0], sound), (picture, sound)]


def _when_appears(asked: str, scene: Scene, draw: Draw) -> _Asked | None:
    """Layout "apart": what one stream has at the moment when an event of the other begins."""
    if scene.layout.tie != "apart":
        return None
    events, named = _stream(scene, asked), _stream(scene, _other(asked))
    event = named[1 + draw.index(len(named) - 1)]
    found = next(one for one in events if one.start <= event.start < one.end)
    others = draw.sample([one for one in events if one is not found], 3)
    step = STEP_TICKS * TICK
    # Pictures begin at multiples of a step, sounds half a step later: which of those moments does an event hold?
    offset = scene.lead_in + (step // 2 if asked == "picture" else 0)
    spans = [(-((offset - one.start) // step), -((offset - one.end) // step)) for one in (found, *others)]
    total = (scene.duration - scene.lead_in) // step
    weights = chances.event_weights(total, len(named), [(max(first, 0), last) for first, last in spans])
    chance = _for_stream(asked, Chance(picture=chances.best_guess(weights)))
    options = [name_of(one.kind) for one in (found, *others)]
    return _Asked(options, [(event.start, min(event.end, found.end))], chance, name_of(event.kind))


_AMOUNTS = {5: "half a second", 10: "one second", 15: "one and a half seconds"}


def shift_text(shift: int) -> str:
    """ "it comes half a second late" for 500 000 us. In words: digits with a unit would be read as a named time."""
    if shift == 0:
        return "it is in time"
    return f"it comes {_AMOUNTS[abs(shift) // TICK]} {'late' if shift > 0 else 'early'}"


def _in_time(scene: Scene, draw: Draw) -> _Asked | None:
    if scene.layout.tie != "shifted":
        return None
    options = [scene.shift, *(shift for shift in scene.shift_options if shift != scene.shift)]
    first, last = ((event.end - event.start) // TICK for event in (scene.sounds[0], scene.sounds[-1]))
    chance = Chance(sound=chances.in_time(first, last, END_TICKS, [shift // TICK for shift in options]))
    return _Asked([shift_text(shift) for shift in options], [(scene.lead_in, scene.duration)], chance)


# ---------------------------------------------------------------------------------------------------------------------
# Timestamped


def _pair_at(scene: Scene, draw: Draw) -> _Asked | None:
    segments = [segment for segment in scene.segments if segment.end - segment.start >= _SHORTEST_ASKED]
    segment = draw.pick(segments)
    options = _square(scene, draw, (segment.picture.kind, segment.sound.kind))
    return _Asked([_pair_text(*one) for one in options], [segment], Chance(0.5, 0.5), times=_span(segment))


def _pair_beside_time(step: int, scene: Scene, draw: Draw) -> _Asked | None:
    if scene.layout.tie not in _COINCIDING:
        return None
    at = max(-step, 0) + draw.index(len(scene.segments) - 1)
    segment, found = scene.segments[at], scene.segments[at + step]
    options = _square(scene, draw, (found.picture.kind, found.sound.kind))
    return _Asked([_pair_text(*one) for one in options], [found], Chance(0.5, 0.5), times=_span(segment))


def _at(asked: str, scene: Scene, draw: Draw) -> _Asked | None:
    events = _stream(scene, asked)
    event = draw.pick(events)
    options = _with_wrong_names(draw, event.kind, (one.kind for one in events))
    if len(options) == 1 and len(scene.segments) >= 4:
        return None
    return _Asked(options, [event], _for_stream(asked, Chance(picture=1.0)), times=_span(event))


def _number_at(asked: str, scene: Scene, draw: Draw) -> _Asked | None:
    if scene.layout.rule != "count":
        return None
    at, values = _value_first(draw, _numbers(scene, asked))
    event = _stream(scene, asked)[at]
    options = [NUMBER_WORDS[value] for value in values]
    return _Asked(options, [event], _for_stream(asked, Chance(picture=1.0)), times=_span(event))


def _twins(events: Sequence) -> dict[int, int]:
    """Position of the other event of the same identity, for each position."""
    where: dict = {}
    for at, event in enumerate(events):
        where.setdefault(event.kind, []).append(at)
    return {one: other for pair in where.values() for one, other in (pair, pair[::-1])}


def _again(asked: str, scene: Scene, draw: Draw) -> _Asked | None:
    """What one stream has at the other occurrence of what the other stream has at a time."""
    if scene.layout.tie != f"{_other(asked)}_twice":
        return None
    events, repeated = _stream(scene, asked), _stream(scene, _other(asked))
    at = draw.index(len(events))
    found = _twins(repeated)[at]
    others = draw.sample([one for one in range(len(events)) if one not in (at, found)], 3)
    weights = chances.twin_weights(len(events), at, [found, *others])
    chance = _for_stream(asked, Chance(picture=chances.best_guess(weights)))
    options = [name_of(events[one].kind) for one in (found, *others)]
    return _Asked(options, [repeated[at], repeated[found]], chance, times=_span(repeated[at]))


def _number_again(asked: str, scene: Scene, draw: Draw) -> _Asked | None:
    """How many copies or pulses there are at the other occurrence of what is there at a time."""
    if scene.layout.tie != f"{_other(asked)}_twice" or scene.layout.rule != "count":
        return None
    repeated, numbers = _stream(scene, _other(asked)), _numbers(scene, asked)
    found, values = _value_first(draw, numbers)
    at = _twins(repeated)[found]
    weights = []
    for value in values:
        places = [one for one, number in enumerate(numbers) if number == value]
        weights.append(sum(chances.twin_weights(len(repeated), at, places)) / len(places))
    chance = _for_stream(asked, Chance(picture=chances.best_guess(weights)))
    options = [NUMBER_WORDS[value] for value in values]
    return _Asked(options, [repeated[at], repeated[found]], chance, times=_span(repeated[at]))


_WAYS = {"up": "up", "down": "down", "rising": "rises", "falling": "falls"}


def direction_text(motion: str, glide: str) -> str:
    """ "the shape goes up and the pitch falls" """
    return f"the shape goes {_WAYS[motion]} and the pitch {_WAYS[glide]}"


def _agreement(scene: Scene) -> tuple[list[int], list[int]]:
    """Positions of the segment whose picture and sound agree by the scene's rule, and of the others."""
    found: tuple[list[int], list[int]] = ([], [])
    for at, (picture, sound) in enumerate(zip(scene.pictures, scene.sounds, strict=True)):
        if scene.layout.rule == "direction":
            agree = DIRECTIONS[picture.motion] == sound.glide
        else:
            agree = picture.copies == sound.pulses
        found[not agree].append(at)
    return found


def _direction_at(scene: Scene, draw: Draw) -> _Asked | None:
    if scene.layout.rule != "direction":
        return None
    segment = scene.segments[draw.pick(_agreement(scene)[draw.index(2)])]
    right = (segment.picture.motion, segment.sound.glide)
    options = [right, *((up, rise) for up in DIRECTIONS for rise in DIRECTIONS.values() if (up, rise) != right)]
    up = sum(event.motion == "up" for event in scene.pictures)
    rising = sum(event.glide == "rising" for event in scene.sounds)
    chance = Chance(0.5, 0.5, timeless=chances.direction_at(len(scene.segments), up, rising))
    return _Asked([direction_text(*one) for one in options], [segment], chance, times=_span(segment))


# ---------------------------------------------------------------------------------------------------------------------
# Time range


def _ranges(events: Iterable) -> list[str]:
    return [span_text(event.start, event.end) for event in events]


def _when_pair(scene: Scene, draw: Draw) -> _Asked | None:
    """Crossed layouts: four ranges, two of which have the right picture and two the right sound."""
    if scene.layout.tie != "crossed":
        return None
    segments = {(segment.picture.kind, segment.sound.kind): segment for segment in scene.segments}
    options = [segments[pair] for pair in _square(scene, draw, draw.pick(list(segments)))]
    given = _pair_text(options[0].picture.kind, options[0].sound.kind)
    return _Asked(_ranges(options), options[:1], Chance(0.5, 0.5), given)


def _when(asked: str, scene: Scene, draw: Draw) -> _Asked | None:
    events = _stream(scene, asked)
    if not _is_distinct(events):
        return None
    options = draw.sample(events, 4 if len(events) >= 4 else 1)
    chance = _for_stream(asked, Chance(picture=1.0))
    return _Asked(_ranges(options), options[:1], chance, name_of(options[0].kind))


def _when_agrees(rule: str, scene: Scene, draw: Draw) -> _Asked | None:
    if scene.layout.rule != rule:
        return None
    agree, differ = _agreement(scene)
    options = [scene.segments[at] for at in (*agree, *draw.sample(differ, 3))]
    return _Asked(_ranges(options), options[:1])


def _when_again(asked: str, scene: Scene, draw: Draw) -> _Asked | None:
    """The other occurrence of what goes with something named; options are four ranges with different contents."""
    if scene.layout.tie != f"{asked}_twice":
        return None
    events, named = _stream(scene, asked), _stream(scene, _other(asked))
    twins, at = _twins(events), draw.index(len(events))
    other_pairs = [pair for pair in twins.items() if pair[0] < pair[1] and at not in pair]
    if len(other_pairs) < 3:
        return None
    found, wrong = twins[at], [draw.pick(pair) for pair in draw.sample(other_pairs, 3)]
    chance = chances.when_again(len(events), at, (found, *sorted(wrong)))
    options = [events[one] for one in (found, *wrong)]
    return _Asked(
        _ranges(options),
        [events[at], options[0]],
        _for_stream(_other(asked), Chance(picture=chance)),
        name_of(named[at].kind),
    )


# ---------------------------------------------------------------------------------------------------------------------


class Family(NamedTuple):
    """A kind of question."""

    question_type: str
    category: str
    needs: str
    draw: Callable[[Scene, Draw], _Asked | None]


FAMILIES: dict[str, Family] = {
    "heard_with": Family("global", "recognition", "both", partial(_with, "sound")),
    "seen_with": Family("global", "recognition", "both", partial(_with, "picture")),
    "motion_with": Family("global", "recognition", "both", _motion_with),
    "pulses_with": Family("global", "counting", "both", partial(_number_with, "sound")),
    "copies_with": Family("global", "counting", "both", partial(_number_with, "picture")),
    "heard_after": Family("global", "order", "both", partial(_beside, "sound", "picture", 1)),
    "heard_before": Family("global", "order", "both", partial(_beside, "sound", "picture", -1)),
    "seen_after": Family("global", "order", "both", partial(_beside, "picture", "sound", 1)),
    "seen_before": Family("global", "order", "both", partial(_beside, "picture", "sound", -1)),
    "pair_after": Family("global", "order", "both", partial(_next_pair, 1)),
    "pair_before": Family("global", "order", "both", partial(_next_pair, -1)),
    "heard_when_appears": Family("global", "recognition", "both", partial(_when_appears, "sound")),
    "seen_when_begins": Family("global", "recognition", "both", partial(_when_appears, "picture")),
    "in_time": Family("global", "agreement", "both", _in_time),
    "seen_after_seen": Family("global", "order", "picture", partial(_beside, "picture", "picture", 1)),
    "heard_after_heard": Family("global", "order", "sound", partial(_beside, "sound", "sound", 1)),
    "pair_at": Family("timestamped", "recognition", "both", _pair_at),
    "pair_after_time": Family("timestamped", "order", "both", partial(_pair_beside_time, 1)),
    "pair_before_time": Family("timestamped", "order", "both", partial(_pair_beside_time, -1)),
    "heard_again": Family("timestamped", "order", "both", partial(_again, "sound")),
    "seen_again": Family("timestamped", "order", "both", partial(_again, "picture")),
    "pulses_again": Family("timestamped", "counting", "both", partial(_number_again, "sound")),
    "copies_again": Family("timestamped", "counting", "both", partial(_number_again, "picture")),
    "direction_at": Family("timestamped", "agreement", "both", _direction_at),
    "seen_at": Family("timestamped", "recognition", "picture", partial(_at, "picture")),
    "heard_at": Family("timestamped", "recognition", "sound", partial(_at, "sound")),
    "copies_at": Family("timestamped", "counting", "picture", partial(_number_at, "picture")),
    "pulses_at": Family("timestamped", "counting", "sound", partial(_number_at, "sound")),
    "when_pair": Family("time_range", "recognition", "both", _when_pair),
    "when_number_agrees": Family("time_range", "counting", "both", partial(_when_agrees, "number")),
    "when_direction_agrees": Family("time_range", "agreement", "both", partial(_when_agrees, "direction")),
    "when_seen_again": Family("time_range", "order", "both", partial(_when_again, "picture")),
    "when_heard_again": Family("time_range", "order", "both", partial(_when_again, "sound")),
    "when_seen": Family("time_range", "recognition", "picture", partial(_when, "picture")),
    "when_heard": Family("time_range", "recognition", "sound", partial(_when, "sound")),
}

# The paper's five: two without times, two with times in the question, one that asks for a time range.
PAPER_FORMATS = ("global", "global", "timestamped", "timestamped", "time_range")
ONE_MODALITY_SHARE = 8  # one slot in this many is filled with a one-modality question on purpose


def make_questions(scene: Scene, families: Iterable[str] | None = None, round: int = 0) -> list[Question]:
    """Questions about a scene; the same arguments always give the same questions.

    Args:
        scene: as `sample_scene` gives it. Worded by its split: held-out wordings for the split "paraphrases".
        families: names in `FAMILIES`: one question of each that the scene has. None draws the paper's five: two
            global, two timestamped, one time range; fewer where the layout has not that many.
        round: another number draws another set, for several sets on one scene.

    Raises:
        ValueError: the scene was edited, so that neither its answers nor its chance levels are what was drawn.
    """
    if scene.edits:
        raise ValueError(
            f"The scene was edited ({', '.join(scene.edits)}); make questions of the scene it was made from and let "
            "`solve` answer them for the edited one."
        )
    draw = Draw(generator(scene.split, scene.seed, f"questions {round}"))
    held_out = split_named(scene.split).held_out_paraphrases
    if families is not None:
        drawn = (draw_question(scene, family, draw, held_out) for family in families)
        return [question for question in drawn if question is not None]
    questions: list[Question] = []
    for question_type in PAPER_FORMATS:
        question = _fill_slot(scene, question_type, draw, held_out, questions)
        if question is not None:
            questions.append(question)
    return questions


_BY_SLOT = {
    (question_type, one_modality): [
        name
        for name, family in FAMILIES.items()
        if family.question_type == question_type and (family.needs != "both") == one_modality
    ]
    for question_type in set(PAPER_FORMATS)
    for one_modality in (False, True)
}


def _fill_slot(scene: Scene, question_type: str, draw: Draw, held_out: bool, taken: list[Question]) -> Question | None:
    """A question of a format that was not asked yet, of a random family that the scene has."""
    one_modality = draw.index(ONE_MODALITY_SHARE) == 0
    for wanted in (one_modality, not one_modality):
        names = _BY_SLOT[question_type, wanted]
        for name in draw.sample(names, len(names)):
            question = draw_question(scene, name, draw, held_out)
            if question is not None and not any(_is_same(question, other) for other in taken):
                return question
    return None


def _is_same(one: Question, other: Question) -> bool:
    return one.family == other.family and one.arguments == other.arguments


def draw_question(
    scene: Scene, family: str, draw: Draw, held_out: bool = False, further: bool = False
) -> Question | None:
    """One question of a family, with the random numbers of `draw`; None if the scene has none of it.

    Args:
        held_out: in a wording held out from training.
        further: also in the wordings that are only learnt from; not together with `held_out`.
    """
    if family not in FAMILIES:
        raise ValueError(f"There is no family of questions {family!r}: one of {', '.join(FAMILIES)}.")
    kind = FAMILIES[family]
    asked = kind.draw(scene, draw)
    if asked is None:
        return None
    arguments = {"given": asked.given}
    fields = {"given": asked.given}
    if asked.times is not None:
        arguments["times"] = asked.times
        fields["span"] = span_text(*asked.times)
        fields["middle"] = format_time(sum(asked.times) // 2)
    wordings = WORDINGS[family][held_out] + (FURTHER[family] if further and not held_out else ())
    text = draw.pick(wordings).format(**fields)
    text = text[0].upper() + text[1:]
    right = asked.options[0]
    options = tuple(draw.sample(asked.options, 4)) if len(asked.options) == 4 else ()
    return Question(
        family=family,
        question_type=kind.question_type,
        category=kind.category,
        needs=kind.needs,
        text=text,
        options=options,
        answer=LETTERS[options.index(right)] if options else "",
        answer_text=right,
        evidence=tuple((one[0], one[1]) for one in asked.evidence),
        chance=asked.chance if options else None,
        arguments=arguments,
    )


def chance_table(split: str = "iid", scenes: int = 600) -> str:
    """A Markdown table of all families with their chance levels, as means over the first `scenes` scenes of a split.

    A level that depends on the scene is given with its smallest and its largest value.
    """
    found: dict[str, list[Chance]] = {name: [] for name in FAMILIES}
    for seed in range(scenes):
        for question in make_questions(sample_scene(seed, split), FAMILIES):
            if question.chance is not None:
                found[question.family].append(question.chance)
    lines = [
        "| family | format | skill | needs | picture | sound | text | timeless |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, family in FAMILIES.items():
        levels = []
        for values in zip(*found[name], strict=True):
            mean, low, high = sum(values) / len(values), min(values), max(values)
            levels.append(f"{mean:.2f}" if high - low < 0.005 else f"{mean:.2f} ({low:.2f} to {high:.2f})")
        lines.append(
            f"| `{name}` | {family.question_type} | {family.category} | {family.needs} | {' | '.join(levels)} |"
        )
    return "\n".join(lines)
