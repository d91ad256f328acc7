"""Every connector, by the settings that choose it: what all of them must do is tested for all of them."""

from __future__ import annotations

from tiny import PUBLISHED_QFORMER, QFORMER, SPEECH


# VideoLLaMA 2 as it is published: no time, no windows, picture before sound.
STC_AS_PUBLISHED = {
    "resampler_type": "stc",
    "time_fusion": "none",
    "question_times": "none",
    "token_order": "modality",
    "window_seconds": None,
    "window_frames": None,
}
KINDS = {
    "avts": {},
    "joint": {"question_times": "joint"},
    "mlp": {"resampler_type": "mlp"},
    "mlp_pool": {"resampler_type": "mlp_pool"},
    "stc": {"resampler_type": "stc"},
    "stc as published": STC_AS_PUBLISHED,
    "stc on a budget": {"resampler_type": "stc", "stc_tokens_per_window": 6},
    "causal_qformer": QFORMER,
    "causal_qformer as published": PUBLISHED_QFORMER,
    "avts with speech": {"speech_config": SPEECH},
}
