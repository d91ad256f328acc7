"""Configuration of SAVEnVideo (paper section 4)."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, PreTrainedConfig, WhisperConfig
from transformers.models.auto import AutoConfig

from .configuration_beats import SAVEnVideoBeatsConfig
from .layout import FBANK_FRAMES_PER_PATCH, SPEECH_TOKENS_PER_COLUMN, steps_per_window


# SigLIP so400m at 384 pixels, the tower of LLaVA-OneVision that the paper follows (4.1.1). The attention-pooling head
# is left out: only patch tokens are used.
SO400M_PATCH14_384 = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}


VISION_TYPES = ("siglip_vision_model", "siglip2_vision_model", "clip_vision_model")

# What decides, besides the weights and their shapes, how a medium becomes tokens. Named one by one: where a folder
# lies, how its model was trained and what a later transformers adds to a config must not outdate an encoded video.
TOWER_FIELDS = ("vision_feature_layer", "image_mean", "image_std")
CONNECTOR_FIELDS = (
    "resampler_type",
    "resampler_heads",
    "resampler_attention",
    "queries_per_window",
    "window_seconds",
    "window_frames",
    "query_anchors",
    "balance_modalities",
    "time_fusion",
    "question_times",
    "time_periods",
)
# Beside those where the connector is "stc".
STC_FIELDS = ("stc_depth", "stc_stride", "stc_padding", "stc_pool", "image_frames", "token_order")
VISION_FIELDS = ("model_type", "image_size", "patch_size", "num_attention_heads", "hidden_act", "layer_norm_eps")
AUDIO_FIELDS = (
    "patch_size",
    "num_mel_bins",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "layer_norm_first",
    "deep_norm",
    "num_buckets",
    "max_bucket_distance",
    "gated_relative_position",
    "upstream_padding_mask",
)
SPEECH_FIELDS = (
    "num_mel_bins",
    "d_model",
    "encoder_attention_heads",
    "activation_function",
    "scale_embedding",
    "max_source_positions",
)
# Of one connector alone: named only where it is in use, so that encoded videos of others stay what they are.
QFORMER_FIELDS = (
    "qformer_step_seconds",
    "qformer_rows",
    "qformer_low_steps",
    "qformer_direction",
    "qformer_causal_queries",
    "qformer_alignment",
)

# Divisors of a second, a minute, an hour and a day, in seconds.
_SIXTIETHS = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
CLOCK_PERIODS = (
    *(0.02, 0.05, 0.1, 0.2, 0.5),
    *_SIXTIETHS,
    *(60 * part for part in _SIXTIETHS),
    *(3600 * part for part in (1, 2, 3, 6, 12, 24)),
)


@strict
class SAVEnVideoConfig(PreTrainedConfig):
    r"""
    Configuration of [`SAVEnVideoModel`] and [`SAVEnVideoForConditionalGeneration`].

    Args:
        vision_config: `SiglipVisionConfig`, `Siglip2VisionConfig`, `CLIPVisionConfig` or a dict of one (default:
            so400m-patch14-384). Of CLIP the patch tokens are taken, without the class token.
        audio_config: `SAVEnVideoBeatsConfig` or a dict of one (default: BEATs iter3+).
        has_audio_tower: False for a model that hears nothing: it has no audio tower, and `audio_config` says no more
            than how sound would be laid out.
        text_config: config of any decoder-only text model of transformers, or a dict of one (default: Qwen2).
        speech_config: `WhisperConfig` or a dict of one: a speech tower (Whisper's encoder) that hears the same sound
            beside the audio tower. None (default) for no such tower.
        video_token_id, image_token_id, audio_token_id: ids of the placeholders in the vocabulary.
        vision_feature_layer: -1 takes the vision tower's final patch tokens, after its last norm; another index takes
            that entry of its hidden states.
        image_mean, image_std: per channel, used when frames arrive as uint8 and are normalised on the model's device.
        freeze_vision, freeze_audio, freeze_speech: whether the towers stay as they are in training (paper 4.2: they
            do).
        resampler_type: "avts" (paper 4.1.3), "mlp" (its ablation read literally: no compression), "mlp_pool" (the
            token budget of "avts" without attention, our decision), "stc" (VideoLLaMA 2's convolutions) or
            "causal_qformer" (FAVOR / video-SALMONN).
        resampler_hidden_size, resampler_layers, resampler_heads, resampler_intermediate_size: shape of the decoder
            over the learnable queries (our decision: the paper gives none).
        resampler_dropout: dropout of its attention and feed-forward parts.
        resampler_attention: "projected" is ordinary multi-head attention; "literal" restates the paper's equations 2
            and 3 (one head, no projections, no scale, no residual) and exists for tests.
        queries_per_window: learnable queries, and so tokens, of one window.
        window_seconds: longest window; None puts everything in one window (the paper's case).
        window_frames: most frames in a window; None for no limit.
        query_anchors: whether query j also carries the time feature of the j-th of evenly spaced times in its window.
        initial_attention: where a fresh "avts" looks before it has learnt anything: "own_time" starts its
            cross-attention as a match of positions, so that query j looks at the j-th part of its window (our
            decision: it learns faster, docs/model.md); "random" starts it like any other layer.
        balance_modalities: whether picture, sound and time get the same prior weight in attention, whatever their
            numbers of tokens (our decision: an hour has 178 thousand BEATs tokens against 16 x 729 of SigLIP).
        time_fusion: "add" adds the time feature to the tokens it dates, "token" makes it a key of its own (a token
            of its own where nothing attends), "both" does both; "none" leaves it out, as models do that know no time.
        question_times: "separate" keeps window tokens free of the question, whose time tokens read spatially pooled
            keys of the whole medium; "joint" lets them join the queries of every window (the paper's reading); "none"
            makes no tokens of the times that a question names.
        token_order: of connectors without attention ("mlp", "stc"), within a window: "time" interleaves picture and
            sound by their times, "modality" puts all of the picture before all of the sound.
        stc_depth: blocks of each of the two convolutional stages of "stc"; 0 for none (then `resampler_hidden_size`
            must be the vision tower's).
        stc_stride: by how much "stc" shrinks frames, rows and columns.
        stc_padding: zeros around what its 3D convolution sees: 1 in VideoLLaMA 2, 0 in 2.1. Without padding, frames
            are completed to a multiple of the stride by repeating the last (our decision: none is dropped).
        stc_pool: shrink by the mean instead of a convolution.
        stc_tokens_per_window: as how many tokens "stc" tells a window: picture and sound are averaged over time to
            half of them each, or one of them to all where the other is missing (our decision, for comparisons at equal
            cost). None (default, published): every cell and every patch of sound is a token.
        image_frames: as how many frames "stc" sees a still image. VideoLLaMA 2 repeats it as often as a video has
            frames.
        time_periods: periods of the sinusoids of the time feature, in seconds (our decision: divisors of a second, a
            minute, an hour and a day, so that the digits of a clock reading are easy to read from them).
        qformer_step_seconds: step of "causal_qformer", in which picture and sound are laid side by side (published:
            0.5 s). `window_seconds` must be a multiple of it (published: 5 s): every window is cut into whole steps.
        qformer_rows: rows of a step (published: 32). Row i holds, side by side in its channels, the i-th part of the
            picture and the i-th token of each kind of sound; a frame of more patches is averaged to a grid that fits.
        qformer_low_steps: steps of the windows of the finer resolution, which spends its own queries on each and whose
            tokens are joined with those of the window, channel by channel (published: 1). None for one resolution.
        qformer_direction: to which steps of its window a step attends: "past" (as published in words: causal),
            "future" (as the published code does) or "both".
        qformer_causal_queries: whether the queries are causal as well: each belongs to a step, and with direction
            "past" neither reads nor hears of what comes after it, so a token never changes by what follows (our
            decision; the published queries read all of their window).
        qformer_alignment: "time" lays out by time and masks what is not there. "published" reproduces the published
            code: zeros in the place of an absent modality, no modality embeddings, and the bands of a BEATs column
            read as moments that follow one another. (It has no time features either: time_fusion="none",
            question_times="none", query_anchors=False.)
        resampler_max_keys: most keys attended to in one pass; windows are grouped up to it. Changes speed and memory,
            not results.
        tower_batch_size: most frames, or audio windows, that a tower sees in one pass. Changes memory, not results.
        notice: one line to be shown beside answers, such as what a small model was trained on.
    """

    model_type = "savenvideo"
    sub_configs = {
        "vision_config": AutoConfig,
        "audio_config": SAVEnVideoBeatsConfig,
        "text_config": AutoConfig,
        "speech_config": WhisperConfig,
    }

    vision_config: dict | PreTrainedConfig | None = None
    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    speech_config: dict | PreTrainedConfig | None = None

    video_token_id: int = 151646
    image_token_id: int = 151647
    audio_token_id: int = 151648

    vision_feature_layer: int = -1
    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    freeze_vision: bool = True
    freeze_audio: bool = True
    freeze_speech: bool = True
    has_audio_tower: bool = True

    resampler_type: Literal["avts", "mlp", "mlp_pool", "stc", "causal_qformer"] = "avts"
    resampler_hidden_size: int = 1024
    resampler_layers: int = 2
    resampler_heads: int = 16
    resampler_intermediate_size: int = 4096
    resampler_dropout: float | int = 0.0
    resampler_attention: Literal["projected", "literal"] = "projected"
    queries_per_window: int = 64
    window_seconds: float | int | None = 60.0
    window_frames: int | None = 64
    query_anchors: bool = True
    initial_attention: Literal["own_time", "random"] = "own_time"
    balance_modalities: bool = True

    time_fusion: Literal["both", "token", "add", "none"] = "both"
    question_times: Literal["separate", "joint", "none"] = "separate"
    token_order: Literal["time", "modality"] = "time"
    time_periods: list[float | int] | tuple[float | int, ...] = CLOCK_PERIODS

    stc_depth: int = 4
    stc_stride: list[int] | tuple[int, ...] = (2, 2, 2)
    stc_padding: Literal[0, 1] = 0
    stc_pool: bool = False
    stc_tokens_per_window: int | None = None
    image_frames: int = 1

    qformer_step_seconds: float | int = 0.5
    qformer_rows: int = 36
    qformer_low_steps: int | None = 1
    qformer_direction: Literal["past", "future", "both"] = "past"
    qformer_causal_queries: bool = True
    qformer_alignment: Literal["time", "published"] = "time"

    resampler_max_keys: int = 65_536
    tower_batch_size: int = 32
    notice: str | None = None

    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        self.vision_config = _sub_config(self.vision_config, "siglip_vision_model", SO400M_PATCH14_384)
        self.text_config = _sub_config(self.text_config, "qwen2", {})
        if isinstance(self.audio_config, dict):
            self.audio_config = SAVEnVideoBeatsConfig(**self.audio_config)
        elif self.audio_config is None:
            self.audio_config = SAVEnVideoBeatsConfig()

        if isinstance(self.speech_config, dict):
            self.speech_config = WhisperConfig(**self.speech_config)
        if self.speech_config is not None:
            self._check_speech()
        if self.vision_config.model_type not in VISION_TYPES:
            raise ValueError(
                f"vision_config is of type {self.vision_config.model_type!r}; the vision tower must be one of "
                f"{', '.join(map(repr, VISION_TYPES))}."
            )
        if self.vision_config.model_type == "siglip2_vision_model" and not hasattr(self.vision_config, "image_size"):
            # SigLIP 2 stores its grid as a number of patches; frames are resized to that square here.
            side = round(self.vision_config.num_patches**0.5)
            self.vision_config.image_size = side * self.vision_config.patch_size
        if self.audio_config.patch_size != FBANK_FRAMES_PER_PATCH:
            raise ValueError(
                f"audio_config.patch_size is {self.audio_config.patch_size}; sound is dated in columns of "
                f"{FBANK_FRAMES_PER_PATCH} fbank frames."
            )
        attends = self.resampler_type in ("avts", "causal_qformer")
        if attends and self.resampler_hidden_size % self.resampler_heads:
            raise ValueError(
                f"resampler_hidden_size ({self.resampler_hidden_size}) must be a multiple of resampler_heads "
                f"({self.resampler_heads})."
            )
        if self.resampler_type == "causal_qformer":
            self._check_qformer()
        if not self.time_periods or min(self.time_periods) <= 0:
            raise ValueError(f"time_periods must be periods above 0 s, got {list(self.time_periods)}.")
        self.time_periods = [float(period) for period in self.time_periods]
        if attends and self.query_anchors and not self.uses_time:
            raise ValueError(
                "query_anchors gives queries time features, which time_fusion='none' and question_times='none' leave "
                "out: set query_anchors=False."
            )
        self._check_stc()
        # Tools ask the top level (resizing, tying); the text model knows.
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        super().__post_init__(**kwargs)
        # A class can name one Auto class for its remote code; a saved folder shall answer to all of these. What a
        # loaded folder says itself is kept. AutoConfig first: vLLM reads them in order.
        if getattr(self, "auto_map", None) is None:
            self.auto_map = {
                "AutoConfig": "configuration_savenvideo.SAVEnVideoConfig",
                "AutoModel": "modeling_savenvideo.SAVEnVideoModel",
                "AutoModelForImageTextToText": "modeling_savenvideo.SAVEnVideoForConditionalGeneration",
                "AutoModelForMultimodalLM": "modeling_savenvideo.SAVEnVideoForConditionalGeneration",
            }

    def _check_stc(self) -> None:
        self.stc_stride = [int(step) for step in self.stc_stride]
        if len(self.stc_stride) != 3 or min(self.stc_stride) < 1 or self.stc_depth < 0 or self.image_frames < 1:
            raise ValueError(
                f"stc_stride must be three steps of at least 1 (frames, rows, columns), stc_depth at least 0 and "
                f"image_frames at least 1, got {self.stc_stride}, {self.stc_depth} and {self.image_frames}."
            )
        if self.stc_tokens_per_window is not None and self.stc_tokens_per_window < 2:
            raise ValueError(
                f"stc_tokens_per_window ({self.stc_tokens_per_window}) must be at least 2, one of the picture and one "
                "of the sound, or None for every token."
            )
        if self.resampler_type != "stc":
            return
        if self.stc_depth == 0 and self.resampler_hidden_size != self.vision_config.hidden_size:
            raise ValueError(
                f"Without stages (stc_depth=0) resampler_hidden_size ({self.resampler_hidden_size}) must be the width "
                f"of the vision tower ({self.vision_config.hidden_size})."
            )
        if self.question_times == "joint":
            raise ValueError("question_times='joint' needs queries, which 'stc' has none of: take 'separate'.")

    @property
    def uses_time(self) -> bool:
        """Whether any time becomes a feature: else there is no temporal linear projection."""
        return self.time_fusion != "none" or self.question_times != "none"

    @property
    def adds_time(self) -> bool:
        """Whether the time feature is added to the tokens that it dates."""
        return self.time_fusion in ("add", "both")

    @property
    def has_time_tokens(self) -> bool:
        """Whether the time feature is a key, or a token, of its own."""
        return self.time_fusion in ("token", "both")

    def _check_speech(self) -> None:
        speech = self.speech_config
        if speech.model_type != "whisper":
            raise ValueError(f"speech_config is of type {speech.model_type!r}; the speech tower must be 'whisper'.")
        if speech.max_source_positions % SPEECH_TOKENS_PER_COLUMN:
            raise ValueError(
                f"speech_config.max_source_positions ({speech.max_source_positions}) must be a multiple of the "
                f"{SPEECH_TOKENS_PER_COLUMN} tokens of a column."
            )
        if self.resampler_type == "stc" or not self.has_audio_tower:
            raise ValueError(
                "The speech tower stands beside the audio tower and feeds every connector but 'stc': leave "
                "speech_config out, or change resampler_type or has_audio_tower."
            )

    def _check_qformer(self) -> None:
        """Refuses sizes of the causal Q-Former that do not fit together."""
        steps = steps_per_window(self.window_seconds, self.qformer_step_seconds)
        if self.qformer_rows < max(self.audio_bands, 1):
            raise ValueError(
                f"qformer_rows ({self.qformer_rows}) must hold one column of sound at least, {self.audio_bands} bands."
            )
        if self.question_times == "joint":
            raise ValueError("The causal Q-Former has no question_times='joint': choose 'separate' or 'none'.")
        if self.qformer_alignment == "published" and (self.time_fusion != "none" or self.query_anchors):
            raise ValueError(
                "qformer_alignment='published' knows no time: set time_fusion='none' and query_anchors=False, or "
                "qformer_alignment='time'."
            )
        low = self.qformer_low_steps
        if low is not None and (low < 1 or steps % low or self.queries_per_window * low % steps):
            raise ValueError(
                f"qformer_low_steps ({low}) must divide the {steps} steps of a window, and queries_per_window "
                f"({self.queries_per_window}) must divide into as many parts as it cuts the window into."
            )

    def connector_settings(self) -> dict:
        """The fields that describe the connector and its training, without towers, language model and token ids."""
        own = self.to_diff_dict()
        parts = ("vision_config", "audio_config", "text_config", "speech_config")
        parts += ("video_token_id", "image_token_id", "audio_token_id")
        return {name: own[name] for name in type(self).__annotations__ if name in own and name not in parts}

    def media_settings(self) -> dict:
        """What of this configuration decides how a medium becomes tokens (and so whether encoded media still fit)."""
        fields = CONNECTOR_FIELDS + {"stc": STC_FIELDS, "causal_qformer": QFORMER_FIELDS}.get(self.resampler_type, ())
        # Named only where it is set, so that videos encoded without it stay what they are.
        if self.stc_tokens_per_window is not None and self.resampler_type == "stc":
            fields += ("stc_tokens_per_window",)
        return self.tower_settings() | {name: getattr(self, name) for name in fields}

    def tower_settings(self) -> dict:
        """The part of `media_settings` that concerns the towers alone, and so media that were encoded up to there."""
        settings = {name: getattr(self, name) for name in TOWER_FIELDS}
        settings["vision_config"] = {name: getattr(self.vision_config, name) for name in VISION_FIELDS}
        settings["audio_config"] = {name: getattr(self.audio_config, name) for name in AUDIO_FIELDS}
        if self.speech_config is not None:
            settings["speech_config"] = {name: getattr(self.speech_config, name) for name in SPEECH_FIELDS}
        return settings

    @property
    def patches_per_frame(self) -> int:
        return (self.vision_config.image_size // self.vision_config.patch_size) ** 2

    @property
    def audio_bands(self) -> int:
        return self.audio_config.num_mel_bins // self.audio_config.patch_size


def _sub_config(value: dict | PreTrainedConfig | None, default_type: str, defaults: dict) -> PreTrainedConfig:
    """A sub-config from what the user or a `config.json` gave: a config, a dict that may name its type, or nothing."""
    if isinstance(value, PreTrainedConfig):
        return value
    if value is None:
        return CONFIG_MAPPING[default_type](**defaults)
    value = dict(value)
    model_type = value.pop("model_type", default_type)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"model_type {model_type!r} is not known to the installed transformers.")
    return CONFIG_MAPPING[model_type](**value)


__all__ = ["SAVEnVideoConfig"]
