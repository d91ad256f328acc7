"""Put SAVEn-Vid together from folders of `saven build` and `saven world`, ready for `saven push`.

saven world --out world --videos 200 --seed 0
python dataset_scripts/build_savenvid.py world --out savenvid
python dataset_scripts/build_savenvid.py built/finevideo built/own --out savenvid --licence "own=CC BY 4.0"

Configurations are qa, captions, videos, sft (captions to questions as 21 : 37), and world for videos of the world.
"""

import argparse
import json
import sys

from saven_hf.data.messages import DataError
from saven_hf.data.release import MEDIA, TRAIN_CHECKS, build_savenvid
from saven_hf.data.schema import CHECKS


def add_common(parser: argparse.ArgumentParser, require: tuple[str, ...]) -> None:
    parser.add_argument("folders", nargs="+", help="of `saven build` or `saven world`")
    parser.add_argument("--out", required=True, help="folder; new, empty, or one that this script wrote")
    parser.add_argument(
        "--media",
        choices=MEDIA,
        default="embed",
        help="embed: videos in the rows; copy: once, in OUT/videos; reference: only names, hashes and times, for "
        "videos that are long or may not be passed on (default: embed)",
    )
    parser.add_argument("--media-root", help="where videos given by reference lie (default: the folder naming them)")
    parser.add_argument(
        "--require",
        nargs="*",
        metavar="CHECK",
        default=list(require),
        help=f"leave out questions that failed one of these, of {', '.join(CHECKS)} (default: {' '.join(require)})",
    )
    parser.add_argument(
        "--licence",
        action="append",
        default=[],
        metavar="SOURCE=TEXT",
        help="licence of a source's videos, for the card; may be given several times",
    )


def common(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> dict:
    for licence in arguments.licence:
        if "=" not in licence:
            parser.error(f"--licence is SOURCE=TEXT, not {licence!r}")
    licences = dict(licence.split("=", 1) for licence in arguments.licence)
    return {
        "folders": arguments.folders,
        "out": arguments.out,
        "media": arguments.media,
        "media_root": arguments.media_root,
        "require": arguments.require,
        "licences": licences,
    }


def report(built: dict) -> str:
    """What was built as one JSON object, without the length of each video."""
    for of_config in built["statistics"].values():
        for of_split in of_config.values():
            del of_split["durations"]
    return json.dumps(built)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser, TRAIN_CHECKS)
    parser.add_argument("--seed", type=int, default=0, help="draws the instructions (default: 0)")
    arguments = parser.parse_args()
    try:
        print(report(build_savenvid(**common(arguments, parser), seed=arguments.seed)))
    except DataError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
