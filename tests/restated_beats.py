"""Microsoft's BEATs restated in float64 from its published formulas, loop by loop, on its published key names.

Shares no code with the model.
"""

from __future__ import annotations

import math

import torch


CFG = {
    "input_patch_size": 16,
    "embed_dim": 24,
    "conv_bias": False,
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "layer_wise_gradient_decay_ratio": 0.6,
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "relative_position_embedding": True,
    "num_buckets": 32,
    "max_distance": 40,
    "gru_rel_pos": True,
    "finetuned_model": True,
    "predictor_dropout": 0.0,
    "predictor_class": 5,
}


def published_state_dict(cfg, seed=0):
    """Random weights, large enough for every term to count, under the published names."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape, scale=None):
        scale = scale if scale is not None else 1.5 / math.sqrt(max(1, math.prod(shape[1:])))
        return torch.randn(*shape, generator=generator) * scale

    width, embed, ffn = cfg["encoder_embed_dim"], cfg["embed_dim"], cfg["encoder_ffn_embed_dim"]
    heads, kernel = cfg["encoder_attention_heads"], cfg["conv_pos"]
    state = {
        "patch_embedding.weight": rand(embed, 1, cfg["input_patch_size"], cfg["input_patch_size"]),
        "layer_norm.weight": 1 + rand(embed, scale=0.2),
        "layer_norm.bias": rand(embed, scale=0.2),
        "encoder.pos_conv.0.weight_g": 1 + rand(1, 1, kernel, scale=0.3).abs(),
        "encoder.pos_conv.0.weight_v": rand(width, width // cfg["conv_pos_groups"], kernel, scale=0.5),
        "encoder.pos_conv.0.bias": rand(width, scale=0.2),
        "encoder.layer_norm.weight": 1 + rand(width, scale=0.2),
        "encoder.layer_norm.bias": rand(width, scale=0.2),
    }
    if cfg["conv_bias"]:
        state["patch_embedding.bias"] = rand(embed, scale=0.2)
    if embed != width:
        state |= {"post_extract_proj.weight": rand(width, embed), "post_extract_proj.bias": rand(width, scale=0.2)}
    table = rand(cfg["num_buckets"], heads, scale=1.0)
    for i in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            state[f"{layer}.self_attn.{name}.weight"] = rand(width, width)
            state[f"{layer}.self_attn.{name}.bias"] = rand(width, scale=0.2)
        if cfg["relative_position_embedding"]:
            state[f"{layer}.self_attn.relative_attention_bias.weight"] = table
        if cfg["gru_rel_pos"]:
            state[f"{layer}.self_attn.grep_linear.weight"] = rand(8, width // heads)
            state[f"{layer}.self_attn.grep_linear.bias"] = rand(8, scale=0.5)
            state[f"{layer}.self_attn.grep_a"] = 1 + rand(1, heads, 1, 1, scale=0.5)
        state |= {f"{layer}.fc1.weight": rand(ffn, width), f"{layer}.fc1.bias": rand(ffn, scale=0.2)}
        state |= {f"{layer}.fc2.weight": rand(width, ffn), f"{layer}.fc2.bias": rand(width, scale=0.2)}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            state[f"{layer}.{name}.weight"] = 1 + rand(width, scale=0.2)
            state[f"{layer}.{name}.bias"] = rand(width, scale=0.2)
    if cfg["finetuned_model"]:
        state |= {
            "predictor.weight": rand(cfg["predictor_class"], width),
            "predictor.bias": rand(cfg["predictor_class"]),
        }
    return state


def bucket(distance, num_buckets, max_distance):
    """T5's bidirectional bucket of one distance (key position minus query position)."""
    half = num_buckets // 2
    offset = half if distance > 0 else 0
    distance = abs(distance)
    exact = half // 2
    if distance < exact:
        return offset + distance
    large = exact + int(math.log(distance / exact) / math.log(max_distance / exact) * (half - exact))
    return offset + min(large, half - 1)


def restated_beats(state, cfg, fbank, padding=None):
    """The published encoder for one example, in float64.

    Args:
        fbank: (frames, 128), normalised. padding: (frames,) bool, True in the padding, with the published
        pooling of masks; None without padding.

    Returns:
        (tokens, width)
    """
    w = {key: tensor.double() for key, tensor in state.items()}
    fbank = fbank.double()
    size, width, heads = cfg["input_patch_size"], cfg["encoder_embed_dim"], cfg["encoder_attention_heads"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    tokens = []
    for t in range(fbank.shape[0] // size):
        for f in range(fbank.shape[1] // size):
            patch = fbank[t * size : (t + 1) * size, f * size : (f + 1) * size]
            token = (w["patch_embedding.weight"][:, 0] * patch).sum((1, 2))
            tokens.append(token + w["patch_embedding.bias"] if cfg["conv_bias"] else token)
    x = norm(torch.stack(tokens), "layer_norm")
    if cfg["embed_dim"] != width:
        x = linear(x, "post_extract_proj")
    n = x.shape[0]

    token_padding = torch.zeros(n, dtype=torch.bool)
    if padding is not None:
        kept = padding[: len(padding) - len(padding) % n]
        token_padding = kept.view(n, -1).all(-1)
        x = torch.where(token_padding[:, None], torch.zeros_like(x), x)

    g, v = w["encoder.pos_conv.0.weight_g"], w["encoder.pos_conv.0.weight_v"]
    kernel = g * v / (v**2).sum((0, 1), keepdim=True).sqrt()
    length, per_group = kernel.shape[2], kernel.shape[1]
    padded = torch.zeros(n + length, width, dtype=torch.float64)
    padded[length // 2 : length // 2 + n] = x
    positions = w["encoder.pos_conv.0.bias"].repeat(n, 1)
    for channel in range(width):
        first = channel // (width // cfg["conv_pos_groups"]) * per_group
        for t in range(n):
            positions[t, channel] += (padded[t : t + length, first : first + per_group].T * kernel[channel]).sum()
    x = x + gelu(positions)
    if not cfg["layer_norm_first"]:
        x = norm(x, "encoder.layer_norm")

    alpha = (2 * cfg["encoder_layers"]) ** 0.25 if cfg["deep_norm"] else 1.0
    act = {"gelu": gelu, "relu": torch.relu, "tanh": torch.tanh}[cfg["activation_fn"]]
    for i in range(cfg["encoder_layers"]):
        layer, attn = f"encoder.layers.{i}", f"encoder.layers.{i}.self_attn"

        def attend(x, attn=attn):
            q, k, v = (linear(x, f"{attn}.{name}").view(n, heads, -1) for name in ("q_proj", "k_proj", "v_proj"))
            out = torch.zeros(n, heads, width // heads, dtype=torch.float64)
            for h in range(heads):
                scores = q[:, h] @ k[:, h].T / math.sqrt(width // heads)
                scores[:, token_padding] = -math.inf
                if cfg["relative_position_embedding"]:
                    table = w["encoder.layers.0.self_attn.relative_attention_bias.weight"]
                    gates = torch.ones(n, dtype=torch.float64)
                    if cfg["gru_rel_pos"]:
                        sums = linear(q[:, h], f"{attn}.grep_linear").view(n, 2, 4).sum(-1)
                        a, b = torch.sigmoid(sums).unbind(-1)
                        gates = a * (b * w[f"{attn}.grep_a"][0, h, 0, 0] - 1) + 2
                    for query in range(n):
                        for key in range(n):
                            place = bucket(key - query, cfg["num_buckets"], cfg["max_distance"])
                            scores[query, key] += gates[query] * table[place, h]
                out[:, h] = torch.softmax(scores, -1) @ v[:, h]
            return linear(out.view(n, width), f"{attn}.out_proj")

        def feed_forward(x, layer=layer):
            return linear(act(linear(x, f"{layer}.fc1")), f"{layer}.fc2")

        if cfg["layer_norm_first"]:
            x = x + attend(norm(x, f"{layer}.self_attn_layer_norm"))
            x = x + feed_forward(norm(x, f"{layer}.final_layer_norm"))
        else:
            x = norm(x * alpha + attend(x), f"{layer}.self_attn_layer_norm")
            x = norm(x * alpha + feed_forward(x), f"{layer}.final_layer_norm")
    return norm(x, "encoder.layer_norm") if cfg["layer_norm_first"] else x
