"""Tiny configurations and random media that tests share. Random weights: for shapes and parity, never for results."""

from __future__ import annotations

import torch
from transformers import Qwen2Config, SiglipVisionConfig

from saven_hf.savenvideo.configuration_beats import SAVEnVideoBeatsConfig
from saven_hf.savenvideo.configuration_savenvideo import SAVEnVideoConfig
from saven_hf.savenvideo.layout import NO_TIME
from saven_hf.savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration


VIDEO, IMAGE, AUDIO = 97, 98, 99

# A Whisper whose windows are 2 s long.
SPEECH = {
    "d_model": 20,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "num_mel_bins": 12,
    "max_source_positions": 100,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "vocab_size": 50,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}
# The causal Q-Former with all it can hear: windows of 2 s are 4 steps of 9 rows.
QFORMER = {
    "resampler_type": "causal_qformer",
    "speech_config": SPEECH,
    "window_seconds": 2.0,
    "qformer_rows": 9,
}
# As the published code of video-SALMONN has it.
PUBLISHED_QFORMER = {
    **QFORMER,
    "qformer_alignment": "published",
    "qformer_direction": "future",
    "qformer_causal_queries": False,
    "question_times": "none",
    "time_fusion": "none",
    "query_anchors": False,
}


def tiny_config(**settings) -> SAVEnVideoConfig:
    settings = {
        "vision_config": SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
            vision_use_head=False,
        ),
        "audio_config": SAVEnVideoBeatsConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            patch_embed_dim=8,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
            num_buckets=16,
            max_bucket_distance=32,
            layerdrop=0.0,
        ),
        "text_config": Qwen2Config(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
        ),
        "video_token_id": VIDEO,
        "image_token_id": IMAGE,
        "audio_token_id": AUDIO,
        "resampler_hidden_size": 24,
        "resampler_layers": 2,
        "resampler_heads": 4,
        "resampler_intermediate_size": 48,
        "queries_per_window": 4,
        "window_seconds": 4.0,
        "window_frames": 4,
        **settings,
    }
    return SAVEnVideoConfig(**settings)


def tiny_model(seed: int = 0, **settings) -> SAVEnVideoForConditionalGeneration:
    torch.manual_seed(seed)
    return SAVEnVideoForConditionalGeneration(tiny_config(**settings)).eval()


def video_media(
    frame_times=(0.5, 1.5, 2.5, 5.0), audio_seconds=6.4, duration=6.5, questions=(), side=28, seed=0, speech=False
) -> dict[str, torch.Tensor]:
    """One medium in the tensor contract; `frame_times` may be empty, `audio_seconds` 0.

    `speech`: with what the speech tower of `SPEECH` hears of the sound.
    """
    generator = torch.Generator().manual_seed(seed)
    media = {"video_durations": torch.tensor([round(duration * 1e6)])}
    if len(frame_times):
        media["pixel_values_videos"] = torch.randint(
            0, 256, (1, len(frame_times), 3, side, side), generator=generator, dtype=torch.uint8
        )
        media["frame_times"] = torch.tensor([[NO_TIME if time is None else round(time * 1e6) for time in frame_times]])
        media["frame_mask"] = torch.ones(1, len(frame_times), dtype=torch.bool)
    if audio_seconds:
        # Two windows, the second one shorter: padding inside a medium.
        frames = round(audio_seconds * 100) // 16 * 16
        first = frames * 2 // 3 // 16 * 16
        features = torch.randn(1, 2, first, 128, generator=generator)
        mask = torch.zeros(1, 2, first, dtype=torch.bool)
        mask[0, 0], mask[0, 1, : frames - first] = True, True
        media["input_features"], media["input_features_mask"] = features, mask
        media["audio_times"] = torch.tensor([[0, first * 10_000]])
    if audio_seconds and speech:
        frames = round(audio_seconds * 100) // 10 * 10
        features = torch.randn(1, -(-frames // 200), 200, SPEECH["num_mel_bins"], generator=generator)
        media["speech_features"] = features
        media["speech_features_mask"] = (torch.arange(features.shape[1] * 200) < frames).view(1, -1, 200)
        media["speech_times"] = torch.arange(features.shape[1])[None] * 2_000_000
    if len(questions):
        media["query_times"] = torch.tensor([[round(time * 1e6) for time in questions]])
        media["query_times_mask"] = torch.ones(1, len(questions), dtype=torch.bool)
    return media


def join_media(*media: dict[str, torch.Tensor], fill=0) -> dict[str, torch.Tensor]:
    """Media side by side, padded to common sizes; `fill` goes into padding of pixels and features."""
    joined = {}
    for name in sorted({name for medium in media for name in medium}):
        like = next(medium[name] for medium in media if name in medium)
        shape = [max(medium[name].shape[axis] for medium in media if name in medium) for axis in range(1, like.ndim)]
        value = False if like.dtype == torch.bool else (fill if like.is_floating_point() else 0)
        tensor = torch.full((len(media), *shape), value, dtype=like.dtype)
        for row, medium in enumerate(media):
            if name in medium:
                tensor[(row, *(slice(size) for size in medium[name].shape[1:]))] = medium[name][0]
        joined[name] = tensor
    return joined
