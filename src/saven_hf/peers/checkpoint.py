"""Published checkpoints as what they hold: names and tensors. Nothing in them can run code, no shard goes missing."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from safetensors import SafetensorError, safe_open


# One file, or the index of several; the first that is there is read.
WHOLE_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


class CheckpointError(ValueError):
    """No checkpoint that can be converted; the message says what is wrong with it."""


@dataclass
class ConversionReport:
    """What became of a checkpoint: every published key is either in `used` or in `left_out`.

    A key that is missing is an error, so that no report tells of one.
    """

    output_dir: str
    used: dict[str, str] = field(default_factory=dict)  # published key -> key of our model
    left_out: dict[str, str] = field(default_factory=dict)  # published key or config field -> why
    notes: list[str] = field(default_factory=list)  # what was decided, and new weights
    num_parameters: int = 0

    def __str__(self) -> str:
        lines = [
            f"{len(self.used)} tensors converted, {self.num_parameters / 1e6:.1f} M parameters, in {self.output_dir}"
        ]
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            by_reason.setdefault(reason, []).append(name)
        lines += [f"left out: {some(names)} ({len(names)}: {reason})" for reason, names in by_reason.items()]
        return "\n".join([*lines, *self.notes])

    def write(self, folder: str | os.PathLike, source: str | os.PathLike, model_type: str) -> None:
        """Put it into the converted folder, as `conversion.json`; of the source its name alone."""
        facts = {"source": Path(source).name, "model_type": model_type, **asdict(self)}
        facts.pop("output_dir")
        Path(folder, "conversion.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def some(names: Iterable[str]) -> str:
    """The first few of many names, for a message."""
    names = sorted(names)
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def load_tensors_only(path: str | os.PathLike) -> Any:
    """What a `.pt` or `.bin` file holds, read without running anything in it, and mapped where torch can.

    Raises:
        CheckpointError: the file does not exist, is damaged, or asks for more than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} was not read: it asks for more than tensors and plain containers, which could run code. "
            "Published checkpoints never do; get the file from its authors again."
        ) from None
    except Exception as error:
        # torch answers a broken or foreign file with whatever its readers stumble on (EOFError, RuntimeError, ...).
        raise CheckpointError(
            f"{path} is damaged or no PyTorch checkpoint ({type(error).__name__} when reading it)."
        ) from None


def read_state_dict(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of one file by name, mapped and not copied.

    Raises:
        CheckpointError: see `load_tensors_only`; or something in it is no tensor.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise CheckpointError(f"There is no file {path}.")
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        except SafetensorError as error:
            raise CheckpointError(f"{path} is cut short or no safetensors file ({error}): fetch it again.") from None
    content = load_tensors_only(path)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds no state dict.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"The entry {name!r} of {path} is no tensor: it is no state dict.")
    return content


def read_folder(folder: str | os.PathLike) -> dict[str, torch.Tensor]:
    """All tensors of a model folder: one file, or the shards that an index names.

    Raises:
        CheckpointError: no weights, a shard that is not there, or one that lacks what the index says is in it.
    """
    folder = Path(folder)
    for name in WHOLE_FILES:
        if (folder / name).is_file():
            return read_state_dict(folder / name)
    index_path = next((folder / name for name in INDEX_FILES if (folder / name).is_file()), None)
    if index_path is None:
        raise CheckpointError(f"{folder} holds no weights: looked for {', '.join((*WHOLE_FILES, *INDEX_FILES))}.")
    index = read_json(index_path).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise CheckpointError(f"{index_path} has no `weight_map`: fetch it again.")
    shards = sorted(set(index.values()))
    absent = [shard for shard in shards if not isinstance(shard, str) or not (folder / Path(shard).name).is_file()]
    if absent:
        raise CheckpointError(f"{folder} lacks {len(absent)} of {len(shards)} weight files: {some(map(str, absent))}.")
    tensors: dict[str, torch.Tensor] = {}
    for shard in shards:
        tensors.update(read_state_dict(folder / Path(shard).name))
    lacking = index.keys() - tensors.keys()
    if lacking:
        raise CheckpointError(
            f"The weight files of {folder} lack {len(lacking)} tensors of the index: {some(lacking)}."
        )
    return tensors


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: there is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}).") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object.")
    return content


def check_fit(
    converted: dict[str, torch.Tensor], expected: dict[str, torch.Size], what: str, optional: Iterable[str] = ()
) -> None:
    """That tensors are exactly those of a model, in name and shape, and hold finite numbers.

    Args:
        what: they belong to, for the message.
        optional: names that may be missing.

    Raises:
        CheckpointError: they are not.
    """
    missing = expected.keys() - converted.keys() - set(optional)
    surplus = converted.keys() - expected.keys()
    if missing or surplus:
        raise CheckpointError(
            f"The tensors do not fit {what}."
            + (f" Missing: {some(missing)}." if missing else "")
            + (f" Not in this architecture: {some(surplus)}." if surplus else "")
        )
    for name, tensor in converted.items():
        if tensor.shape != expected[name]:
            raise CheckpointError(
                f"{name} has the shape {tuple(tensor.shape)}, but {what} asks for {tuple(expected[name])}."
            )
        if name.endswith("num_batches_tracked"):
            continue  # the counter of a batch norm
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name} holds values that are not finite floating-point numbers.")


def fresh_folder(output_dir: str | os.PathLike) -> Path:
    """A folder that may be written: to be asked before gigabytes are read.

    Raises:
        FileExistsError: `output_dir` holds something already.
    """
    output = Path(output_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} already exists: choose another folder, or remove it first.")
    return output


@contextmanager
def whole_folder(output_dir: str | os.PathLike) -> Iterator[Path]:
    """A folder beside `output_dir` to write into, which takes its place when all is written, and is gone if not.

    Raises:
        FileExistsError: see `fresh_folder`.
    """
    output = fresh_folder(output_dir)
    partial = output.with_name(f"{output.name}.partial")
    rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        rmtree(partial, ignore_errors=True)
