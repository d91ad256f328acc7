"""The driver on real media: resuming, controls, both protocols, comparison, and models without a memory."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from clip import render
from fakes import Fake

from saven_hf import load
from saven_hf.evaluation import (
    ComparisonError,
    GuessingAdapter,
    MemoryAdapter,
    OpenQA,
    Pair,
    ProtocolError,
    WorldBenchmark,
    compare,
    control_named,
    evaluate,
    run,
    runner,
    world,
)
from saven_hf.evaluation.adapters import Asked
from saven_hf.savenvideo.media import open_media
from saven_hf.world import sample_scene, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos with sound, a broken one, and a choice and an open question on each."""
    path = tmp_path_factory.mktemp("data")
    render(path / "a.mp4")
    write_video(sample_scene(2, "iid", segments=4), path / "b.mp4")
    (path / "broken.mp4").write_bytes((path / "a.mp4").read_bytes()[:3000])
    with open(path / "mine.jsonl", "w") as file:
        for name in ("a.mp4", "b.mp4", "broken.mp4"):
            rows = (
                {"id": f"{name} 1", "video": name, "question": "Which?", "options": ["x", "yy", "z"], "answer": "B"},
                {"id": f"{name} 2", "video": name, "question": "What is heard?", "answer": "a low tone"},
            )
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.fixture(scope="module")
def tiny():
    return load()


def rows_of(out, name):
    return [json.loads(line) for line in (out / "items" / f"{name}.jsonl").read_text().splitlines()]


def test_controls_change_what_is_fed_and_both_protocols_are_reported(folder, tiny, tmp_path):
    controls = ["blind", "no-audio", "no-video", "mute", "swap", "shift=+2", "circular"]
    adapter = MemoryAdapter(*tiny, max_new_tokens=2, num_frames=2)
    out = tmp_path / "run"
    summary = evaluate(OpenQA(folder), adapter, out, controls, ("generate", "likelihood"), progress=False)
    fed = {control: rows_of(out, f"open-qa.{control}")[0]["fed"] for control in ("plain", *controls[:-1])}
    assert fed["plain"]["frames"] == 2 and fed["plain"]["audio_seconds"] == pytest.approx(12, abs=0.3)
    assert (fed["blind"]["frames"], fed["blind"]["audio_seconds"]) == (0, 0)
    assert fed["no-audio"]["frames"] == 2 and fed["no-audio"]["audio_seconds"] == 0
    assert fed["no-video"]["frames"] == 0 and fed["no-video"]["audio_seconds"] == pytest.approx(12, abs=0.3)
    for control in ("mute", "swap", "shift=+2"):
        assert fed[control]["audio_seconds"] == pytest.approx(12, abs=0.3)
    # A video that cannot be read counts as wrong, and says why.
    plain = rows_of(out, "open-qa.plain")
    broken = [row for row in plain if row["video_id"] == "broken.mp4"]
    assert len(broken) == 2 and all(row["error"] and row["correct"] is False for row in broken)
    found = summary["benchmarks"]["open-qa"]
    assert found["denominator"]["unreadable"] == 2 and found["denominator"]["asked"] == 6
    assert set(found["plain"]["choice"]["letters"]["right"]["counts"]) == set("ABC")  # as many as there are options
    assert found["synergy"]["n"] == 3 and found["blind_gap"]["n"] == 3
    assert found["without"] == {"picture": "no-video", "sound": "no-audio"}
    assert len(rows_of(out, "open-qa.circular")) == 2 * 3
    weighed = rows_of(out, "open-qa.plain.likelihood")
    assert set(weighed[0]["logprobs"]) == {"A", "B", "C"} and weighed[0]["rule"] == "likelihood"
    assert set(found["likelihood"]) == {"plain", *controls[:-1]}
    report = (out / "report.md").read_text()
    for heading in ("Two protocols", "Sound and picture, points", "Circular", "Stability"):
        assert f"## {heading}" in report
    assert sorted(path.name for path in folder.iterdir()) == ["a.mp4", "b.mp4", "broken.mp4", "mine.jsonl"]
    # Again: nothing is asked anew, and all bytes are the same.
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "timing.json"}
    again = Fake(None, limit=0)
    again.settings, again.candidates, again.likelihoods = adapter.settings, adapter.candidates, None
    evaluate(OpenQA(folder), again, out, controls, ("generate", "likelihood"), progress=False)
    assert before == {path: path.read_bytes() for path in before}


def test_swap_and_shift_change_the_sound_alone(folder, tmp_path):
    swapped = control_named("swap").edited(folder / "a.mp4", folder / "b.mp4", tmp_path)
    shifted = control_named("shift=+2").edited(folder / "a.mp4", folder=tmp_path)
    with open_media(folder / "a.mp4") as source, open_media(swapped) as other, open_media(shifted) as late:
        assert source.frame_times() == other.frame_times() == late.frame_times()
        sounds = [media.audio()[0] for media in (source, other, late)]
    rate = 16_000
    assert sounds[2][: 2 * rate - 800].abs().max() < 0.01 < sounds[0][: 2 * rate].abs().max()
    length = min(map(len, sounds)) - 3 * rate
    moved = sounds[2][2 * rate : 2 * rate + length]
    assert (moved - sounds[0][:length]).abs().mean() < 0.05 * sounds[0].abs().mean() + 0.01
    assert (sounds[1][:length] - sounds[0][:length]).abs().mean() > 0.01
    assert {swapped.name, shifted.name} == {"a.sound-of-b.mp4", "a.shift=+2.mp4"}


def test_the_most_probable_answer_is_the_models_own(tiny, folder):
    """What is weighed is what `generate` would say: the greedy answer is more probable than any other."""
    model, processor = tiny
    adapter = MemoryAdapter(model, processor, max_new_tokens=3, num_frames=2)
    watched = adapter.watch(folder / "a.mp4", control_named("plain"))
    asked = [Asked(watched, "What is heard?", None), Asked(watched, "Which one of these is it, then?", None)]
    inputs = adapter._inputs(asked)
    output = model.generate(
        **inputs, max_new_tokens=3, do_sample=False, output_scores=True, return_dict_in_generate=True
    )
    width = inputs["input_ids"].shape[1]
    scores = [step.log_softmax(-1) for step in output.scores]
    said = output.sequences[:, width:]
    expected = [sum(step[row, said[row, at]].item() for at, step in enumerate(scores)) for row in range(2)]
    from saven_hf.evaluation import adapters

    class Words:
        """Hands ids over as they are."""

        def __call__(self, text, add_special_tokens=False):
            return type("Ids", (), {"input_ids": text})

    candidates = [[said[row].tolist(), [5, 6, 7, 8]] for row in range(2)]
    found = adapters.weigh(model, Words(), adapter._inputs(asked), candidates)
    for row in range(2):
        assert found[row][0].logprob == pytest.approx(expected[row], abs=1e-3)
        assert found[row][0].tokens == 3 and found[row][0].per_token > found[row][1].per_token
    single = adapters.weigh(model, Words(), adapter._inputs(asked), [[[one[0]]] for one in said.tolist()])
    assert single[0][0].logprob == pytest.approx(scores[0][0, said[0, 0]].item(), abs=1e-3)


def test_images_sounds_and_pairs_are_fed(tiny, folder, tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    adapter = MemoryAdapter(*tiny, max_new_tokens=1, num_frames=2)
    fed = []
    for media in (tmp_path / "red.png", Pair(tmp_path / "red.png", folder / "a.mp4")):
        watched = adapter.watch(media, control_named("plain"))
        adapter.answer([Asked(watched, "What?", None)])
        fed.append(watched.fed)
    assert (fed[0]["frames"], fed[0]["audio_seconds"]) == (1, 0)
    assert fed[1]["frames"] == 1 and fed[1]["audio_seconds"] == pytest.approx(12, abs=0.3)


def test_frames_that_depend_on_the_question(tiny, folder):
    adapter = MemoryAdapter(*tiny, max_new_tokens=1, sampling="query", num_frames=4)
    watched = [adapter.watch(folder / "a.mp4", control_named("plain")) for _ in range(2)]
    answers = adapter.answer([
        Asked(watched[0], "What is seen from 00:00:03 to 00:00:06?", None), Asked(watched[1], "What is seen?", None),
    ])  # fmt: skip
    assert len(answers) == 2 and watched[0].fed["frames"] == watched[1].fed["frames"] == 4
    assert watched[0].fed["audio_seconds"] == pytest.approx(12, abs=0.3)


def test_runs_are_compared_on_the_same_media_alone(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    evaluate(OpenQA(copy), GuessingAdapter("always-a"), tmp_path / "a", progress=False)
    evaluate(OpenQA(copy), GuessingAdapter("longest"), tmp_path / "longest", progress=False)
    found = compare(tmp_path / "a", tmp_path / "longest")["runs"]["open-qa.plain"]
    assert (found["first"]["value"], found["second"]["value"]) == (0, 1)
    assert found["difference"]["value"] == 1 and found["same_prompts"]
    assert found["mcnemar"] == pytest.approx({"only_first": 0, "only_second": 3, "p_value": 0.25})
    (copy / "a.mp4").write_bytes((copy / "b.mp4").read_bytes())
    evaluate(OpenQA(copy), GuessingAdapter("random"), tmp_path / "random", progress=False)
    with pytest.raises(ComparisonError, match="1 videos of open-qa are not the same .* such as a.mp4"):
        compare(tmp_path / "a", tmp_path / "random")
    with pytest.raises(ComparisonError, match="holds no finished run"):
        compare(tmp_path / "a", tmp_path)


def test_guesses_have_no_likelihoods(folder, tmp_path):
    with pytest.raises(ProtocolError, match="no log-likelihoods"):
        evaluate(OpenQA(folder), GuessingAdapter("random"), tmp_path, protocols=["likelihood"], progress=False)


def test_random_guesses_do_not_depend_on_order_or_control(tmp_path):
    benchmark = WorldBenchmark("iid", 4, tmp_path / "videos")
    items = [item for video in benchmark.video_ids for item in benchmark.items(video) if item.options]
    guess = GuessingAdapter("random", 1)
    asked = [Asked(None, "", item) for item in items]
    assert guess.answer(asked) == guess.answer(asked[::-1])[::-1] != GuessingAdapter("random", 2).answer(asked)


KILLED = """
import sys
sys.path[:0] = {paths!r}
from test_evaluate import guessed
guessed({out!r}, {stop!r})
"""


def guessed(out, stop=0):
    """A run over the world by a rule; the process kills itself after `stop` answers."""
    runner.VIDEOS_AT_ONCE = 2
    world.rendered = lambda scene, media_dir, size: media_dir / f"{scene.video_id}.mp4"
    rule, said = GuessingAdapter("random"), []

    class Rule:
        settings = {"model": "rule"}

        def watch(self, media, control):
            return rule.watch(media, control)

        def answer(self, asked, progress=None):
            said.extend(asked)
            if stop and len(said) > stop:
                os.kill(os.getpid(), 9)
            return rule.answer(asked)

    evaluate(WorldBenchmark("iid", 7, out), Rule(), out, ["circular"], progress=False)


def process(out, stop=0, **environment):
    code = KILLED.format(paths=sys.path, out=str(out), stop=stop)
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | environment)


@pytest.mark.slow
def test_a_killed_run_and_one_of_two_processes_give_the_same_bytes(tmp_path):
    assert process(tmp_path / "whole").wait() == 0
    assert process(tmp_path / "killed", stop=60).wait() == -9
    assert process(tmp_path / "killed").wait() == 0
    share = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    both = [process(tmp_path / "two", **share, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]
    assert [one.wait(timeout=300) for one in both] == [0, 0]
    names = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len([name for name in names if name.parts[0] == "items"]) == 2
    for name in names:
        if name.name != "timing.json":
            whole = (tmp_path / "whole" / name).read_bytes()
            assert (tmp_path / "killed" / name).read_bytes() == whole, name
            assert (tmp_path / "two" / name).read_bytes() == whole, name
    assert not list((tmp_path / "two").rglob("*.parts"))


def test_groups_of_a_stopped_parallel_run_are_taken_up(tmp_path, monkeypatch):
    """Parts that processes left behind are not answered again."""
    monkeypatch.setattr(runner, "VIDEOS_AT_ONCE", 2)
    monkeypatch.setattr(world, "rendered", lambda scene, media_dir, size: media_dir / f"{scene.video_id}.mp4")
    benchmark = WorldBenchmark("iid", 6, tmp_path)
    rows = run(benchmark, Fake(lambda one: "A"), tmp_path / "whole", progress=False)
    expected = (tmp_path / "whole/items/world-iid.plain.jsonl").read_bytes()
    parts = tmp_path / "other/items/world-iid.plain.parts"
    parts.mkdir(parents=True)
    second = [row for row in rows if row["video_id"] in benchmark.video_ids[2:4]]
    (parts / "000001.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in second))
    adapter = Fake(lambda one: "A")
    run(benchmark, adapter, tmp_path / "other", progress=False)
    assert len(adapter.watched) == 4
    assert (tmp_path / "other/items/world-iid.plain.jsonl").read_bytes() == expected and not parts.exists()
