"""lmms-eval: our models in its harness, and our benchmarks as its tasks.

    python -m saven_hf.evaluation.lmms_plugin avbench=AVBench music_avqa=MUSIC-AVQA aveb=SAVE --out tasks
    python -m lmms_eval --model saven --model_args pretrained=DIR --include_path tasks --tasks music_avqa

The model comes by the entry point `lmms_eval.models`. Tasks are folders for `--include_path`, written for the files at
hand, since a task names its media: their items, prompts and verdicts are those of `Benchmark`, so both harnesses score
alike.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..files import written_whole
from .aveb import TASKS
from .benchmarks import Item, Pair
from .catalog import PUBLISHED, open_benchmark
from .media_files import IMAGE_SUFFIXES, SOUND_SUFFIXES
from .published import BenchmarkFileError, PublishedBenchmark
from .text_metrics import caption_metrics, word_error_rate


MODEL_ID = "saven"
_FUNCTIONS = ("doc_to_messages", "doc_to_text", "doc_to_visual", "doc_to_target", "process_results")
# What lmms-eval aggregates, by the form of an item; each is a function of this module.
_METRICS = {
    "choice": ("accuracy",), "range": ("accuracy",), "words": ("accuracy",), "transcript": ("accuracy", "wer"),
    "caption": ("cider", "rouge_l", "bleu_4"),
}  # fmt: skip


def manifest():
    """What the entry point gives lmms-eval."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, chat_class_path="saven_hf.evaluation.lmms_model.SAVEnLmms")


def task_name(benchmark: str, split: str | None = None) -> str:
    """A benchmark's name as tasks of lmms-eval are called: "music_avqa", "aveb_avsd", "music_avqa_test_original"."""
    return "_".join(filter(None, (benchmark, split))).replace("-", "_")


def write_task(
    benchmark: str,
    data: str | os.PathLike,
    out_dir: str | os.PathLike,
    split: str | None = None,
    max_new_tokens: int = 48,
) -> Path:
    """A task of lmms-eval: `<task>/<task>.yaml`, `utils.py` and `items.jsonl`; videos that have to be made lie beside.

    Prompts that depend on the frames a model was shown (subtitles) are written as for a model that tells no times.
    Verdicts are `Benchmark.score`'s, computed when an answer is there, so that `data` has to stay where it is.

    Args:
        benchmark, data, split: as for `open_benchmark`.
        out_dir: folder to hand to `--include_path`.

    Returns:
        The task's folder.

    Raises:
        BenchmarkFileError: see `open_benchmark`.
    """
    name, data = task_name(benchmark, split), str(Path(data).resolve())
    folder = Path(out_dir).resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    opened = open_benchmark(benchmark, data, split, folder / "videos")
    source = {"benchmark": benchmark, "data": data, "split": split or "", "spool": str(folder / "videos")}
    lines, forms = [], set()
    for video in opened.video_ids:
        media = opened.media(video)
        files = [str(path.resolve()) for path in (media if isinstance(media, Pair) else (media,))]
        for item in opened.items(video):
            forms.add(item.form)
            asked = {"id": item.id, "prompt": opened.prompt(item), "answer": item.answer, "files": files}
            lines.append(json.dumps({**source, **asked}, ensure_ascii=False) + "\n")
    metrics = dict.fromkeys(metric for form in _METRICS if form in forms for metric in _METRICS[form])
    yaml = "\n".join([
        f"task: {name}", "dataset_path: json", "dataset_kwargs:", "  data_files:",
        f"    test: {json.dumps(str(folder / 'items.jsonl'))}", "test_split: test",
        "output_type: generate_until", *(f"{function}: !function utils.{function}" for function in _FUNCTIONS),
        "generation_kwargs:", f"  max_new_tokens: {max_new_tokens}", "  temperature: 0", "  do_sample: false",
        "metric_list:",
        *(f"  - metric: {metric}\n    aggregation: !function utils.{metric}\n"
          f"    higher_is_better: {'false' if metric == 'wer' else 'true'}" for metric in metrics),
        "metadata:", "  version: 1.0", "",
    ])  # fmt: skip
    utils = f"from saven_hf.evaluation.lmms_plugin import {', '.join((*_FUNCTIONS, *metrics))}\n"
    for file, text in (("items.jsonl", "".join(lines)), (f"{name}.yaml", yaml), ("utils.py", utils)):
        with written_whole(folder / file) as partial:
            Path(partial).write_text(text, encoding="utf-8")
    return folder


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
    return doc["answer"]


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """What each metric of the item's form is made of, by metric: the verdict of our own rules, with "id"."""
    benchmark, items = _opened(doc["benchmark"], doc["data"], doc["split"] or None, doc["spool"])
    if doc["id"] not in items:
        raise BenchmarkFileError(f"{doc['data']} has no item {doc['id']!r} any more: write the task again.")
    item = items[doc["id"]]
    verdict = benchmark.score(item, results[0])
    if item.form == "caption":
        found = {"caption": results[0], "references": list(item.references or (item.answer,))}
    else:
        found = {"correct": bool(verdict["correct"])}
        found |= {name: verdict[name] for name in ("errors", "words") if name in verdict}
    return {metric: {"id": item.id, "video_id": item.video_id, **found} for metric in _METRICS[item.form]}


def accuracy(results: Sequence[dict[str, Any]]) -> float:
    return sum(one["correct"] for one in results) / len(results) if results else float("nan")


def wer(results: Sequence[dict[str, Any]]) -> float:
    """Word error rate of the corpus."""
    errors, words = ([one[name] for one in results] for name in ("errors", "words"))
    return word_error_rate(errors, words, [one["video_id"] for one in results])["value"]


def _of_captions(metric: str) -> Callable[[Sequence[dict[str, Any]]], float]:
    def aggregate(results: Sequence[dict[str, Any]]) -> float:
        captions, references = ([one[name] for one in results] for name in ("caption", "references"))
        found = caption_metrics(captions, references, [one["video_id"] for one in results], meteor=False)
        value = found.get(metric, float("nan"))  # a corpus of one has no CIDEr
        return value["value"] if isinstance(value, dict) else value

    aggregate.__doc__ = f"{metric} of the corpus, see `caption_metrics`."
    return aggregate


cider, rouge_l, bleu_4 = map(_of_captions, _METRICS["caption"])


@lru_cache
def _opened(name: str, data: str, split: str | None, spool: str) -> tuple[PublishedBenchmark, dict[str, Item]]:
    benchmark = open_benchmark(name, data, split, spool)
    return benchmark, {item.id: item for video in benchmark.video_ids for item in benchmark.items(video)}


def _kind(path: str) -> str:
    suffix = Path(path).suffix.lower()
    return "image" if suffix in IMAGE_SUFFIXES else "audio" if suffix in SOUND_SUFFIXES else "video"


# ---------------------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Writes tasks for the published files at hand."""
    names = {task_name(one): one for one in PUBLISHED}
    parser = argparse.ArgumentParser(prog="python -m saven_hf.evaluation.lmms_plugin", description=main.__doc__)
    parser.add_argument(
        "tasks", nargs="+", metavar="TASK=DATA",
        help=f"published files and media of a task: {', '.join(names)}; aveb stands for all aveb_* that DATA has",
    )  # fmt: skip
    parser.add_argument("--split", help="of the benchmark, for a single task")
    parser.add_argument("--out", required=True, help="folder for --include_path")
    args = parser.parse_args(argv)
    wanted = [word.partition("=")[::2] for word in args.tasks]
    for name, data in wanted:
        if name not in (*names, "aveb") or not data:
            parser.error(f"{name}={data} is no TASK=DATA with one of {', '.join(names)}, aveb")
    if args.split and len(wanted) > 1:
        parser.error("--split is for a single task")
    try:
        for name, data in wanted:
            if name == "aveb":
                _write_all_of_aveb(data, args.out)
            else:
                print(write_task(names[name], data, args.out, args.split))
    except BenchmarkFileError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _write_all_of_aveb(data: str, out: str) -> None:
    """Every task that a folder has the files of; says which it has not.

    Raises:
        BenchmarkFileError: it has those of none.
    """
    lacking = {}
    for task in TASKS:
        try:
            print(write_task(f"aveb-{task}", data, out))
        except BenchmarkFileError as error:
            lacking[task] = error
            print(f"no {task_name(f'aveb-{task}')}: {error}", file=sys.stderr)
    if len(lacking) == len(TASKS):
        raise BenchmarkFileError(f"{data} has the files of no task of AVEB.")


if __name__ == "__main__":
    sys.exit(main())
