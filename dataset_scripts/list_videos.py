"""List the videos of a corpus on disk for `saven build`: with --json all that is known of each, else paths.

python dataset_scripts/list_videos.py nextqa corpora/nextqa --split train --missing skip --json > train.jsonl
saven build --list train.jsonl --out built/nextqa --source nextqa
"""

import argparse
import json
import os
import sys

from saven_hf.data.corpora import CORPORA, SPLITS, SourceVideo, open_corpus
from saven_hf.data.messages import DataError
from saven_hf.pipeline.build import identifier_of


def listed(video: SourceVideo, root: str) -> dict:
    """What `saven_hf.pipeline.read_list` takes of a video; its file is named below the corpus' folder."""
    return {
        "id": identifier_of(video.id),
        "path": os.path.abspath(video.path),
        "file": video.path.relative_to(root).as_posix(),
        "source": video.source,
        "split": video.split,
        "origin": video.origin,
        "start": video.start,
        "end": video.end,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=list(CORPORA))
    parser.add_argument("root", help="its folder; saven_hf/data/corpora.py says how it must look")
    parser.add_argument("--split", choices=SPLITS, help="(default: all that it has)")
    parser.add_argument(
        "--missing", choices=("error", "skip"), default="error", help="what to do about lacking videos"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line: id, path, origin and more")
    arguments = parser.parse_args()
    try:
        for video in open_corpus(arguments.corpus, arguments.root, arguments.split, arguments.missing):
            print(json.dumps(listed(video, arguments.root)) if arguments.json else video.path)
    except DataError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
