"""One loop for all that is pretrained here: resumed bit-equally after a kill, its losses kept as JSON lines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedConfig

from ..memory import keep_freed_memory


CHECKPOINT, LOSSES = "checkpoint.pt", "losses.jsonl"


class PretrainError(ValueError):
    """A folder that was trained, or begun, with other settings than those asked for."""


def fit(
    model: nn.Module,
    loss_of: Callable[[int], tuple[torch.Tensor, dict[str, float | torch.Tensor]]],
    output_dir: str | os.PathLike,
    *,
    steps: int,
    learning_rate: float,
    settings: dict,
    optimizer: str = "adamw",
    weight_decay: float = 0.01,
    warmup: float = 0.05,
    save_steps: int = 200,
    stop_after: int | None = None,
    progress: bool = True,
) -> bool:
    """Train with a linear warm-up and a cosine down to nothing.

    Nothing random may be kept from step to step: `loss_of(step)` draws its batch from (seed, step). So a checkpoint is
    weights and optimizer, and the run that resumes from it is the run that was never killed.

    Args:
        model: what is trained; on its device already.
        loss_of: step to (loss, further numbers for the log).
        output_dir: gets `losses.jsonl`, one line a step, and until the end of training `checkpoint.pt`.
        optimizer: "adamw", or "muon" for the matrices of layers: twice as fast a learner of look-ups (our trial).
        warmup: share of the steps.
        settings: whatever decides the result; a folder begun with others is refused.
        save_steps: steps from checkpoint to checkpoint.
        stop_after: leave after this many steps, with a checkpoint, as if killed.

    Returns:
        Whether training is complete.

    Raises:
        PretrainError: the folder's checkpoint has other settings.
    """
    out = Path(output_dir)
    out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    settings = {
        "steps": steps,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "warmup": warmup,
    } | settings
    optimizers = _optimizers(model, optimizer, learning_rate, weight_decay)
    first = _resume(out, model, optimizers, settings)
    last = steps if stop_after is None else min(steps, stop_after)
    model.train()
    with open(out / LOSSES, "a", buffering=1, encoding="utf-8") as log:
        bar = tqdm(range(first, last), initial=first, total=steps, desc=out.name, unit="step", disable=not progress)
        for step in bar:
            for one in optimizers:
                for group in one.param_groups:
                    group["lr"] = learning_rate * _rate(step, steps, warmup)
                one.zero_grad(set_to_none=True)
            loss, numbers = loss_of(step)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for one in optimizers:
                one.step()
            # Looked at once a step, and last: to look at a number is to wait for the device.
            values = torch.stack([torch.as_tensor(value, device=loss.device).detach().float() for value in
                                  (loss, *numbers.values())]).tolist()  # fmt: skip
            if not math.isfinite(values[0]):
                raise FloatingPointError(f"The loss of step {step} is {values[0]}: lower the learning rate.")
            numbers = {"step": step} | dict(zip(("loss", *numbers), values, strict=True))
            log.write(json.dumps({name: round(value, 5) for name, value in numbers.items()}) + "\n")
            bar.set_postfix({name: f"{value:.3g}" for name, value in numbers.items() if name != "step"}, refresh=False)
            if (step + 1) % save_steps == 0 or step + 1 == last:
                _save(out, model, optimizers, settings, step + 1)
    model.eval()
    return last == steps


def config_settings(config: PreTrainedConfig) -> dict:
    """What a model's config decides of the result: all but the release of transformers that wrote it."""
    return {name: value for name, value in config.to_diff_dict().items() if name != "transformers_version"}


def _optimizers(model: nn.Module, kind: str, learning_rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """AdamW over everything; or Muon over the matrices of layers, and AdamW over embeddings and vectors."""
    if kind not in ("adamw", "muon"):
        raise ValueError(f"optimizer is {kind!r}, but must be 'adamw' or 'muon'.")
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in learning if parameter.ndim == 2 and id(parameter) not in tables]
    optimizers: list[torch.optim.Optimizer] = []
    if kind == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise RuntimeError(f"optimizer='muon' needs torch 2.9 or newer; this is {torch.__version__}.")
        # Its updates are scaled to the size that AdamW's have, so that one learning rate does for both.
        muon = torch.optim.Muon(matrices, learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        optimizers.append(muon)
        taken = set(map(id, matrices))
        learning = [parameter for parameter in learning if id(parameter) not in taken]
    decayed = [parameter for parameter in learning if parameter.ndim > 1]
    plain = [parameter for parameter in learning if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizers.append(torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98)))
    return optimizers


def _rate(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: up to 1 in the warm-up, then half a cosine down to 0."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _save(out: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], settings: dict, done: int) -> None:
    state = {
        "model": model.state_dict(),
        "optimizers": [one.state_dict() for one in optimizers],
        "settings": settings,
        "done": done,
    }
    partial = out / f"{CHECKPOINT}.partial"
    torch.save(state, partial)
    os.replace(partial, out / CHECKPOINT)


def _resume(out: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], settings: dict) -> int:
    """Load the folder's checkpoint, forget what was logged after it; the number of steps done."""
    done = 0
    if (out / CHECKPOINT).is_file():
        state = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
        differing = [
            f"{name} {state['settings'].get(name)!r} instead of {settings.get(name)!r}"
            for name in sorted(settings.keys() | state["settings"].keys())
            if state["settings"].get(name) != settings.get(name)
        ]
        if differing:
            raise PretrainError(
                f"{out} holds a run with {', '.join(differing)}: ask for the same to go on with it, or give another "
                "folder."
            )
        model.load_state_dict(state["model"])
        for one, saved in zip(optimizers, state["optimizers"], strict=True):
            one.load_state_dict(saved)
        done = state["done"]
    if (out / LOSSES).is_file():
        with open(out / LOSSES, encoding="utf-8") as log:
            kept = [line for _, line in zip(range(done), log, strict=False)]
        partial = out / f"{LOSSES}.partial"
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, out / LOSSES)
    return done
