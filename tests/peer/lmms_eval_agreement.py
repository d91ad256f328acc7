"""Both harnesses, item by item: a task of ours in lmms-eval, and the same benchmark in `saven eval`.

    python tests/peer/lmms_eval_agreement.py [--venv .cache/lmms-eval]

Makes an environment of its own (lmms-eval wants torchvision and much else), a small benchmark of questions about the
world, and runs the embedded tiny model on it in both. Exit code 0 if every answer and verdict is the same.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path


HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1]
LMMS_EVAL = "lmms-eval==0.7.2"
PREPARE = """
import json, sys
from pathlib import Path
from saven_hf.evaluation import WorldBenchmark
from saven_hf.evaluation.lmms_plugin import write_task
out = Path(sys.argv[1])
world = WorldBenchmark("iid", 4, out / "media", forms=["choice"])
rows = [
    {"id": item.id, "video_id": video, "video": str(world.media(video).relative_to(out)), "question": item.question,
     "options": list(item.options), "answer": item.answer, "duration": 10.0}
    for video in world.video_ids for item in world.items(video)
]
(out / "avbench.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
write_task("avbench", out / "avbench.jsonl", out / "tasks")
"""


def call(*words, **options):
    print("+", " ".join(map(str, words)), flush=True)
    return subprocess.run([str(word) for word in words], check=True, **options)


def remove_own_tasks(python: Path) -> None:
    """The wheel of 0.7.2 lacks templates that over a hundred of its own tasks include, and then no task is found."""
    code = "import importlib.util; print(importlib.util.find_spec('lmms_eval').submodule_search_locations[0])"
    found = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    for folder in Path(found.stdout.strip(), "tasks").iterdir():
        if folder.is_dir() and not folder.name.startswith("_"):
            shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=SOURCE / ".cache" / "lmms-eval")
    args = parser.parse_args()
    python = args.venv / "bin" / "python"
    work = args.venv / "work"
    if not (args.venv / "installed").exists():
        call(sys.executable, "-m", "venv", args.venv)
        call(python, "-m", "pip", "install", "-q", LMMS_EVAL, "filelock<3.17", "-e", f"{SOURCE}[eval]")
        remove_own_tasks(python)
        (args.venv / "installed").touch()
    work.mkdir(exist_ok=True)
    call(python, "-c", PREPARE, work)
    ours, theirs = work / "ours", work / "theirs"
    call(python, "-m", "saven_hf.cli", "eval", "--benchmark", "avbench", "--data", work / "avbench.jsonl",
         "--out", ours, "--device", "cpu")  # fmt: skip
    call(python, "-m", "lmms_eval", "--model", "saven", "--model_args", "device=cpu", "--include_path", work / "tasks",
         "--tasks", "avbench", "--log_samples", "--output_path", theirs)  # fmt: skip
    answers = {
        row["id"]: (row["output"], bool(row["correct"]))
        for row in map(json.loads, (ours / "items" / "avbench.plain.jsonl").read_text().splitlines())
    }
    samples = sorted(theirs.rglob("*samples_avbench*.jsonl"))[-1]
    found = {}
    for row in map(json.loads, samples.read_text().splitlines()):
        response = row["filtered_resps"]
        while isinstance(response, list):
            response = response[0]
        found[row["accuracy"]["id"]] = (response, bool(row["accuracy"]["correct"]))
    differing = [one for one in answers if answers[one] != found.get(one)]
    print(f"{len(answers)} items, {len(differing)} differ")
    for one in differing[:10]:
        print(one, answers[one], found.get(one))
    return 1 if differing or len(found) != len(answers) else 0


if __name__ == "__main__":
    sys.exit(main())
