"""AutoShot's published checkpoint (`ckpt_0_200_0.pth`) converted to [`AutoShotModel`]; read as data only."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..pipeline.autoshot import AutoShotConfig, AutoShotModel
from .beats import CheckpointError


# Published name of a module -> ours, beside the blocks.
_MODULES = {
    "fc1_0.linear": "hidden",
    "cls_layer1.linear": "one_hot",
    "cls_layer2.linear": "many_hot",
    "frame_sim_layer.projection.linear": "frame_neighbours.projection",
    "frame_sim_layer.fc.linear": "frame_neighbours.output",
    "color_hist_layer.fc.linear": "colour_neighbours.output",
}
_BLOCK = re.compile(r"^Layer_(?P<number>[0-5])_\d+\.(?P<rest>.+)$")
_BRANCH = re.compile(r"^conv_blocks\.(?P<branch>\d+)\.layers\.(?P<layer>[01])$")
_NOT_USED = {"fc1.linear": "for attention, of which the best network has no layers"}


@dataclass
class AutoShotConversionReport:
    """What became of a checkpoint: every published key is either in `used` or in `left_out`."""

    output_dir: str
    used: dict[str, str] = field(default_factory=dict)  # published key -> ours
    left_out: dict[str, str] = field(default_factory=dict)  # published key -> why
    num_parameters: int = 0

    def __str__(self) -> str:
        lines = [
            f"{len(self.used)} tensors converted, {self.num_parameters / 1e6:.1f} M parameters, in {self.output_dir}"
        ]
        return "\n".join(lines + [f"left out: {name} ({reason})" for name, reason in self.left_out.items()])


def load_autoshot_checkpoint(checkpoint: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a published file, on the CPU; nothing in it is run.

    Raises:
        CheckpointError: there is no such file, it holds more than tensors, or it is no AutoShot checkpoint.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} was not read: it asks for more than tensors and plain containers, which could run code."
        ) from None
    except Exception as error:  # torch answers a broken or foreign file with whatever its readers stumble on
        raise CheckpointError(f"{path} is damaged or no PyTorch checkpoint ({type(error).__name__}).") from None
    net = content.get("net", content) if isinstance(content, dict) else None
    if not isinstance(net, dict) or not all(isinstance(one, torch.Tensor) for one in net.values()) or not net:
        raise CheckpointError(f"{path} has no dictionary `net` of tensors: it is no AutoShot checkpoint.")
    return {key.removeprefix("module."): tensor for key, tensor in net.items()}


def _our_key(key: str, shared: list[bool]) -> str | None:
    """Name of a published key in our model; None if there is none."""
    module, _, parameter = key.rpartition(".")
    if module in _MODULES:
        return f"{_MODULES[module]}.{parameter}"
    block = _BLOCK.match(module)
    if block is None:
        return None
    number, rest = int(block["number"]), block["rest"]
    if rest == "share":
        return f"blocks.{number}.shared.{parameter}"
    if rest == "batch_norm":
        return f"blocks.{number}.norm.{parameter}"
    branch = _BRANCH.match(rest)
    if branch is None:
        return None
    # Of a branch with a spatial convolution of its own, that is the first layer.
    part = "temporal" if shared[number] or branch["layer"] == "1" else "spatial"
    return f"blocks.{number}.branches.{branch['branch']}.{part}.{parameter}"


def convert_autoshot(checkpoint: str | os.PathLike, output_dir: str | os.PathLike) -> AutoShotConversionReport:
    """Convert a published AutoShot file to a folder that `saven build --shots` takes.

    Args:
        checkpoint: the authors' `.pth` file.
        output_dir: folder to write config.json and model.safetensors to.

    Returns:
        The report of what was used and what was left out.

    Raises:
        CheckpointError: the file is unsafe or damaged, or not a complete AutoShot network.
    """
    state = load_autoshot_checkpoint(checkpoint)
    config = AutoShotConfig()
    model = AutoShotModel(config)
    expected = model.state_dict()
    report = AutoShotConversionReport(str(output_dir))
    converted: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        target = _our_key(key, list(config.shared))
        if target in expected:
            if expected[target].shape != tensor.shape:
                raise CheckpointError(
                    f"{key} has the shape {tuple(tensor.shape)}, but the network has {tuple(expected[target].shape)}."
                )
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise CheckpointError(f"{key} holds values that are not finite.")
            converted[target] = tensor.clone()
            report.used[key] = target
        else:
            report.left_out[key] = _NOT_USED.get(key.rpartition(".")[0], "no part of the published best network")
    missing = [key for key in expected if key not in converted]
    if missing:
        raise CheckpointError(f"The checkpoint lacks {len(missing)} tensors of the network, such as {missing[0]}.")
    model.load_state_dict(converted)
    report.num_parameters = sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(output_dir)
    return report
