"""Annotators that are prompted: what is asked, in which order, and what is done with replies that break the rules.

Where the models run is left to subclasses, which only have to `complete` requests.
"""

from __future__ import annotations

import logging
import os
import random
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ...data.prompts import LETTERS
from ...data.schema import OPTIONS
from ...savenvideo.times import format_time, parse_spans
from ..errors import AnnotatorError, ReplyError
from ..parsing import Options, parse_letter, parse_options, parse_questions, parse_text
from ..rules import Context, check_rules
from ..spans import segment_times, span_option
from ..templates import Prompt, Prompts
from .base import Annotator, Clip


T = TypeVar("T")
logger = logging.getLogger(__name__)

AUDIO_SECONDS = 30.0  # longest sound of one request: Qwen2-Audio's limit (paper, A.1)
_KINDS = ("global", "global", "timestamped", "timestamped", "time_range")
_CATEGORIES = {"global": "understanding", "timestamped": "temporal understanding", "time_range": "temporal grounding"}


class Request(NamedTuple):
    """One call of a model.

    Attributes:
        kind: which model: "visual", "audio" or "text".
        prompt: its text.
        frames: for "visual", as `pack_frames` gave them.
        sound: for "audio", (samples,) float32 at 16 kHz, at most 30 s.
        most_tokens: of the reply.
    """

    kind: str
    prompt: Prompt
    frames: Any = None
    sound: np.ndarray | None = None
    most_tokens: int = 1024


class PromptedAnnotator(Annotator):
    """Asks models by prompts.

    Args:
        prompts: folder of prompts in place of the package's; see `Prompts`.
        frames: shown of each clip.
        longest_side: of a frame, pixels.
        attempts: how often a model is asked for a text that keeps the rules: once, and then to mend it.
        max_tokens: of a caption; questions, options and letters have limits of their own.
    """

    def __init__(
        self,
        prompts: str | os.PathLike | None = None,
        frames: int = 16,
        longest_side: int = 448,
        attempts: int = 3,
        max_tokens: int = 1024,
    ):
        self.prompts = Prompts(prompts)
        self.frames, self.longest_side = int(frames), int(longest_side)
        self.attempts, self.max_tokens = int(attempts), int(max_tokens)
        if min(self.frames, self.longest_side, self.attempts, self.max_tokens) < 1:
            raise AnnotatorError("frames, longest_side, attempts and max_tokens must be at least 1.")

    @property
    def prompt_hashes(self) -> list[str]:
        return self.prompts.hashes_of()

    @property
    def settings(self) -> dict[str, Any]:
        names = ("frames", "longest_side", "attempts", "max_tokens")
        return super().settings | {name: getattr(self, name) for name in names}

    @abstractmethod
    def complete(self, requests: Sequence[Request]) -> list[str | ReplyError]:
        """The reply to each request; a `ReplyError` in place of one that is empty or was cut off."""

    def pack_frames(self, frames: np.ndarray) -> Any:
        """(frames, height, width, 3) uint8 in the form in which requests hold them until they are sent."""
        return frames

    # ---------------------------------------------------------------------------------------------------------- stages

    def caption(self, row: dict, clips: Sequence[Clip]) -> list[dict]:
        visual, audio, owners = [], [], []
        for at, clip in enumerate(clips):
            frames = clip.frames(self.frames, self.longest_side)
            prompt = self.prompts.render("visual_caption", {"frames": len(frames), "seconds": clip.end - clip.start})
            visual.append(Request("visual", prompt, self.pack_frames(frames), None, self.max_tokens))
            if not clip.media.has_audio:
                continue
            for sound in clip.sound(AUDIO_SECONDS):
                prompt = self.prompts.render("audio_caption", {"seconds": len(sound) / 16_000})
                audio.append(Request("audio", prompt, None, sound, self.max_tokens))
                owners.append(at)
        texts = self._texts(row, [*visual, *audio], ["visual_caption"] * len(visual) + ["audio_caption"] * len(audio))
        pieces: list[list[str]] = [[] for _ in clips]
        for at, text in zip(owners, texts[len(visual) :], strict=True):
            pieces[at].append(text)
        several = [at for at, own in enumerate(pieces) if len(own) > 1]
        merged = self._texts(
            row,
            [self._text_request("merge_audio", {"captions": pieces[at]}) for at in several],
            ["merge_audio"] * len(several),
        )
        for at, text in zip(several, merged, strict=True):
            pieces[at] = [text]
        # A clip behind the end of the sound track hears nothing.
        heard = [own[0] if own else "Nothing is heard." if clip.media.has_audio else None
                 for clip, own in zip(clips, pieces, strict=True)]  # fmt: skip
        return [{"visual_caption": seen, "audio_caption": sound}
                for seen, sound in zip(texts[: len(visual)], heard, strict=True)]  # fmt: skip

    def fuse_segments(self, row: dict) -> list[str]:
        segments = row["segments"]
        if not row["has_audio"]:
            return [segment["visual_caption"] for segment in segments]
        requests, contexts = [], []
        for segment in segments:
            start, end = map(format_time, segment_times(segment))
            captions = {name: segment[name] for name in ("visual_caption", "audio_caption")}
            requests.append(self._text_request("fuse_segment", {"start": start, "end": end, **captions}))
            contexts.append(Context(captions=tuple(captions.values())))
        return self._texts(row, requests, ["fuse_segment"] * len(requests), contexts)

    def fuse_video(self, row: dict) -> dict[str, str | None]:
        columns = {"visual": "visual_caption", "av": "av_text"} | (
            {"audio": "audio_caption"} if row["has_audio"] else {}
        )
        requests = []
        for modality, column in columns.items():
            segments = [
                dict(zip(("start", "end"), map(format_time, segment_times(one)), strict=True), caption=one[column])
                for one in row["segments"]
            ]
            values = {"modality": modality, "segments": segments}
            requests.append(self._text_request("fuse_video", values, 2 * self.max_tokens))
        context = Context(segments=row["segments"], duration=row["duration"])
        texts = self._texts(row, requests, ["fuse_video"] * len(requests), [context] * len(requests))
        found = dict(zip(columns, texts, strict=True))
        return {f"{modality}_caption": found.get(modality) for modality in ("visual", "audio", "av")}

    def ask(self, row: dict) -> list[dict]:
        known = {name: row[name] for name in ("visual_caption", "audio_caption", "av_caption")}
        known["segments"] = [dict(zip(("start", "end"), map(format_time, segment_times(one)), strict=True))
                             for one in row["segments"]]  # fmt: skip
        texts = tuple(one["av_text"] for one in row["segments"])
        context = Context(row["segments"], texts, row["duration"])
        (questions,) = self._checked(
            row,
            [self._text_request("questions", known)],
            [partial(_parse_by_rules, "questions", parse_questions, context)],
        )
        kinds = _KINDS
        if len(row["segments"]) < OPTIONS:
            kinds = _KINDS[:-1]
            logger.warning(
                "%s: no question asks for a range of time: its options are %d segments, and there are %d.",
                row["video_id"], OPTIONS, len(row["segments"]),
            )  # fmt: skip
        requests, parsers = [], []
        for kind, question in zip(kinds, questions, strict=False):
            requests.append(self._text_request("options", {**known, "question": question, "kind": kind}))
            parsers.append(
                partial(
                    _parse_by_rules, "options", parse_options, Context(row["segments"], texts, row["duration"], kind)
                )
            )
        options = self._checked(row, requests, parsers)
        return [
            _as_question(row, number, kind, question, found)
            for number, (kind, question, found) in enumerate(zip(kinds, questions, options, strict=False))
        ]

    def choose(self, asked: Sequence[dict]) -> list[str | None] | None:
        requests = [self._text_request("answer", one, 16) for one in asked]
        replies = self.complete(requests)
        return [None if isinstance(reply, ReplyError) else parse_letter(reply) for reply in replies]

    # --------------------------------------------------------------------------------------------------------- helpers

    def _text_request(self, template: str, values: dict, most_tokens: int | None = None) -> Request:
        return Request("text", self.prompts.render(template, values), None, None, most_tokens or self.max_tokens)

    def _texts(
        self, row: dict, requests: list[Request], templates: Sequence[str], contexts: Sequence[Context] | None = None
    ) -> list[str]:
        contexts = contexts or [Context()] * len(requests)
        parsers = [partial(_parse_by_rules, template, parse_text, context)
                   for template, context in zip(templates, contexts, strict=True)]  # fmt: skip
        return self._checked(row, requests, parsers)

    def _checked(self, row: dict, requests: list[Request], parsers: Sequence[Callable[[str], T]]) -> list[T]:
        """Replies, parsed; those that break the rules are asked for again with what is wrong with them.

        Raises:
            AnnotatorError: a reply still breaks them after all attempts.
        """
        found: list[T | None] = [None] * len(requests)
        waiting = {at: request for at, request in enumerate(requests)}
        for attempt in range(self.attempts):
            replies = self.complete(list(waiting.values()))
            again = {}
            for (at, request), reply in zip(waiting.items(), replies, strict=True):
                try:
                    if isinstance(reply, ReplyError):
                        raise reply
                    found[at] = parsers[at](reply)
                except ReplyError as error:
                    if attempt + 1 == self.attempts:
                        raise AnnotatorError(
                            f"{row['video_id']}: the {request.kind} model broke the rules {self.attempts} times, "
                            f"last: {error}"
                        ) from error
                    again[at] = self._repair(requests[at], reply, error)
            waiting = again
            if not waiting:
                break
        return found  # type: ignore[return-value]

    def _repair(self, request: Request, reply: str | ReplyError, error: ReplyError) -> Request:
        if isinstance(reply, ReplyError):  # nothing to mend: ask anew, with more room where it was cut off
            return request._replace(most_tokens=2 * request.most_tokens)
        values = {"system": request.prompt.system, "request": request.prompt.user, "reply": reply,
                  "problems": error.problems}  # fmt: skip
        return request._replace(prompt=self.prompts.render("repair", values))


def _parse_by_rules(template: str, parse: Callable[[str], T], context: Context, reply: str) -> T:
    value = parse(reply)
    check_rules(template, value, context)
    return value


def _as_question(row: dict, number: int, kind: str, question: str, options: Options) -> dict:
    order = random.Random(f"{row['video_id']} options {number}").sample(range(4), 4)
    evidence = [[0.0, row["duration"]]]
    if kind == "time_range":
        times = parse_spans(options.correct)[0]
        match = next((one for one in row["segments"] if parse_spans(span_option(one))[0] == times), None)
        if match is None:
            raise AnnotatorError(f"{row['video_id']}: {options.correct!r} is no segment of the video.")
        evidence = [[match["start"], match["end"]]]
    elif kind == "timestamped":
        evidence = [_evidence(row, start / 1e6, end / 1e6) for start, end in parse_spans(question)
                    if start / 1e6 < row["duration"]]  # fmt: skip
    return {
        "question": question,
        "options": [options.all[at] for at in order],
        "answer": LETTERS[order.index(0)],
        "question_type": kind,
        "category": _CATEGORIES[kind],
        "evidence": evidence or [[0.0, row["duration"]]],
    }


def _evidence(row: dict, start: float, end: float) -> list[float]:
    """What a question's times point at; a single time at all of its segment, because an instant answers nothing."""
    if start == end:
        around = next((one for one in row["segments"] if one["start"] <= start < one["end"]), row["segments"][-1])
        start, end = around["start"], around["end"]
    return [start, min(end, row["duration"])]
