"""VideoLLaMA 2 checkpoints as they were published, at tiny size with random weights, and their forward restated.

Names: of the language model those of transformers' own class; of the vision tower those that github.com/
DAMO-NLP-SG/VideoLLaMA2 issues 118 and 135 list of the released 2.1-7B-AV (`model.vision_tower.vision_tower.
vision_model...`); of connector, audio projector and BEATs those of its classes (branch audio_visual:
model/projector.py, model/videollama2_arch.py, model/beats/). None is read from the converter.
"""

from __future__ import annotations

import json

import torch
from restated_beats import CFG, published_state_dict, restated_beats
from restated_stc import restated_audio_mlp, restated_stc
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
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
