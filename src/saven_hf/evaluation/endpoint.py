"""Models behind an OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp, hosted services)."""

from __future__ import annotations

import base64
import io
import itertools
import math
import time
import wave
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..peers.auto import fitting
from ..savenvideo.media import open_media
from .adapters import Asked, Likelihood, ModelAdapter, ProtocolError, Watched
from .benchmarks import Pair
from .controls import Control, ControlError


SAMPLING_RATE = 16_000
_RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
_NEVER = -100.0  # log-probability of a letter that is not among those that the endpoint names


class EndpointError(RuntimeError):
    """An endpoint that cannot be reached, or does not answer as OpenAI's does."""


class EndpointAdapter(ModelAdapter):
    """Chat completions with pictures (JPEG) and sound (WAV), which most endpoints take.

    Args:
        url: base address, such as "http://localhost:8000/v1".
        model: as the endpoint calls it.
        api_key: sent as a bearer token if given; it is kept out of everything that is written.
        num_frames: pictures taken, in the middle of equal parts of time.
        side: longest side of a picture, in pixels; larger ones are made smaller.
        workers: questions under way at a time.
        max_new_tokens: longest answer, in tokens.
        retries: of a request that failed for a passing reason; the pause doubles from one second on.
        timeout: seconds that a request may take.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        num_frames: int = 16,
        side: int = 512,
        workers: int = 4,
        max_new_tokens: int = 48,
        retries: int = 4,
        timeout: float = 600.0,
    ):
        super().__init__()
        from huggingface_hub import InferenceClient

        self._client = InferenceClient(base_url=url, api_key=api_key or "none", timeout=timeout)
        self.model, self.num_frames, self.side = model, num_frames, side
        self.workers, self.max_new_tokens, self.retries = workers, max_new_tokens, retries
        self._sleep: Callable[[float], None] = time.sleep
        self.media_at_once = workers  # each may have one question alone
        self.settings = {
            "model": f"endpoint: {model}",
            "max_new_tokens": max_new_tokens,
            "frames": {"sampling": "uniform", "num_frames": num_frames, "side": side},
        }

    # -- media --------------------------------------------------------------------------------------------------------

    def check(self, control: Control) -> None:
        if control.retimes:
            raise ControlError(
                f"{control.name} changes times between decoder and model: an endpoint has no such place."
            )

    def watch(self, media: Path | Pair, control: Control) -> Watched:
        self.check(control)
        with self.timed("decode"):
            if isinstance(media, Pair):
                parts = self._parts(media.image, control, picture=True, sound=False)
                other = self._parts(media.sound, control, picture=False, sound=True)
                return Watched(parts.state + other.state, {
                    name: parts.fed[name] + other.fed[name] for name in parts.fed
                })  # fmt: skip
            return self._parts(media, control)

    def _parts(self, path: Path, control: Control, picture: bool = True, sound: bool = True) -> Watched:
        picture, sound = picture and not control.no_video, sound and not control.no_audio
        parts: list[dict[str, Any]] = []
        fed = {"frames": 0, "audio_seconds": 0.0, "video_seconds": 0.0}
        times: list[float] = []
        with open_media(path) as media:
            fed["video_seconds"] = media.duration / 1e6 if media.kind != "image" else 0.0
            if picture and media.has_video:
                at = media.sample_times("uniform", self.num_frames)
                frames, at = media.frames_at(at, fitting(media.height, media.width, self.side))
                parts += [_jpeg(frame.permute(1, 2, 0).numpy()) for frame in frames]
                times = [time / 1e6 for time in at]
                fed["frames"] = len(times)
            if sound and media.has_audio:
                waveform, _ = media.audio(sampling_rate=SAMPLING_RATE)
                parts.append(_wav(waveform.numpy()))
                fed["audio_seconds"] = round(len(waveform) / SAMPLING_RATE, 2)
        return Watched(parts, fed, times)

    # -- requests -----------------------------------------------------------------------------------------------------

    def answer(self, asked: Sequence[Asked], progress: tqdm | None = None) -> list[str]:
        def one(question: Asked) -> str:
            found = self._complete(question, max_tokens=self.max_new_tokens)
            if progress is not None:
                progress.update()
            return (found.choices[0].message.content or "").strip()

        return self._all(one, asked)

    def likelihoods(self, asked, candidates, progress=None) -> list[list[Likelihood]]:
        """From the 20 most probable first tokens, which is all that such endpoints tell: of letters alone. A letter
        that is not among them counts as hardly possible."""
        if any(len(text) != 1 for some in candidates for text in some):
            raise ProtocolError("An endpoint tells of first tokens alone, so only letters can be weighed.")

        def one(pair: tuple[Asked, Sequence[str]]) -> list[Likelihood]:
            found = self._complete(pair[0], max_tokens=1, logprobs=True, top_logprobs=20)
            content = getattr(found.choices[0].logprobs, "content", None)
            if not content:
                raise ProtocolError(f"The endpoint gave no logprobs for {self.model}: use the protocol 'generate'.")
            by_token: dict[str, float] = {}
            for token in content[0].top_logprobs:
                name = token.token.strip()
                by_token[name] = _added(by_token.get(name), token.logprob)  # "A" and " A"
            if progress is not None:
                progress.update()
            return [Likelihood(by_token.get(letter, _NEVER), 1) for letter in pair[1]]

        return self._all(one, list(zip(asked, candidates, strict=True)))

    def _all(self, one: Callable, asked: Sequence) -> list:
        with self.timed("generate"), ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(one, asked))

    def _complete(self, asked: Asked, **options):
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError

        content = [*asked.watched.state, {"type": "text", "text": asked.prompt}]
        messages = [{"role": "user", "content": content}]
        for attempt in itertools.count():
            try:
                return self._client.chat_completion(
                    messages, model=self.model, temperature=0.0, seed=0, stream=False, **options
                )
            except HfHubHTTPError as error:
                status = getattr(error.response, "status_code", None)
                if status not in _RETRIED or attempt == self.retries:
                    raise EndpointError(f"The endpoint answered with status {status}: {_reason(error)}") from error
            except (InferenceTimeoutError, OSError) as error:
                if attempt == self.retries:
                    raise EndpointError(f"The endpoint did not answer: {type(error).__name__}.") from error
            except Exception as error:
                # The client is built on httpx, or a successor of it, which has errors of its own for connections.
                if not type(error).__module__.startswith(("httpx", "httpcore")):
                    raise
                if attempt == self.retries:
                    raise EndpointError(f"The endpoint cannot be reached: {type(error).__name__}.") from error
            self._sleep(2.0**attempt)


def _reason(error) -> str:
    text = getattr(error.response, "text", "") or ""
    return " ".join(text.split())[:200] or "it gave no reason"


def _added(one: float | None, other: float) -> float:
    """Logarithm of the sum of two probabilities."""
    return other if one is None else max(one, other) + math.log1p(math.exp(-abs(one - other)))


def _jpeg(pixels: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}


def _wav(samples: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(buffer.getvalue()).decode(), "format": "wav"},
    }
