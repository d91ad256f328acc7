"""Write the small sets inside the package, which `load_dataset("savenvid")` and `load_dataset("avbench")` open.

python dataset_scripts/build_embedded.py            # rewrites src/saven_hf/data/embedded
python dataset_scripts/build_embedded.py --check    # exit code 1 if its rows are not what this code would write

Short videos of the procedural world, as mp4 files below `videos`, and rows that name them; for AVBench, of splits that
are held out. Encoders do not promise the same bits twice, so hashes of videos are not compared.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from saven_hf.data.builder import EMBEDDED
from saven_hf.data.hub_folder import read_rows, splits
from saven_hf.data.release import build_avbench, build_savenvid
from saven_hf.data.schema import CONFIGS
from saven_hf.world import build_world, sample_scene


SIDE, SEGMENTS, SECONDS = 64, 4, 14.0
# Of each set: splits of the world and how many short videos of each.
SAVENVID = {"train": 12}
AVBENCH = {"iid": 3, "unseen_pairs": 3, "vfr": 2, "paraphrases": 2}
# Small row groups and files, so that a few workers have something to share.
WRITING = {"shard_bytes": 65_000, "rows_per_group": 15}


def short_videos(split: str, count: int) -> list[int]:
    """Seeds of the first scenes that are short: sound takes 8 kB a second."""
    found, seed = [], 0
    while len(found) < count:
        if sample_scene(seed, split, SEGMENTS).duration <= SECONDS * 1e6:
            found.append(seed)
        seed += 1
    return found


def worlds(root: Path, wanted: dict[str, int]) -> list[Path]:
    """A folder of the world for each scene: its seeds do not follow one another."""
    folders = []
    for split, count in wanted.items():
        for seed in short_videos(split, count):
            folders.append(root / f"{split}-{seed}")
            build_world(folders[-1], 1, seed, split, (SIDE, SIDE), SEGMENTS, progress=False)
    return folders


def write(root: Path) -> None:
    with tempfile.TemporaryDirectory() as made:
        made = Path(made)
        build_savenvid(worlds(made, SAVENVID), root / "savenvid", media="copy", **WRITING)
        against = [root / "savenvid"]
        build_avbench(worlds(made, AVBENCH), root / "avbench", media="copy", against=against, **WRITING)


def rows(folder: Path) -> list[dict]:
    """All rows without what encoders decide."""
    return [
        {**row, "config": config, "media": row.get("media") and row["media"]["file"]}
        for config in CONFIGS
        for split in splits(folder, config)
        for row in read_rows(folder, config, split)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args().check:
        write(EMBEDDED)
        size = sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file())
        print(f"{EMBEDDED}: {size / 1e6:.2f} MB")
        return 0
    with tempfile.TemporaryDirectory() as fresh:
        write(Path(fresh))
        stale = [name.name for name in Path(fresh).iterdir() if rows(name) != rows(EMBEDDED / name.name)]
    if stale:
        print(f"not up to date: {', '.join(stale)}; run dataset_scripts/build_embedded.py", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
