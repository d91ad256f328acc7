"""video-SALMONN's released connector converted to the connector "causal_qformer" of a model made of your parts.

A checkpoint (`pytorch_model_*.pt`) holds what was trained: the causal Q-Former with its projections, and LoRA on
Vicuna. Names, shapes and formulas are those of github.com/bytedance/SALMONN, branch videosalmonn (c305d54), with the
released config/test.yaml. The file is read as data only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from ..hub import model_type
from ..savenvideo import (
    SAVEnVideoBeatsFeatureExtractor,
    SAVEnVideoConfig,
    SAVEnVideoForConditionalGeneration,
    SAVEnVideoProcessor,
)
from .checkpoint import (
    CheckpointError,
    ConversionReport,
    check_fit,
    fresh_folder,
    read_state_dict,
    some,
    whole_folder,
)


STEP_SECONDS = 0.5
ROWS = 32  # of a step: what InstructBLIP's Q-Former makes of a frame
PATCHES_PER_WINDOW = 187  # of BEATs: 30 s

MODULES = {
    "speech_pre_qformer_proj": "speech_mlp",
    "beats_pre_qformer_proj": "audio_mlp",
    "ln_video": "row_norm",
    "llama_proj": "output_projection",
    "video_Qformer.bert.embeddings.LayerNorm": "query_norm",
}
BLOCKS = {"encoder_causal_attention": "causal_attn", "attention": "self_attn", "crossattention": "cross_attn"}
BLOCK_MODULES = {
    "self.query": "q_proj",
    "self.key": "k_proj",
    "self.value": "v_proj",
    "output.dense": "o_proj",
    "output.LayerNorm": "norm",
}
LAYER_MODULES = {"intermediate_query.dense": "up", "output_query.dense": "down", "output_query.LayerNorm": "norm"}
QUERIES = {"video_query_tokens": "queries", "low_query_tokens": "low_queries"}
POSITIONS = "video_frame_position_embedding.weight"

# What the released code does; its description says otherwise of the direction, see docs/peers.md.
PUBLISHED_SETTINGS = {
    "resampler_type": "causal_qformer",
    "qformer_step_seconds": STEP_SECONDS,
    "qformer_rows": ROWS,
    "qformer_direction": "future",
    "qformer_causal_queries": False,
    "qformer_alignment": "published",
    "time_fusion": "none",
    "question_times": "none",
    "query_anchors": False,
    "window_frames": None,
}

# Ours alone: a projection of the picture, which the published connector takes as it is.
VISUAL = {"visual_mlp.weight", "visual_mlp.bias"}

# Other names of the same modules, which a whole state dict repeats.
ALIASES = (
    (("joint_Qformer.", "speech_Qformer."), "video_Qformer."),
    (("joint_query_tokens", "speech_query_tokens"), "video_query_tokens"),
    (("llama_proj_joint.", "llama_proj_speech."), "llama_proj."),
    (("ln_joint.", "ln_speech."), "ln_video."),
    (("joint_frame_position_embedding.",), "video_frame_position_embedding."),
)
LEFT_OUT = {
    "low_Qformer.": "made and never run: both resolutions have the weights of video_Qformer (ext_same_qformer)",
    "visual_encoder.": "frozen: comes with the vision component",
    "ln_vision.": "frozen: comes with the vision component",
    "Qformer.": "frozen: comes with the vision component",
    "query_tokens": "frozen: comes with the vision component",
    "speech_encoder.": "frozen: comes with the speech component",
    "beats.": "frozen: comes with the audio component",
}
LORA = re.compile(r"llama_model\.base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")

# As `build_one_instance` and `prompt_wrap` put a conversation together, with media where they stand in the message.
CHAT_TEMPLATE = """{{- bos_token -}}
{%- for message in messages -%}
    {%- set content = [{'type': 'text', 'text': message.content}] if message.content is string else message.content -%}
    {%- if message.role == 'user' -%}
        {{- 'USER: ' -}}
        {%- for block in content -%}
            {%- if block.type == 'text' -%}
                {{- block.text -}}
            {%- elif block.type in ('video', 'image', 'audio') -%}
                {{- '<Img><|' ~ block.type ~ '|></Img> ' -}}
            {%- else -%}
                {{- raise_exception("Unknown content block type '" ~ block.type ~ "'.") -}}
            {%- endif -%}
        {%- endfor -%}
        {{- '\\nASSISTANT:' -}}
    {%- elif message.role == 'assistant' -%}
        {%- generation -%}
            {%- for block in content -%}{{- block.text -}}{%- endfor -%}
            {{- eos_token -}}
        {%- endgeneration -%}
    {%- else -%}
        {%- for block in content -%}{{- block.text -}}{%- endfor -%}
        {{- '\\n' -}}
    {%- endif -%}
{%- endfor -%}"""


def convert_video_salmonn(
    source: str | os.PathLike,
    output_dir: str | os.PathLike,
    audio: str | os.PathLike | nn.Module,
    vision: str | os.PathLike | nn.Module = "google/siglip-so400m-patch14-384",
    speech: str | os.PathLike | nn.Module = "openai/whisper-large-v2",
    text: str | os.PathLike = "lmsys/vicuna-13b-v1.5",
    groupsize: int = 10,
    num_attention_heads: int = 12,
    lora_alpha: float = 32,
    dtype: torch.dtype | None = None,
    max_shard_size: str = "5GB",
) -> ConversionReport:
    """Converts a released checkpoint to a folder for `AutoModelForImageTextToText` and `AutoProcessor`.

    The connector takes a picture in its own width as it is. Of a vision component of another width the projection is
    new, and has to be trained; the report says so.

    Args:
        source: the `.pt` file.
        output_dir: folder to write; it must not hold anything yet.
        audio: folder written by `saven convert beats`.
        vision: folder or Hub id of a SigLIP (2) or CLIP checkpoint.
        speech: folder or Hub id of a Whisper checkpoint.
        text: folder or Hub id of the language model, with its tokenizer; the checkpoint's LoRA is merged into it.
        groupsize: steps of a window (config/test.yaml: 10, so 5 s).
        num_attention_heads: of the Q-Former, which no tensor tells (bert-base: 12).
        lora_alpha: scale of LoRA (config/test.yaml: 32).
        dtype: of all weights; that of the checkpoint if None.
        max_shard_size: of one weight file.

    Returns:
        The report of what was used, what was left out and what is new, which is also in the folder, as
        `conversion.json`.

    Raises:
        CheckpointError: a file that is unsafe, damaged, incomplete, or of no video-SALMONN; or parts that do not fit
            it. Nothing is written then.
        ModelNotFoundError: a component that is neither a folder nor can be reached.
        FileExistsError: `output_dir` holds something already.
    """
    fresh_folder(output_dir)
    report = ConversionReport(output_dir=str(output_dir))
    state = read_state_dict(source)
    connector, settings, adapters = convert_state_dict(state, report, groupsize, num_attention_heads)
    dtype = dtype or connector["output_projection.weight"].dtype
    updates = _check(connector, adapters, settings, vision, audio, speech, text, lora_alpha)

    tokenizer = AutoTokenizer.from_pretrained(text)
    model = SAVEnVideoForConditionalGeneration.from_components(
        vision, audio, text, tokenizer=tokenizer, dtype=dtype, speech=speech, **settings
    )
    _load_connector(model, connector, report)
    _merge_lora(model, updates, report)
    # BEATs hears up to 30 s at once there.
    extractor = {"patches_per_window": PATCHES_PER_WINDOW}
    if isinstance(audio, nn.Module):
        extractor = SAVEnVideoBeatsFeatureExtractor(**extractor)
    else:
        extractor = SAVEnVideoBeatsFeatureExtractor.from_pretrained(audio, **extractor)
    processor = SAVEnVideoProcessor.from_components(
        tokenizer,
        config=model.config,
        feature_extractor=extractor,
        chat_template=CHAT_TEMPLATE,
        # Two frames a second: one a step.
        sampling="fps",
        fps=1 / STEP_SECONDS,
    )
    report.num_parameters = model.num_parameters()
    with whole_folder(output_dir) as folder:
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        processor.save_pretrained(folder)
        report.write(folder, source, "video-salmonn")
    return report


def convert_state_dict(
    state: Mapping[str, torch.Tensor], report: ConversionReport, groupsize: int = 10, num_attention_heads: int = 12
) -> tuple[dict[str, torch.Tensor], dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    """Sorts the tensors of a checkpoint, and notes in `report` what went where.

    Returns:
        The connector's tensors under our names; the fields of `SAVEnVideoConfig` that they were trained with; and LoRA
        by the module of the language model that it belongs to, `{"A": (r, in), "B": (out, r)}`.

    Raises:
        CheckpointError: tensors are missing, unknown or of sizes that do not fit together.
    """
    connector: dict[str, torch.Tensor] = {}
    adapters: dict[str, dict[str, torch.Tensor]] = {}
    unknown = []
    for name, tensor in state.items():
        ours, lora = _our_name(name), LORA.fullmatch(name)
        reason = next((why for prefix, why in LEFT_OUT.items() if name.startswith(prefix)), None)
        if ours is not None:
            connector[ours] = tensor.detach()
            report.used[name] = f"model.resampler.{ours}"
        elif lora is not None:
            adapters.setdefault(lora[1], {})[lora[2]] = tensor.detach()
            report.used[name] = f"{lora[1]}.weight (merged)"
        elif reason is not None:
            report.left_out[name] = reason
        elif name.endswith("position_ids"):
            report.left_out[name] = "counts from 0"
        elif name.startswith("llama_model."):
            report.left_out[name] = "frozen: comes with the text component"
        elif (original := _original(name)) in state:
            if not torch.equal(state[original], tensor):
                raise CheckpointError(f"{name} differs from {original}, of which it should be another name.")
            report.left_out[name] = "another name of a tensor that was used"
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"The checkpoint has {len(unknown)} tensors of no known part: {some(unknown)}.")
    settings = _settings(connector, groupsize, num_attention_heads)
    rows = groupsize * ROWS
    positions = connector["row_position"]
    if positions.ndim != 2 or len(positions) < rows:
        raise CheckpointError(
            f"{POSITIONS} has the shape {tuple(positions.shape)}, but a window of {groupsize} steps has {rows} rows."
        )
    if len(positions) > rows:
        connector["row_position"] = positions[:rows].clone()
        report.notes.append(
            f"{POSITIONS}: rows 0 to {rows - 1} are in use; the other {len(positions) - rows} were not."
        )
    for ours in QUERIES.values():
        connector[ours] = connector[ours][0]
    return connector, settings, adapters


def _our_name(name: str) -> str | None:
    """Name of a published tensor in our connector, None if it is not of it."""
    if name == POSITIONS:
        return "row_position"
    if name in QUERIES:
        return QUERIES[name]
    module, _, parameter = name.rpartition(".")
    if module in MODULES:
        return f"{MODULES[module]}.{parameter}"
    match = re.fullmatch(r"video_Qformer\.bert\.encoder\.layer\.(\d+)\.(.+)", module)
    if match is None:
        return None
    layer, inner = f"layers.{match[1]}", match[2]
    if inner in LAYER_MODULES:
        return f"{layer}.{LAYER_MODULES[inner]}.{parameter}"
    block, _, part = inner.partition(".")
    if block in BLOCKS and part in BLOCK_MODULES:
        return f"{layer}.{BLOCKS[block]}.{BLOCK_MODULES[part]}.{parameter}"
    return None


def _original(name: str) -> str | None:
    """The name under which the tensor of an alias is also there."""
    for aliases, original in ALIASES:
        for alias in aliases:
            if name.startswith(alias):
                return original + name.removeprefix(alias)
    return None


def _settings(connector: Mapping[str, torch.Tensor], groupsize: int, heads: int) -> dict[str, Any]:
    """Fields of the configuration, from the shapes of the tensors and what no tensor tells."""
    needed = {
        **{name: 3 for name in QUERIES.values()},
        "row_norm.weight": 1,
        "row_position": 2,
        "layers.0.up.weight": 2,
    }
    needed |= {"speech_mlp.weight": 2, "audio_mlp.weight": 2, "output_projection.weight": 2}
    absent = [name for name, rank in needed.items() if name not in connector or connector[name].ndim != rank]
    if absent:
        raise CheckpointError(
            "This is no checkpoint of video-SALMONN as released (two resolutions, Whisper and BEATs), or not all of "
            f"it: of the connector it lacks {some(absent)}."
        )
    queries, size = connector["queries"].shape[1:]
    low = connector["low_queries"].shape[1]
    layers = max(int(name.split(".")[1]) for name in connector if name.startswith("layers.")) + 1
    if low * groupsize % queries:
        raise CheckpointError(
            f"{low} and {queries} queries are of no two resolutions of a window of {groupsize} steps: give the "
            "`groupsize` of the checkpoint's config."
        )
    if heads < 1 or size % heads:
        raise CheckpointError(
            f"A Q-Former of width {size} has no {heads} heads: give the `num_attention_heads` it was made with."
        )
    return {
        **PUBLISHED_SETTINGS,
        "resampler_hidden_size": size,
        "resampler_heads": heads,
        "resampler_layers": layers,
        "resampler_intermediate_size": connector["layers.0.up.weight"].shape[0],
        "resampler_dropout": 0.1,
        "queries_per_window": queries,
        "window_seconds": groupsize * STEP_SECONDS,
        "qformer_low_steps": low * groupsize // queries,
    }


def _check(
    connector: Mapping[str, torch.Tensor],
    adapters: Mapping[str, Mapping[str, torch.Tensor]],
    settings: Mapping[str, Any],
    vision,
    audio,
    speech,
    text,
    alpha: float,
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """That the tensors fit a model of these components, before 13 billion weights are read for nothing.

    Returns:
        LoRA by the layer of the model's language model that it is added to: `(out, r)` scaled, `(r, in)`.
    """
    vision, audio, speech, text = map(_config_of, (vision, audio, speech, text))
    config = SAVEnVideoConfig(
        vision_config=getattr(vision, "vision_config", vision),
        audio_config=audio,
        speech_config=speech,
        text_config=text,
        **settings,
    )
    with torch.device("meta"):
        skeleton = SAVEnVideoForConditionalGeneration(config).model
    expected = {name: tensor.shape for name, tensor in skeleton.resampler.state_dict().items()}
    check_fit(connector, expected, "the connector between these components", optional=VISUAL)

    layers = {name: module for name, module in skeleton.language_model.named_modules() if hasattr(module, "weight")}
    updates = {}
    for path, pair in adapters.items():
        name = path.removeprefix("model.")
        if name not in layers or pair.keys() != {"A", "B"}:
            raise CheckpointError(
                f"LoRA of {path} is not whole, or the language model has no such layer: is it the one the checkpoint "
                "was trained on (Vicuna 13B v1.5)?"
            )
        (rank, inner), (outer, other_rank) = pair["A"].shape, pair["B"].shape
        if rank != other_rank or layers[name].weight.shape != (outer, inner):
            raise CheckpointError(
                f"LoRA of {path} is of ({outer}, {other_rank}) x ({rank}, {inner}), the language model's layer of "
                f"{tuple(layers[name].weight.shape)}: is it the one the checkpoint was trained on (Vicuna 13B v1.5)?"
            )
        updates[name] = pair["B"].float() * (alpha / rank), pair["A"].float()
    return updates


def _config_of(part: str | os.PathLike | nn.Module) -> PreTrainedConfig:
    if isinstance(part, nn.Module):
        return part.config
    model_type(part)  # says so, in one line, if there is no such model
    return AutoConfig.from_pretrained(part)


def _load_connector(
    model: SAVEnVideoForConditionalGeneration, connector: dict[str, torch.Tensor], report: ConversionReport
) -> None:
    """Put the tensors into the model's connector; what has none there is told of in the report."""
    resampler = model.model.resampler
    size, width = resampler.visual_mlp.weight.shape
    if size == width:
        connector |= {"visual_mlp.weight": torch.eye(size), "visual_mlp.bias": torch.zeros(size)}
        report.notes.append("visual_mlp: the identity, for the picture is taken as it is.")
    else:
        report.notes.append(
            f"visual_mlp is new and untrained: the vision component is {width} wide, and what the connector was "
            f"trained on, InstructBLIP's Q-Former, {size}. Train it (stage align-visual) before asking about pictures."
        )
    dtype = resampler.dtype
    resampler.load_state_dict({name: tensor.to(dtype) for name, tensor in connector.items()}, strict=False)


def _merge_lora(
    model: SAVEnVideoForConditionalGeneration,
    updates: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    report: ConversionReport,
) -> None:
    """Add LoRA to the weights that it belongs to."""
    for name, (high, low) in updates.items():
        weight = model.model.language_model.get_submodule(name).weight
        with torch.no_grad():
            weight.copy_((weight.float() + high @ low).to(weight.dtype))
    if not updates:
        report.notes.append("The checkpoint holds no LoRA: the language model is taken as it is.")
