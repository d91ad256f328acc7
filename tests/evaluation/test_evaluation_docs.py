"""docs/evaluation.md says what the code does."""

import ast
import re
from pathlib import Path

from saven_hf import evaluation
from saven_hf.evaluation.catalog import BASELINES, BENCHMARKS
from saven_hf.evaluation.controls import CONTROLS


TEXT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_every_benchmark_baseline_and_control_is_named():
    for name in {re.sub(r"^aveb-.*", "aveb-TASK", name) for name in BENCHMARKS} | set(BASELINES):
        assert name in TEXT, name
    for name in CONTROLS:
        assert f"`{name.partition('=')[0]}" in TEXT, name


def test_examples_call_what_there_is():
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    names = [
        name.name
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.ImportFrom) and node.module == "saven_hf.evaluation"
        for name in node.names
    ]
    assert names and all(hasattr(evaluation, name) for name in names)


def test_controls_of_the_table_are_controls():
    table = TEXT.split("## Controls")[1].split("\n\n")[2]
    for name in re.findall(r"^\| `(.*?)` \|", table, flags=re.MULTILINE):
        assert evaluation.control_named(name).name == name
