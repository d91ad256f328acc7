"""List the videos of a corpus on disk, one path a line, for `saven build`.

python dataset_scripts/list_videos.py nextqa nextqa --split train --missing skip > train.txt
saven build $(cat train.txt) --out built/nextqa --source nextqa
"""

import argparse
import sys

from saven_hf.data.corpora import CORPORA, SPLITS, open_corpus
from saven_hf.data.messages import DataError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=list(CORPORA))
    parser.add_argument("root", help="its folder; saven_hf/data/corpora.py says how it must look")
    parser.add_argument("--split", choices=SPLITS, help="(default: all that it has)")
    parser.add_argument(
        "--missing", choices=("error", "skip"), default="error", help="what to do about lacking videos"
    )
    arguments = parser.parse_args()
    try:
        for video in open_corpus(arguments.corpus, arguments.root, arguments.split, arguments.missing):
            print(video.path)
    except DataError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
