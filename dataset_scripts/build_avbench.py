"""Put AVBench together from folders of `saven build` and `saven world`, ready for the review Space and `saven push`.

saven world --out world --videos 100 --split iid
python dataset_scripts/build_avbench.py world --out avbench --against savenvid
python dataset_scripts/build_avbench.py built/videomme --out avbench --media reference --reviews reviews.jsonl

Only test splits are taken, of videos with at least three events, and only questions that no check failed.
"""

import argparse
import sys

from build_savenvid import add_common, common, report

from saven_hf.data.messages import DataError
from saven_hf.data.release import TEST_CHECKS, build_avbench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser, TEST_CHECKS)
    parser.add_argument("--reviews", help="export of spaces/avbench-review: take what a person kept or mended")
    parser.add_argument(
        "--against", nargs="*", default=[], metavar="DIR", help="datasets to train on: leave out videos that they have"
    )
    arguments = parser.parse_args()
    try:
        built = build_avbench(**common(arguments, parser), reviews=arguments.reviews, against=arguments.against)
        print(report(built))
    except DataError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
