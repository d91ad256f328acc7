"""Configuration of the BEATs audio encoder."""

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig


@strict
class SAVEnVideoBeatsConfig(PreTrainedConfig):
    r"""
    Configuration of [`SAVEnVideoBeatsModel`]. The defaults are those of the published BEATs iter3+ (AS2M), 90 M
    parameters; `saven convert beats` fills every field from the checkpoint's own `cfg`.

    Args:
        num_mel_bins (`int`): Mel bins of one fbank frame; `num_mel_bins / patch_size` patches lie side by side.
        patch_size (`int`): Fbank frames, and mel bins, of one square patch.
        patch_embed_dim (`int`): Width of the patch embedding, before it is projected to `hidden_size`.
        conv_bias (`bool`): Whether the patch convolution has a bias.
        hidden_size (`int`): Width of the encoder and of its output tokens.
        intermediate_size (`int`): Width of the feed-forward layers.
        num_hidden_layers (`int`): Number of transformer layers.
        num_attention_heads (`int`): Number of attention heads.
        hidden_act (`str`): Activation of the feed-forward layers, a key of transformers' `ACT2FN`.
        hidden_dropout (`float`): Dropout of the sub-layer outputs.
        attention_dropout (`float`): Dropout of the attention weights.
        activation_dropout (`float`): Dropout between the feed-forward layers.
        input_dropout (`float`): Dropout of the projected patches.
        layerdrop (`float`): Probability with which a whole layer is skipped in training.
        layer_norm_first (`bool`): Pre-norm layers; excludes `deep_norm`.
        deep_norm (`bool`): DeepNorm: residuals are scaled by `(2 * num_hidden_layers) ** 0.25`.
        layer_norm_eps (`float`): Epsilon of the layer norms.
        num_conv_pos_embeddings (`int`): Kernel size, in tokens, of the convolutional position embedding.
        num_conv_pos_embedding_groups (`int`): Groups of that convolution.
        relative_position_embedding (`bool`): Whether attention carries a learned relative position bias.
        num_buckets (`int`): Buckets of the relative position bias, half of them for each direction.
        max_bucket_distance (`int`): Distance in tokens from which on all positions share the last bucket.
        gated_relative_position (`bool`): Whether each query gates the relative position bias.
        initializer_range (`float`): Standard deviation of the initial weights that DeepNorm does not set.
        max_source_positions (`int`): Tokens of the longest window the feature extractor makes (62 patch columns of 8).
            The model itself has no limit; serving engines read this to reserve memory.
        upstream_padding_mask (`bool`): Reproduces the original code at the edge of the padding: a token is dropped
            when the 2 fbank frames at its place in the flattened sequence are padding, although a patch covers 16
            frames, padded frames enter the patches that are kept, and dropped tokens come out as they are computed
            instead of zero. Only for parity checks.
    """

    model_type = "savenvideo_beats"
    base_config_key = "audio_config"

    num_mel_bins: int = 128
    patch_size: int = 16
    patch_embed_dim: int = 512
    conv_bias: bool = False
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    input_dropout: float | int = 0.0
    layerdrop: float | int = 0.05
    layer_norm_first: bool = False
    deep_norm: bool = True
    layer_norm_eps: float = 1e-5
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    relative_position_embedding: bool = True
    num_buckets: int = 320
    max_bucket_distance: int = 800
    gated_relative_position: bool = True
    initializer_range: float = 0.02
    max_source_positions: int = 496
    upstream_padding_mask: bool = False

    def validate_architecture(self):
        """Part of `@strict`-powered validation: refuses sizes that do not fit together."""
        for total, part in (
            ("num_mel_bins", "patch_size"),
            ("hidden_size", "num_attention_heads"),
            ("hidden_size", "num_conv_pos_embedding_groups"),
        ):
            if getattr(self, part) < 1 or getattr(self, total) % getattr(self, part):
                raise ValueError(
                    f"`{total}` ({getattr(self, total)}) must be a multiple of `{part}` ({getattr(self, part)})."
                )
        if self.deep_norm and self.layer_norm_first:
            raise ValueError("`deep_norm` scales the residuals of post-norm layers: it excludes `layer_norm_first`.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"`hidden_act` must be one of transformers' activations, got {self.hidden_act!r}.")
        if self.relative_position_embedding:
            if self.num_buckets < 4 or self.num_buckets % 4:
                raise ValueError(f"`num_buckets` must be a positive multiple of 4, got {self.num_buckets}.")
            if self.max_bucket_distance <= self.num_buckets // 4:
                raise ValueError(
                    f"`max_bucket_distance` ({self.max_bucket_distance}) must exceed the {self.num_buckets // 4} "
                    f"distances that `num_buckets={self.num_buckets}` keeps exact."
                )


__all__ = ["SAVEnVideoBeatsConfig"]
