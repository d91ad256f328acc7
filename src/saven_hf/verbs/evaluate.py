"""`saven eval`."""

from __future__ import annotations

import argparse
import json
import os

from .words import UsageError, add_model, add_sampling, positive, sampling


def add_eval(verbs) -> None:
    evaluate = verbs.add_parser(
        "eval",
        help="measure a model on a benchmark, with controls; or compare two runs",
        description="Ask a model all questions of a benchmark and write every answer, all figures with intervals, and "
        "a report. A run that was stopped goes on where it was; `accelerate launch -m saven_hf.cli eval ...` divides "
        "it over processes. `saven eval compare A B` holds two runs against each other, question by question.",
        epilog="benchmarks:\n"
        "  world                 held-out videos of the procedural world (made as needed)\n"
        "  world-sync            whether sound and picture are in time\n"
        "  avbench               AVBench, and all questions in its form (saven build, saven world)\n"
        "  videomme              Video-MME; videomme-subtitles: with subtitles\n"
        "  music-avqa            MUSIC-AVQA; --split test (corrected), test-original, val, val-original\n"
        "  aveb-TASK             AVEB and SAVE: asr, audio-caption, image-caption, ocr, vqa, video-qa, avsr, avsd,\n"
        "                        isqa, avssd, avm, ego4d-qa, presentation-qa\n"
        "  open-qa               your own JSONL of open questions, captions, choices\n"
        "controls, each run beside the plain one:\n"
        "  blind (nothing)   no-audio   no-video   mute (digital silence)   black (black frames)   mute+black\n"
        "  swap (another video's sound)   shift=+2 (sound 2 s later)   circular (options in every rotation)\n"
        "  no-time (no times of frames, sound and question)   clock=+100 (every time 100 s later)\n"
        "examples:\n"
        "  saven eval --benchmark world --split iid,vfr --control mute,black,mute+black --out run --data videos\n"
        "  saven eval --benchmark music-avqa --data MUSIC-AVQA --model Qwen/Qwen2.5-Omni-7B --out run\n"
        "  saven eval --benchmark videomme --data Video-MME --baseline random --out run-random\n"
        "  saven eval --benchmark avbench --data AVBench --endpoint http://localhost:8000/v1 --model NAME --out run\n"
        "  saven eval compare run run-random",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.add_argument("compare", nargs="*", metavar="compare A B", help="two folders of runs to compare")
    evaluate.add_argument("--benchmark", metavar="NAME", help="what to ask, see below")
    evaluate.add_argument("--out", metavar="DIR", help="folder of the run, new or begun")
    evaluate.add_argument(
        "--data", metavar="DIR", help="the published files and media; for the world, where its videos are kept"
    )
    evaluate.add_argument("--split", metavar="NAMES", help="of the benchmark; for the world several (default: iid)")
    evaluate.add_argument("--control", metavar="NAMES", default="", help="controls, joined by commas")
    evaluate.add_argument(
        "--protocol",
        choices=("generate", "likelihood"),
        default="generate",
        help="likelihood: also weigh the options by their log-likelihood, beside generation and parsing",
    )
    evaluate.add_argument(
        "--forms", metavar="NAMES", help="of the world's questions: choice, open, or both joined by a comma (default)"
    )
    evaluate.add_argument("--videos", metavar="N", type=positive(int), help="so many videos (of each split)")
    evaluate.add_argument("--seed", metavar="S", type=int, default=0, help="of the world, and of guesses (default: 0)")
    evaluate.add_argument("--batch-size", metavar="N", type=positive(int), help="questions answered at once")
    evaluate.add_argument("--max-new-tokens", metavar="N", type=positive(int), help="longest answer, in tokens")
    evaluate.add_argument(
        "--baseline",
        metavar="NAME",
        help="in place of a model: random, always-a, longest; text-only and speech-text ask the language model MODEL",
    )
    evaluate.add_argument("--endpoint", metavar="URL", help="OpenAI-compatible endpoint that serves --model")
    evaluate.add_argument("--speech-model", metavar="MODEL", help='recogniser for speech-text, or "subtitles"')
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    add_sampling(evaluate)
    add_model(evaluate)
    evaluate.set_defaults(run=_eval)


def _eval(args: argparse.Namespace) -> None:
    from .. import evaluation
    from ..training.cache import process_share

    if args.compare:
        _compare(args)
        return
    if args.benchmark not in evaluation.BENCHMARKS:
        raise UsageError(f"there is no benchmark {args.benchmark!r}: choose of {', '.join(evaluation.BENCHMARKS)}.")
    if not args.out:
        raise UsageError("--out DIR names the folder of the run.")
    controls = [name for name in args.control.split(",") if name]
    for name in controls:
        evaluation.control_named(name)  # a wrong name shall be told before the model is loaded
    forms = None if args.forms is None else [name for name in args.forms.split(",") if name]
    if forms is not None and args.benchmark != "world":
        raise UsageError("--forms is for the world's questions alone.")
    if forms is not None and (not forms or set(forms) - {"choice", "open"}):
        raise UsageError(f"--forms names choice, open, or both, not {args.forms!r}.")
    if args.seed < 0:
        raise UsageError(f"the seed must be at least 0, not {args.seed}.")
    protocols = list(dict.fromkeys(["generate", args.protocol]))
    summary = (
        _eval_world(args, controls, protocols, forms)
        if args.benchmark.startswith("world")
        else _eval_published(args, controls, protocols)
    )
    if process_share()[0]:
        return
    if args.json:
        print(json.dumps(summary))
        return
    accuracy = summary["accuracy"]
    seconds = evaluation.read_timing(args.out)
    total = sum(seconds.values())
    if total:
        print(f"{total:.0f} s: " + ", ".join(f"{name} {100 * one / total:.0f} %" for name, one in seconds.items()))
    for name, one in summary.get("benchmarks", {}).items():
        asked = one["denominator"]
        print(f"{name}: asked {asked['asked']} of {asked['published']} questions"
              + (f", {asked['beyond_limit']} beyond --videos" if asked["beyond_limit"] else "")
              + "".join(f", {count} {kind}" for kind, count in asked["problems"].items()))  # fmt: skip
    figure = "done" if accuracy is None else f"{100 * accuracy:.1f} % right"
    print(f"{figure}; tables are in {os.path.join(args.out, 'report.md')}")


def _adapter(args: argparse.Namespace):
    from ..evaluation import open_adapter

    return open_adapter(
        args.model,
        args.device,
        args.baseline,
        args.endpoint,
        args.speech_model,
        args.batch_size,
        args.max_new_tokens,
        args.seed,
        **sampling(args),
    )


def _eval_world(args: argparse.Namespace, controls: list[str], protocols: list[str], forms: list[str] | None) -> dict:
    from ..evaluation.sync import evaluate_sync_with
    from ..evaluation.world import evaluate_with
    from ..world import SPLITS

    splits = [name for name in (args.split or "iid").split(",") if name]
    unknown = [name for name in splits if name not in SPLITS]
    if unknown or not splits:
        raise UsageError(f"there is no split {(unknown or [''])[0]!r}: choose of {', '.join(SPLITS)}.")
    options = {"videos": args.videos} if args.videos is not None else {}
    options |= {"media_dir": args.data, "seed": args.seed, "progress": not args.json}
    if args.benchmark == "world-sync":
        if len(splits) > 1 or controls:
            raise UsageError("world-sync takes one split and no control.")
        if len(protocols) > 1:
            raise UsageError("world-sync asks open questions alone: leave --protocol out.")
        if args.videos == 1:
            raise UsageError("world-sync needs at least 2 videos, of which one is in time.")
        return evaluate_sync_with(_adapter(args), args.out, splits[0], **options)
    if forms is not None:
        options["forms"] = forms
    return evaluate_with(_adapter(args), args.out, splits, controls, protocols=protocols, **options)


def _eval_published(args: argparse.Namespace, controls: list[str], protocols: list[str]) -> dict:
    from ..evaluation import evaluate, open_benchmark

    if not args.data:
        raise UsageError(f"--data DIR names the published files of {args.benchmark}, and its media.")
    spool = os.path.join(args.out, "videos")
    benchmark = open_benchmark(args.benchmark, args.data, args.split, spool, args.videos)
    return evaluate(benchmark, _adapter(args), args.out, controls, protocols, progress=not args.json)


def _compare(args: argparse.Namespace) -> None:
    from ..evaluation import compare, comparison_table

    if args.compare[0] != "compare" or len(args.compare) != 3:
        raise UsageError("two runs are compared by: saven eval compare A B")
    found = compare(*args.compare[1:])
    if args.json:
        print(json.dumps(found))
        return
    print(comparison_table(found, tuple(os.path.basename(os.path.normpath(name)) for name in args.compare[1:])))
