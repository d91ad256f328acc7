"""A real HTTP server on loopback that speaks the OpenAI chat protocol, well or badly."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of connections not yet taken: the default of 5 refuses some of 32 that come at once


class OpenAIServer:
    """Answers `reply(body)` to everything; `faults` come first, one for each request, in order.

    A fault is "late", "malformed", "other json", "empty", "truncated", "hang up" or a status such as 429.

    Attributes:
        requests: bodies received.
        most_at_once: requests that were under way together.
    """

    def __init__(self, reply: Callable[[dict], str], delay: float = 0.0):
        self.reply, self.delay = reply, delay
        self.faults: list = []
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.requests.append(body)
                    server.headers.append({name.lower(): value for name, value in self.headers.items()})
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                    fault = server.faults.pop(0) if server.faults else None
                try:
                    server._answer(self, body, fault)
                finally:
                    with server.lock:
                        server.at_once -= 1

        self._http = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def _answer(self, handler, body: dict, fault) -> None:
        time.sleep(self.delay)
        text, finish, status = self.reply(body), "stop", 200
        if fault == "late":
            time.sleep(1.5)
        elif fault == "hang up":
            handler.close_connection = True
            handler.connection.close()
            return
        elif fault == "empty":
            text = ""
        elif fault == "truncated":
            text, finish = text[: len(text) // 2], "length"
        elif isinstance(fault, int):
            status = fault
        content = {
            "id": "0",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "system_fingerprint": "",
            "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }
        data = json.dumps(content if status == 200 else {"error": "no"}).encode()
        if fault == "malformed":
            data = data[: len(data) // 2]
        elif fault == "other json":
            data = b'{"choices": []}'
        try:
            handler.send_response(status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(data)))
            if status == 429:
                handler.send_header("Retry-After", "0.2")
            handler.end_headers()
            handler.wfile.write(data)
        except OSError:  # the client gave up on a late answer
            pass

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def serving(reply: Callable[[dict], str], delay: float = 0.0):
    server = OpenAIServer(reply, delay)
    try:
        yield server
    finally:
        server.close()


_SPAN = re.compile(r"\d\d:\d\d:\d\d\.\d{3}")


def good_reply(body: dict) -> str:
    """What a model that keeps all rules answers, told from the prompt which stage asks."""
    content = body["messages"][-1]["content"]
    kinds = {part["type"] for part in content} if isinstance(content, list) else {"text"}
    text = content if isinstance(content, str) else content[-1]["text"]
    if "image_url" in kinds:
        return "A red shape crosses a grey field."
    if "input_audio" in kinds:
        return "A low tone sounds evenly."
    if "pieces that follow each other" in text:
        return "A low tone sounds, then a higher one."
    if "one description of this stretch" in text:
        return "While a red shape crosses the field, an even low tone sounds."
    if "Tell all of the video" in text:
        start, end = re.search(r"From (\S+) to (\S+?):", text).groups()
        return f"From {start} to {end}, a red shape moves while a tone sounds."
    if "Write five different" in text:
        first, last = _SPAN.findall(text.split("stretches of the video")[1])[:2]
        return (
            "Here they are:\n\n"
            "**Question 1:** How does the pitch change when the shape leaves?\n"
            "Question 2: Which figure is on screen during the loudest tone?\n"
            f"Question 3: From {first} to {last}, what accompanies the movement?\n"
            f"Question 4: At {first}, which colour goes with the first note?\n"
            "Question 5: In which range of time does the figure rest while it is silent?\n"
        )
    if "Write the right option" in text:
        if "Each option is one of these stretches" in text:
            spans = re.findall(r"^\s+(\S+ - \S+)$", text, re.MULTILINE)
        else:
            spans = ["It rises to the top.", "It falls to the floor.", "It stays in place.", "It turns around."]
        labels = ("Correct option", "Option 1", "Option 2", "Option 3")
        return "\n".join(f"{label}: {option}" for label, option in zip(labels, spans, strict=False))
    if "Answer with the letter" in text:
        return "B"
    raise AssertionError(f"an unknown prompt: {text[:200]}")
