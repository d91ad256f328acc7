"""What a video will cost before anything is started: tokens, memory and time, to ask or to train, any model."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from .hub import ModelNotFoundError, model_type, resolve_model, usable_device
from .savenvideo import (
    SAVEnVideoBeatsFeatureExtractor,
    SAVEnVideoConfig,
    SAVEnVideoForConditionalGeneration,
    SAVEnVideoVideoProcessor,
)
from .savenvideo.feature_extraction_speech import SAVEnVideoSpeechFeatureExtractor
from .savenvideo.layout import SPEECH_TOKENS_PER_COLUMN, TokenLayout, Window
from .savenvideo.media import Media, open_media
from .savenvideo.published_videollama2 import CLIPS_SECONDS


SAMPLING_RATE = 16_000
# What trains is kept in float32, with its gradient and AdamW's two moments.
TRAINED_BYTES = 16
# Frames decoded to measure the decoder's speed on this very file.
TRIAL_FRAMES = 4


@dataclass
class Plan:
    """Figures of `plan`; bytes and seconds. Memory is what the tensors add up to, without the runtime's own.

    Args:
        video_seconds, frames, audio_seconds: what would be watched and heard.
        windows, tokens: resampler windows, and prompt tokens of the medium with its question's times.
        context: positions the language model has; tokens beyond do not fit.
        parameters, weight_bytes: of the whole model in `dtype`.
        encode_bytes: working memory while encoding, on top of the weights; flat in the length of the video.
        memory_bytes: what an encoded video keeps (`VideoMemory`).
        cache_bytes: keys and values of the prompt in the language model.
        flops: floating-point operations by part.
        seconds: time by part: decoding extrapolated from frames of this file, the rest from `flops` at
            `flops_per_second`, so a lower bound.
        flops_per_second: of a large matrix product on `device` in `dtype`, measured while planning, or as given.
        trained_parameters: of LoRA on the language model and of the connector, what the recipes' stage "saven" trains.
        train_bytes: to train on this video, one row at a time with gradient checkpointing: weights, what trains with
            gradients and optimizer, and activations.
        train_seconds: of one such row, without decoding; the towers run once, the language model forward, again, and
            backward.
    """

    model: str
    device: str
    dtype: str
    video_seconds: float
    frames: int
    audio_seconds: float
    windows: int
    tokens: int
    context: int
    parameters: int
    weight_bytes: int
    encode_bytes: int
    memory_bytes: int
    cache_bytes: int
    flops: dict[str, float]
    seconds: dict[str, float]
    flops_per_second: float
    trained_parameters: int
    train_bytes: int
    train_seconds: float


def plan(
    video,
    model: str | os.PathLike | None = None,
    question_times: int = 2,
    prompt_tokens: int = 64,
    answer_tokens: int = 64,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    flops_per_second: float | None = None,
    lora_rank: int = 64,
    **sampling,
) -> Plan:
    """Count what asking about a video, and training on it, costs, without encoding it.

    Args:
        video: path, bytes or file object.
        model: folder or Hub id; its configuration is enough, weights are not read. None for the embedded tiny one.
        question_times: times that the question names (2 if it names none: start and end).
        prompt_tokens, answer_tokens: length of the question with its template, and of the answer.
        device, dtype: where it will run; the GPU in bfloat16 if there is one, else the CPU in float32.
        flops_per_second: of the machine that is thought of; measured on this one if None.
        lora_rank: of the adapters, if it is trained on (the recipes: 64).
        sampling: `sampling`, `num_frames`, `fps`, `max_frames`, `preprocessing`, as for the processor.
    """
    name = resolve_model(model)
    device = usable_device(device)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    found = model_type(name)
    if found != "savenvideo":
        raise ModelNotFoundError(f"{name!r} is a model of type {found!r}; this plans for 'savenvideo' models.")
    config = SAVEnVideoConfig.from_pretrained(name)
    processing = SAVEnVideoVideoProcessor.from_pretrained(name)
    settings = processing.settings(**sampling)
    if not config.has_audio_tower:
        settings["use_audio_in_video"] = False

    size = config.vision_config.image_size
    [source] = processing.list_sources(video, settings)
    with processing.open(source, settings, sampling_rate=SAMPLING_RATE) as clip:
        frame_times, duration = clip.frame_times, clip.duration
        columns = SAVEnVideoBeatsFeatureExtractor.from_pretrained(name).column_times(
            clip.num_samples, clip.sound_start
        )
        audio_seconds = clip.num_samples / SAMPLING_RATE
        speech = SAVEnVideoSpeechFeatureExtractor.of(config)
        speech_columns = speech.column_times(clip.num_samples, clip.sound_start) if speech is not None else []
    with open_media(video) as media:
        if media.kind == "video" and settings["preprocessing"] == "videollama2":
            audio_seconds = min(audio_seconds, CLIPS_SECONDS, duration / 1e6)
        decode_seconds = _decode_seconds(media, frame_times, size, audio_seconds)
    layout = TokenLayout.from_config(config)
    windows = layout.plan(frame_times, columns, duration, speech_columns)
    tokens = layout.num_tokens(frame_times, columns, duration, question_times if duration else 0, speech_columns)

    with torch.device("meta"):
        skeleton = SAVEnVideoForConditionalGeneration(config)
    item = dtype.itemsize
    parameters = skeleton.num_parameters()
    prompt = tokens + prompt_tokens
    text = config.text_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * (prompt + answer_tokens)

    patches, bands = config.patches_per_frame, config.audio_bands
    width = config.resampler_hidden_size
    connector_flops, largest_rows = _connector_cost(skeleton, layout, windows)
    batch = min(config.tower_batch_size, max((len(w.frames) for w in windows), default=0))
    # Keys, their positions, and K and V of one layer; the tower's activations are a few times its widest layer.
    encode = largest_rows * width * 4 + batch * patches * (
        6 * config.vision_config.hidden_size + 2 * config.vision_config.intermediate_size
    )
    encode_bytes = encode * item + max((len(w.frames) for w in windows), default=0) * 3 * size * size
    pooled = len(frame_times) + audio_seconds if config.resampler_type == "avts" else 0

    decoder_parameters = sum(p.numel() for p in skeleton.model.language_model.parameters()) - (
        skeleton.get_input_embeddings().weight.numel()
    )
    flops = {
        "vision": _transformer_flops(skeleton.model.vision_tower, config.vision_config, len(frame_times), patches),
        "audio": _transformer_flops(skeleton.model.audio_tower, config.audio_config, len(columns) / 62, 62 * bands)
        if config.has_audio_tower
        else 0.0,
        "resampler": connector_flops,
        "prefill": 2.0 * decoder_parameters * prompt + 2.0 * text.num_hidden_layers * prompt**2 * text.hidden_size,
        "generate": 2.0 * (decoder_parameters + text.vocab_size * text.hidden_size) * answer_tokens,
    }
    if config.speech_config is not None:
        # Every window is filled up to its full length.
        length = config.speech_config.max_source_positions
        sequences = -(-len(speech_columns) * SPEECH_TOKENS_PER_COLUMN // length)
        flops["speech"] = _transformer_flops(skeleton.model.speech_tower, config.speech_config, sequences, length)
    speed = flops_per_second or _flops_per_second(device, dtype)
    trained, backward_rows = _trained(skeleton, lora_rank), prompt + answer_tokens
    # A layer's inputs are kept; within one layer, and at the logits, everything is there at once.
    activations = item * backward_rows * text.hidden_size * text.num_hidden_layers
    activations += item * backward_rows * (8 * text.hidden_size + 4 * text.intermediate_size)
    activations += 2 * 4 * backward_rows * text.vocab_size
    train_flops = flops["vision"] + flops["audio"] + flops.get("speech", 0.0) + 3 * flops["resampler"]
    train_flops += 3 * (flops["prefill"] + flops["generate"])
    seconds = {"decode": decode_seconds, **{part: value / speed for part, value in flops.items()}}
    return Plan(
        model=name,
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        video_seconds=duration / 1e6,
        frames=len(frame_times),
        audio_seconds=audio_seconds,
        windows=len(windows),
        tokens=tokens,
        context=text.max_position_embeddings,
        parameters=parameters,
        weight_bytes=parameters * item,
        encode_bytes=encode_bytes,
        memory_bytes=round((tokens * text.hidden_size + pooled * width) * item),
        cache_bytes=cache * item,
        flops=flops,
        seconds=seconds,
        flops_per_second=speed,
        trained_parameters=trained,
        train_bytes=parameters * item + trained * TRAINED_BYTES + max(encode_bytes, activations),
        train_seconds=train_flops / speed,
    )


def _trained(skeleton: SAVEnVideoForConditionalGeneration, rank: int) -> int:
    """Parameters of adapters on all linear layers of the language model, and of TLP and connector."""
    layers = (one for one in skeleton.model.language_model.modules() if isinstance(one, torch.nn.Linear))
    adapters = sum(rank * (one.in_features + one.out_features) for one in layers)
    connector = (skeleton.model.resampler, skeleton.model.temporal_projection)
    return adapters + sum(_size(one) for one in connector if one is not None)


def _connector_cost(
    skeleton: SAVEnVideoForConditionalGeneration, layout: TokenLayout, windows: list[Window]
) -> tuple[float, int]:
    """Operations of the connector, and the most rows of its width that it holds at once."""
    config, connector = skeleton.config, skeleton.model.resampler
    patches, bands = config.patches_per_frame, config.audio_bands
    kinds = ("frames", "columns", "speech")
    frames, columns, speech = (sum(len(getattr(window, kind)) for window in windows) for kind in kinds)
    if config.resampler_type == "stc":
        cells = sum(len(layout.stc_steps(window)) for window in windows) * layout.stc_cells
        flops = 2.0 * frames * patches * _size(connector.s1) + 2.0 * columns * bands * _size(connector.audio_mlp)
        flops += 2.0 * cells * sum(map(_size, (connector.sampler, connector.s2, connector.readout)))
        return flops, max((len(layout.stc_frames(window)) * patches for window in windows), default=0)
    keys = frames * (patches + 1) + columns * (bands + 1) + speech * (SPEECH_TOKENS_PER_COLUMN + 1)
    flops = 2.0 * keys * _size(connector.visual_mlp)
    if config.resampler_type == "avts":
        width, layers = config.resampler_hidden_size, config.resampler_layers
        flops += 4.0 * keys * layers * width**2 + 4.0 * keys * config.queries_per_window * width * layers
    if config.resampler_type == "causal_qformer":
        rows, width = connector.row_position.shape
        resolutions = 1 if config.qformer_low_steps is None else 2
        layers = resolutions * len(connector.layers)
        flops += len(windows) * layers * (2.0 * rows * _size(connector.layers[0]) + 4.0 * rows**2 * width)
        return flops, rows * len(connector.blocks)
    return flops, max((len(w.frames) * (patches + 1) + len(w.columns) * (bands + 1) for w in windows), default=0)


def _decode_seconds(media: Media, frame_times: list[int], size: int, audio_seconds: float) -> float:
    """Time to decode what will be fed, from a few of its frames and ten seconds of its sound."""
    seconds = 0.0
    if frame_times and media.kind == "video":
        trial = frame_times[:: max(1, len(frame_times) // TRIAL_FRAMES)][:TRIAL_FRAMES]
        start = time.perf_counter()
        media.frames_at(trial, size=(size, size))
        seconds += (time.perf_counter() - start) * len(frame_times) / len(trial)
    if media.has_audio:
        heard = min(audio_seconds, 10.0)
        start = time.perf_counter()
        media.audio(0, round(heard * 1e6))
        seconds += (time.perf_counter() - start) * audio_seconds / max(heard, 0.01)
    return seconds


def _transformer_flops(tower: torch.nn.Module, config, sequences: float, length: int) -> float:
    """Products with every weight, and attention, over `sequences` of `length` tokens."""
    attention = 4.0 * config.num_hidden_layers * length**2 * config.hidden_size
    return sequences * (2.0 * _size(tower) * length + attention)


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flops_per_second(device: torch.device, dtype: torch.dtype, side: int = 2048, seconds: float = 0.3) -> float:
    matrix = torch.randn(side, side, device=device).to(dtype)
    matrix @ matrix
    rounds, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rounds += 1
    return rounds * 2.0 * side**3 / (time.perf_counter() - start)
