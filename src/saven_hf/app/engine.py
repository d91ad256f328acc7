"""Answers, piece by piece: what the model is given of a video, and what is kept of it between questions.

Made for ZeroGPU as well, where the function that needs the GPU runs in another process: it is a function of this
module, and all that goes in and comes out is plain data or tensors of the CPU.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from ..ask import Answer, Fed, PeerSession, TimedProcessor, VideoSession, load_any, seconds_of
from ..evaluation.controls import control_named
from ..savenvideo.media import open_media
from . import AppError


try:
    # HuggingFace's library for ZeroGPU, only there. (A folder of that name, as in this checkout, has no GPU either.)
    from spaces import GPU
except ImportError:
    GPU = None

# What can be taken from a video; "" is everything that it has.
PARTS = ("sound", "picture", "time")
GPU_SECONDS = 120


@dataclass
class Encoded:
    """What is kept of a video, so that the next question neither decodes nor encodes.

    Args:
        content: a `VideoMemory` on the CPU; for models that are not of this library, frames and sound as a `Material`.
        frame_times: of the frames that the model saw, in seconds.
        sound_windows: (start, end) of what it heard, in seconds.
    """

    content: Any
    frame_times: list[float] = field(default_factory=list)
    sound_windows: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Ask:
    """A question about a file, or about a part of it.

    Args:
        without: what the model is not given: one of `PARTS`, or "" for nothing.
        encoded: what an earlier question about the same part left.
    """

    video: str
    question: str
    without: str = ""
    encoded: Encoded | None = None
    max_new_tokens: int = 256


@dataclass(frozen=True)
class Said:
    """The end of an answer: all of it, what the model was given for it, and what to keep (None: nothing)."""

    answer: Answer
    fed: Fed
    encoded: Encoded | None


class Engine:
    """A model that answers.

    Args:
        model: what `load_any` gave.

    Attributes:
        name: what the model is called on the page.
        notice: what visitors should know about it; may be empty.
        parts: those of `PARTS` that can be taken from it.
    """

    def __init__(self, model, name: str = "savenvideo-tiny"):
        self.model, self.name = model, name
        self.own = isinstance(model, tuple)
        self.notice = (model[0].config.notice or "") if self.own else ""
        # Models whose tokens depend on the question encode anew for each, by a path that takes whole files only.
        self.joint = self.own and model[0].model.resampler.joint
        self.parts = tuple(part for part in PARTS if part in self._removable())

    def _removable(self) -> set[str]:
        """What makes a difference when it is missing; of picture and sound, something has to be left."""
        if not self.own:
            return {"sound", "picture"} if self.model.sees and self.model.hears else set()
        config = self.model[0].config
        streams = {"sound", "picture"} if config.has_audio_tower else set()
        time = {"time"} if config.uses_time else set()
        return streams - {"picture"} if self.joint else streams | time

    def answer(self, ask: Ask) -> Iterator[str | Said]:
        """Pieces of text as they come, then `Said`. When the iterator is closed, the model stops.

        Raises:
            MediaError, QuestionError, PeerError, AppError: something the visitor can mend.
        """
        pieces: queue.Queue = queue.Queue()
        stopped = threading.Event()

        def work():
            try:
                pieces.put(self._said(ask, pieces.put, stopped))
            except BaseException as error:  # raised again where the pieces are taken
                pieces.put(error)

        thread = threading.Thread(target=work, name="saven-answer", daemon=True)
        thread.start()
        try:
            while True:
                piece = pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if isinstance(piece, Said):
                    return
        finally:
            stopped.set()
            thread.join()

    def _said(self, ask: Ask, on_text: Callable[[str], None], stopped: threading.Event) -> Said:
        if ask.without and ask.without not in self.parts:
            raise AppError(f"{self.name} cannot be asked without the {ask.without}: switch it on again.")
        if self.joint:
            session, encoded = self._whole(ask), None
        elif self.own:
            session, encoded = self._remembered(ask)
        else:
            session, encoded = self._read(ask)
        answer = session.ask(
            ask.question,
            on_text,
            ask.max_new_tokens,
            stopping_criteria=StoppingCriteriaList([_Stopped(stopped)]),
        )
        return Said(answer, session.fed, encoded)

    def _whole(self, ask: Ask) -> VideoSession:
        heard = {"use_audio_in_video": False} if ask.without == "sound" else {}
        return VideoSession(ask.video, *self.model, **heard)

    def _remembered(self, ask: Ask) -> tuple[VideoSession, Encoded]:
        model, processor = self.model
        spent = {"decode": 0.0, "encode": 0.0}
        encoded = ask.encoded
        if encoded is None:
            start = time.perf_counter()
            control = control_named("no-time" if ask.without == "time" else "plain")
            timed = TimedProcessor(control.processor(processor))
            heard = {"use_audio_in_video": False} if ask.without == "sound" else {}
            video = _sound_of(ask.video) if ask.without == "picture" else ask.video
            opened = time.perf_counter() - start
            memory = model.encode_video(video, timed, **heard).to("cpu")
            spent["decode"] = timed.seconds + opened
            spent["encode"] = time.perf_counter() - start - spent["decode"]
            end = memory.duration / 1e6 or float("inf")
            windows = [(first / 1e6, min(last / 1e6, end)) for first, last in timed.sound_windows]
            encoded = Encoded(memory, seconds_of(timed.frame_times), windows)
        session = VideoSession(encoded.content, model, processor)
        session.fed.frame_times = encoded.frame_times
        session.fed.seconds.update(spent)
        return session, encoded

    def _read(self, ask: Ask) -> tuple[PeerSession, Encoded]:
        material = ask.encoded.content if ask.encoded else None
        start = time.perf_counter()
        if material is None:
            material = self.model.read(ask.video, picture=ask.without != "picture", sound=ask.without != "sound")
        decoded = time.perf_counter() - start
        session = PeerSession(material, self.model)
        session.fed.seconds["decode"] = decoded
        # From the medium's start on, with silence before a track that begins later, to where its samples end.
        heard = []
        if material.waveform is not None:
            heard = [(0.0, len(material.waveform) / self.model.listener.sampling_rate)]
        return session, Encoded(material, material.frame_times, heard)


def _sound_of(video: str) -> dict[str, Any]:
    """The sound of a file on the file's own clock, as the processor takes it."""
    with open_media(video) as media:
        waveform, start = media.audio()
        return {
            "audio": waveform.numpy(),
            "sampling_rate": 16_000,
            "audio_start": start / 1e6,
            "duration": media.duration / 1e6,
        }


class _Stopped(StoppingCriteria):
    """Ends an answer that nobody waits for any more."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), self.event.is_set(), dtype=torch.bool, device=input_ids.device)


# ---------------------------------------------------------------------------------------------------------------------
# The engine of this process

_engine: Engine | None = None


def start(model: str | None = None, device: str | None = None) -> Engine:
    """Load a model, once for all visitors. It answers through `answer` from then on.

    Raises:
        ModelNotFoundError, DeviceError, PeerError: as `load_any`.
    """
    global _engine
    _engine = Engine(load_any(model, device), model or "savenvideo-tiny")
    return _engine


def _answer(ask: Ask) -> Iterator[str | Said]:
    yield from _engine.answer(ask)


# ZeroGPU looks for decorated functions when the program starts, and takes the model along as the module holds it.
answer = _answer if GPU is None else GPU(duration=GPU_SECONDS)(_answer)
