"""Microsoft's BEATs checkpoints (`.pt`) converted to [`SAVEnVideoBeatsModel`].

The file is read as data only: tensors and plain containers. Nothing in it can run code.
"""

import os
from pathlib import Path
from typing import Any

import torch

from ..savenvideo.configuration_beats import SAVEnVideoBeatsConfig
from ..savenvideo.feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor
from ..savenvideo.modeling_beats import SAVEnVideoBeatsModel
from .checkpoint import (
    CheckpointError,
    ConversionReport,
    check_fit,
    fresh_folder,
    load_tensors_only,
    some,
    whole_folder,
)


# Published cfg name -> ours, with the default of the published BEATsConfig, which applies where a cfg leaves it out.
CONFIG_FIELDS: dict[str, tuple[str, Any]] = {
    "input_patch_size": ("patch_size", None),
    "embed_dim": ("patch_embed_dim", 512),
    "conv_bias": ("conv_bias", False),
    "encoder_layers": ("num_hidden_layers", 12),
    "encoder_embed_dim": ("hidden_size", 768),
    "encoder_ffn_embed_dim": ("intermediate_size", 3072),
    "encoder_attention_heads": ("num_attention_heads", 12),
    "activation_fn": ("hidden_act", "gelu"),
    "layer_norm_first": ("layer_norm_first", False),
    "deep_norm": ("deep_norm", False),
    "dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
    "encoder_layerdrop": ("layerdrop", 0.0),
    "dropout_input": ("input_dropout", 0.0),
    "conv_pos": ("num_conv_pos_embeddings", 128),
    "conv_pos_groups": ("num_conv_pos_embedding_groups", 16),
    "relative_position_embedding": ("relative_position_embedding", False),
    "num_buckets": ("num_buckets", 320),
    "max_distance": ("max_bucket_distance", 1280),
    "gru_rel_pos": ("gated_relative_position", False),
}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
}
# Settings that do not describe the encoder: the AudioSet head, and the scaling of gradients in pre-training.
LEFT_OUT_CONFIG = ("finetuned_model", "predictor_dropout", "predictor_class", "layer_wise_gradient_decay_ratio")
LEFT_OUT_KEYS = {"predictor.weight", "predictor.bias"}

MODULE_KEYS = {
    "patch_embedding": "embeddings.patch_embedding",
    "layer_norm": "embeddings.layer_norm",
    "post_extract_proj": "embeddings.projection",
    "encoder.layer_norm": "encoder.layer_norm",
}
LAYER_MODULE_KEYS = {
    "self_attn.q_proj": "self_attn.q_proj",
    "self_attn.k_proj": "self_attn.k_proj",
    "self_attn.v_proj": "self_attn.v_proj",
    "self_attn.out_proj": "self_attn.out_proj",
    "self_attn.grep_linear": "self_attn.gate_proj",
    "self_attn_layer_norm": "self_attn_layer_norm",
    "fc1": "feed_forward.fc1",
    "fc2": "feed_forward.fc2",
    "final_layer_norm": "final_layer_norm",
}
POS_CONV = "encoder.pos_conv.0"
MAX_NESTING = 8  # a checkpoint has 3 levels; a container that holds itself has no end
# Weight norm as torch named it until 2.0, and as its parametrization names it since.
WEIGHT_NORM_KEYS = (
    (f"{POS_CONV}.weight_g", f"{POS_CONV}.weight_v"),
    (f"{POS_CONV}.parametrizations.weight.original0", f"{POS_CONV}.parametrizations.weight.original1"),
)


def _check_plain(value: Any, where: str, depth: int = 0) -> None:
    """Refuses whatever is not a tensor, a number, a string or a container of these."""
    if depth > MAX_NESTING:
        raise CheckpointError(f"{where} is nested more than {MAX_NESTING} levels deep: it is no BEATs checkpoint.")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int)):
                raise CheckpointError(f"{where} has a key of type {type(key).__name__}: BEATs files have names only.")
            _check_plain(item, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]", depth + 1)
    elif not isinstance(value, (torch.Tensor, str, int, float, bool, type(None))):
        raise CheckpointError(f"{where} holds a {type(value).__name__}, but only tensors and plain values are read.")


def load_beats_checkpoint(checkpoint: str | os.PathLike) -> dict[str, Any]:
    """Reads a published file without running anything in it.

    Args:
        checkpoint: path of the `.pt` file.

    Returns:
        Its content: `cfg`, `model` (state dict, on the CPU), in fine-tuned files `label_dict`.

    Raises:
        CheckpointError: the file does not exist, holds anything but tensors and plain containers, or is no BEATs file.
    """
    path = Path(checkpoint)
    content = load_tensors_only(path)
    _check_plain(content, path.name)
    for name in ("cfg", "model"):
        if not isinstance(content, dict) or not isinstance(content.get(name), dict):
            found = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
            raise CheckpointError(f"{path} has no `{name}` dictionary (found: {found}): it is no BEATs checkpoint.")
    if any(not isinstance(key, str) for key in content["cfg"]):
        raise CheckpointError(f"The `cfg` of {path} has keys that are not names.")
    for key, value in content["model"].items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"The entry {key!r} of `model` in {path} is no tensor: it is no BEATs checkpoint.")
    return content


def beats_config(cfg: dict[str, Any]) -> tuple[SAVEnVideoBeatsConfig, dict[str, str]]:
    """Our config of a published `cfg`, and the fields left out with the reason."""
    values, left_out = {}, {}
    for name, (ours, default) in CONFIG_FIELDS.items():
        values[ours] = cfg.get(name, default)
    if values["patch_size"] is None:
        raise CheckpointError("The checkpoint's cfg has no `input_patch_size`: it is no BEATs encoder.")
    activation = values["hidden_act"]
    if activation not in ACTIVATIONS:
        raise CheckpointError(
            f"The checkpoint's cfg has activation_fn={activation!r}; supported are {', '.join(ACTIVATIONS)}."
        )
    values["hidden_act"] = ACTIVATIONS[activation]
    for name in cfg:
        if name in LEFT_OUT_CONFIG:
            left_out[f"cfg.{name}"] = "no part of the encoder's forward"
        elif name not in CONFIG_FIELDS:
            left_out[f"cfg.{name}"] = "not a field of the published BEATsConfig"
    try:
        return SAVEnVideoBeatsConfig(**values), left_out
    except Exception as error:  # strict configs wrap what their fields and checks refuse
        raise CheckpointError(f"The checkpoint's cfg describes no encoder we can build: {error}") from error


def _fold_weight_norm(magnitude: torch.Tensor, direction: torch.Tensor, eps: float = 0.0) -> torch.Tensor:
    """Weight of the position convolution: one magnitude per kernel position (weight norm with `dim=2`)."""
    if direction.ndim != 3 or magnitude.shape != (1, 1, direction.shape[2]):
        raise CheckpointError(
            f"The position convolution's weight_g has the shape {tuple(magnitude.shape)} for a weight_v of "
            f"{tuple(direction.shape)}; expected (1, 1, kernel size)."
        )
    exact = direction.double()
    norm = (exact.square().sum((0, 1), keepdim=True) + eps).sqrt()
    return (magnitude.double() * exact / norm).to(direction.dtype)


def _our_key(key: str) -> str | None:
    """Name of a published key in our model, None if there is none."""
    if key == f"{POS_CONV}.bias":
        return "encoder.pos_conv.conv.bias"
    module, _, parameter = key.rpartition(".")
    if module in MODULE_KEYS:
        return f"{MODULE_KEYS[module]}.{parameter}"
    prefix, _, rest = key.partition("encoder.layers.")
    number, _, name = rest.partition(".")
    if prefix or not number.isdecimal():
        return None
    layer = f"encoder.layers.{int(number)}"
    if name == "self_attn.grep_a":
        return f"{layer}.self_attn.gate_scale"
    if name == "self_attn.relative_attention_bias.weight":
        return "encoder.relative_attention_bias.embedding.weight"
    module, _, parameter = name.rpartition(".")
    return f"{layer}.{LAYER_MODULE_KEYS[module]}.{parameter}" if module in LAYER_MODULE_KEYS else None


def convert_beats_state_dict(
    state_dict: dict[str, torch.Tensor], report: ConversionReport, norm_eps: float = 0.0
) -> dict[str, torch.Tensor]:
    """Renames a published state dict to our keys, folds the weight norm, and notes in `report` what went where.

    Args:
        norm_eps: added to the square of the norm in the weight norm; 0 in BEATs itself.
    """
    remaining = dict(state_dict)
    converted: dict[str, torch.Tensor] = {}
    for magnitude_key, direction_key in WEIGHT_NORM_KEYS:
        if magnitude_key in remaining and direction_key in remaining:
            target = "encoder.pos_conv.conv.weight"
            converted[target] = _fold_weight_norm(remaining.pop(magnitude_key), remaining.pop(direction_key), norm_eps)
            report.used[magnitude_key] = report.used[direction_key] = target

    unexpected = []
    for key, tensor in remaining.items():
        target = _our_key(key)
        if key in LEFT_OUT_KEYS:
            report.left_out[key] = "AudioSet classification head"
        elif target is None:
            unexpected.append(key)
        elif target not in converted:
            # A copy of its own: safetensors does not store tensors that are views of one another.
            converted[target] = tensor.detach().clone(memory_format=torch.contiguous_format)
            report.used[key] = target
        elif torch.equal(converted[target], tensor):
            report.left_out[key] = f"the same table as {target}, which all layers share"
        else:
            raise CheckpointError(f"{key} differs from the table of the first layer, which all layers should share.")
    if unexpected:
        raise CheckpointError(f"The checkpoint has {len(unexpected)} keys that BEATs has not: {some(unexpected)}.")
    return converted


def convert_beats(checkpoint: str | os.PathLike, output_dir: str | os.PathLike) -> ConversionReport:
    """Converts a published BEATs `.pt` file to a folder for `AutoModel` and `AutoFeatureExtractor`.

    Args:
        checkpoint: Microsoft's file, pre-trained or fine-tuned; the classification head of the latter is left out.
        output_dir: folder to write `config.json`, `model.safetensors` and `preprocessor_config.json` to; it must not
            hold anything yet.

    Returns:
        The report of what was used and what was left out.

    Raises:
        CheckpointError: the file is unsafe, damaged, or does not describe one complete BEATs encoder. Nothing is
            written then.
        FileExistsError: `output_dir` holds something.
    """
    fresh_folder(output_dir)
    content = load_beats_checkpoint(checkpoint)
    config, left_out = beats_config(content["cfg"])
    report = ConversionReport(output_dir=str(output_dir), left_out=left_out)
    for name in content.keys() - {"cfg", "model"}:
        report.left_out[str(name)] = (
            "labels of the AudioSet head" if name == "label_dict" else "no part of the encoder"
        )
    converted = convert_beats_state_dict(content["model"], report)

    with torch.device("meta"):
        model = SAVEnVideoBeatsModel(config)
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    check_fit(converted, expected, "the checkpoint's cfg")

    model.load_state_dict(converted, assign=True)
    report.num_parameters = sum(parameter.numel() for parameter in model.parameters())
    config.dtype = converted["encoder.layer_norm.weight"].dtype
    extractor = SAVEnVideoBeatsFeatureExtractor(feature_size=config.num_mel_bins, patch_size=config.patch_size)
    with whole_folder(output_dir) as folder:
        model.save_pretrained(folder)
        extractor.save_pretrained(folder)
    return report
