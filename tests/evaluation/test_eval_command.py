"""`saven eval`, run as a user runs it."""

import json

import pytest
from small import save_small_model
from tiny import QFORMER

from saven_hf.cli import main


def test_prints_an_object_with_the_accuracy(tmp_path, capsys):
    words = ["eval", "--benchmark", "world", "--split", "vfr", "--videos", "1", "--fps", "1", "--out", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["accuracy"] == 0 and "world-vfr" in summary["benchmarks"]
    assert summary["benchmarks"]["world-vfr"]["plain"]["choice"]["unparsable"] == 9
    # Again, and with other frames: what is there is used, or refused.
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("0.0 % right; tables are in ")
    assert main([*words, "--fps", "2"]) == 2
    assert "another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, said",
    [
        (["world", "--split", "iid,moon"], "no split 'moon'"),
        (["world", "--control", "mute,louder"], "no control 'louder'"),
        (["world", "--control", "mute+no-audio"], "removes the same thing twice"),
        (["world", "--seed", "-1"], "at least 0"),
        (["world", "--sampling", "query"], "--sampling query"),
        (["world-sync", "--control", "mute"], "no control"),
        (["world", "--model", "/nowhere/model"], "not a model folder"),
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
