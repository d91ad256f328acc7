"""The demo Space in a real browser, started as a Space is."""

import math
import re
import signal
import time
from pathlib import Path

import pytest
from browsing import TIMEOUT, open_browser, start_page
from clip import render
from playwright.sync_api import expect

from saven_hf import load
from saven_hf.app.engine import Ask, Engine
from saven_hf.app.examples import EXAMPLES, example_file, is_right
from saven_hf.savenvideo.times import parse_spans


SPACE = Path(__file__).parents[1] / "spaces" / "savenvideo-demo"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page as `python app.py` serves it; its address, its process, and the folder of its temporary files."""
    temporary = tmp_path_factory.mktemp("server")
    address, process = start_page(SPACE, SAVEN_MAX_MB="20", SAVEN_MAX_SECONDS="120", TMPDIR=str(temporary))
    yield address, process, temporary
    if process.poll() is None:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser():
    with open_browser() as started:
        yield started


@pytest.fixture
def visit(server, browser):
    """Opens the page as another visitor each time."""
    contexts = []

    def start(viewport=DESKTOP, **options):
        contexts.append(browser.new_context(viewport=viewport, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(TIMEOUT)
        page.goto(server[0])
        expect(page.locator("#examples label").first).to_be_visible()
        return page

    yield start
    for context in contexts:
        context.close()


def open_example(page, number):
    page.locator("#examples label").nth(number).click()
    expect(page.locator("#player")).to_contain_text(EXAMPLES[number].title)
    expect(page.locator(".suggestion")).to_have_count(len(EXAMPLES[number].questions))
    page.wait_for_function("() => document.querySelector('#player-media')?.readyState >= 1")


def wait_for_answers(page, turns, columns=1):
    expect(page.locator(".turn")).to_have_count(turns)
    expect(page.locator(".chat")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".fed tbody tr")).to_have_count(columns)


def ask(page, question, turns, columns=1):
    page.locator("#question textarea").fill(question)
    page.locator("#ask").click()
    wait_for_answers(page, turns, columns)


def now(page):
    return page.evaluate("document.querySelector('#player-media').currentTime")


def picked(page):
    """The span in the question, in seconds."""
    ((start, end),) = parse_spans(page.locator("#question textarea").input_value())
    return start / 1e6, end / 1e6


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """Which answers to the examples' questions are right, by their numbers: {(example, question): {without: right}}.

    Found by asking the model itself, without a page: which ones it gets right changes with its weights, and the page
    has to show it of one that is.
    """
    engine, folder, found = Engine(load(device="cpu")), tmp_path_factory.mktemp("examples"), {}
    for number, example in enumerate(EXAMPLES):
        path = str(example_file(example, folder))
        for without in ("", "sound"):
            encoded = None
            for at, question in enumerate(example.questions):
                *_, said = engine.answer(Ask(path, question.text, without, encoded))
                encoded = said.encoded
                found.setdefault((number, at), {})[without] = is_right(question, said.answer.answer)
    return found


def numbers(page, without=""):
    """What was fed to a column: frames, seconds of sound, tokens, and the four costs."""
    return [float(text) for text in page.locator(f'.fed tr[data-without="{without}"] td').all_inner_texts()]


def test_an_example_is_asked_and_its_times_move_the_player(visit, right):
    page = visit()
    ranges = [key for key in right if EXAMPLES[key[0]].questions[key[1]].question_type == "time_range"]
    number, at = next((key for key in ranges if right[key][""]), (None, None))
    assert number is not None, "the model finds no time of the examples: choose scenes in which it does"
    question = EXAMPLES[number].questions[at]
    other = EXAMPLES[number].questions[next(one for example, one in ranges if example == number and one != at)]
    open_example(page, number)
    page.evaluate(
        """() => {
            window.seen = new Set();
            const look = () => {
                const text = document.querySelector('.turn .text:not(.quiet)')?.textContent;
                if (text) window.seen.add(text);
            };
            new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
        }"""
    )
    page.locator(".suggestion").filter(has_text=question.text).click()
    wait_for_answers(page, 1)
    assert page.evaluate("window.seen.size") > 2  # it came in pieces
    expect(page.locator(".turn .question")).to_have_text(question.text)
    expect(page.locator(".turn .truth")).to_contain_text(question.answer_text)
    expect(page.locator(".turn .mark")).to_have_text("✓ right")
    frames, sound, tokens, *costs = numbers(page)
    seconds = EXAMPLES[number].scene.duration / 1e6
    assert frames > 16 and sound == pytest.approx(seconds, abs=0.1) and tokens >= 48 and costs[0] > 0
    expect(page.locator(".rows .frames .label")).to_have_text(f"frames fed: {frames:.0f}")
    assert page.locator(".rows .windows i").count() == math.ceil(seconds / 10)  # of at most 10 s

    # A time in the known answer seeks the player, and its span is drawn where it is.
    start, end = (moment / 1e6 for moment in question.evidence[0])
    assert now(page) == 0
    page.locator(".truth a.moment").click()
    page.wait_for_function(f"() => document.querySelector('#player-media').currentTime >= {start - 0.05}")
    assert start - 0.05 <= now(page) <= end + 0.5
    bar = page.locator(".rows .true i").bounding_box()
    track = page.locator(".axis .track").bounding_box()
    assert (bar["x"] - track["x"]) / track["width"] == pytest.approx(start / seconds, abs=0.01)

    # Another turn: the video is not decoded again, and the answer's own time is a link as well.
    ask(page, other.text, 2)
    assert numbers(page)[3] < costs[0] / 2
    link = page.locator(".turn").nth(1).locator(".answer a.moment").first
    start = float(link.get_attribute("data-start"))
    link.click()
    page.wait_for_function(f"() => Math.abs(document.querySelector('#player-media').currentTime - {start}) < 1")
    with page.expect_download() as download:
        page.locator("#export").click()
    told = Path(download.value.path()).read_text(encoding="utf-8")
    assert question.text in told and '"spans"' in told


def test_a_span_is_picked_on_the_axis(visit):
    page = visit()
    open_example(page, 0)
    seconds = EXAMPLES[0].scene.duration / 1e6
    track = page.locator(".axis .track")
    track.scroll_into_view_if_needed()
    box = track.bounding_box()

    def at(share):
        return box["x"] + box["width"] * share, box["y"] + box["height"] / 2

    # By dragging, backwards as well.
    page.mouse.move(*at(0.6))
    page.mouse.down()
    page.mouse.move(*at(0.5), steps=3)
    page.mouse.move(*at(0.3), steps=3)
    page.mouse.up()
    expect(page.locator("#question textarea")).to_have_value(re.compile("^What is seen and heard from"))
    assert picked(page) == pytest.approx((0.3 * seconds, 0.6 * seconds), abs=0.2)
    assert now(page) == pytest.approx(0.3 * seconds, abs=0.3)
    # By two clicks: it takes the place of the one that is there.
    page.locator("#question textarea").fill("Which sound is there from 00:00:01.000 to 00:00:02.000?")
    page.mouse.click(*at(0.1))
    page.mouse.click(*at(0.2))
    expect(page.locator("#question textarea")).not_to_have_value(re.compile("00:00:01.000"))
    assert page.locator("#question textarea").input_value().startswith("Which sound is there from ")
    assert picked(page) == pytest.approx((0.1 * seconds, 0.2 * seconds), abs=0.2)
    # By keys.
    track.focus()
    for key in ("Escape", "Home", "Shift+ArrowRight", "Enter", "Shift+ArrowRight", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(".picked-text")).to_contain_text("In the question: from")
    assert picked(page) == pytest.approx((0.1 * seconds, 0.3 * seconds), abs=0.2)
    assert float(track.get_attribute("aria-valuenow")) == pytest.approx(0.3 * seconds, abs=0.1)
    # The server is asked what the box holds.
    page.locator("#question textarea").focus()
    page.keyboard.press("Enter")
    wait_for_answers(page, 1)
    assert page.locator(".rows .asked i").count() == 1


def test_what_is_switched_off_is_not_fed(visit):
    page = visit()
    open_example(page, 0)
    for part in ("sound", "picture", "time"):
        page.locator(f"#part-{part} input").uncheck()
    ask(page, EXAMPLES[0].questions[0].text, 1, columns=4)
    everything, deaf, blind, timeless = (numbers(page, without) for without in ("", "sound", "picture", "time"))
    assert everything[0] == deaf[0] == timeless[0] > 0 and blind[0] == 0
    assert everything[1] == blind[1] == timeless[1] > 0 and deaf[1] == 0
    names = page.locator(".turn .answer h3").all_inner_texts()
    assert names == ["everything", "without sound", "without picture", "without time"]
    # Side by side: the last two stand at the same height.
    boxes = [page.locator(".turn .answer").nth(at).bounding_box() for at in (2, 3)]
    assert boxes[0]["y"] == pytest.approx(boxes[1]["y"], abs=1) and boxes[0]["x"] < boxes[1]["x"]


def test_sound_is_what_a_sound_question_is_answered_from(visit, right):
    """Without sound a right answer about it goes wrong, and one about the picture stays right."""
    for needs, marks in {"sound": ("true", "false"), "picture": ("true", "true")}.items():
        number, at = next(
            (number, at)
            for (number, at), hit in right.items()
            if EXAMPLES[number].questions[at].needs == needs and hit == {"": True, "sound": needs == "picture"}
        )
        question, page = EXAMPLES[number].questions[at], visit()
        open_example(page, number)
        page.locator("#part-sound input").uncheck()
        ask(page, question.text, 1, columns=2)
        shown = [page.locator(f'.turn [data-without="{without}"] .mark') for without in ("", "sound")]
        assert tuple(mark.get_attribute("data-right") for mark in shown) == marks, question.text


def test_bad_files_and_bad_words_give_a_message_and_the_page_lives_on(visit, tmp_path):
    page = visit()
    text, good = tmp_path / "holiday.mp4", tmp_path / "good.mp4"
    text.write_text("Dear diary, this is no video.\n" * 100)
    render(good)
    expect(page.locator("#limits")).to_contain_text("Up to 20 MB and 2 min")
    upload = page.locator("input[type=file]").first
    upload.set_input_files(str(text))
    toast = page.locator(".toast-body, [data-testid=toast-body]").first
    expect(toast).to_contain_text("holiday.mp4")
    assert str(tmp_path) not in toast.inner_text() and "Traceback" not in page.content()
    expect(page.locator("#player .empty")).to_be_visible()
    # The next file is good, and what looks like a template or like HTML is asked as it stands.
    upload.set_input_files(str(good))
    expect(page.locator("#player")).to_contain_text("good.mp4 · 12.0 s")
    odd = "What <b>is</b> this {{value}} ${1 + 1} & that?"
    ask(page, odd, 1)
    expect(page.locator(".turn .question")).to_have_text(odd)
    assert numbers(page)[0] == 48


def test_two_visitors_at_once(visit):
    one, other = visit(), visit()
    open_example(one, 0)
    open_example(other, 1)
    for page, example in ((one, EXAMPLES[0]), (other, EXAMPLES[1])):
        page.locator("#question textarea").fill(example.questions[1].text)
    one.locator("#ask").click()
    other.locator("#ask").click()
    for page, example in ((one, EXAMPLES[0]), (other, EXAMPLES[1])):
        wait_for_answers(page, 1)
        expect(page.locator(".turn .question")).to_have_text(example.questions[1].text)
        expect(page.locator(".turn .truth")).to_contain_text(example.questions[1].answer_text)
        assert numbers(page)[1] == pytest.approx(example.scene.duration / 1e6, abs=0.1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_is_wide_enough(visit, scheme):
    page = visit(PHONE, color_scheme=scheme, has_touch=True)
    open_example(page, 0)
    page.locator("#part-sound input").uncheck()
    ask(page, EXAMPLES[0].questions[0].text, 1, columns=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#player-media", ".axis .track", ".turn", "#ask", ".suggestion >> nth=0"):
        box = page.locator(name).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], name
    order = [page.locator(name).bounding_box()["y"] for name in ("#player-media", ".axis .track", ".chat", "#ask")]
    assert order == sorted(order)
    ink, paper = (
        page.evaluate(f"getComputedStyle(document.querySelector('{name}')).{what}")
        for name, what in ((".turn .question", "color"), ("body", "backgroundColor"))
    )
    bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (bright[0] > 450 > 300 > bright[1]) if scheme == "dark" else (bright[0] < 300 < 600 < bright[1])


def test_nothing_of_a_visitor_is_left(visit, server, tmp_path):
    """Last, since it stops the page."""
    _, process, temporary = server
    good = tmp_path / "good.mp4"
    render(good)
    page = visit()
    page.locator("input[type=file]").first.set_input_files(str(good))
    expect(page.locator("#player")).to_contain_text("good.mp4")

    def visitors_files():
        return list(temporary.glob("saven-app-*/visit-*/*/video.mp4"))

    def wait_until(done):
        deadline = time.monotonic() + TIMEOUT / 1000
        while not done() and time.monotonic() < deadline:
            time.sleep(0.2)
        return done()

    assert len(visitors_files()) >= 1
    page.close()
    assert wait_until(lambda: not visitors_files())
    process.send_signal(signal.SIGTERM)
    process.wait(TIMEOUT / 1000)
    assert not list(temporary.glob("saven-app-*"))
