"""`saven eval`, run as a user runs it."""

import json
import re

import pytest
from small import save_small_model
from tiny import QFORMER

from saven_hf.cli import main


def test_prints_an_object_with_the_accuracy(tmp_path, capsys):
    words = ["eval", "--benchmark", "world", "--split", "vfr", "--videos", "1", "--fps", "1", "--out", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    items = (tmp_path / "items" / "world-vfr.plain.jsonl").read_text().splitlines()
    choices = [item for item in map(json.loads, items) if item["form"] == "choice"]
    accuracy = sum(item["correct"] for item in choices) / 9
    assert len(choices) == 9 and summary["accuracy"] == pytest.approx(accuracy)
    unparsable = sum(item["parsed"] is None for item in choices)
    assert summary["benchmarks"]["world-vfr"]["plain"]["choice"]["unparsable"] == unparsable
    settings = json.loads((tmp_path / "run.json").read_text())["benchmarks"]["world-vfr"]
    assert settings["per_format"] == 3 and settings["forms"] == ["choice", "open"] and settings["seed"] == 0
    # Again, and with other frames: what is there is used, or refused.
    assert main(words) == 0
    out = capsys.readouterr().out
    assert f"{100 * accuracy:.1f} % right; tables are in " in out and "asked 18 of 18 questions" in out
    shares = dict(re.findall(r"(\w+) (\d+) %", out.partition("vfr: asked")[0]))
    assert list(shares) == ["decode", "encode", "prefill", "generate"]
    assert sum(map(int, shares.values())) == pytest.approx(100, abs=2) and int(shares["prefill"]) > 0
    assert main([*words, "--fps", "2"]) == 2
    assert "another folder" in capsys.readouterr().err


def test_a_baseline_beside_another(tmp_path, capsys):
    words = [
        "eval",
        "--benchmark",
        "world",
        "--videos",
        "3",
        "--data",
        str(tmp_path / "videos"),
        "--control",
        "circular",
    ]
    for rule in ("random", "always-a"):
        assert main([*words, "--baseline", rule, "--out", str(tmp_path / rule)]) == 0
    assert main(["eval", "compare", str(tmp_path / "random"), str(tmp_path / "always-a")]) == 0
    out = capsys.readouterr().out
    assert "| world-iid.plain | 27 |" in out and "McNemar p" in out
    # "A" is right once in a whole turn of four options, and never in all of them.
    summary = json.loads((tmp_path / "always-a" / "summary.json").read_text())
    turned = summary["benchmarks"]["world-iid"]["controls"]["circular"]["against_plain"]
    assert turned["mean"]["value"] == 0.25 and turned["consistent"]["value"] == 0
    assert turned["by_letter"]["A"]["value"] == 1 and turned["by_letter"]["B"]["value"] == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (["world", "--split", "iid,moon"], "no split 'moon'"),
        (["world", "--control", "mute,louder"], "no control 'louder'"),
        (["world", "--control", "mute+no-audio"], "removes the same thing twice"),
        (["world", "--seed", "-1"], "at least 0"),
        (["world", "--forms", "closed"], "choice, open, or both"),
        (["world-sync", "--forms", "choice"], "the world's questions alone"),
        (["world-sync", "--control", "mute"], "no control"),
        (["world-sync", "--videos", "1"], "at least 2 videos"),
        (["world-sync", "--protocol", "likelihood"], "open questions alone"),
        (["world", "--model", "/nowhere/model"], "not a model folder"),
        (["moon"], "no benchmark 'moon'"),
        (["videomme"], "--data DIR"),
        (["videomme", "--data", "/nowhere"], "no folder /nowhere"),
        (["world", "--baseline", "text-only"], "needs a language model"),
        (["world", "--endpoint", "http://127.0.0.1:9"], "the name of its model"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, capsys, words, said):
    assert main(["eval", "--out", str(tmp_path / "run"), "--benchmark", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_causal_qformer_runs_with_controls(tmp_path, capsys):
    """Windows of their own length, a speech tower beside BEATs, sound missing, muted and moved."""
    model = save_small_model(tmp_path / "model", **QFORMER)
    words = ["eval", "--benchmark", "world", "--split", "vfr", "--videos", "1", "--fps", "2", "--json"]
    words += ["--model", model, "--out", str(tmp_path / "run"), "--control", "no-audio,clock=+100,no-time"]
    assert main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    found = summary["benchmarks"]["world-vfr"]
    assert set(found["controls"]) == {"no-audio", "clock=+100", "no-time"} and "choice" in found["plain"]


def test_compare_needs_two_runs(tmp_path, capsys):
    assert main(["eval", "compare", str(tmp_path)]) == 2
    assert "compare A B" in capsys.readouterr().err
    assert main(["eval", "compare", str(tmp_path), str(tmp_path)]) == 2
    assert "holds no finished run" in capsys.readouterr().err
