"""Models behind an OpenAI-compatible server, such as vLLM or TGI, through huggingface_hub's asynchronous client."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import random
import threading
import time
import wave
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import AnnotatorError, ReplyError, ServiceError
from .prompted import PromptedAnnotator, Request


_LONGEST_PAUSE = 60.0  # seconds between two tries
_DOWN_AFTER = 20  # requests in a row that failed for good: it is the server, not the request
_FATAL = {401: "refuses the key", 403: "refuses us", 404: "does not know the model or the path"}


class EndpointAnnotator(PromptedAnnotator):
    """Asks servers.

    Args:
        base_url: of the server, up to and with "/v1".
        visual_model, audio_model, text_model: names that the server knows; by default the text model for all.
        visual_url, audio_url: other servers for these.
        concurrency: requests under way at a time, over all videos.
        timeout: seconds until a request is given up and tried again.
        retries: how often a request is tried again after a time-out, a lost connection, 429, 5xx or a malformed reply,
            with pauses that double from half a second on, or as long as the server says (Retry-After).
        key: name of the environment variable that holds the key for the servers; it is stored nowhere.
        price_in, price_out: money for a million tokens, to count what was spent.
        temperature, seed: passed on; 0 and 0 by default, so that asking again gives the same.
        extra: more of the request's body, such as {"mm_processor_kwargs": {...}}.
        options: of `PromptedAnnotator`.
    """

    name = "endpoint"

    def __init__(
        self,
        base_url: str | None = None,
        text_model: str | None = None,
        visual_model: str | None = None,
        audio_model: str | None = None,
        visual_url: str | None = None,
        audio_url: str | None = None,
        concurrency: int = 32,
        timeout: float = 120.0,
        retries: int = 6,
        key: str = "SAVEN_API_KEY",
        price_in: float = 0.0,
        price_out: float = 0.0,
        temperature: float = 0.0,
        seed: int = 0,
        extra: dict | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        if not base_url or not text_model:
            raise AnnotatorError("The annotator 'endpoint' needs base_url (http://host:port/v1) and text_model.")
        if concurrency < 1 or timeout <= 0 or retries < 0:
            raise AnnotatorError("concurrency must be at least 1, timeout above 0, retries at least 0.")
        self._urls = {"text": base_url, "visual": visual_url or base_url, "audio": audio_url or base_url}
        for url in self._urls.values():
            if not url.startswith(("http://", "https://")):
                raise AnnotatorError(f"{url!r} is no address of a server: it must begin with http:// or https://.")
        self._models = {"text": text_model, "visual": visual_model or text_model, "audio": audio_model or text_model}
        self.concurrency, self.timeout, self.retries = int(concurrency), float(timeout), int(retries)
        self.temperature, self.seed, self.extra = float(temperature), int(seed), dict(extra or {})
        self._key, self._prices = key, (float(price_in), float(price_out))
        # Enough videos that their requests fill all places while some of them are decoded.
        self.videos_at_once = max(2, min(self.concurrency, 16))
        self._counts: Counter[str] = Counter()
        self._failed_in_a_row = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(self._models[kind] for kind in ("visual", "audio", "text")))

    @property
    def settings(self) -> dict[str, Any]:
        chosen = {"temperature": self.temperature, "seed": self.seed, "extra": self.extra, "by": self._models}
        return super().settings | chosen

    def usage(self) -> dict[str, float]:
        used = {name: float(count) for name, count in sorted(self._counts.items())}
        tokens = self._counts["prompt_tokens"], self._counts["completion_tokens"]
        used["cost"] = sum(count * price / 1e6 for count, price in zip(tokens, self._prices, strict=True))
        return used

    def pack_frames(self, frames: np.ndarray) -> list[bytes]:
        from PIL import Image

        packed = []
        for frame in frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=90)
            packed.append(buffer.getvalue())
        return packed

    def complete(self, requests: Sequence[Request]) -> list[str | ReplyError]:
        if not requests:
            return []
        loop = self._running_loop()

        async def all_of_them():
            return await asyncio.gather(*(self._reply(request) for request in requests))

        return asyncio.run_coroutine_threadsafe(all_of_them(), loop).result()

    def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return

        async def close_clients():
            for client in self._clients.values():
                await client.close()

        asyncio.run_coroutine_threadsafe(close_clients(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    # ------------------------------------------------------------------------------------------------------- requests

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """One event loop for all videos, in a thread of its own: started where it is used, not where it is pickled."""
        with self._starting:
            if self._loop is None:
                from huggingface_hub import AsyncInferenceClient

                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, daemon=True)
                self._thread.start()
                key = os.environ.get(self._key)
                self._clients = {
                    url: AsyncInferenceClient(base_url=url, api_key=key, timeout=self.timeout)
                    for url in set(self._urls.values())
                }
                self._places = asyncio.Semaphore(self.concurrency)
                self._loop = loop
            return self._loop

    async def _reply(self, request: Request) -> str | ReplyError:
        """The reply to a request, however often it has to be tried.

        Raises:
            ServiceError: the server cannot be reached, refuses us, or fails whatever it is asked.
            AnnotatorError: it fails on this request.
        """
        problem = ""
        for attempt in range(self.retries + 1):
            async with self._places:
                started = time.perf_counter()
                problem, reply, wait, is_down = await self._try(request)
                self._counts["seconds"] += time.perf_counter() - started
            if reply is not None:
                self._failed_in_a_row = 0
                return reply
            if attempt < self.retries:
                self._counts["retries"] += 1
                pause = 0.5 * 2**attempt * (0.5 + random.random() / 2)  # spread, so that tries do not come all at once
                await asyncio.sleep(min(wait if wait is not None else pause, _LONGEST_PAUSE))
        self._failed_in_a_row += 1
        text = f"{self._urls[request.kind]} failed {self.retries + 1} times: {problem}."
        if is_down or self._failed_in_a_row >= _DOWN_AFTER:
            raise ServiceError(f"{text} See to the server and start the build again: what is done is kept.")
        raise AnnotatorError(text)

    async def _try(self, request: Request) -> tuple[str, str | ReplyError | None, float | None, bool]:
        """One try: (what went wrong, the reply if there is one, pause the server asks for, whether it is down)."""
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError

        transport = HfHubHTTPError.__bases__[0]  # of httpx or its successor, by the version of huggingface_hub
        messages = _messages(request)
        self._counts["calls"] += 1
        client = self._clients[self._urls[request.kind]]
        try:
            # The client's own limit is one of silence; this is one of the whole request.
            async with asyncio.timeout(self.timeout) if hasattr(asyncio, "timeout") else _no_limit():
                output = await client.chat_completion(
                    messages,
                    model=self._models[request.kind],
                    max_tokens=request.most_tokens,
                    temperature=self.temperature,
                    seed=self.seed,
                    extra_body=self.extra or None,
                )
            choice = output.choices[0]
            text, finish = choice.message.content, choice.finish_reason
            usage = output.usage
        except (InferenceTimeoutError, TimeoutError):
            self._counts["timeouts"] += 1
            return f"no reply within {self.timeout:g} s", None, None, False
        except HfHubHTTPError as error:
            return self._refused(error)
        except (transport, ConnectionError) as error:
            return f"no connection ({type(error).__name__})", None, None, True
        except (ValueError, TypeError, LookupError, AttributeError) as error:  # JSON that is none, or of another form
            self._counts["malformed"] += 1
            return f"a malformed reply ({type(error).__name__})", None, None, False
        if usage is not None:
            self._counts["prompt_tokens"] += usage.prompt_tokens or 0
            self._counts["completion_tokens"] += usage.completion_tokens or 0
        if not text or not text.strip():
            self._counts["empty"] += 1
            return "", ReplyError(["The answer is empty."]), None, False
        if finish == "length":
            self._counts["truncated"] += 1
            return "", ReplyError([f"The answer was cut off after {request.most_tokens} tokens."]), None, False
        return "", text, None, False

    def _refused(self, error) -> tuple[str, None, float | None, bool]:
        status = error.response.status_code
        self._counts[f"http_{status}"] += 1
        if status in _FATAL:
            raise ServiceError(f"{error.response.url} answers {status}: it {_FATAL[status]}.") from error
        if status != 429 and status < 500:
            said = " ".join(error.response.text.split())[:200]
            raise AnnotatorError(f"{error.response.url} answers {status} to a request: {said}") from error
        try:
            wait = float(error.response.headers.get("Retry-After", ""))
        except ValueError:
            wait = None
        return f"HTTP {status}", None, wait, status == 429


class _no_limit:
    """Python 3.10 has no asyncio.timeout; the client's own limit is all there is."""

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exception):
        return False


def _messages(request: Request) -> list[dict]:
    content: list[dict] = []
    for frame in request.frames or ():
        url = f"data:image/jpeg;base64,{base64.b64encode(frame).decode()}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    if request.sound is not None:
        data = base64.b64encode(_wav(request.sound)).decode()
        content.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    content.append({"type": "text", "text": request.prompt.user})
    is_text = len(content) == 1
    return [
        {"role": "system", "content": request.prompt.system},
        {"role": "user", "content": request.prompt.user if is_text else content},
    ]


def _wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
