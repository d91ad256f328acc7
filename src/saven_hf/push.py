"""Upload a dataset, a model or a Space with its card: `saven push`.

    plan = plan_upload("savenvid", "me/savenvid")  # looks, but sends nothing
    print(plan)
    push(plan)

What is sent is exactly what the plan lists; huggingface_hub does the sending, and an interrupted upload goes on where
it was when it is run again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .cards import is_untouched, signed
from .files import written_whole
from .hub import WEIGHT_FILES
from .model_cards import (
    ADAPTER_FILE,
    CARD_FILE,
    RESULTS_FILE,
    Result,
    gather_results,
    model_card,
    results_json,
    space_card,
    write_results,
)


REPO_TYPES = ("dataset", "model", "space")
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

# What lies beside results and is none, by pattern and reason; "*" also stands for "/".
_LEFT_OUT = {
    "*.partial": "not complete",
    ".env*": "may hold secrets",
    "*/.env*": "may hold secrets",
    "*.pem": "may hold secrets",
    "*__pycache__/*": "made by Python",
    "*.pyc": "made by Python",
    ".DS_Store": "made by the file manager",
    "*/.DS_Store": "made by the file manager",
    ".cache/*": "a cache",
    "*/.cache/*": "a cache",
    "work/*": "state of building",
    "quarantine.jsonl": "state of building",
    "checkpoint-*/*": "state of training",
    "*optimizer.pt": "state of training",
    "*scheduler.pt": "state of training",
    "*rng_state*.pth": "state of training",
    "training_args.bin": "state of training",
    "merged/*": "a model of its own: push it by itself",
}


class PushError(ValueError):
    """What was asked for cannot be uploaded; the message says what to do."""


@dataclass(frozen=True)
class UploadPlan:
    """What would go.

    Attributes:
        folder: that is uploaded.
        repo_id: "namespace/name".
        repo_type: "dataset", "model" or "space".
        files: (name, bytes) of all that would be there, sorted; a card that is made is among them.
        left_out: (name, reason) of what lies in the folder and stays here.
        notes: what a person should know before.
        made_card: text of the card, where the folder has none that a person wrote; it is written to the folder before
            uploading.
        results: measured, that go into the folder beside the card.
        space_sdk: of a Space, such as "gradio".
    """

    folder: Path
    repo_id: str
    repo_type: str
    files: tuple[tuple[str, int], ...]
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    made_card: str | None = None
    space_sdk: str | None = None
    results: tuple[Result, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "repo_id": self.repo_id,
            "repo_type": self.repo_type,
            "files": [{"name": name, "bytes": size} for name, size in self.files],
            "bytes": self.bytes,
            "left_out": [{"name": name, "reason": reason} for name, reason in self.left_out],
            "notes": list(self.notes),
            "made_card": self.made_card,
            "results": len(self.results),
        }

    def _left_out_lines(self) -> Iterator[str]:
        """A line for each folder or file that stays whole behind, and why."""
        counts = Counter((name.split("/")[0] + "/" * ("/" in name), reason) for name, reason in self.left_out)
        for (name, reason), count in counts.items():
            yield f"{name} ({count} files: {reason})" if name.endswith("/") else f"{name} ({reason})"

    def __str__(self) -> str:
        lines = [f"{self.repo_type} {self.repo_id}: {len(self.files)} files, {_readable(self.bytes)}"]
        lines += [
            f"  {_readable(size):>9}  {name}{' (made)' if name == CARD_FILE and self.made_card else ''}"
            for name, size in self.files
        ]
        lines += [f"  left out: {line}" for line in self._left_out_lines()]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def plan_upload(
    folder: str | os.PathLike,
    repo_id: str,
    repo_type: str | None = None,
    results: Sequence[str | os.PathLike] = (),
) -> UploadPlan:
    """Look at a folder and say what would be uploaded; nothing is sent or written, and no network is needed.

    Args:
        folder: of a dataset (what `dataset_scripts/`, `saven build` or `saven world` wrote), a model or adapter (what
            `saven train` or `save_pretrained` wrote), or a Space (`spaces/`).
        repo_id: "namespace/name".
        repo_type: "dataset", "model" or "space"; None: told by the folder's files.
        results: folders of `saven eval` that measured the model, for its card; without any, what `results.json` in the
            folder says.

    Raises:
        PushError: the folder is none of these, or would not work from the Hub.
        CardError: results that cannot be read.
    """
    from huggingface_hub import RepoCard
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    folder = Path(folder)
    if not folder.is_dir():
        raise PushError(f"{folder} is no folder.")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(f"{repo_id!r} is no name of a repository: {error}") from None
    if repo_id.count("/") != 1:
        raise PushError(f"{repo_id!r} has no namespace: write it as your-name/{repo_id}.")
    if repo_type not in (None, *REPO_TYPES):
        raise PushError(f"There is no type {repo_type!r}: one of {', '.join(REPO_TYPES)}.")
    files, left_out = _files(folder)
    kind = repo_type or _kind(folder, files)
    card = _read_card(folder)
    notes, made, measured = list(_CHECKS[kind](folder, files, card)), None, ()
    if results:
        if kind != "model":
            raise PushError(f"{folder} is a {kind}: results are measured of a model.")
        measured = tuple(gather_results(results))
        files[RESULTS_FILE] = len(results_json(measured).encode())
    if kind == "dataset" and card is None:
        raise PushError(f"{folder} has no {CARD_FILE}: a dataset needs its card.")
    if kind == "model" and (card is None or is_untouched((folder / CARD_FILE).read_text(encoding="utf-8"))):
        made = signed(model_card(folder, repo_id, measured or None))
    elif measured:
        notes.append(f"a person wrote {CARD_FILE}, so it stays as it is: the results are in {RESULTS_FILE} alone.")
    if kind == "space" and card is None:
        made = signed(space_card(folder, repo_id))
    if made is not None:
        files[CARD_FILE] = len(made.encode())
        card = RepoCard(made, ignore_metadata_errors=False).data.to_dict()
    if kind != "space" and not card.get("license"):
        notes.append(f"the card names no licence: add `license:` to the top of {CARD_FILE}.")
    listed = tuple(sorted(files.items()))
    return UploadPlan(
        folder, repo_id, kind, listed, tuple(left_out), tuple(notes), made, card.get("sdk"), results=measured
    )


def push(
    plan: UploadPlan,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> str:
    """Upload what a plan lists, to the Hub or to the server that HF_ENDPOINT names.

    Args:
        private: whether a repository that does not exist yet is made for oneself alone; None: the namespace's default.
        revision: branch; it must exist.
        message: of the commit.
        create_pr: open a pull request instead of committing.
        token: of the Hub; by default the one that `hf auth login` stored, or HF_TOKEN.

    Returns:
        Address of the commit, or of the pull request.

    Raises:
        PushError: the server cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # its own: which package that is depends on its version

    api = HfApi(token=token)
    if plan.results:
        write_results(plan.folder, plan.results)
    if plan.made_card is not None:
        with written_whole(plan.folder / CARD_FILE) as partial:
            Path(partial).write_text(plan.made_card, encoding="utf-8")
    try:
        api.create_repo(
            plan.repo_id, repo_type=plan.repo_type, private=private, exist_ok=True, space_sdk=plan.space_sdk
        )
        commit = api.upload_folder(
            repo_id=plan.repo_id,
            repo_type=plan.repo_type,
            folder_path=plan.folder,
            # The names themselves, not patterns: what the plan says is what goes.
            allow_patterns=[_literal(name) for name, _ in plan.files],
            revision=revision,
            commit_message=message or f"Upload {plan.repo_type} with saven push",
            create_pr=create_pr,
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        hint = ": log in with `hf auth login`, with a token that may write" if status in (401, 403) else ""
        raise PushError(f"{api.endpoint} refused ({_one_line(error)}){hint}.") from error
    except (httpx.TransportError, OSError) as error:
        raise PushError(f"{api.endpoint} cannot be reached ({_one_line(error)}); run it again to go on.") from error
    return str(commit.pr_url or commit.commit_url)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _literal(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _readable(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


# ------------------------------------------------------------------------------------------------------------- looking


def _files(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Names and sizes of what would go, and names and reasons of what would not."""
    from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS

    found: dict[str, int] = {}
    left_out = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        if any(fnmatch(name, pattern) for pattern in DEFAULT_IGNORE_PATTERNS):
            continue  # of git and of the Hub's own client: nobody expects these to go
        why = next((reason for pattern, reason in _LEFT_OUT.items() if fnmatch(name, pattern)), None)
        if why is None and not path.resolve().is_relative_to(folder.resolve()):
            why = "a link that leads out of the folder"
        if why is None:
            found[name] = path.stat().st_size
        else:
            left_out.append((name, why))
    return found, left_out


def _kind(folder: Path, files: dict[str, int]) -> str:
    if (_read_card(folder) or {}).get("sdk"):
        return "space"
    if "config.json" in files or ADAPTER_FILE in files:
        return "model"
    if any(name.endswith(".parquet") for name in files):
        return "dataset"
    raise PushError(
        f"{folder} is no dataset (no parquet files), no model (no config.json) and no Space (no `sdk:` in "
        f"{CARD_FILE}): say what it is with --type."
    )


def _read_card(folder: Path) -> dict[str, Any] | None:
    """The YAML of the folder's card; None if there is no card."""
    from huggingface_hub import RepoCard

    path = folder / CARD_FILE
    if not path.is_file():
        return None
    try:
        return RepoCard.load(path, ignore_metadata_errors=False).data.to_dict()
    except Exception as error:  # whatever the YAML parser says
        raise PushError(f"The card {path} cannot be read: {_one_line(error)}") from error


def _check_dataset(folder: Path, files: dict[str, int], card: dict[str, Any] | None) -> Iterator[str]:
    from .data.hub_folder import SHARD_BYTES

    data = {name for name in files if name.endswith(".parquet")}
    if not data:
        raise PushError(f"{folder} holds no parquet files: build the dataset first.")
    listed = set()
    for config in (card or {}).get("configs") or ():
        for part in config.get("data_files") or ():
            patterns = [part["path"]] if isinstance(part["path"], str) else part["path"]
            matching = {name for name in data for pattern in patterns if fnmatch(name, pattern)}
            if not matching:
                raise PushError(
                    f"The card's configuration {config.get('config_name')!r} has a split {part.get('split')!r} of "
                    f"{', '.join(patterns)}, which no file matches: build the dataset again."
                )
            listed |= matching
    if data - listed:
        yield f"the card's configurations do not name {len(data - listed)} files, such as {min(data - listed)}."
    for name in sorted(data):
        if files[name] > SHARD_BYTES:
            yield f"{name} has {_readable(files[name])}: shards of at most {_readable(SHARD_BYTES)} stream better."
        if not _is_parquet(folder / name):
            raise PushError(f"{folder / name} is no complete parquet file: build the dataset again.")


def _is_parquet(path: Path) -> bool:
    if path.stat().st_size < 12:
        return False
    with open(path, "rb") as file:
        start = file.read(4)
        file.seek(-4, os.SEEK_END)
        return start == b"PAR1" == file.read(4)


def _check_model(folder: Path, files: dict[str, int], _: dict[str, Any] | None) -> Iterator[str]:
    if ADAPTER_FILE in files:
        if not any(name in files for name in _ADAPTER_WEIGHTS):
            raise PushError(f"{folder} has {ADAPTER_FILE}, but no weights of an adapter.")
        base = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
        if os.path.isabs(base) or os.path.exists(base):
            yield (
                f"{ADAPTER_FILE} names a folder of this machine as its base ({base}), which nobody else has: push the "
                "base as well and name it there, or push merged/ instead."
            )
        return
    if "config.json" not in files:
        raise PushError(f"{folder} has no config.json: it is no model folder.")
    if not any(name in files for name in WEIGHT_FILES):
        yield "there are no weights: who loads it starts from random ones."
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    modules = {f"{reference.split('.')[0]}.py" for reference in (config.get("auto_map") or {}).values()}
    missing = sorted(module for module in modules if module not in files)
    if missing:
        yield (
            f"config.json names {', '.join(missing)}, which are not here: it loads only where saven_hf is installed. "
            "`model.save_pretrained` writes them."
        )


def _check_space(folder: Path, files: dict[str, int], card: dict[str, Any] | None) -> Iterator[str]:
    if card is None and "app.py" not in files:
        raise PushError(f"{folder} has neither {CARD_FILE} nor app.py: it is no Space.")
    card = card if card is not None else {"sdk": "gradio"}
    if not card.get("sdk"):
        raise PushError(f"{folder} has no {CARD_FILE} with `sdk:`: it is no Space.")
    app = card.get("app_file", "app.py")
    if card["sdk"] == "gradio" and app not in files:
        raise PushError(f"The Space's card names {app} as the application, which is not in {folder}.")
    if card["sdk"] == "gradio" and "requirements.txt" not in files:
        yield "there is no requirements.txt: the Space has gradio and nothing else."


_CHECKS = {"dataset": _check_dataset, "model": _check_model, "space": _check_space}
