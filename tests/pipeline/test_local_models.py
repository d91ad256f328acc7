"""The transformers annotator on tiny random models: the path that large ones take, for shapes and failures alone."""

import json

import numpy as np
import pytest
import torch
from openai_server import good_reply
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    WhisperFeatureExtractor,
)

from saven_hf.pipeline.annotators.local import TransformersAnnotator
from saven_hf.pipeline.annotators.prompted import Request
from saven_hf.pipeline.errors import AnnotatorError, ReplyError
from saven_hf.pipeline.stages import Settings, VideoTask, Work, Worker
from saven_hf.pipeline.templates import Prompt


TEXT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MEDIA_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"]  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 4096}  # fmt: skip


def tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and the marks of chats and media."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({token: at for at, token in enumerate([*SPECIAL, *alphabet])}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<|im_end|>", additional_special_tokens=SPECIAL,
        chat_template=template,
    )  # fmt: skip


def ends_with(model, ids) -> None:
    model.generation_config.eos_token_id = ids("<|im_end|>")
    model.generation_config.pad_token_id = ids("<pad>")


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder, reader = str(tmp_path_factory.mktemp("qwen2.5")), tokenizer(TEXT_TEMPLATE)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    ends_with(model, reader.convert_tokens_to_ids)
    model.save_pretrained(folder)
    reader.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def audio_folder(tmp_path_factory):
    torch.manual_seed(0)
    folder, reader = str(tmp_path_factory.mktemp("qwen2-audio")), tokenizer(MEDIA_TEMPLATE)
    config = Qwen2AudioConfig(
        audio_config={"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
                      "num_mel_bins": 16, "max_source_positions": 1500},
        text_config={"model_type": "qwen2", **SIZES},
        audio_token_index=reader.convert_tokens_to_ids("<|AUDIO|>"),
    )  # fmt: skip
    model = Qwen2AudioForConditionalGeneration(config)
    ends_with(model, reader.convert_tokens_to_ids)
    model.save_pretrained(folder)
    Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=16), reader, chat_template=MEDIA_TEMPLATE
    ).save_pretrained(folder)
    return folder


class ImageProcessor:
    """Qwen2-VL's processor without its video part, which needs torchvision: frames are fed as images."""

    def __init__(self, reader):
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.images = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=56 * 56)
        self.reader = reader

    def apply_chat_template(self, *arguments, **options):
        return self.reader.apply_chat_template(*arguments, **options)

    def decode(self, *arguments, **options):
        return self.reader.decode(*arguments, **options)

    def __call__(self, text, images, return_tensors):
        features = self.images(images, return_tensors=return_tensors)
        for grid in features["image_grid_thw"]:
            text = [text[0].replace("<|image_pad|>", "<|placeholder|>" * (int(grid.prod()) // 4), 1)]
        inputs = self.reader(text[0].replace("<|placeholder|>", "<|image_pad|>"), return_tensors=return_tensors)
        is_image = inputs["input_ids"] == self.reader.convert_tokens_to_ids("<|image_pad|>")
        inputs.update(features, mm_token_type_ids=is_image.int())
        return inputs


@pytest.fixture(scope="module")
def visual_pair():
    torch.manual_seed(0)
    reader = tokenizer(MEDIA_TEMPLATE)
    ids = reader.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={**SIZES, "rope_parameters": ROPE},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    model = Qwen2VLForConditionalGeneration(config).eval()
    ends_with(model, ids)
    return model, ImageProcessor(reader)


@pytest.fixture(scope="module")
def annotator(text_folder, audio_folder, visual_pair):
    return TransformersAnnotator(visual_pair, audio_folder, text_folder, device="cpu", frames=2, longest_side=56)


def is_reply(reply) -> bool:
    return isinstance(reply, ReplyError) or isinstance(reply, str) and bool(reply.strip())


def test_each_kind_of_model_is_fed_and_answers(annotator):
    prompt = Prompt("System.", "Describe.")
    frames = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    sound = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    before = annotator.usage()["prompt_tokens"]
    replies = annotator.complete(
        [
            Request("text", prompt, most_tokens=6),
            Request("visual", prompt, frames=frames, most_tokens=6),
            Request("audio", prompt, sound=sound, most_tokens=6),
        ]
    )
    assert all(map(is_reply, replies))
    # Two frames of 2 x 2 merged patches, and a second of sound at 25 tokens, are among what was fed.
    plain = len(TEXT_TEMPLATE) and annotator.usage()["prompt_tokens"] - before
    assert plain > 3 * len("System.Describe.") + 8 + 25


def test_pictures_and_sound_change_what_is_said(annotator):
    prompt = Prompt("S", "D")
    black, white = (np.full((2, 56, 56, 3), level, dtype=np.uint8) for level in (0, 255))
    model, processor = annotator._model("visual")
    logits = []
    for frames in (black, white):
        from saven_hf.pipeline.annotators.local import _messages

        messages, media = _messages(Request("visual", prompt, frames=frames), False)
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        with torch.no_grad():
            logits.append(model(**processor(text=[text], return_tensors="pt", **media)).logits[0, -1])
    assert not torch.allclose(logits[0], logits[1])


def test_a_cut_off_reply_is_told(annotator):
    (reply,) = annotator.complete([Request("text", Prompt("S", "D"), most_tokens=1)])
    assert isinstance(reply, ReplyError) or len(reply) <= 1


class Scripted:
    """A processor that reads a chat and its media in truth, and puts a good reply in place of what was generated."""

    def __init__(self, processor):
        self.processor, self.asked, self.kinds = processor, None, []

    def apply_chat_template(self, messages, **options):
        content = messages[-1]["content"]
        if isinstance(content, list):  # as a server would be asked
            names = {"image": "image_url", "audio": "input_audio"}
            content = [part | {"type": names.get(part["type"], part["type"])} for part in content]
        self.asked = {"messages": [{"content": content}]}
        return self.processor.apply_chat_template(messages, **options)

    def __call__(self, **inputs):
        self.kinds.append(next((kind for kind in ("images", "audio") if kind in inputs), "text"))
        return self.processor(**inputs)

    def decode(self, tokens, **options):
        assert len(tokens) and isinstance(self.processor.decode(tokens, **options), str)
        return good_reply(self.asked)


def test_a_video_through_all_stages(text_folder, audio_folder, visual_pair, clip_path, tmp_path, monkeypatch):
    """All that is asked of a video is fed to the models and they generate; only what they say is written for them."""
    asked = TransformersAnnotator(
        visual_pair, audio_folder, text_folder, device="cpu", frames=2, longest_side=56, max_tokens=2
    )
    pairs = {}
    for kind in ("visual", "audio", "text"):
        model, processor = asked._model(kind)
        monkeypatch.setattr(model.generation_config, "forced_eos_token_id", model.generation_config.eos_token_id)
        pairs[kind] = model, Scripted(processor)
    monkeypatch.setattr(asked, "_model", pairs.__getitem__)
    worker = Worker(Settings("transformers"), Work(tmp_path), annotator=asked)
    row = worker.run_video(VideoTask("four", str(clip_path), clip_path.name))
    assert row is not None, (tmp_path / "failed" / "four.json").read_text()
    assert [one["question_type"] for one in row["questions"]] == [
        "global", "global", "timestamped", "timestamped", "time_range",
    ]  # fmt: skip
    for one in row["questions"]:  # B is always chosen: right in one of four orders
        assert [one["checks"][name]["score"] for name in ("leakage", "visual_only", "audio_only", "consistency")] == [
            0.25
        ] * 4
    kinds = {kind: set(processor.kinds) for kind, (_, processor) in pairs.items()}
    assert kinds == {"visual": {"images"}, "audio": {"audio"}, "text": {"text"}}
    # Three captions of each of four clips; three final ones; questions, five times options; 5 * 4 orders * 4 checks.
    assert asked.usage()["calls"] == 3 * 4 + 3 + 1 + 5 + 5 * 4 * 4


def test_a_random_model_puts_a_video_aside_and_leaves_no_half_of_it(
    text_folder, audio_folder, visual_pair, clip_path, tmp_path
):
    annotator = TransformersAnnotator(
        visual_pair, audio_folder, text_folder, device="cpu", frames=2, longest_side=56, max_tokens=8, attempts=1
    )
    worker = Worker(Settings("transformers"), Work(tmp_path), annotator=annotator)
    assert worker.run_video(VideoTask("four", str(clip_path), clip_path.name)) is None
    failed = json.loads((tmp_path / "failed" / "four.json").read_text())["row"]
    assert failed["error"] == "AnnotatorError" and failed["stage"] in ("caption", "fuse")
    assert not (tmp_path / "question").exists() or not list((tmp_path / "question").iterdir())


def test_a_model_that_is_not_there(text_folder, audio_folder):
    with pytest.raises(AnnotatorError, match="cannot be loaded"):
        TransformersAnnotator(text_model="/nowhere/model").complete([Request("text", Prompt("S", "U"))])
