"""Cards: what the Hub reads of them, and what people read of what was measured."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard, SpaceCard

from saven_hf.app import Settings
from saven_hf.cards import is_untouched, signed
from saven_hf.cli import main
from saven_hf.data.builder import EMBEDDED
from saven_hf.model_cards import CardError, gather_results, model_card, read_results, run_results, space_card
from saven_hf.push import PushError, plan_upload


ROOT = Path(__file__).parents[1]
TINY = ROOT / "hub_configs" / "savenvideo-tiny"
# Of https://huggingface.co/docs/hub/model-cards, dataset-cards and repositories-licenses; the Hub itself is not asked.
TASK, LIBRARIES = "video-text-to-text", {"transformers", "peft"}
LICENCES = {"apache-2.0", "other", "cc-by-4.0", "mit"}


def interval(value, n=9, clusters=3):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": n, "clusters": clusters}


def run_folder(path, accuracy=0.5, clusters=3):
    """What `saven eval` leaves, as far as a card reads it."""
    kinds = {"global": {"accuracy": interval(0.75, 3), "chance": {"text": 0.25, "sound": 0.5}}}
    choice = {"accuracy": interval(accuracy, clusters=clusters), "chance": {"text": 0.25, "sound": 0.5}}
    plain = {"choice": {**choice, "by": {"question_type": kinds}}, "range": {"mean_iou": interval(0.4)}}
    mute = {"choice": {**choice, "by": {}}, "against_plain": {"guesser": "sound"}}
    parts = {"plain": plain, "controls": {"black": mute}, "likelihood": {"plain": interval(0.6)}}
    path.mkdir()
    content = {"settings": {"frames": {"fps": 4.0}}, "accuracy": accuracy, "benchmarks": {"world-iid": parts}}
    (path / "summary.json").write_text(json.dumps(content))
    return path


def model_folder(path):
    shutil.copytree(TINY, path, ignore=shutil.ignore_patterns("*.safetensors", "results.json", "README.md"))
    return path


def test_results_of_a_run(tmp_path):
    found = run_results(run_folder(tmp_path / "run"))
    said = [(one.form, one.kind, one.control, one.text, one.chance_text) for one in found]
    assert said == [
        ("choice", None, None, "50.0 (40.0 to 60.0)", "25.0"),
        ("choice", "global", None, "75.0 (65.0 to 85.0)", "25.0"),
        ("range", None, None, "0.400 (0.300 to 0.500)", ""),
        ("choice", None, "black", "50.0 (40.0 to 60.0)", "50.0"),
        ("likelihood", None, None, "60.0 (50.0 to 70.0)", "25.0"),
    ]
    with pytest.raises(CardError, match="has no summary.json"):
        run_results(tmp_path)
    (tmp_path / "summary.json").write_text('{"benchmark": "world-sync", "balanced_accuracy": {}}')
    with pytest.raises(CardError, match="is a run of world-sync, which a card has no table for"):
        run_results(tmp_path)


def test_a_later_run_of_the_same_counts_and_the_index_takes_the_larger_one(tmp_path):
    runs = [run_folder(tmp_path / "a", 0.1), run_folder(tmp_path / "b", 0.2), run_folder(tmp_path / "c", 0.3, 9)]
    found = gather_results(runs)
    plain = [one.value for one in found if (one.form, one.kind, one.control) == ("choice", None, None)]
    assert sorted(plain) == [0.2, 0.3]
    card = ModelCard(model_card(model_folder(tmp_path / "model"), "me/mine", found))
    values = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert values["multiple choice"] == 0.3


def test_push_fills_the_card_from_runs(tmp_path, capsys):
    model, run = model_folder(tmp_path / "model"), run_folder(tmp_path / "run")
    assert main(["push", str(model), "me/mine", "--results", str(run), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "results.json" in said and "| `world-iid` | multiple choice | 50.0 (40.0 to 60.0) | 25.0 | 9 | 3 |" in said
    assert not (model / "README.md").exists() and not (model / "results.json").exists()
    card = ModelCard(plan_upload(model, "me/mine", results=[run]).made_card)
    assert [(one.dataset_name, one.metric_type, one.metric_value) for one in card.data.eval_results] == [
        ("world-iid", "accuracy", 0.5),
        ("world-iid", "mean_iou", 0.4),
        ("world-iid", "accuracy", 0.6),
    ]
    assert main(["push", str(model), "me/mine", "--results", str(tmp_path), "--dry-run"]) == 2
    assert "has no summary.json" in capsys.readouterr().err


def test_a_card_is_remade_until_a_person_changes_it(tmp_path):
    model, run = model_folder(tmp_path / "model"), run_folder(tmp_path / "run")
    (model / "README.md").write_text(signed(model_card(model)))
    assert "Nothing has been measured" in (model / "README.md").read_text()
    assert "50.0 (40.0 to 60.0)" in plan_upload(model, "me/mine", results=[run]).made_card
    text = (model / "README.md").read_text().replace("Nothing has been measured", "I have measured nothing")
    assert not is_untouched(text)
    (model / "README.md").write_text(text)
    plan = plan_upload(model, "me/mine", results=[run])
    assert plan.made_card is None and any("a person wrote README.md" in note for note in plan.notes)


def test_the_card_tells_the_recipe(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    model_folder(folder / "merged")
    recipe = "stage: saven\nmodel: me/base\nlearning_rate: 0.0005\nglobal_batch_size: 4\nmax_steps: 7\nvideo: {}\n"
    recipe += "num_train_epochs: 1\nuse_audio: true\nlora: {r: 16, alpha: 32}\n"
    recipe += "data: [{path: me/rows}, {path: /home/me/rows.jsonl}]\n"
    (folder / "recipe.yaml").write_text(recipe)
    card = ModelCard(model_card(folder / "merged"))
    assert card.data.base_model == "me/base" and card.data.datasets == ["me/rows"]
    assert "# own" in card.text and "| length | 7 updates |" in card.text and "rank 16, scale 32" in card.text
    assert "/home/me" not in card.content and card.data.license is None


def test_an_adapter_whose_base_only_this_machine_has(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(TINY)}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    plan = plan_upload(tmp_path, "me/lora")
    assert any("names a folder of this machine" in note for note in plan.notes)
    assert str(TINY) not in plan.made_card


@pytest.mark.parametrize(
    "content", ["{", '{"results": [{"benchmark": "x"}]}', '{"results": [{"benchmark": "x", "form": "y", "value": 1}]}']
)
def test_results_that_cannot_be_read(content, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(CardError, match="results.json cannot be read .*: write it with `saven push --results RUN`"):
        read_results(tmp_path)


def test_a_space_without_a_card_gets_one(tmp_path):
    (tmp_path / "app.py").write_text("import gradio\n")
    (tmp_path / "requirements.txt").write_text("gradio==6.31.0\n")
    plan = plan_upload(tmp_path, "me/my-space", "space")
    data = SpaceCard(plan.made_card).data
    assert (data.title, data.sdk, data.sdk_version, data.app_file) == ("My space", "gradio", "6.31.0", "app.py")
    assert plan.space_sdk == "gradio" and space_card(tmp_path, "me/my-space") in plan.made_card
    (tmp_path / "app.py").unlink()
    with pytest.raises(PushError, match="neither README.md nor app.py"):
        plan_upload(tmp_path, "me/my-space", "space")


def test_the_demo_spaces_card_tells_its_limits_and_figures():
    path = ROOT / "hub_configs" / "build_cards.py"
    spec = importlib.util.spec_from_file_location("build_cards", path)
    build_cards = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_cards)
    text = (ROOT / "spaces" / "savenvideo-demo" / "README.md").read_text(encoding="utf-8")
    assert text == build_cards.demo_card(), "run `python hub_configs/build_cards.py`"
    assert SpaceCard(text).data.sdk == "gradio" and SpaceCard(text).data.title == "SAVEnVideo"
    settings = Settings()
    assert f"largest and longest upload: {settings.max_megabytes} and {settings.max_seconds} |" in text
    iid = next(one for one in read_results(TINY) if one.benchmark == "world-iid" and one.form == "choice")
    assert f"| {iid.text} | {iid.chance_text} |" in text and "## Limits and biases" in text


def test_the_readme_has_the_figures_that_were_measured():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    words, choice = (
        next(
            one
            for one in read_results(TINY)
            if (one.benchmark, one.form, one.kind, one.control) == ("world-iid", form, None, None)
        )
        for form in ("words", "choice")
    )
    said = re.search(
        r"answers (\d+) % with all words right, and (\d+) % of multiple choice, where a guess gets (\d+) %", text
    )
    assert [*map(int, said.groups())] == [round(100 * one) for one in (words.value, choice.value, choice.chance)]


def test_the_shipped_card_is_up_to_date_and_the_hub_can_read_it():
    text = (TINY / "README.md").read_text(encoding="utf-8")
    assert text == signed(model_card(TINY)), "run `python hub_configs/build_cards.py`"
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert data.pipeline_tag == TASK and data.library_name in LIBRARIES and data.license in LICENCES
    measured = {one.benchmark for one in read_results(TINY)}
    assert data.model_name == "savenvideo-tiny" and {one.dataset_name for one in data.eval_results} == measured
    assert all(0 <= one.metric_value <= 1 and one.task_type == TASK for one in data.eval_results)
    assert "## Limits and biases" in text


@pytest.mark.parametrize("name", ["savenvid", "avbench"])
def test_cards_of_the_embedded_datasets(name):
    card = DatasetCard.load(EMBEDDED / name / "README.md", ignore_metadata_errors=False)
    assert card.data.task_categories == [TASK] and card.data.license in LICENCES and card.data.language == ["en"]
    for config in card.data.configs:
        for part in config["data_files"]:
            assert list((EMBEDDED / name).glob(part["path"])), (config["config_name"], part)
    assert "## Limits and biases" in card.text and "licence of its videos" in card.text


def test_cards_of_the_spaces():
    for folder in sorted(path for path in (ROOT / "spaces").iterdir() if path.is_dir()):
        data = SpaceCard.load(folder / "README.md", ignore_metadata_errors=False).data.to_dict()
        assert data["sdk"] == "gradio" and (folder / data["app_file"]).is_file(), folder.name
        assert data["license"] in LICENCES and len(data["short_description"]) <= 60, folder.name
        assert data["sdk_version"] and data["title"], folder.name
