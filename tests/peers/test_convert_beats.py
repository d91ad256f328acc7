"""Microsoft's BEATs checkpoints: converted weights compute what the published formulas say, unsafe files are refused.

The reference is a restatement of the published encoder in float64 that works on the published key names, loop by
loop, and shares no code with the model.
"""

import math
import os
import pickle

import pytest
import torch

from saven_hf.peers.beats import CheckpointError, convert_beats
from saven_hf.savenvideo.feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor
from saven_hf.savenvideo.modeling_beats import SAVEnVideoBeatsModel


CFG = {
    "input_patch_size": 16,
    "embed_dim": 24,
    "conv_bias": False,
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "layer_wise_gradient_decay_ratio": 0.6,
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "relative_position_embedding": True,
    "num_buckets": 32,
    "max_distance": 40,
    "gru_rel_pos": True,
    "finetuned_model": True,
    "predictor_dropout": 0.0,
    "predictor_class": 5,
}


def published_state_dict(cfg, seed=0):
    """Random weights, large enough for every term to count, under the published names."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape, scale=None):
        scale = scale if scale is not None else 1.5 / math.sqrt(max(1, math.prod(shape[1:])))
        return torch.randn(*shape, generator=generator) * scale

    width, embed, ffn = cfg["encoder_embed_dim"], cfg["embed_dim"], cfg["encoder_ffn_embed_dim"]
    heads, kernel = cfg["encoder_attention_heads"], cfg["conv_pos"]
    state = {
        "patch_embedding.weight": rand(embed, 1, cfg["input_patch_size"], cfg["input_patch_size"]),
        "layer_norm.weight": 1 + rand(embed, scale=0.2),
        "layer_norm.bias": rand(embed, scale=0.2),
        "encoder.pos_conv.0.weight_g": 1 + rand(1, 1, kernel, scale=0.3).abs(),
        "encoder.pos_conv.0.weight_v": rand(width, width // cfg["conv_pos_groups"], kernel, scale=0.5),
        "encoder.pos_conv.0.bias": rand(width, scale=0.2),
        "encoder.layer_norm.weight": 1 + rand(width, scale=0.2),
        "encoder.layer_norm.bias": rand(width, scale=0.2),
    }
    if cfg["conv_bias"]:
        state["patch_embedding.bias"] = rand(embed, scale=0.2)
    if embed != width:
        state |= {"post_extract_proj.weight": rand(width, embed), "post_extract_proj.bias": rand(width, scale=0.2)}
    table = rand(cfg["num_buckets"], heads, scale=1.0)
    for i in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            state[f"{layer}.self_attn.{name}.weight"] = rand(width, width)
            state[f"{layer}.self_attn.{name}.bias"] = rand(width, scale=0.2)
        if cfg["relative_position_embedding"]:
            state[f"{layer}.self_attn.relative_attention_bias.weight"] = table
        if cfg["gru_rel_pos"]:
            state[f"{layer}.self_attn.grep_linear.weight"] = rand(8, width // heads)
            state[f"{layer}.self_attn.grep_linear.bias"] = rand(8, scale=0.5)
            state[f"{layer}.self_attn.grep_a"] = 1 + rand(1, heads, 1, 1, scale=0.5)
        state |= {f"{layer}.fc1.weight": rand(ffn, width), f"{layer}.fc1.bias": rand(ffn, scale=0.2)}
        state |= {f"{layer}.fc2.weight": rand(width, ffn), f"{layer}.fc2.bias": rand(width, scale=0.2)}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            state[f"{layer}.{name}.weight"] = 1 + rand(width, scale=0.2)
            state[f"{layer}.{name}.bias"] = rand(width, scale=0.2)
    if cfg["finetuned_model"]:
        state |= {
            "predictor.weight": rand(cfg["predictor_class"], width),
            "predictor.bias": rand(cfg["predictor_class"]),
        }
    return state


def bucket(distance, num_buckets, max_distance):
    """T5's bidirectional bucket of one distance (key position minus query position)."""
    half = num_buckets // 2
    offset = half if distance > 0 else 0
    distance = abs(distance)
    exact = half // 2
    if distance < exact:
        return offset + distance
    large = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (half - exact))
    return offset + min(large, half - 1)


def restated_beats(state, cfg, fbank, padding=None):
    """The published encoder for one example, in float64.

    Args:
        fbank: (frames, 128), normalised. padding: (frames,) bool, True in the padding, with the published
        pooling of masks; None without padding.

    Returns:
        (tokens, width)
    """
    w = {key: tensor.double() for key, tensor in state.items()}
    fbank = fbank.double()
    size, width, heads = cfg["input_patch_size"], cfg["encoder_embed_dim"], cfg["encoder_attention_heads"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    tokens = []
    for t in range(fbank.shape[0] // size):
        for f in range(fbank.shape[1] // size):
            patch = fbank[t * size : (t + 1) * size, f * size : (f + 1) * size]
            token = (w["patch_embedding.weight"][:, 0] * patch).sum((1, 2))
            tokens.append(token + w["patch_embedding.bias"] if cfg["conv_bias"] else token)
    x = norm(torch.stack(tokens), "layer_norm")
    if cfg["embed_dim"] != width:
        x = linear(x, "post_extract_proj")
    n = x.shape[0]

    token_padding = torch.zeros(n, dtype=torch.bool)
    if padding is not None:
        kept = padding[: len(padding) - len(padding) % n]
        token_padding = kept.view(n, -1).all(-1)
        x = torch.where(token_padding[:, None], torch.zeros_like(x), x)

    g, v = w["encoder.pos_conv.0.weight_g"], w["encoder.pos_conv.0.weight_v"]
    kernel = g * v / (v**2).sum((0, 1), keepdim=True).sqrt()
    length, per_group = kernel.shape[2], kernel.shape[1]
    padded = torch.zeros(n + length, width, dtype=torch.float64)
    padded[length // 2 : length // 2 + n] = x
    positions = w["encoder.pos_conv.0.bias"].repeat(n, 1)
    for channel in range(width):
        first = channel // (width // cfg["conv_pos_groups"]) * per_group
        for t in range(n):
            positions[t, channel] += (padded[t : t + length, first : first + per_group].T * kernel[channel]).sum()
    x = x + gelu(positions)
    if not cfg["layer_norm_first"]:
        x = norm(x, "encoder.layer_norm")

    alpha = (2 * cfg["encoder_layers"]) ** 0.25 if cfg["deep_norm"] else 1.0
    act = {"gelu": gelu, "relu": torch.relu, "tanh": torch.tanh}[cfg["activation_fn"]]
    for i in range(cfg["encoder_layers"]):
        layer, attn = f"encoder.layers.{i}", f"encoder.layers.{i}.self_attn"

        def attend(x, attn=attn):
            q, k, v = (linear(x, f"{attn}.{name}").view(n, heads, -1) for name in ("q_proj", "k_proj", "v_proj"))
            out = torch.zeros(n, heads, width // heads, dtype=torch.float64)
            for h in range(heads):
                scores = q[:, h] @ k[:, h].T / math.sqrt(width // heads)
                scores[:, token_padding] = -math.inf
                if cfg["relative_position_embedding"]:
                    table = w["encoder.layers.0.self_attn.relative_attention_bias.weight"]
                    gates = torch.ones(n, dtype=torch.float64)
                    if cfg["gru_rel_pos"]:
                        sums = linear(q[:, h], f"{attn}.grep_linear").view(n, 2, 4).sum(-1)
                        a, b = torch.sigmoid(sums).unbind(-1)
                        gates = a * (b * w[f"{attn}.grep_a"][0, h, 0, 0] - 1) + 2
                    for query in range(n):
                        for key in range(n):
                            place = bucket(key - query, cfg["num_buckets"], cfg["max_distance"])
                            scores[query, key] += gates[query] * table[place, h]
                out[:, h] = torch.softmax(scores, -1) @ v[:, h]
            return linear(out.view(n, width), f"{attn}.out_proj")

        def feed_forward(x, layer=layer):
            return linear(act(linear(x, f"{layer}.fc1")), f"{layer}.fc2")

        if cfg["layer_norm_first"]:
            x = x + attend(norm(x, f"{layer}.self_attn_layer_norm"))
            x = x + feed_forward(norm(x, f"{layer}.final_layer_norm"))
        else:
            x = norm(x * alpha + attend(x), f"{layer}.self_attn_layer_norm")
            x = norm(x * alpha + feed_forward(x), f"{layer}.final_layer_norm")
    return norm(x, "encoder.layer_norm") if cfg["layer_norm_first"] else x


def write_checkpoint(path, cfg=CFG, state=None, **others):
    torch.save({"cfg": cfg, "model": state if state is not None else published_state_dict(cfg), **others}, path)
    return path


VARIANTS = {
    "iter3+": {},
    "pre-norm": {"deep_norm": False, "layer_norm_first": True},
    "post-norm, relu": {"deep_norm": False, "activation_fn": "relu"},
    "no gate": {"gru_rel_pos": False},
    "no position bias": {"relative_position_embedding": False, "gru_rel_pos": False},
    "one width, conv bias, odd kernel": {"embed_dim": 32, "conv_bias": True, "conv_pos": 7},
    "pre-trained": {"finetuned_model": False},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_converted_weights_compute_the_published_formulas(tmp_path, changes):
    cfg = CFG | changes
    state = published_state_dict(cfg)
    convert_beats(write_checkpoint(tmp_path / "beats.pt", cfg, state), tmp_path / "out")
    model = SAVEnVideoBeatsModel.from_pretrained(tmp_path / "out").eval()
    fbank = torch.randn(100, 128, generator=torch.Generator().manual_seed(1))  # 6 columns, 4 frames left over
    expected = restated_beats(state, cfg, fbank)
    with torch.no_grad():
        output = model(fbank[None])
        double = model.double()(fbank[None].double())
    assert output.last_hidden_state.shape == (1, 48, 32)
    torch.testing.assert_close(output.last_hidden_state[0], expected.float(), atol=1e-4, rtol=0)
    # In float64 what is left is the float32 rounding of the folded position convolution.
    torch.testing.assert_close(double.last_hidden_state[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_valid", [16, 19, 50, 51, 80, 99])
def test_upstream_padding_mask_is_that_of_the_original(tmp_path, num_valid):
    state = published_state_dict(CFG)
    convert_beats(write_checkpoint(tmp_path / "beats.pt", CFG, state), tmp_path / "out")
    model = SAVEnVideoBeatsModel.from_pretrained(tmp_path / "out", upstream_padding_mask=True).eval()
    fbank = torch.randn(100, 128, generator=torch.Generator().manual_seed(2))
    valid = torch.arange(100) < num_valid
    expected = restated_beats(state, CFG, fbank, padding=~valid)
    with torch.no_grad():
        output = model(fbank[None], input_features_mask=valid[None])
    # 100 frames, 48 tokens: the last 4 frames are cut, 2 frames to a token.
    assert output.token_mask[0].tolist() == [2 * token < num_valid for token in range(48)]
    torch.testing.assert_close(output.last_hidden_state[0], expected.float(), atol=1e-4, rtol=0)


def test_report_and_files(tmp_path):
    report = convert_beats(write_checkpoint(tmp_path / "beats.pt", label_dict={0: "/m/09x0r"}), tmp_path / "out")
    state = published_state_dict(CFG)
    assert report.used.keys() | report.left_out.keys() >= state.keys()
    assert not report.used.keys() & report.left_out.keys()
    assert report.used["encoder.pos_conv.0.weight_v"] == "encoder.pos_conv.conv.weight"
    assert {"predictor.weight", "predictor.bias", "label_dict", "cfg.predictor_class"} <= report.left_out.keys()
    assert "encoder.layers.2.self_attn.relative_attention_bias.weight" in report.left_out
    assert "predictor.weight" in str(report)

    model, info = SAVEnVideoBeatsModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert sorted(set(report.used.values())) == sorted(model.state_dict())
    assert report.num_parameters == sum(p.numel() for p in model.parameters())
    assert (model.config.hidden_size, model.config.max_bucket_distance, model.config.layerdrop) == (32, 40, 0.05)
    extractor = SAVEnVideoBeatsFeatureExtractor.from_pretrained(tmp_path / "out")
    features = extractor([0.0] * 1600, sampling_rate=16_000, return_tensors="pt")
    assert model(features.input_features[0], features.input_features_mask[0]).last_hidden_state.shape == (1, 8, 32)


def test_parametrized_weight_norm_is_read_too(tmp_path):
    state = published_state_dict(CFG)
    convert_beats(write_checkpoint(tmp_path / "old.pt", CFG, state), tmp_path / "old")
    prefix = "encoder.pos_conv.0.parametrizations.weight"
    state[f"{prefix}.original0"] = state.pop("encoder.pos_conv.0.weight_g")
    state[f"{prefix}.original1"] = state.pop("encoder.pos_conv.0.weight_v")
    convert_beats(write_checkpoint(tmp_path / "new.pt", CFG, state), tmp_path / "new")
    assert (tmp_path / "old/model.safetensors").read_bytes() == (tmp_path / "new/model.safetensors").read_bytes()


class MarkerWriter:
    """Unpickling this creates a file: what a malicious checkpoint would do, harmlessly."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path, how):
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    content = {"cfg": CFG, "model": published_state_dict(CFG), "extra": MarkerWriter(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(CheckpointError, match="could run code|damaged"):
        convert_beats(path, tmp_path / "out")
    assert not marker.exists() and not (tmp_path / "out").exists()
    # The file is really malicious: the loader that trusts it runs it.
    pickle.loads(path.read_bytes()) if how == "pickle" else torch.load(path, weights_only=False)
    assert marker.exists()


def test_legacy_file_of_tensors_is_read(tmp_path):
    path = tmp_path / "legacy.pt"
    torch.save({"cfg": CFG, "model": published_state_dict(CFG)}, path, _use_new_zipfile_serialization=False)
    assert convert_beats(path, tmp_path / "out").used


def broken(change):
    state = published_state_dict(CFG)
    change(state)
    return state


def self_containing():
    loop = []
    loop.append(loop)
    return loop


REFUSED = {
    "missing key": (CFG, broken(lambda s: s.pop("encoder.layers.1.fc2.bias")), "Missing: encoder.layers.1"),
    "unexpected key": (CFG, broken(lambda s: s.update({"decoder.x": torch.zeros(1)})), "decoder.x"),
    "layer too many": (
        CFG | {"encoder_layers": 2},
        broken(lambda s: None),
        "Not in this architecture: encoder.layers.2",
    ),
    "wrong shape": (CFG | {"encoder_ffn_embed_dim": 64}, broken(lambda s: None), r"\(48, 32\).*\(64, 32\)"),
    "not finite": (CFG, broken(lambda s: s["layer_norm.bias"].fill_(math.nan)), "not finite"),
    "table not shared": (
        CFG,
        broken(lambda s: s.update({"encoder.layers.2.self_attn.relative_attention_bias.weight": torch.zeros(32, 4)})),
        "differs from the table",
    ),
    "weight norm of another dim": (
        CFG,
        broken(lambda s: s.update({"encoder.pos_conv.0.weight_g": torch.ones(32, 1, 1)})),
        r"\(32, 1, 1\)",
    ),
    "activation": (CFG | {"activation_fn": "glu"}, broken(lambda s: None), "glu"),
    "two norms": (CFG | {"layer_norm_first": True}, broken(lambda s: None), "deep_norm"),
    "no patch size": ({k: v for k, v in CFG.items() if k != "input_patch_size"}, broken(lambda s: None), "patch_size"),
    "a string for a number": (CFG | {"encoder_layers": "three"}, broken(lambda s: None), "num_hidden_layers"),
    "string in model": (CFG, broken(lambda s: s.update({"fc": "x"})), "no tensor"),
    "no model": (CFG, [1, 2], "no `model`"),
    "no end": (CFG | {"loop": self_containing()}, broken(lambda s: None), "levels deep"),
}


@pytest.mark.parametrize("cfg, state, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(tmp_path, cfg, state, message):
    with pytest.raises(CheckpointError, match=message):
        convert_beats(write_checkpoint(tmp_path / "beats.pt", cfg, state), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip", None])
def test_files_that_are_no_checkpoint(tmp_path, content):
    path = tmp_path / "beats.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="beats.pt"):
        convert_beats(path, tmp_path / "out")
