"""What verbs share: words that stand for models, frames and options, and how bad ones are refused."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence


class UsageError(Exception):
    """Bad input that the user can mend; its message is the one line that is shown."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (`{self.prog} --help` explains)\n")


def positive(kind: type):
    def convert(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    convert.__name__ = "positive number"  # argparse puts it into its message
    return convert


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="model: folder or Hub id (default: the embedded tiny model)")
    parser.add_argument("--device", help='where to run, such as "cpu" or "cuda" (default: the GPU if there is one)')


def add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("frames", "defaults come from the model's processor (the paper: 16, uniform)")
    group.add_argument(
        "--sampling",
        choices=("uniform", "fps", "keyframe", "query"),
        help="uniform in time; so many a second; the nearest key frames (fast on long video); or half of them inside "
        "the spans that the question names",
    )
    group.add_argument(
        "--preprocessing",
        choices=("whole", "videollama2"),
        help="whole: frames by time and all of the sound; videollama2: as published with that model (docs/peers.md)",
    )
    group.add_argument(
        "--num-frames", type=positive(int), help="how many frames, for all but fps; by itself it means uniform"
    )
    group.add_argument("--fps", type=positive(float), help="frames a second; by itself it means --sampling fps")
    group.add_argument(
        "--max-frames", type=positive(int), help="most frames for --sampling fps; beyond, they are spread evenly"
    )


def sampling(args: argparse.Namespace) -> dict:
    given = {name: getattr(args, name) for name in ("sampling", "num_frames", "fps", "max_frames", "preprocessing")}
    if given["sampling"] is None:
        # Whatever the model's processor does by default, what was asked for is not left unheard.
        given["sampling"] = (
            "fps" if given["fps"] is not None else "uniform" if given["num_frames"] is not None else None
        )
    return {name: value for name, value in given.items() if value is not None}


def pairs(words: Sequence[str], option: str) -> dict:
    """KEY=VALUE words as a dict; values that are JSON become what they say."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"{option} takes KEY=VALUE, not {word!r}.")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found
