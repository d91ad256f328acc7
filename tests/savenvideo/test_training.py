"""Training as users do it: LoRA on the language model, the connector beside it (peft), a step of SFTTrainer."""

import pytest
import torch
from batches import gap, inputs_for, logits_of
from clip import render
from kinds import KINDS
from tiny import VIDEO, tiny_model, video_media

import saven_hf


peft = pytest.importorskip("peft", reason="needs peft: pip install 'saven-hf[train]'")

# The towers have projections of the same names: only the whole path says which are meant.
TARGETS = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
CONNECTOR = ["resampler", "temporal_projection"]


def batch(model, side="left"):
    inputs = inputs_for(model, [video_media(questions=(1.0,))], [video_media((0.5,), 0, 1.0)], [], side=side)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    return {**inputs, "labels": labels.masked_fill(labels >= VIDEO, -100)}


def with_adapters(model, connector=True):
    config = peft.LoraConfig(r=4, target_modules=TARGETS, modules_to_save=CONNECTOR if connector else None)
    return peft.get_peft_model(model, config)


def steps(model, inputs, count=3):
    """A few steps of Adam over what learns; the losses."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(count):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


class TestPeft:
    def test_adapters_sit_in_the_language_model_alone(self):
        model = with_adapters(tiny_model())
        adapted = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
        assert len(adapted) == 2 * 7
        assert all(name.startswith("base_model.model.model.language_model.") for name in adapted)
        learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert all(".lora_" in name or ".modules_to_save." in name for name in learns)
        assert any("resampler.modules_to_save.default.audio_mlp" in name for name in learns)
        assert any("temporal_projection.modules_to_save.default" in name for name in learns)

    def test_new_adapters_change_nothing(self):
        inputs = batch(tiny_model())
        before = logits_of(tiny_model(), inputs)
        for left, right in zip(before, logits_of(with_adapters(tiny_model()).eval(), inputs), strict=True):
            assert gap(left, right) < 1e-6

    @pytest.mark.parametrize("checkpointing", [None, False, True])
    def test_what_learns_learns_and_the_rest_stays_to_the_bit(self, checkpointing):
        model = with_adapters(tiny_model()).train()
        assert not model.base_model.model.model.vision_tower.training
        if checkpointing is not None:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        before = state_of(model)
        losses = steps(model, batch(model.base_model.model))
        assert losses[-1] < losses[0]
        changed = {name for name, value in state_of(model).items() if not torch.equal(value, before[name])}
        assert all(".lora_" in name or ".modules_to_save." in name for name in changed)
        for part in ("lora_B", "visual_mlp", "audio_mlp", "queries", "layers.1.cross_attn", "temporal_projection"):
            assert any(part in name for name in changed), part

    def test_checkpointing_changes_no_loss(self):
        losses = []
        for checkpointing in (None, False, True):
            torch.manual_seed(0)
            model = with_adapters(tiny_model()).train()
            if checkpointing is not None:
                model.enable_input_require_grads()
                model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
            losses.append(steps(model, batch(model.base_model.model)))
        assert losses[1] == pytest.approx(losses[0], abs=1e-5) and losses[2] == pytest.approx(losses[0], abs=1e-5)

    def test_adapters_saved_loaded_merged(self, tmp_path):
        model = with_adapters(tiny_model()).train()
        inputs = batch(model.base_model.model)
        steps(model, inputs)
        trained = logits_of(model.eval(), inputs)
        assert gap(trained[0], logits_of(tiny_model(), inputs)[0]) > 1e-2
        model.save_pretrained(tmp_path)
        loaded = peft.PeftModel.from_pretrained(tiny_model(), tmp_path).eval()
        merged = peft.PeftModel.from_pretrained(tiny_model(), tmp_path).merge_and_unload().eval()
        assert type(merged) is type(tiny_model())
        for found in (logits_of(loaded, inputs), logits_of(merged, inputs)):
            for left, right in zip(trained, found, strict=True):
                assert gap(left, right) < 1e-5
        with loaded.disable_adapter():
            assert gap(logits_of(loaded, inputs)[0], logits_of(tiny_model(), inputs)[0]) < 1e-6
        # A memory belongs to the weights that compute, whoever holds them.
        fingerprints = {each.model.encoder_fingerprint() for each in (model.base_model.model, merged)}
        assert fingerprints == {loaded.base_model.model.model.encoder_fingerprint()}
        base = tiny_model().model.encoder_fingerprint()
        assert fingerprints != {base}
        with loaded.disable_adapter():
            assert loaded.base_model.model.model.encoder_fingerprint() == base

    def test_generation_with_adapters(self):
        model = with_adapters(tiny_model()).eval()
        inputs = {name: value for name, value in batch(model.base_model.model).items() if name != "labels"}
        settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "suppress_tokens": [97, 98, 99]}
        expected = tiny_model().generate(**inputs, **settings)
        assert torch.equal(model.generate(**inputs, **settings), expected)
        assert model.generate(**inputs, **settings, num_beams=2).shape[0] == 3

    def test_transformers_own_adapter_methods(self, tmp_path):
        with_adapters(tiny_model(), connector=False).save_pretrained(tmp_path)
        model = tiny_model()
        model.load_adapter(str(tmp_path))
        inputs = batch(model)
        assert torch.isfinite(model(**inputs).loss)
        model.disable_adapters()
        assert gap(logits_of(model, inputs)[0], logits_of(tiny_model(), inputs)[0]) < 1e-6


class Collator:
    """Rows are numbers of samples; the tensors of a batch are made here, as a processor would."""

    def __init__(self, model):
        self.model = model

    def __call__(self, rows):
        samples = [[], [video_media(questions=(1.0,))], [video_media((0.5,), 0, 1.0)]]
        seeds = [row["sample"] for row in rows]
        inputs = inputs_for(self.model, *(samples[seed] for seed in seeds), seeds=seeds, side="right")
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        return {**inputs, "labels": labels.masked_fill(labels >= VIDEO, -100)}


class TestSFTTrainer:
    def train(self, tmp_path, model, collator=None, **settings):
        trl = pytest.importorskip("trl", reason="needs trl: pip install 'saven-hf[train]'")
        datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'saven-hf[train]'")
        from test_hub_form import tiny_tokenizer

        settings = {
            "output_dir": str(tmp_path),
            "max_steps": 2,
            "per_device_train_batch_size": 3,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "bf16": False,
            "use_cpu": True,
            "report_to": "none",
            "logging_steps": 1,
            "save_strategy": "no",
            "remove_unused_columns": False,
            "dataset_kwargs": {"skip_prepare_dataset": True},
            "max_length": None,
            **settings,
        }
        tokenizer = tiny_tokenizer()
        tokenizer.eos_token = "2"
        trainer = trl.SFTTrainer(
            model=model,
            args=trl.SFTConfig(**settings),
            train_dataset=datasets.Dataset.from_dict({"sample": [0, 1, 2]}),
            data_collator=collator or Collator(tiny_model()),
            processing_class=tokenizer,
        )
        trainer.train()
        return trainer, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    @pytest.mark.parametrize("adapters", [False, True])
    def test_two_steps(self, tmp_path, adapters):
        model = tiny_model()
        reference = model(**Collator(model)([{"sample": sample} for sample in range(3)])).loss.item()
        if adapters:
            model = with_adapters(model)
        before = state_of(model)
        _, losses = self.train(tmp_path, model)
        assert losses[0] == pytest.approx(reference, abs=1e-3)  # the log is rounded
        assert losses[1] < losses[0]
        changed = {name for name, value in state_of(model).items() if not torch.equal(value, before[name])}
        assert not any("_tower." in name for name in changed)
        assert any("resampler" in name for name in changed) and any("temporal_projection" in name for name in changed)
        if adapters:
            assert all(".lora_" in name or ".modules_to_save." in name for name in changed)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_step_with_adapters_for_every_connector(self, tmp_path, kind):
        """On rows without a medium, with picture and sound, and with the picture alone."""
        model = tiny_model(**KINDS[kind])
        present = [name for name in CONNECTOR if getattr(model.model, name) is not None]
        config = peft.LoraConfig(r=4, target_modules=TARGETS, modules_to_save=present)
        adapted = peft.get_peft_model(model, config)
        before = state_of(adapted)
        _, losses = self.train(tmp_path, adapted, Collator(tiny_model(**KINDS[kind])))
        assert losses[1] < losses[0]
        changed = {name for name, value in state_of(adapted).items() if not torch.equal(value, before[name])}
        assert any(".lora_B" in name for name in changed) and any("resampler.modules_to_save" in n for n in changed)
        assert all(".lora_" in name or ".modules_to_save." in name for name in changed)

    def test_the_loss_sees_the_media(self, tmp_path):
        """trl computes the loss from the base model's hidden states: media must get there."""
        model = tiny_model()
        seen = []
        model.model.vision_tower.register_forward_pre_hook(lambda *_: seen.append(1))
        self.train(tmp_path, model, max_steps=1, gradient_checkpointing=False)
        assert seen == [1]

    def test_stock_trl_takes_our_processor(self, tmp_path):
        """Without a collator of ours: an `images` column makes trl hand messages, media and all, to the processor."""
        trl = pytest.importorskip("trl", reason="needs trl: pip install 'saven-hf[train]'")
        datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'saven-hf[train]'")
        model, processor = saven_hf.load()
        render(tmp_path / "clip.mp4")
        video = {"type": "video", "video": str(tmp_path / "clip.mp4")}
        question = {"role": "user", "content": [video, {"type": "text", "text": "What is seen at 1 s?"}]}
        answer = {"role": "assistant", "content": [{"type": "text", "text": "a red circle"}]}
        rows = datasets.Dataset.from_list([{"messages": [question, answer], "images": []}] * 2)
        seen = []
        model.model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
        settings = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": 1,
            "per_device_train_batch_size": 2,
            "assistant_only_loss": True,
            "bf16": False,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "max_length": None,
        }
        trl.SFTTrainer(
            model=model, args=trl.SFTConfig(**settings), train_dataset=rows, processing_class=processor
        ).train()
        assert seen[0]["pixel_values_videos"].shape[:2] == (2, 48)  # 12 s, four frames a second
        assert seen[0]["query_times"].tolist() == [[1_000_000]] * 2
        assert seen[0]["input_features"].shape[0] == 2
