"""Every connector with every mix of modalities: a LoRA step in TRL's SFTTrainer, and the questions of `saven eval`."""

import json

import pytest
import torch
from clip import render
from kinds import KINDS
from media_factory import image_file, silent_video, sound_file
from PIL import Image
from small import features_of, save_small_model, small_model, talk

from saven_hf.cli import main
from saven_hf.training.curves import read_metrics
from saven_hf.training.recipe import from_dict
from saven_hf.training.trainer import train


VIDEO, SOUND, IMAGE = ({"type": kind} for kind in ("video", "audio", "image"))
MIXES = ("picture and sound", "picture", "sound", "image", "text", "two videos", "all in a batch")
BY_DEFAULT = ("avts", "causal_qformer")  # the others are slow tests


def every(kinds):
    return [pytest.param(kind, marks=[] if kind in BY_DEFAULT else [pytest.mark.slow]) for kind in kinds]


def rows_of(mix, model, processor):
    """Two rows of a mix, on what the towers made of their media; times are named where there are any."""
    both, other = (features_of(model, processor, seed) for seed in (1, 2))
    ask = "What is there from 00:00:01.000 to 00:00:02.000?"
    rows = {
        "picture and sound": {"messages": talk(ask, "a circle", VIDEO), "videos": [both]},
        "picture": {"messages": talk(ask, "a square", VIDEO), "videos": [both.without_sound()]},
        "sound": {"messages": talk(ask, "a low tone", SOUND), "audios": [other.without_picture()]},
        "image": {"messages": talk("What is seen?", "red", IMAGE), "images": [Image.new("RGB", (40, 30), "red")]},
        "text": {"messages": talk("Why?", "because")},
        "two videos": {"messages": talk(ask, "the second", VIDEO, VIDEO), "videos": [both, other]},
    }
    return [rows[mix]] * 2 if mix in rows else list(rows.values())


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("kind", every(KINDS))
def test_one_lora_step(kind, mix, tmp_path):
    model, processor = small_model(**KINDS[kind])
    rows = rows_of(mix, model, processor)
    recipe = from_dict(
        {
            "stage": "saven",
            "model": "small",
            "output_dir": str(tmp_path),
            "global_batch_size": len(rows),
            "per_device_train_batch_size": len(rows),
            "max_steps": 1,
            "learning_rate": 1e-2,
            "scheduler": "constant",
            "warmup": 0,
            "precision": "float32",
            "merge": False,
            "lora": {"r": 4, "dropout": 0.0},
            "trainer": {"use_cpu": True, "disable_tqdm": True},
        }
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = train(recipe, rows, model=model, processor=processor)
    assert result.steps == 1 and 0 < read_metrics(result.metrics)[0]["loss"] < 20
    after = dict(model.named_parameters())
    adapters = [tensor for name, tensor in after.items() if "lora_B" in name]
    assert adapters and all(torch.isfinite(tensor).all() for tensor in adapters)
    assert any(tensor.abs().max() > 0 for tensor in adapters)
    # What was there moved the connector, and nothing else of the model itself.
    moved = {
        name.removesuffix(".weight").rsplit(".modules_to_save.default", 1)[0]
        for name, tensor in after.items()
        if ".modules_to_save.default." in name
        and not torch.equal(tensor, before[name.replace(".modules_to_save.default", "")])
    }
    assert bool(moved) == (mix != "text")
    for name, tensor in after.items():
        plain = name.replace(".base_layer", "")
        if "lora_" not in name and "modules_to_save" not in name and plain in before:
            assert torch.equal(tensor, before[plain]), name


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A question each about a video with sound, one without, a sound, and an image."""
    folder = tmp_path_factory.mktemp("media")
    both = folder / "both.mp4"
    render(both)
    silent, sound = silent_video(folder).path, sound_file(folder, ".wav").path
    media = {"video": [both, silent], "audio": [sound], "image": [image_file(folder, ".png")]}
    rows = [
        {"id": kind + str(at), kind: path.name, "question": "Which?", "options": ["x", "y"], "answer": "B"}
        for kind, paths in media.items()
        for at, path in enumerate(paths)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("kind", every(KINDS))
def test_questions_about_every_mix(kind, asked, tmp_path, capsys):
    model = save_small_model(tmp_path / "model", **KINDS[kind])
    words = ["eval", "--benchmark", "open-qa", "--data", str(asked), "--model", model, "--device", "cpu", "--json"]
    words += ["--num-frames", "3", "--max-new-tokens", "2", "--protocol", "likelihood"]
    assert main([*words, "--control", "no-audio,no-video,blind", "--out", str(tmp_path / "run")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["benchmarks"]["open-qa"]["denominator"]["asked"] == 4

    def fed(control):
        path = tmp_path / "run" / "items" / f"open-qa.{control}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert all("error" not in row for row in rows)
        return {row["id"]: (row["fed"]["frames"] > 0, row["fed"]["audio_seconds"] > 0) for row in rows}

    whole = {"video0": (True, True), "video1": (True, False), "audio0": (False, True), "image0": (True, False)}
    assert fed("plain") == whole
    assert fed("no-audio") == {name: (seen, False) for name, (seen, _) in whole.items()}
    assert fed("no-video") == {name: (False, heard) for name, (_, heard) in whole.items()}
    assert fed("blind") == dict.fromkeys(whole, (False, False))
    weighed = summary["benchmarks"]["open-qa"]["likelihood"]
    assert {name: one["n"] for name, one in weighed.items()} == dict.fromkeys(
        ("plain", "no-audio", "no-video", "blind"), 4
    )
