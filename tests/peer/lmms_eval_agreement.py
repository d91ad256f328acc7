"""Both harnesses, item by item: tasks of ours in lmms-eval, and the same benchmarks in `saven eval`.

    python tests/peer/lmms_eval_agreement.py [--venv .cache/lmms-eval]

Makes an environment of its own (lmms-eval wants torchvision and much else), small benchmarks about the world in the
published formats (choices, answer words, captions), and runs the embedded tiny model on them in both. Exit code 0 if
every answer and verdict is the same.
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
# Benchmark and the files it is read from, below the working folder.
BENCHMARKS = {
    "avbench": "avbench.jsonl", "music-avqa": "music", "aveb-video-qa": "save", "aveb-avsd": "save",
}  # fmt: skip
PREPARE = """
import json, os, sys
from pathlib import Path
from saven_hf.evaluation import WorldBenchmark
out = Path(sys.argv[1])
world = WorldBenchmark("iid", 4, out / "media", forms=["choice"])
items = [(video, item) for video in world.video_ids for item in world.items(video)]
media = {video: world.media(video) for video in world.video_ids}

def write(name, rows, lines=False):
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text("".join(json.dumps(row) + "\\n" for row in rows) if lines else json.dumps(rows))

write("avbench.jsonl", [
    {"id": item.id, "video_id": video, "video": str(media[video].relative_to(out)), "question": item.question,
     "options": list(item.options), "answer": item.answer, "duration": 10.0}
    for video, item in items
], lines=True)
write("music/json_update/avqa-test.json", [
    {"video_id": f"{at:08d}", "question_id": 2 * at + number, "type": '["Audio-Visual", "Existential"]',
     "question_content": "Is there a <Object> sound?", "templ_values": f'["{sound}"]', "anser": "yes"}
    for at in range(len(media)) for number, sound in enumerate(("flute", "piano"))
])
write("save/nextqa_test.json", [
    {"image": media[video].name, "question": item.question, "answer": item.options["ABCD".index(item.answer)],
     "answer_candidates": list(item.options)}
    for video, item in items
])
write("save/avsd_subset.json", [
    {"image_name": [file.name, file.with_suffix(".wav").name],
     "conversation": [["What is seen first?", "A shape."], ["And what is heard with it?", "it is a low tone"]]}
    for file in media.values()
])
(out / "music" / "videos").mkdir()
for at, file in enumerate(media.values()):
    os.link(file, out / "music" / "videos" / f"{at:08d}.mp4")
    os.link(file, out / "save" / file.name)
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
    if work.exists():
        shutil.rmtree(work)  # what an earlier version answered
    work.mkdir()
    call(python, "-c", PREPARE, work)
    tasks = {name.replace("-", "_"): work / file for name, file in BENCHMARKS.items()}
    call(python, "-m", "saven_hf.evaluation.lmms_plugin", *(f"{task}={data}" for task, data in tasks.items()),
         "--out", work / "tasks")  # fmt: skip
    for name, file in BENCHMARKS.items():
        call(python, "-m", "saven_hf.cli", "eval", "--benchmark", name, "--data", work / file,
             "--out", work / "ours" / name, "--device", "cpu")  # fmt: skip
    call(python, "-m", "lmms_eval", "--model", "saven", "--model_args", "device=cpu", "--include_path", work / "tasks",
         "--tasks", ",".join(tasks), "--log_samples", "--output_path", work / "theirs")  # fmt: skip
    agreements = [agree(work, name) for name in BENCHMARKS]
    return 0 if all(agreements) else 1


def agree(work: Path, name: str) -> bool:
    """Whether both gave the same answers and verdicts; prints those that differ."""
    (items,) = (work / "ours" / name / "items").glob("*.plain.jsonl")
    ours = {row["id"]: (row["output"], row.get("correct")) for row in map(json.loads, items.read_text().splitlines())}
    (samples,) = (work / "theirs").rglob(f"*samples_{name.replace('-', '_')}.jsonl")
    theirs = {}
    for row in map(json.loads, samples.read_text().splitlines()):
        response = row["filtered_resps"]
        while isinstance(response, list):
            response = response[0]
        verdict = next(row[metric] for metric in ("accuracy", "cider") if metric in row)
        theirs[verdict["id"]] = (response, verdict.get("correct"))
    differing = [one for one in ours.keys() | theirs.keys() if ours.get(one) != theirs.get(one)]
    said = len({output for output, _ in ours.values()})
    print(f"{name}: {len(ours)} items, {said} different answers, {len(differing)} differ")
    for one in differing[:10]:
        print(one, ours.get(one), theirs.get(one))
    return bool(ours) and not differing


if __name__ == "__main__":
    sys.exit(main())
