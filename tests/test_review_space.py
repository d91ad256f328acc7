"""The review Space: decisions that last, and the page in a real browser."""

import importlib.util
import json
from pathlib import Path

import pytest
from browsing import TIMEOUT, open_browser, start_page
from playwright.sync_api import expect

from saven_hf.data.builder import EMBEDDED
from saven_hf.data.hub_folder import read_rows
from saven_hf.data.release import build_avbench
from saven_hf.push import plan_upload


SPACE = Path(__file__).parents[1] / "spaces" / "avbench-review"


def load(name):
    spec = importlib.util.spec_from_file_location(name, SPACE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reviews = load("reviews")
ROW = {
    "id": "a-1",
    "question": "What rings?",
    "options": ["Rain", "A bell", "Wind", "Steps"],
    "answer": "B",
    "video": 1,
}

REASON = "grammar or format"


def row(number):
    return {**ROW, "id": f"a-{number}"}


def test_decisions_last(tmp_path):
    path = tmp_path / "deep" / "reviews.jsonl"
    first = reviews.Reviews(path)
    ids = [f"a-{number}" for number in range(4)]
    assert first.next_open(ids) == 0 and first.summary(ids) == "0 of 4 decided"
    first.add(row(0), "keep", "Ada")
    first.add(row(1), "drop", "Ada", "one modality only")
    first.add(row(2), "fix", "Ben", "grammar or format", changes={"question": "Which bell?", "answer": "B"})
    first.add(row(0), "drop", "Ben", "another", "no bell is heard")
    again = reviews.Reviews(path)
    assert again.next_open(ids) == 3 and again.next_open(ids, 3) == 3 and len(again) == 3
    assert again.summary(ids) == "3 of 4 decided: 1 fix, 2 drop"
    assert again.get("a-0")["comment"] == "no bell is heard" and again.get("a-2")["changes"] == {
        "question": "Which bell?"
    }
    (accepted,) = again.accepted(map(row, range(4)))
    assert (
        accepted["question"] == "Which bell?" and accepted["review"]["reviewer"] == "Ben" and "video" not in accepted
    )
    again.add(row(3), "keep", "Ada")
    assert again.next_open(ids) is None and len(path.read_text().splitlines()) == 5


def test_a_stopped_writer_loses_only_what_nobody_was_told(tmp_path):
    path = tmp_path / "reviews.jsonl"
    reviews.Reviews(path).add(row(0), "keep", "Ada")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    again = reviews.Reviews(path)
    again.add(row(1), "keep", "Ada")
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a-0", "a-1"]
    path.write_text("[]\n")
    with pytest.raises(reviews.ReviewError, match="reviews.jsonl:1 is no decision"):
        reviews.Reviews(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"verdict": "keep", "reviewer": " "}, "Write your name first"),
        ({"verdict": None}, "Choose one of keep, fix, drop"),
        ({"verdict": "drop"}, "Say why you would drop it"),
        ({"verdict": "drop", "reason": "boring"}, "choose a reason"),
        ({"verdict": "drop", "reason": "another"}, "write it as a comment"),
        ({"verdict": "fix", "reason": REASON, "changes": {"question": ROW["question"]}}, "Nothing was mended"),
        ({"verdict": "fix", "reason": REASON, "changes": {"options": ["Rain", "rain ", "Wind", "A bell"]}}, "differ"),
        ({"verdict": "fix", "reason": REASON, "changes": {"answer": None}}, "one of A, B, C, D"),
        ({"verdict": "keep", "changes": {"question": "Else?"}}, "was mended, but the verdict is keep"),
    ],
)
def test_what_is_no_decision(tmp_path, given, said):
    store = reviews.Reviews(tmp_path / "reviews.jsonl")
    with pytest.raises(reviews.ReviewError, match=said):
        store.add(ROW, **{"reviewer": "Ada", **given})
    assert len(store) == 0 and not store.path.exists()


def test_it_can_be_pushed():
    plan = plan_upload(SPACE, "me/avbench-review")
    assert plan.repo_type == "space" and {"app.py", "reviews.py", "requirements.txt"} < {
        name for name, _ in plan.files
    }


@pytest.fixture(scope="module")
def avbench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("review") / "avbench"
    build_avbench([EMBEDDED / "avbench"], folder)
    return folder


@pytest.fixture
def serve(avbench, tmp_path):
    """Starts the page as a person would, and gives its address."""
    servers = []

    def start() -> str:
        address, process = start_page(SPACE, "--dataset", str(avbench), "--reviews", str(tmp_path / "reviews"))
        servers.append(process)
        return address

    def stop():
        servers[-1].terminate()
        servers[-1].wait(60)

    start.stop = stop
    yield start
    for server in servers:
        if server.poll() is None:
            server.kill()


@pytest.mark.slow
def test_a_person_reviews_in_a_browser(serve, avbench, tmp_path):
    rows = list(read_rows(avbench, "qa", without=("video",)))
    with open_browser() as browser:
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT)

        def choose(group, name):
            page.locator(f"#{group} label").filter(has_text=name).first.click()

        def question():
            return page.locator("#question textarea")

        page.goto(serve())
        expect(question()).to_have_value(rows[0]["question"])
        expect(page.locator("#where")).to_contain_text(f"0 of {len(rows)} decided")
        for letter, option in zip("ABCD", rows[0]["options"], strict=True):
            field = page.locator(f"#option-{letter} textarea, #option-{letter} input").first
            expect(field).to_have_value(option)
        expect(page.locator("#checks")).to_contain_text("visual only")
        # The clip stands where the evidence begins, and plays.
        page.wait_for_function("() => document.querySelector('#clip')?.readyState >= 2")
        start, end = rows[0]["evidence"][0]
        assert abs(page.evaluate("document.querySelector('#clip').currentTime") - start) < 0.3
        page.evaluate("() => { const v = document.querySelector('#clip'); v.muted = true; return v.play() }")
        page.wait_for_function(f"() => document.querySelector('#clip').currentTime > {min(start + 0.2, end)}")

        # Nothing is stored without a name and a reason.
        choose("verdict", "drop")
        page.locator("#store").click()
        expect(page.locator("#told")).to_contain_text("Write your name first")
        page.locator("#reviewer textarea, #reviewer input").first.fill("Ada")
        page.locator("#store").click()
        expect(page.locator("#told")).to_contain_text("choose a reason")
        choose("reason", "one modality only")
        page.locator("#store").click()
        expect(question()).to_have_value(rows[1]["question"])
        expect(page.locator("#where")).to_contain_text("1 drop")

        # The second is mended, the third kept.
        question().fill("Which came first?")
        choose("verdict", "fix")
        choose("reason", "grammar or format")
        page.locator("#store").click()
        expect(question()).to_have_value(rows[2]["question"])
        choose("verdict", "keep")
        page.locator("#store").click()
        expect(page.locator("#where")).to_contain_text(f"3 of {len(rows)} decided: 1 keep, 1 fix, 1 drop")
        with page.expect_download() as download:
            page.locator("#accepted").click()
        accepted = [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]
        assert [one["id"] for one in accepted] == [rows[1]["id"], rows[2]["id"]]
        assert accepted[0]["question"] == "Which came first?" and accepted[0]["review"]["reviewer"] == "Ada"
        serve.stop()

        # Another day, another server: the work goes on at the fourth.
        page.goto(serve())
        expect(question()).to_have_value(rows[3]["question"])
        page.locator("#back").click()
        expect(page.locator("#where")).to_contain_text("Ada said: keep")

    done = build_avbench([avbench], tmp_path / "accepted", reviews=tmp_path / "reviews" / "reviews.jsonl")
    kept = list(read_rows(tmp_path / "accepted", "qa", without=("video",)))
    assert [one["question"] for one in kept] == ["Which came first?", rows[2]["question"]]
    assert done["left_out"] == {"dropped in review": 1, "not reviewed": len(rows) - 3}
