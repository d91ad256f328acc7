"""What ablations.py made, run by run: settings, losses and answers, also of learning rates that were not chosen.

    python benchmarks/ablation_record.py --out runs/ablations --docs docs/ablations_runs.jsonl

Writes one JSON line for each training of the folder: the variant (what it changes of the grid), learning-rate factor,
seed and device; of each stage its updates, the mean loss of the last ones, seconds, and the losses as they fell; the
loss on the check videos; and, of runs that were tested, how many answers were right and what the connector costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saven_hf.evaluation.report import without_nan
from saven_hf.files import written_whole
from saven_hf.training.curves import read_metrics


MOMENTS_EVERY = 20  # updates of the first stage that make up one figure


def records(out: Path) -> Iterator[dict[str, Any]]:
    """One for each training that is complete, by name."""
    for path in sorted(out.glob("runs/*/*/trained.json")):
        folder = path.parent
        trained, config = _read(path), _read(folder / "config.json")
        tested = _read(folder / "result.json") if (folder / "result.json").is_file() else None
        yield {
            "run": str(folder.relative_to(out / "runs")),
            "changes": {
                key: value
                for key, value in config["variant"].items()
                if key != "name" and value not in (None, {}, True)
            },
            **{key: trained[key] for key in ("factor", "seed", "device")},
            "stages": {
                name: {**_numbers(stage), "losses": list(_losses(folder / name))}
                for name, stage in trained["stages"].items()
            },
            "check_loss": round(trained["check_loss"], 4),
            "tested": tested and {**_numbers(tested), "answers": _answers(folder)},
        }


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Of a stage or a test its figures alone, without those of the run."""
    kept = {key: value for key, value in values.items() if key not in ("factor", "seed", "check_loss", "merged")}
    return {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in kept.items()
        if isinstance(value, (int, float))
    }


def _losses(stage: Path) -> Iterator[list[float]]:
    """[update, loss]: of the first stage means, of the others what the trainer logged."""
    if (stage / "losses.jsonl").is_file():
        every = [json.loads(line)["loss"] for line in (stage / "losses.jsonl").read_text().splitlines()]
        for first in range(0, len(every), MOMENTS_EVERY):
            part = every[first : first + MOMENTS_EVERY]
            yield [first + len(part), round(statistics.mean(part), 4)]
        return
    for line in read_metrics(stage / "metrics.jsonl"):
        if "loss" in line:
            yield [line["step"], round(line["loss"], 4)]


def _answers(folder: Path) -> dict[str, dict[str, Any]]:
    """By file of answers and form (of choices also by format): how many there are, and how many are right; of ranges
    the sum of their intersections over unions."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("items/*.jsonl")):
        asked, right = Counter(), Counter()
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            form = row["form"]
            kind = f"{form}, {row['tags']['question_type']}" if form == "choice" else form
            asked[kind] += 1
            right[kind] += row["iou"] if form == "range" else int(row["correct"])
        found[path.stem] = {kind: [round(right[kind], 2), asked[kind]] for kind in sorted(asked)}
    return found


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--docs", required=True, metavar="FILE", help="file to write")
    args = parser.parse_args(words)
    found = list(records(Path(args.out)))
    if not found:
        print(f"{args.out} holds no complete training: run benchmarks/ablations.py first.", file=sys.stderr)
        return 2
    with written_whole(Path(args.docs)) as partial, open(partial, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(without_nan(one)) + "\n" for one in found)
    print(f"{args.docs}: {len(found)} trainings, {sum(one['tested'] is not None for one in found)} of them tested")
    return 0


if __name__ == "__main__":
    sys.exit(main())
