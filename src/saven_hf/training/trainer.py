"""`train(recipe)`: one stage of training, from a recipe to a model folder, on TRL's `SFTTrainer`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import SFTConfig, SFTTrainer

from ..cards import signed
from ..model_cards import ADAPTER_FILE, CARD_FILE, model_card
from ..savenvideo.connector_qformer import diversity_loss
from ..savenvideo.modeling_savenvideo import SAVEnVideoForConditionalGeneration
from .cache import FeatureCache
from .collator import SAVEnVideoCollator
from .curves import MetricsLog, draw_curves
from .memory import keep_freed_memory
from .recipe import Recipe, RecipeError, nearest
from .sources import LengthGroupedSampler, RowStream, build_dataset
from .stages import apply_stage, is_connector, load_for_training, merge, reach_connector, trained_parameters
from .zero3 import MediaWhole


TRAINED_FILE = "trained.safetensors"
STATE_FILE = "trainer_state.json"


@dataclass
class TrainResult:
    """What `train` made.

    Attributes:
        model: folder of the result: a plain model, or the adapters of a LoRA stage.
        merged: folder of the plain model of a LoRA stage, if the recipe asked for it.
        metrics: the JSONL file of losses and rates.
        steps: updates in all.
        loss: of the last line of metrics; None if the run was over before it began.
    """

    model: str
    merged: str | None
    metrics: str
    steps: int
    loss: float | None


class SAVEnVideoTrainer(SFTTrainer):
    """
    TRL's [`SFTTrainer`] for batches of [`SAVEnVideoCollator`].

    The loss is the mean over all answers of an update, whatever process or accumulation step they are in, weighted by
    `loss_weights`. The head is computed where there is something to learn and nowhere else. In alignment stages a
    checkpoint holds what trains and not the model around it.

    Args:
        connector_learning_rate: of TLP and resampler; None for `args.learning_rate`.
        diversity_loss_weight: of the mean cosine similarity of the causal Q-Former's queries in the loss, see
            `diversity_loss`; 0 for none.
        group_by_length: put rows of about one length into a batch, see `LengthGroupedSampler`; for datasets of
            `build_dataset`.
        kwargs: of `SFTTrainer`.

    Attributes:
        stream_checkpoint: that a run on a stream goes on from, where `args.ignore_data_skip` leaves its random state
            to be restored behind the first batch.
    """

    loss_is_scaled_for_ga = True  # by the weight of the whole update

    def __init__(
        self,
        *args,
        connector_learning_rate: float | None = None,
        diversity_loss_weight: float = 0.0,
        group_by_length: bool = False,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self._group_by_length = group_by_length
        self._connector_learning_rate = connector_learning_rate
        self.stream_checkpoint: str | None = None
        self._answers: torch.Tensor | None = None
        self._correct = torch.zeros(2, dtype=torch.int64)
        self._diversity_loss_weight = diversity_loss_weight
        self._window_states: torch.Tensor | None = None
        self._similarity = torch.zeros(2)
        base = self.accelerator.unwrap_model(self.model)
        base = base.get_base_model() if hasattr(base, "get_base_model") else base
        base.base_model.register_forward_hook(self._keep_answers)
        if diversity_loss_weight:
            connector = base.base_model.resampler
            if base.config.resampler_type != "causal_qformer":
                raise RecipeError(
                    f"diversity_loss_weight={diversity_loss_weight} is for resampler_type='causal_qformer'; the model "
                    f"has {base.config.resampler_type!r}: leave it out."
                )
            if not any(parameter.requires_grad for parameter in connector.parameters()):
                raise RecipeError(
                    f"diversity_loss_weight={diversity_loss_weight} teaches the connector, which does not train: set "
                    "train_connector=true, or leave it out."
                )
            connector.register_forward_hook(self._keep_window_states)
        base.base_model.language_model.register_forward_pre_hook(
            partial(self._reach_connector, base.base_model), with_kwargs=True
        )
        self.add_callback(MediaWhole)

    def _reach_connector(self, model: nn.Module, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        embeds = kwargs["inputs_embeds"]
        # ZeRO-3 overwrites a gradient in the first batch of an update: what has none there would keep the last one.
        shared = self.accelerator.num_processes > 1 or self.is_deepspeed_enabled
        if self.model.training and (shared or not embeds.requires_grad):
            kwargs["inputs_embeds"] = reach_connector(model, embeds)
        return args, kwargs

    def _keep_answers(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """Of the hidden states those in front of a token to learn: `(1, n, hidden)`.

        TRL's fused head takes the hidden states from the backbone, and on a CPU computes logits for all of them.
        """
        if self._answers is not None:
            output.last_hidden_state = output.last_hidden_state[:, :-1][self._answers][None]
        return output

    def _keep_window_states(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._window_states = output.window_states

    def _add_diversity_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss of a batch with what its windows add to it; each batch of an update counts the same."""
        states, self._window_states = self._window_states, None
        if states is None or not len(states) or not self.model.training:
            return loss
        similarity = diversity_loss(states)
        self._similarity = self._similarity.to(loss.device) + torch.stack(
            [similarity.detach(), torch.ones_like(similarity)]
        )
        return loss + self._diversity_loss_weight * similarity / self.current_gradient_accumulation_steps

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = dict(inputs)
        labels, weights = inputs.pop("labels")[:, 1:], _loss_weights(inputs)
        del inputs["loss_weights"]
        self._answers = labels != -100
        try:
            outputs = model(**inputs, shift_labels=labels[self._answers][None], fused_lm_head=True)
        finally:
            answers, self._answers = self._answers, None
        weights = weights[answers]
        total = weights.sum() if num_items_in_batch is None else num_items_in_batch
        loss = -(outputs.log_probs[0] * weights).sum() / torch.as_tensor(total, device=weights.device).clamp(min=1e-9)
        if num_items_in_batch is not None:
            # The total is of all processes, over which DDP takes the mean of gradients.
            loss = loss * self.accelerator.num_processes
        loss = self._add_diversity_loss(loss)
        if self.model.training:
            # Summed up where they are: to look at them is to wait for the device.
            self._correct = self._correct.to(weights.device) + torch.stack([outputs.is_top1.sum(), answers.sum()])
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.stream_checkpoint is not None:
            # To read from a data loader for the first time takes a number from the generator of dropout.
            self._load_rng_state(self.stream_checkpoint)
            self.stream_checkpoint = None
        return batches

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        if not batch_samples:
            return None
        total = sum(_loss_weights(batch).sum() for batch in batch_samples).to(device)
        return self.accelerator.reduce(total) if self.accelerator.num_processes > 1 else total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            right, answers = self.accelerator.reduce(self._correct.to(self.args.device)).tolist()
            logs["mean_token_accuracy"] = right / max(answers, 1)
            self._correct.zero_()
            similarity, batches = self.accelerator.reduce(self._similarity.to(self.args.device)).tolist()
            if batches:
                logs["diversity_loss"] = similarity / batches
                self._similarity.zero_()
            if self._connector_learning_rate is not None:
                ratio = self._connector_learning_rate / self.args.learning_rate
                logs["connector_learning_rate"] = logs["learning_rate"] * ratio
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset=None):
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not self._group_by_length or isinstance(dataset, RowStream):
            return super()._get_train_sampler(train_dataset)
        sizes = np.asarray(dataset.with_format("numpy", columns=["size"])["size"])
        group = self.args.train_batch_size * self.accelerator.num_processes
        return LengthGroupedSampler(sizes, group, self.args.seed, lambda: self.data_collator.epoch)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        created = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if created and self._connector_learning_rate is not None:
            named = (self.model if model is None else model).named_parameters()
            connector = {id(parameter) for name, parameter in named if is_connector(name)}
            groups = []
            for group in optimizer.param_groups:
                parts = ([], [])
                for parameter in group["params"]:
                    parts[id(parameter) in connector].append(parameter)
                groups.append({**group, "params": parts[0]})
                groups.append({**group, "params": parts[1], "lr": self._connector_learning_rate})
            optimizer.param_groups = [group for group in groups if group["params"]]
        return optimizer

    # -------------------------------------------------------------------------------------------------- checkpoints

    @property
    def _saves_trained_only(self) -> bool:
        """A full model in every checkpoint would be 17 GB at 7B; peft saves adapters by itself."""
        return isinstance(self.model, SAVEnVideoForConditionalGeneration)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        is_checkpoint = Path(output_dir or self.args.output_dir).name.startswith(PREFIX_CHECKPOINT_DIR)
        if not (is_checkpoint and self._saves_trained_only):
            return super()._save(output_dir, state_dict)
        if self.args.should_save:
            os.makedirs(output_dir, exist_ok=True)
            state = self.model.state_dict() if state_dict is None else state_dict
            trained = {name: state[name].contiguous().cpu() for name in trained_parameters(self.model)}
            save_file(trained, os.path.join(output_dir, TRAINED_FILE), metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = os.path.join(resume_from_checkpoint, TRAINED_FILE)
        if self.is_fsdp_enabled or not os.path.isfile(path):
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        model = self.model if model is None else model
        saved, wanted = load_file(path), trained_parameters(model)
        if saved.keys() != wanted.keys():
            different = sorted(saved.keys() ^ wanted.keys())[0]
            raise RecipeError(
                f"{resume_from_checkpoint} was written by a run that trained other weights ({different}): set "
                "resume=false, or take another output_dir."
            )
        model.load_state_dict(saved, strict=False)

    def create_model_card(self, *args, **kwargs) -> None:
        """None: trl's card knows neither stage nor data, `recipe.yaml` does."""


def _loss_weights(batch: dict[str, Any]) -> torch.Tensor:
    """Of the tokens that are predicted: all but the first."""
    if "loss_weights" not in batch:
        raise ValueError(
            "The batch has no 'loss_weights': this trainer takes batches of SAVEnVideoCollator; pass it as "
            "`data_collator`."
        )
    return batch["loss_weights"][:, 1:]


class _Epochs(TrainerCallback):
    """Tells the collator which epoch it is."""

    def __init__(self, collator: SAVEnVideoCollator):
        self._collator = collator

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._collator.epoch = int(state.epoch or 0)


def train(
    recipe: Recipe,
    train_dataset: Sequence | Iterable | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    model: SAVEnVideoForConditionalGeneration | None = None,
    processor=None,
) -> TrainResult:
    """Train one stage, and write what it made into `recipe.output_dir`.

    Run it again after an interruption: it goes on from the last checkpoint, and the losses are those of a run that
    was never interrupted. Under `accelerate launch` every process calls it.

    Args:
        recipe: see `load_recipe`.
        train_dataset: rows of messages instead of `recipe.data`: a sequence of any objects with `len`, or an iterable
            (then set `max_steps`). Media in them may be files, frames in memory or `TowerFeatures`.
        callbacks: of transformers' Trainer.
        model, processor: already loaded, instead of `recipe.model`. The model is changed: it comes back trained, and
            where the recipe says `merge`, merged.

    Returns:
        `TrainResult`. The folder also holds `recipe.yaml`, `metrics.jsonl` and `curves.png`.

    Raises:
        RecipeError: a recipe that cannot be followed here.
        DataError: no rows, or a bad one.
        ModelNotFoundError: there is no such model.
    """
    arguments = training_arguments(recipe)
    if arguments.use_cpu:
        keep_freed_memory()
    checkpoint = last_checkpoint(recipe.output_dir) if recipe.resume else None
    if model is None or processor is None:
        model, processor = _load(recipe)
    for cache in {source.cache for source in recipe.data if source.cache and train_dataset is None}:
        FeatureCache(cache).check(model, processor, **recipe.video)
    torch.manual_seed(recipe.seed)
    model = apply_stage(model, recipe.stage, recipe.lora, recipe.train_connector)
    skip = 0
    if checkpoint is not None:
        skip = json.loads(Path(checkpoint, STATE_FILE).read_text())["global_step"] * recipe.global_batch_size
    dataset = build_dataset(recipe.data if train_dataset is None else [train_dataset], recipe.seed, skip)
    if isinstance(dataset, RowStream):
        if recipe.max_steps is None:
            raise RecipeError("A stream has no end: set max_steps.")
        # It begins behind what was trained on: passing over batches would decode all their media.
        arguments.ignore_data_skip = True
    collator = SAVEnVideoCollator(
        processor,
        loss_weighting=recipe.loss_weighting,
        time_shift_seconds=recipe.time_shift_seconds,
        seed=recipe.seed,
        use_audio=recipe.use_audio,
        video=recipe.video,
        max_length=recipe.max_length,
        skip_bad_rows=recipe.skip_bad_rows,
    )
    output = Path(recipe.output_dir)
    metrics = output / "metrics.jsonl"
    trainer = SAVEnVideoTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        processing_class=processor,
        connector_learning_rate=recipe.connector_learning_rate if recipe.uses_lora else None,
        diversity_loss_weight=recipe.diversity_loss_weight,
        group_by_length=recipe.group_by_length,
        callbacks=[_Epochs(collator), MetricsLog(metrics), *callbacks],
    )
    if trainer.is_world_process_zero():
        output.mkdir(parents=True, exist_ok=True)
        if not recipe.resume:
            # Or a later run would take them for its own.
            for stale in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
                shutil.rmtree(stale)
        recipe.save(output / "recipe.yaml")
    if isinstance(dataset, RowStream):
        trainer.stream_checkpoint = checkpoint
    trainer.train(resume_from_checkpoint=checkpoint)
    merged = _save_result(trainer, recipe)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if trainer.is_world_process_zero():
        draw_curves(metrics, output / "curves.png")
    return TrainResult(str(output), merged, str(metrics), trainer.state.global_step, losses[-1] if losses else None)


def training_arguments(recipe: Recipe) -> SFTConfig:
    """TRL's arguments for a recipe, in this process.

    Raises:
        RecipeError: a name in `trainer` that SFTConfig does not know, or a global batch that cannot be reached.
    """
    known = {one.name for one in fields(SFTConfig)}
    for name in recipe.trainer:
        if name not in known:
            raise RecipeError(f"trainer.{name} is no argument of trl's SFTConfig{nearest(name, known)}.")
    use_cpu = bool(recipe.trainer.get("use_cpu", not torch.accelerator.is_available()))
    arguments = {
        "output_dir": recipe.output_dir,
        "per_device_train_batch_size": recipe.per_device_train_batch_size,
        "gradient_accumulation_steps": recipe.accumulation_steps(int(os.environ.get("WORLD_SIZE", 1))),
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.scheduler,
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "num_train_epochs": recipe.num_train_epochs,
        "max_steps": -1 if recipe.max_steps is None else recipe.max_steps,
        # transformers wants to be told that bfloat16 on a machine without a GPU is no mistake.
        "use_cpu": use_cpu,
        "bf16": recipe.precision == "bfloat16",
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "dataloader_num_workers": recipe.dataloader_workers,
        "dataloader_persistent_workers": recipe.dataloader_workers > 0,
        "dataloader_pin_memory": not use_cpu,
        "logging_steps": recipe.logging_steps,
        "logging_first_step": True,
        "save_steps": recipe.save_steps,
        "save_total_limit": recipe.save_total_limit,
        "report_to": recipe.report_to or "none",
        # Rows are for our collator: nothing to tokenize ahead, to drop, or to cut.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
        "max_length": None,
        # accelerate would read a stream in one process and cut every tensor into equal parts for the others. But the
        # first dimension of media is their number, which has nothing to do with that of rows.
        "accelerator_config": {"dispatch_batches": False},
        # Nothing is unused: see `reach_connector`.
        "ddp_find_unused_parameters": False,
        **recipe.trainer,
    }
    if recipe.gradient_checkpointing:
        arguments.setdefault("gradient_checkpointing_kwargs", {"use_reentrant": False})
    return SFTConfig(**arguments)


def last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """The last checkpoint of a folder that was written to its end."""
    whole = [
        path
        for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.split("-")[-1].isdigit() and (path / STATE_FILE).is_file()  # written last
    ]
    return str(max(whole, key=lambda path: int(path.name.split("-")[-1]))) if whole else None


def _load(recipe: Recipe) -> tuple[SAVEnVideoForConditionalGeneration, Any]:
    settings: dict[str, Any] = {}
    if recipe.attn_implementation:
        settings["attn_implementation"] = recipe.attn_implementation
    if recipe.quantization:
        from transformers import BitsAndBytesConfig

        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, recipe.precision),
        )
    # To the CPU: the trainer, or what shards the model, places it.
    return load_for_training(recipe.model, getattr(torch, recipe.precision), **settings)


def _save_result(trainer: SAVEnVideoTrainer, recipe: Recipe) -> str | None:
    """Write the model, of a LoRA stage its adapters, and return the folder of the merged model if there is one."""
    trainer.save_model(recipe.output_dir)
    if trainer.is_world_process_zero():
        _finish(Path(recipe.output_dir), recipe.model)
    # Or another process would look for what is not there yet.
    trainer.accelerator.wait_for_everyone()
    if not (recipe.uses_lora and recipe.merge):
        return None
    merged = Path(recipe.output_dir, "merged")
    if trainer.is_world_process_zero():
        dtype = getattr(torch, recipe.precision)
        if recipe.quantization or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            # Into the weights as they are on disk.
            model, processor = load_for_training(recipe.output_dir, dtype)
        else:
            model = merge(trainer.accelerator.unwrap_model(trainer.model)).to(dtype)
            processor = trainer.processing_class
        partial = merged.with_name("merged.partial")
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        shutil.rmtree(merged, ignore_errors=True)
        partial.rename(merged)
        _finish(merged, recipe.model)
    trainer.accelerator.wait_for_everyone()
    return str(merged)


def _finish(folder: Path, base: str) -> None:
    """Give a result its card, and let adapters name their base as the recipe does.

    peft writes where the base lay on this machine, and a card that knows nothing of the model.
    """
    path = folder / ADAPTER_FILE
    if path.is_file():
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = base
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(signed(model_card(folder)), encoding="utf-8")
