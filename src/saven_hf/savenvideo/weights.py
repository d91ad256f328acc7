"""Where the weights of a module are, and a fingerprint of what they are; offloaded and adapted ones included."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import torch
from torch import nn


def execution_device(module: nn.Module) -> torch.device:
    """Where a module computes: accelerate's word for it if its weights are offloaded, else where they are."""
    for hook in _accelerate_hooks(module):
        if getattr(hook, "execution_device", None) is not None:
            return torch.device(hook.execution_device)
    return next(module.parameters()).device


def is_sharded(module: nn.Module) -> bool:
    """Whether a process holds no more than its part of the weights (FSDP2, tensor parallelism, DeepSpeed ZeRO-3)."""
    # By what marks a DTensor and a partitioned parameter: torch may have been built without its distributed part.
    return any(hasattr(weight, "placements") or hasattr(weight, "ds_id") for weight in module.parameters())


def weights_state(modules: Sequence[nn.Module]) -> list[tuple[int, int]]:
    """Where the parameters of `modules` lie and how often they were written to: equal while nothing touched them.

    A hundred times cheaper than their fingerprint. It misses what is written through `.data`.
    """
    return [(weight.data_ptr(), weight._version) for module in modules for weight in module.parameters()]


def weights_fingerprint(modules: Sequence[nn.Module], settings: dict) -> str:
    """Hash of the parameters of `modules` and of `settings`: 16 hexadecimal digits.

    A few values of every tensor, rounded to bfloat16, so that a cast of the model to it keeps its fingerprint.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    samples = []
    for parent in modules:
        for module in _modules_in_use(parent):
            for name, parameter in module.named_parameters(recurse=False):
                values = _stored_values(module, name, parameter)
                digest.update(str(tuple(values.shape)).encode())
                values = values.flatten()
                samples.append(values[:: max(1, len(values) // 64)][:64].to(torch.bfloat16))
    # One copy from each device instead of one per parameter.
    for device in sorted({sample.device for sample in samples}, key=str):
        values = torch.cat([sample for sample in samples if sample.device == device]).cpu()
        digest.update(values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _accelerate_hooks(module: nn.Module) -> tuple:
    """The hooks that accelerate put on a module; several of them come as one that holds a list."""
    hook = getattr(module, "_hf_hook", None)
    return tuple(getattr(hook, "hooks", (hook,)))


def _stored_values(module: nn.Module, name: str, parameter: torch.Tensor) -> torch.Tensor:
    """A direct parameter of a module; from where accelerate keeps it if it is offloaded."""
    if parameter.is_meta:
        for hook in _accelerate_hooks(module):
            if getattr(hook, "weights_map", None) is not None:
                return hook.weights_map[name]
    return parameter.detach()


def _modules_in_use(module: nn.Module) -> Iterator[nn.Module]:
    """A module and all below it; where peft trains a copy of one (`modules_to_save`), the one that computes."""
    copies = getattr(module, "modules_to_save", None)
    if isinstance(copies, nn.ModuleDict):
        active = [] if module.disable_adapters else [name for name in module.active_adapters if name in copies]
        module = copies[active[0]] if active else module.original_module
    yield module
    for child in module.children():
        yield from _modules_in_use(child)
