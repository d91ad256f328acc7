"""`saven world`, `saven build`, `saven validate`, `saven cache`, `saven push`."""

from __future__ import annotations

import argparse
import json
import os

from .words import UsageError, add_model, add_sampling, pairs, positive, sampling


def add_world(verbs) -> None:
    world = verbs.add_parser(
        "world",
        help="make videos of the procedural world, with questions and their truth",
        description="Render scenes of shapes and tones as mp4 files, with questions, their answers, the chance level "
        "of every question, captions, and rows to train on: a dataset whose configs qa, captions, videos and sft "
        "`load_dataset` opens. Held-out splits have no sft.",
        epilog="examples:\n"
        "  saven world --out world --videos 100\n"
        "  saven world --out world --videos 30 --split iid     (held-out scenes, added to the same folder)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    world.add_argument("--out", metavar="DIR", required=True, help="folder to write, or to go on with")
    world.add_argument("--videos", metavar="N", type=positive(int), required=True, help="how many videos")
    world.add_argument("--seed", metavar="S", type=int, default=0, help="seed of the first one (default: 0)")
    world.add_argument("--split", metavar="NAME", default="train", help="which scenes to draw (default: train)")
    world.add_argument("--json", action="store_true", help="print one JSON object")
    world.set_defaults(run=_world)


def add_build(verbs) -> None:
    build = verbs.add_parser(
        "build",
        help="make SAVEn-Vid rows of your own videos",
        description="Cut videos into clips, describe what is seen and heard in each, ask questions that need both, "
        "and check them: a dataset whose configs qa, captions, videos and sft `load_dataset` opens, with a report "
        "page. A run that was stopped goes on when it is started again, and ends with the same bytes; a video that "
        "cannot be used is put aside with its reason.",
        epilog="examples:\n"
        "  saven build videos/ --out mine                       (measures picture and sound; no weights)\n"
        "  saven build a.mp4 b.mkv --out mine --workers 8\n"
        "  saven build --list train.jsonl --out mine --source nextqa\n"
        "  saven build videos/ --out mine --annotator endpoint --set base_url=http://gpu:8000/v1 \\\n"
        "      --set text_model=Qwen/Qwen2.5-72B-Instruct --set concurrency=64\n"
        "  saven build videos/ --out mine --executor slurm --tasks 500 --slurm partition=cpu --slurm time=24:00:00",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_argument("videos", nargs="*", help="video files, and folders of them")
    build.add_argument(
        "--list",
        metavar="FILE",
        action="append",
        default=[],
        help="take the videos that a file lists, one JSON object a line, as dataset_scripts/list_videos.py --json "
        "writes it; may be repeated",
    )
    build.add_argument("--out", metavar="DIR", required=True, help="folder to write, or to go on with")
    build.add_argument(
        "--annotator",
        choices=("signal", "transformers", "endpoint", "oracle"),
        default="signal",
        help="who describes and asks: measurements (default), local models, an OpenAI-compatible server, or the truth "
        "of videos of `saven world`",
    )
    build.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option of the annotator (docs/build.md lists them); may be repeated",
    )
    build.add_argument("--prompts", metavar="DIR", help="folder of .jinja prompts in place of the package's")
    build.add_argument(
        "--shots", metavar="DIR", default="change", help="a shot detection model (default: none is needed)"
    )
    build.add_argument("--transcribe", metavar="MODEL", help="speech recognition model; fills the column transcript")
    build.add_argument(
        "--min-clips",
        metavar="N",
        type=int,
        default=4,
        help="split videos with fewer shots where they change most; 0 leaves shots whole (default: 4)",
    )
    build.add_argument("--split", metavar="NAME", default="train", help="name of the split (default: train)")
    build.add_argument("--source", metavar="NAME", default="own", help="where the videos are from (default: own)")
    build.add_argument(
        "--license", metavar="TEXT", default="not stated", help="terms of the videos, for the card, such as CC-BY-4.0"
    )
    build.add_argument(
        "--against",
        metavar="DIR",
        action="append",
        default=[],
        help="mark videos that are also there: another build, or a folder of videos; may be repeated",
    )
    build.add_argument(
        "--by-reference", action="store_true", help="store names and hashes of the videos, not the videos"
    )
    build.add_argument(
        "--executor", choices=("local", "slurm", "ray"), default="local", help="where to run (default: local)"
    )
    build.add_argument("--workers", metavar="N", type=positive(int), default=1, help="tasks at a time (default: 1)")
    build.add_argument(
        "--tasks", metavar="N", type=positive(int), help="parts that the videos are divided into (default: workers)"
    )
    build.add_argument(
        "--slurm", metavar="KEY=VALUE", action="append", default=[], help="of the Slurm job, such as partition=cpu"
    )
    build.add_argument("--json", action="store_true", help="print one JSON object")
    build.set_defaults(run=_build)


def add_validate(verbs) -> None:
    validate = verbs.add_parser(
        "validate",
        help="check your own training data and name its bad lines",
        description="Check a JSONL file of chat messages with videos, images and sounds (docs/data.md says how it is "
        "written): every bad line is named, with what is wrong and what to do.",
        epilog="example:\n  saven validate mine.jsonl --media",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    validate.add_argument("file", help="JSONL, one row of messages a line")
    validate.add_argument(
        "--media",
        action="store_true",
        help="also open every video, image and sound, and compare times with its length",
    )
    validate.add_argument("--json", action="store_true", help="print one JSON object")
    validate.set_defaults(run=_validate)


def add_cache(verbs) -> None:
    cache = verbs.add_parser(
        "cache",
        help="run the frozen towers once over all media, and train from what they said",
        description="Store what the frozen vision and audio towers make of every video, image and sound of a folder, "
        "or of a JSONL file of messages. Training from the cache gives the same loss without decoding anything. A run "
        "that was killed goes on where it was; several may fill one folder.",
        epilog="examples:\n"
        "  saven cache videos/ --out cache --fps 4 --dtype float16\n"
        "  saven cache mine.jsonl --model savenvideo-7b-init --out cache --workers 8\n"
        "  accelerate launch --num-processes 8 -m saven_hf.cli cache mine.jsonl --out cache     (one part per GPU)\n"
        "  saven cache mine.jsonl --out cache --shard $SLURM_ARRAY_TASK_ID --num-shards $SLURM_ARRAY_TASK_COUNT",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cache.add_argument("source", help="a folder of media, or a JSONL file of messages")
    cache.add_argument("--out", metavar="DIR", required=True, help="folder of the cache, new or begun")
    cache.add_argument(
        "--root", metavar="DIR", help="names are paths below it (default: where the media or the rows are)"
    )
    cache.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="of the stored features (default: the model's)"
    )
    cache.add_argument("--workers", metavar="N", type=positive(int), default=1, help="media at a time (default: 1)")
    cache.add_argument("--shard", metavar="I", type=int, help="encode only the I-th of --num-shards parts, from 0 on")
    cache.add_argument("--num-shards", metavar="N", type=positive(int), help="in how many parts the media are divided")
    cache.add_argument("--json", action="store_true", help="print one JSON object")
    add_sampling(cache)
    add_model(cache)
    cache.set_defaults(run=_cache)


def add_push(verbs) -> None:
    push = verbs.add_parser(
        "push",
        help="upload a dataset, a model or a Space to the Hub",
        description="Upload a folder with its card: a dataset, a model or adapter, or a Space. --dry-run shows what "
        "exactly would go and sends nothing. HF_ENDPOINT names another server than huggingface.co.",
        epilog="examples:\n"
        "  saven push savenvid me/savenvid --dry-run\n"
        "  saven push runs/own/merged me/my-savenvideo --results run --private\n"
        "  saven push spaces/avbench-review me/avbench-review",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    push.add_argument("folder", help="what to upload")
    push.add_argument("repo", help="name on the Hub, as in me/savenvid")
    push.add_argument("--type", choices=("dataset", "model", "space"), help="(default: told by the folder's files)")
    push.add_argument(
        "--results",
        metavar="RUN",
        nargs="+",
        default=[],
        help="folders of `saven eval` that measured the model: their figures go into its card and model-index",
    )
    push.add_argument("--private", action="store_true", default=None, help="make a new repository for oneself alone")
    push.add_argument("--revision", help="branch to commit to; it must exist")
    push.add_argument("--message", help="of the commit")
    push.add_argument("--pr", action="store_true", help="open a pull request instead of committing")
    push.add_argument("--dry-run", action="store_true", help="show what would go, and send nothing")
    push.add_argument("--json", action="store_true", help="print one JSON object")
    push.set_defaults(run=_push)


def _world(args: argparse.Namespace) -> None:
    from ..world import SPLITS, build_world

    if args.split not in SPLITS:
        raise UsageError(f"there is no split {args.split!r}: choose one of {', '.join(SPLITS)}.")
    if args.seed < 0:
        raise UsageError(f"the seed must be at least 0, not {args.seed}.")
    result = build_world(args.out, args.videos, args.seed, args.split, progress=not args.json)
    if args.json:
        print(json.dumps(result))
        return
    print(f"{result['videos']} videos of the split {result['split']!r} in {result['out']}: "
          f"{result['seconds']:.0f} s, {result['questions']} questions, {result['captions']} captions, "
          f"{result['sft']} rows to train on")  # fmt: skip


def _build(args: argparse.Namespace) -> None:
    from ..pipeline import Settings, build_dataset, read_list

    if not args.videos and not args.list:
        raise UsageError("give videos, folders of videos, or --list FILE.")
    listed = [task for path in args.list for task in read_list(path, args.split, args.source)]
    options = pairs(args.set, "--set")
    if args.prompts:
        if args.annotator not in ("transformers", "endpoint"):
            raise UsageError(f"--prompts is for annotators that are prompted; {args.annotator!r} is not.")
        options["prompts"] = os.path.abspath(args.prompts)
    if args.min_clips < 0:
        raise UsageError(f"--min-clips must be at least 0, not {args.min_clips}.")
    # For Slurm, values stay as written: 24:00:00 and 0042 are no numbers.
    slurm = dict(word.split("=", 1) for word in args.slurm if pairs([word], "--slurm"))
    settings = Settings(args.annotator, options, args.shots, min_clips=args.min_clips, transcriber=args.transcribe)
    result = build_dataset(
        [*args.videos, *listed],
        args.out,
        settings,
        executor=args.executor,
        workers=args.workers,
        tasks=args.tasks,
        split=args.split,
        source=args.source,
        license=args.license,
        embed=False if args.by_reference else None,
        against=args.against,
        slurm=slurm,
        progress=not args.json,
    )
    if args.json:
        print(json.dumps(result))
        return
    if "job" in result:
        print(f"{result['videos']} videos are under way; Slurm job {result['job']} writes {result['out']} at the end")
        return
    for one in result["quarantined"]:
        print(f"put aside: {one['file']}, {one['stage']}: {one['reason']}")
    print(
        f"{result['videos']} videos in {result['out']}: {3600 * result['hours']:.0f} s, "
        f"{result['segments']} segments, {result['questions']} questions, {result['sft']} rows to train on; "
        "see report.html"
    )


def _validate(args: argparse.Namespace) -> None:
    from ..data.messages import DataError, validate_messages

    report = validate_messages(args.file, check_media=args.media, progress=not args.json)
    if args.json:
        print(json.dumps(report.to_dict()))
    else:
        for problem in report.problems:
            print(f"{report.file}:{problem}")
        if report.left_out:
            print(f"... and {report.left_out} more")
        print(report)
    if not report.ok:
        found = (
            f"{report.bad_rows} of {report.rows} rows cannot be trained on." if report.rows else "it holds no rows."
        )
        raise DataError(found, report.file)


def _cache(args: argparse.Namespace) -> None:
    from ..hub import load
    from ..training.cache import FeatureCacheError, build_cache, list_media

    if (args.shard is None) != (args.num_shards is None):
        raise UsageError("--shard I and --num-shards N go together.")
    media = list_media(args.source, args.root)
    model, processor = load(args.model, args.device)
    report = build_cache(
        media,
        args.out,
        model,
        processor,
        dtype=args.dtype,
        shard=args.shard,
        num_shards=args.num_shards,
        workers=args.workers,
        progress=not args.json,
        **sampling(args),
    )
    if args.json:
        print(json.dumps(report.to_dict()))
    else:
        for name, reason in report.failed.items():
            print(f"{name}: {reason}")
        print(report)
    if report.failed:
        raise FeatureCacheError(f"{len(report.failed)} media could not be encoded; all others are in the cache")


def _push(args: argparse.Namespace) -> None:
    from ..push import plan_upload, push

    plan = plan_upload(args.folder, args.repo, args.type, args.results)
    if not args.json:
        print(plan)
    url = None
    if not args.dry_run:
        url = push(plan, args.private, args.revision, args.message, args.pr)
    if args.json:
        print(json.dumps({**plan.to_dict(), "dry_run": args.dry_run, "url": url}))
    else:
        if args.dry_run and plan.made_card is not None:
            print(f"\nREADME.md, as it would be made:\n\n{plan.made_card}")
        print("nothing was sent (--dry-run)" if args.dry_run else url)
