"""video-SALMONN's released connector: converted with the parts around it, it computes what the published code says.

Names and shapes of the checkpoint come from the original source (see `restated_qformer`), not from the converter.
"""

import json

import pytest
import torch
from batches import gap
from restated_qformer import published_state_dict, restated_connector
from tiny import SPEECH, tiny_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from saven_hf.cli import main
from saven_hf.hub import ModelNotFoundError
from saven_hf.peers.checkpoint import CheckpointError
from saven_hf.peers.video_salmonn import convert_video_salmonn
from saven_hf.savenvideo.feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor
from saven_hf.savenvideo.modeling_beats import SAVEnVideoBeatsModel


HEADS = 4
LORA = ("q_proj", "k_proj", "v_proj", "o_proj")


def checkpoint_of(seed=0, **sizes):
    """What `save_model` of model/agent.py writes: all that trains, LoRA of rank 4 on a model of 2 layers included."""
    state = published_state_dict(seed=seed, **sizes)
    generator = torch.Generator().manual_seed(seed)
    for layer in range(2):
        for name in LORA:
            prefix = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{name}"
            state[f"{prefix}.lora_A.default.weight"] = torch.randn(4, 32, generator=generator) * 0.2
            state[f"{prefix}.lora_B.default.weight"] = torch.randn(32, 4, generator=generator) * 0.2
    return state


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folders of the components, in the sizes that the checkpoint was trained with."""
    root = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    SiglipVisionModel(SiglipVisionConfig(**vision, image_size=28, patch_size=14)).save_pretrained(root / "vision")
    SiglipVisionModel(
        SiglipVisionConfig(**{**vision, "hidden_size": 16}, image_size=28, patch_size=14)
    ).save_pretrained(root / "narrow")
    SAVEnVideoBeatsModel(tiny_config().audio_config).save_pretrained(root / "audio")
    SAVEnVideoBeatsFeatureExtractor().save_pretrained(root / "audio")
    WhisperForConditionalGeneration(WhisperConfig(**SPEECH)).save_pretrained(root / "speech")
    text = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(text).save_pretrained(root / "text")
    words = ["<unk>", "<s>", "</s>", *"USER: ASSISTANT: <Img> </Img> What is heard ?".split(), *map(str, range(20))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit()])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(root / "text")
    return {name: root / name for name in ("vision", "audio", "speech", "text")} | {"narrow": root / "narrow"}


def convert(parts, state, folder, vision="vision", **settings):
    torch.save(state, folder / "pytorch_model.pt")
    components = {name: parts[name] for name in ("audio", "speech", "text")} | {"vision": parts[vision]}
    return convert_video_salmonn(
        folder / "pytorch_model.pt", folder / "out", **components, num_attention_heads=HEADS, **settings
    )


def clip(seconds=4.0):
    generator = torch.Generator().manual_seed(3)
    return {
        "frames": torch.randint(0, 256, (int(2 * seconds), 28, 28, 3), dtype=torch.uint8, generator=generator).numpy(),
        "frame_times": [0.25 + 0.5 * step for step in range(int(2 * seconds))],
        "audio": (torch.randn(round(seconds * 16_000), generator=generator) * 0.1).numpy(),
        "sampling_rate": 16_000,
        "duration": seconds,
    }


MESSAGES = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What is heard ?"}]}]


class TestConversion:
    def test_it_reloads_and_gives_the_logits_of_the_published_formulas(self, parts, tmp_path):
        state = checkpoint_of()
        report = convert(parts, state, tmp_path)
        assert set(report.used) | set(report.left_out) == set(state)
        assert all(name.startswith("low_Qformer.") for name in report.left_out)
        model, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert AutoModel.from_pretrained(tmp_path / "out").resampler.published
        processor = AutoProcessor.from_pretrained(tmp_path / "out")
        prompt = processor.apply_chat_template(MESSAGES, add_generation_prompt=True)
        assert prompt == "<s>USER: <Img><|video|></Img> What is heard ?\nASSISTANT:"
        inputs = processor(text=prompt, videos=[clip()], add_special_tokens=False, return_tensors="pt")
        # Whisper is filled up to whole windows, of 2 s here (published: 30 s), and BEATs heard whole.
        assert inputs["speech_features_mask"].all() and "query_times" not in inputs

        with torch.no_grad():
            inner = model.model
            pixels = (inputs["pixel_values_videos"][0].float() / 255 - 0.5) / 0.5
            picture = inner.vision_tower(pixel_values=pixels).last_hidden_state
            picture = torch.cat([picture, torch.zeros(len(picture), 28, 24)], 1)
            heard = inner.audio_tower(inputs["input_features"][0], inputs["input_features_mask"][0])
            beats = heard.last_hidden_state[0]
            whisper = inner.speech_tower(inputs["speech_features"][0].transpose(1, 2)).last_hidden_state.flatten(0, 1)
            assert len(picture) == 8 and len(beats) == len(whisper) == 200
            tokens = restated_connector(state, picture, whisper, beats, HEADS)

            reference = LlamaForCausalLM.from_pretrained(parts["text"])
            reference.resize_token_embeddings(model.config.text_config.vocab_size)
            for name, weight in reference.named_parameters():
                prefix = f"llama_model.base_model.model.{name.removesuffix('.weight')}"
                if f"{prefix}.lora_A.default.weight" in state:
                    low, high = (state[f"{prefix}.lora_{part}.default.weight"] for part in "AB")
                    weight.add_(high @ low * (32 / 4))
            embeds = reference.get_input_embeddings()(inputs["input_ids"])
            where = inputs["input_ids"] == model.config.video_token_id
            assert int(where.sum()) == len(tokens) == 20
            embeds[where] = tokens.float()
            expected = reference.model(inputs_embeds=embeds).last_hidden_state @ reference.lm_head.weight.T
            assert gap(model(**inputs).logits, expected) < 1e-4

    def test_what_a_whole_state_dict_repeats_is_told_and_left_out(self, parts, tmp_path):
        state = checkpoint_of()
        whole = {**state, "video_Qformer.bert.embeddings.position_ids": torch.arange(8)[None]}
        for name, tensor in state.items():
            if name.startswith("video_Qformer."):
                whole[name.replace("video_", "joint_", 1)] = tensor
                whole[name.replace("video_", "speech_", 1)] = tensor
        whole |= {"ln_speech.weight": state["ln_video.weight"], "joint_query_tokens": state["video_query_tokens"]}
        whole |= {"beats.encoder.layer_norm.weight": torch.ones(3), "speech_encoder.conv1.bias": torch.ones(3)}
        report = convert(parts, whole, tmp_path)
        assert set(report.used) | set(report.left_out) == set(whole)
        assert report.left_out["beats.encoder.layer_norm.weight"] == "frozen: comes with the audio component"
        facts = json.loads((tmp_path / "out" / "conversion.json").read_text())
        assert facts["used"] == report.used and "visual_mlp: the identity" in str(report)
        whole["joint_query_tokens"] = whole["joint_query_tokens"] + 1
        (tmp_path / "again").mkdir()
        with pytest.raises(CheckpointError, match="joint_query_tokens differs from video_query_tokens"):
            convert(parts, whole, tmp_path / "again")

    @pytest.mark.slow
    def test_a_picture_of_another_width_needs_a_new_projection(self, parts, tmp_path):
        report = convert(parts, checkpoint_of(), tmp_path, vision="narrow")
        assert "visual_mlp is new and untrained" in str(report)
        assert AutoModel.from_pretrained(tmp_path / "out").resampler.visual_mlp.weight.shape == (24, 16)

    @pytest.mark.slow
    def test_other_sizes(self, parts, tmp_path):
        state = checkpoint_of(size=32, layers=1, ffn=40, queries=12, low_queries=4)
        convert(parts, state, tmp_path, vision="narrow", groupsize=6)
        config = AutoModel.from_pretrained(tmp_path / "out").config
        assert (config.window_seconds, config.qformer_low_steps, config.resampler_layers) == (3.0, 2, 1)

    def test_the_command(self, parts, tmp_path, capsys):
        torch.save(checkpoint_of(), tmp_path / "model.pt")
        command = ["convert", "video-salmonn", str(tmp_path / "model.pt"), str(tmp_path / "out"), "--heads", "4"]
        for name in ("audio", "vision", "speech", "text"):
            command += [f"--{name}", str(parts[name])]
        assert main(command) == 0
        out = capsys.readouterr().out
        assert "tensors converted" in out and "left out: low_Qformer" in out
        assert main(command) == 2 and "already exists" in capsys.readouterr().err


class TestRefusals:
    def refuse(self, parts, tmp_path, state, message, error=CheckpointError, **settings):
        with pytest.raises(error, match=message):
            convert(parts, state, tmp_path, **settings)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pytorch_model.pt"]

    @pytest.mark.parametrize(
        "name",
        [
            "video_Qformer.bert.encoder.layer.1.encoder_causal_attention.self.key.weight",
            "video_Qformer.bert.embeddings.LayerNorm.bias",
            "low_query_tokens",
            "llama_proj.bias",
            "speech_pre_qformer_proj.weight",
        ],
    )
    def test_a_tensor_that_is_missing(self, parts, tmp_path, name):
        state = checkpoint_of()
        del state[name]
        self.refuse(parts, tmp_path, state, "Missing|lacks")

    def test_a_tensor_of_another_shape(self, parts, tmp_path):
        state = checkpoint_of()
        state["llama_proj.weight"] = state["llama_proj.weight"][:, :-1]
        self.refuse(parts, tmp_path, state, r"output_projection.weight has the shape \(32, 47\)")

    def test_numbers_that_are_none(self, parts, tmp_path):
        state = checkpoint_of()
        state["ln_video.bias"][0] = float("nan")
        self.refuse(parts, tmp_path, state, "not finite")

    def test_tensors_of_something_else(self, parts, tmp_path):
        self.refuse(parts, tmp_path, {**checkpoint_of(), "mystery.weight": torch.ones(1)}, "no known part: mystery")
        self.refuse(parts, tmp_path, {"model.embed_tokens.weight": torch.ones(2, 2)}, "no known part")
        self.refuse(parts, tmp_path, {"beats.weight": torch.ones(2, 2)}, "This is no checkpoint of video-SALMONN")

    def test_components_that_do_not_fit(self, parts, tmp_path):
        wrong = checkpoint_of(whisper=24)
        self.refuse(parts, tmp_path, wrong, r"speech_mlp.weight has the shape \(24, 24\)")
        self.refuse(parts, tmp_path, checkpoint_of(llm=40), r"output_projection.weight has the shape \(40, 48\)")
        state = checkpoint_of()
        state["llama_model.base_model.model.model.layers.7.self_attn.q_proj.lora_A.default.weight"] = torch.ones(4, 32)
        self.refuse(parts, tmp_path, state, "LoRA of model.layers.7.self_attn.q_proj")
        with pytest.raises(ModelNotFoundError, match="neither a model folder"):
            convert({**parts, "speech": tmp_path / "nowhere"}, checkpoint_of(), tmp_path)

    def test_settings_that_do_not_fit(self, parts, tmp_path):
        self.refuse(parts, tmp_path, checkpoint_of(), "two resolutions of a window of 7 steps", groupsize=7)
        self.refuse(parts, tmp_path, checkpoint_of(), "4096.*has 6400 rows|6400 rows", groupsize=200)

    def test_a_file_cut_short(self, parts, tmp_path):
        torch.save(checkpoint_of(), tmp_path / "whole.pt")
        data = (tmp_path / "whole.pt").read_bytes()
        (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
        components = {name: parts[name] for name in ("audio", "vision", "speech", "text")}
        with pytest.raises(CheckpointError, match="damaged"):
            convert_video_salmonn(tmp_path / "cut.pt", tmp_path / "out", **components)
        with pytest.raises(CheckpointError, match="There is no file"):
            convert_video_salmonn(tmp_path / "none.pt", tmp_path / "out", **components)
        assert not (tmp_path / "out").exists()
