"""BEATs checkpoints of Microsoft: converted weights compute the published formulas, unsafe files are refused."""

import math
import os
import pickle

import pytest
import torch
from restated_beats import CFG, published_state_dict, restated_beats

from saven_hf.peers.beats import CheckpointError, convert_beats
from saven_hf.savenvideo.feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor
from saven_hf.savenvideo.modeling_beats import SAVEnVideoBeatsModel


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
