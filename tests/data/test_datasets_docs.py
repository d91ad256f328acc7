"""docs/datasets.md says what the code does."""

import re
from pathlib import Path

from saven_hf.data.builder import EMBEDDED
from saven_hf.data.corpora import CORPORA, LICENCES
from saven_hf.data.hub_folder import statistics
from saven_hf.data.schema import CONFIGS, ROWS


TEXT = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")


def table(number):
    part = TEXT.split("test_datasets_docs.py -->\n")[number].split("\n<!-- end -->")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines()[2:]]


def test_the_columns():
    lines = {name.strip("`"): re.findall(r"`(\w+)`", columns) for name, _, columns in table(1)}
    assert lines == {config: list(ROWS[config].__annotations__) for config in CONFIGS}


def test_the_corpora():
    lines = {name.strip("`"): terms for name, _, terms in table(2)}
    assert lines == {name: LICENCES[name] for name in CORPORA}


def test_the_sizes_of_the_embedded_sets():
    savenvid, avbench = (statistics(EMBEDDED / name) for name in ("savenvid", "avbench"))
    assert f"| {savenvid['videos']['train']['rows']}, {savenvid['qa']['train']['rows']}, " in TEXT
    kinds = savenvid["sft"]["train"]["kinds"]
    rows = sum(kinds.values())
    assert f"{rows} ({rows - kinds['question']} captions + {kinds['question']} questions)" in TEXT
    assert f"| {avbench['videos']['test']['rows']}, {avbench['qa']['test']['rows']}, none |" in TEXT
    lengths = [*savenvid["qa"]["train"]["durations"].values(), *avbench["qa"]["test"]["durations"].values()]
    assert f"{min(lengths):g} to {max(lengths):g} s long" in TEXT
