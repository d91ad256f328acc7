"""Speech as text, in a field of its own: audio captions describe sound instead of writing down what is said."""

from __future__ import annotations

from .annotators import Clip
from .annotators.base import SAMPLE_RATE
from .caption import Transcriber
from .errors import AnnotatorError


_LONGEST = 30.0  # seconds at a time


def open_transcriber(model: str) -> Transcriber:
    """A speech recognition model of transformers.

    Args:
        model: folder or Hub id, such as "openai/whisper-small".

    Raises:
        AnnotatorError: it cannot be loaded.
    """
    from transformers import pipeline

    try:
        recogniser = pipeline("automatic-speech-recognition", model=model)
    except (OSError, ValueError) as error:
        raise AnnotatorError(f"The speech recogniser {model!r} cannot be loaded: {error}") from error

    def transcribe(clip: Clip) -> str | None:
        pieces = [{"raw": samples, "sampling_rate": SAMPLE_RATE} for samples in clip.sound(_LONGEST)]
        said = " ".join(recogniser(piece)["text"].strip() for piece in pieces).strip()
        return said or None

    return transcribe
