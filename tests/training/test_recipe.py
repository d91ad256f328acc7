"""Recipes: read, checked, overridden; those that are shipped hold the paper's numbers."""

import pytest
import yaml

from saven_hf.training.recipe import Recipe, RecipeError, explain, from_dict, load_recipe, shipped_recipes


BASE = {"model": "start", "output_dir": "out"}


def test_a_file_round_trips(tmp_path):
    values = {**BASE, "stage": "saven", "lora": {"r": 8}, "data": [{"path": "a.jsonl", "weight": 2}]}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(values))
    recipe = load_recipe(tmp_path / "a.yaml")
    assert (recipe.stage, recipe.lora.r, recipe.lora.alpha, recipe.data[0].weight) == ("saven", 8, 128, 2.0)
    recipe.save(tmp_path / "b.yaml")
    assert load_recipe(tmp_path / "b.yaml") == recipe


def test_overrides_and_own_data(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**BASE, "data": [{"path": "a.jsonl"}]}))
    words = ["learning_rate=2e-3", "lora.r=4", "video.fps=2", "data.0.cache=features", "max_steps=null"]
    recipe = load_recipe(tmp_path / "a.yaml", words)
    # YAML reads 2e-3, without a point, as text.
    assert recipe.learning_rate == 0.002 and recipe.lora.r == 4 and recipe.video == {"fps": 2}
    assert recipe.data[0].cache == "features" and recipe.max_steps is None
    own = load_recipe(tmp_path / "a.yaml", data=["mine.jsonl", "yours.jsonl"])
    assert [source.path for source in own.data] == ["mine.jsonl", "yours.jsonl"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"learnig_rate": 1}, "no key 'learnig_rate' (did you mean 'learning_rate'?)"),
        ({"lora": {"rank": 4}}, "no key 'lora.rank'"),
        ({"data": [{"paths": "x"}]}, "no key 'data[0].paths' (did you mean 'path'?)"),
        ({"data": [{"path": "a", "use_audio": "no"}]}, "data[0].use_audio must be true or false"),
        ({"stage": "align-vision"}, "stage is 'align-vision' (did you mean 'align-visual'?)"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"global_batch_size": 1.5}, "global_batch_size must be a whole number, got 1.5"),
        ({"resume": "yes please"}, "resume must be true or false"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"data": "mine.jsonl"}, "data must be a list"),
        ({"lora": 4}, "lora must be a section"),
        ({"model": ""}, "model is missing"),
        ({"quantization": "4bit"}, "is for the LoRA stages"),
        ({"data": [{"path": "a", "weight": 1}, {"path": "b"}]}, "give all one"),
        ({"data": [{"path": "a", "weight": -1}]}, "must be above 0"),
        ({"time_shift_seconds": -1}, "must be 0 or more"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(RecipeError) as error:
        from_dict({**BASE, **change})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(RecipeError, match="did you mean '7b/align-visual'"):
        load_recipe("7b/align_visual")
    for text in ("[1, 2", "just words"):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(RecipeError, match="a.yaml"):
            load_recipe(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(BASE))
    for override in ("learning_rate", "model.name=x", "data.0.path=x"):
        with pytest.raises(RecipeError, match="learning_rate|model.name|data must be a list"):
            load_recipe(tmp_path / "a.yaml", [override])


def test_global_batches_are_reached_or_refused():
    recipe = from_dict({**BASE, "global_batch_size": 512, "per_device_train_batch_size": 8})
    assert [recipe.accumulation_steps(count) for count in (1, 8)] == [64, 8]
    with pytest.raises(RecipeError, match="global_batch_size=512 is no multiple of the 24 rows"):
        recipe.accumulation_steps(3)


@pytest.mark.parametrize("variant", ["", "-24gb"])
def test_the_papers_numbers(variant):
    """Sections 5 and C: global batch, learning rate, epochs, frames."""
    expected = {
        "align-visual": (512, 2e-3, 1),
        "align-audio": (512, 2e-3, 1),
        "temporal": (1024, 2e-4, 2),
        "saven": (1024, 2e-4, 2),
    }
    for stage, numbers in expected.items():
        recipe = load_recipe(f"7b/{stage}{variant}")
        assert recipe.stage == stage
        assert (recipe.global_batch_size, recipe.learning_rate, recipe.num_train_epochs) == numbers
        assert recipe.video == {"sampling": "uniform", "num_frames": 16}
        assert recipe.accumulation_steps(1) * recipe.per_device_train_batch_size == numbers[0]
        assert bool(recipe.quantization) == (bool(variant) and recipe.uses_lora)
    assert {stage for stage in expected} <= {name.removeprefix("tiny/") for name in shipped_recipes()}


def test_every_shipped_recipe_is_one():
    for name in shipped_recipes():
        assert load_recipe(name).data, name


def test_published_data_is_named_as_readers_name_it():
    from saven_hf.data.readers import READERS

    for name in shipped_recipes():
        recipe = load_recipe(name)
        for source in recipe.data:
            assert source.reader is None or READERS[source.reader].stage == recipe.stage


def test_every_key_is_explained():
    explained = {name: meaning for name, _, meaning in explain()}
    assert {"stage", "lora.r", "data.cache"} <= explained.keys()
    assert all(len(meaning) >= 5 for meaning in explained.values())
    assert Recipe(**BASE).stage == "align-visual"
