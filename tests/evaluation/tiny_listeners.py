"""A tiny Qwen2 and a tiny Whisper with random weights, saved as folders: for the path that published ones take."""

from __future__ import annotations

import os

import torch
from tokenizers import pre_tokenizers
from transformers import (
    GenerationConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MELS, _TIMESTAMPS = 16, 1501
_MOST_TOKENS = 24  # of a transcript of 30 s: random weights never end one


def _bytes() -> dict[str, int]:
    return {symbol: at for at, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def save_qwen2(folder: str | os.PathLike, seed: int = 0) -> str:
    """A causal language model of 2 layers over bytes."""
    tokenizer = Qwen2Tokenizer(
        _bytes(), [], eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=["<|im_start|>"],
        chat_template=CHAT,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096, initializer_range=0.3,
        )
    ).eval()  # fmt: skip
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return os.fspath(folder)


def save_whisper(folder: str | os.PathLike, seed: int = 0) -> str:
    """A speech recogniser of one layer, whose windows are Whisper's 30 s and whose words are noise."""
    marks = [
        "<|startoftranscript|>",
        "<|en|>",
        "<|transcribe|>",
        "<|translate|>",
        "<|startofprev|>",
        "<|notimestamps|>",
    ]
    stamps = [f"<|{0.02 * number:.2f}|>" for number in range(_TIMESTAMPS)]
    tokenizer = WhisperTokenizer(_bytes(), [])
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.add_tokens(stamps)
    ids = {mark: tokenizer.convert_tokens_to_ids(mark) for mark in marks}
    end = tokenizer.eos_token_id
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokenizer), num_mel_bins=_MELS, d_model=16, encoder_layers=1, encoder_attention_heads=2,
            encoder_ffn_dim=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32,
            max_source_positions=1500, max_target_positions=64, init_std=0.5, pad_token_id=end, bos_token_id=end,
            eos_token_id=end, decoder_start_token_id=ids["<|startoftranscript|>"],
        )
    ).eval()  # fmt: skip
    model.generation_config = GenerationConfig(
        decoder_start_token_id=ids["<|startoftranscript|>"], eos_token_id=end, pad_token_id=end, bos_token_id=end,
        no_timestamps_token_id=ids["<|notimestamps|>"], is_multilingual=True, lang_to_id={"<|en|>": ids["<|en|>"]},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        prev_sot_token_id=ids["<|startofprev|>"], max_length=_MOST_TOKENS, suppress_tokens=sorted(ids.values()),
        begin_suppress_tokens=[end], language="en", task="transcribe", return_timestamps=False,
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=_MELS).save_pretrained(folder)
    return os.fspath(folder)
