"""docs/data.md says what the code does."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from saven_hf.data import READERS
from saven_hf.data.messages import ROW_KEYS


TEXT = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_table_of_readers_is_up_to_date():
    lines = []
    for name, reader in READERS.items():
        options = ", ".join(f"`{option}`" for option in list(inspect.signature(reader.read).parameters)[1:])
        lines.append(
            f"| `{name}` | {reader.title} | {reader.stage} | {reader.kind} | {options} |".replace("|  |", "| |")
        )
    table = TEXT.split("test_data_docs.py -->\n")[1].split("\n<!-- end -->")[0]
    assert table.splitlines()[2:] == lines


def test_the_recipe_is_one():
    yaml = pytest.importorskip("yaml")
    recipe = pytest.importorskip("saven_hf.training.recipe", reason="needs the [train] extra")
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    known = {field.name for field in dataclasses.fields(recipe.DataSource)}
    sources = yaml.safe_load(text)["data"]
    assert [set(source) - known for source in sources] == [set(), set()]
    assert sources[0]["reader"] in READERS


def test_every_key_is_explained():
    explained = re.findall(r"^\| (`.*?`) \|", TEXT, flags=re.MULTILINE)
    keys = [key for cell in explained for key in re.findall(r"`(\w+)`", cell)]
    assert set(keys) - set(READERS) == set(ROW_KEYS)
