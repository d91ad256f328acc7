"""The tiny model from nothing, in miniature: every step for real, with next to nothing of everything."""

import json

import pytest
import torch
import yaml

from saven_hf import SAVEnVideoConfig, SAVEnVideoProcessor, load
from saven_hf.data import validate_messages
from saven_hf.training import recipe as recipes
from saven_hf.training import tiny
from saven_hf.training.stages import STAGES
from saven_hf.training.tiny import (
    ONE_SIDED,
    ONE_SIDED_PASS,
    ROWS,
    TinyPlan,
    one_sided_scenes,
    scenes_of,
    train_tiny,
    write_rows,
)
from saven_hf.world.conversations import TURNS


STEPS = dict.fromkeys(("language_steps", "vision_steps", "audio_steps", "connector_steps"), 2)
PLAN = TinyPlan(videos=2, short_videos=1, one_sided_videos=2, rows=2, workers=1, **STEPS)


@pytest.fixture
def short_stages(monkeypatch):
    """The shipped recipes with two steps each."""
    shipped = recipes.load_recipe

    def shortened(recipe, overrides=(), data=()):
        few = ["max_steps=2", "global_batch_size=2", "per_device_train_batch_size=2", "warmup=1", "logging_steps=1"]
        return shipped(recipe, [*overrides, *few], data)

    monkeypatch.setattr(tiny, "load_recipe", shortened)


@pytest.mark.slow
def test_one_command_trains_everything(tmp_path, short_stages):
    folder = train_tiny(tmp_path, PLAN)
    assert folder == tmp_path / "model" and not list(folder.glob("*.py"))
    model, processor = load(folder, device="cpu")
    first, _ = load(tmp_path / "init", device="cpu")
    assert processor.video_processor.fps == tiny.SAMPLING["fps"]
    # What is frozen is kept in the recipes' bfloat16.
    moved = {
        part
        for part in ("vision_tower", "audio_tower", "temporal_projection", "resampler", "language_model")
        if any(
            not torch.equal(after.bfloat16(), before.bfloat16())
            for after, before in zip(
                getattr(model.model, part).parameters(), getattr(first.model, part).parameters(), strict=True
            )
        )
    }
    assert moved == {"temporal_projection", "resampler", "language_model"}
    # Halfway between the last stage and the pass behind it.
    before, after = (load(tmp_path / name / "merged", device="cpu")[0] for name in ("saven", ONE_SIDED_PASS))
    for mean, one, other in zip(*(each.parameters() for each in (model, before, after)), strict=True):
        torch.testing.assert_close(mean.float(), (one + other) / 2, rtol=1e-2, atol=1e-6)
    assert any(not torch.equal(one, other) for one, other in zip(before.parameters(), after.parameters(), strict=True))
    # Again: all of it is there, so nothing is trained.
    before = (tmp_path / "saven" / "metrics.jsonl").read_text()
    assert train_tiny(tmp_path, PLAN) == folder
    assert (tmp_path / "saven" / "metrics.jsonl").read_text() == before


def test_rows_are_messages_about_scenes_of_training(tmp_path):
    (tmp_path / "videos").mkdir()
    for scene in scenes_of(PLAN):
        (tmp_path / "videos" / f"{scene.video_id}.mp4").touch()
        assert scene.split == "train"
    for scene in one_sided_scenes(PLAN):
        for left in ONE_SIDED:
            (tmp_path / "videos" / f"{scene.video_id}.{left}-only.mp4").touch()
    write_rows(tmp_path / "rows", PLAN)
    for name in (*ROWS, ONE_SIDED_PASS):
        report = validate_messages(tmp_path / "rows" / f"{name}.jsonl")
        # A sort of row that a scene is too long for is left out.
        assert not report.problems and 3 <= report.rows <= 7


def test_times_are_three_tokens_through_every_folder(tmp_path):
    """A tokenizer that is loaded as Qwen2's cuts them into digits, which the language model has never read."""
    tokenizer = tiny._tokenizer(tmp_path / "tokenizer")
    processor = SAVEnVideoProcessor.from_components(tokenizer, config=SAVEnVideoConfig())
    processor.save_pretrained(tmp_path / "saved")
    SAVEnVideoConfig().save_pretrained(tmp_path / "saved")
    again = SAVEnVideoProcessor.from_pretrained(tmp_path / "saved").tokenizer
    for one in (tiny._tokenizer(tmp_path / "tokenizer"), again):
        assert one.tokenize("at 00:01:15.100")[-3:] == ["Ġ00:01:", "15", ".100"]


def test_short_scenes_come_first():
    scenes = list(scenes_of(TinyPlan(videos=3, short_videos=3)))
    assert max(len(scene.pictures) for scene in scenes[:3]) <= 4
    assert len({scene.seed for scene in scenes}) == 6


def test_every_stage_has_its_rows_and_its_recipe():
    assert list(ROWS) == [stage for stage in STAGES if stage != "joint"]  # the paper's, in its order
    assert {kind for sorts in ROWS.values() for rows in sorts for kind in rows.kinds} <= set(TURNS)
    for stage in ROWS:
        values = yaml.safe_load(recipes.recipe_file(f"tiny/{stage}").read_text())
        assert values["stage"] == stage


def test_rows_are_the_same_every_time(tmp_path):
    write_rows(tmp_path / "one", PLAN)
    write_rows(tmp_path / "other", PLAN)
    rows = [(tmp_path / name / "saven.jsonl").read_text() for name in ("one", "other")]
    assert rows[0] == rows[1] and json.loads(rows[0].splitlines()[0])["videos"]
