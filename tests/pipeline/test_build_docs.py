"""docs/build.md says what the code does."""

import re
import shutil
from pathlib import Path

import pytest

from saven_hf.data.schema import CHECKS
from saven_hf.pipeline import ANNOTATORS, STAGES
from saven_hf.pipeline.rules import rule_table
from saven_hf.pipeline.templates import TEMPLATES


TEXT = (Path(__file__).parents[2] / "docs" / "build.md").read_text(encoding="utf-8")


def test_the_table_of_rules_is_up_to_date():
    assert TEXT.split("rule_table() -->\n")[1].split("\n<!-- end -->")[0] == rule_table()


def test_stages_annotators_checks_and_prompts_are_described():
    for name in (*STAGES, *ANNOTATORS, *CHECKS):
        assert f"`{name}`" in TEXT, name
    for name in TEMPLATES:
        assert name in TEXT or name in ("merge_audio", "repair")


def test_the_examples_run(world_folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("datatrove", reason="builds run on datatrove's executors: pip install saven-hf[pipeline]")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    for path in sorted(world_folder.iterdir())[:3]:
        shutil.copy(path, tmp_path / "videos")
    build, choose = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec(compile(build, "build.md", "exec"), {"__name__": "__main__"})
    assert "questions; []" in capsys.readouterr().out
    found: dict = {}
    exec(compile(choose, "build.md", "exec"), found)
    assert 0 < len(found["kept"]) <= len(found["questions"])
