"""BEATs (Chen et al. 2022, arXiv 2212.09058): the audio encoder of SAVEn-Video, in transformers' form.

Differences from the published code, all of them decided here: sound is masked patch by patch (see
`SAVEnVideoBeatsModel`), the weight norm of the position convolution is folded into its weight at conversion, the
relative position table belongs to the encoder instead of being repeated in each layer, and the layer-wise scaling of
gradients is left out: it only matters to who pre-trains BEATs, and learning rates per layer do the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, logging
from transformers.utils.output_capturing import capture_outputs

from .configuration_beats import SAVEnVideoBeatsConfig


logger = logging.get_logger(__name__)


@dataclass
class SAVEnVideoBeatsModelOutput(ModelOutput):
    r"""
    The mask is reached by name; as a tuple the output has transformers' usual order for encoders, without it.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, tokens, hidden_size)`):
            `tokens = (fbank_frames // patch_size) * (num_mel_bins // patch_size)`, time-major, frequency-minor: the
            patches of one time step follow each other, low to high frequency. Zero where `token_mask` is False.
        token_mask (`torch.BoolTensor` of shape `(batch, tokens)`):
            True for the tokens that hold sound, False for padding.
        hidden_states (`tuple[torch.FloatTensor]`, *optional*):
            Input of the first layer and output of every layer, each `(batch, tokens, hidden_size)`.
        attentions (`tuple[torch.FloatTensor]`, *optional*):
            Attention weights of every layer, each `(batch, heads, tokens, tokens)`; `eager` attention only.
    """

    last_hidden_state: torch.FloatTensor | None = None
    token_mask: torch.BoolTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None

    def to_tuple(self) -> tuple:
        return tuple(value for name, value in self.items() if name != "token_mask")


def downsample_valid_mask(mask: torch.Tensor, length: int) -> torch.Tensor:
    """Shortens a validity mask the way the original BEATs code does.

    The mask is cut to a multiple of `length` and split in as many equal stretches; one of them is valid if anything
    in it is. The original applies it twice: from samples to fbank frames, then from frames to tokens.

    Args:
        mask: `(batch, n)` bool, True where there is sound.
        length: number of positions wanted, at most `n`.

    Returns:
        `(batch, length)` bool.
    """
    if not 0 < length <= mask.shape[1]:
        raise ValueError(f"Cannot shorten a mask of {mask.shape[1]} positions to {length}.")
    per_position = mask.shape[1] // length
    return mask[:, : length * per_position].reshape(mask.shape[0], length, per_position).any(-1)


def deep_norm_gain(config: SAVEnVideoBeatsConfig) -> float:
    """DeepNorm's gain (Wang et al. 2022, "beta") of the initial value, output and feed-forward weights."""
    return (8 * config.num_hidden_layers) ** -0.25


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention written out: all of `(batch, heads, tokens, head_dim)`, the mask is added to the scores."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class SAVEnVideoBeatsPatchEmbeddings(nn.Module):
    """Square patches of the fbank, normalised and projected: `(batch, frames, mel_bins)` to tokens."""

    def __init__(self, config: SAVEnVideoBeatsConfig):
        super().__init__()
        self.patch_embedding = nn.Conv2d(
            1, config.patch_embed_dim, config.patch_size, stride=config.patch_size, bias=config.conv_bias
        )
        self.layer_norm = nn.LayerNorm(config.patch_embed_dim, eps=config.layer_norm_eps)
        # Upstream has no projection when the widths agree.
        needs_projection = config.patch_embed_dim != config.hidden_size
        self.projection = nn.Linear(config.patch_embed_dim, config.hidden_size) if needs_projection else nn.Identity()
        self.dropout = nn.Dropout(config.input_dropout)

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embedding(input_features.unsqueeze(1).to(self.patch_embedding.weight.dtype))
        patches = patches.flatten(2).transpose(1, 2)  # (batch, time * frequency, patch_embed_dim)
        return self.dropout(self.projection(self.layer_norm(patches)))


class SAVEnVideoBeatsPositionalConv(nn.Module):
    """Convolutional position embedding over the flattened tokens; keeps `(batch, tokens, hidden_size)`."""

    def __init__(self, config: SAVEnVideoBeatsConfig):
        super().__init__()
        kernel_size = config.num_conv_pos_embeddings
        self.conv = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            kernel_size=kernel_size,
            padding=kernel_size // 2,
            groups=config.num_conv_pos_embedding_groups,
        )
        self.conv.initial_std = math.sqrt(4.0 / (kernel_size * config.hidden_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        num_tokens = hidden_states.shape[1]
        # An even kernel with this padding yields one step too many.
        positions = self.conv(hidden_states.transpose(1, 2))[:, :, :num_tokens]
        return nn.functional.gelu(positions).transpose(1, 2)


class SAVEnVideoBeatsRelativePositionBias(nn.Module):
    """One bias per head and bucketed distance (T5's bidirectional buckets), shared by all layers."""

    def __init__(self, config: SAVEnVideoBeatsConfig):
        super().__init__()
        self.num_buckets = config.num_buckets
        self.max_distance = config.max_bucket_distance
        self.embedding = nn.Embedding(config.num_buckets, config.num_attention_heads)

    def buckets(self, distances: torch.Tensor) -> torch.Tensor:
        """Bucket of each distance `key position - query position`: exact when small, logarithmic beyond."""
        per_direction = self.num_buckets // 2
        num_exact = per_direction // 2
        magnitude = distances.abs()
        # float32 in the order of the published code, so that distances at a bucket's edge fall on the same side.
        logarithmic = torch.log(magnitude.clamp(min=1).float() / num_exact)
        logarithmic = logarithmic / math.log(self.max_distance / num_exact) * (per_direction - num_exact)
        logarithmic = (num_exact + logarithmic.long()).clamp(max=per_direction - 1)
        buckets = torch.where(magnitude < num_exact, magnitude, logarithmic)
        return buckets + (distances > 0).long() * per_direction

    def forward(self, num_tokens: int, device: torch.device | None = None) -> torch.Tensor:
        """Bias of every (query, key) pair, computed on `device`: `(1, heads, num_tokens, num_tokens)`."""
        # Not asked of the weight, which is nowhere while it is offloaded.
        positions = torch.arange(num_tokens, device=device)
        distances = torch.arange(1 - num_tokens, num_tokens, device=device)
        # The bias depends on the distance alone: look 2n - 1 distances up, not n * n.
        bias = self.embedding(self.buckets(distances)).transpose(0, 1)
        return bias[:, positions[None, :] - positions[:, None] + num_tokens - 1].unsqueeze(0)


class SAVEnVideoBeatsAttention(nn.Module):
    """Self-attention with a relative position bias that each query gates."""

    def __init__(self, config: SAVEnVideoBeatsConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        if config.deep_norm:
            self.q_proj.initial_gain = self.k_proj.initial_gain = 1.0
            self.v_proj.initial_gain = self.out_proj.initial_gain = deep_norm_gain(config)
        self.is_gated = config.relative_position_embedding and config.gated_relative_position
        if self.is_gated:
            self.gate_proj = nn.Linear(self.head_dim, 8)
            self.gate_scale = nn.Parameter(torch.ones(1, self.num_heads, 1, 1))

    def gate(self, query: torch.Tensor) -> torch.Tensor:
        """Factor of the position bias for each query: `(batch, heads, tokens, head_dim)` to `(..., tokens, 1)`."""
        update, reset = self.gate_proj(query).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, dim=-1)
        return update * (reset * self.gate_scale - 1.0) + 2.0

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_bias: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`position_bias`: `(1, heads, tokens, tokens)`. `token_mask`: `(batch, tokens)` bool, None if all valid."""
        batch, num_tokens, _ = hidden_states.shape
        split = (batch, num_tokens, self.num_heads, self.head_dim)
        query = self.q_proj(hidden_states).view(split).transpose(1, 2)
        key = self.k_proj(hidden_states).view(split).transpose(1, 2)
        value = self.v_proj(hidden_states).view(split).transpose(1, 2)

        attention_mask = None
        if position_bias is not None:
            attention_mask = (self.gate(query) * position_bias if self.is_gated else position_bias).to(query.dtype)
        if token_mask is not None:
            bias = query.new_zeros(()) if attention_mask is None else attention_mask
            # Finite, and far enough from the end of the range for a score to be added: a row without any sound must
            # not become NaN.
            lowest = torch.finfo(query.dtype).min / 2
            attention_mask = torch.where(token_mask[:, None, None, :], bias, lowest).to(query.dtype)
            attention_mask = attention_mask.expand(batch, -1, num_tokens, -1)

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            is_causal=False,
            **kwargs,
        )
        return self.out_proj(output.reshape(batch, num_tokens, -1)), weights


class SAVEnVideoBeatsFeedForward(nn.Module):
    def __init__(self, config: SAVEnVideoBeatsConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        if config.deep_norm:
            self.fc1.initial_gain = self.fc2.initial_gain = deep_norm_gain(config)
        # Upstream casts to float32 around its gelu; torch's kernels compute in float32 whatever the dtype.
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = nn.Dropout(config.activation_dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.dropout(self.activation(self.fc1(hidden_states))))


class SAVEnVideoBeatsLayer(GradientCheckpointingLayer):
    def __init__(self, config: SAVEnVideoBeatsConfig):
        super().__init__()
        self.layer_norm_first = config.layer_norm_first
        self.residual_scale = (2 * config.num_hidden_layers) ** 0.25 if config.deep_norm else 1.0
        self.self_attn = SAVEnVideoBeatsAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = SAVEnVideoBeatsFeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_bias: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        residual = hidden_states
        if self.layer_norm_first:
            hidden_states = self.self_attn_layer_norm(hidden_states)
        hidden_states, _ = self.self_attn(hidden_states, position_bias, token_mask, **kwargs)
        hidden_states = residual * self.residual_scale + self.dropout(hidden_states)
        if not self.layer_norm_first:
            hidden_states = self.self_attn_layer_norm(hidden_states)

        residual = hidden_states
        if self.layer_norm_first:
            hidden_states = self.final_layer_norm(hidden_states)
        hidden_states = residual * self.residual_scale + self.dropout(self.feed_forward(hidden_states))
        if not self.layer_norm_first:
            hidden_states = self.final_layer_norm(hidden_states)
        return hidden_states


class SAVEnVideoBeatsEncoder(nn.Module):
    def __init__(self, config: SAVEnVideoBeatsConfig):
        super().__init__()
        self.layer_norm_first = config.layer_norm_first
        self.layerdrop = config.layerdrop
        self.pos_conv = SAVEnVideoBeatsPositionalConv(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.relative_attention_bias = (
            SAVEnVideoBeatsRelativePositionBias(config) if config.relative_position_embedding else None
        )
        self.layers = nn.ModuleList([SAVEnVideoBeatsLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self, hidden_states: torch.Tensor, token_mask: torch.Tensor | None, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        if token_mask is not None:
            # The position convolution sees zeros in the padding, as it does beyond the ends of the sequence.
            hidden_states = hidden_states.masked_fill(~token_mask.unsqueeze(-1), 0.0)
        hidden_states = hidden_states + self.pos_conv(hidden_states)
        if not self.layer_norm_first:
            hidden_states = self.layer_norm(hidden_states)
        hidden_states = self.dropout(hidden_states)

        position_bias = None
        if self.relative_attention_bias is not None:
            position_bias = self.relative_attention_bias(hidden_states.shape[1], hidden_states.device)
        for layer in self.layers:
            if self.training and self.layerdrop > 0 and torch.rand(()) < self.layerdrop:
                continue
            hidden_states = layer(hidden_states, position_bias, token_mask, **kwargs)

        if self.layer_norm_first:
            hidden_states = self.layer_norm(hidden_states)
        return hidden_states


class SAVEnVideoBeatsPreTrainedModel(PreTrainedModel):
    config: SAVEnVideoBeatsConfig
    base_model_prefix = "beats"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    _input_embed_layer = "patch_embedding"
    supports_gradient_checkpointing = True
    _no_split_modules = ["SAVEnVideoBeatsPatchEmbeddings", "SAVEnVideoBeatsPositionalConv", "SAVEnVideoBeatsLayer"]
    _supports_sdpa = True
    _can_record_outputs = {
        "hidden_states": SAVEnVideoBeatsLayer,
        "attentions": SAVEnVideoBeatsAttention,
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        # The leaves carry how they want to be initialised: transformers passes modules without parameters of their own
        # (a feed-forward block) over when the class lives outside of its package.
        super()._init_weights(module)
        if hasattr(module, "initial_gain"):
            init.xavier_normal_(module.weight, gain=module.initial_gain)
        elif hasattr(module, "initial_std"):
            init.normal_(module.weight, mean=0.0, std=module.initial_std)
        elif isinstance(module, SAVEnVideoBeatsAttention) and module.is_gated:
            init.ones_(module.gate_scale)

    # transformers asks every sub-model whether it can run the attention that was requested for the whole model, at
    # construction through the first method, in `set_attn_implementation` through the second. The gated position bias
    # is an additive mask per query, which flash, flex and paged kernels do not take; refusing would keep the language
    # model and the vision tower from using them.
    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args, **kwargs) -> str:
        return super()._check_and_adjust_attn_implementation(self._keep_sdpa(attn_implementation), *args, **kwargs)

    def get_correct_attn_implementation(self, requested_attention: str | None, *args, **kwargs) -> str:
        return super().get_correct_attn_implementation(self._keep_sdpa(requested_attention), *args, **kwargs)

    def _keep_sdpa(self, requested: str | None) -> str | None:
        """The implementation to use where `requested` is one that exists but has no room for a position bias."""
        if requested is None or requested in ("eager", "sdpa"):
            return requested
        # "/" marks a kernel of the Hub. What is left is a name that does not exist: transformers says so.
        if "flash" in requested or "/" in requested or requested in ALL_ATTENTION_FUNCTIONS.valid_keys():
            logger.warning_once(
                f"BEATs adds a gated position bias to its attention scores, which `{requested}` does not take: the "
                "audio encoder stays with `sdpa`."
            )
            return "sdpa"
        return requested


class SAVEnVideoBeatsModel(SAVEnVideoBeatsPreTrainedModel):
    r"""
    The BEATs encoder without a head: normalised fbank frames in, one token per 16 x 16 patch out.

    Padding is storage only: a patch is valid if all its frames are; whatever the other frames hold (NaN included)
    changes no valid token, and the tokens of invalid patches come out as zero.
    """

    def __init__(self, config: SAVEnVideoBeatsConfig):
        super().__init__(config)
        self.embeddings = SAVEnVideoBeatsPatchEmbeddings(config)
        self.encoder = SAVEnVideoBeatsEncoder(config)
        self.post_init()

    def get_num_tokens(self, num_frames: int) -> int:
        """Number of tokens for `num_frames` fbank frames; frames that do not fill a patch are dropped."""
        return num_frames // self.config.patch_size * (self.config.num_mel_bins // self.config.patch_size)

    def _token_mask(self, frame_mask: torch.Tensor) -> torch.Tensor:
        """Validity of the tokens: `(batch, fbank_frames)` bool to `(batch, tokens)` bool."""
        batch, num_frames = frame_mask.shape
        if self.config.upstream_padding_mask:
            return downsample_valid_mask(frame_mask, self.get_num_tokens(num_frames))
        patch_size = self.config.patch_size
        columns = frame_mask[:, : num_frames // patch_size * patch_size].reshape(batch, -1, patch_size).all(-1)
        return columns.repeat_interleave(self.config.num_mel_bins // patch_size, dim=1)

    @capture_outputs
    def forward(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SAVEnVideoBeatsModelOutput:
        r"""
        Args:
            input_features (`torch.Tensor` of shape `(batch, fbank_frames, num_mel_bins)`):
                Log-mel filterbank frames (10 ms each) as [`SAVEnVideoBeatsFeatureExtractor`] makes and normalises
                them. At least `patch_size` frames; frames at the end that do not fill a patch are dropped.
            input_features_mask (`torch.Tensor` of shape `(batch, fbank_frames)`, *optional*):
                True (or 1) for frames that hold sound, False (or 0) for padding. Without it all frames are valid.
        """
        if input_features.ndim != 3 or input_features.shape[-1] != self.config.num_mel_bins:
            raise ValueError(
                f"`input_features` must have the shape (batch, fbank_frames, {self.config.num_mel_bins}), "
                f"got {tuple(input_features.shape)}."
            )
        batch, num_frames, _ = input_features.shape
        num_tokens = self.get_num_tokens(num_frames)
        if num_tokens == 0:
            raise ValueError(
                f"`input_features` has {num_frames} fbank frames, but one patch takes {self.config.patch_size}."
            )

        token_mask = None
        if input_features_mask is not None:
            if input_features_mask.shape != (batch, num_frames):
                raise ValueError(
                    f"`input_features_mask` has the shape {tuple(input_features_mask.shape)} for "
                    f"{(batch, num_frames)} frames."
                )
            frame_mask = input_features_mask.to(input_features.device, torch.bool)
            token_mask = self._token_mask(frame_mask)
            if not self.config.upstream_padding_mask:
                input_features = input_features.masked_fill(~frame_mask.unsqueeze(-1), 0.0)

        hidden_states = self.encoder(self.embeddings(input_features), token_mask, **kwargs)
        if token_mask is None:
            token_mask = torch.ones(batch, num_tokens, dtype=torch.bool, device=hidden_states.device)
        elif not self.config.upstream_padding_mask:
            token_mask = token_mask.to(hidden_states.device)
            hidden_states = hidden_states.masked_fill(~token_mask.unsqueeze(-1), 0.0)
        return SAVEnVideoBeatsModelOutput(last_hidden_state=hidden_states, token_mask=token_mask)


__all__ = ["SAVEnVideoBeatsModel", "SAVEnVideoBeatsModelOutput", "SAVEnVideoBeatsPreTrainedModel"]
