"""Exactly the listed parts train in each stage, and what trained comes back."""

import pytest
import torch
from batches import gap
from clip import render
from kinds import STC_AS_PUBLISHED
from small import feature_rows, save_small_model, small_model, talk

from saven_hf import SAVEnVideoForConditionalGeneration
from saven_hf.training.collator import SAVEnVideoCollator
from saven_hf.training.recipe import from_dict
from saven_hf.training.stages import apply_stage, is_connector, load_for_training, trained_parameters
from saven_hf.training.trainer import train


VISUAL = ("resampler.visual_mlp", "temporal_projection", "resampler.layers", "resampler.queries")
AUDIO = ("resampler.audio_mlp",)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("start"))


def recipe(start, folder, **settings):
    values = {
        "model": start,
        "output_dir": str(folder),
        "global_batch_size": 2,
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "warmup": 0,
        "scheduler": "constant",
        "precision": "float32",
        "logging_steps": 1,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
        "trainer": {"use_cpu": True, "disable_tqdm": True},
    }
    return from_dict({**values, **settings})


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def logits(model, processor, rows):
    batch = SAVEnVideoCollator(processor)(rows)
    inputs = {name: batch[name] for name in batch if name not in ("labels", "loss_weights")}
    with torch.no_grad():
        return model.eval()(**inputs).logits


def test_the_joint_stage_trains_all_but_the_vision_tower(tmp_path):
    """VideoLLaMA 2's last stage, on rows with picture and sound, and from files whose sound is left out."""
    start = save_small_model(tmp_path / "start", **STC_AS_PUBLISHED)
    model, processor = load_for_training(start)
    assert model.model.temporal_projection is None
    before = weights(model)
    render(tmp_path / "clip.mp4")
    rows = [
        {"messages": talk("What is seen?", "a shape", {"type": "video", "video": str(tmp_path / "clip.mp4")})},
        {"messages": talk("What is heard?", "a tone", {"type": "audio", "audio": str(tmp_path / "clip.mp4")})},
    ]
    result = train(recipe(start, tmp_path / "out", stage="joint"), rows)
    trained = SAVEnVideoForConditionalGeneration.from_pretrained(result.model)
    changed = {name for name, tensor in weights(trained).items() if not torch.equal(tensor, before[name])}
    for part in ("resampler.s1", "resampler.readout", "resampler.audio_mlp", "language_model.layers", "audio_tower"):
        assert any(part in name for name in changed), part
    assert "lm_head.weight" in changed and not any("vision_tower" in name for name in changed)


@pytest.mark.parametrize(
    "stage, connector, learns",
    [
        ("align-visual", False, VISUAL),
        ("align-audio", False, VISUAL + AUDIO),
        ("temporal", True, (*VISUAL, *AUDIO, "language_model.layers")),
        ("temporal", False, ("language_model.layers",)),
        ("saven", True, (*VISUAL, *AUDIO, "language_model.layers")),
        ("saven", False, ("language_model.layers",)),
    ],
)
def test_exactly_the_listed_parts_change(start, tmp_path, stage, connector, learns):
    """Every weight of the model before and after two real updates, adapters merged into what they adapt."""
    model, processor = load_for_training(start)
    before, rows = weights(model), feature_rows(model, processor, 4)
    result = train(recipe(start, tmp_path, stage=stage, train_connector=connector), rows)
    after = weights(SAVEnVideoForConditionalGeneration.from_pretrained(result.merged or result.model))
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    aligned = {
        name
        for name in before
        if is_connector(name) and not (stage == "align-visual" and name.startswith("model.resampler.audio_mlp"))
    }
    # The time rows of the modality embedding and the like may be unused; nothing else may stay as it was.
    allowed = aligned if stage.startswith("align") or connector else set()
    if stage in ("temporal", "saven"):
        allowed |= {name for name in before if ".language_model.layers." in name and name.endswith("_proj.weight")}
    assert changed <= allowed
    for part in learns:
        assert any(name.startswith(f"model.{part}") for name in changed), part
    assert len(changed) > 0.8 * len(allowed)


def test_what_trains_is_float32_and_the_rest_stays_as_it_is(start):
    model, _ = load_for_training(start, torch.bfloat16)
    learnt = trained_parameters(apply_stage(model, "align-audio"))
    assert {parameter.dtype for parameter in learnt.values()} == {torch.float32}
    assert all(is_connector(name) for name in learnt)
    others = {parameter.dtype for name, parameter in model.named_parameters() if name not in learnt}
    assert others == {torch.bfloat16}


def test_an_unknown_stage_is_refused():
    with pytest.raises(ValueError, match="must be one of"):
        apply_stage(small_model()[0], "align")


@pytest.mark.parametrize("connector", [True, False])
def test_adapters_and_connector_come_back_and_merge(start, tmp_path, connector):
    model, processor = load_for_training(start)
    rows = feature_rows(model, processor, 4)
    untrained = logits(model, processor, rows)
    result = train(recipe(start, tmp_path / "out", stage="temporal", train_connector=connector), rows)
    merged = SAVEnVideoForConditionalGeneration.from_pretrained(result.merged)
    assert type(merged) is SAVEnVideoForConditionalGeneration
    expected = logits(merged, processor, rows)
    assert gap(expected, untrained) > 1e-2
    # The folder of adapters, named as a model to start from.
    loaded, _ = load_for_training(result.model)
    assert gap(logits(loaded, processor, rows), expected) < 1e-4
    # A next stage starts from either.
    again = train(recipe(result.model, tmp_path / "next", stage="saven", merge=False, max_steps=1), rows)
    assert again.merged is None and again.steps == 1


def test_adapters_on_four_bits(tmp_path):
    """QLoRA, on a CPU: adapters of a quantized model, merged into its weights as they are on disk."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'saven-hf[quantization]'")
    start = save_small_model(tmp_path / "start", width=64)  # bitsandbytes works on blocks of 64
    model, processor = load_for_training(start)
    before, rows = weights(model), feature_rows(model, processor, 4)
    settings = {"stage": "saven", "quantization": "4bit", "gradient_checkpointing": True}
    result = train(recipe(start, tmp_path / "out", **settings), rows)
    merged = SAVEnVideoForConditionalGeneration.from_pretrained(result.merged)
    after = weights(merged)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.endswith("self_attn.q_proj.weight") for name in changed)
    assert all(is_connector(name) or name.endswith("_proj.weight") for name in changed)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
