"""The paper's rules for what annotators write (appendix A.2), each with the check that enforces it.

`RULES` is the one table: rule -> template that asks for it -> validator -> an example that fails it. Stages check
every reply against the rules of its template; the documentation and the tests are made from the same table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..savenvideo.times import parse_spans, parse_times
from .errors import ReplyError
from .parsing import Options


@dataclass(frozen=True)
class Context:
    """What a rule may compare with.

    Attributes:
        segments: of the video, as rows hold them ("start", "end", "first_frame", "last_frame").
        captions: texts that the answer was written from.
        duration: of the video, seconds.
        kind: "global", "timestamped" or "time_range", for options.
    """

    segments: Sequence[dict] = ()
    captions: Sequence[str] = ()
    duration: float = float("inf")
    kind: str = "global"


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: for tables and messages.
        template: the prompt that asks for it.
        says: the rule in words.
        validator: what is wrong with a value, as one sentence that is told to the model; None if nothing is. No
            validator where a text does not show whether the rule was kept.
        fails: a value that breaks the rule, and the context it breaks it in.
        alone: of a rule on questions: each question can be held to it by itself.
        told_by: who tells without a validator: checks of the last stage, the parser; "" if nobody can.
    """

    name: str
    template: str
    says: str
    validator: Callable[[Any, Context], str | None] | None = None
    fails: Any = None
    context: Context = field(default=Context(), repr=False)
    alone: bool = False
    told_by: str = ""


GUESSES = re.compile(
    r"\b(?:maybe|perhaps|probably|possibly|presumably|seem(?:s|ed|ingly)?|appears? to|might|could be|may be|"
    r"likely|suggest(?:s|ing)|as if|looks? like|sounds? like it)\b",
    re.IGNORECASE,
)
_INTRODUCTION = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here (?:is|are)|here's|the following|below (?:is|are)|this is a fusion|"
    r"based on (?:the|your)|as requested|in this (?:clip|recording)|the (?:clip|recording|frames?|audio|video) "
    r"(?:description|caption)s?)\b",
    re.IGNORECASE,
)
_BOTH_NEEDED = re.compile(
    r"\b(?:audio[- ]?visual|audiovisual|both (?:the )?(?:audio|sound|picture|video|modalit)\w*|"
    r"multi-?modal|modalit\w+|"
    r"(?:audio|sound|auditory)(?:\s+\w+){0,2}\s+and(?:\s+\w+){0,2}\s+(?:video|visuals?|picture|image) "
    r"(?:information|cues?|content|elements?|together)|considering both|combin(?:e|ing|ation of))\b",
    re.IGNORECASE,
)
_CITED = re.compile(
    r"\b(?:narrat(?:ion|or|ive|es|ed)\w*|descriptions?|captions?|described as|transcripts?)\b", re.IGNORECASE
)
_ASKS_WHEN = re.compile(
    r"\b(?:when|time|range|interval|period|stretch|which part|span|moment|during which)\b", re.IGNORECASE
)
_SPEECH = re.compile(r"[\"“]([^\"”]+)[\"”]")
_MOST_QUOTED, _MOST_WORDS, _REPEATED, _MOST_LISTED = 6, 40, 6, 3


def check_rules(template: str, value: Any, context: Context) -> None:
    """Raise what a parsed reply breaks.

    Raises:
        ReplyError: with all problems.
    """
    problems = [problem for rule in RULES if rule.template == template and rule.validator is not None
                if (problem := rule.validator(value, context)) is not None]  # fmt: skip
    if problems:
        raise ReplyError(problems)


def question_problems(question: str, kind: str, context: Context) -> list[str]:
    """What a single question breaks of the rules on questions, whoever wrote it.

    Args:
        kind: "global", "timestamped" or "time_range"; only the second names times.
    """
    has_times = bool(parse_times(question))
    problems = []
    if (kind == "timestamped") != has_times:
        problems.append(f"A {kind} question {'names' if has_times else 'lacks'} times.")
    return problems + [problem for rule in RULES if rule.alone
                       if (problem := rule.validator([question], context)) is not None]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Texts


def _objective(text: str, context: Context) -> str | None:
    found = GUESSES.search(text)
    return f"{found[0]!r} is a guess: state only what is there." if found else None


def _direct(text: str, context: Context) -> str | None:
    found = _INTRODUCTION.match(text)
    return f"It begins with the introduction {found[0]!r}: begin with the text at once." if found else None


def _not_transcribed(text: str, context: Context) -> str | None:
    for quoted in _SPEECH.findall(text):
        if len(quoted.split()) > _MOST_QUOTED:
            return f"It writes down speech, {quoted[:40]!r}: describe how it sounds instead."
    return None


def _no_times(text: str, context: Context) -> str | None:
    return "It names times, which are added later: leave them out." if parse_times(text) else None


def _woven(text: str, context: Context) -> str | None:
    plain = _plain(text)
    if context.captions and all(_plain(caption) in plain for caption in context.captions):
        return "It puts one description behind the other: weave what is heard and what is seen together."
    return None


def _both_there(text: str, context: Context) -> str | None:
    words = set(_words(text))
    for caption in context.captions:
        own = set(_words(caption)) - STOP_WORDS
        if own and not own & words:
            return f"Nothing of {caption[:50]!r} is left: picture and sound have the same weight."
    return None


def _times_of_segments(text: str, context: Context) -> str | None:
    known = {round(1000 * time) for one in context.segments for time in _named_times(one)}
    named = [round(time / 1000) for time in parse_times(text)]
    if not named:
        return "It names no times: keep the times of every stretch, written as they were."
    wrong = next((time for time in named if time not in known), None)
    return (
        f"It names {wrong / 1000:g} s, which is no time of a stretch: keep the times as they were." if wrong else None
    )


# ---------------------------------------------------------------------------------------------------------------------
# Questions


def _first_two_timeless(questions: Sequence[str], context: Context) -> str | None:
    at = next((at for at in (0, 1) if parse_times(questions[at])), None)
    return None if at is None else f"Question {at + 1} names a time: questions 1 and 2 name none."


def _next_two_timed(questions: Sequence[str], context: Context) -> str | None:
    for at in (2, 3):
        times = parse_times(questions[at])
        if not times:
            return f"Question {at + 1} names no time: questions 3 and 4 do, written HH:MM:SS.mmm."
        if max(times) / 1e6 > context.duration + 1e-3:
            return f"Question {at + 1} names {max(times) / 1e6:g} s, but the video lasts {context.duration:g} s."
    return None


def _fifth_asks_for_time(questions: Sequence[str], context: Context) -> str | None:
    if parse_times(questions[4]):
        return "Question 5 names a time: its options will be the times."
    if not _ASKS_WHEN.search(questions[4]):
        return "Question 5 does not ask for a range of time: ask when, or in which range of time, something happens."
    return None


def _named(questions: Sequence[str]) -> list[tuple[str, str]]:
    """Questions with what they are called: by their number, if there are several."""
    return [(f"Question {number}" if len(questions) > 1 else "The question", question)
            for number, question in enumerate(questions, 1)]  # fmt: skip


def _needs_unsaid(questions: Sequence[str], context: Context) -> str | None:
    for name, question in _named(questions):
        found = _BOTH_NEEDED.search(question)
        if found:
            return f"{name} says {found[0]!r}: do not tell that picture and sound are both needed."
    return None


def _no_hints(questions: Sequence[str], context: Context) -> str | None:
    for name, question in _named(questions):
        grams = _runs(question)
        for caption in context.captions:
            if grams & _runs(caption):
                return f"{name} repeats a description word for word: ask without giving its details away."
    return None


def _runs(text: str) -> set[tuple[str, ...]]:
    """All runs of so many words that repeating one gives details away; times give none."""
    words = [word for word in _words(text) if not word.isdigit()]
    return {tuple(words[at : at + _REPEATED]) for at in range(len(words) - _REPEATED + 1)}


def _all_different(questions: Sequence[str], context: Context) -> str | None:
    for at, question in enumerate(questions):
        for before, other in enumerate(questions[:at]):
            if similarity(question, other) > 0.8:
                return f"Questions {before + 1} and {at + 1} ask the same: ask five different ones."
    return None


def _are_questions(questions: Sequence[str], context: Context) -> str | None:
    name = next((name for name, text in _named(questions) if not text.endswith("?")), None)
    return None if name is None else f"{name} does not end with a question mark."


def _nothing_cited(questions: Sequence[str], context: Context) -> str | None:
    for name, question in _named(questions):
        found = _CITED.search(question)
        if found:
            return f"{name} mentions {found[0]!r}: ask about the video itself."
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Options


def _different_options(options: Options, context: Context) -> str | None:
    plain = [_plain(option) for option in options.all]
    return "Two options are the same: write four different ones." if len(set(plain)) < len(plain) else None


def _concise(options: Options, context: Context) -> str | None:
    count = len(options.correct.split())
    return f"The right option has {count} words: {_MOST_WORDS} at most." if count > _MOST_WORDS else None


def _not_a_list(options: Options, context: Context) -> str | None:
    if context.kind == "time_range":
        return None
    parts = [part for part in re.split(r"[,;]|\band\b|\n|•", options.correct) if part.strip()]
    short = [part for part in parts if len(part.split()) <= 5]
    is_list = len(parts) > _MOST_LISTED and len(short) >= len(parts) - 1
    return "The right option is a list: say it as one conclusion." if is_list else None


def _no_citation(options: Options, context: Context) -> str | None:
    for option in options.all:
        found = _CITED.search(option)
        if found:
            return f"An option mentions {found[0]!r}: no option cites a narration or a description."
    return None


def _lengths(options: Options, context: Context) -> str | None:
    return None if lengths_balanced(options.correct, options.wrong) else (
        "The right option can be told by its length: write wrong options of the same length."
    )  # fmt: skip


def _segment_ranges(options: Options, context: Context) -> str | None:
    if context.kind != "time_range":
        return None
    known = {tuple(round(1000 * time) for time in _named_times(one)) for one in context.segments}
    for option in options.all:
        spans = parse_spans(option)
        if len(spans) != 1 or tuple(round(time / 1000) for time in spans[0]) not in known:
            return f"{option!r} is no stretch of the video: copy four of the stretches, and write nothing else."
    return None


def _timeless_options(options: Options, context: Context) -> str | None:
    if context.kind == "time_range":
        return None
    outside = [time for option in options.all for time in parse_times(option) if time / 1e6 > context.duration + 1e-3]
    return f"An option names {outside[0] / 1e6:g} s, which the video does not have." if outside else None


def lengths_balanced(correct: str, wrong: Sequence[str]) -> bool:
    """Whether length tells nothing: the right option is neither half as long again as the longest wrong one, nor
    shorter than two thirds of the shortest (our decision)."""
    lengths = [len(option) for option in wrong]
    return min(lengths) / 1.5 - 8 <= len(correct) <= max(lengths) * 1.5 + 8


# ---------------------------------------------------------------------------------------------------------------------
# Words

STOP_WORDS = frozenset(
    "a an the of in on at to is are was were and or with that this it its as by for from while when what which who "
    "how does do did be been has have had there".split()
)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def _plain(text: str) -> str:
    return " ".join(_words(text))


def similarity(one: str, other: str) -> float:
    """Share of words, without the commonest, that two texts have in common (Jaccard)."""
    left, right = (set(_words(text)) - STOP_WORDS for text in (one, other))
    return len(left & right) / len(left | right) if left | right else 1.0


def _named_times(segment: dict) -> tuple[float, float]:
    return segment["first_frame"], segment["last_frame"]


_TWO = ({"first_frame": 0.0, "last_frame": 3.96}, {"first_frame": 4.0, "last_frame": 8.96})
_FIVE = (
    "What is heard while the door opens?", "What is seen when the bell rings?",
    "From 00:00:00.000 to 00:00:03.960, what happens?", "At 00:00:04.000, what begins?", "When does the door close?",
)  # fmt: skip


def _with(at: int, question: str) -> tuple[str, ...]:
    return tuple(question if number == at else text for number, text in enumerate(_FIVE))


_SHORT = ("The crowd cheers louder.", "The crowd falls silent.", "The crowd starts to sing.")
RULES: tuple[Rule, ...] = (
    Rule("all that is seen", "visual_caption", "place, people and things, what they do, colours, movements, text"),
    Rule("all that is heard", "audio_caption",
         "source, type, pitch, timbre, rhythm, emotion, background and events of sound"),
    *(
        Rule("objective", name, "states what is there; no guesses", _objective, "A man, maybe a baker, opens a door.")
        for name in ("visual_caption", "audio_caption", "merge_audio")
    ),
    *(
        Rule("direct", name, "no introductory phrase", _direct, "Here is the text: a man opens a door.")
        for name in ("visual_caption", "audio_caption", "merge_audio", "fuse_segment", "fuse_video")
    ),
    *(
        Rule("described", name, "speech is described, not transcribed", _not_transcribed,
             'A man says "good evening and welcome to the late news".')
        for name in ("audio_caption", "merge_audio")
    ),
    Rule("merged", "merge_audio", "pieces of at most 30 s become one description, in their order"),
    Rule("timeless fusion", "fuse_segment", "times are added by the pipeline", _no_times,
         "At 00:00:01.000 a man opens a door."),
    Rule("woven", "fuse_segment", "not one caption behind the other", _woven, "A door opens. A bell rings.",
         Context(captions=("A door opens.", "A bell rings."))),
    Rule("equal weight", "fuse_segment", "something of picture and of sound is left", _both_there, "A door opens.",
         Context(captions=("A door opens.", "Bells ring loudly."))),
    Rule("times kept", "fuse_video", "times of the segments, and no others", _times_of_segments,
         "From 00:00:01.000 to 00:00:02.000, a door opens.", Context(segments=_TWO)),
    Rule("no vague statements", "fuse_video", "guesses are dropped with their times", _objective,
         "From 00:00:00.000 to 00:00:03.960, a door seems to open."),
    Rule("no contradictions", "fuse_video", "a stretch that contradicts the others is dropped with its times"),
    Rule("five", "questions", "five questions together, and nothing else", told_by="`parse_questions`"),
    Rule("both needed", "questions", "every answer needs sound and picture",
         told_by="checks `visual_only`, `audio_only`"),
    Rule("1-2 timeless", "questions", "questions 1 and 2 name no times", _first_two_timeless,
         _with(1, "What is seen at 00:00:02.000?")),
    Rule("3-4 timed", "questions", "questions 3 and 4 name times of the video", _next_two_timed,
         _with(2, "What happens after the bell?")),
    Rule("5 asks for time", "questions", "question 5 asks for a range of time and names none", _fifth_asks_for_time,
         _with(4, "Who closes the door?")),
    Rule("need unsaid", "questions", "does not say that both modalities are needed", _needs_unsaid,
         _with(0, "Considering both the audio and the picture, what happens?"), alone=True),
    Rule("no hints", "questions", "gives no details of the captions away", _no_hints,
         _with(0, "Why does a tall man in a red coat open the door?"),
         Context(captions=("We see a tall man in a red coat. A bell rings.",)), alone=True),
    Rule("different", "questions", "five different questions", _all_different, _with(1, _FIVE[0])),
    Rule("questions", "questions", "each is a question", _are_questions, _with(0, "Tell what is heard."),
         alone=True),
    Rule("nothing cited", "questions", "no mention of captions or narration", _nothing_cited,
         _with(0, "What does the narrator tell about the door?"), alone=True),
    Rule("one and three", "options", "the right option and three wrong ones, and nothing else",
         told_by="`parse_options`"),
    Rule("hard", "options", "wrong options can only be told by who sees and hears",
         told_by="checks `leakage`, `visual_only`, `audio_only`"),
    Rule("four different", "options", "four different options", _different_options,
         Options("The crowd cheers.", ("The crowd cheers", *_SHORT[1:]))),
    Rule("concise", "options", "the right option is concise", _concise,
         Options("very " * 45 + "loud", ("no " * 50,) * 3)),
    Rule("conclusion", "options", "the right option is a conclusion, not a list", _not_a_list,
         Options("A bell, a door, a red coat, and a cheer", _SHORT)),
    Rule("no narration", "options", "no option cites the narration", _no_citation,
         Options("The narrator says so.", _SHORT)),
    Rule("equal length", "options", "length does not tell the right option", _lengths,
         Options("The crowd cheers because the long awaited train arrives with its bells ringing.", _SHORT)),
    Rule("segment ranges", "options", "options of question 5 are ranges of segments", _segment_ranges,
         Options("00:00:00.000 - 00:00:03.960", ("00:00:04.000 - 00:00:08.960", "00:00:01.000 - 00:00:02.000", "end")),
         Context(segments=_TWO, kind="time_range")),
    Rule("inside the video", "options", "times of options lie in the video", _timeless_options,
         Options("At 00:10:00.000 it ends.", _SHORT), Context(duration=9.0)),
)  # fmt: skip


def rule_table() -> str:
    """The rules as a Markdown table, for the documentation."""
    lines = ["| rule | asked by | validator | fails it |", "|---|---|---|---|"]
    for rule in RULES:
        if rule.validator is None:
            lines.append(f"| {rule.says} | `{rule.template}.jinja` | {rule.told_by or 'none'} | |")
            continue
        if isinstance(rule.fails, Options):
            example = " / ".join(rule.fails.all)
        elif isinstance(rule.fails, tuple):
            example = next(text for text, usual in zip(rule.fails, _FIVE, strict=True) if text != usual)
        else:
            example = rule.fails
        example = example if len(example) <= 90 else f"{example[:87]}..."
        lines.append(f"| {rule.says} | `{rule.template}.jinja` | `{rule.validator.__name__.strip('_')}` | {example} |")
    return "\n".join(lines)
