"""`from_components`: trained parts become one model, their weights as they were."""

import pytest
import torch
from batches import inputs_for, logits_of, realigned
from test_hub_form import same_weights
from tiny import tiny_config, video_media
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

from saven_hf.savenvideo.modeling_beats import SAVEnVideoBeatsModel
from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration


VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 14,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}
CONNECTOR = {
    "resampler_hidden_size": 24,
    "resampler_layers": 1,
    "resampler_heads": 4,
    "resampler_intermediate_size": 48,
    "queries_per_window": 4,
    "window_seconds": 4.0,
}
WORDS = 90


def siglip(folder):
    """A whole SigLIP, with its text half and its pooling head, as the Hub has them."""
    text = SiglipTextConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = SiglipConfig(
        text_config=text.to_dict(), vision_config=SiglipVisionConfig(**VISION, image_size=28).to_dict()
    )
    model = SiglipModel(config)
    model.save_pretrained(folder)
    return model.vision_model


def siglip_vision(folder):
    model = SiglipVisionModel(SiglipVisionConfig(**VISION, image_size=28))
    model.save_pretrained(folder)
    return model


def siglip2_vision(folder):
    model = Siglip2VisionModel(Siglip2VisionConfig(**VISION, num_patches=4))
    model.save_pretrained(folder)
    return model


def beats(folder):
    model = SAVEnVideoBeatsModel(tiny_config().audio_config)
    model.save_pretrained(folder)
    return model


def language_model(folder, config_class=Qwen2Config, vocabulary=100, tied=False, dtype=torch.float32):
    settings = {name: value for name, value in TEXT.items() if config_class is not Qwen2Config or name != "head_dim"}
    config = config_class(**settings, vocab_size=vocabulary, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({str(index): index for index in range(WORDS)}, unk_token="1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="0", eos_token="2", additional_special_tokens=["<|im_end|>"]
    ).save_pretrained(folder)
    return model


@pytest.fixture
def folders(tmp_path):
    torch.manual_seed(0)
    return {"vision": tmp_path / "vision", "audio": tmp_path / "audio", "text": tmp_path / "text"}


def use(model, tmp_path):
    """What any model has to do: answer, save, load, answer the same."""
    inputs = inputs_for(model, [video_media(questions=(1.0,))], [])
    ids = [model.config.video_token_id, model.config.image_token_id, model.config.audio_token_id]
    inputs["input_ids"][inputs["input_ids"] == 97] = ids[0]
    logits = logits_of(model, inputs)
    assert all(torch.isfinite(row).all() for row in logits)
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "min_new_tokens": 5}
    tokens = model.generate(**inputs, **settings)
    assert not torch.isin(tokens[:, inputs["input_ids"].shape[1] :], torch.tensor(ids)).any()
    model.save_pretrained(tmp_path / "model")
    loaded = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert same_weights(model, loaded) and loaded.generation_config.suppress_tokens == sorted(ids)
    for left, right in zip(logits_of(realigned(model), inputs), logits_of(realigned(loaded), inputs), strict=True):
        assert torch.equal(left, right)
    assert torch.equal(loaded.generate(**inputs, **settings), tokens)


def without_head(tower):
    return {name: value for name, value in tower.state_dict().items() if not name.startswith("head.")}


@pytest.mark.parametrize("make_vision", [siglip, siglip_vision, siglip2_vision])
def test_vision_towers(folders, tmp_path, make_vision):
    vision, audio, text = make_vision(folders["vision"]), beats(folders["audio"]), language_model(folders["text"])
    model = SAVEnVideoForConditionalGeneration.from_components(**folders, **CONNECTOR)
    found = model.model.vision_tower.state_dict()
    assert found.keys() == without_head(vision).keys() and not model.config.vision_config.vision_use_head
    assert all(torch.equal(value, found[name]) for name, value in without_head(vision).items())
    assert same_weights(audio, model.model.audio_tower)
    assert same_weights(text.model, model.model.language_model)
    assert torch.equal(text.lm_head.weight, model.lm_head.weight)
    assert not any(parameter.requires_grad for parameter in model.model.vision_tower.parameters())
    assert not model.training and model.config.patches_per_frame == 4
    use(model, tmp_path)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("config_class", [Qwen2Config, Qwen3Config, LlamaConfig])
@pytest.mark.parametrize("vocabulary", [100, WORDS + 2])
def test_language_models(folders, tmp_path, config_class, tied, vocabulary):
    siglip_vision(folders["vision"])
    beats(folders["audio"])
    text = language_model(folders["text"], config_class, vocabulary, tied)
    words = len(AutoTokenizer.from_pretrained(folders["text"]))
    model = SAVEnVideoForConditionalGeneration.from_components(**folders, **CONNECTOR)
    ids = [model.config.video_token_id, model.config.image_token_id, model.config.audio_token_id]
    assert ids == [words, words + 1, words + 2]
    # Rows are added only where there are too few.
    rows = max(vocabulary, words + 3)
    embeddings = model.get_input_embeddings().weight
    assert len(embeddings) == model.lm_head.weight.shape[0] == model.config.text_config.vocab_size == rows
    assert torch.equal(embeddings[:vocabulary], text.get_input_embeddings().weight)
    assert torch.equal(model.lm_head.weight[:vocabulary], text.get_output_embeddings().weight)
    assert (model.lm_head.weight is embeddings) == tied == model.config.tie_word_embeddings
    own = text.model.state_dict()
    found = model.model.language_model.state_dict()
    assert all(torch.equal(own[name], found[name]) for name in own if "embed_tokens" not in name)
    use(model, tmp_path)


def components(folders, dtype=torch.float32):
    siglip_vision(folders["vision"])
    beats(folders["audio"])
    language_model(folders["text"], dtype=dtype)
    return folders


def test_the_connector_starts_as_any_new_one(folders):
    torch.manual_seed(0)
    model = SAVEnVideoForConditionalGeneration.from_components(**components(folders), **CONNECTOR)
    torch.manual_seed(0)
    fresh = SAVEnVideoForConditionalGeneration(model.config)
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    expected = dict(fresh.named_parameters())
    for name, parameter in model.named_parameters():
        if name.startswith(("model.resampler", "model.temporal_projection")):
            assert torch.isfinite(parameter).all() and parameter.dtype == torch.float32
            if parameter.numel() < 100 or expected[name].std() == 0:
                assert (expected[name].std() == 0) == (parameter.std() == 0), name
            else:
                assert (parameter.std() / expected[name].std()).item() == pytest.approx(1, abs=0.3), name
            if parameter.std() == 0:
                assert torch.equal(parameter, expected[name]), name


def test_everything_in_one_dtype(folders, tmp_path):
    model = SAVEnVideoForConditionalGeneration.from_components(
        **components(folders, torch.bfloat16), dtype=torch.bfloat16, **CONNECTOR
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32
    use(model, tmp_path)


def test_loaded_parts_and_settings(folders):
    parts = components(folders)
    tokenizer = AutoTokenizer.from_pretrained(parts["text"])
    words = len(tokenizer)
    model = SAVEnVideoForConditionalGeneration.from_components(
        SiglipVisionModel.from_pretrained(parts["vision"]),
        SAVEnVideoBeatsModel.from_pretrained(parts["audio"]),
        AutoModelForCausalLM.from_pretrained(parts["text"]),
        tokenizer,
        **CONNECTOR,
        question_times="joint",
    )
    assert model.config.question_times == "joint" and model.model.resampler.joint
    assert len(tokenizer) == words + 3
    assert "<|im_end|>" in tokenizer.all_special_tokens  # special tokens of its own are kept
    assert tokenizer("<|audio|><|video|>")["input_ids"] == [model.config.audio_token_id, model.config.video_token_id]
    # A second time with the same tokenizer: nothing is added twice.
    again = SAVEnVideoForConditionalGeneration.from_components(**parts, tokenizer=tokenizer, **CONNECTOR)
    assert again.config.video_token_id == model.config.video_token_id and len(tokenizer) == words + 3


def test_a_loaded_language_model_does_not_name_its_tokenizer(folders):
    parts = components(folders)
    with pytest.raises(ValueError, match="Pass `tokenizer`"):
        SAVEnVideoForConditionalGeneration.from_components(
            parts["vision"], parts["audio"], AutoModelForCausalLM.from_pretrained(parts["text"])
        )


def test_a_vision_model_of_another_kind(folders):
    parts = components(folders)
    ViTModel(ViTConfig(**VISION, image_size=28)).save_pretrained(parts["vision"])
    with pytest.raises(ValueError, match="vit.*siglip_vision_model"):
        SAVEnVideoForConditionalGeneration.from_components(**parts, **CONNECTOR)


def test_a_head_with_a_bias_is_refused(folders):
    parts = components(folders)
    text = AutoModelForCausalLM.from_pretrained(parts["text"])
    text.lm_head = torch.nn.Linear(32, 100)
    with pytest.raises(ValueError, match="bias"):
        SAVEnVideoForConditionalGeneration.from_components(
            parts["vision"], parts["audio"], text, AutoTokenizer.from_pretrained(parts["text"]), **CONNECTOR
        )


def test_a_language_model_that_caps_its_logits_is_refused(folders):
    parts = components(folders)
    text = Gemma2ForCausalLM(Gemma2Config(vocab_size=100, **TEXT))
    with pytest.raises(ValueError, match="final_logit_softcapping=30.0"):
        SAVEnVideoForConditionalGeneration.from_components(
            parts["vision"], parts["audio"], text, AutoTokenizer.from_pretrained(parts["text"]), **CONNECTOR
        )
