"""The causal Q-Former of the published video-SALMONN code, restated in float64 on its own key names.

Read from `model/openllama.py` (`sequence_align_v2`, `encode_audio`) and `model/Qformer.py` of the branch
`videosalmonn` (c305d54) of github.com/bytedance/SALMONN; head by head, sharing no code with the connector. One video
at a time.
"""

from __future__ import annotations

import math

import torch


ROWS, AUDIO_ROWS = 32, 25


def published_state_dict(size=24, layers=2, ffn=48, queries=20, low_queries=2, beats=16, whisper=20, llm=32, seed=0):
    """Random weights, large enough for every term to count, under the names of `pytorch_model_*.pt`.

    What the released configuration trains: two projections, norm, positions, Q-Former, queries, and the projection to
    the language model; and the second Q-Former, which it makes and never runs (`ext_same_qformer`).
    """
    generator = torch.Generator().manual_seed(seed)
    width = 3 * size

    def rand(*shape, scale=None):
        scale = scale if scale is not None else 1.5 / math.sqrt(shape[-1])
        return torch.randn(*shape, generator=generator) * scale

    def linear(name, out_size, in_size):
        return {f"{name}.weight": rand(out_size, in_size), f"{name}.bias": rand(out_size, scale=0.2)}

    def norm(name, channels):
        return {f"{name}.weight": 1 + rand(channels, scale=0.2), f"{name}.bias": rand(channels, scale=0.2)}

    def attention(name, channels, key_channels):
        state = linear(f"{name}.self.query", channels, channels)
        for part in ("key", "value"):
            state |= linear(f"{name}.self.{part}", channels, key_channels)
        return state | linear(f"{name}.output.dense", channels, channels) | norm(f"{name}.output.LayerNorm", channels)

    def qformer(name):
        state = norm(f"{name}.bert.embeddings.LayerNorm", size)
        for number in range(layers):
            layer = f"{name}.bert.encoder.layer.{number}"
            state |= attention(f"{layer}.attention", size, size)
            state |= attention(f"{layer}.crossattention", size, width)
            state |= linear(f"{layer}.intermediate_query.dense", ffn, size)
            state |= linear(f"{layer}.output_query.dense", size, ffn) | norm(f"{layer}.output_query.LayerNorm", size)
            state |= attention(f"{layer}.encoder_causal_attention", width, width)
        return state

    return {
        **linear("speech_pre_qformer_proj", size, whisper),
        **linear("beats_pre_qformer_proj", size, beats),
        **norm("ln_video", width),
        "video_frame_position_embedding.weight": rand(4096, width, scale=0.5),
        **qformer("video_Qformer"),
        "video_query_tokens": rand(1, queries, size, scale=1.0),
        **linear("llama_proj", llm, 2 * size),
        **qformer("low_Qformer"),
        "low_query_tokens": rand(1, low_queries, size, scale=1.0),
    }


def restated_connector(state, video, whisper, beats, heads, group=10, low_group=1, causal="triu"):
    """Tokens `(groups * queries, llm)` of one video.

    Args:
        state: under the published names.
        video: `(steps, 32, d)`, what InstructBLIP makes of each frame.
        whisper: `(50 a second, whisper d)`; beats: `(50 a second, beats d)`, at most as many.
        heads: of all attentions.
        group, low_group: steps of a window of each resolution.
        causal: "triu" as published; "tril" for the direction that its description names.
    """
    w = {name: tensor.double() for name, tensor in state.items()}
    video, whisper, beats = video.double(), whisper.double(), beats.double()
    size = video.shape[-1]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name, eps):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(x, keys, name, seen=None):
        q, k, v = (linear(t, f"{name}.self.{part}") for t, part in ((x, "query"), (keys, "key"), (keys, "value")))
        per_head, parts = q.shape[-1] // heads, []
        for head in range(heads):
            at = slice(head * per_head, (head + 1) * per_head)
            scores = q[:, at] @ k[:, at].T / math.sqrt(per_head)
            if seen is not None:
                # Added to every score alike, the lowest number of float32 leaves nothing of their differences.
                scores = torch.where(seen.any(-1, keepdim=True), scores.masked_fill(~seen, -math.inf), 0.0)
            parts.append(scores.softmax(-1) @ v[:, at])
        return norm(linear(torch.cat(parts, -1), f"{name}.output.dense") + x, f"{name}.output.LayerNorm", 1e-12)

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    def qformer(rows, mask, queries):
        rows = norm(rows, "ln_video", 1e-5) + w["video_frame_position_embedding.weight"][: len(rows)]
        steps = torch.arange(len(rows)) // ROWS
        seen = steps[None] >= steps[:, None] if causal == "triu" else steps[None] <= steps[:, None]
        x = norm(queries, "video_Qformer.bert.embeddings.LayerNorm", 1e-12)
        layer = 0
        while f"video_Qformer.bert.encoder.layer.{layer}.output_query.dense.weight" in w:
            name = f"video_Qformer.bert.encoder.layer.{layer}"
            keys = attention(rows, rows, f"{name}.encoder_causal_attention", seen)
            x = attention(x, x, f"{name}.attention")
            x = attention(x, keys, f"{name}.crossattention", mask[None].expand(len(x), -1))
            hidden = gelu(linear(x, f"{name}.intermediate_query.dense"))
            x = norm(linear(hidden, f"{name}.output_query.dense") + x, f"{name}.output_query.LayerNorm", 1e-12)
            layer += 1
        return x

    # BEATs is filled up to Whisper's length before it is projected; both go side by side.
    beats = torch.cat([beats, beats.new_zeros(len(whisper) - len(beats), beats.shape[-1])])
    audio = torch.cat([linear(whisper, "speech_pre_qformer_proj"), linear(beats, "beats_pre_qformer_proj")], -1)
    audio = audio.view(-1, AUDIO_ROWS, 2 * size)
    steps = max(len(video), len(audio))
    video = torch.cat([video, video.new_zeros(steps - len(video), ROWS, size)])
    audio = torch.cat([audio, audio.new_zeros(steps - len(audio), AUDIO_ROWS, 2 * size)])
    audio = torch.cat([audio, audio.new_zeros(steps, ROWS - AUDIO_ROWS, 2 * size)], 1)
    rows = torch.cat([video, audio], -1)
    padding = -steps % group
    mask = torch.ones(steps + padding, ROWS, dtype=torch.bool)
    mask[steps:] = False
    rows = torch.cat([rows, rows.new_zeros(padding, ROWS, 3 * size)])

    def read(steps_per_window, queries):
        states = []
        for window, seen in zip(rows.split(steps_per_window), mask.split(steps_per_window), strict=True):
            states.append(qformer(window.flatten(0, 1), seen.flatten(), queries))
        return torch.cat(states)

    high = read(group, w["video_query_tokens"][0])
    low = read(low_group, w["low_query_tokens"][0])
    return linear(torch.cat([low, high], -1), "llama_proj")


def connector_state(state, rows, vision_size):
    """The published weights under the names of our connector: written down anew, not taken from the converter."""
    size = state["video_query_tokens"].shape[-1]
    ours = {
        "visual_mlp.weight": torch.eye(size, vision_size),
        "visual_mlp.bias": torch.zeros(size),
        "row_position": state["video_frame_position_embedding.weight"][:rows],
        "queries": state["video_query_tokens"][0],
        "low_queries": state["low_query_tokens"][0],
    }
    modules = {
        "speech_pre_qformer_proj": "speech_mlp",
        "beats_pre_qformer_proj": "audio_mlp",
        "ln_video": "row_norm",
        "llama_proj": "output_projection",
        "video_Qformer.bert.embeddings.LayerNorm": "query_norm",
    }
    layer = 0
    while f"video_Qformer.bert.encoder.layer.{layer}.attention.self.query.weight" in state:
        theirs, mine = f"video_Qformer.bert.encoder.layer.{layer}", f"layers.{layer}"
        for block, name in (
            ("encoder_causal_attention", "causal_attn"),
            ("attention", "self_attn"),
            ("crossattention", "cross_attn"),
        ):
            for part, short in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
                modules[f"{theirs}.{block}.self.{part}"] = f"{mine}.{name}.{short}"
            modules[f"{theirs}.{block}.output.dense"] = f"{mine}.{name}.o_proj"
            modules[f"{theirs}.{block}.output.LayerNorm"] = f"{mine}.{name}.norm"
        modules[f"{theirs}.intermediate_query.dense"] = f"{mine}.up"
        modules[f"{theirs}.output_query.dense"] = f"{mine}.down"
        modules[f"{theirs}.output_query.LayerNorm"] = f"{mine}.norm"
        layer += 1
    for theirs, mine in modules.items():
        for part in ("weight", "bias"):
            ours[f"{mine}.{part}"] = state[f"{theirs}.{part}"]
    return ours
