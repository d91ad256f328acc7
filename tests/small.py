"""A model and a processor small enough to be trained in tests, and rows to train on."""

from __future__ import annotations

import torch
from tiny import tiny_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config

from saven_hf import SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor
from saven_hf.savenvideo.times import format_time
from saven_hf.savenvideo.tower_features import TowerFeatures


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def small_model(seed: int = 0, width: int = 32, **settings):
    """Model and processor with a byte tokenizer; weights are random. `width` is that of the language model."""
    processor = SAVEnVideoProcessor.from_components(byte_tokenizer(), config=tiny_config(**settings), num_frames=4)
    tokenizer = processor.tokenizer
    text = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        attention_dropout=0.0,
    )
    ids = {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{kind}|>") for kind in ("video", "image", "audio")}
    torch.manual_seed(seed)
    model = SAVEnVideoForConditionalGeneration(tiny_config(text_config=text, **ids, **settings))
    return model.eval(), processor


def save_small_model(folder, **settings) -> str:
    model, processor = small_model(**settings)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def features_of(model, processor, seed: int = 0, seconds: float = 6.0) -> TowerFeatures:
    """What the towers might have made of a video: four frames and a sound of six seconds."""
    generator = torch.Generator().manual_seed(seed)
    config, duration = model.config, round(seconds * 1e6)
    frame_times = torch.arange(4) * (duration // 4) + duration // 8
    column_times = torch.arange(0, duration, 160_000) + 87_500
    speech = {}
    if config.speech_config is not None:
        times = torch.arange(0, duration, 100_000) + 50_000
        states = torch.randn(len(times), 5, config.speech_config.d_model, generator=generator)
        speech = {"speech": states, "speech_times": times}
    return TowerFeatures(
        picture=torch.randn(4, config.patches_per_frame, config.vision_config.hidden_size, generator=generator),
        frame_times=frame_times,
        sound=torch.randn(len(column_times), config.audio_bands, config.audio_config.hidden_size, generator=generator),
        column_times=column_times,
        duration=duration,
        encoder_hash=model.model.tower_fingerprint(),
        preprocessing_hash=processor.tower_preprocessing_hash(),
        **speech,
    )


def talk(question: str, answer: str, *media: dict) -> list[dict]:
    return [
        {"role": "user", "content": [*media, {"type": "text", "text": question}]},
        {"role": "assistant", "content": answer},
    ]


def feature_rows(model, processor, count: int, media=(1,), turns: int = 1) -> list[dict]:
    """Rows on features, with `media[i % len(media)]` videos each and questions that name times."""
    rows = []
    for index in range(count):
        videos = [features_of(model, processor, 10 * index + at) for at in range(media[index % len(media)])]
        messages = []
        for turn in range(turns):
            start = 1_000_000 * turn + 100_000 * index
            span = f"from {format_time(start)} to {format_time(start + 500_000)}"
            blocks = [{"type": "video"}] * len(videos) if turn == 0 else []
            messages += talk(f"What is seen {span}?", f"shape {index % 3}, {span}", *blocks)
        rows.append({"messages": messages, "videos": videos, "id": str(index)})
    return rows
