"""The page of `saven app`: what it keeps, says and draws, and its functions as gradio_client calls them."""

import base64
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kinds import KINDS
from PIL import Image
from small import small_model

import saven_hf
from saven_hf.app import AppError, Settings, engine, examples, serve, words
from saven_hf.app.axis import COLUMNS, axis_html, rows_html
from saven_hf.app.engine import Ask, Encoded, Engine, Said
from saven_hf.app.page import build_page, look, look_after
from saven_hf.app.visits import Column, Turn, Visit, Visits
from saven_hf.ask import Answer, Fed
from saven_hf.cli import main
from saven_hf.push import plan_upload
from saven_hf.savenvideo.media import open_media
from saven_hf.savenvideo.media_errors import MediaError


WAIT = 600  # seconds; a busy machine


@pytest.fixture(scope="module")
def tiny():
    return Engine(saven_hf.load())


@pytest.fixture
def visit(tmp_path):
    folder = tmp_path / "visit"
    folder.mkdir()
    return Visit(folder, Settings(max_megabytes=5, max_seconds=60))


def said(answer, content=None, **fed):
    return Said(Answer("?", answer, [[1.0, 2.0]]), Fed(**fed), Encoded(content, [0.5], [(0.0, 3.0)]))


# ---------------------------------------------------------------------------------------------------------------------
# Settings and the command


def test_settings_come_from_the_environment_and_what_is_given_wins():
    environment = {"SAVEN_MODEL": "me/model", "SAVEN_MAX_MB": "7", "SAVEN_MAX_SECONDS": " "}
    assert Settings.from_environment(environment) == Settings(model="me/model", max_megabytes=7)
    assert Settings.from_environment(environment, model="other", device=None).model == "other"
    for text in ("many", "0", "-3", "1.5"):
        with pytest.raises(AppError, match="SAVEN_MAX_MB is"):
            Settings.from_environment({"SAVEN_MAX_MB": text})


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    assert 'pip install "saven-hf[app]"' in capsys.readouterr().err
    with pytest.raises(AppError):
        serve(Settings())


# ---------------------------------------------------------------------------------------------------------------------
# HTML


def test_times_are_links_and_the_rest_is_only_text():
    found = words.with_links("<b>a bell</b>: from 00:00:01.500 to 00:00:02.000 & at 1:05")
    assert found.startswith("&lt;b&gt;a bell&lt;/b&gt;: from <a ") and " &amp; at <a " in found
    assert re.findall(r'href="#t=([^"]*)" data-start="([^"]*)" data-end="([^"]*)">([^<]*)<', found) == [
        ("1.500,2.000", "1.500", "2.000", "00:00:01.500 to 00:00:02.000"),
        ("65.000,65.000", "65.000", "65.000", "1:05"),
    ]
    turn = Turn("<img src=x>", [Column(text="<script>", right=False)], truth="a < b")
    said = words.chat_html([turn])
    assert "<img" not in said and "<script" not in said and "a &lt; b" in said and "✗ wrong" in said


def test_costs_name_what_was_fed_to_each_column():
    spent = {"decode": 0.5, "encode": 1.0, "prefill": 0.25, "generate": 0.25}
    turn = Turn("?", [Column(fed=Fed(frames=8, audio_seconds=3.0, tokens=48, seconds=spent)), Column("sound")])
    found = words.fed_html(turn)
    assert "<td>8</td><td>3.0</td><td>48</td><td>0.50</td><td>1.00</td><td>0.25</td><td>0.25</td>" in found
    assert found.count("<tr data-without") == 1  # the other is not answered yet
    assert 'class="encode" title="encode 1.00 s" style="width: 50.00%"' in found
    assert words.fed_html(None) == words.fed_html(Turn("?", [Column()])) == ""


def image_of(html, pattern):
    return Image.open(io.BytesIO(base64.b64decode(re.search(pattern, html)[1])))


def test_the_axis_shows_picture_and_sound_where_they_are(clip):
    with open_media(clip) as media:
        html = axis_html(media)
    assert 'data-seconds="12.0' in html and 'aria-valuemax="12.0"' in html
    strip = np.asarray(image_of(html, r"data:image/jpeg;base64,([^\"]*)").convert("RGB")).astype(int)
    quarter = strip.shape[1] // 4
    # How far the strongest colour of each quarter leads: red, blue, green, and yellow, which is red and green.
    lead = [strip[:, at * quarter : (at + 1) * quarter].reshape(-1, 3) for at in range(4)]
    red, blue, green, yellow = ((piece - piece.min(1, keepdims=True)).max(0) for piece in lead)
    assert red.argmax() == 0 and blue.argmax() == 2 and green.argmax() == 1
    assert min(yellow[:2]) > 2 * yellow[2]
    levels = np.asarray(image_of(html, r"data:image/png;base64,([^)]*)").split()[-1])
    assert levels.shape[1] == COLUMNS
    step = COLUMNS // 4
    assert levels[:, step + 10 : 2 * step - 10].max() == 0  # silence
    lowest, highest, middle = (levels[:, at * step + 10 : (at + 1) * step - 10].mean(1).argmax() for at in (0, 2, 3))
    assert highest < middle < lowest  # rows count from the top: high, mid and low tones
    assert re.findall(r"<span style=\"left: ([\d.]+)%\">([\d:]+)<", html)[:2] == [
        ("0.000", "0:00"),
        ("16.667", "0:02"),
    ]


def test_rows_are_drawn_to_scale():
    spans = [("1. answered", "answered", [[5.0, 10.0], [25.0, 30.0], [18.0, 40.0]]), ("1. asked", "asked", [])]
    html = rows_html(20.0, [0.0, 10.0], [(0.0, 10.0), (10.0, 20.0)], spans)
    assert 'd="M0.00 0V1M500.00 0V1"' in html and "frames fed: 2" in html and "sound fed: 20.0 s" in html
    # One lies outside of the video, one leaves it.
    answered = html[html.index("1. answered") :]
    assert re.findall(r"left: ([\d.]+)%; width: ([\d.]+)%", answered) == [("25.000", "25.000"), ("90.000", "10.000")]
    assert "asked" not in answered
    assert rows_html(20.0, [], [], []) == ""


# ---------------------------------------------------------------------------------------------------------------------
# Examples


def test_examples_know_their_answers(tmp_path):
    assert len({example.title for example in examples.EXAMPLES}) == len(examples.EXAMPLES) >= 3
    for example in examples.EXAMPLES:
        assert {"picture", "sound"} <= {question.needs for question in example.questions}, example.title
        seconds = int(re.search(r"(\d+) s$", example.title)[1])
        assert example.scene.duration / 1e6 == pytest.approx(seconds, abs=0.5)
    example = examples.EXAMPLES[0]
    question = example.questions[0]
    assert example.question(f"  {question.text}\n") is question and example.question("Something else?") is None
    assert examples.is_right(question, f"from 00:00:00.000 to 00:00:01.000: {question.answer_text}")
    assert not examples.is_right(question, "a plaid elephant")
    ranged = next(one for one in example.questions if one.question_type == "time_range")
    start, end = (moment // 1000 for moment in ranged.evidence[0])
    assert examples.is_right(ranged, f"from {(start + 100) / 1000} s to {end / 1000} s")
    assert not examples.is_right(ranged, f"from {end / 1000} s to {(end + 5000) / 1000} s")
    with pytest.raises(AppError, match="There is no example 'none'"):
        examples.example_named("none")
    path = examples.example_file(example, tmp_path)
    made = path.stat().st_mtime_ns
    assert examples.example_file(example, tmp_path).stat().st_mtime_ns == made  # once


# ---------------------------------------------------------------------------------------------------------------------
# Visits


def test_columns_stand_side_by_side_and_nothing_is_encoded_twice(visit, clip):
    visit.open_upload(clip)
    asks = []

    def answer(ask):
        asks.append(ask)
        yield "from 1 s "
        yield "to 2 s"
        yield said("from 1 s to 2 s", content=f"kept {ask.without}")

    shown = [[column.text for column in turn.columns] for turn in visit.ask(" At 3 s? ", ("sound", "time"), answer)]
    assert (
        shown[0] == ["", "", ""] and ["from 1 s ", "", ""] in shown and ["from 1 s to 2 s", "from 1 s ", ""] in shown
    )
    assert [(ask.question, ask.without, ask.encoded) for ask in asks] == [
        ("At 3 s?", without, None) for without in ("", "sound", "time")
    ]
    assert visit.turns[0].done and visit.turns[0].asked == [[3.0, 3.0]]
    for _ in visit.ask("And then?", (), answer):
        pass
    assert asks[-1].encoded.content == "kept "
    rows = visit.rows()
    for label in ("frames fed: 1", "1. asked about", "1. answered, without sound", "2. answered<"):
        assert label in rows
    told = json.loads(open(visit.write_json("tiny"), encoding="utf-8").read())
    assert told["video"] == {"name": "clip.mp4", "seconds": pytest.approx(12.0, abs=0.1)}
    assert [turn["question"] for turn in told["turns"]] == ["At 3 s?", "And then?"]
    assert [one["without"] for one in told["turns"][0]["answers"]] == [None, "sound", "time"]
    assert told["turns"][1]["answers"][0]["spans"] == [[1.0, 2.0]]
    assert set(told["turns"][1]["answers"][0]["fed"]["seconds"]) == {"decode", "encode", "prefill", "generate"}


def test_an_answer_that_fails_leaves_no_turn(visit, clip):
    visit.open_upload(clip)

    def answer(ask):
        yield "half an"
        raise MediaError(f"{ask.video}: gone")

    with pytest.raises(MediaError) as error:
        for _ in visit.ask("What?", (), answer):
            pass
    assert visit.turns == [] and visit.plain(error.value) == "clip.mp4: gone"


@pytest.mark.parametrize("how", ["stopped", "closed"])
def test_a_stopped_turn_stays_as_far_as_it_came(visit, clip, how):
    """By the button, or because nobody takes the pieces any more; the model stops, and the next question is asked."""
    visit.open_upload(clip)
    left = []

    def answer(ask):
        try:
            yield "half an"
            yield " answer"
            yield said("half an answer")
        finally:
            left.append(ask.without)

    turns = visit.ask("What?", ("sound",), answer)
    next(turns), next(turns)
    if how == "stopped":
        visit.stop()
        assert list(turns) == []
    else:
        turns.close()
    del turns
    (turn,) = visit.turns
    assert turn.done and turn.stopped and left == [""]
    html = words.chat_html(visit.turns)
    assert (
        "half an" in html and 'aria-busy="false"' in html and html.count("(stopped)") == 2 and "watching" not in html
    )
    (told,) = visit.as_json("tiny")["turns"]
    assert told["stopped"] and [one["answer"] for one in told["answers"]] == ["half an", ""]
    visit.stop()
    *_, whole = visit.ask("And?", (), answer)
    visit.stop()
    assert whole.done and not whole.stopped and len(visit.turns) == 2


def test_what_cannot_be_asked(visit, tmp_path, clip):
    def asked(question, *off):
        return list(visit.ask(question, off, lambda ask: iter([said("a")])))

    with pytest.raises(AppError, match="no video yet"):
        asked("What?")
    silent = tmp_path / "tone.wav"
    with open_media(clip) as media:
        waveform, _ = media.audio()
    write_wav(silent, waveform.numpy())
    visit.open_upload(silent)
    assert (visit.has_picture, visit.has_sound) == (False, True)
    with pytest.raises(AppError, match="question is empty"):
        asked("  ")
    with pytest.raises(AppError, match="tone.wav has no picture, so nothing is left without its sound"):
        asked("What?", "sound")
    assert len(asked("What?", "picture")) == 3


def write_wav(path, samples, rate=16_000):
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def test_refused_files_say_why_and_change_nothing(visit, tmp_path, clip):
    visit.open_upload(clip)
    text = tmp_path / "notes.mp4"
    text.write_text("this is a text\n" * 50)
    picture = tmp_path / "picture.png"
    Image.new("RGB", (32, 32)).save(picture)
    long = tmp_path / "long.wav"
    write_wav(long, np.zeros(61 * 16_000))
    large = tmp_path / "large.mp4"
    with open(large, "wb") as file:
        file.truncate(6_000_000)
    for path, kind, said in (
        (text, MediaError, "notes.mp4"),
        (picture, AppError, "picture.png is an image"),
        (long, AppError, "long.wav lasts 61 s, and up to 60 s are taken"),
        (large, AppError, "large.mp4 has 6 MB, and up to 5 MB are taken"),
    ):
        with pytest.raises(kind) as error:
            visit.open_upload(path)
        assert said in str(error.value) and str(tmp_path) not in str(error.value)
    assert visit.name == "clip.mp4" and visit.video.is_file()


def test_files_are_removed(tmp_path, clip):
    visits = Visits(tmp_path, Settings(idle_seconds=0))
    visit = visits.of("one")
    visit.open_upload(clip)
    first = visit.video
    visit.open_upload(clip)
    assert not first.exists() and visit.video.is_file() and clip.is_file()
    visit.open_example(examples.EXAMPLES[0], tmp_path / "examples")
    example = visit.video
    assert len(list(visit.folder.iterdir())) == 0
    visit.open_upload(clip)
    assert example.is_file()  # for all
    visits.close("one")
    assert not visit.folder.exists() and len(visits) == 0
    visits.close("nobody")
    # Whoever is idle for too long is forgotten when somebody comes.
    left = visits.of("two").folder
    assert visits.of("three").folder.is_dir() and not left.exists() and len(visits) == 1


def test_idle_visitors_are_forgotten_when_nobody_comes(tmp_path, clip):
    visits, stopped = Visits(tmp_path, Settings()), threading.Event()
    busy, idle = visits.of("busy"), visits.of("idle")
    for visit in (busy, idle):
        visit.open_upload(clip)
    looking = threading.Thread(target=look_after, args=(visits, stopped, 0.01))
    looking.start()
    idle.used -= visits.settings.idle_seconds
    deadline = time.monotonic() + WAIT
    while idle.folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.set()
    looking.join(WAIT)
    assert not looking.is_alive() and not idle.folder.exists() and busy.video.is_file() and len(visits) == 1


# ---------------------------------------------------------------------------------------------------------------------
# The engine, with the embedded model


# What can be switched off, of every kind of model: what makes no difference cannot.
KINDS_OF_PARTS = {
    "avts": ("sound", "picture", "time"),
    "joint": ("sound",),
    "mlp": ("sound", "picture", "time"),
    "stc": ("sound", "picture", "time"),
    "stc as published": ("sound", "picture"),
    "causal_qformer as published": ("sound", "picture"),
}


@pytest.mark.parametrize("kind", KINDS_OF_PARTS)
def test_only_what_makes_a_difference_can_be_switched_off(kind, clip):
    model, processor = small_model(**KINDS[kind])
    engine = Engine((model, processor))
    assert engine.parts == KINDS_OF_PARTS[kind]
    fed = {}
    for without in ("", *engine.parts):
        _, end = ask_all(engine, Ask(str(clip), "What?", without, max_new_tokens=1))
        fed[without] = (end.fed.frames, end.fed.audio_seconds, end.fed.frame_times)
    assert all(fed[without] != fed[""] for without in engine.parts)


def test_a_model_without_ears_has_no_sound_to_switch_off():
    model, processor = small_model(has_audio_tower=False)
    assert Engine((model, processor)).parts == ("time",)


@pytest.mark.parametrize("sees, hears, parts", [("video", "beside", ("sound", "picture")), ("video", None, ())])
def test_what_can_be_taken_from_a_peer(sees, hears, parts):
    assert Engine(SimpleNamespace(sees=sees, hears=hears), "peer").parts == parts


def ask_all(engine, ask):
    *pieces, end = engine.answer(ask)
    return pieces, end


def test_each_part_that_is_off_is_not_fed(tiny, clip):
    question = "What is heard from 00:00:06.000 to 00:00:09.000?"
    found = {}
    for without in ("", *engine.PARTS):
        pieces, end = ask_all(tiny, Ask(str(clip), question, without, max_new_tokens=6))
        assert pieces and "".join(pieces).strip() == end.answer.answer
        found[without] = end
    fed = {without: end.fed for without, end in found.items()}
    assert (fed[""].frames, round(fed[""].audio_seconds)) == (48, 12)
    assert (fed["sound"].frames, fed["sound"].audio_seconds) == (48, 0.0)
    assert (fed["picture"].frames, round(fed["picture"].audio_seconds)) == (0, 12)
    assert (fed["time"].frames, fed["time"].frame_times) == (48, [])
    assert found[""].encoded.frame_times[0] == pytest.approx(0.12, abs=0.03)
    windows = found[""].encoded.sound_windows
    assert [round(moment) for window in windows for moment in window] == [0, 10, 10, 12]
    assert found["sound"].encoded.sound_windows == []
    # All of it can go to another process and back, as ZeroGPU needs it.
    again = pickle.loads(pickle.dumps(found["time"]))
    assert again.fed == fed["time"] and again.encoded.content.window_tokens.device.type == "cpu"


def test_the_next_question_does_not_decode(tiny, clip, monkeypatch):
    _, end = ask_all(tiny, Ask(str(clip), "What is seen?", max_new_tokens=4))
    assert end.fed.seconds["decode"] > 0
    monkeypatch.setattr(type(tiny.model[0]), "encode_video", None)
    monkeypatch.setattr(engine, "open_media", None)
    _, again = ask_all(tiny, Ask("not read", "What is seen?", encoded=end.encoded, max_new_tokens=4))
    assert again.answer.answer == end.answer.answer and again.fed.frame_times == end.fed.frame_times


def test_a_closed_answer_stops_the_model(tiny, clip):
    pieces = tiny.answer(Ask(str(clip), "What is seen and heard from 00:00:01.000 to 00:00:05.000?"))
    assert isinstance(next(pieces), str)
    pieces.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "saven-answer"]


def test_errors_come_out_where_pieces_do(tiny, tmp_path):
    text = tmp_path / "a.mp4"
    text.write_text("text")
    with pytest.raises(MediaError):
        ask_all(tiny, Ask(str(text), "What?"))
    with pytest.raises(AppError, match="cannot be asked without the smell"):
        ask_all(tiny, Ask(str(text), "What?", without="smell"))


# ---------------------------------------------------------------------------------------------------------------------
# By API name


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page, served in this process."""
    folder = tmp_path_factory.mktemp("page")
    settings = Settings(max_megabytes=5, max_seconds=60, max_new_tokens=24)
    visits = Visits(folder, settings)
    page = build_page(engine.start(), settings, visits)
    _, url, _ = page.launch(
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        allowed_paths=[str(folder)],
        max_file_size="5mb",
        **look(),
    )
    yield url
    page.close()


@pytest.fixture
def client(address):
    from gradio_client import Client

    with_patience = {"timeout": WAIT}
    return Client(address, verbose=False, httpx_kwargs=with_patience)


def test_a_program_opens_asks_and_takes_the_conversation(client):
    title = examples.EXAMPLES[0].title
    opened, player, axis, *_ = client.predict(title, api_name="/open_example")
    assert opened["name"] == title and opened["questions"] and "<video" in player and 'class="axis"' in axis
    question = examples.EXAMPLES[0].questions[0]
    job = client.submit(question.text, True, True, True, api_name="/ask")
    data, chat, rows, fed, path = job.result(timeout=WAIT)
    texts = [update[0]["answers"][0]["answer"] for update in job.outputs()]
    grown = [text for text in texts if text]
    assert len(set(grown)) > 2 and all(grown[-1].startswith(text.strip()[:10]) for text in grown[1:])  # streamed
    assert data["known_answer"] == question.answer_text and data["answers"][0]["fed"]["frames"] > 0
    assert "frames fed" in rows and "<table>" in fed and 'class="moment"' in chat
    beside, *_ = client.predict(question.text, False, True, True, api_name="/ask")
    assert [answer["without"] for answer in beside["answers"]] == [None, "sound"]
    assert [answer["fed"]["audio_seconds"] > 0 for answer in beside["answers"]] == [True, False]
    assert beside["answers"][0]["answer"] == data["answers"][0]["answer"]
    conversation = client.predict(api_name="/conversation")
    assert [turn["question"] for turn in conversation["turns"]] == [question.text] * 2
    with open(path, encoding="utf-8") as file:
        assert json.load(file)["turns"] == conversation["turns"][:1]


def test_a_program_uploads_and_is_told_what_is_wrong(client, clip, tmp_path):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError as Refused

    with pytest.raises(Refused, match="There is no video yet"):
        client.predict("What is seen?", True, True, True, api_name="/ask")
    text = tmp_path / "text.mp4"
    text.write_text("no video at all")
    with pytest.raises(Refused, match=r"text\.mp4") as error:
        client.predict(handle_file(str(text)), api_name="/open_video")
    assert "gradio" not in str(error.value)  # nor any other path of the server
    opened, *_ = client.predict(handle_file(str(clip)), api_name="/open_video")
    assert opened["name"] == "clip.mp4" and opened["seconds"] == pytest.approx(12.0, abs=0.1)
    with pytest.raises(Refused, match="question is empty"):
        client.predict(" ", True, True, True, api_name="/ask")
    data, *_ = client.predict("What is seen?", True, True, True, api_name="/ask")
    assert data["answers"][0]["fed"]["frames"] == 48


def test_the_block_of_the_docs_runs(address, clip, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[1] / "docs" / "app.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert "http://127.0.0.1:7860" in block
    shutil.copy(clip, tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    exec(
        compile(
            block.replace("http://127.0.0.1:7860/", address).replace("http://127.0.0.1:7860", address), "docs", "exec"
        ),
        {},
    )
    said = capsys.readouterr().out
    assert "'without': 'sound'" in said and "What is heard from 3 to 6 s?" in said


def test_who_comes_when_the_queue_is_full_is_asked_to_try_again(tmp_path):
    """One is answered, one waits, and the third is told at once."""
    from gradio_client import Client

    started, going_on = threading.Event(), threading.Event()

    def slow(ask):
        started.set()
        assert going_on.wait(WAIT)
        yield said("an answer")

    settings = Settings(max_waiting=1)
    visits = Visits(tmp_path, settings)
    page = build_page(SimpleNamespace(parts=engine.PARTS, name="slow", notice=""), settings, visits, slow)
    _, url, _ = page.launch(
        prevent_thread_lock=True, quiet=True, ssr_mode=False, allowed_paths=[str(tmp_path)], **look()
    )
    try:
        clients = [Client(url, verbose=False, httpx_kwargs={"timeout": WAIT}) for _ in range(3)]
        for client in clients:
            client.predict(examples.EXAMPLES[0].title, api_name="/open_example")

        def ask(client):
            return client.submit("What?", True, True, True, api_name="/ask")

        first = ask(clients[0])
        assert started.wait(WAIT)
        second = ask(clients[1])
        deadline = time.monotonic() + WAIT
        while len(page._queue) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(Exception, match="(?i)queue is full"):
            ask(clients[2]).result(timeout=WAIT)
        going_on.set()
        for job in (first, second):
            assert job.result(timeout=WAIT)[0]["answers"][0]["answer"] == "an answer"
    finally:
        going_on.set()
        page.close()


ZERO_GPU = """
import json, pickle, sys, types

asked = []


def GPU(duration):
    def wrap(function):
        def elsewhere(*given):
            asked.append(duration)
            for piece in function(*pickle.loads(pickle.dumps(given))):  # as from and to another process
                yield pickle.loads(pickle.dumps(piece))

        return elsewhere

    return wrap


sys.modules["spaces"] = types.SimpleNamespace(GPU=GPU)
from saven_hf.app import engine

started = engine.start(device="cpu")
*pieces, first = engine.answer(engine.Ask(sys.argv[1], "What is seen?", max_new_tokens=4))
*_, second = engine.answer(engine.Ask("not read", "What is seen?", encoded=first.encoded, max_new_tokens=4))
texts = ["".join(pieces).strip(), first.answer.answer, second.answer.answer]
print(json.dumps({"asked": asked, "texts": texts, "frames": first.fed.frames}))
"""


def test_on_zerogpu_answers_come_from_the_decorated_function(clip):
    """With a stand-in for HuggingFace's `spaces`: what goes in and out survives the way to another process."""
    done = subprocess.run([sys.executable, "-c", ZERO_GPU, str(clip)], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["asked"] == [engine.GPU_SECONDS] * 2 and told["frames"] == 48
    assert len(set(told["texts"])) == 1 and told["texts"][0]


def test_names_of_the_api(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {
        "/open_example",
        "/open_video",
        "/ask",
        "/conversation",
    }


def test_the_page_can_be_pushed_as_a_space():
    space = Path(__file__).parents[1] / "spaces" / "savenvideo-demo"
    plan = plan_upload(space, "me/savenvideo-demo")
    assert plan.repo_type == "space" and plan.space_sdk == "gradio"
    assert {name for name, _ in plan.files} == {"README.md", "app.py", "packages.txt", "requirements.txt"}
    assert "ffmpeg" in (space / "packages.txt").read_text()
