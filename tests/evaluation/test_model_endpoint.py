"""An OpenAI-compatible endpoint on this machine, and what is sent to it."""

import base64
import io
import json
import threading
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from saven_hf.evaluation import PLAIN, EndpointAdapter, EndpointError, Item, ProtocolError, control_named
from saven_hf.evaluation.adapters import Asked


ITEM = Item("q", "clip", "choice", "Which?", "B", ("a", "b"))


class Server:
    """Answers as a chat completion; `script` holds what happens to the next requests, as status codes."""

    def __init__(self):
        self.requests, self.script, self.headers = [], [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.path, body))
                outer.headers.append(dict(self.headers))
                status = outer.script.pop(0) if outer.script else 200
                reply = outer.reply(body) if status == 200 else {"error": {"message": "busy, or worse"}}
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, body):
        """Names the last word of the question; first tokens as a model would weigh them."""
        text = body["messages"][0]["content"][-1]["text"]
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": f" {text.split()[-1]} "},
        }
        if body.get("logprobs"):
            top = [{"token": token, "logprob": value} for token, value in (("B", -1.5), (" B", -1.5), ("A", -1.0))]
            choice["logprobs"] = {"content": [{"token": "A", "logprob": -1.0, "top_logprobs": top}]}
        return {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}


@pytest.fixture
def server():
    found = Server()
    yield found
    found.server.shutdown()


def adapter(server, **options):
    made = EndpointAdapter(server.url, "some/model", **{"num_frames": 3, "side": 100, **options})
    made._sleep = lambda seconds: None
    return made


def asked(made, clip, control=PLAIN, prompts=("What is it?",)):
    watched = made.watch(clip, control)
    return [Asked(watched, prompt, ITEM) for prompt in prompts]


def test_frames_and_sound_are_sent_whole(server, clip):
    made = adapter(server, api_key="secret")
    questions = asked(made, clip, prompts=[f"Number {number}" for number in range(6)])
    assert made.answer(questions) == [str(number) for number in range(6)]
    path, body = server.requests[0]
    assert path == "/v1/chat/completions" and body["model"] == "some/model" and body["temperature"] == 0
    assert (
        server.headers[0]["authorization"] == "Bearer secret" or server.headers[0]["Authorization"] == "Bearer secret"
    )
    assert "secret" not in json.dumps(made.settings)
    content = body["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url"] * 3 + ["input_audio", "text"]
    picture = Image.open(io.BytesIO(base64.b64decode(content[0]["image_url"]["url"].partition("base64,")[2])))
    assert picture.format == "JPEG" and picture.size == (100, 75)
    with wave.open(io.BytesIO(base64.b64decode(content[3]["input_audio"]["data"]))) as sound:
        assert sound.getframerate() == 16_000
        assert sound.getnframes() / 16_000 == pytest.approx(12.0, abs=0.1)
    assert questions[0].watched.fed["frames"] == 3
    assert questions[0].watched.fed["audio_seconds"] == pytest.approx(12.0, abs=0.1)
    assert questions[0].watched.frame_times == pytest.approx([2, 6, 10], abs=0.1)
    assert made.seconds["decode"] > 0 and made.seconds["generate"] > 0


@pytest.mark.parametrize(
    "control, types",
    [("no-audio", ["image_url"] * 3), ("no-video", ["input_audio"]), ("blind", [])],
)
def test_controls_leave_things_out(server, clip, control, types):
    made = adapter(server)
    made.answer(asked(made, clip, control_named(control)))
    content = server.requests[0][1]["messages"][0]["content"]
    assert [part["type"] for part in content] == [*types, "text"]


def test_letters_are_weighed(server, clip):
    made = adapter(server)
    ((first, second, third),) = made.likelihoods(asked(made, clip), [["A", "B", "C"]])
    assert first.logprob == -1.0 and second.logprob == pytest.approx(-1.5 + 0.6931, abs=1e-3)
    assert third.logprob < -50
    assert server.requests[0][1]["top_logprobs"] == 20
    with pytest.raises(ProtocolError, match="only letters"):
        made.likelihoods(asked(made, clip), [["yes", "no"]])


def test_what_passes_is_tried_again_and_what_does_not_is_said(server, clip):
    made = adapter(server, workers=1)
    server.script = [503, 429]
    assert made.answer(asked(made, clip)) == ["it?"]
    assert len(server.requests) == 3
    server.script = [400]
    with pytest.raises(EndpointError, match="status 400: .*busy, or worse"):
        made.answer(asked(made, clip))
    server.script = [500] * 5
    with pytest.raises(EndpointError, match="status 500"):
        made.answer(asked(made, clip))


def test_nobody_there(clip):
    made = EndpointAdapter("http://127.0.0.1:9/v1", "m", num_frames=1, retries=0)
    with pytest.raises(EndpointError, match="cannot be reached|did not answer"):
        made.answer(asked(made, clip))
