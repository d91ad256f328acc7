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
    ControlError,
    EndpointAdapter,
    GuessingAdapter,
    MemoryAdapter,
    OpenQA,
    Pair,
    ProtocolError,
    RunMismatchError,
    TextAdapter,
    TransformersAdapter,
    WorldBenchmark,
    compare,
    control_named,
    evaluate,
    run,
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

    class Numbers:
        """A word is the number of a token."""

        def __call__(self, text, add_special_tokens=False):
            return type("Ids", (), {"input_ids": list(map(int, text.split()))})

    def words(tokens):
        return " ".join(map(str, tokens))

    def weigh(candidates, leads=None):
        return adapters.weigh(model, Numbers(), adapter._inputs(asked), candidates, leads)

    rows = said.tolist()
    found = weigh([[words(row), "5 6 7 8"] for row in rows])
    for row in range(2):
        assert found[row][0].logprob == pytest.approx(expected[row], abs=1e-3)
        assert found[row][0].tokens == 3 and found[row][0].per_token > found[row][1].per_token
    single = weigh([[words(row[:1])] for row in rows])
    assert single[0][0].logprob == pytest.approx(scores[0][0, said[0, 0]].item(), abs=1e-3)
    # Behind words of its own: those are read, and not weighed.
    behind = weigh([[words(row[1:]), "5"] for row in rows], [words(row[:1]) + " " for row in rows])
    for row in range(2):
        last = sum(step[row, said[row, 1 + at]].item() for at, step in enumerate(scores[1:]))
        assert behind[row][0].logprob == pytest.approx(last, abs=1e-3)
        assert [one.tokens for one in behind[row]] == [2, 1]
    with pytest.raises(ProtocolError, match="no tokens"):
        weigh([["5", ""]] * 2)


def test_a_savenvideo_chooses_behind_what_it_says_first(tiny, tmp_path):
    """Options are weighed behind the times that the tiny model names first: it chooses what it would have said, and
    one of the options even where it would have said none."""
    benchmark = WorldBenchmark("iid", 3, tmp_path, forms=["choice"])
    adapter = MemoryAdapter(*tiny)
    said = run(benchmark, adapter, tmp_path, progress=False)
    chosen = run(benchmark, adapter, tmp_path, protocol="likelihood", progress=False)
    same = [one["parsed"] == other["parsed"] for one, other in zip(said, chosen, strict=True) if one["parsed"]]
    assert len(same) >= 20 and sum(same) >= len(same) - 1
    assert {row["parsed"] for row in chosen} <= set("ABCD")


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


def guess(folder, out, rule, controls=()):
    evaluate(OpenQA(folder), GuessingAdapter(rule), out, controls, progress=False)


def test_runs_are_compared_on_the_same_media_alone(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    guess(copy, tmp_path / "a", "always-a", ["circular"])
    guess(copy, tmp_path / "longest", "longest")
    found = compare(tmp_path / "a", tmp_path / "longest")["runs"]["open-qa.plain"]
    assert (found["first"]["value"], found["second"]["value"]) == (0, 1)
    assert found["difference"]["value"] == 1 and found["same_prompts"]
    assert found["mcnemar"] == pytest.approx({"only_first": 0, "only_second": 3, "p_value": 0.25})
    (copy / "a.mp4").write_bytes((copy / "b.mp4").read_bytes())
    guess(copy, tmp_path / "random", "random")
    refused = "1 videos of open-qa.plain are not the same .* such as a.mp4"
    with pytest.raises(ComparisonError, match=refused):
        compare(tmp_path / "a", tmp_path / "random")
    # What was answered about counts, not what lies there when the report is written again.
    answered = json.loads((tmp_path / "a" / "hashes.json").read_text())
    guess(copy, tmp_path / "a", "always-a", ["circular"])
    assert json.loads((tmp_path / "a" / "hashes.json").read_text()) == answered
    with pytest.raises(ComparisonError, match=refused):
        compare(tmp_path / "a", tmp_path / "random")
    # A run that does not say what it was about is no reason to believe that it was the same.
    items = tmp_path / "random" / "items" / "open-qa.plain.jsonl"
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    items.write_text("".join(json.dumps({**row, "media": None}) + "\n" for row in rows))
    with pytest.raises(ComparisonError, match="3 videos of open-qa.plain .* or not known"):
        compare(tmp_path / "random", tmp_path / "random")
    items.write_text("".join(json.dumps({**row, "question": "Other?"}) + "\n" for row in rows))
    with pytest.raises(ComparisonError, match="a.mp4 1 is another question"):
        compare(tmp_path / "random", tmp_path / "longest")
    with pytest.raises(ComparisonError, match="holds no finished run"):
        compare(tmp_path / "a", tmp_path)


def test_another_benchmark_erases_no_answers(folder, tmp_path):
    copy, out = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(folder, copy)
    guess(copy, out, "always-a")
    files = ("items/open-qa.plain.jsonl", "hashes.json", "run.json")
    before = [(out / name).read_bytes() for name in files]
    (copy / "mine.jsonl").write_text((copy / "mine.jsonl").read_text().replace("Which?", "Which one?"))
    with pytest.raises(RunMismatchError, match="benchmarks .*annotations"):
        guess(copy, out, "always-a")
    with pytest.raises(RunMismatchError, match="clotho-aqa"):
        evaluate(OpenQA(folder, rules="clotho-aqa"), GuessingAdapter("always-a"), out, progress=False)
    with pytest.raises(RunMismatchError, match="world-iid"):
        evaluate(WorldBenchmark("iid", 1, tmp_path), GuessingAdapter("always-a"), out, progress=False)
    assert [(out / name).read_bytes() for name in files] == before


def test_answers_are_written_for_as_many_videos_as_are_asked_together(folder, tmp_path):
    """A run that is killed loses one video's answers, or a batch's where that is faster."""
    for together, kept in ((1, 2), (3, 0)):
        out = tmp_path / str(together)
        with pytest.raises(KeyboardInterrupt):
            run(OpenQA(folder), Fake(lambda one: "B", 3, media_at_once=together), out, progress=False)
        path = out / "items" / "open-qa.plain.jsonl"
        assert (len(path.read_text().splitlines()) if path.is_file() else 0) == kept
    assert (GuessingAdapter("random").media_at_once, TransformersAdapter.media_at_once) == (1, 1)
    assert MemoryAdapter.media_at_once == TextAdapter.media_at_once == 16  # their batches are of several videos


def test_what_a_control_cannot_be_done_to_is_left_out_of_it(folder, tmp_path):
    from PIL import Image

    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (64, 64), "red").save(data / "red.png")
    rows = [{"image": "red.png", "question": "What?", "options": ["x", "y"], "answer": "A"}]
    (data / "mine.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(ControlError, match="mute can be done to no medium of open-qa: .* of kind image"):
        guess(data, tmp_path / "images", "always-a", ["mute"])
    shutil.copy(folder / "b.mp4", data)
    rows.append({"video": "b.mp4", "question": "Which?", "options": ["x", "y"], "answer": "B"})
    (data / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for _ in range(2):  # and again, from what is there
        guess(data, tmp_path / "both", "always-a", ["mute"])
        summary = json.loads((tmp_path / "both" / "summary.json").read_text())
        found = summary["benchmarks"]["open-qa"]
        assert found["plain"]["choice"]["accuracy"]["value"] == 0.5
        muted = found["controls"]["mute"]
        assert muted["not_applicable"] == 1 and muted["unreadable"] == 0
        assert muted["choice"]["accuracy"]["n"] == muted["against_plain"]["difference"]["n"] == 1
        assert muted["against_plain"]["difference"]["value"] == 0
    first, _ = rows_of(tmp_path / "both", "open-qa.mute")
    assert "of kind image" in first["not_applicable"] and "correct" not in first


def test_controls_that_do_not_go_with_a_model_are_refused_before_anything_is_asked(folder, tiny, tmp_path):
    cases = [
        (MemoryAdapter(*tiny, sampling="query"), "no-time"),
        (MemoryAdapter(*tiny), "no-video+clock=+5"),
        (TextAdapter(tiny[0], tiny[1].tokenizer, "tiny", "subtitles"), "swap"),
        (EndpointAdapter("http://127.0.0.1:9/v1", "m"), "no-time"),
    ]
    for at, (adapter, control) in enumerate(cases):
        with pytest.raises(ControlError):
            evaluate(OpenQA(folder), adapter, tmp_path / str(at), [control], progress=False)
        assert not (tmp_path / str(at)).exists()
    single = tmp_path / "single"
    single.mkdir()
    shutil.copy(folder / "b.mp4", single)
    (single / "mine.jsonl").write_text(json.dumps({"video": "b.mp4", "question": "What?", "answer": "x"}))
    with pytest.raises(ControlError, match="no other one with sound"):
        guess(single, tmp_path / "out", "random", ["swap"])
    assert not (tmp_path / "out").exists()


def test_media_of_one_name_in_two_folders_are_edited_apart(folder, tmp_path):
    for at, source in (("a", "a.mp4"), ("c", "b.mp4")):
        (tmp_path / at).mkdir()
        shutil.copy(folder / source, tmp_path / at / "1.mp4")
    rows = [{"video": f"{at}/1.mp4", "question": "?", "answer": "x"} for at in "ac"]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lengths = []

    class Looks(Fake):
        def watch(self, media, control):
            with open_media(media) as opened:
                lengths.append(opened.duration)
            return super().watch(media, control)

    run(OpenQA(tmp_path), Looks(lambda one: "x", media_at_once=2), tmp_path / "run", control_named("mute"),
        progress=False)  # fmt: skip
    with open_media(folder / "a.mp4") as one, open_media(folder / "b.mp4") as other:
        assert lengths == pytest.approx([one.duration, other.duration], abs=100_000) and one.duration != other.duration


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
import test_evaluate
test_evaluate.{who}({out!r}, {stop!r})
"""


def guessed(out, stop=0):
    """A run over the world by a rule; the process kills itself after `stop` answers."""
    world.rendered = lambda scene, media_dir, size: media_dir / f"{scene.video_id}.mp4"
    rule, said = GuessingAdapter("random"), []

    class Rule:
        settings = {"model": "rule"}
        media_at_once = 2

        def watch(self, media, control):
            return rule.watch(media, control)

        def answer(self, asked, progress=None):
            said.extend(asked)
            if stop and len(said) > stop:
                os.kill(os.getpid(), 9)
            return rule.answer(asked)

    evaluate(WorldBenchmark("iid", 7, out), Rule(), out, ["circular"], progress=False)


def modelled(out, stop=0):
    """The same of the embedded model, whose batches are of questions on two videos."""
    adapter = MemoryAdapter(*load(), max_new_tokens=3, num_frames=2)
    adapter.media_at_once, left = 2, [stop]
    answer = adapter.answer

    def counted(asked, progress=None):
        left[0] -= len(asked)
        if stop and left[0] < 0:
            os.kill(os.getpid(), 9)
        return answer(asked, progress)

    adapter.answer = counted
    benchmark = WorldBenchmark("iid", 6, os.path.join(os.path.dirname(out), "videos"), per_format=1)
    evaluate(benchmark, adapter, out, ["no-audio"], ("generate", "likelihood"), progress=False)


def process(out, stop=0, who="guessed", **environment):
    code = KILLED.format(paths=sys.path, out=str(out), stop=stop, who=who)
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


@pytest.mark.slow
def test_a_killed_run_of_the_tiny_model_gives_the_same_bytes(tmp_path):
    assert process(tmp_path / "whole", who="modelled").wait() == 0
    assert process(tmp_path / "killed", 20, "modelled").wait() == -9
    assert (
        0 < len(rows_of(tmp_path / "killed", "world-iid.plain")) < len(rows_of(tmp_path / "whole", "world-iid.plain"))
    )
    assert process(tmp_path / "killed", who="modelled").wait() == 0
    names = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    assert len([name for name in names if name.parts[0] == "items"]) == 4
    for name in names:
        if name.name != "timing.json":
            assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_groups_of_a_stopped_parallel_run_are_taken_up(tmp_path, monkeypatch):
    """Parts that processes left behind are not answered again."""
    monkeypatch.setattr(world, "rendered", lambda scene, media_dir, size: media_dir / f"{scene.video_id}.mp4")
    benchmark = WorldBenchmark("iid", 6, tmp_path)
    rows = run(benchmark, Fake(lambda one: "A", media_at_once=2), tmp_path / "whole", progress=False)
    expected = (tmp_path / "whole/items/world-iid.plain.jsonl").read_bytes()
    parts = tmp_path / "other/items/world-iid.plain.parts"
    parts.mkdir(parents=True)
    second = [row for row in rows if row["video_id"] in benchmark.video_ids[2:4]]
    (parts / "000001.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in second))
    adapter = Fake(lambda one: "A", media_at_once=2)
    run(benchmark, adapter, tmp_path / "other", progress=False)
    assert len(adapter.watched) == 4
    assert (tmp_path / "other/items/world-iid.plain.jsonl").read_bytes() == expected and not parts.exists()
