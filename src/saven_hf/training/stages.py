"""What trains in each stage (paper 4.2), and what becomes of it: adapters, merged models, small checkpoints.

| stage | trains |
|---|---|
| align-visual | visual MLP, TLP, resampler without its MLPs of sound |
| align-audio | + MLPs of sound (audio, speech) |
| temporal, saven | LoRA on the language model; with `train_connector` also everything that align-audio trains |
| joint | language model, head, connector and audio tower: the last stage of VideoLLaMA 2 |

The vision tower never trains; in the stages of the paper, neither do audio tower, head and the language model's own
weights.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ..hub import ModelNotFoundError, load
from ..savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration, SAVEnVideoModel
from ..savenvideo.processing_savenvideo import SAVEnVideoProcessor


if TYPE_CHECKING:
    from peft import PeftModel

    from .recipe import Lora


STAGES = ("align-visual", "align-audio", "temporal", "saven", "joint")
# Full paths: SigLIP and BEATs have projections of the same names.
LORA_TARGETS = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
CONNECTOR = ("resampler", "temporal_projection")
# What a batch may leave without a gradient, see `reach_connector`.
_MAY_BE_UNUSED = (*CONNECTOR, "audio_tower")
# Below these, peft's copies of the connector are named `<module>.modules_to_save.default`.
_CONNECTOR_PATHS = tuple(f"model.{name}." for name in CONNECTOR)


def is_connector(name: str) -> bool:
    """Whether a parameter of this name, with or without peft's prefix, is of TLP or resampler."""
    return name.removeprefix("base_model.model.").startswith(_CONNECTOR_PATHS)


def apply_stage(
    model: SAVEnVideoForConditionalGeneration, stage: str, lora: Lora | None = None, train_connector: bool = True
) -> SAVEnVideoForConditionalGeneration | PeftModel:
    """Freeze what does not train in a stage; what does is put into float32.

    Args:
        model: as it was loaded.
        stage: one of `STAGES`.
        lora: the adapters of the LoRA stages.
        train_connector: in LoRA stages, train TLP and resampler as well.

    Returns:
        The model itself, or in LoRA stages the `PeftModel` around it. peft saves the trained connector with the
        adapters and merges both (`modules_to_save`).
    """
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}, but must be one of {STAGES}.")
    model.requires_grad_(False)
    if stage in ("temporal", "saven"):
        from peft import LoraConfig, get_peft_model

        if lora is None:
            raise ValueError(f"The stage {stage!r} trains adapters: pass `lora`.")
        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            modules_to_save=_present(model, CONNECTOR) if train_connector else None,
        )
        model = get_peft_model(model, config)
    else:
        inner = model.model
        trained = [inner.resampler, inner.temporal_projection]
        if stage == "joint":
            trained += [inner.language_model, model.lm_head, inner.audio_tower]
            model.config.freeze_audio = False
        for module in trained:
            if module is not None:
                module.requires_grad_(True)
        if stage == "align-visual":
            for name in ("audio_mlp", "speech_mlp"):
                getattr(inner.resampler, name, nn.Module()).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # An update of 1e-3 of a weight is lost in bfloat16.
            parameter.data = parameter.data.float()
    return model


def _present(model: SAVEnVideoForConditionalGeneration, names: tuple[str, ...]) -> list[str]:
    """Those of the names that the model has a module for (VideoLLaMA 2 has no TLP)."""
    return [name for name in names if getattr(model.model, name) is not None]


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What learns, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def reach_connector(model: SAVEnVideoModel, inputs_embeds: torch.Tensor) -> torch.Tensor:
    """Embeddings that depend on everything that trains in connector and audio tower, if only multiplied by 0.

    A batch without sound leaves the audio MLP without a gradient, a batch without media the whole connector, and then
    nothing flows back through the language model either. But processes gather weights and exchange gradients all
    together or not at all: with other numbers of them the run ends or hangs.

    Args:
        model: in whose forward this is called, from a hook: only there are sharded weights whole, and under ZeRO-3
            only after `keep_media_whole`.
        inputs_embeds: of the language model.
    """
    unused = sum(
        parameter.sum()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name.startswith(_MAY_BE_UNUSED)
    )
    return inputs_embeds + 0.0 * unused


def load_for_training(
    model: str | os.PathLike,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = "cpu",
    **kwargs,
) -> tuple[SAVEnVideoForConditionalGeneration, SAVEnVideoProcessor]:
    """A model and its processor; a folder of adapters is loaded on the model it was trained on, and merged into it.

    The model is whole in every process, under DeepSpeed too: the trainer divides it.

    Args:
        kwargs: for `saven_hf.load`.

    Raises:
        ModelNotFoundError: there is no such model.
    """
    # Or transformers would divide weights while it loads them, also where one process alone loads some to merge them.
    unset_hf_deepspeed_config()
    if not is_adapter(model):
        return load(model, device, dtype, **kwargs)
    from peft import PeftModel

    base = json.loads(Path(model, "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ModelNotFoundError(f"{os.fspath(model)!r} holds adapters, but does not say of which model.")
    loaded, processor = load(base, device, dtype, **kwargs)
    return merge(PeftModel.from_pretrained(loaded, model)).to(dtype), processor


def is_adapter(model: str | os.PathLike) -> bool:
    """Whether it is a folder of peft adapters."""
    return Path(model, "adapter_config.json").is_file()


def merge(model: PeftModel) -> SAVEnVideoForConditionalGeneration:
    """The plain model with the adapters added to its weights and the trained connector in place of the old one."""
    merged = model.merge_and_unload()
    merged.freeze_towers()
    return merged.eval()
