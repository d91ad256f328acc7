"""What a run measured, line by line and as a picture."""

from __future__ import annotations

import json
import os
from pathlib import Path

from transformers import TrainerCallback


class MetricsLog(TrainerCallback):
    """Writes every log of a trainer as a line of JSON, with its step. A resumed run goes on behind its checkpoint.

    Args:
        path: of the JSONL file.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = Path(path)

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Steps behind the checkpoint are done again.
        kept = [line for line in read_metrics(self._path) if line["step"] <= state.global_step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def read_metrics(path: str | os.PathLike) -> list[dict]:
    """Lines of `metrics.jsonl`; none if it is not there. A last line that was cut off is left out."""
    if not os.path.isfile(path):
        return []
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def draw_curves(metrics: str | os.PathLike, out: str | os.PathLike) -> None:
    """Loss, token accuracy and learning rate over the steps, as a picture.

    Args:
        metrics: of a `MetricsLog`.
        out: PNG to write.
    """
    from matplotlib.figure import Figure

    lines = [line for line in read_metrics(metrics) if "loss" in line]
    if not lines:
        return
    names = {
        "loss": "loss (nats)",
        "mean_token_accuracy": "accuracy of the answers' tokens",
        "learning_rate": "learning rate",
    }
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axis, (name, label) in zip(figure.subplots(1, len(names)), names.items(), strict=True):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axis.plot(*zip(*points, strict=True), color="tab:blue", linewidth=1.2)
        axis.set_xlabel("update")
        axis.set_title(label, fontsize=10)
        axis.grid(alpha=0.3)
        if name == "learning_rate" and any("connector_learning_rate" in line for line in lines):
            connector = [(line["step"], line["connector_learning_rate"]) for line in lines]
            axis.plot(*zip(*connector, strict=True), color="tab:orange", linewidth=1.2, label="connector")
            axis.lines[0].set_label("adapters")
            axis.legend(fontsize=8)
    figure.savefig(out, dpi=120)
