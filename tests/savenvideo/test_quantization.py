"""4-bit weights (bitsandbytes, which also runs on CPUs): in the language model and nowhere else."""

import pytest
import torch
from batches import gap, inputs_for, logits_of
from tiny import tiny_model, video_media
from transformers import BitsAndBytesConfig, Qwen2Config

from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration, SAVEnVideoModel


bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'saven-hf[quantization]'")

SETTINGS = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "suppress_tokens": [97, 98, 99]}


def wide_model():
    """Wide enough for bitsandbytes' kernels: blocks of 64 weights."""
    text = Qwen2Config(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    return tiny_model(text_config=text)


def quantization(**settings):
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32, **settings
    )


def quantized(model):
    """Names of the modules with 4-bit weights."""
    return {name for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)}


def linear(model):
    return {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


@pytest.fixture
def folder(tmp_path):
    wide_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(folder, cls=SAVEnVideoForConditionalGeneration, config=None):
    return cls.from_pretrained(folder, quantization_config=config or quantization(), device_map="cpu")


@pytest.mark.parametrize("cls", [SAVEnVideoForConditionalGeneration, SAVEnVideoModel])
def test_the_language_model_and_nothing_else(folder, cls):
    model = load(folder, cls)
    names = quantized(model)
    prefix = "model.language_model." if cls is SAVEnVideoForConditionalGeneration else "language_model."
    assert len(names) == 2 * 7 and all(name.startswith(prefix) for name in names)
    assert len(linear(model) - names) > 20  # towers, time, resampler (and head) are there, as they were
    reference = dict(wide_model().base_model.named_parameters())
    for name, parameter in model.base_model.named_parameters():
        if not name.startswith("language_model"):
            assert torch.equal(parameter, reference[name]), name


def test_answers_stay_close(folder):
    model, full = load(folder), wide_model()
    inputs = inputs_for(full, [video_media(questions=(1.0,))], [])
    for left, right in zip(logits_of(full, inputs), logits_of(model, inputs), strict=True):
        assert 0 < gap(left, right) < 0.3 * left.abs().max()
    assert model.generate(**inputs, **SETTINGS).shape[1] == inputs["input_ids"].shape[1] + 4
    # What the media become is the same to the bit, and so are memories.
    media = video_media()
    left, right = (each.get_video_features(**media).pooler_output[0] for each in (full, model))
    assert gap(left, right) < 1e-6
    assert model.model.encoder_fingerprint() == full.model.encoder_fingerprint()


def test_saved_and_loaded_again(folder, tmp_path):
    model = load(folder)
    model.save_pretrained(tmp_path / "quantized")
    again = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path / "quantized", device_map="cpu")
    assert quantized(again) == quantized(model)
    inputs = inputs_for(model, [video_media(questions=(1.0,))], [])
    for left, right in zip(logits_of(model, inputs), logits_of(again, inputs), strict=True):
        assert gap(left, right) < 1e-5
    assert not any(parameter.requires_grad for parameter in again.model.vision_tower.parameters())


def test_the_callers_configuration_is_left_alone_and_his_choice_respected(folder):
    config = quantization()
    load(folder, config=config)
    assert config.llm_int8_skip_modules is None
    names = quantized(load(folder, config=quantization(llm_int8_skip_modules=["lm_head", "model.language_model"])))
    assert names and not any("language_model" in name for name in names)
    names = quantized(load(folder, config={"load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"}))
    assert len(names) == 2 * 7 and all("language_model" in name for name in names)


def test_adapters_on_a_quantized_language_model_learn(folder):
    peft = pytest.importorskip("peft", reason="needs peft: pip install 'saven-hf[train]'")
    model = peft.prepare_model_for_kbit_training(load(folder))
    targets = r"model\.language_model\..*\.(q|v)_proj"
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=targets, modules_to_save=["resampler", "temporal_projection"])
    ).train()
    inputs = inputs_for(model.base_model.model, [video_media(questions=(1.0,))], [])
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    model(**inputs, labels=labels).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert any("lora_B" in name and gradient.abs().max() > 0 for name, gradient in gradients.items())
    assert any("resampler.modules_to_save.default.queries" in name for name in gradients)
    assert all("lora_" in name or "modules_to_save" in name for name in gradients)
