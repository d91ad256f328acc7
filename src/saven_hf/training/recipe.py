"""Recipes: what a stage of training does, as one YAML file.

Every field is explained where it is declared; numbers of the paper (5, C) are marked, all else is our decision.
A file holds only what differs from the defaults. What a recipe does not name can still be set through `trainer`, which
goes to TRL's `SFTConfig` as it is.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from .stages import LORA_TARGETS, STAGES


class RecipeError(ValueError):
    """A recipe that cannot be followed; the message is one line that says which key and what to do."""


def _explained(help: str, default: Any = dataclasses.MISSING, **kwargs):
    return field(default=default, metadata={"help": help}, **kwargs)


@dataclass
class DataSource:
    """Rows to learn from, and what stands for their media."""

    path: str = _explained(
        "A JSONL file of messages (docs/data.md); what `load_dataset` opens, a folder or a Hub id, whose rows are "
        "messages; or with `reader` the annotations of a published dataset.",
        "",
    )
    config: str | None = _explained(
        'Configuration of the dataset, for `load_dataset`. None: "sft" if it has that, else its default.', None
    )
    split: str = _explained("Split of the dataset, for `load_dataset`.", "train")
    streaming: bool = _explained("Read a dataset as a stream instead of preparing all of it first.", False)
    reader: str | None = _explained("Format of published annotations: a name of `saven_hf.data.READERS`.", None)
    options: dict[str, Any] = _explained("Options of the reader, such as missing: skip.", default_factory=dict)
    weight: float | None = _explained(
        "How often a row is drawn from this source, against the other sources' weights. None for all of them: every "
        "row once an epoch.",
        None,
    )
    media_root: str | None = _explained(
        "Folder of the media: with `reader`, and of a dataset with relative paths (default: the dataset's folder). "
        "JSONL files name media relative to themselves.",
        None,
    )
    use_audio: bool = _explained("Whether the sound of its videos is heard, where the recipe hears any.", True)
    cache: str | None = _explained("Folder of `saven cache`: encoder outputs to take in place of media.", None)


@dataclass
class Lora:
    """Low-rank adapters. The paper says only that LoRA is used: rank, scale, dropout and targets are our decision."""

    r: int = _explained("Rank.", 64)
    alpha: int = _explained("Scale: the update is multiplied by alpha / r.", 128)
    dropout: float = _explained("Dropout in front of the adapters.", 0.05)
    target_modules: str = _explained(
        "Regular expression of the full path of the layers that get adapters. The towers have projections of the same "
        "names, so that a plain list of names would adapt them, too.",
        LORA_TARGETS,
    )


@dataclass
class Recipe:
    """One stage of training.

    Raises:
        RecipeError: a value that is none of the choices, or values that exclude each other.
    """

    stage: Literal[STAGES] = _explained(
        "What trains: 'align-visual' (visual MLP, TLP, resampler), 'align-audio' (+ audio MLP), 'temporal' and "
        "'saven' (LoRA on the language model), 'joint' (everything but the vision tower).",
        "align-visual",
    )
    model: str = _explained(
        "Model to start from: folder or Hub id. The result of a LoRA stage is merged when it is loaded.", ""
    )
    output_dir: str = _explained("Where checkpoints, metrics and the result go.", "")
    data: list[DataSource] = _explained("What to learn from.", default_factory=list)

    # Media.
    video: dict[str, Any] = _explained(
        "How frames are taken, as settings of the video processor: sampling, num_frames, fps, max_frames. Empty: the "
        "processor's own (the paper: 16, uniform).",
        default_factory=dict,
    )
    use_audio: bool = _explained("Whether the sound of videos is heard.", True)
    time_shift_seconds: float = _explained(
        "Augmentation: the clock of a row's medium and all times in its text move together, by one random multiple of "
        "0.1 s from 0 up to this. 0 for none.",
        0.0,
    )
    max_length: int | None = _explained("Longest row, in tokens; a longer one is an error. None for no limit.", None)
    skip_bad_rows: bool = _explained(
        "Leave out rows that cannot be read, with a warning each, instead of stopping.", False
    )

    # What trains, and how fast.
    train_connector: bool = _explained(
        "In the LoRA stages, train what 'align-audio' trains beside the adapters (our decision; the paper does not "
        "say, and both are ablated).",
        True,
    )
    lora: Lora = _explained("The adapters of the LoRA stages.", default_factory=Lora)
    learning_rate: float = _explained(
        "Of what trains; in LoRA stages, of the adapters (the paper: 2e-3 in alignment, 2e-4 after).", 2e-3
    )
    connector_learning_rate: float | None = _explained("Of the connector in LoRA stages. None: `learning_rate`.", None)
    scheduler: str = _explained("Learning-rate schedule, a name that transformers knows.", "cosine")
    warmup: float = _explained("Steps of linear warm-up; below 1, a share of all steps.", 0.03)
    weight_decay: float = _explained("Of AdamW.", 0.0)
    max_grad_norm: float = _explained("Gradients are clipped to this norm.", 1.0)
    global_batch_size: int = _explained(
        "Rows in one update, over all processes and accumulation steps (the paper: 512 in alignment, 1024 after).", 512
    )
    per_device_train_batch_size: int = _explained("Rows that one device computes at once.", 8)
    group_by_length: bool = _explained(
        "Put rows of about one length together, where a batch is padded to its longest.", True
    )
    num_train_epochs: float = _explained("Passes over the data (the paper: 1 in alignment, at most 2 after).", 1.0)
    max_steps: int | None = _explained("Updates, instead of epochs. Streams need it.", None)
    diversity_loss_weight: float = _explained(
        "Weight in the loss of how much alike the queries of a window are, for resampler_type 'causal_qformer' "
        "(FAVOR; in the code of video-SALMONN 0.01). 0 for none.",
        0.0,
    )
    loss_weighting: Literal["token", "turn"] = _explained(
        "'token': every token of the answers weighs the same; 'turn': every answer does.", "token"
    )

    # Numbers and memory.
    precision: Literal["float32", "bfloat16"] = _explained(
        "Of what is frozen and of the computation; what trains is kept in float32.", "bfloat16"
    )
    quantization: Literal["4bit"] | None = _explained(
        "Load the language model in 4 bits (QLoRA; LoRA stages only).", None
    )
    gradient_checkpointing: bool = _explained("Recompute activations in the backward pass: slower, smaller.", False)
    attn_implementation: str | None = _explained("Attention kernel, such as 'flash_attention_2'.", None)

    # The run.
    seed: int = _explained("Of the order of rows, dropout, new adapters and augmentation.", 0)
    dataloader_workers: int = _explained("Processes that read media beside each training process.", 0)
    logging_steps: int = _explained("Updates between two lines of metrics.jsonl.", 10)
    save_steps: int = _explained("Updates between two checkpoints.", 500)
    save_total_limit: int = _explained("How many checkpoints are kept.", 2)
    resume: bool = _explained(
        "Go on from the last whole checkpoint in `output_dir`, if there is one; false begins anew and removes them.",
        True,
    )
    merge: bool = _explained(
        "After a LoRA stage, also write `merged/`: adapters and connector in one plain model folder.", True
    )
    report_to: list[str] = _explained(
        "Trackers beside metrics.jsonl and curves.png, such as 'trackio' or 'tensorboard'.", default_factory=list
    )
    trainer: dict[str, Any] = _explained(
        "Further arguments of TRL's SFTConfig, such as optim or ddp_timeout.", default_factory=dict
    )

    def __post_init__(self):
        for name in ("model", "output_dir"):
            if not getattr(self, name):
                raise RecipeError(f"{name} is missing: {_help(Recipe, name)}")
        for name in ("global_batch_size", "per_device_train_batch_size", "logging_steps", "save_steps"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.diversity_loss_weight < 0:
            raise RecipeError(f"diversity_loss_weight must be 0 or more, got {self.diversity_loss_weight}.")
        if self.time_shift_seconds < 0:
            raise RecipeError(f"time_shift_seconds must be 0 or more, got {self.time_shift_seconds}.")
        if self.quantization and not self.uses_lora:
            raise RecipeError(
                f"quantization={self.quantization!r} is for the LoRA stages: {self.stage!r} trains no adapter."
            )
        weights = [source.weight for source in self.data]
        if len({weight is None for weight in weights}) > 1:
            raise RecipeError(
                f"Of the sources in data some have a weight and some have none ({weights}): give all one."
            )
        if any(weight is not None and not weight > 0 for weight in weights):
            raise RecipeError(f"The weights of data must be above 0, got {weights}.")
        if any(not source.path for source in self.data):
            raise RecipeError(f"A source in data has no path: {_help(DataSource, 'path')}")

    @property
    def uses_lora(self) -> bool:
        return self.stage in ("temporal", "saven")

    def accumulation_steps(self, num_processes: int) -> int:
        """Backward passes in one update.

        Raises:
            RecipeError: the global batch cannot be reached with this many processes.
        """
        at_once = self.per_device_train_batch_size * num_processes
        if self.global_batch_size % at_once:
            raise RecipeError(
                f"global_batch_size={self.global_batch_size} is no multiple of the {at_once} rows that "
                f"{num_processes} processes x per_device_train_batch_size={self.per_device_train_batch_size} compute "
                "at once: change one of them."
            )
        return self.global_batch_size // at_once

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def save(self, path: str | os.PathLike) -> None:
        """Write all fields as YAML."""
        Path(path).write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")


def recipe_file(recipe: str | os.PathLike) -> Path:
    """The YAML file of a recipe: a path, or the name of one that is shipped, such as "7b/align-visual".

    Raises:
        RecipeError: there is none.
    """
    path = Path(recipe)
    if path.is_file():
        return path
    names = shipped_recipes()
    if os.fspath(recipe) not in names:
        raise RecipeError(
            f"There is no recipe {os.fspath(recipe)!r}{nearest(os.fspath(recipe), names)}: pass a YAML file, or one "
            f"of {', '.join(names)}."
        )
    return _shipped_folder() / f"{os.fspath(recipe)}.yaml"


def load_recipe(
    recipe: str | os.PathLike, overrides: Sequence[str] = (), data: Sequence[str | os.PathLike] = ()
) -> Recipe:
    """Read a recipe.

    Args:
        recipe: a YAML file, or the name of one that is shipped, such as "7b/align-visual".
        overrides: "key=value" each, value as YAML; "lora.r=16" reaches into a section, "data.0.cache=DIR" into a list.
        data: JSONL files or datasets to learn from instead of the recipe's `data`.

    Raises:
        RecipeError: no such recipe, a key that does not exist, or a value of another type.
    """
    path = recipe_file(recipe)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no keys: a recipe is a mapping such as `stage: align-visual`.")
    if data:
        values["data"] = [{"path": os.fspath(source)} for source in data]
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"{override!r} sets nothing: write key=value.")
        _set(values, key.split("."), yaml.safe_load(text), key)
    try:
        return from_dict(values)
    except RecipeError as error:
        raise RecipeError(f"{path.name}: {error}") from None


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from nested dicts, as YAML gives them.

    Raises:
        RecipeError: see `load_recipe`.
    """
    return _convert(Recipe, values, "")


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    root = _shipped_folder()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def _shipped_folder() -> Path:
    """Beside the sources in a checkout, inside the package when installed."""
    package = Path(__file__).parents[1]
    roots = [root / "hub_configs" / "recipes" for root in (package, package.parents[1])]
    return next((root for root in roots if root.is_dir()), roots[0])


def explain(kind: type = Recipe, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """All keys of a recipe: (name, default, what it means)."""
    for one in dataclasses.fields(kind):
        default = one.default_factory() if one.default is dataclasses.MISSING else one.default
        section = {"data": DataSource, "lora": Lora}.get(one.name) if kind is Recipe else None
        yield f"{prefix}{one.name}", None if section else default, one.metadata["help"]
        if section is not None:
            yield from explain(section, f"{one.name}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """ " (did you mean ...?)" for an error, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _help(cls: type, name: str) -> str:
    return next(one.metadata["help"] for one in dataclasses.fields(cls) if one.name == name)


def _set(values: Any, path: list[str], value: Any, key: str) -> None:
    for step in path[:-1]:
        if isinstance(values, list):
            if not step.isdigit() or int(step) >= len(values):
                raise RecipeError(f"{key}: {step!r} is none of the {len(values)} entries, counted from 0.")
            values = values[int(step)]
        else:
            if values.get(step) is None:
                values[step] = {}
            values = values[step]
        if not isinstance(values, (dict, list)):
            raise RecipeError(f"{key}: {step!r} holds one value, so there is nothing below it to set.")
    if isinstance(values, list):
        raise RecipeError(f"{key}: name a field behind the number of the entry.")
    values[path[-1]] = value


def _convert(kind: Any, value: Any, where: str) -> Any:
    """`value` as the declared type of a field, with numbers taken from text: YAML reads "2e-3" as a word."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} must be a section of keys, got {value!r}.")
        hints = get_type_hints(kind)
        unknown = next((key for key in value if key not in hints), None)
        if unknown is not None:
            place = f"{where}.{unknown}" if where else str(unknown)
            raise RecipeError(
                f"There is no key {place!r}{nearest(str(unknown), hints)}; known are {', '.join(hints)}."
            )
        given = {key: _convert(hints[key], one, f"{where}.{key}" if where else key) for key, one in value.items()}
        return kind(**given)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(one for one in arguments if one is not type(None)), value, where)
    if origin is Literal:
        if value not in arguments:
            raise RecipeError(
                f"{where} is {value!r}{nearest(str(value), map(str, arguments))}; it must be one of "
                f"{', '.join(map(str, arguments))}."
            )
        return value
    if origin is list:
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list, got {value!r}.")
        return [_convert(arguments[0], one, f"{where}[{at}]") for at, one in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} must be a section of keys, got {value!r}.")
        return dict(value)
    return _scalar(kind, value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    if kind is bool or isinstance(value, bool):
        if kind is bool and isinstance(value, bool):
            return value
    elif kind is str:
        if isinstance(value, (str, os.PathLike)):
            return os.fspath(value)
    else:
        try:
            number = float(value)
            if kind is float or number.is_integer():
                return kind(number)
        except (TypeError, ValueError):
            pass
    named = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}[kind]
    raise RecipeError(f"{where} must be {named}, got {value!r}.")
