"""AutoShot's published checkpoint (`ckpt_0_200_0.pth`) converted to [`AutoShotModel`]; read as data only."""

from __future__ import annotations

import os
import re

import torch

from ..pipeline.autoshot import AutoShotConfig, AutoShotModel
from .checkpoint import (
    CheckpointError,
    ConversionReport,
    check_fit,
    fresh_folder,
    load_tensors_only,
    some,
    whole_folder,
)


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
_NOT_OF_THE_BEST = "of a block of the search space that the published best network has not"


def load_autoshot_checkpoint(checkpoint: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a published file, on the CPU; nothing in it is run.

    Raises:
        CheckpointError: see `load_tensors_only`; or it is no AutoShot checkpoint.
    """
    content = load_tensors_only(checkpoint)
    net = content.get("net", content) if isinstance(content, dict) else None
    if not isinstance(net, dict) or not all(isinstance(one, torch.Tensor) for one in net.values()) or not net:
        raise CheckpointError(f"{checkpoint} has no dictionary `net` of tensors: it is no AutoShot checkpoint.")
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


def convert_autoshot(checkpoint: str | os.PathLike, output_dir: str | os.PathLike) -> ConversionReport:
    """Convert a published AutoShot file to a folder that `saven build --shots` takes.

    Args:
        checkpoint: the authors' `.pth` file.
        output_dir: folder to write config.json and model.safetensors to; it must not hold anything yet.

    Returns:
        The report of what was used and what was left out.

    Raises:
        CheckpointError: the file is unsafe or damaged, or not a complete AutoShot network. Nothing is written then.
        FileExistsError: `output_dir` holds something.
    """
    fresh_folder(output_dir)
    state = load_autoshot_checkpoint(checkpoint)
    config = AutoShotConfig()
    with torch.device("meta"):
        model = AutoShotModel(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    report = ConversionReport(str(output_dir))
    converted: dict[str, torch.Tensor] = {}
    unknown = []
    for key, tensor in state.items():
        target, reason = _our_key(key, list(config.shared)), _NOT_USED.get(key.rpartition(".")[0])
        if target in expected:
            converted[target] = tensor.clone()
            report.used[key] = target
        elif reason is not None or target is not None:
            report.left_out[key] = reason or _NOT_OF_THE_BEST
        else:
            unknown.append(key)
    if unknown:
        raise CheckpointError(f"The checkpoint has {len(unknown)} tensors of no known part: {some(unknown)}.")
    check_fit(converted, expected, "AutoShot's published best network")
    model.load_state_dict(converted, assign=True)
    report.num_parameters = sum(parameter.numel() for parameter in model.parameters())
    with whole_folder(output_dir) as folder:
        model.save_pretrained(folder)
    return report
