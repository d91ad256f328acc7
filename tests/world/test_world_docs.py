"""docs/world.md says what the code does."""

from pathlib import Path

from saven_hf.world import SPLITS
from saven_hf.world.questions import chance_table


TEXT = (Path(__file__).parents[2] / "docs" / "world.md").read_text(encoding="utf-8")


def test_the_table_of_chance_levels_is_up_to_date():
    table = TEXT.split("chance_table() -->\n")[1].split("\n<!-- end -->")[0]
    assert table == chance_table()


def test_all_splits_are_described():
    for name, split in SPLITS.items():
        assert f"| `{name}` | {split.description} |" in TEXT
