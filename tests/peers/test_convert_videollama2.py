"""VideoLLaMA 2 checkpoints at tiny size: every published name has its place, and the logits are those of the formulas.

Names: of the language model those of transformers' own class; of the vision tower those that github.com/
DAMO-NLP-SG/VideoLLaMA2 issues 118 and 135 list of the released 2.1-7B-AV (`model.vision_tower.vision_tower.
vision_model...`); of connector, audio projector and BEATs those of its classes (branch audio_visual:
model/projector.py, model/videollama2_arch.py, model/beats/). None is read from the converter.
"""

import json
import math

import pytest
import torch
from batches import gap
from restated_stc import restated_audio_mlp, restated_stc
from safetensors.torch import save_file
from test_convert_beats import CFG, MarkerWriter, published_state_dict, restated_beats
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from saven_hf.peers.checkpoint import CheckpointError
from saven_hf.peers.videollama2 import convert_videollama2


SIDE, FRAMES, WIDTH, VISION = 4, 4, 32, 24
# Of the published BEATs, whose values are fixed in its code, all but the sizes.
BEATS = CFG | {"max_distance": 800, "layer_wise_gradient_decay_ratio": 0.6, "finetuned_model": True}
TOWER = {"hidden_size": VISION, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4}
TOWER |= {"image_size": 14 * SIDE, "patch_size": 14}
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
QWEN2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}"
)


def rand(*shape, seed=0, scale=0.3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * scale


def stage(name, in_channels, out_channels, depth=4):
    """timm 1.0.3: `RegStage(depth, in_chs, out_chs)` with squeeze-and-excitation of a quarter of the block's input."""
    state = {}
    for number in range(1, depth + 1):
        first = in_channels if number == 1 else out_channels
        block, squeezed = f"{name}.b{number}", round(first * 0.25)
        state[f"{block}.conv1.conv.weight"] = rand(out_channels, first, 1, 1, seed=number)
        state[f"{block}.conv2.conv.weight"] = rand(out_channels, 1, 3, 3, seed=number)
        state[f"{block}.conv3.conv.weight"] = rand(out_channels, out_channels, 1, 1, seed=number + 9)
        for conv in ("conv1", "conv2", "conv3"):
            state[f"{block}.{conv}.bn.weight"] = 1 + rand(out_channels, seed=number)
            state[f"{block}.{conv}.bn.bias"] = rand(out_channels, seed=number + 1)
        state[f"{block}.se.fc1.weight"] = rand(squeezed, out_channels, 1, 1, seed=number)
        state[f"{block}.se.fc1.bias"] = rand(squeezed, seed=number)
        state[f"{block}.se.fc2.weight"] = rand(out_channels, squeezed, 1, 1, seed=number)
        state[f"{block}.se.fc2.bias"] = rand(out_channels, seed=number + 3)
        if first != out_channels:
            state[f"{block}.downsample.conv.weight"] = rand(out_channels, first, 1, 1)
            state[f"{block}.downsample.bn.weight"] = 1 + rand(out_channels)
            state[f"{block}.downsample.bn.bias"] = rand(out_channels, seed=5)
    return state


def projector(kind):
    """`STCConnector` and its kin (model/projector.py)."""
    state = {}
    if not kind.startswith("spatial"):
        state |= stage("s1", VISION, WIDTH) | stage("s2", WIDTH, WIDTH)
    if kind in ("stc_connector", "stc_connector_v35", "spatial_conv"):
        kernel = (1, 2, 2) if kind == "spatial_conv" else (2, 2, 2)
        state |= {"sampler.0.weight": rand(WIDTH, WIDTH, *kernel, scale=0.1), "sampler.0.bias": rand(WIDTH, seed=7)}
    for layer in ("readout.0", "readout.2"):
        state |= {f"{layer}.weight": rand(WIDTH, WIDTH, seed=len(layer)), f"{layer}.bias": rand(WIDTH, seed=8)}
    return state


def byte_tokenizer(folder, chat_template, specials=("<|im_start|>", "<|im_end|>", "<|endoftext|>"), eos="<|im_end|>"):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=eos,
        bos_token="<s>" if "<s>" in specials else None,
        pad_token="<|endoftext|>" if "<|endoftext|>" in specials else None,
        additional_special_tokens=[token for token in specials if token != eos],
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return fast


class Published:
    """A published folder, and the parts it was made of, for the restatement."""

    def __init__(
        self, folder, text="qwen2", vision="siglip", kind="stc_connector_v35", audio="inside", vocab=320, shards=None
    ):
        torch.manual_seed(0)
        folder.mkdir()
        self.folder, self.kind = folder, kind
        if text == "qwen2":
            self.llm = Qwen2ForCausalLM(Qwen2Config(**TEXT, vocab_size=vocab)).eval()
            self.tokenizer = byte_tokenizer(folder, QWEN2_TEMPLATE)
        else:
            self.llm = MistralForCausalLM(MistralConfig(**TEXT, vocab_size=vocab, sliding_window=None)).eval()
            self.tokenizer = byte_tokenizer(folder, None, ("<s>", "</s>"), "</s>")
        for parameter in self.llm.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
        if vision == "siglip":
            self.tower = SiglipVisionModel(SiglipVisionConfig(**TOWER)).eval()
        else:
            self.tower = CLIPVisionModel(CLIPVisionConfig(**TOWER)).eval()
        self.tower.save_pretrained(folder / "tower")
        self.projector, self.audio_projector = projector(kind), {}
        state = dict(self.llm.state_dict())
        for name, value in self.tower.state_dict().items():
            state["model.vision_tower.vision_tower.vision_model." + name.removeprefix("vision_model.")] = value
        state |= {f"model.mm_projector.{name}": value for name, value in self.projector.items()}
        config = {
            **{name: value for name, value in self.llm.config.to_dict().items() if name != "rope_parameters"},
            "rope_theta": self.llm.config.rope_parameters["rope_theta"],
            "model_type": f"videollama2_{text}",
            "architectures": ["Videollama2ForCausalLM"],
            "num_frames": FRAMES,
            "mm_vision_tower": str(folder / "tower"),
            "mm_vision_select_layer": -2,
            "mm_vision_select_feature": "patch",
            "mm_projector_type": kind,
            "mm_hidden_size": VISION,
            "use_mm_proj": True,
            "image_aspect_ratio": "pad",
        }
        beside = {}
        if audio:
            self.beats = published_state_dict(BEATS)
            for number, layer in enumerate(("0", "2")):
                size = BEATS["encoder_embed_dim"] if number == 0 else WIDTH
                self.audio_projector |= {
                    f"{layer}.weight": rand(WIDTH, size, seed=number),
                    f"{layer}.bias": rand(WIDTH, seed=number + 4),
                }
            config |= {
                "mm_audio_tower": "audio_tower.bin",
                "mm_projector_a_type": "mlp2x_gelu",
                "mm_hidden_size_a": 32,
            }
            tower = {f"model.audio_tower.{name}": value for name, value in self.beats.items()}
            mlp = {f"model.mm_projector_a.{name}": value for name, value in self.audio_projector.items()}
            if audio == "inside":
                state |= tower | mlp
            else:
                beside = {"audio_tower.bin": tower, "mm_projector_a.bin": mlp}
        for name, tensors in beside.items():
            torch.save(tensors, folder / name)
        self.state = state
        (folder / "config.json").write_text(json.dumps(config))
        self.write(shards)

    def write(self, shards):
        """`None`: one safetensors file; else shards of `.safetensors` or `.bin` with their index."""
        state = {name: value.clone().contiguous() for name, value in self.state.items()}
        if shards is None:
            save_file(state, self.folder / "model.safetensors", metadata={"format": "pt"})
            return
        stem, save = ("model", save_file) if shards == ".safetensors" else ("pytorch_model", torch.save)
        names, weight_map = sorted(state), {}
        for number in range(3):
            part = {name: state[name] for name in names[number::3]}
            file = f"{stem}-{number + 1:05}-of-00003{shards}"
            save(part, self.folder / file)
            weight_map |= dict.fromkeys(part, file)
        index = {"metadata": {}, "weight_map": weight_map}
        (self.folder / f"{stem}{shards}.index.json").write_text(json.dumps(index))

    def logits(self, before, frames, fbank, after):
        """The published forward, restated: `[text, video tokens, audio tokens, text]` through the language model."""
        with torch.no_grad():
            states = self.tower(frames, output_hidden_states=True).hidden_states[-2]
            if isinstance(self.tower, CLIPVisionModel):
                states = states[:, 1:]
            stride = (1, 2, 2) if self.kind.startswith("spatial") else (2, 2, 2)
            padding = 1 if self.kind in ("stc_connector", "spatial_conv") else 0
            parts = [restated_stc(states, self.projector, stride, padding)] if len(frames) else []
            if fbank is not None:
                parts.append(restated_audio_mlp(restated_beats(self.beats, BEATS, fbank), self.audio_projector))
            embed = self.llm.get_input_embeddings()
            tokens = [embed(torch.tensor(before)), *(part.float() for part in parts), embed(torch.tensor(after))]
            return self.llm(inputs_embeds=torch.cat(tokens)[None]).logits[0], sum(map(len, parts))


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
