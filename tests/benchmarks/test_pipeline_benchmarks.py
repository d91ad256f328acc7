"""The benchmarks of the pipeline, in their smallest form."""

import importlib.util
import sys
from pathlib import Path

import pytest

from saven_hf.pipeline import report, stages
from saven_hf.pipeline.annotators import endpoint
from saven_hf.pipeline.annotators.endpoint import EndpointAnnotator
from saven_hf.savenvideo.media import Media


FOLDER = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *words: str, monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [name, *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    module.main()


def test_cost_is_that_of_the_documentation(monkeypatch, capsys):
    run("pipeline_cost", monkeypatch=monkeypatch)
    table = capsys.readouterr().out.strip()
    assert table in (FOLDER.parent / "docs" / "build.md").read_text(encoding="utf-8")


def test_overhead(monkeypatch, capsys):
    words = ("--videos", "1", "--delay", "0.01", "--concurrency", "4", "--limit")
    # It replaces functions by timed ones for good.
    for owner, name in ((Media, "frames_at"), (Media, "audio"), (Media, "close"), (stages, "open_media"),
                        (report, "open_media"), (endpoint, "_messages"), (EndpointAnnotator, "close")):  # fmt: skip
        monkeypatch.setattr(owner, name, getattr(owner, name))
    for limit, status in (("1000", 0), ("0", 1)):
        with pytest.raises(SystemExit) as ended:
            run("pipeline_overhead", *words, limit, monkeypatch=monkeypatch)
        assert ended.value.code == status
    out = capsys.readouterr().out
    assert out.startswith("1 videos, ") and all(part in out for part in ("calls alone", "decoding", "client"))


@pytest.mark.slow
def test_accuracy(monkeypatch, capsys):
    run("pipeline_accuracy", "--videos", "2", "--scenes", "4", monkeypatch=monkeypatch)
    assert "both captions  1.000" in capsys.readouterr().out
