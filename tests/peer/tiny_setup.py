"""Tiny configs and inputs shared by the peer tests, and what makes transformers' suites know our classes."""

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Config, Qwen2Tokenizer, SiglipVisionConfig, WhisperConfig

from saven_hf.savenvideo.configuration_beats import SAVEnVideoBeatsConfig
from saven_hf.savenvideo.configuration_savenvideo import SAVEnVideoConfig
from saven_hf.savenvideo.feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor
from saven_hf.savenvideo.layout import TokenLayout
from saven_hf.savenvideo.processing_savenvideo import SAVEnVideoProcessor
from saven_hf.savenvideo.video_processing_savenvideo import SAVEnVideoVideoProcessor


VOCABULARY_SIZE = 99
IMAGE_SIZE, IMAGE_PATCH = 16, 8
MEL_BINS, AUDIO_PATCH = 32, 16
SPEECH_BINS = 8


def beats_config(**overrides) -> SAVEnVideoBeatsConfig:
    """BEATs with 2 layers of width 32; a column of sound is 2 patches (32 mel bins of 16)."""
    fields = {
        "num_mel_bins": MEL_BINS,
        "patch_size": AUDIO_PATCH,
        "patch_embed_dim": 16,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "layerdrop": 0.0,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "num_buckets": 16,
        "max_bucket_distance": 20,
    }
    return SAVEnVideoBeatsConfig(**{**fields, **overrides})


def vision_config(**overrides) -> SiglipVisionConfig:
    """SigLIP with 2 layers of width 32; a frame is 2 x 2 patches."""
    fields = {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": IMAGE_PATCH,
        "vision_use_head": False,
    }
    return SiglipVisionConfig(**{**fields, **overrides})


def speech_config(**overrides) -> WhisperConfig:
    """Whisper with 2 layers of width 32, whose windows are 1 s long."""
    fields = {
        "num_mel_bins": SPEECH_BINS,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 40,
        "max_source_positions": 50,
        "decoder_layers": 1,
        "decoder_attention_heads": 4,
        "vocab_size": 20,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
    }
    return WhisperConfig(**{**fields, **overrides})


def text_config(**overrides) -> Qwen2Config:
    """Qwen2 with 2 layers of width 32 and a vocabulary of 99."""
    fields = {
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    return Qwen2Config(**{**fields, **overrides})


def savenvideo_config(**overrides) -> SAVEnVideoConfig:
    """The three tiny towers with an AVTS of 1 layer: windows of at most 1 s, 2 tokens each."""
    fields = {
        "vision_config": vision_config(),
        "audio_config": beats_config(),
        "text_config": text_config(),
        "video_token_id": 3,
        "image_token_id": 4,
        "audio_token_id": 5,
        "resampler_hidden_size": 32,
        "resampler_layers": 1,
        "resampler_heads": 4,
        "resampler_intermediate_size": 40,
        "queries_per_window": 2,
        "window_seconds": 1.0,
        "time_periods": [0.5, 2.0, 10.0, 60.0],
    }
    return SAVEnVideoConfig(**{**fields, **overrides})


def layout() -> dict:
    """The token layout of `savenvideo_config()`, as a processor saves it."""
    return TokenLayout.from_config(savenvideo_config()).to_dict()


def tokenizer() -> Qwen2Tokenizer:
    """A Qwen2 tokenizer without merges: one token per byte, and the special tokens."""
    vocabulary = {symbol: index for index, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    placeholders = {"video_token": "<|video|>", "image_token": "<|image|>", "audio_token": "<|audio|>"}
    built = Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=placeholders, padding_side="left")
    built.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    return built


def video_processor(**overrides) -> SAVEnVideoVideoProcessor:
    return SAVEnVideoVideoProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, **overrides)


def feature_extractor(**overrides) -> SAVEnVideoBeatsFeatureExtractor:
    return SAVEnVideoBeatsFeatureExtractor(feature_size=MEL_BINS, patch_size=AUDIO_PATCH, **overrides)


def processor(**overrides) -> SAVEnVideoProcessor:
    return SAVEnVideoProcessor(video_processor(), feature_extractor(), tokenizer(), layout=layout(), **overrides)


def savenvideo_config_for(tokenizer: Qwen2Tokenizer) -> SAVEnVideoConfig:
    """`savenvideo_config()` with the vocabulary and the placeholder ids of a tokenizer."""
    text = text_config(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    ids = {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{kind}|>") for kind in ("video", "image", "audio")}
    return savenvideo_config(text_config=text, **ids)


def random_frames(batch: int, num_frames: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(batch, num_frames, MEL_BINS, generator=generator)


def teach_names(*modules) -> None:
    """Adds our class names to the name tables that transformers' test modules filter the classes under test by.

    `AutoModel.register` serves users, but many tests only look at classes listed by name in transformers' own source
    and pass without doing anything for all others. Only the test modules' view is replaced: the library is untouched.
    """
    ours = {
        "MODEL_MAPPING_NAMES": {"savenvideo": "SAVEnVideoModel", "savenvideo_beats": "SAVEnVideoBeatsModel"},
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES": {"savenvideo": "SAVEnVideoForConditionalGeneration"},
        "PROCESSOR_MAPPING_NAMES": {"savenvideo": "SAVEnVideoProcessor"},
    }
    for module in modules:
        for table, names in ours.items():
            if hasattr(module, table):
                setattr(module, table, {**getattr(module, table), **names})
