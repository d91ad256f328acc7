"""BEATs encoder: padding is storage only, the attention paths agree, it lives as a transformers model.

That it computes the published formulas is tested through the converter, in tests/peers/test_convert_beats.py.
"""

import logging

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from saven_hf.savenvideo.configuration_beats import SAVEnVideoBeatsConfig
from saven_hf.savenvideo.modeling_beats import (
    SAVEnVideoBeatsModel,
    SAVEnVideoBeatsRelativePositionBias,
    downsample_valid_mask,
    logger,
)


TINY = {
    "patch_embed_dim": 24,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_buckets": 32,
    "max_bucket_distance": 40,
    "layerdrop": 0.0,
}


def tiny_model(attn_implementation="sdpa", seed=0, **changes):
    """A model with weights so large that every term counts."""
    torch.manual_seed(seed)
    config = SAVEnVideoBeatsConfig(**(TINY | changes))
    model = SAVEnVideoBeatsModel._from_config(config, attn_implementation=attn_implementation).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def batch(num_frames=80, size=2, seed=1):
    return torch.randn(size, num_frames, 128, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def test_defaults_are_the_published_90m_encoder():
    with torch.device("meta"):
        model = SAVEnVideoBeatsModel(SAVEnVideoBeatsConfig())
    count = sum(parameter.numel() for parameter in model.parameters())
    layer = 4 * (768 * 768 + 768) + (64 * 8 + 8) + 12 + 2 * 768 * 3072 + 3072 + 768 + 2 * 2 * 768
    patches = 512 * 16 * 16 + 2 * 512 + 512 * 768 + 768
    # The position convolution's 128 magnitudes are folded into its weight.
    assert count == patches + 768 * 48 * 128 + 768 + 2 * 768 + 320 * 12 + 12 * layer == 90_311_664
    assert model.get_num_tokens(998) == 496


@pytest.mark.parametrize("num_frames, tokens", [(16, 8), (31, 8), (32, 16), (998, 496)])
def test_output_is_time_major_frequency_minor(num_frames, tokens):
    model = tiny_model()
    output = model(batch(num_frames, 1))
    assert output.last_hidden_state.shape == (1, tokens, 32)
    assert output.token_mask.shape == (1, tokens) and output.token_mask.all()
    # The patch embedding of the patch at time 0, band 3 is token 3.
    if num_frames == 32:
        changed = batch(num_frames, 1)
        changed[0, 16:32, 48:64] += 1.0
        difference = (model.embeddings(changed) - model.embeddings(batch(num_frames, 1))).abs().sum(-1)[0]
        assert difference.nonzero().flatten().tolist() == [8 + 3]


@pytest.mark.parametrize(
    "valid_frames, columns",
    [
        (range(0), [False, False]),
        (range(15), [False, False]),
        (range(16), [True, False]),
        (range(31), [True, False]),
        (range(32), [True, True]),
        (range(40), [True, True]),
        (range(16, 40), [False, True]),
        (set(range(40)) - {3}, [False, True]),
    ],
)
def test_patch_is_valid_if_all_its_frames_are(valid_frames, columns):
    mask = torch.tensor([[frame in valid_frames for frame in range(40)]])
    output = tiny_model()(batch(40, 1), input_features_mask=mask)
    expected = torch.tensor(columns).repeat_interleave(8)
    assert output.token_mask[0].tolist() == expected.tolist()
    assert (output.last_hidden_state[0].abs().sum(-1) > 0).tolist() == expected.tolist()
    assert torch.isfinite(output.last_hidden_state).all()


def test_upstream_mask_pools_the_flattened_sequence():
    # 98 frames: 48 tokens, 2 frames each, 2 cut. 33 valid frames reach 17 tokens: 2 columns and one patch of a third.
    mask = (torch.arange(98) < 33)[None]
    assert downsample_valid_mask(mask, 48)[0].sum() == 17
    # 1 s: 16,000 samples, 98 frames, 163 samples each, 26 cut; 5,000 samples reach 31 frames.
    assert downsample_valid_mask((torch.arange(16_000) < 5_000)[None], 98)[0].sum() == 31
    with pytest.raises(ValueError, match="98 positions to 99"):
        downsample_valid_mask(mask, 99)
    output = tiny_model(upstream_padding_mask=True)(batch(98, 1), input_features_mask=mask)
    assert output.token_mask[0].tolist() == [token < 17 for token in range(48)]


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("garbage", [0.0, 1e4, float("nan"), float("inf")])
def test_padding_is_storage_only(attn_implementation, garbage):
    model = tiny_model(attn_implementation)
    short, long = batch(48, 1)[0], batch(128, 1, seed=2)[0]
    padded = torch.full((2, 128, 128), garbage)
    padded[0, :48], padded[1] = short, long
    mask = torch.zeros(2, 128, dtype=torch.bool)
    mask[0, :48] = mask[1] = True
    output = model(padded, input_features_mask=mask)
    for row, alone in enumerate((short, long)):
        expected = model(alone[None]).last_hidden_state[0]
        actual = output.last_hidden_state[row][output.token_mask[row]]
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    assert not output.last_hidden_state[~output.token_mask].any()
    # On the left, and as a mask of integers, it is the same.
    left = model(padded[:1].roll(80, 1), input_features_mask=mask[:1].roll(80, 1).long())
    torch.testing.assert_close(left.last_hidden_state[0, -24:], output.last_hidden_state[0, :24], atol=1e-5, rtol=0)


def test_padding_takes_no_gradient():
    with torch.enable_grad():
        model = tiny_model().train()
        features = batch(48, 1)
        features[0, 40:] = float("nan")
        features.requires_grad_()
        mask = (torch.arange(48) < 40)[None]
        model(features, input_features_mask=mask).last_hidden_state.square().sum().backward()
    assert features.grad[0, 32:].abs().sum() == 0 and (features.grad[0, :32].abs().sum(-1) > 0).all()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("changes", [{}, {"gated_relative_position": False}, {"relative_position_embedding": False}])
def test_eager_equals_sdpa(changes):
    mask = torch.arange(80)[None] < torch.tensor([[80], [33]])
    eager = tiny_model("eager", **changes)(batch(), input_features_mask=mask, output_attentions=True)
    sdpa = tiny_model("sdpa", **changes)(batch(), input_features_mask=mask)
    torch.testing.assert_close(eager.last_hidden_state, sdpa.last_hidden_state, atol=1e-5, rtol=0)
    assert len(eager.attentions) == 2 and eager.attentions[0].shape == (2, 4, 40, 40)
    assert eager.attentions[1][1, :, :, 16:].max() == 0  # nothing looks at the padding
    torch.testing.assert_close(eager.attentions[0].sum(-1), torch.ones(2, 4, 40))


def test_hidden_states():
    output = tiny_model()(batch(), output_hidden_states=True)
    assert len(output.hidden_states) == 3
    assert all(state.shape == (2, 40, 32) for state in output.hidden_states)
    torch.testing.assert_close(output.hidden_states[-1], output.last_hidden_state)
    last, states = tiny_model()(batch(), output_hidden_states=True, return_dict=False)
    torch.testing.assert_close(last, output.last_hidden_state)
    assert len(states) == 3


def test_buckets_by_hand():
    bias = SAVEnVideoBeatsRelativePositionBias(SAVEnVideoBeatsConfig())
    distances = torch.tensor([0, -1, 1, -79, 79, -80, 80, -799, 800, -5000, 5000])
    # 160 buckets a direction, later keys in the upper half; exact below 80, the last from max_distance on.
    assert bias.buckets(distances).tolist() == [0, 1, 161, 79, 239, 80, 240, 159, 319, 159, 319]
    # Between them: 80 + floor(80 * ln(253 / 80) / ln(10)) = 120.
    assert bias.buckets(torch.tensor([-253])).item() == 120
    values = bias(90)
    assert values.shape == (1, 12, 90, 90)
    torch.testing.assert_close(values[0, :, 3, 5], bias.embedding.weight[160 + 2])
    torch.testing.assert_close(values[0, :, 85, 5], bias.embedding.weight[80])


def test_position_bias_is_computed_once_and_owned_once():
    model = tiny_model()
    calls = []
    model.encoder.relative_attention_bias.register_forward_hook(lambda *args: calls.append(1))
    model(batch())
    assert len(calls) == 1
    assert [key for key in model.state_dict() if "relative_attention_bias" in key] == [
        "encoder.relative_attention_bias.embedding.weight"
    ]


def test_meta_load_round_trip(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    with torch.device("meta"):
        empty = SAVEnVideoBeatsModel._from_config(SAVEnVideoBeatsConfig.from_pretrained(tmp_path))
    assert not list(empty.buffers())  # nothing that a load would leave behind
    empty.load_state_dict(model.state_dict(), assign=True)
    loaded = SAVEnVideoBeatsModel.from_pretrained(tmp_path)
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict() | {"architectures": ["SAVEnVideoBeatsModel"]}
    for other in (empty.eval(), loaded):
        assert torch.equal(other(batch()).last_hidden_state, model(batch()).last_hidden_state)


def test_initial_weights_are_deep_norms():
    torch.manual_seed(0)
    config = SAVEnVideoBeatsConfig(hidden_size=192, intermediate_size=384, num_hidden_layers=2, patch_embed_dim=64)
    model = SAVEnVideoBeatsModel(config)
    layer = model.encoder.layers[1]
    gain = (8 * 2) ** -0.25
    for module, expected in (
        (layer.self_attn.q_proj, (2 / 384) ** 0.5),
        (layer.self_attn.v_proj, gain * (2 / 384) ** 0.5),
        (layer.self_attn.out_proj, gain * (2 / 384) ** 0.5),
        (layer.feed_forward.fc1, gain * (2 / 576) ** 0.5),
        (model.encoder.pos_conv.conv, (4 / (128 * 192)) ** 0.5),
        (model.encoder.relative_attention_bias.embedding, 0.02),
    ):
        assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
    assert (layer.self_attn.gate_scale == 1).all() and (layer.self_attn.q_proj.bias == 0).all()


def test_bfloat16_and_autocast_stay_close():
    model, mask = tiny_model(), torch.arange(80)[None] < torch.tensor([[80], [40]])
    expected = model(batch(), input_features_mask=mask).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16):
        autocast = model(batch(), input_features_mask=mask).last_hidden_state
    half = model.to(torch.bfloat16)(batch(), input_features_mask=mask)
    assert half.last_hidden_state.dtype == torch.bfloat16 and half.token_mask.dtype == torch.bool
    for actual in (autocast.float(), half.last_hidden_state.float()):
        assert torch.nn.functional.cosine_similarity(actual, expected, dim=-1)[half.token_mask].min() > 0.99


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(use_reentrant):
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
        with torch.enable_grad():
            model(batch().requires_grad_()).last_hidden_state.square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    # Relative to the largest: the gradient of a key's bias is zero but for rounding.
    largest = max(gradient.abs().max().item() for gradient in gradients[0])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=1e-6 * largest, rtol=1e-4)


def test_layerdrop_only_in_training():
    model = tiny_model(layerdrop=1.0)
    evaluated = model(batch()).last_hidden_state
    ran = []
    for layer in model.encoder.layers:
        layer.register_forward_hook(lambda *args: ran.append(1))
    dropped = model.train()(batch()).last_hidden_state
    assert not ran and not torch.allclose(dropped, evaluated)


def test_compiles_without_a_graph_break():
    model = tiny_model()
    mask = torch.arange(80)[None] < torch.tensor([[80], [40]])
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(batch(), input_features_mask=mask).last_hidden_state,
        model(batch(), input_features_mask=mask).last_hidden_state,
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("requested", ["flash_attention_2", "flash_attention_3", "flex_attention", "kernels-x/sage"])
def test_other_attention_becomes_sdpa_with_one_line(requested, caplog):
    logger.warning_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        model = tiny_model(requested)
        model.set_attn_implementation(requested)
        SAVEnVideoBeatsModel._from_config(SAVEnVideoBeatsConfig(**TINY), attn_implementation=requested)
    assert model.config._attn_implementation == "sdpa"
    assert [requested in record.message for record in caplog.records] == [True]
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="no_such_attention"):
        model.set_attn_implementation("no_such_attention")


class WholeConfig(PreTrainedConfig):
    model_type = "whole_of_the_test"
    sub_configs = {"audio_config": SAVEnVideoBeatsConfig}
    audio_config: dict | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs):
        if isinstance(self.audio_config, dict):
            self.audio_config = SAVEnVideoBeatsConfig(**self.audio_config)
        super().__post_init__(**kwargs)


class Whole(PreTrainedModel):
    config: WholeConfig
    _supports_sdpa = _supports_flex_attn = _supports_flash_attn = True

    def __init__(self, config):
        super().__init__(config)
        self.audio_tower = SAVEnVideoBeatsModel(config.audio_config)
        self.head = nn.Linear(2, 2)
        self.post_init()


def test_whole_model_keeps_its_attention_and_beats_its_own(caplog):
    logger.warning_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        whole = Whole._from_config(WholeConfig(audio_config=dict(TINY)), attn_implementation="flex_attention")
    assert whole.config._attn_implementation == "flex_attention"
    assert whole.audio_tower.config._attn_implementation == "sdpa"
    whole.set_attn_implementation("sdpa")
    with caplog.at_level(logging.WARNING):
        whole.set_attn_implementation("flex_attention")
    assert whole.config._attn_implementation == "flex_attention"
    assert whole.audio_tower.config._attn_implementation == "sdpa"
    assert len([record for record in caplog.records if "BEATs" in record.message]) == 1


@pytest.mark.parametrize(
    "features, mask, message",
    [
        (torch.zeros(2, 32, 64), None, r"128\), got \(2, 32, 64\)"),
        (torch.zeros(32, 128), None, "must have the shape"),
        (torch.zeros(1, 15, 128), None, "15 fbank frames, but one patch takes 16"),
        (torch.zeros(1, 32, 128), torch.ones(1, 2, 32), r"\(1, 2, 32\) for \(1, 32\)"),
    ],
)
def test_bad_input_names_both_numbers(features, mask, message):
    with pytest.raises(ValueError, match=message):
        tiny_model()(features, input_features_mask=mask)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"num_mel_bins": 100}, "num_mel_bins"),
        ({"num_conv_pos_embedding_groups": 5}, "num_conv_pos_embedding_groups"),
        ({"layer_norm_first": True}, "deep_norm"),
        ({"hidden_act": "glu"}, "glu"),
        ({"num_buckets": 30}, "num_buckets"),
        ({"max_bucket_distance": 8}, "max_bucket_distance"),
    ],
)
def test_config_refuses_sizes_that_do_not_fit(changes, message):
    with pytest.raises(StrictDataclassError, match=message):
        SAVEnVideoBeatsConfig(**(TINY | changes))
