"""DeepSpeed ZeRO-3 for processes that have different media: towers, TLP and connector stay whole on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from transformers import TrainerCallback

from .recipe import RecipeError


if TYPE_CHECKING:
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3

    from ..savenvideo.modeling_savenvideo import SAVEnVideoModel


def keep_media_whole(model: SAVEnVideoModel, optimizer: DeepSpeedZeroOptimizer_Stage3) -> None:
    """Take all but the language model out of what ZeRO-3 gathers module by module.

    These modules run as often as the media of a process ask for, and their weights are used outside of their forward,
    see `reach_connector`. But DeepSpeed gathers weights for the forward of their module, divides them again behind it,
    those below its thresholds too until it has seen an update, and demands one order of modules of all processes. So
    the weights are gathered here, once, and DeepSpeed no longer hears of their modules. It gathers them anew where it
    has changed them; gradients and optimizer are divided as ever.

    Args:
        model: after `deepspeed.initialize`, and after a checkpoint was loaded.
        optimizer: of DeepSpeed's engine.

    Raises:
        RecipeError: gradients do not fit into one exchange.
    """
    trained = sum(parameter.ds_numel for parameter in model.parameters() if parameter.requires_grad)
    if trained > optimizer.reduce_bucket_size:
        # A second exchange would begin at another gradient in processes that use the connector in another order.
        raise RecipeError(
            f"{trained} trained weights do not fit into an exchange of gradients of {optimizer.reduce_bucket_size}: "
            f"set zero_optimization.reduce_bucket_size of DeepSpeed's config to {trained} or more, or use FSDP2."
        )
    modules = [
        module
        for child in model.children()
        if child is not model.language_model
        for module in child.modules()
    ]  # fmt: skip
    parameters = list({parameter: None for module in modules for parameter in module.parameters(recurse=False)})
    for parameter in parameters:
        if not parameter.ds_persist:
            parameter.ds_persist = True
            optimizer.persistent_parameters.append(parameter)
    parameters[0].all_gather(parameters)
    for module in modules:
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if hook.__module__.startswith("deepspeed.")]:
                del hooks[key]


class MediaWhole(TrainerCallback):
    """Calls `keep_media_whole` where training begins under ZeRO-3."""

    def on_train_begin(self, args, state, control, model: nn.Module, optimizer, **kwargs):
        if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
            base = model.get_base_model() if hasattr(model, "get_base_model") else model
            keep_media_whole(base.base_model, optimizer.optimizer)
