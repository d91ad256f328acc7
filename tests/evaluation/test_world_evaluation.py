"""The run over the world, with models whose score is known beforehand."""

import json
from collections import Counter

import pytest
from fakes import Fake, best_text_guesser, oracle

from saven_hf import load
from saven_hf.evaluation import (
    PLAIN,
    Control,
    RunMismatchError,
    WorldBenchmark,
    control_named,
    evaluate_world,
    run,
    runner,
    world,
)
from saven_hf.evaluation.parsing import parse_range
from saven_hf.evaluation.world import evaluate_with


@pytest.fixture
def no_media(monkeypatch):
    """Fakes look at no file: none is rendered."""
    monkeypatch.setattr(world, "rendered", lambda scene, media_dir, size: media_dir / f"{scene.video_id}.mp4")
    monkeypatch.setattr(Control, "edited", lambda control, source, *_: source)


def test_an_oracle_scores_everything_and_its_ranges_move_with_the_clock(tmp_path, no_media):
    adapter = Fake(oracle)
    summary = evaluate_with(adapter, tmp_path, ["iid", "paraphrases"], ["clock=+100"], videos=20, per_format=2)
    assert summary["accuracy"] == 1
    for name in ("world-iid", "world-paraphrases"):
        plain = summary["benchmarks"][name]["plain"]
        assert plain["videos"] == 20 and plain["choice"]["accuracy"]["n"] == 120
        assert [plain[form]["accuracy"]["value"] for form in ("choice", "range", "words")] == [1, 1, 1]
        assert plain["range"]["mean_iou"]["value"] == 1
        assert plain["choice"]["unparsable"] == plain["choice"]["contradictory"] == 0
        moved = summary["benchmarks"][name]["controls"]["clock=+100"]["against_plain"]["moved"]
        assert moved["value"] == 1 and moved["n"] == plain["range"]["accuracy"]["n"]
    rows = [json.loads(line) for line in (tmp_path / "items/world-iid.clock=+100.jsonl").read_text().splitlines()]
    ranges = [row for row in rows if row["form"] == "range"]
    assert ranges and all(row["parsed"][0] >= 100 for row in ranges)
    report = (tmp_path / "report.md").read_text()
    assert "100.0 [100.0, 100.0]" in report and "## Moved clock" in report
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_the_best_guesser_without_any_video_is_at_the_level_of_the_text(tmp_path, no_media):
    summary = evaluate_with(Fake(best_text_guesser()), tmp_path, ["iid"], ["mute+black"], videos=150)
    plain = summary["benchmarks"]["world-iid"]["plain"]["choice"]
    assert plain["accuracy"]["n"] >= 1300
    assert 0.25 < plain["chance"]["text"] < 0.27
    assert plain["accuracy"]["low"] < plain["chance"]["text"] < plain["accuracy"]["high"]
    assert set(plain["by"]) == {"question_type", "category", "needs", "family"}
    assert plain["letters"]["right"]["p_value"] > 0.001
    blind = summary["benchmarks"]["world-iid"]["controls"]["mute+black"]["against_plain"]
    assert blind["guesser"] == "text" and blind["verdict"] == "contains" and abs(blind["gap"]["value"]) < 0.03
    verdicts = Counter(kind["verdict"] for kind in blind["kinds"]["question_type"].values())
    assert verdicts == {"contains": 3}


def test_questions_are_the_worlds_own_mixture_and_none_comes_twice(tmp_path):
    benchmark = WorldBenchmark("iid", 40, tmp_path)
    for video in benchmark.video_ids:
        items = benchmark.items(video)
        assert len({item.id for item in items}) == len(items)
        assert len({(item.form, benchmark.prompt(item)) for item in items}) == len(items)
        formats = Counter(item.tags["question_type"] for item in items if item.form == "choice")
        assert all(count <= 3 for count in formats.values())
    assert [item.form for item in WorldBenchmark("iid", 1, tmp_path, forms=["choice"]).items("iid-00000000")] == [
        "choice"
    ] * 9


def test_a_stopped_run_gives_the_same_bytes(tmp_path, no_media, caplog):
    benchmark = WorldBenchmark("iid", 8, tmp_path)
    whole = run(benchmark, Fake(oracle, media_at_once=3), tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        run(benchmark, Fake(oracle, len(whole) // 2, media_at_once=3), tmp_path / "cut", progress=False)
    name = "items/world-iid.plain.jsonl"
    expected, cut = (tmp_path / "whole" / name).read_bytes(), tmp_path / "cut" / name
    assert 0 < len(cut.read_bytes()) < len(expected)
    with open(cut, "ab") as file:
        file.write(expected[len(cut.read_bytes()) :][:2000])  # as if killed in the middle of a group
    adapter = Fake(oracle, media_at_once=3)
    assert run(benchmark, adapter, tmp_path / "cut", progress=False) == json.loads(json.dumps(whole))
    assert cut.read_bytes() == expected
    assert len(adapter.watched) < 8 and "answers are asked again" in caplog.text
    # Fewer videos are a part of what is there, and nothing is asked anew; more are added.
    fewer = Fake(oracle)
    assert len(run(WorldBenchmark("iid", 4, tmp_path), fewer, tmp_path / "cut", progress=False)) < len(whole)
    assert cut.read_bytes() == expected and not fewer.watched
    run(WorldBenchmark("iid", 10, tmp_path), Fake(oracle), tmp_path / "cut", progress=False)
    assert cut.read_bytes()[: len(expected)] == expected


def test_a_folder_of_another_run_is_refused(tmp_path, no_media):
    evaluate_with(Fake(oracle), tmp_path, ["iid"], [], videos=1)
    other = Fake(oracle)
    other.settings = {"model": "another"}
    with pytest.raises(RunMismatchError, match="model 'fake', but 'another'"):
        evaluate_with(other, tmp_path, ["iid"], [], videos=1)
    # So is one of other questions; more of the same are added.
    answers = (tmp_path / "items/world-iid.plain.jsonl").read_bytes()
    for change in ({"seed": 5}, {"per_format": 1}, {"forms": ["open"]}):
        with pytest.raises(RunMismatchError, match="benchmarks .*world-iid"):
            evaluate_with(Fake(oracle), tmp_path, ["iid"], [], videos=1, **change)
    with pytest.raises(RunMismatchError, match="world-vfr"):
        evaluate_with(Fake(oracle), tmp_path, ["vfr"], [], videos=1)
    assert (tmp_path / "items/world-iid.plain.jsonl").read_bytes() == answers
    evaluate_with(Fake(oracle), tmp_path, ["iid"], [], videos=2)


def test_the_embedded_model_through_real_files(tmp_path):
    model, processor = load()
    options = {"videos": 2, "per_format": 1, "max_new_tokens": 3, "fps": 2, "progress": False}
    summary = evaluate_world(
        model, processor, tmp_path / "run", controls=["no-audio", "no-time"], media_dir=tmp_path / "videos", **options
    )
    assert summary["settings"]["frames"]["fps"] == 2
    again = evaluate_world(model, processor, tmp_path / "run", media_dir=tmp_path / "videos", **options)
    assert again["accuracy"] == summary["accuracy"]
    files = sorted((tmp_path / "videos" / "iid").iterdir())
    assert len(files) == 2
    rows = {
        control: [json.loads(line) for line in open(tmp_path / f"run/items/world-iid.{control}.jsonl")]
        for control in ("plain", "no-audio", "no-time")
    }
    duration = rows["plain"][0]["fed"]["video_seconds"]
    assert rows["plain"][0]["fed"]["frames"] == pytest.approx(2 * duration, abs=1)
    assert rows["plain"][0]["fed"]["audio_seconds"] == pytest.approx(duration, abs=0.3)
    assert rows["no-audio"][0]["fed"]["audio_seconds"] == 0
    assert rows["no-time"][0]["fed"]["video_seconds"] == 0
    assert {row["form"] for row in rows["no-time"]} == {"choice"}
    # Alone or in a batch of mixed lengths, greedy answers are the same.
    benchmark = WorldBenchmark("iid", 2, tmp_path / "videos", per_format=1)
    alone = world.MemoryAdapter(model, processor, batch_size=1, max_new_tokens=3, fps=2)
    again = run(benchmark, alone, tmp_path / "alone", progress=False)
    assert [row["output"] for row in again] == [row["output"] for row in rows["plain"]]


def test_items_of_a_moved_clock_name_moved_times(tmp_path):
    benchmark = WorldBenchmark("iid", 1, tmp_path)
    moved = [next(runner._under(control_named("clock=+100"), item)) for item in benchmark.items("iid-00000000")]
    for item, original in zip(moved, benchmark.items("iid-00000000"), strict=True):
        assert (item.id, item.tags, item.chance) == (original.id, original.tags, original.chance)
        if original.tags["question_type"] == "global":
            assert item == original
        elif original.form == "range":
            ends = zip(parse_range(item.answer), parse_range(original.answer), strict=True)
            assert {after - before for after, before in ends} == {100_000_000}
    assert next(runner._under(PLAIN, original)) == original
