"""What a stage asks of an annotator, and the clip it is asked about."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...savenvideo.media import Media
from ..errors import AnnotatorError


SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Clip:
    """A segment of an opened video: nothing is decoded before it is asked for.

    Attributes:
        segment: its entry in the row.
    """

    media: Media
    segment: dict

    @property
    def start(self) -> float:
        return self.segment["start"]

    @property
    def end(self) -> float:
        return self.segment["end"]

    def frames(self, count: int, longest_side: int) -> np.ndarray:
        """(frames, height, width, 3) uint8 at the middles of `count` equal bins, scaled to a longest side."""
        part = (round(self.start * 1e6), round(self.end * 1e6))
        times = self.media.sample_times("uniform", num_frames=count, part=part)
        scale = min(1.0, longest_side / max(self.media.height, self.media.width))
        size = tuple(max(28, round(side * scale)) for side in (self.media.height, self.media.width))
        return self.media.frames_at(times, size)[0].permute(0, 2, 3, 1).numpy()

    def sound(self, longest: float) -> Iterator[np.ndarray]:
        """The clip's sound in equal pieces of at most `longest` seconds: (samples,) float32 at 16 kHz."""
        count = max(1, -(-round((self.end - self.start) * 1e6) // round(longest * 1e6)))
        edges = np.linspace(self.start, self.end, count + 1)
        for start, end in zip(edges, edges[1:], strict=False):
            samples = self.media.audio(round(start * 1e6), round(end * 1e6), SAMPLE_RATE)[0].numpy()
            if len(samples):
                yield samples


class Annotator(ABC):
    """Writes what the stages ask for; each method takes a video's work at once, so that it can be done side by side.

    Attributes:
        name: as it is chosen by.
        videos_at_once: how many videos are worth working on side by side: more than one where most time is waiting.
    """

    name: str
    videos_at_once: int = 1

    @property
    @abstractmethod
    def models(self) -> list[str]:
        """Names that go into provenance."""

    @property
    def prompt_hashes(self) -> list[str]:
        """Hashes of the prompts used; none where nothing is prompted."""
        return []

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes what it writes; another value means other rows, so work done is not used again."""
        return {"annotator": self.name, "models": self.models, "prompts": self.prompt_hashes}

    @abstractmethod
    def caption(self, row: dict, clips: Sequence[Clip]) -> list[dict]:
        """For each clip: {"visual_caption", "audio_caption" (None without sound), and more of its own}."""

    @abstractmethod
    def fuse_segments(self, row: dict) -> list[str]:
        """For each segment one text of both captions, without times."""

    @abstractmethod
    def fuse_video(self, row: dict) -> dict[str, str | None]:
        """{"visual_caption", "audio_caption", "av_caption"} of the whole video, with times of its segments."""

    @abstractmethod
    def ask(self, row: dict) -> list[dict]:
        """Questions: {"question", "options" [4], "answer", "question_type", "category", "evidence"}."""

    def choose(self, asked: Sequence[dict]) -> list[str | None] | None:
        """The letter chosen for each {"question", "options", "caption" (None: nothing is known of the video)}.

        Returns:
            None where this annotator cannot answer questions from text; None for a reply that chose no letter.
        """
        return None

    def usage(self) -> dict[str, float]:
        """Calls, tokens, seconds and money spent so far; empty where nothing is spent."""
        return {}

    def close(self) -> None:
        """Give back connections, where there are some."""
        return None


def model_files(model: str | os.PathLike) -> str | None:
    """Stands for the files of a model's folder, so that work done with others is not used again; None for a Hub id.

    Names, sizes and times are compared, as for videos: hashing the weights of a 72B model takes longer than many a
    build. What a Hub id names may change too; give the folder of a snapshot where that matters.
    """
    if not os.path.isdir(model):
        return None
    found = []
    for folder, _, names in os.walk(model):
        for path in (os.path.join(folder, name) for name in names):
            status = os.stat(path)
            found.append((os.path.relpath(path, model), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()[:16]


# Name -> what is said of it by `saven build --help`.
ANNOTATORS = {
    "signal": "measures picture and sound; no weights",
    "transformers": "local models through transformers",
    "endpoint": "an OpenAI-compatible server",
    "oracle": "the truth of videos made by `saven world`",
}


def open_annotator(name: str, **options: Any) -> Annotator:
    """An annotator by name.

    Args:
        name: "signal", "transformers", "endpoint" or "oracle".
        options: of its class; those that are None are left to their defaults.

    Raises:
        AnnotatorError: no such annotator or option, or it cannot be opened.
    """
    if name not in ANNOTATORS:
        raise AnnotatorError(f"There is no annotator {name!r}: choose one of {', '.join(ANNOTATORS)}.")
    options = {key: value for key, value in options.items() if value is not None}
    if name == "signal":
        from .signal import SignalAnnotator as kind
    elif name == "oracle":
        from .oracle import OracleAnnotator as kind
    elif name == "endpoint":
        from .endpoint import EndpointAnnotator as kind
    else:
        from .local import TransformersAnnotator as kind
    try:
        return kind(**options)
    except TypeError as error:
        raise AnnotatorError(f"The annotator {name!r} does not take these options: {error}.") from error
