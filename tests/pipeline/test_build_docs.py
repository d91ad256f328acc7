"""docs/build.md says what the code does."""

import json
from pathlib import Path

from saven_hf.data.schema import CHECKS
from saven_hf.pipeline import ANNOTATORS, STAGES
from saven_hf.pipeline.rules import rule_table
from saven_hf.pipeline.templates import TEMPLATES


TEXT = (Path(__file__).parents[2] / "docs" / "build.md").read_text(encoding="utf-8")


def test_the_table_of_rules_is_up_to_date():
    assert TEXT.split("rule_table() -->\n")[1].split("\n<!-- end -->")[0] == rule_table()


def test_the_rate_of_right_rows_is_that_of_the_verdicts():
    path = Path(__file__).parents[2] / "docs" / "build_judged.jsonl"
    verdicts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({one["row"] for one in verdicts}) == len(verdicts) >= 30 and all(one["why"] for one in verdicts)
    assert f"{sum(one['right'] for one in verdicts)} of {len(verdicts)} are right" in TEXT


def test_stages_annotators_checks_and_prompts_are_described():
    for name in (*STAGES, *ANNOTATORS, *CHECKS):
        assert f"`{name}`" in TEXT, name
    for name in TEMPLATES:
        assert name in TEXT or name in ("merge_audio", "repair")
