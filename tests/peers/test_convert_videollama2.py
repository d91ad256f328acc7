"""VideoLLaMA 2 checkpoints: every published name has its place, and the logits are those of the formulas."""

import json
import math

import published_videollama2
import pytest
import torch
from batches import gap
from published_videollama2 import BEATS, FRAMES, SIDE, WIDTH, Published
from test_convert_beats import MarkerWriter
from transformers import AutoModelForImageTextToText, AutoProcessor

from saven_hf import SAVEnVideoConfig
from saven_hf.cli import main
from saven_hf.hub import config_folder
from saven_hf.peers.checkpoint import CheckpointError
from saven_hf.peers.videollama2 import _vision_config, convert_videollama2


def converted(published, tmp_path, **kwargs):
    report = convert_videollama2(published.folder, tmp_path / "out", **kwargs)
    model, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return report, model.eval()


VARIANTS = {
    "2.1 AV": {},
    "2.1, picture only": {"audio": None},
    "2.0: CLIP, Mistral": {"text": "mistral", "vision": "clip", "kind": "stc_connector", "audio": None},
    "CLIP, Mistral, AV": {"text": "mistral", "vision": "clip", "kind": "stc_connector"},
    "SigLIP, Mistral": {"text": "mistral"},
    "CLIP, Qwen2": {"vision": "clip"},
    "pooled": {"kind": "stp_connector"},
    "sharded safetensors": {"shards": ".safetensors"},
    "sharded bin": {"shards": ".bin"},
    "audio beside": {"audio": "beside", "shards": ".bin"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_converted_weights_compute_the_published_formulas(tmp_path, variant):
    published = Published(tmp_path / "published", **VARIANTS[variant])
    report, model = converted(published, tmp_path, vision=published.folder / "tower")
    hears = VARIANTS[variant].get("audio", "inside") is not None
    assert (model.model.audio_tower is not None) == hears and model.model.temporal_projection is None

    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(FRAMES, 3, 14 * SIDE, 14 * SIDE, generator=generator)
    fbank = torch.randn(96, 128, generator=generator) if hears else None
    before, after = [5, 6, 7], [8, 9, 10, 11]
    expected, count = published.logits(before, frames, fbank, after)
    media = {
        "pixel_values_videos": frames[None],
        "frame_times": torch.arange(FRAMES)[None] * 500_000,
        "video_durations": torch.tensor([2_000_000]),
    }
    if hears:
        media |= {"input_features": fbank[None, None], "input_features_mask": torch.ones(1, 1, 96, dtype=torch.bool)}
        media["audio_times"] = torch.zeros(1, 1, dtype=torch.int64)
    ids = torch.tensor([before + [model.config.video_token_id] * count + after])
    with torch.no_grad():
        found = model(input_ids=ids, **media).logits[0]
    assert gap(found[:, : expected.shape[1]], expected) < 1e-4

    # Every published name is dealt with, and each of ours has one.
    names = set(published.state)
    for file in published.folder.glob("*.bin"):  # those beside, and the shards themselves
        names |= set(torch.load(file, weights_only=True))
    assert names == {name for name in (report.used | report.left_out) if not name.startswith("config.")}
    assert set(report.used.values()) == set(model.state_dict())


@pytest.mark.parametrize("kind", ["spatial_conv", "spatial_pool"])
def test_connectors_without_stages_between_equal_widths(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(published_videollama2, "VISION", WIDTH)
    monkeypatch.setitem(published_videollama2.TOWER, "hidden_size", WIDTH)
    published = Published(tmp_path / "published", kind=kind, audio=None)
    _, model = converted(published, tmp_path)
    frames = torch.randn(FRAMES, 3, 14 * SIDE, 14 * SIDE, generator=torch.Generator().manual_seed(1))
    expected, count = published.logits([5, 6], frames, None, [8, 9])
    media = {"frame_times": torch.arange(FRAMES)[None] * 500_000, "video_durations": torch.tensor([2_000_000])}
    ids = torch.tensor([[5, 6] + [model.config.video_token_id] * count + [8, 9]])
    with torch.no_grad():
        found = model(input_ids=ids, pixel_values_videos=frames[None], **media).logits[0]
    assert gap(found[:, : expected.shape[1]], expected) < 1e-4


def test_the_published_towers_are_known_by_name():
    """Against hub_configs/videollama2.1-7b-av, as the released config.json names its tower: by id, or below a path."""
    shipped = SAVEnVideoConfig.from_pretrained(config_folder("videollama2.1-7b-av")).vision_config
    for name in ("google/siglip-so400m-patch14-384", "/home/authors/weights/google/siglip-so400m-patch14-384"):
        assert _vision_config(name, None).to_dict() == shipped.to_dict(), name
    assert _vision_config("./openai/clip-vit-large-patch14-336", None).model_type == "clip_vision_model"
    with pytest.raises(CheckpointError, match="neither known"):
        _vision_config("/somewhere/siglip-so400m-patch14-384", None)


def test_sound_alone_and_a_batch_of_all_kinds(tmp_path):
    published = Published(tmp_path / "published")
    _, model = converted(published, tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.video_processor.preprocessing == "videollama2"
    generator = torch.Generator().manual_seed(2)
    frames = torch.randint(0, 256, (FRAMES, 3, 60, 50), generator=generator, dtype=torch.uint8)
    waveform = torch.randn(40_000, generator=generator).clamp(-1, 1) * 0.1
    video = {"frames": frames, "frame_times": [0.0, 0.5, 1.0, 1.5], "audio": waveform, "sampling_rate": 16_000}
    silent = {name: video[name] for name in ("frames", "frame_times")}
    asks = [
        {"type": "video", "video": video},
        {"type": "video", "video": silent},
        {"type": "audio", "audio": waveform},
        {"type": "image", "image": frames[0]},
        None,
    ]
    conversations = [
        [{"role": "user", "content": [*([ask] if ask else []), {"type": "text", "text": "What is this?"}]}]
        for ask in asks
    ]

    def inputs_of(batch):
        return processor.apply_chat_template(
            batch, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
        )

    together = inputs_of(conversations)
    cells = 2 * 2 * 2
    assert (together["input_ids"] == model.config.video_token_id).sum(-1).tolist() == [cells + 1496, cells, 0, 0, 0]
    assert (together["input_ids"] == model.config.audio_token_id).sum().item() == 1496
    assert (together["input_ids"] == model.config.image_token_id).sum().item() == cells
    with torch.no_grad():
        logits = model(**together).logits
        for row, conversation in enumerate(conversations):
            alone = model(**inputs_of([conversation])).logits[0]
            assert gap(logits[row, -len(alone) :], alone) < 2e-4
        answers = model.generate(**together, max_new_tokens=3)
    assert answers.shape == (5, together["input_ids"].shape[1] + 3)
    with torch.no_grad():
        half = model.to(torch.bfloat16)(**inputs_of(conversations).to(torch.bfloat16)).logits
    assert half.dtype == torch.bfloat16 and torch.isfinite(half).all()


def test_the_prompt_is_the_published_one(tmp_path):
    published = Published(tmp_path / "published")
    convert_videollama2(published.folder, tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Who?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    # `mm_infer`: the placeholder, a line break, the question; then the tokenizer's own template.
    flat = [{"role": "user", "content": "<video>\nWho?"}]
    expected = published.tokenizer.apply_chat_template(flat, tokenize=False, add_generation_prompt=True)
    assert text == expected.replace("<video>", "<|video|>")
    assert "{% generation %}" in processor.chat_template or "generation" in processor.chat_template
    # Text around the placeholder is tokenized piece by piece (`tokenizer_multimodal_token`).
    pieces = [published.tokenizer(piece, add_special_tokens=False).input_ids for piece in expected.split("<video>")]
    frames = torch.zeros(FRAMES, 3, 56, 56, dtype=torch.uint8)
    ids = processor(text=text, videos=[frames], return_tensors="pt", add_special_tokens=False)["input_ids"][0].tolist()
    assert [one for one in ids if one != processor.video_token_id] == pieces[0] + pieces[1]


def test_mistral_is_asked_with_its_system_message(tmp_path):
    published = Published(tmp_path / "published", text="mistral", audio=None)
    report = convert_videollama2(published.folder, tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Who?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert text.startswith("<s>[INST] <<SYS>>\nYou are a helpful, respectful")
    assert text.endswith("<</SYS>>\n\n<|video|>\nWho? [/INST]")
    assert any("no chat template" in note for note in report.notes)
    answered = [*messages, {"role": "assistant", "content": "He."}]
    out = processor.apply_chat_template(answered)
    assert out.endswith("Who? [/INST]He.</s>") and "{% generation %}" in processor.chat_template


def test_a_vocabulary_without_room_grows(tmp_path):
    published = Published(tmp_path / "published", vocab=259)
    report, model = converted(published, tmp_path)
    assert model.config.text_config.vocab_size == 262 and any("3 rows" in note for note in report.notes)
    assert torch.equal(model.lm_head.weight[:259], published.llm.lm_head.weight)
    assert set(model.generation_config.suppress_tokens) == {259, 260, 261}


def test_dtype_and_report(tmp_path):
    published = Published(tmp_path / "published")
    report, model = converted(published, tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    saved = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert saved["used"] == report.used and saved["left_out"] == report.left_out
    assert saved["source"] == "published" and str(tmp_path) not in json.dumps(saved["source"])
    assert report.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert "pooling head" in str(report)


def test_the_vision_tower_may_lie_elsewhere(tmp_path):
    published = Published(tmp_path / "published")
    published.state = {name: value for name, value in published.state.items() if "vision_tower" not in name}
    published.write(None)
    report, model = converted(published, tmp_path)
    assert (
        gap(model.model.vision_tower.state_dict()["post_layernorm.weight"], published.tower.post_layernorm.weight) == 0
    )
    assert sum(":" in name for name in report.used) > 10


def test_microsofts_beats_in_place_of_the_audio_tower(tmp_path):
    published = Published(tmp_path / "published")
    published.state = {name: value for name, value in published.state.items() if "audio_tower" not in name}
    published.write(None)
    with pytest.raises(CheckpointError, match="no audio tower.*`audio`"):
        convert_videollama2(published.folder, tmp_path / "out")
    torch.save({"cfg": BEATS, "model": published.beats}, tmp_path / "beats.pt")
    _, model = converted(published, tmp_path, audio=tmp_path / "beats.pt")
    assert model.config.audio_config.hidden_size == BEATS["encoder_embed_dim"]


def drop(*names):
    return lambda p: [p.state.pop(name) for name in names]


def change(name, value):
    return lambda p: p.state.update({name: value})


def edit_config(**fields):
    def apply(published):
        path = published.folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return apply


REFUSED = {
    "another model": (edit_config(model_type="llava"), "llava"),
    "another connector": (edit_config(mm_projector_type="mlp2x_gelu"), "mm_projector_type"),
    "class token": (edit_config(mm_vision_select_feature="cls_patch"), "cls_patch"),
    "no such tower": (edit_config(mm_vision_tower="./no/such/folder"), "no/such/folder.*`vision`"),
    "wider than its config": (edit_config(hidden_size=40, num_attention_heads=5, num_key_value_heads=5), "shape"),
    "missing language": (drop("model.layers.1.mlp.up_proj.weight"), "Missing: model.language_model.layers.1"),
    "missing connector": (drop("model.mm_projector.s2.b3.se.fc1.bias"), "Missing: model.resampler.s2.b3"),
    "missing audio": (drop("model.audio_tower.encoder.layers.1.fc2.bias"), "Missing: model.audio_tower.encoder"),
    "no audio weights": (
        lambda p: [p.state.pop(name) for name in list(p.state) if "audio_tower" in name or "projector_a" in name],
        "audio_tower.bin",
    ),
    "unknown": (change("model.x.weight", torch.zeros(2)), "Not in this architecture: model.language_model.x"),
    "unknown part": (change("decoder.weight", torch.zeros(2)), "no known part: decoder.weight"),
    "adapters": (change("base_model.model.x.lora_A.weight", torch.zeros(2)), "LoRA"),
    "not finite": (change("model.norm.weight", torch.full((WIDTH,), math.nan)), "not finite"),
    "a word for a number": (edit_config(num_frames="many"), "num_frames='many'.*whole number"),
    "no frames": (edit_config(num_frames=0), "no model we can build.*image_frames"),
    "no heads": (edit_config(num_attention_heads=0), "no .*we can build"),
    "a layer too deep": (edit_config(mm_vision_select_layer=-9), "mm_vision_select_layer=-9.* has 3 layers"),
    "a layer that is a word": (edit_config(mm_vision_select_layer="last"), "mm_vision_select_layer='last'"),
    "widths that differ": (edit_config(mm_projector_type="spatial_conv"), "as wide as.*24 and 32"),
    "widths that differ, pooled": (edit_config(mm_projector_type="spatial_pool"), "as wide as.*24 and 32"),
    "wrong shape": (change("model.mm_projector.readout.0.bias", torch.zeros(3)), r"\(3,\).*\(32,\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path, case):
    published = Published(tmp_path / "published")
    spoil, message = REFUSED[case]
    spoil(published)
    published.write(None)
    with pytest.raises(CheckpointError, match=message):
        convert_videollama2(published.folder, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("shards", [None, ".safetensors", ".bin"])
@pytest.mark.parametrize("how", ["cut", "gone", "foreign"])
def test_damaged_files(tmp_path, shards, how):
    published = Published(tmp_path / "published", shards=shards)
    victim = sorted(p for p in published.folder.iterdir() if p.suffix in (".safetensors", ".bin"))[-1]
    if how == "gone":
        victim.unlink()
    else:
        content = victim.read_bytes()
        victim.write_bytes(content[: len(content) // 2] if how == "cut" else b"hello")
    with pytest.raises(CheckpointError):
        convert_videollama2(published.folder, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_malicious_bin_does_not_run(tmp_path):
    published = Published(tmp_path / "published", audio="beside")
    marker = tmp_path / "marker"
    torch.save({"model.audio_tower.x": MarkerWriter(marker)}, published.folder / "audio_tower.bin")
    with pytest.raises(CheckpointError, match="could run code"):
        convert_videollama2(published.folder, tmp_path / "out")
    assert not marker.exists() and not list(tmp_path.glob("out*"))


def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    published = Published(tmp_path / "published")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("saven_hf.peers.videollama2.SAVEnVideoProcessor.save_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        convert_videollama2(published.folder, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    published = Published(tmp_path / "published")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="out"):
        convert_videollama2(published.folder, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    with pytest.raises(CheckpointError, match="no folder"):
        convert_videollama2(tmp_path / "nowhere", tmp_path / "other")


def test_the_command(tmp_path, capsys):
    published = Published(tmp_path / "published")
    assert main(["convert", "videollama2", str(published.folder), str(tmp_path / "out")]) == 0
    assert "tensors converted" in capsys.readouterr().out
    for words in ([str(published.folder), str(tmp_path / "out")], [str(tmp_path / "nowhere"), str(tmp_path / "new")]):
        assert main(["convert", "videollama2", *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("saven convert: error: ") and error.count("\n") == 1
