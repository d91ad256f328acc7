"""The world's tables, with models whose figures are known beforehand: no file is rendered and no weights are read."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from saven_hf.evaluation import Control, Likelihood, catalog
from saven_hf.evaluation.tables import tables_in


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "evaluation"))
from fakes import Fake, in_form, oracle  # noqa: E402 - of the tests of the evaluation


class Knows(Fake):
    """The oracle, also of what is in time, and with options that it can weigh."""

    def __init__(self):
        super().__init__(lambda one: one.item.answer if "offset" in one.item.tags else oracle(one))
        self.asked = 0

    def answer(self, asked, progress=None):
        self.asked += len(asked)
        return super().answer(asked, progress)

    def candidates(self, item):
        return [in_form(item, option) for option in item.options]

    def likelihoods(self, asked, candidates, progress=None):
        self.asked += len(asked)
        right = [in_form(one.item, one.item.options["ABCD".index(one.item.answer)]) for one in asked]
        return [
            [Likelihood(-1.0 - (text != answer), 1) for text in those]
            for those, answer in zip(candidates, right, strict=True)
        ]


@pytest.fixture
def tables(monkeypatch):
    spec = importlib.util.spec_from_file_location("world_tables", ROOT / "benchmarks" / "world_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HELD_OUT", ("vfr",))
    for name in ("world", "sync"):
        monkeypatch.setattr(
            f"saven_hf.evaluation.{name}.rendered", lambda scene, folder, size: folder / f"{scene.video_id}.mp4"
        )
    monkeypatch.setattr(Control, "edited", lambda control, source, *_: source)
    monkeypatch.setattr("saven_hf.evaluation.runner._partner", lambda benchmark, video: benchmark.media(video))
    monkeypatch.setattr("saven_hf.evaluation.plots.draw_report", lambda *_: {})
    module.knows = Knows()

    def adapter(model=None, device=None, baseline=None, *rest, **more):
        return module.knows if baseline is None else catalog.open_adapter(model, device, baseline, *rest, **more)

    monkeypatch.setattr("saven_hf.evaluation.open_adapter", adapter)
    return module


def words(tmp_path, *only):
    counts = {"videos": 4, "split-videos": 2, "control-videos": 3, "sync-videos": 4, "speed-videos": 2}
    sizes = [word for name, count in counts.items() for word in (f"--{name}", str(count))]
    return ["--out", str(tmp_path / "runs"), "--docs", str(tmp_path / "results.md"), *sizes, "--only", *only]


def table_named(text, title):
    return next(one for one in tables_in(text) if one.title == title)


def items(folder, name):
    return [json.loads(line) for line in (folder / "items" / f"{name}.jsonl").read_text().splitlines()]


def test_one_command_asks_everything_and_says_what_was_reached(tables, tmp_path, capsys):
    assert tables.main(words(tmp_path, "model", "random")) == 0
    text = (tmp_path / "results.md").read_text()
    found = json.loads((tmp_path / "results.json").read_text())
    assert str(tmp_path) not in text and str(ROOT) not in text
    by_split = table_named(text, "Multiple choice, percent right, by split")
    assert by_split.header == ["", "iid", "vfr"]
    named = {row[0]: row[1:] for row in by_split.rows}
    assert named["model"] == ["100.0 [100.0, 100.0]"] * 2
    assert named["questions"] == ["36", "18"] and named["videos"] == ["4", "2"]
    # Figures are those of the rows, chance levels those that the world stores.
    rows = items(tmp_path / "runs" / "random" / "iid", "world-iid.plain")
    choices = [row for row in rows if row["form"] == "choice"]
    accuracy = sum(row["correct"] for row in choices) / len(choices)
    assert named["random"][0].startswith(f"{100 * accuracy:.1f} [")
    level = sum(row["chance"]["sound"] for row in choices) / len(choices)
    assert named["best guesser that has the sound"][0] == f"{100 * level:.1f}"
    assert found["plain"]["random"]["iid"]["choice"]["accuracy"]["value"] == pytest.approx(accuracy)
    # Every control, of everyone; for the model also by likelihood.
    shown = {tuple(row[:2]): row for row in table_named(text, "Controls").rows}
    assert set(shown) == {
        (who, name) for who in ("model", "random") for name in ("plain", *tables.REMOVED, *tables.MOVED)
    }
    lacking = [
        row
        for row in items(tmp_path / "runs" / "random" / "removed", "world-iid.mute")
        if row["tags"]["needs"] != "picture"
    ]
    level = sum(row["chance"]["picture"] for row in lacking) / len(lacking)
    assert shown["random", "mute"][7] == f"{100 * level:.1f}" and shown["model", "mute"][9] == "above"
    # All have four options, and whoever guesses evenly has a quarter of them right.
    assert named["uniform chance"] == ["25.0"] * 2 and {row[4] for row in shown.values()} == {"25.0"}
    command = "python benchmarks/world_tables.py --out runs --speech-model subtitles --only model random --videos 4"
    assert f"The runs were made by `{command} --split-videos 2 --control-videos 3 --sync-videos 4" in text
    assert "Not made: always-a/iid, always-a/splits, always-a/removed, always-a/moved, longest/iid" in text
    weighed = {tuple(row[:2]) for row in table_named(text, "Controls, by the most probable option").rows}
    assert weighed == {("model", name) for name in ("plain", *tables.REMOVED, *tables.MOVED)}
    assert named["model by the most probable option"] == ["100.0 [100.0, 100.0]"] * 2
    assert "random by the most probable option" not in named
    goals = {row[0]: row[2] for row in table_named(text, "What the world was made for").rows}
    assert goals["multiple choice, `iid`: at least 90 %"] == "yes"
    assert goals["multiple choice, `iid` by the most probable option: at least 90 %"] == "yes"
    assert goals["multiple choice, `long2`: at least 75 %"] == "not measured"
    assert goals["`clock=+100`: at least 90 % of ranges move by 100 +- 1 s"] == "yes"
    assert found["sync"]["model"]["accuracy"] == 1 and "sync_frames" in found
    assert goals["shifts of 0.5 s and more: balanced accuracy at least 85 %"] == "yes"
    # It knows what it cannot have seen.
    assert goals["`mute+black`: the interval contains the exact level, gap at most 3 points"] == "**no**"
    assert found["seconds"]["items"] == 18
    assert re.search(r"random/moved: saven eval .*no-time,swap,shift=\+2,clock=\+100", capsys.readouterr().out)


def test_what_is_there_is_not_asked_again(tables, tmp_path, capsys):
    assert tables.main([*words(tmp_path, "model"), "--tables-only"]) == 2
    assert "no complete run" in capsys.readouterr().err
    assert tables.main(words(tmp_path, "model")) == 0
    asked, text = tables.knows.asked, (tmp_path / "results.md").read_text()
    spent = (tmp_path / "runs" / "seconds.json").read_text()
    assert asked > 100
    # A run that was lost is made again, and gives the same figures; the others are left as they are.
    (tmp_path / "runs/model/splits/items/world-vfr.plain.jsonl").unlink()
    assert tables.main(words(tmp_path, "model")) == 0
    assert asked < tables.knows.asked < 1.2 * asked
    assert (tmp_path / "results.md").read_text() == text
    assert (tmp_path / "runs" / "seconds.json").read_text() == spent
    # Another model, another folder.
    tables.knows.settings = {"model": "another"}
    with pytest.raises(SystemExit) as refused:
        tables.main(words(tmp_path, "model"))
    assert refused.value.code == 2 and "give another folder" in capsys.readouterr().err


def test_where_nobody_speaks_what_is_said_is_empty(tables, tmp_path, monkeypatch):
    def adapter(*given, **more):
        opened = catalog.open_adapter(*given, **more)
        opened.max_new_tokens, opened.batch_size = 2, 64
        return opened

    monkeypatch.setattr("saven_hf.evaluation.open_adapter", adapter)
    fewer = ["--videos", "1", "--split-videos", "1", "--control-videos", "1", "--sync-videos", "2"]
    assert tables.main([*words(tmp_path, "text-only", "speech-text"), *fewer]) == 0
    text, runs = (tmp_path / "results.md").read_text(), tmp_path / "runs"
    assert "the transcript that speech-text reads is empty" in text
    said = items(runs / "speech-text" / "iid", "world-iid.plain")
    assert {row["fed"]["transcript_words"] for row in said} == {0} and len(said) > 9
    alone = items(runs / "text-only" / "iid", "world-iid.plain")
    assert [row["output"] for row in said] == [row["output"] for row in alone] and any(row["output"] for row in said)
    # Subtitles are of the file as it was: no control that edits it, but for those that leave nothing to hear.
    shown = {tuple(row[:2]) for row in table_named(text, "Controls").rows}
    assert {name for who, name in shown if who == "text-only"} == {"plain", *tables.REMOVED, *tables.MOVED}
    assert {name for who, name in shown if who == "speech-text"} == {
        "plain", "mute", "mute+black", "no-time", "clock=+100",
    }  # fmt: skip
