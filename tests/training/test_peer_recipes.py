"""The recipes of VideoLLaMA 2 and FAVOR at tiny size: their own files, with small models and few rows and steps."""

import json
from pathlib import Path

import pytest
import torch
from clip import render
from kinds import STC_AS_PUBLISHED
from media_factory import sound_file
from small import save_small_model, talk
from tiny import QFORMER

from saven_hf.hub import load
from saven_hf.training.curves import read_metrics
from saven_hf.training.recipe import load_recipe, shipped_recipes
from saven_hf.training.trainer import train


PARTS = ("vision_tower", "audio_tower", "speech_tower", "language_model", "resampler", "temporal_projection")
ALIGNED = {"resampler", "temporal_projection"}
# Model to begin with, and the parts that are others afterwards.
RECIPES = {
    "videollama2/joint": (STC_AS_PUBLISHED, {"language_model", "resampler", "audio_tower"}),
    "videollama2/joint-lora": (STC_AS_PUBLISHED, {"language_model", "resampler"}),
    "videollama2/align-avts": ({}, ALIGNED),
    "favor/align-visual": (QFORMER, ALIGNED),
    "favor/align-audio": (QFORMER, ALIGNED),
    "favor/lora": (QFORMER, {"language_model", *ALIGNED}),
}
SMALL = (
    "max_steps=3", "global_batch_size=4", "per_device_train_batch_size=4", "precision=float32", "quantization=null",
    "dataloader_workers=0", "skip_bad_rows=false", "trainer={use_cpu: true, disable_tqdm: true}",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows about a video, about a sound, and about a video with its sound, as the recipes name them."""
    folder = tmp_path_factory.mktemp("rows")
    render(folder / "both.mp4")
    sound_file(folder, ".wav")
    for name, kind, medium in (
        ("video", "video", "both.mp4"), ("audio", "audio", "sound.wav"), ("audio-visual", "video", "both.mp4"),
    ):  # fmt: skip
        row = {"messages": talk("What is there at 2 s?", f"a {name} tone", {"type": kind, kind: medium})}
        (folder / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 4)
    return folder


def test_there_is_one_for_each_recipe():
    assert {name for name in shipped_recipes() if name.startswith(("videollama2/", "favor/"))} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_trains_what_it_says(name, rows, tmp_path):
    settings, expected = RECIPES[name]
    start = save_small_model(tmp_path / "start", **settings)
    own = load_recipe(name)
    places = [f"model={start}", f"output_dir={tmp_path / 'out'}", *SMALL]
    if name.startswith("videollama2/"):  # with the weights of its sources
        places += [f"data.{at}.path={rows / Path(source.path).name}" for at, source in enumerate(own.data)]
        recipe = load_recipe(name, places)
    else:
        recipe = load_recipe(name, places, [rows / "audio-visual.jsonl"])
    for field in ("stage", "learning_rate", "connector_learning_rate", "diversity_loss_weight", "use_audio", "lora"):
        assert getattr(recipe, field) == getattr(own, field)
    assert [source.weight for source in own.data] == [1, 1, 2] or not name.startswith("videollama2/")
    result = train(recipe)
    lines = [line for line in read_metrics(result.metrics) if "loss" in line]
    assert result.steps == 3 and all(0 < line["loss"] < 20 for line in lines)
    assert all(("diversity_loss" in line) == (own.diversity_loss_weight > 0) for line in lines)
    (before, _), (after, _) = load(start, "cpu"), load(result.merged or result.model, "cpu")
    moved = {
        part
        for part in PARTS
        if getattr(before.model, part) is not None
        and any(
            not torch.equal(one, other)
            for one, other in zip(
                getattr(before.model, part).parameters(), getattr(after.model, part).parameters(), strict=True
            )
        )
    }
    assert moved == expected
