"""VideoLLaMA 2 checkpoints converted to [`SAVEnVideoForConditionalGeneration`] with the connector "stc".

Takes 2.0 and 2.1, picture-only and audio-visual, with CLIP or SigLIP, Mistral or Qwen2. Names and formulas are those
of github.com/DAMO-NLP-SG/VideoLLaMA2, branch audio_visual (8cedfbd). Files are read as data only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig
from transformers.utils.chat_template_utils import render_jinja_template

from ..savenvideo import (
    SAVEnVideoBeatsConfig,
    SAVEnVideoBeatsFeatureExtractor,
    SAVEnVideoConfig,
    SAVEnVideoForConditionalGeneration,
    SAVEnVideoProcessor,
)
from ..savenvideo.modeling_savenvideo import PLACEHOLDER_TOKENS
from ..savenvideo.towers import VISION_TOWERS, load_vision_tower
from .beats import WEIGHT_NORM_KEYS, beats_config, convert_beats_state_dict, load_beats_checkpoint
from .checkpoint import (
    CheckpointError,
    ConversionReport,
    check_fit,
    fresh_folder,
    read_folder,
    read_json,
    read_state_dict,
    some,
    whole_folder,
)


TEXT_TYPES = {"videollama2": "mistral", "videollama2_mistral": "mistral", "videollama2_qwen2": "qwen2"}
# Published connector -> ours. The means over time of "linear" and "mlp2x_gelu" have no counterpart here.
PROJECTORS = {
    "stc_connector": {"stc_padding": 1},
    "stc_connector_v35": {},
    "stp_connector": {"stc_pool": True},
    "spatial_conv": {"stc_depth": 0, "stc_stride": (1, 2, 2), "stc_padding": 1},
    "spatial_pool": {"stc_depth": 0, "stc_stride": (1, 2, 2), "stc_pool": True},
}
# VideoLLaMA 2 knows no time, and no windows.
PUBLISHED_SETTINGS = {
    "resampler_type": "stc",
    "time_fusion": "none",
    "question_times": "none",
    "token_order": "modality",
    "window_seconds": None,
    "window_frames": None,
}
# The towers that were published with it, whose own config.json is not part of a checkpoint.
KNOWN_TOWERS = {
    "openai/clip-vit-large-patch14-336": (
        "clip_vision_model",
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
    ),
    "google/siglip-so400m-patch14-384": (
        "siglip_vision_model",
        {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
        },
    ),
}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# Of the BEATs beside its sizes, which follow from the tensors (model/beats/BEATs.py).
BEATS_CFG = {
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "max_distance": 800,
}
BEATS_NORM_EPS = 1e-6  # model/beats/weight_norm_fix.py
PATCHES_PER_WINDOW = 187  # the 30 s that the audio branch was trained on

# ChatML with the system message of Qwen2-Instruct.
QWEN2_TEMPLATE = Path(__file__).with_name("videollama2_qwen2.jinja")

VISION_PREFIX = "model.vision_tower.vision_tower."
AUDIO_PREFIX = "model.audio_tower."
# Weights that training writes beside a checkpoint; read where the checkpoint itself has none.
BESIDE = {"audio_tower.bin": AUDIO_PREFIX, "mm_projector_a.bin": "model.mm_projector_a."}
AUDIO_MLP = {"0": "up", "2": "down"}

# What the Mistral models were asked with: the system message of Llama 2, which `mm_infer` puts in front.
SYSTEM_MESSAGE = (
    "<<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being "
    "safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal "
    "content. Please ensure that your responses are socially unbiased and positive in nature.\nIf a question does not "
    "make any sense, or is not factually coherent, explain why instead of answering something not correct. If you "
    "don't know the answer to a question, please don't share false information.\n<</SYS>>"
)
# In front of a published template, which knows strings only: media blocks become lines of their own.
FLATTEN = """{%- macro flat(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for block in content -%}
            {{- block.text if block.type == 'text' else '<|' ~ block.type ~ '|>\\n' -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(messages=SYSTEM) -%}
{%- for message in messages -%}
    {%- set ns.messages = ns.messages + [{'role': message.role, 'content': flat(message.content)}] -%}
{%- endfor -%}
{%- set messages = ns.messages -%}
"""
# Where a Mistral checkpoint brings no template: the instruction format of Mistral 7B, with a system message.
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}{{ '[INST] ' ~ (messages[0].content ~ "
    "'\\n\\n' if loop.index0 == 1 and messages[0].role == 'system' else '') ~ message.content ~ ' [/INST]' }}"
    "{% elif message.role == 'assistant' %}{% generation %}{{ message.content ~ eos_token }}{% endgeneration %}"
    "{% endif %}{% endfor %}"
)


def convert_videollama2(
    source: str | os.PathLike,
    output_dir: str | os.PathLike,
    vision: str | os.PathLike | None = None,
    audio: str | os.PathLike | None = None,
    preprocessing: str = "videollama2",
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
) -> ConversionReport:
    """Converts a published VideoLLaMA 2 folder to one for `AutoModelForImageTextToText` and `AutoProcessor`.

    Weights are mapped, not copied: a 7B needs little more memory than its largest tensor.

    Args:
        source: folder of the checkpoint with its tokenizer; safetensors or `.bin`, whole or sharded.
        output_dir: folder to write; it must not hold anything yet.
        vision: folder or Hub id of the vision tower, where neither the checkpoint nor this package knows it: its
            config, and its weights if the checkpoint holds none. Default: the one that the checkpoint names.
        audio: file with the audio tower, where the checkpoint holds none: its `audio_tower.bin`, or Microsoft's BEATs.
        preprocessing: what the processor does by default: "videollama2" as published, or "whole" (ours).
        dtype: of the weights; that of the checkpoint's language model if None.

    Returns:
        The report of what was used and what was left out, which is also in the folder, as `conversion.json`.

    Raises:
        CheckpointError: files that are unsafe, damaged, incomplete, or of no VideoLLaMA 2. Nothing is written then.
        FileExistsError: `output_dir` holds something.
    """
    source = Path(source)
    fresh_folder(output_dir)
    if not source.is_dir():
        raise CheckpointError(f"There is no folder {source}: download the checkpoint first.")
    published = read_json(source / "config.json")
    kind = TEXT_TYPES.get(published.get("model_type"))
    if kind is None:
        raise CheckpointError(
            f"{source / 'config.json'} is of model type {published.get('model_type')!r}; converted are "
            f"{', '.join(TEXT_TYPES)}."
        )
    report = ConversionReport(output_dir=str(output_dir))
    parts = _Parts(_read_all(source, audio, report), report)
    text = _text_config(kind, published, report)
    vision_config = _convert_vision(parts, published, vision)
    audio_config = _convert_audio(parts, published, audio)
    _convert_rest(parts)

    tokenizer = _load_tokenizer(source, text)
    template = _chat_template(tokenizer, kind, report)
    _add_placeholders(parts, text, tokenizer)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in PLACEHOLDER_TOKENS.items()}
    num_frames = _whole_number(published, "num_frames", 8)
    layer = _vision_layer(published, vision_config)
    connector = _connector_settings(published, vision_config.hidden_size, text.hidden_size)
    with _building("model"):
        config = SAVEnVideoConfig(
            vision_config=vision_config,
            audio_config=audio_config,
            has_audio_tower=audio_config is not None,
            text_config=text,
            resampler_hidden_size=text.hidden_size,
            vision_feature_layer=layer,
            image_frames=num_frames,
            **_normalisation(vision_config),
            **connector,
            **PUBLISHED_SETTINGS,
            **ids,
        )
        with torch.device("meta"):
            model = SAVEnVideoForConditionalGeneration(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    tied = ("lm_head.weight",) if text.tie_word_embeddings else ()
    check_fit(parts.converted, expected, f"a {published['model_type']} of this config", optional=tied)

    dtype = dtype or parts.converted["model.language_model.embed_tokens.weight"].dtype
    state = {name: tensor.to(dtype).contiguous() for name, tensor in parts.converted.items()}
    model.load_state_dict(state, strict=not tied, assign=True)
    model.tie_weights()
    config.dtype = dtype
    model.generation_config = _generation_config(source, tokenizer, ids)
    report.num_parameters = model.num_parameters()
    processor = SAVEnVideoProcessor.from_components(
        tokenizer,
        config=config,
        feature_extractor=SAVEnVideoBeatsFeatureExtractor(
            patches_per_window=PATCHES_PER_WINDOW, fbank_dtype="bfloat16"
        ),
        chat_template=template,
        num_frames=num_frames,
        preprocessing=preprocessing,
        do_center_crop=vision_config.model_type == "clip_vision_model" or None,
    )
    with whole_folder(output_dir) as folder:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        processor.save_pretrained(folder)
        report.write(folder, source, published["model_type"])
    return report


class _Parts:
    """The published tensors by their prefixes, and what they became."""

    def __init__(self, tensors: dict[str, torch.Tensor], report: ConversionReport):
        self._tensors, self.report = tensors, report
        self.converted: dict[str, torch.Tensor] = {}

    def take(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors below a prefix, by their names behind it; they are dealt with."""
        names = [name for name in self._tensors if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._tensors.pop(name) for name in names}

    def put(self, name: str, ours: str, tensor: torch.Tensor) -> None:
        self.converted[ours] = tensor
        self.report.used[name] = ours

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._tensors))


def _read_all(source: Path, audio: str | os.PathLike | None, report: ConversionReport) -> dict[str, torch.Tensor]:
    """The checkpoint's tensors, and those of the audio branch that lie beside it."""
    tensors = read_folder(source)
    if any(name.startswith("base_model.") or ".lora_" in name for name in tensors):
        raise CheckpointError(f"{source} holds LoRA adapters: merge them into their base model first.")
    for file, prefix in BESIDE.items():
        path = source / file
        if not path.is_file():
            continue
        if any(name.startswith(prefix) for name in tensors):
            report.left_out[file] = "the checkpoint itself has these weights"
            continue
        # Training keeps whatever holds "audio_tower" in its name, with or without the model's prefix.
        found = {name[name.index(prefix) :]: value for name, value in read_state_dict(path).items() if prefix in name}
        if not found:
            raise CheckpointError(f"{path} holds nothing below {prefix}: it is no such file of VideoLLaMA 2.")
        tensors.update(found)
    if audio is not None and Path(audio).suffix == ".bin":
        if any(name.startswith(AUDIO_PREFIX) for name in tensors):
            report.left_out[Path(audio).name] = "the checkpoint itself has these weights"
        else:
            beside = read_state_dict(audio)
            tensors.update({name: value for name, value in beside.items() if name.startswith(AUDIO_PREFIX)})
    return tensors


def _text_config(kind: str, published: dict[str, Any], report: ConversionReport) -> PreTrainedConfig:
    """The language model's config; what is not of it is noted, unless it is read elsewhere."""
    cls = CONFIG_MAPPING[kind]
    known = {name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})}
    known |= {"rope_theta", "rope_scaling", "torch_dtype"}
    fields = {name: value for name, value in published.items() if name in known and not name.startswith("_")}
    for name in ("model_type", "architectures", "transformers_version"):
        fields.pop(name, None)
    read = {"model_type", "num_frames", *(name for name in published if name.startswith("mm_"))}
    for name in published.keys() - fields.keys() - read:
        report.left_out[f"config.{name}"] = "no field of the model"
    with _building(kind):
        return cls.from_dict(fields)


@contextmanager
def _building(what: str) -> Iterator[None]:
    """Tells of a config that nothing can be built of. Strict configs wrap what their fields refuse, and what they take
    may still fit no model, in whatever way that shows."""
    try:
        yield
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"The checkpoint's config.json describes no {what} we can build ({said}).") from error


def _whole_number(published: dict[str, Any], name: str, default: int) -> int:
    value = published.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise CheckpointError(f"The checkpoint's config.json has {name}={value!r}: a whole number was expected.")
    return value


def _vision_layer(published: dict[str, Any], vision: PreTrainedConfig) -> int:
    layer, layers = _whole_number(published, "mm_vision_select_layer", -2), vision.num_hidden_layers
    if not -layers - 1 <= layer <= layers:
        raise CheckpointError(
            f"The checkpoint's config.json has mm_vision_select_layer={layer}, but its vision tower has {layers} "
            "layers, and what enters the first."
        )
    return layer


def _vision_config(name: str | None, vision: str | os.PathLike | None) -> PreTrainedConfig:
    """The config of the vision tower: of `vision`, or of the one that the checkpoint names."""
    wanted = vision if vision is not None else name
    if wanted is None:
        raise CheckpointError("The checkpoint's config.json names no mm_vision_tower: pass it as `vision`.")
    known = re.sub(r".*/(?=[^/]+/[^/]+$)", "", str(wanted)) if not os.path.isdir(wanted) else str(wanted)
    if known in KNOWN_TOWERS:
        kind, settings = KNOWN_TOWERS[known]
        config = CONFIG_MAPPING[kind](**settings)
    else:
        try:
            config = AutoConfig.from_pretrained(wanted)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"The vision tower {str(wanted)!r} is neither known here nor to be read: pass its folder or Hub id as "
                "`vision`."
            ) from error
        config = getattr(config, "vision_config", config)
    if config.model_type not in VISION_TOWERS:
        raise CheckpointError(
            f"The vision tower is of type {config.model_type!r}; VideoLLaMA 2 has SigLIP or CLIP: pass its folder or "
            "Hub id as `vision`."
        )
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False
    return config


def _convert_vision(parts: _Parts, published: dict[str, Any], vision: str | os.PathLike | None) -> PreTrainedConfig:
    if published.get("mm_vision_select_feature", "patch") != "patch":
        raise CheckpointError(
            f"mm_vision_select_feature is {published['mm_vision_select_feature']!r}; only 'patch' is converted."
        )
    config = _vision_config(published.get("mm_vision_tower"), vision)
    with torch.device("meta"):
        names = VISION_TOWERS[config.model_type](config).state_dict().keys()
    tensors = parts.take(VISION_PREFIX)
    if not tensors:
        wanted = vision if vision is not None else published["mm_vision_tower"]
        try:
            tower = load_vision_tower(str(wanted), torch.float32)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint holds no vision tower, and {str(wanted)!r} cannot be read: pass its folder as "
                "`vision`."
            ) from error
        for name, tensor in tower.state_dict().items():
            parts.put(f"{wanted}:{name}", f"model.vision_tower.{name}", tensor)
        return config
    for name, tensor in tensors.items():
        # Releases of transformers differ in whether the tower's own prefix is part of its names.
        ours = next((one for one in (name, name.removeprefix("vision_model.")) if one in names), None)
        if ours is not None:
            parts.put(VISION_PREFIX + name, f"model.vision_tower.{ours}", tensor)
        elif name.startswith("vision_model.head."):
            parts.report.left_out[VISION_PREFIX + name] = "pooling head of SigLIP, which nothing reads"
        elif name.endswith("position_ids"):
            parts.report.left_out[VISION_PREFIX + name] = "counts from 0; not stored any more"
        else:
            raise CheckpointError(f"{VISION_PREFIX}{name} is no tensor of a {config.model_type}.")
    return config


def _convert_audio(
    parts: _Parts, published: dict[str, Any], audio: str | os.PathLike | None
) -> SAVEnVideoBeatsConfig | None:
    """The audio tower's config; None for a model without one."""
    state, prefix, cfg = parts.take(AUDIO_PREFIX), AUDIO_PREFIX, None
    if not state and audio is not None:
        content = load_beats_checkpoint(audio)
        state, prefix, cfg = content["model"], f"{Path(audio).name}:", content["cfg"]
    if not state:
        if published.get("mm_audio_tower") and any(name.startswith("model.mm_projector_a.") for name in parts):
            raise CheckpointError(
                "The checkpoint has an audio projector but no audio tower: pass its file as `audio` (audio_tower.bin, "
                "or Microsoft's BEATs .pt)."
            )
        if published.get("mm_audio_tower"):
            raise CheckpointError(
                "The checkpoint's config.json names an audio tower, but no weights of the audio branch are in the "
                "folder: audio_tower.bin and mm_projector_a.bin belong beside it."
            )
        parts.report.notes.append("No audio branch: the model hears nothing.")
        return None
    config, left_out = beats_config(cfg if cfg is not None else BEATS_CFG | _beats_sizes(state))
    parts.report.left_out.update(left_out)
    converted = ConversionReport("")
    tensors = convert_beats_state_dict(state, converted, norm_eps=BEATS_NORM_EPS)
    parts.converted.update({f"model.audio_tower.{name}": tensor for name, tensor in tensors.items()})
    parts.report.used.update({f"{prefix}{name}": f"model.audio_tower.{ours}" for name, ours in converted.used.items()})
    parts.report.left_out.update({f"{prefix}{name}": reason for name, reason in converted.left_out.items()})
    return config


def _beats_sizes(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Sizes of a published BEATs from its tensors: its config is code there and not part of a checkpoint."""
    layers = [int(match[1]) for name in state if (match := re.match(r"encoder\.layers\.(\d+)\.", name))]
    try:
        ffn, width = state["encoder.layers.0.fc1.weight"].shape
        embed, _, patch, _ = state["patch_embedding.weight"].shape
        kernel = next(state[direction] for _, direction in WEIGHT_NORM_KEYS if direction in state)
        table = state.get("encoder.layers.0.self_attn.relative_attention_bias.weight")
        heads = state["encoder.layers.0.self_attn.grep_a"].shape[1] if table is None else table.shape[1]
    except (KeyError, StopIteration, ValueError):
        raise CheckpointError(f"The audio tower is no BEATs, or not all of it: it has {some(state)}.") from None
    return {
        "input_patch_size": patch,
        "embed_dim": embed,
        "conv_bias": "patch_embedding.bias" in state,
        "encoder_layers": max(layers, default=0) + 1,
        "encoder_embed_dim": width,
        "encoder_ffn_embed_dim": ffn,
        "encoder_attention_heads": heads,
        "conv_pos": kernel.shape[2],
        "conv_pos_groups": width // kernel.shape[1],
        "relative_position_embedding": table is not None,
        "num_buckets": 320 if table is None else table.shape[0],
        "gru_rel_pos": "encoder.layers.0.self_attn.grep_a" in state,
    }


def _convert_rest(parts: _Parts) -> None:
    """Connectors and language model."""
    for name, tensor in parts.take("model.mm_projector_a.").items():
        layer, _, parameter = name.partition(".")
        if layer not in AUDIO_MLP:
            raise CheckpointError(f"model.mm_projector_a.{name} is no tensor of 'mlp2x_gelu'.")
        parts.put(f"model.mm_projector_a.{name}", f"model.resampler.audio_mlp.{AUDIO_MLP[layer]}.{parameter}", tensor)
    for name, tensor in parts.take("model.mm_projector.").items():
        parts.put(f"model.mm_projector.{name}", f"model.resampler.{name}", tensor)
    for name, tensor in parts.take("model.").items():
        if name.endswith("rotary_emb.inv_freq"):
            parts.report.left_out[f"model.{name}"] = "computed anew"
        else:
            parts.put(f"model.{name}", f"model.language_model.{name}", tensor)
    for name, tensor in parts.take("lm_head.").items():
        parts.put(f"lm_head.{name}", f"lm_head.{name}", tensor)
    unknown = list(parts)
    if unknown:
        raise CheckpointError(f"The checkpoint has {len(unknown)} tensors of no known part: {some(unknown)}.")


def _connector_settings(published: dict[str, Any], vision_width: int, text_width: int) -> dict[str, Any]:
    projector = published.get("mm_projector_type", "linear")
    if projector not in PROJECTORS:
        raise CheckpointError(f"mm_projector_type is {projector!r}; converted are {', '.join(PROJECTORS)}.")
    settings = PROJECTORS[projector]
    if settings.get("stc_depth") == 0 and vision_width != text_width:
        # Without stages nothing leads from one width to the other: the published class cannot run so either.
        raise CheckpointError(
            f"mm_projector_type is {projector!r}, which needs a vision tower as wide as the language model; they are "
            f"{vision_width} and {text_width}."
        )
    audio_projector = published.get("mm_projector_a_type", "mlp2x_gelu")
    if audio_projector != "mlp2x_gelu":
        raise CheckpointError(f"mm_projector_a_type is {audio_projector!r}; converted is 'mlp2x_gelu'.")
    return settings


def _normalisation(vision: PreTrainedConfig) -> dict[str, Any]:
    return {"image_mean": CLIP_MEAN, "image_std": CLIP_STD} if vision.model_type == "clip_vision_model" else {}


def _load_tokenizer(source: Path, text: PreTrainedConfig):
    try:
        return AutoTokenizer.from_pretrained(source, config=text)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{source} holds no tokenizer that can be read: its files belong beside the weights."
        ) from error


def _chat_template(tokenizer, kind: str, report: ConversionReport) -> str:
    """A template that renders what the published one renders, for messages with media blocks."""
    own = QWEN2_TEMPLATE.read_text(encoding="utf-8")
    system = (
        "[]"
        if kind == "qwen2"
        else "[] if messages[0].role == 'system' else ["
        + ("{'role': 'system', 'content': " + json.dumps(SYSTEM_MESSAGE) + "}]")
    )
    template = tokenizer.chat_template
    if template is None:
        report.notes.append(f"The tokenizer brings no chat template: the one of {kind} is taken.")
        if kind == "qwen2":
            return own
        template = MISTRAL_TEMPLATE
    flattened = FLATTEN.replace("SYSTEM", system) + template
    if kind == "qwen2":
        turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
        for probe in (turns, [("system", "s"), *turns]):
            messages = [{"role": role, "content": text} for role, text in probe]
            rendered = [
                render_jinja_template(
                    [messages], chat_template=one, add_generation_prompt=True, **tokenizer.special_tokens_map
                )[0]
                for one in (own, flattened)
            ]
            if rendered[0] != rendered[1]:
                break
        else:
            return own  # the same, and it marks what is learnt in training
    if "{% generation %}" not in flattened:
        report.notes.append(
            "The chat template is the published one, which marks no answers: training needs one that does."
        )
    return flattened


def _add_placeholders(parts: _Parts, text: PreTrainedConfig, tokenizer) -> None:
    """Give the tokenizer the placeholders that it lacks, and the embeddings rows for them where there are none."""
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(PLACEHOLDER_TOKENS.values())}, replace_extra_special_tokens=False
    )
    rows = len(tokenizer)
    if rows <= text.vocab_size:
        return
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        weight = parts.converted.get(name)
        if weight is not None:
            mean = weight.float().mean(0, keepdim=True).to(weight.dtype)
            parts.converted[name] = torch.cat([weight, mean.expand(rows - len(weight), -1)])
    parts.report.notes.append(
        f"{rows - text.vocab_size} rows for the placeholders were added to the vocabulary of {text.vocab_size}; media "
        "take their place, and they are never generated."
    )
    text.vocab_size = rows


def _generation_config(source: Path, tokenizer, ids: dict[str, int]) -> GenerationConfig:
    """Greedy, as `mm_infer` generates, and never a placeholder, which would ask for a medium that is not there."""
    published = {}
    if (source / "generation_config.json").is_file():
        published = read_json(source / "generation_config.json")
    stops = published.get("eos_token_id", tokenizer.eos_token_id)
    stops = set(stops if isinstance(stops, list) else [stops]) | {tokenizer.eos_token_id}
    return GenerationConfig(
        eos_token_id=sorted(stop for stop in stops if stop is not None),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        bos_token_id=published.get("bos_token_id", tokenizer.bos_token_id),
        suppress_tokens=sorted(ids.values()),
        do_sample=False,
        max_new_tokens=2048,
    )
