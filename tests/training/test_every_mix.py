"""Every connector with every mix of modalities: a LoRA step in TRL's SFTTrainer, and the questions of `saven eval`."""

import json
import shutil

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


@pytest.fixture(scope="module")
def aveb(tmp_path_factory):
    """Files of the published form, as in tests/evaluation/test_published.py, with media that can be read."""
    folder = tmp_path_factory.mktemp("aveb")
    questions, matching, spoken = (folder / name for name in ("video-qa", "avm", "asr"))
    chapter = spoken / "test-clean" / "61" / "70968"
    for made in (questions / "NExT", matching, chapter):
        made.mkdir(parents=True)
    render(questions / "NExT" / "25.mp4")
    row = {
        "image": "1101/25.mp4",
        "question": "what?",
        "answer": "two",
        "answer_candidates": ["a", "two", "c", "d", "e"],
    }
    (questions / "nextqa_test.json").write_text(json.dumps([row]))
    shutil.copy(questions / "NExT" / "25.mp4", matching / "clip.mp4")
    for name in ("clip", "other", "spoken"):
        shutil.copy(sound_file(folder, ".wav").path, matching / f"{name}.wav")
    image_file(matching, ".jpg").rename(matching / "COCO.jpg")
    pairs = [["x/clip.mp4", "x/clip.wav"], ["x/clip.mp4", "y/other.wav"], ["COCO.jpg", "SpokenCOCO/spoken.wav"]]
    rows = [
        {"image": pair, "question": "Is the audio compatible with the video?", "answer": answer, "text": "..."}
        for pair, answer in zip(pairs, ("Yes", "No", "No"), strict=True)
    ]
    (matching / "audiovisualmatching_combined.json").write_text(json.dumps(rows))
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN\n61-70968-0001 AND SO\n")
    for number in range(2):
        shutil.copy(sound_file(folder, ".flac").path, chapter / f"61-70968-000{number}.flac")
    return folder


# Tasks of AVEB: what each item is fed, of (picture, sound), and the figure that the task has.
AVEB_TASKS = {
    "video-qa": ([(True, True)], ("choice", "accuracy")),
    "avm": ([(True, True)] * 3, ("words", "accuracy")),
    "asr": ([(False, True)] * 2, ("transcript", "word_error_rate")),
}


@pytest.mark.parametrize("task", AVEB_TASKS)
def test_tasks_of_aveb_run_on_the_causal_qformer(task, aveb, tmp_path, capsys):
    fed, (form, figure) = AVEB_TASKS[task]
    model = save_small_model(tmp_path / "model", **KINDS["causal_qformer"])
    words = ["eval", "--benchmark", f"aveb-{task}", "--data", str(aveb / task), "--model", model, "--device", "cpu"]
    assert main([*words, "--num-frames", "3", "--max-new-tokens", "4", "--out", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["benchmarks"][f"aveb-{task}"]["plain"]
    assert found["items"] == len(fed) and found["unreadable"] == 0 and found[form][figure]["n"] == len(fed)
    items = tmp_path / "run" / "items" / f"aveb-{task}.plain.jsonl"
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    assert [(row["fed"]["frames"] > 0, row["fed"]["audio_seconds"] > 0) for row in rows] == fed
    assert all("error" not in row for row in rows)
