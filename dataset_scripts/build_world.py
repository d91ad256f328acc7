"""Write the procedural world as a dataset that `load_dataset` opens: the same as `saven world`.

python dataset_scripts/build_world.py --out world --videos 1000 --seed 0 --split train
python dataset_scripts/build_world.py --out world --videos 300 --split iid

Configs are qa, captions, videos and, for splits that may be trained on, sft.
"""

import argparse
import json

from saven_hf.world import SPLITS, build_world


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder; new, empty, or one that this script wrote")
    parser.add_argument("--videos", type=int, required=True, help="how many videos")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first video; the others follow")
    parser.add_argument("--split", default="train", choices=list(SPLITS), help="which scenes to draw")
    parser.add_argument("--side", type=int, default=64, help="height and width of the pictures, even")
    arguments = parser.parse_args()
    side = (arguments.side, arguments.side)
    print(json.dumps(build_world(arguments.out, arguments.videos, arguments.seed, arguments.split, size=side)))


if __name__ == "__main__":
    main()
