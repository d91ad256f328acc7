"""lmms-eval: our models in its harness, and our benchmarks as its tasks.

    python -m saven_hf.evaluation.lmms_plugin music-avqa --data MUSIC-AVQA --out tasks
    python -m lmms_eval --model saven --model_args pretrained=DIR --include_path tasks --tasks music-avqa-test

The model comes by the entry point `lmms_eval.models`. Tasks are folders for `--include_path`, written for the files at
hand: their items, prompts and verdicts are those of `Benchmark`, so both harnesses score alike.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import written_whole
from .benchmarks import Benchmark, Item, Pair


MODEL_ID = "saven"
_FUNCTIONS = ("doc_to_messages", "doc_to_text", "doc_to_visual", "doc_to_target", "process_results")
_UTILS = f"from saven_hf.evaluation.lmms_plugin import accuracy, {', '.join(_FUNCTIONS)}\n"
_SCORED = ("choice", "words", "range", "transcript")  # a caption has no verdict of its own


def manifest():
    """What the entry point gives lmms-eval."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, chat_class_path="saven_hf.evaluation.lmms_model.SAVEnLmms")


def write_task(benchmark: Benchmark, out_dir: str | os.PathLike, max_new_tokens: int = 48) -> Path:
    """A task of lmms-eval: `<name>/<name>.yaml`, `utils.py` and `items.jsonl`.

    Prompts that depend on the frames a model was shown (subtitles) are written as for a model that tells no times.
    Verdicts are `benchmark.score`'s, computed when an answer is there.

    Returns:
        The folder to hand to `--include_path`.
    """
    folder = Path(out_dir) / benchmark.name
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for video in benchmark.video_ids:
        media = benchmark.media(video)
        files = [str(path.resolve()) for path in (media if isinstance(media, Pair) else (media,))]
        for item in benchmark.items(video):
            if item.form in _SCORED:
                row = json.dumps(item.as_row(), ensure_ascii=False)
                doc = {
                    "item": row,
                    "prompt": benchmark.prompt(item),
                    "files": files,
                    "scorer": _scorer_name(benchmark),
                }
                lines.append(json.dumps(doc, ensure_ascii=False) + "\n")
    with written_whole(folder / "items.jsonl") as partial:
        Path(partial).write_text("".join(lines), encoding="utf-8")
    yaml = "\n".join([
        f"task: {benchmark.name}", "dataset_path: json", "dataset_kwargs:", "  data_files:",
        f"    test: {json.dumps(str((folder / 'items.jsonl').resolve()))}", "test_split: test",
        "output_type: generate_until", *(f"{name}: !function utils.{name}" for name in _FUNCTIONS),
        "generation_kwargs:", f"  max_new_tokens: {max_new_tokens}", "  temperature: 0", "  do_sample: false",
        "metric_list:", "  - metric: accuracy", "    aggregation: !function utils.accuracy",
        "    higher_is_better: true", "metadata:", "  version: 1.0", "",
    ])  # fmt: skip
    for name, text in ((f"{benchmark.name}.yaml", yaml), ("utils.py", _UTILS)):
        with written_whole(folder / name) as partial:
            Path(partial).write_text(text, encoding="utf-8")
    return Path(out_dir)


# ---------------------------------------------------------------------------------------------------------------------
# What a task's YAML names


def doc_to_messages(doc: dict[str, Any], lmms_eval_specific_kwargs: dict | None = None) -> list[dict[str, Any]]:
    media = [{"type": _kind(path), "url": path} for path in doc["files"]]
    return [{"role": "user", "content": [*media, {"type": "text", "text": doc["prompt"]}]}]


def doc_to_text(doc: dict[str, Any], lmms_eval_specific_kwargs: dict | None = None) -> str:
    return doc["prompt"]


def doc_to_visual(doc: dict[str, Any]) -> list[str]:
    return list(doc["files"])


def doc_to_target(doc: dict[str, Any]) -> str:
    return json.loads(doc["item"])["answer"]


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """{"accuracy": {"id", "correct"}}: the verdict of our own rules."""
    item = item_of(doc)
    verdict = _scorer(doc["scorer"])(item, results[0])
    return {"accuracy": {"id": item.id, "correct": bool(verdict["correct"])}}


def accuracy(results: Sequence[dict[str, Any]]) -> float:
    return sum(one["correct"] for one in results) / len(results) if results else float("nan")


def item_of(doc: dict[str, Any]) -> Item:
    row = json.loads(doc["item"])
    return Item(**row | {name: tuple(row.get(name, ())) for name in ("options", "references")})


def _scorer_name(benchmark: Benchmark) -> str:
    """The class, and behind a colon the little that its verdicts depend on."""
    kind = type(benchmark).__qualname__
    detail = {"AVEB": benchmark.name.removeprefix("aveb-"), "OpenQA": getattr(benchmark, "rules", None) or ""}
    return f"{kind}:{detail.get(kind, '')}"


def _scorer(name: str):
    """A benchmark's `score` without its files: it looks at nothing but item and answer."""
    from . import AVEB, AVBench, MusicAVQA, OpenQA, VideoMME
    from .aveb import TASKS

    kind, _, detail = name.partition(":")
    known = {one.__qualname__: one for one in (AVBench, MusicAVQA, VideoMME, OpenQA, AVEB)}
    bare = known[kind].__new__(known[kind])
    if kind == "AVEB":
        bare.task = TASKS[detail]
    if kind == "OpenQA":
        bare.rules = detail or None
    return bare.score


def _kind(path: str) -> str:
    suffix = Path(path).suffix.lower()
    if suffix in (".jpg", ".jpeg", ".png", ".webp"):
        return "image"
    return "audio" if suffix in (".wav", ".flac", ".mp3", ".m4a", ".opus", ".ogg") else "video"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes a task from the command line."""
    from .catalog import PUBLISHED, open_benchmark

    parser = argparse.ArgumentParser(prog="python -m saven_hf.evaluation.lmms_plugin", description=main.__doc__)
    parser.add_argument("benchmark", choices=PUBLISHED)
    parser.add_argument("--data", required=True, help="the published files and media")
    parser.add_argument("--split", help="of the benchmark")
    parser.add_argument("--out", required=True, help="folder for --include_path")
    args = parser.parse_args(argv)
    benchmark = open_benchmark(args.benchmark, args.data, args.split, Path(args.out) / "videos")
    print(write_task(benchmark, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
