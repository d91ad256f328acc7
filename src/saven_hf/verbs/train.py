"""`saven train`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from dataclasses import asdict

from .words import UsageError


def add_train(verbs) -> None:
    train = verbs.add_parser(
        "train",
        help="train a stage by a recipe, on the recipe's data or your own",
        description="Train one stage: a recipe says what trains, from which model, on which data, how fast. Started "
        "again after an interruption, it goes on from the last checkpoint. Several GPUs: `accelerate launch "
        "--config_file FILE -m saven_hf.cli train RECIPE`.",
        epilog="examples:\n"
        "  saven train tiny       (the embedded model from nothing: its parts, its world, all four stages)\n"
        "  saven train tiny/own --data mine       (fine-tune the embedded model on a folder of `saven build`)\n"
        "  saven train 7b/saven-24gb --data mine.jsonl --set output_dir=runs/mine --set lora.r=16\n"
        "  saven train --keys     (every key of a recipe, its default and what it means)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "recipe", nargs="?", help='a YAML file, the name of one that is shipped, as "7b/saven", or "tiny": everything'
    )
    train.add_argument(
        "--data",
        metavar="FILE",
        action="append",
        default=[],
        help="JSONL of messages (docs/data.md), or a dataset, instead of the recipe's; may be repeated",
    )
    train.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change a key of the recipe; may be repeated",
    )
    train.add_argument("--out", metavar="DIR", default="runs/tiny", help='where "tiny" goes (default: runs/tiny)')
    train.add_argument("--keys", action="store_true", help="explain the keys of a recipe, and do nothing else")
    train.add_argument("--json", action="store_true", help="print one JSON object at the end")
    train.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> None:
    from ..training.recipe import RecipeError, explain, load_recipe, shipped_recipes

    if args.keys:
        for name, default, meaning in explain():
            print(f"{name}{'' if default in (None, '', [], {}) else f' = {default}'}\n    {meaning}")
        return
    if args.recipe is None:
        raise UsageError(f"name a recipe: a YAML file, or one of tiny, {', '.join(shipped_recipes())}.")
    if args.recipe == "tiny":
        _train_tiny(args)
        return
    try:
        recipe = load_recipe(args.recipe, args.set, args.data)
    except RecipeError as error:
        raise UsageError(str(error)) from error
    # What it says to programmers about its own next release is noise in a terminal.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        from ..training.trainer import train
    except ImportError as error:
        raise UsageError(f"training needs more packages ({error}): pip install 'saven-hf[train]'") from error
    try:
        result = train(recipe)
    except RecipeError as error:
        raise UsageError(str(error)) from error
    if int(os.environ.get("RANK", 0)):
        return
    if args.json:
        print(json.dumps(asdict(result)))
        return
    loss = "" if result.loss is None else f", loss {result.loss:.4f}"
    print(f"{result.steps} updates{loss}: {result.model}" + (f", merged: {result.merged}" if result.merged else ""))


def _train_tiny(args: argparse.Namespace) -> None:
    if args.data or args.set:
        raise UsageError("'tiny' trains everything on the world; --data and --set belong to a single recipe.")
    try:
        from ..training.tiny import train_tiny
    except ImportError as error:
        raise UsageError(f"training needs more packages ({error}): pip install 'saven-hf[train]'") from error
    folder = train_tiny(args.out)
    print(json.dumps({"model": str(folder)}) if args.json else folder)
