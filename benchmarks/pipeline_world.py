"""Are the rows right that `saven build` makes of world videos, measured and told by the oracle?

    python benchmarks/pipeline_world.py [--videos 50]

Videos of the world (split `iid`) are built with `signal` and with `oracle` and read back with `load_dataset`. Every
row is held against the schema, every time in it (spans, evidence, times in texts) against its video, every question
against the rules of its format. Then a solver that imports nothing of the world answers the oracle's questions from
the captions in the dataset: both, one of them, none. Ends with status 1 if a row is wrong, or the solver is below 95 %
with both captions or above what the best guesser reaches with one.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from datasets import Video, load_dataset

from saven_hf.data.prompts import LETTERS
from saven_hf.data.schema import OPTIONS, row_problems
from saven_hf.pipeline import Settings, build_dataset
from saven_hf.savenvideo.times import parse_times
from saven_hf.world import make_questions, sample_scene, write_video


sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "pipeline"))
from world_solver import answer  # noqa: E402 - beside the tests, because it knows nothing of the world


FIRST_SEED = 20_000
TEXTS = ("question", "options", "visual_caption", "audio_caption", "av_caption", "messages")


def read(out: Path) -> dict[str, list[dict]]:
    rows = {}
    for config in ("qa", "captions", "videos", "sft"):
        found = load_dataset(str(out), config, split="train", cache_dir=str(out) + ".cache")
        for column in ("video", "videos"):
            if column in found.column_names and config != "sft":
                found = found.cast_column(column, Video(decode=False))
        rows[config] = list(found.remove_columns("videos") if config == "sft" else found)
    return rows


def problems(rows: dict[str, list[dict]]) -> Iterator[str]:
    durations = {row["video_id"]: row["duration"] for row in rows["videos"]}
    for config in ("qa", "captions", "videos", "sft"):
        for row in rows[config]:
            row = row | {"videos": []} if config == "sft" else row  # read without them
            name, duration = row["video_id"], durations[row["video_id"]]
            yield from (f"{name} {config} {column}: {text}" for column, text in row_problems(row, config, duration))
            texts = " ".join(str(row[column]) for column in TEXTS if column in row)
            late = [time / 1e6 for time in parse_times(texts) if time / 1e6 > duration + 1e-3]
            spans = [*row.get("evidence", []), *([[row["start"], row["end"]]] if row.get("start") is not None else [])]
            late += [end for start, end in spans if not 0 <= start < end <= duration + 1e-3]
            yield from (f"{name} {config}: {time:g} s is outside of {duration:g} s" for time in late)
    for row in rows["qa"]:
        for check in ("format", "consistency"):
            if row["checks"][check]["passed"] is False:
                yield f"{row['id']} {check}: {row['checks'][check]['detail']}"


def guessed(questions: list[dict]) -> dict[str, float]:
    """Share of questions that guessers get right who see the options alone, and know all other questions' answers."""
    offered = Counter(option for row in questions for option in row["options"])
    right = Counter(row["options"][LETTERS.index(row["answer"])] for row in questions)
    hits = Counter()
    for row in questions:
        own = row["options"][LETTERS.index(row["answer"])]
        # Without this question; an option never seen elsewhere counts as right in a quarter of cases.
        rates = {option: (right[option] - (option == own) + 0.25) / offered[option] for option in row["options"]}
        hits["most often right elsewhere"] += max(rates, key=rates.get) == own
        hits["longest"] += max(row["options"], key=len) == own
        hits["shortest"] += min(row["options"], key=len) == own
    return {name: count / len(questions) for name, count in hits.items()}


def solved(rows: dict[str, list[dict]]) -> dict[str, tuple[float, float]]:
    """Share of right answers by what is known, and what the best guesser that knows as much reaches."""
    captions = {row["video_id"]: (row["visual_caption"], row["audio_caption"]) for row in rows["videos"]}
    right, best, chances = Counter(), Counter(), {}
    for number, row in enumerate(rows["qa"]):
        if row["video_id"] not in chances:
            scene = sample_scene(int(row["video_id"][-8:]), "iid")
            chances[row["video_id"]] = {one.text: one.chance for one in make_questions(scene)}
        chance = chances[row["video_id"]][row["question"]]
        visual, audio = captions[row["video_id"]]
        for name, known, most in (
            ("both captions", (visual, audio), 1.0),
            ("picture alone", (visual, None), chance.picture),
            ("sound alone", (None, audio), chance.sound),
            ("neither", (None, None), chance.text),
        ):
            chosen = answer(row["question"], row["options"], *known, seed=random.Random(number).random())
            right[name] += chosen == row["answer"]
            best[name] += most
    return {name: (right[name] / len(rows["qa"]), best[name] / len(rows["qa"])) for name in right}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=50)
    arguments = parser.parse_args()
    is_wrong = False
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        videos.mkdir()
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.videos):
            scene = sample_scene(seed, "iid")
            write_video(scene, videos / f"{scene.video_id}.mp4")
        for annotator in ("signal", "oracle"):
            result = build_dataset([videos], Path(folder) / annotator, Settings(annotator), progress=False)
            rows = read(Path(folder) / annotator)
            wrong = list(problems(rows))
            is_wrong |= bool(wrong or result["quarantined"])
            print(
                f"{annotator}: {result['videos']} videos, {result['segments']} segments, {result['questions']} "
                f"questions, {len(result['quarantined'])} put aside, {len(wrong)} problems",
                *wrong[:20],
                sep="\n  ",
            )
            letters = Counter(row["answer"] for row in rows["qa"])
            print("  right letters:", ", ".join(f"{letter} {letters[letter]}" for letter in LETTERS[:OPTIONS]))
            for check in ("leakage", "visual_only", "audio_only", "redundancy", "option_length"):
                failed = sum(row["checks"][check]["passed"] is False for row in rows["qa"])
                print(f"  {check}: {failed} of {len(rows['qa'])} fail")
            for name, share in guessed(rows["qa"]).items():
                print(f"  guesser that takes the option {name}: {share:.3f}")
        for name, (share, best) in solved(rows).items():
            print(f"solver on the oracle's rows, {name:14} {share:.3f}   best {best:.3f}")
            noise = 2 * (0.25 / len(rows["qa"])) ** 0.5
            is_wrong |= share < 0.95 if name == "both captions" else share > best + noise
    sys.exit(int(is_wrong))


if __name__ == "__main__":
    main()
