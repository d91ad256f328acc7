"""`saven verify`: a whole model passes, and each kind of damage is told."""

import json
import re
import shutil
from itertools import count, islice, product
from math import prod

import pytest
from published_videollama2 import Published
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from saven_hf.ask import Answer, VideoSession
from saven_hf.cli import main
from saven_hf.hub import ModelNotFoundError
from saven_hf.peers.videollama2 import convert_videollama2
from saven_hf.verify import (
    WORLD_SEEDS,
    WORLD_SPLIT,
    GoldenError,
    GoldenQuestion,
    beyond_luck,
    read_golden,
    verify,
)
from saven_hf.world import SPLITS, sample_scene


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A tiny VideoLLaMA 2, as `saven convert` writes it."""
    root = tmp_path_factory.mktemp("verify")
    convert_videollama2(Published(root / "published").folder, root / "model")
    return root / "model"


@pytest.fixture
def copy(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "model")
    return tmp_path / "model"


def checks_of(result):
    return {check.name: check for check in result.checks}


def test_a_converted_model_is_whole_and_answers_depend_on_what_they_should(converted, monkeypatch):
    monkeypatch.setattr("saven_hf.verify.WORLD_SEEDS", (1,))
    seen = []
    result = verify(converted, "cpu", on_check=seen.append)
    assert seen == result.checks
    checks = checks_of(result)
    names = ["config", "files", "names, shapes, values", "processor", "loading", "the same answer"]
    assert list(checks)[:8] == [*names, "the picture counts", "the sound counts"]
    assert all(checks[name].passed for name in list(checks)[:8]), [str(check) for check in result.checks]
    # Random weights know no answers: the golden questions say so.
    assert checks["golden questions"].passed is False and not result.passed


SAID = {
    "colour is the circle": "Red",
    "colour is the square": "It is blue.",
    "Which shape": "the circle",
    "two plus": "5",
}


@pytest.mark.parametrize(
    "wrong, passes", [((), True), (("colour is the square",), True), (("two plus", "Which"), False)]
)
def test_a_model_that_looks_and_counts_passes(converted, monkeypatch, wrong, passes):
    """The golden questions of a model with general words, answered in its place."""

    def say(question):
        if any(words in question for words in wrong):
            return "green and blue"
        return next(answer for words, answer in SAID.items() if words in question)

    monkeypatch.setattr(VideoSession, "ask", lambda self, question, **options: Answer(question, say(question), []))
    monkeypatch.setattr("saven_hf.verify._ask_text", lambda model, processor, question: say(question))
    monkeypatch.setattr("saven_hf.verify.GENERAL_VOCABULARY", 0)
    result = verify(converted, "cpu")
    assert checks_of(result)["golden questions"].passed is passes and result.passed is passes
    assert f"{4 - len(wrong)} of 4 right, 3 needed" in checks_of(result)["golden questions"].detail


def test_the_embedded_model_passes():
    result = verify(device="cpu")
    assert result.passed, [str(check) for check in result.checks]
    assert re.match(r"\d+ of 72 about the world right, \d+ needed", checks_of(result)["golden questions"].detail)


def test_the_world_asks_about_the_first_easy_scenes_that_nobody_trained_on():
    easy = (seed for seed in count() if len(sample_scene(seed, WORLD_SPLIT).segments) <= 4)
    assert tuple(islice(easy, len(WORLD_SEEDS))) == WORLD_SEEDS and SPLITS[WORLD_SPLIT].held_out


@pytest.mark.parametrize(
    "chances, luck", [([0.25] * 6, 0.01), ([0.5, 0.25, 0.9, 0.1], 0.05), ([0.5] * 4, 0.01), ([], 0.5)]
)
def test_what_guessing_does_not_reach(chances, luck):
    """Against all outcomes, one by one."""
    needed = beyond_luck(chances, luck)

    def reaches(right):
        outcomes = product((0, 1), repeat=len(chances))
        return sum(
            prod(chance if hit else 1 - chance for hit, chance in zip(hits, chances, strict=True))
            for hits in outcomes
            if sum(hits) >= right
        )

    assert reaches(needed) <= luck < reaches(needed - 1)


def test_golden_questions_of_ones_own(copy, tmp_path, capsys):
    """A model that says nothing but "x" knows the answer to one question and not to another."""
    path = copy / "generation_config.json"
    [says] = AutoTokenizer.from_pretrained(copy)("x", add_special_tokens=False)["input_ids"]
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"suppress_tokens": [one for one in range(320) if one != says]}))
    golden = tmp_path / "golden.jsonl"
    rows = [{"question": "Say something.", "answer": ["y", "x" * 32]}, {"question": "Or?", "answer": "z"}]
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["verify", str(copy), "--device", "cpu", "--questions", str(golden), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    [answer] = [check for check in result["checks"] if check["name"] == "golden questions"]
    assert [check["name"] for check in result["checks"] if check["passed"] is False] == ["golden questions"]
    assert "1 of 2 right, 2 needed; 'Or?' got 'xxx" in answer["detail"] and result["passed"] is False


def lose(folder, name):
    state = load_file(folder / "model.safetensors")
    state.pop(name)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def poison(folder, name):
    state = load_file(folder / "model.safetensors")
    state[name][0] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def edit(folder, file, **fields):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def other_layout(folder):
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["layout"]["patches_per_frame"] = 25
    (folder / "processor_config.json").write_text(json.dumps(settings))


FIT = "names, shapes, values"
DAMAGE = {
    "cut": (cut, "files", "cut short"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "files", "holds no weights"),
    "missing": (lambda f: lose(f, "model.resampler.sampler.0.bias"), FIT, "model.resampler.sampler.0.bias"),
    "nan": (lambda f: poison(f, "model.language_model.norm.weight"), FIT, "norm.weight.*not finite"),
    "config": (lambda f: edit(f, "config.json", resampler_hidden_size=16), FIT, "shape"),
    "no config": (lambda f: edit(f, "config.json", stc_stride=[2]), "config", "three steps"),
    "placeholder": (lambda f: edit(f, "config.json", image_token_id=3), "processor", "placeholder of image"),
    "layout": (other_layout, "processor", "layout"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_told_without_loading(copy, case):
    damage, name, message = DAMAGE[case]
    damage(copy)
    result = verify(copy, "cpu")
    assert not result.passed and "loading" not in checks_of(result)
    failed = checks_of(result)[name]
    assert failed.passed is False
    assert re.search(message, failed.detail), failed.detail


@pytest.mark.slow
def test_a_model_that_does_not_look_or_listen_is_told(copy):
    """Connector weights of zero give every medium the same tokens."""
    state = load_file(copy / "model.safetensors")
    for name in state:
        if name.startswith(("model.resampler.readout.2", "model.resampler.audio_mlp.down")):
            state[name].zero_()
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    checks = checks_of(verify(copy, "cpu"))
    assert checks["the same answer"].passed and checks["the picture counts"].passed is False


def test_the_command(converted, copy, capsys):
    assert main(["verify", str(converted), "--weights-only"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "passed" and out[0].startswith("pass  config: ")
    cut(copy)
    assert main(["verify", str(copy), "--weights-only"]) == 1
    assert "FAIL  files: " in capsys.readouterr().out
    assert main(["verify", str(copy / "nowhere")]) == 2
    golden = copy / "golden.jsonl"
    golden.write_text("not json\n")
    assert main(["verify", str(converted), "--questions", str(golden)]) == 2
    assert "golden.jsonl:1" in capsys.readouterr().err


def test_what_is_no_model_and_no_question_file(tmp_path):
    with pytest.raises(ModelNotFoundError):
        verify(tmp_path / "nowhere")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(GoldenError, match="no golden questions"):
        read_golden(tmp_path / "empty.jsonl")
    (tmp_path / "golden.jsonl").write_text('{"question": "a", "answer": "b", "video": "clip.mp4"}\n')
    [question] = read_golden(tmp_path / "golden.jsonl")
    assert question.video == str(tmp_path / "clip.mp4") and question.about == "video"


@pytest.mark.parametrize(
    "answer, right",
    [("Red.", True), ("The circle is red", True), ("It is blue, not red", False), ("reddish", False), ("", False)],
)
def test_what_counts_as_right(answer, right):
    assert GoldenQuestion("?", ("red",), ("blue",)).right(answer) == right
