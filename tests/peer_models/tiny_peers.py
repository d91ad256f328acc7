"""Thinkers of Qwen2.5-Omni and Qwen3-Omni, Gemma 4 with sound, VideoLLaMA3: built from configs with random weights."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


_OMNI_TOKENS = {
    "image_token": "<|IMAGE|>", "audio_token": "<|AUDIO|>", "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>",
}  # fmt: skip
_OMNI_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_bos|><|VIDEO|><|vision_eos|>"
    "{% elif part.type == 'image' %}<|vision_bos|><|IMAGE|><|vision_eos|>"
    "{% elif part.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
_LLAMA_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'video' %}<|video_pad|>{% elif part.type == 'image' %}<|image_pad|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
_GEMMA_TOKENS = {
    "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>",
    "audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>", "video_token": "<|video|>",
}  # fmt: skip
_GEMMA_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<|{{ part.type }}|>{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)


def tokenizer(special, template):
    """Bytes as tokens, and special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: at for at, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    core.decoder = decoders.ByteLevel()
    names = ["<|im_start|>", "<|im_end|>", "<|pad|>", *special.values()]
    core.add_special_tokens(names)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=template,
        extra_special_tokens=special,
    )  # fmt: skip


def save_model(model_class, config, words, folder):
    """A model of random weights that stops where its tokenizer does."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    model.generation_config.eos_token_id = words.eos_token_id
    model.generation_config.pad_token_id = words.pad_token_id
    model.save_pretrained(folder)


def save_omni(folder):
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
        Qwen2VLVideoProcessor,
        WhisperFeatureExtractor,
    )
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    words = tokenizer(_OMNI_TOKENS, _OMNI_TEMPLATE)
    ids = {name: words.convert_tokens_to_ids(token) for name, token in _OMNI_TOKENS.items()}
    size = {"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "output_dim": 32,
            "num_mel_bins": 128, "n_window": 100,
        },
        vision_config={
            "hidden_size": 16, "depth": 1, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32,
            "fullatt_block_indexes": [0], "window_size": 112,
        },
        text_config={
            "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        },
        audio_token_id=ids["audio_token"], image_token_id=ids["image_token"], video_token_id=ids["video_token"],
        audio_start_token_id=ids["audio_bos_token"], audio_end_token_id=ids["audio_eos_token"],
        vision_start_token_id=ids["vision_bos_token"], vision_end_token_id=ids["vision_eos_token"],
        audio_token_index=ids["audio_token"], image_token_index=ids["image_token"],
        video_token_index=ids["video_token"], pad_token_id=words.pad_token_id,
    )  # fmt: skip
    save_model(Qwen2_5OmniThinkerForConditionalGeneration, config, words, folder)
    Qwen2_5OmniProcessor(
        Qwen2VLImageProcessor(size=size), Qwen2VLVideoProcessor(size=size),
        WhisperFeatureExtractor(feature_size=128, chunk_length=5), words, chat_template=_OMNI_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_qwen3_omni(folder):
    from transformers import (
        Qwen2VLVideoProcessor,
        Qwen3OmniMoeProcessor,
        Qwen3OmniMoeThinkerConfig,
        Qwen3OmniMoeThinkerForConditionalGeneration,
        WhisperFeatureExtractor,
    )
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    words = tokenizer(_OMNI_TOKENS, _OMNI_TEMPLATE)
    ids = {name: words.convert_tokens_to_ids(token) for name, token in _OMNI_TOKENS.items()}
    size = {"shortest_edge": 32 * 32, "longest_edge": 4 * 32 * 32}
    config = Qwen3OmniMoeThinkerConfig(
        audio_config={
            "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "output_dim": 32,
            "num_mel_bins": 128, "downsample_hidden_size": 4, "initializer_range": 0.3,
        },
        vision_config={
            "hidden_size": 16, "depth": 1, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 32,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
        },
        text_config={
            "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096,
            "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "initializer_range": 0.3,
            "rope_parameters": {"rope_type": "default", "mrope_section": [3, 3, 2], "rope_theta": 1e4},
        },
        audio_token_id=ids["audio_token"], image_token_id=ids["image_token"], video_token_id=ids["video_token"],
        audio_start_token_id=ids["audio_bos_token"], audio_end_token_id=ids["audio_eos_token"],
        vision_start_token_id=ids["vision_bos_token"], vision_end_token_id=ids["vision_eos_token"],
        initializer_range=0.3,  # enough for sound to be heard through so few and narrow layers
    )  # fmt: skip
    save_model(Qwen3OmniMoeThinkerForConditionalGeneration, config, words, folder)
    Qwen3OmniMoeProcessor(
        Qwen2VLImageProcessor(size=size, patch_size=16), Qwen2VLVideoProcessor(size=size, patch_size=16),
        WhisperFeatureExtractor(feature_size=128, chunk_length=5), words, chat_template=_OMNI_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_gemma4(folder):
    from transformers import (
        Gemma4AudioFeatureExtractor,
        Gemma4Config,
        Gemma4ForConditionalGeneration,
        Gemma4ImageProcessor,
        Gemma4Processor,
        Gemma4VideoProcessor,
    )

    words = tokenizer(_GEMMA_TOKENS, _GEMMA_TEMPLATE)
    ids = {name: words.convert_tokens_to_ids(token) for name, token in _GEMMA_TOKENS.items()}
    config = Gemma4Config(
        audio_config={
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "subsampling_conv_channels": [128, 4],
            "output_proj_dims": 16, "use_clipped_linears": False, "initializer_range": 0.3,
        },
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3,
        },
        text_config={
            "vocab_size": len(words), "vocab_size_per_layer_input": len(words), "hidden_size": 32,
            "hidden_size_per_layer_input": 8, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"], "max_position_embeddings": 4096,
            "pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "initializer_range": 0.3,
        },
        image_token_id=ids["image_token"], boi_token_id=ids["boi_token"], eoi_token_id=ids["eoi_token"],
        audio_token_id=ids["audio_token"], boa_token_id=ids["boa_token"], eoa_token_index=ids["eoa_token"],
        video_token_id=ids["video_token"], initializer_range=0.3,
    )  # fmt: skip
    save_model(Gemma4ForConditionalGeneration, config, words, folder)
    Gemma4Processor(
        Gemma4AudioFeatureExtractor(), Gemma4ImageProcessor(max_soft_tokens=70), words, Gemma4VideoProcessor(),
        chat_template=_GEMMA_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_videollama3(folder):
    from transformers import (
        VideoLlama3Config,
        VideoLlama3ForConditionalGeneration,
        VideoLlama3ImageProcessor,
        VideoLlama3Processor,
        VideoLlama3VideoProcessor,
    )

    special = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    words = tokenizer(special, _LLAMA_TEMPLATE)
    config = VideoLlama3Config(
        vision_config={
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "patch_size": 14,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
        },
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
    )  # fmt: skip
    save_model(VideoLlama3ForConditionalGeneration, config, words, folder)
    size = {"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28}
    VideoLlama3Processor(
        VideoLlama3ImageProcessor(size=size), words, VideoLlama3VideoProcessor(size=size),
        chat_template=_LLAMA_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder
