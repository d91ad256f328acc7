"""The model as a folder: saved, loaded and sharded to the bit, dispatched, and as remote code without this package."""

import json
import os
import subprocess
import sys

import kinds
import pytest
import torch
from batches import gap, inputs_for, logits_of, realigned
from safetensors.torch import load_file, save_file
from tiny import AUDIO, IMAGE, VIDEO, tiny_model, video_media
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration, SAVEnVideoModel


SETTINGS = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "suppress_tokens": [VIDEO, IMAGE, AUDIO]}
KINDS = {kind: kinds.KINDS[kind] for kind in ("avts", "joint", "mlp", "stc", "stc on a budget", "causal_qformer")}


def batch(model):
    heard = video_media(questions=(1.0,), speech=model.config.speech_config is not None)
    return inputs_for(model, [heard], [video_media((0.5,), 0, 1.0)], [])


def same_weights(left, right):
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class TestRoundTrip:
    @pytest.mark.parametrize("shard", ["5GB", "20KB"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("kind", KINDS)
    def test_to_the_bit(self, tmp_path, kind, dtype, shard):
        tiny_model(**KINDS[kind]).save_pretrained(tmp_path / "float32")
        # Not `.to(dtype)`, which also casts the rotary frequencies.
        model = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path / "float32", dtype=dtype)
        tmp_path = tmp_path / "model"
        realigned(model).save_pretrained(tmp_path, max_shard_size=shard)
        assert (len(list(tmp_path.glob("*.safetensors"))) > 3) == (shard == "20KB")
        loaded, info = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert loaded.dtype == dtype and same_weights(model, loaded)
        inputs = batch(model)
        for left, right in zip(logits_of(model, inputs), logits_of(realigned(loaded), inputs), strict=True):
            assert torch.equal(left, right)

    @pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, "auto"])
    def test_with_a_device_map(self, tmp_path, device_map):
        model = tiny_model()
        model.save_pretrained(tmp_path)
        loaded = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path, device_map=device_map)
        assert same_weights(model, loaded)
        assert torch.equal(model.generate(**batch(model), **SETTINGS), loaded.generate(**batch(model), **SETTINGS))

    def test_towers_come_back_frozen_and_the_rest_does_not(self, tmp_path):
        tiny_model().save_pretrained(tmp_path)
        for cls in (SAVEnVideoForConditionalGeneration, SAVEnVideoModel):
            for name, parameter in cls.from_pretrained(tmp_path).named_parameters():
                assert parameter.requires_grad == ("_tower." not in name), name

    @pytest.mark.parametrize("auto", [AutoModelForImageTextToText, AutoModelForMultimodalLM])
    def test_auto_classes(self, tmp_path, auto):
        model = tiny_model()
        model.save_pretrained(tmp_path)
        loaded = auto.from_pretrained(tmp_path)
        assert type(loaded) is SAVEnVideoForConditionalGeneration and same_weights(model, loaded)
        assert type(auto.from_config(model.config)) is SAVEnVideoForConditionalGeneration

    def test_auto_model_is_the_base_model(self, tmp_path):
        model = tiny_model()
        model.save_pretrained(tmp_path / "head")
        loaded, info = AutoModel.from_pretrained(tmp_path / "head", output_loading_info=True)
        assert type(loaded) is SAVEnVideoModel and same_weights(model.model, loaded)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        # And back: a base model gives a head model all but its head.
        loaded.save_pretrained(tmp_path / "base")
        head, info = SAVEnVideoForConditionalGeneration.from_pretrained(tmp_path / "base", output_loading_info=True)
        assert same_weights(model.model, head.model) and set(info["missing_keys"]) == {"lm_head.weight"}

    def test_configuration(self, tmp_path):
        model = tiny_model(window_frames=3, time_fusion="token", image_mean=(0.1, 0.2, 0.3), window_seconds=None)
        model.save_pretrained(tmp_path)
        loaded = AutoConfig.from_pretrained(tmp_path)
        for name in ("window_frames", "time_fusion", "window_seconds", "patches_per_frame", "audio_bands"):
            assert getattr(loaded, name) == getattr(model.config, name)
        assert list(loaded.image_mean) == [0.1, 0.2, 0.3]
        for part in ("vision_config", "audio_config", "text_config"):
            assert type(getattr(loaded, part)) is type(getattr(model.config, part))
        written = json.loads((tmp_path / "config.json").read_text())
        assert list(written["auto_map"])[0] == "AutoConfig"  # vLLM reads them in order


class TestDispatch:
    """accelerate's hooks: weights that are not there until their module is called."""

    @pytest.mark.parametrize("offloaded", ["resampler", "temporal_projection", "vision_tower", "audio_tower", "all"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_offloaded_weights(self, tmp_path, kind, offloaded):
        model = tiny_model(**KINDS[kind])
        model.save_pretrained(tmp_path / "model")
        names = ("vision_tower", "audio_tower", "temporal_projection", "resampler", "language_model")
        names += ("speech_tower",) * (model.config.speech_config is not None)
        places = {f"model.{name}": "disk" if offloaded in (name, "all") else "cpu" for name in names} | {
            "lm_head": "cpu"
        }
        loaded = SAVEnVideoForConditionalGeneration.from_pretrained(
            tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
        )
        assert any(parameter.is_meta for parameter in loaded.parameters())
        for left, right in zip(logits_of(model, batch(model)), logits_of(loaded, batch(model)), strict=True):
            assert gap(left, right) < 1e-5
        assert torch.equal(model.generate(**batch(model), **SETTINGS), loaded.generate(**batch(model), **SETTINGS))
        assert loaded.model.encoder_fingerprint() == model.model.encoder_fingerprint()


def tiny_tokenizer():
    """One word a token: "0" ... "96", then the placeholders."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {str(index): index for index in range(VIDEO)}
    vocabulary |= {"<|video|>": VIDEO, "<|image|>": IMAGE, "<|audio|>": AUDIO}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="0", additional_special_tokens=["<|video|>", "<|image|>", "<|audio|>"]
    )


# Runs where this package, timm and torchvision cannot be imported, as on a machine that has only transformers.
REMOTE = """
import sys
for name in ("saven_hf", "timm", "torchvision", "torchcodec", "peft", "trl", "bitsandbytes"):
    sys.modules[name] = None
import json
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoTokenizer

folder, inputs, outputs, settings = sys.argv[1], load_file(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
for name in ("frame_mask", "input_features_mask", "query_times_mask"):
    inputs[name] = inputs[name].bool()
try:
    AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=False)
except (ValueError, ImportError):
    pass
else:
    raise SystemExit("loaded without trust_remote_code")

config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
models = {
    auto.__name__: auto.from_pretrained(folder, trust_remote_code=True).eval()
    for auto in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM)
}
for model in models.values():
    assert type(model).__module__.startswith("transformers_modules"), type(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
with torch.no_grad():
    found = {
        "hidden": models["AutoModel"](**inputs).last_hidden_state,
        "logits": models["AutoModelForImageTextToText"](**inputs).logits,
        "tokens": models["AutoModelForMultimodalLM"].generate(**inputs, **settings),
    }
tokenizer = AutoTokenizer.from_pretrained(folder)
with open(outputs + ".json", "w") as file:
    json.dump([tokenizer.decode(row[inputs["input_ids"].shape[1]:]) for row in found["tokens"]], file)
save_file(found, outputs)
resaved = outputs + ".model"
models["AutoModelForImageTextToText"].save_pretrained(resaved)
again = AutoModelForImageTextToText.from_pretrained(resaved, trust_remote_code=True)
state = again.state_dict()
assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
assert not any(parameter.requires_grad for parameter in again.model.vision_tower.parameters())
"""


class TestRemoteCode:
    @pytest.mark.parametrize("kind", ["avts", "mlp", "stc", "causal_qformer"])
    def test_it_loads_and_generates_where_this_package_is_not(self, tmp_path, kind):
        folder = tmp_path / "savenvideo-tiny"
        model = tiny_model(**KINDS[kind])
        model.save_pretrained(folder)
        tokenizer = tiny_tokenizer()
        tokenizer.save_pretrained(folder)
        inputs = batch(model)
        save_file({name: value.contiguous() for name, value in inputs.items()}, tmp_path / "inputs")
        kept = ("PATH", "HOME", "OMP_NUM_THREADS", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", REMOTE, folder, tmp_path / "inputs", tmp_path / "out", json.dumps(SETTINGS)]
        run = subprocess.run(
            [str(part) for part in command], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr[-3000:]

        found = load_file(tmp_path / "out")
        with torch.no_grad():
            tokens = model.generate(**inputs, **SETTINGS)
            assert torch.equal(found["tokens"], tokens)
            assert torch.equal(found["logits"], model(**inputs).logits)
            assert torch.equal(found["hidden"], model.model(**inputs).last_hidden_state)
        text = [tokenizer.decode(row[inputs["input_ids"].shape[1] :]) for row in tokens]
        assert json.loads((tmp_path / "out.json").read_text()) == text and all(text)

    def test_the_folder_carries_its_code_flat(self, tmp_path):
        tiny_model().save_pretrained(tmp_path)
        sources = {path.name for path in tmp_path.glob("*.py")}
        assert {
            "configuration_beats.py",
            "configuration_savenvideo.py",
            "connector_avts.py",
            "connector_base.py",
            "connector_mlp.py",
            "connector_qformer.py",
            "connector_stc.py",
            "connectors.py",
            "layout.py",
            "memory.py",
            "modeling_beats.py",
            "modeling_savenvideo.py",
            "tower_features.py",
        } <= sources
        auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
        assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM"}
        for reference in auto_map.values():
            module, name = reference.split(".")
            assert f"class {name}(" in (tmp_path / f"{module}.py").read_text()

    def test_the_tokenizer_of_these_tests(self, tmp_path):
        tiny_tokenizer().save_pretrained(tmp_path)
        assert AutoTokenizer.from_pretrained(tmp_path)("5 <|video|> 7")["input_ids"] == [5, VIDEO, 7]
