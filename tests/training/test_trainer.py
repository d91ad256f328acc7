"""Runs as users start them: the loss, the rates, broken and resumed runs, own data, and what stock trl does."""

import json
import multiprocessing
import os
import signal

import datasets
import pytest
import torch
import trl
from clip import render
from small import feature_rows, save_small_model, small_model, talk
from tiny import QFORMER
from transformers import TrainerCallback

from saven_hf.cli import main
from saven_hf.training.collator import SAVEnVideoCollator
from saven_hf.training.curves import read_metrics
from saven_hf.training.recipe import RecipeError, from_dict
from saven_hf.training.sources import build_dataset
from saven_hf.training.stages import is_connector, load_for_training
from saven_hf.training.trainer import SAVEnVideoTrainer, last_checkpoint, train, training_arguments


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def qformer(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("qformer"), **QFORMER)


def recipe(start, folder, **settings):
    values = {
        "model": start,
        "output_dir": str(folder),
        "global_batch_size": 4,
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "warmup": 0,
        "scheduler": "constant",
        "precision": "float32",
        "logging_steps": 1,
        "merge": False,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "trainer": {"use_cpu": True, "disable_tqdm": True},
    }
    return from_dict({**values, **settings})


def losses(result):
    return [line["loss"] for line in read_metrics(result.metrics) if "loss" in line]


def weighted_loss(model, processor, rows, weighting):
    batch = SAVEnVideoCollator(processor, loss_weighting=weighting)(rows)
    labels, weights = batch.pop("labels"), batch.pop("loss_weights")
    with torch.no_grad():
        logits = model(**batch).logits[:, :-1]
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    return ((each * weights[:, 1:]).sum() / weights.sum()).item()


class TestLoss:
    @pytest.mark.parametrize("weighting", ["token", "turn"])
    def test_is_the_weighted_mean_over_the_update(self, start, tmp_path, weighting):
        """However it is accumulated, and with rows of no, one and two media."""
        model, processor = load_for_training(start)
        rows = feature_rows(model, processor, 4, media=(1, 0, 2), turns=2)
        rows[1]["messages"] = talk("Why?", "a much longer answer than the others have")
        expected = weighted_loss(model, processor, rows, weighting)
        found = []
        for size in (4, 1):
            settings = {"per_device_train_batch_size": size, "loss_weighting": weighting, "resume": False}
            found.append(losses(train(recipe(start, tmp_path, stage="align-audio", **settings), rows)))
        assert found[0][0] == pytest.approx(expected, abs=1e-5)
        assert found[1] == pytest.approx(found[0], abs=1e-4)
        assert found[0][1] < found[0][0]

    def test_token_accuracy_is_that_of_the_answers(self, start, tmp_path):
        rows = [{"messages": talk("a", "bb")}] * 4
        result = train(recipe(start, tmp_path, stage="temporal", max_steps=30, train_connector=False), rows)
        assert read_metrics(result.metrics)[-2]["mean_token_accuracy"] == 1.0
        assert (tmp_path / "curves.png").stat().st_size > 10_000

    def test_rows_of_text_alone_teach_a_connector_nothing(self, start, tmp_path):
        result = train(recipe(start, tmp_path, stage="align-visual"), [{"messages": talk("a", "b")}] * 4)
        before, after = (load_for_training(model)[0].state_dict() for model in (start, result.model))
        assert all(torch.equal(before[name], after[name]) for name in before)

    def test_a_batch_of_another_collator_is_refused(self, start, tmp_path):
        model, processor = load_for_training(start)
        trainer = SAVEnVideoTrainer(
            model=model,
            args=training_arguments(recipe(start, tmp_path)),
            train_dataset=build_dataset([[{"messages": talk("a", "b")}] * 4]),
            data_collator=lambda rows: {"input_ids": torch.ones(1, 3).long(), "labels": torch.ones(1, 3).long()},
            processing_class=processor,
        )
        with pytest.raises(ValueError, match="takes batches of SAVEnVideoCollator"):
            trainer.train()


def test_connector_and_adapters_have_rates_of_their_own(start, tmp_path):
    rates = {}

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    rates[names[id(parameter)]] = group["lr"]

    model, processor = load_for_training(start)
    settings = {"stage": "saven", "learning_rate": 1e-3, "connector_learning_rate": 1e-4, "max_steps": 1}
    result = train(recipe(start, tmp_path, **settings), feature_rows(model, processor, 4), callbacks=[Look()])
    assert {rate for name, rate in rates.items() if is_connector(name)} == {1e-4}
    assert {rate for name, rate in rates.items() if not is_connector(name)} == {1e-3}
    assert sum(".lora_" in name for name in rates) == 2 * 2 * 7
    line = read_metrics(result.metrics)[0]
    assert (line["learning_rate"], line["connector_learning_rate"]) == pytest.approx((1e-3, 1e-4))


class _Kill(TrainerCallback):
    """The end of the process, without a word, after an update that no checkpoint holds."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            os.kill(os.getpid(), signal.SIGKILL)


class _Stream:
    """Rows that can only be read in turn."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


class TestResume:
    @pytest.mark.parametrize("stage, streamed", [("align-audio", False), ("saven", False), ("saven", True)])
    def test_a_killed_run_goes_on_as_if_nothing_had_been(self, start, tmp_path, stage, streamed):
        model, processor = load_for_training(start)
        rows = feature_rows(model, processor, 20, media=(1, 0, 2))
        rows = _Stream(rows) if streamed else rows
        settings = {"stage": stage, "max_steps": 8, "save_steps": 3, "time_shift_seconds": 5.0, "scheduler": "cosine"}
        whole = train(recipe(start, tmp_path / "whole", **settings), rows)

        broken = recipe(start, tmp_path / "broken", **settings)
        # A process of its own from the start: a fork of one that has threads may crash.
        process = multiprocessing.get_context("spawn").Process(target=train, args=(broken, rows, [_Kill()]))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        assert last_checkpoint(broken.output_dir).endswith("checkpoint-3")
        # A checkpoint that the end came in the middle of is passed over.
        os.makedirs(tmp_path / "broken" / "checkpoint-6")
        again = train(broken, rows)
        assert losses(again) == pytest.approx(losses(whole), abs=1e-6) and len(losses(again)) == 8
        assert [line["step"] for line in read_metrics(again.metrics) if "loss" in line] == list(range(1, 9))
        left, right = (load_for_training(result.model)[0].state_dict() for result in (whole, again))
        assert all(torch.allclose(left[name], right[name], atol=1e-6) for name in left)

    def test_a_finished_run_is_not_done_again(self, start, tmp_path):
        rows = [{"messages": talk("a", "b")}] * 4
        first = train(recipe(start, tmp_path, stage="temporal", save_steps=2), rows)
        again = train(recipe(start, tmp_path, stage="temporal", save_steps=2), rows)
        assert again.steps == first.steps == 2 and losses(again) == losses(first)

    def test_checkpoints_of_alignment_hold_what_trains(self, start, tmp_path):
        from safetensors.torch import load_file

        model, processor = load_for_training(start)
        train(recipe(start, tmp_path, stage="align-visual", save_steps=2), feature_rows(model, processor, 4))
        saved = load_file(tmp_path / "checkpoint-2" / "trained.safetensors")
        assert saved and all(is_connector(name) and "audio_mlp" not in name for name in saved)
        with pytest.raises(RecipeError, match="trained other weights"):
            train(recipe(start, tmp_path, stage="align-audio", max_steps=4), feature_rows(model, processor, 4))


class TestOwnData:
    def test_a_stream_needs_an_end(self, start, tmp_path):
        with pytest.raises(RecipeError, match="set max_steps"):
            train(recipe(start, tmp_path, max_steps=None), lambda: iter([{"messages": talk("a", "b")}]))

    def test_from_the_command_line(self, start, tmp_path, capsys):
        render(tmp_path / "clip.mp4")
        row = {"messages": talk("What is seen at 1 s?", "a red circle", {"type": "video"}), "videos": ["clip.mp4"]}
        (tmp_path / "mine.jsonl").write_text((json.dumps(row) + "\n") * 2)
        recipe(start, tmp_path / "out", stage="saven", merge=True).save(tmp_path / "recipe.yaml")
        words = ["train", str(tmp_path / "recipe.yaml"), "--data", str(tmp_path / "mine.jsonl")]
        words += ["--set", "global_batch_size=2", "--set", "per_device_train_batch_size=2", "--set", "lora.r=2"]
        assert main([*words, "--json"]) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert result["steps"] == 2 and (tmp_path / "out" / "merged" / "model.safetensors").is_file()
        settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        assert settings["r"] == 2 and settings["base_model_name_or_path"] == str(start)
        for folder in ("out", "out/merged"):
            assert "By the stage `saven`" in (tmp_path / folder / "README.md").read_text()

    @pytest.mark.parametrize(
        "words, message",
        [
            ([], "name a recipe"),
            (["7b/savem"], "did you mean '7b/saven'"),
            (["7b/saven", "--set", "lora.rank=2"], "no key 'lora.rank'"),
            (["7b/saven", "--set", "trainer.optin=x"], "trainer.optin is no argument"),
            (["7b/saven", "--set", "per_device_train_batch_size=3"], "no multiple of the 3 rows"),
            (["7b/saven", "--set", "model=nowhere/at/all"], "is not a model folder"),
            (["tiny/saven", "--data", "missing.jsonl", "--set", "model={start}"], "there is no such file"),
        ],
    )
    def test_bad_input_is_one_line(self, start, words, message, capsys):
        assert main(["train", *(word.format(start=start) for word in words)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error and error.startswith("saven train: error:")

    def test_keys(self, capsys):
        assert main(["train", "--keys"]) == 0
        assert "loss_weighting = token" in capsys.readouterr().out


def test_stock_trl_does_not_train_on_bare_placeholders(start, tmp_path):
    """SFTTrainer without our collator keeps token ids and drops media without a word; the model does not."""
    model, processor = small_model()
    render(tmp_path / "clip.mp4")
    video = {"type": "video", "video": str(tmp_path / "clip.mp4")}
    rows = datasets.Dataset.from_list([{"messages": talk("What?", "this", video)[:1] + [said("this")]}] * 2)
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, use_cpu=True, bf16=False, report_to="none", max_length=None
    )
    trainer = trl.SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=processor)
    with pytest.raises(ValueError, match="placeholder tokens, but there were no media"):
        trainer.train()


def said(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


class TestCausalQFormer:
    """Its diversity loss, and a step on every mix of modalities, with a speech tower."""

    @pytest.mark.parametrize("stage", ["align-audio", "saven"])
    def test_one_step_on_every_mix_of_modalities(self, qformer, tmp_path, stage):
        model, processor = load_for_training(qformer)
        rows = feature_rows(model, processor, 4, media=(1, 1, 0, 2))
        rows[0]["videos"] = [rows[0]["videos"][0].without_sound()]
        rows[1]["videos"] = [rows[1]["videos"][0].without_picture()]
        result = train(recipe(qformer, tmp_path, stage=stage, max_steps=2, merge=True), rows)
        found = losses(result)
        assert found[1] < found[0]
        if stage == "saven":
            assert torch.isfinite(next(load_for_training(result.merged)[0].parameters())).all()

    def test_the_diversity_loss_is_added_and_off_by_default(self, qformer, tmp_path):
        model, processor = load_for_training(qformer)
        rows = feature_rows(model, processor, 4)
        settings = {"stage": "align-audio", "max_steps": 1, "resume": False, "learning_rate": 1e-9}
        plain = read_metrics(train(recipe(qformer, tmp_path, **settings), rows).metrics)[0]
        assert "diversity_loss" not in plain
        for size in (4, 1):
            settings |= {"per_device_train_batch_size": size, "diversity_loss_weight": 0.5}
            line = read_metrics(train(recipe(qformer, tmp_path, **settings), rows).metrics)[0]
            assert 0 < abs(line["diversity_loss"]) <= 1
            assert line["loss"] == pytest.approx(plain["loss"] + 0.5 * line["diversity_loss"], abs=1e-4)

    @pytest.mark.slow
    def test_it_makes_the_queries_differ(self, qformer, tmp_path):
        model, processor = load_for_training(qformer)
        rows = feature_rows(model, processor, 4)
        settings = {"stage": "align-audio", "max_steps": 8, "diversity_loss_weight": 10.0, "learning_rate": 3e-3}
        lines = read_metrics(train(recipe(qformer, tmp_path, **settings), rows).metrics)
        similar = [line["diversity_loss"] for line in lines if "diversity_loss" in line]
        assert similar[-1] < similar[0] - 0.05

    def test_where_it_has_nothing_to_teach(self, start, qformer, tmp_path):
        rows = [{"messages": talk("a", "b")}] * 4
        with pytest.raises(RecipeError, match="the model has 'avts'"):
            train(recipe(start, tmp_path, diversity_loss_weight=0.1), rows)
        with pytest.raises(RecipeError, match="train_connector=true"):
            train(recipe(qformer, tmp_path, stage="saven", train_connector=False, diversity_loss_weight=0.1), rows)
        with pytest.raises(RecipeError, match="0 or more"):
            recipe(start, tmp_path, diversity_loss_weight=-1.0)
