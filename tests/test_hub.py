"""Model folders: the embedded ones, loading, and assembling a model from published parts."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import small
import torch
from clip import render
from published_videollama2 import Published
from safetensors.torch import load_file
from tiny import QFORMER, SPEECH
from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

import saven_hf
from saven_hf.cli import main
from saven_hf.hub import (
    ModelNotFoundError,
    config_folder,
    init_7b,
    init_from,
    load,
    resolve_model,
    save_plain,
    usable_device,
)
from saven_hf.peers.videollama2 import convert_videollama2


ROOT = Path(__file__).parents[1]


def build_configs():
    spec = importlib.util.spec_from_file_location("build_configs", ROOT / "hub_configs" / "build_configs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of a vision tower, an audio tower and a language model, as their makers publish them, but tiny."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    SiglipVisionModel(vision).save_pretrained(folder / "vision")
    audio = saven_hf.SAVEnVideoBeatsConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        patch_embed_dim=8,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        num_buckets=16,
        max_bucket_distance=32,
    )
    saven_hf.SAVEnVideoBeatsModel(audio).save_pretrained(folder / "audio")
    saven_hf.SAVEnVideoBeatsFeatureExtractor().save_pretrained(folder / "audio")
    tokenizer = build_configs().byte_tokenizer()
    tokenizer.save_pretrained(folder / "text")
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    Qwen2ForCausalLM(text).save_pretrained(folder / "text")
    return folder


def test_model_folders_are_what_the_script_writes(tmp_path):
    build_configs().write_all(tmp_path)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert written
    for path in written:
        assert (tmp_path / path).read_bytes() == (ROOT / "hub_configs" / path).read_bytes(), path


def test_init_7b_takes_the_parts_over_and_answers(parts, tmp_path):
    output = init_7b(
        tmp_path / "model", vision=parts / "vision", audio=parts / "audio", text=parts / "text", dtype=torch.float32
    )
    model, processor = load(output)
    taken = load_file(parts / "text" / "model.safetensors")
    rows = len(taken["model.embed_tokens.weight"])
    assert torch.equal(model.get_input_embeddings().weight[:rows], taken["model.embed_tokens.weight"])
    audio = load_file(parts / "audio" / "model.safetensors")
    for name, tensor in model.model.audio_tower.state_dict().items():
        assert torch.equal(tensor, audio[name]), name
    # The connector of the 7B, whatever the parts.
    assert model.config.queries_per_window == 64
    assert processor.layout == model.model.layout.to_dict()

    render(tmp_path / "clip.mp4")
    answer = saven_hf.ask(tmp_path / "clip.mp4", "What is this?", (model, processor), num_frames=2)
    assert len(answer) == 1 and answer[0].question == "What is this?"


def test_init_7b_overwrites_nothing(parts, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="already exists"):
        init_7b(tmp_path, vision=parts / "vision", audio=parts / "audio", text=parts / "text")
    assert (tmp_path / "config.json").read_text() == "{}"


def test_init_7b_names_the_part_that_is_no_model(parts, tmp_path):
    with pytest.raises(saven_hf.ModelNotFoundError, match="audio component"):
        init_7b(tmp_path / "model", vision=parts / "vision", audio=tmp_path, text=parts / "text")
    assert not (tmp_path / "model").exists()


def test_load_refuses_another_kind_of_model(parts):
    with pytest.raises(saven_hf.ModelNotFoundError, match="'qwen2'"):
        load(parts / "text")


@pytest.mark.parametrize("name", ["nowhere/at/all", "/no/such/folder"])
def test_load_says_that_a_folder_is_missing(name):
    with pytest.raises(saven_hf.ModelNotFoundError, match="no such directory"):
        load(name)


def test_a_model_that_comes_with_the_package_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_model("savenvideo-7b") == str(config_folder("savenvideo-7b"))
    assert resolve_model("me/savenvideo-7b") == "me/savenvideo-7b"  # the Hub's
    (tmp_path / "savenvideo-7b").mkdir()
    (tmp_path / "savenvideo-7b" / "config.json").write_text("{}")
    assert resolve_model("savenvideo-7b") == "savenvideo-7b"  # a folder here is meant first


def test_adapters_are_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="holds adapters, not a model: name .*merged"):
        resolve_model(tmp_path)


def test_load_without_weights_is_repeatable_and_says_so(tmp_path, caplog):
    folder = shutil.copytree(config_folder("savenvideo-tiny"), tmp_path / "bare")
    (folder / "model.safetensors").unlink()
    state = torch.random.get_rng_state()
    first, _ = load(folder)
    second, _ = load(folder)
    assert "holds no weights" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_plain_folder_names_no_place_it_came_from(tmp_path, parts):
    model = saven_hf.SAVEnVideoForConditionalGeneration.from_components(
        parts / "vision", parts / "audio", parts / "text"
    )
    save_plain(tmp_path / "plain", model)
    written = [path for path in (tmp_path / "plain").iterdir() if path.suffix != ".safetensors"]
    assert written and not any(str(parts) in path.read_text() for path in written)
    assert not any(path.suffix == ".py" or "transformers_version" in path.read_text() for path in written)


def test_the_7b_is_the_papers():
    config = saven_hf.SAVEnVideoConfig.from_pretrained(config_folder("savenvideo-7b"))
    assert (config.vision_config.image_size, config.patches_per_frame) == (384, 729)
    assert (config.audio_config.num_hidden_layers, config.audio_config.hidden_size) == (12, 768)
    assert (config.text_config.num_hidden_layers, config.text_config.hidden_size) == (28, 3584)
    processing = saven_hf.SAVEnVideoVideoProcessor.from_pretrained(config_folder("savenvideo-7b"))
    assert (processing.num_frames, processing.sampling) == (16, "uniform")


def test_a_savenvideo_begun_from_videollama2(tmp_path):
    """Towers, language model and audio MLP are VideoLLaMA 2's to the bit, the rest is AVTS and new."""
    convert_videollama2(Published(tmp_path / "published").folder, tmp_path / "converted")
    assert main(["init-7b", str(tmp_path / "model"), "--from", str(tmp_path / "converted")]) == 0
    model, processor = load(tmp_path / "model", "cpu")
    donor, _ = load(tmp_path / "converted", "cpu", torch.bfloat16)
    assert (model.config.resampler_type, model.config.resampler_hidden_size) == ("avts", 32)
    assert (model.config.time_fusion, model.config.question_times) == ("both", "separate")
    assert model.config.vision_feature_layer == -2 and processor.video_processor.preprocessing == "whole"
    old, new = donor.state_dict(), model.state_dict()
    taken = [name for name in new if not name.startswith(("model.resampler.", "model.temporal_projection."))]
    taken += [name for name in new if name.startswith("model.resampler.audio_mlp.")]
    assert all(torch.equal(new[name], old[name].float()) for name in taken) and len(taken) > 100
    render(tmp_path / "clip.mp4")
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "video", "video": str(tmp_path / "clip.mp4")}]}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert torch.isfinite(model(**inputs).logits).all() and inputs["query_times"].tolist() == [[0, 12_000_000]]
    with pytest.raises(FileExistsError):
        init_from(tmp_path / "converted", tmp_path / "model")


def test_what_a_savenvideo_cannot_begin_from(tmp_path):
    convert_videollama2(Published(tmp_path / "deaf", audio=None).folder, tmp_path / "silent")
    convert_videollama2(Published(tmp_path / "published", text="mistral").folder, tmp_path / "mistral")
    with pytest.raises(ModelNotFoundError, match="no audio-visual VideoLLaMA 2"):
        init_from(tmp_path / "silent", tmp_path / "model")
    with pytest.raises(ModelNotFoundError, match="ChatML"):
        init_from(tmp_path / "mistral", tmp_path / "model")
    assert main(["init-7b", str(tmp_path / "model")]) == 2 and not (tmp_path / "model").exists()


def test_init_7b_like_another_folder_with_a_speech_tower(parts, tmp_path, monkeypatch):
    like = tmp_path / "like"
    small.save_small_model(like, **QFORMER)
    monkeypatch.setattr("saven_hf.hub.config_folder", lambda name: like if name == "favor-7b" else None)
    WhisperForConditionalGeneration(WhisperConfig(**SPEECH)).save_pretrained(tmp_path / "speech")
    folders = {name: parts / name for name in ("vision", "audio", "text")}
    output = init_7b(tmp_path / "model", **folders, speech=tmp_path / "speech", like="favor-7b", dtype=torch.float32)
    model, processor = load(output)
    assert model.config.resampler_type == "causal_qformer" and model.config.qformer_rows == 9
    whisper = load_file(tmp_path / "speech" / "model.safetensors")
    assert torch.equal(model.model.speech_tower.conv1.weight, whisper["model.encoder.conv1.weight"])
    assert processor.speech_extractor.chunk_length == 2 and processor.video_processor.num_frames == 4
    with pytest.raises(saven_hf.ModelNotFoundError, match="speech component"):
        (tmp_path / "empty").mkdir()
        init_7b(tmp_path / "other", **folders, speech=tmp_path / "empty")


@pytest.mark.parametrize("local_rank, gpus, expected", [
    (None, 4, "cuda"), ("0", 4, "cuda:0"), ("2", 4, "cuda:2"), ("2", 1, "cuda:0"), ("5", 4, "cuda:1"), ("2", 0, "cpu"),
])  # fmt: skip
def test_each_process_of_a_launch_has_its_own_gpu(monkeypatch, local_rank, gpus, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch, "empty", lambda *_, device: None)  # there is no such GPU here
    if local_rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert usable_device() == torch.device(expected)
    assert usable_device("cpu") == torch.device("cpu")  # what is asked for is what is taken


def test_models_of_an_evaluation_go_to_the_gpu_of_their_process(monkeypatch):
    from saven_hf.evaluation import catalog
    from saven_hf.peers import auto

    where = []

    def placed(device):
        where.append(device)
        raise RuntimeError("no GPU here")

    monkeypatch.setattr("saven_hf.hub.usable_device", lambda device=None: placed(device))
    monkeypatch.setattr(auto, "usable_device", lambda device=None: placed(device))
    monkeypatch.setattr(catalog, "usable_device", lambda device=None: placed(device))
    monkeypatch.setattr(auto.AutoProcessor, "from_pretrained", lambda *_, **__: None)
    monkeypatch.setattr(auto.AutoModelForMultimodalLM, "from_pretrained", lambda *_, **__: torch.nn.Identity())
    with pytest.raises(RuntimeError):
        catalog.open_adapter()
    with pytest.raises(RuntimeError):
        auto.PeerModel.load("some/model")
    with pytest.raises(RuntimeError):
        catalog.open_adapter(config_folder("savenvideo-tiny"), baseline="text-only")
    assert where == [None] * 3
