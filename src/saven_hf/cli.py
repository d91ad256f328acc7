"""The `saven` command. Thin: every verb parses its words, calls one public function and prints what it gave."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict


class _UsageError(Exception):
    """Bad input that the user can mend; its message is the one line that is shown."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (`{self.prog} --help` explains)\n")


def _positive(kind: type):
    def convert(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    convert.__name__ = "positive number"  # argparse puts it into its message
    return convert


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="SAVEnVideo model: folder or Hub id (default: the embedded tiny model)")
    parser.add_argument("--device", help='where to run, such as "cpu" or "cuda" (default: the GPU if there is one)')


def _add_sampling(parser: argparse.ArgumentParser) -> None:
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
    group.add_argument("--num-frames", type=_positive(int), help="how many frames, for all but fps")
    group.add_argument("--fps", type=_positive(float), help="frames a second, for --sampling fps")
    group.add_argument(
        "--max-frames", type=_positive(int), help="most frames for --sampling fps; beyond, they are spread evenly"
    )


def _sampling(args: argparse.Namespace) -> dict:
    given = {name: getattr(args, name) for name in ("sampling", "num_frames", "fps", "max_frames", "preprocessing")}
    if given["fps"] is not None and given["sampling"] is None:
        given["sampling"] = "fps"
    return {name: value for name, value in given.items() if value is not None}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="saven",
        description="Ask, train and measure long videos with their sound and their time.",
        epilog="`saven VERB --help` explains a verb and shows examples.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    ask = verbs.add_parser(
        "ask",
        help="ask questions about a video, an image or a sound",
        description="Ask questions about a video. It is decoded once, however many questions follow. Times in a "
        'question ("from 00:00:05 to 00:00:09", "at 13.5 s") point the model there.',
        epilog="examples:\n"
        '  saven ask clip.mp4 "What is heard from 00:00:05 to 00:00:09?"\n'
        '  saven ask talk.mkv "Who speaks first?" "And then?" --sampling keyframe --num-frames 128 --json\n'
        "  saven ask videos/ --questions questions.jsonl --out answers.jsonl   "
        '(lines {"video": "a.mp4", "question": "..."})',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ask.add_argument("video", help="a video, image or sound file; or a folder, with --questions")
    ask.add_argument("question", nargs="*", help="one or more questions")
    ask.add_argument("--questions", metavar="FILE", help="JSONL of questions on the videos of a folder")
    ask.add_argument(
        "--out", metavar="FILE", help="where --questions writes answers; what is there is not asked again"
    )
    ask.add_argument("--subtitles", metavar="FILE", help='subtitles to read along: a file, or "embedded"')
    ask.add_argument(
        "--max-new-tokens", type=_positive(int), default=256, help="longest answer, in tokens (default: 256)"
    )
    ask.add_argument("--json", action="store_true", help="print one JSON object: answers, and what the model was fed")
    ask.add_argument(
        "--picture",
        metavar="FILE",
        help="draw film strip, waveform, spectrogram and the times of questions and answers on one time axis "
        "(.png, .svg, .pdf)",
    )
    _add_sampling(ask)
    _add_model(ask)
    ask.set_defaults(run=_ask)

    plan = verbs.add_parser(
        "plan",
        help="count tokens, memory and time before you start",
        description="Count what asking about a video will cost, from its header and a few frames. The model's "
        "configuration is enough: no weights are read.",
        epilog="example:\n  saven plan lecture.mp4 --model savenvideo-7b --sampling fps --fps 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan.add_argument("video", help="a video, image or sound file")
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    _add_sampling(plan)
    _add_model(plan)
    plan.set_defaults(run=_plan)

    demo = verbs.add_parser(
        "demo",
        help="make a small video with sound and ask about it",
        description="Render a short H.264/AAC video of a scene that training never saw, ask questions in the paper's "
        "formats, and show each answer beside the truth. A picture of all on one time axis is saved beside the video.",
        epilog="example:\n  saven demo --seed 7 --out demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--out", metavar="DIR", default="saven-demo", help="folder for video and picture (default: saven-demo)"
    )
    demo.add_argument(
        "--seed", metavar="N", type=int, default=0, help="which scene: any number from 0 on (default: 0)"
    )
    _add_model(demo)
    demo.set_defaults(run=_demo)

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
    world.add_argument("--videos", metavar="N", type=_positive(int), required=True, help="how many videos")
    world.add_argument("--seed", metavar="S", type=int, default=0, help="seed of the first one (default: 0)")
    world.add_argument("--split", metavar="NAME", default="train", help="which scenes to draw (default: train)")
    world.add_argument("--json", action="store_true", help="print one JSON object")
    world.set_defaults(run=_world)

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
    cache.add_argument("--workers", metavar="N", type=_positive(int), default=1, help="media at a time (default: 1)")
    cache.add_argument("--shard", metavar="I", type=int, help="encode only the I-th of --num-shards parts, from 0 on")
    cache.add_argument(
        "--num-shards", metavar="N", type=_positive(int), help="in how many parts the media are divided"
    )
    cache.add_argument("--json", action="store_true", help="print one JSON object")
    _add_sampling(cache)
    _add_model(cache)
    cache.set_defaults(run=_cache)

    evaluate = verbs.add_parser(
        "eval",
        help="measure a model on a benchmark, with controls",
        description="Ask a model all questions of a benchmark and write every answer, all figures with intervals, and "
        "a report. A run that was stopped goes on where it was. The benchmark world asks about held-out videos of the "
        "procedural world; world-sync asks whether sound and picture are in time.",
        epilog="controls, each run beside the plain one:\n"
        "  mute (digital silence)   no-audio (no sound track)   black (black frames)   mute+black\n"
        "  no-time (no times of frames, sound and question)     clock=+100 (every time 100 s later)\n"
        "examples:\n"
        "  saven eval --benchmark world --out run\n"
        "  saven eval --benchmark world --split iid,vfr --control mute,black,mute+black --out run --data videos\n"
        "  saven eval --benchmark world-sync --out run-sync --fps 4",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.add_argument("--benchmark", required=True, choices=("world", "world-sync"), help="what to ask")
    evaluate.add_argument("--out", metavar="DIR", required=True, help="folder of the run, new or begun")
    evaluate.add_argument("--data", metavar="DIR", help="folder where videos are kept (default: OUT/videos)")
    evaluate.add_argument(
        "--split", metavar="NAMES", default="iid", help="splits of the world, joined by commas (default: iid)"
    )
    evaluate.add_argument("--control", metavar="NAMES", default="", help="controls, joined by commas")
    evaluate.add_argument("--videos", metavar="N", type=_positive(int), help="videos of each split")
    evaluate.add_argument("--seed", metavar="S", type=int, default=0, help="seed of the first one (default: 0)")
    evaluate.add_argument("--batch-size", metavar="N", type=_positive(int), help="questions answered at once")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    _add_sampling(evaluate)
    _add_model(evaluate)
    evaluate.set_defaults(run=_eval)

    train = verbs.add_parser(
        "train",
        help="train a stage by a recipe, on the recipe's data or your own",
        description="Train one stage: a recipe says what trains, from which model, on which data, how fast. Started "
        "again after an interruption, it goes on from the last checkpoint. Several GPUs: `accelerate launch "
        "--config_file FILE -m saven_hf.cli train RECIPE`.",
        epilog="examples:\n"
        "  saven train tiny       (the embedded model from nothing: its parts, its world, all four stages)\n"
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

    convert = verbs.add_parser(
        "convert",
        help="turn published checkpoints into our classes",
        description="Turn a published checkpoint into a folder of safetensors and config.",
    )
    formats = convert.add_subparsers(dest="format", metavar="FORMAT", required=True)
    beats = formats.add_parser(
        "beats",
        help="BEATs, from Microsoft's .pt",
        description="Read Microsoft's BEATs .pt (tensors only; anything else in it is refused) and write it in "
        "transformers form.",
        epilog="example:\n  saven convert beats BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt beats-iter3plus",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    beats.add_argument("source", help="the .pt file")
    beats.add_argument("out", help="folder to write")
    beats.set_defaults(run=_convert_beats)

    videollama2 = formats.add_parser(
        "videollama2",
        help="VideoLLaMA 2 and 2.1, picture-only or audio-visual",
        description="Read a published VideoLLaMA 2 folder (safetensors or .bin; tensors only, all else is refused) "
        "and write it as a model that every verb takes with --model. What became of each tensor is in "
        "conversion.json.",
        epilog="example:\n  hf download DAMO-NLP-SG/VideoLLaMA2.1-7B-AV --local-dir VideoLLaMA2.1-7B-AV\n"
        "  saven convert videollama2 VideoLLaMA2.1-7B-AV videollama2.1-7b-av\n"
        "  saven verify videollama2.1-7b-av",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    videollama2.add_argument("source", help="the downloaded folder, with its tokenizer")
    videollama2.add_argument("out", help="folder to write")
    videollama2.add_argument(
        "--vision",
        metavar="DIR",
        help="vision tower (folder or Hub id), where the checkpoint names none that is known",
    )
    videollama2.add_argument(
        "--audio",
        metavar="FILE",
        help="audio tower, where the checkpoint has none: its audio_tower.bin, or BEATs' .pt",
    )
    videollama2.add_argument(
        "--preprocessing",
        choices=("videollama2", "whole"),
        default="videollama2",
        help="what the processor does unless told otherwise: as published, or ours (default: %(default)s)",
    )
    videollama2.set_defaults(run=_convert_videollama2)

    salmonn = formats.add_parser(
        "video-salmonn",
        help="the causal Q-Former of video-SALMONN, with the parts that it stands between",
        description="Read the released pytorch_model_*.pt of video-SALMONN (tensors only), put its connector and its "
        "LoRA together with encoders and language model, and write the whole in transformers form.",
        epilog="example:\n  saven convert video-salmonn pytorch_model_4_5001.pt video-salmonn --audio beats-iter3plus",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    salmonn.add_argument("source", help="the .pt file")
    salmonn.add_argument("out", help="folder to write")
    salmonn.add_argument("--audio", required=True, help="folder written by `saven convert beats`")
    salmonn.add_argument("--vision", default="google/siglip-so400m-patch14-384", help="folder or Hub id (%(default)s)")
    salmonn.add_argument("--speech", default="openai/whisper-large-v2", help="folder or Hub id (%(default)s)")
    salmonn.add_argument("--text", default="lmsys/vicuna-13b-v1.5", help="folder or Hub id (%(default)s)")
    salmonn.add_argument("--groupsize", type=_positive(int), default=10, help="steps of a window (%(default)s)")
    salmonn.add_argument("--heads", type=_positive(int), default=12, help="of the Q-Former (%(default)s)")
    salmonn.add_argument("--lora-alpha", type=_positive(float), default=32, help="scale of LoRA (%(default)s)")
    salmonn.set_defaults(run=_convert_video_salmonn)

    verify = verbs.add_parser(
        "verify",
        help="check a converted or downloaded model",
        description="Check files, names, shapes and values of the weights, that processor and model agree, that "
        "answers depend on picture and sound, and golden questions whose answers are known. Exit code 1 if any fails.",
        epilog="examples:\n"
        "  saven verify videollama2.1-7b-av\n"
        "  saven verify videollama2.1-7b-av --weights-only\n"
        "  saven verify my-model --questions golden.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("model", nargs="?", help="folder or Hub id (default: the embedded tiny model)")
    verify.add_argument("--device", help="a torch device (default: the GPU if there is one)")
    verify.add_argument(
        "--questions",
        metavar="FILE",
        help='JSONL of {"question", "answer", "video"} in place of the built-in questions; all must be right',
    )
    verify.add_argument("--weights-only", action="store_true", help="stop before the model is loaded")
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    verify.set_defaults(run=_verify)

    init = verbs.add_parser(
        "init-7b",
        help="assemble the paper's 7B from SigLIP, BEATs and Qwen2",
        description="Put SigLIP, BEATs and Qwen2 together into one model folder. The connector is new: train it with "
        "the recipes.",
        epilog="examples:\n  saven init-7b savenvideo-7b-init --audio beats-iter3plus\n"
        "  saven init-7b savenvideo-7b-init --from videollama2.1-7b-av\n"
        "  saven init-7b favor-init --like favor-7b --audio beats-iter3plus --speech openai/whisper-large-v2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    init.add_argument("out", help="folder to write")
    init.add_argument(
        "--from",
        dest="source",
        metavar="DIR",
        help="take towers, language model and audio MLP from a converted VideoLLaMA 2 instead of the parts below",
    )
    init.add_argument("--vision", default="google/siglip-so400m-patch14-384", help="folder or Hub id (%(default)s)")
    init.add_argument("--audio", help="folder written by `saven convert beats`; needed without --from")
    init.add_argument("--text", default="Qwen/Qwen2-7B-Instruct", help="folder or Hub id (%(default)s)")
    init.add_argument("--speech", help="folder or Hub id of a Whisper model, for a speech tower (default: none)")
    init.add_argument(
        "--like", default="savenvideo-7b", help="shipped folder whose connector is taken, as favor-7b (%(default)s)"
    )
    init.set_defaults(run=_init_7b)
    return parser


def _ask(args: argparse.Namespace) -> None:
    from .ask import VideoSession, answer_file, as_json
    from .hub import load
    from .savenvideo.media import open_media
    from .timeline import TimelineError, check_picture_path, draw_timeline, rows_of

    options = {"max_new_tokens": args.max_new_tokens}
    if args.picture:
        check_picture_path(args.picture)
    if args.questions or args.out:
        if args.picture:
            raise _UsageError("--picture FILE is for one video; it does not go with --questions.")
        if not (args.questions and args.out) or args.question or not os.path.isdir(args.video):
            raise _UsageError("--questions FILE and --out FILE go together, with a folder and no question.")
        done = answer_file(
            args.video, args.questions, args.out, load(args.model, args.device), **options, **_sampling(args)
        )
        print(f"{done} questions answered in {args.out}")
        return
    if not all(question.strip() for question in args.question or [""]):
        raise _UsageError('there is no question: saven ask VIDEO "QUESTION"')
    # A file that cannot be read shall be told in a second, not after the model has been loaded.
    with open_media(args.video) as media:
        if args.picture and media.kind == "image":
            raise TimelineError("--picture draws a time axis, which an image does not have: leave it out.")

    model, processor = load(args.model, args.device)
    session = VideoSession(args.video, model, processor, subtitles=args.subtitles, **_sampling(args))
    answers = []
    for question in args.question:
        if not args.json:
            print(f"\n? {question}\n> ", end="", flush=True)
        stream = None if args.json else lambda text: print(text, end="", flush=True)
        answers.append(session.ask(question, on_text=stream, **options))
    if args.picture:
        draw_timeline(args.video, rows_of(answers), session.fed.frame_times).savefig(args.picture)
    if args.json:
        print(json.dumps(as_json(answers, session.fed)))
        return
    print(f"\n\n{session.fed}")
    if model.config.notice:
        print(f"\nNote: {model.config.notice}")


def _plan(args: argparse.Namespace) -> None:
    from .hub import ModelNotFoundError, config_folder
    from .plan import plan

    model = args.model
    if model is not None and not os.path.exists(model):
        try:
            model = config_folder(model)
        except ModelNotFoundError:
            pass  # not one of ours: an id of the Hub
    result = plan(args.video, model, device=args.device, **_sampling(args))
    if args.json:
        print(json.dumps(asdict(result)))
        return

    def size(value: float) -> str:
        return f"{value / 1e9:.2f} GB" if value >= 1e8 else f"{value / 1e6:.2f} MB"

    print(
        f"{os.path.basename(args.video)}: {result.video_seconds:.1f} s, {result.frames} frames to watch, "
        f"{result.audio_seconds:.1f} s of sound to hear"
    )
    print(f"tokens   {result.tokens} in {result.windows} windows (the model's context: {result.context})")
    print(
        f"memory   weights {size(result.weight_bytes)} ({result.parameters / 1e6:.1f} M parameters, {result.dtype}), "
        f"encoding {size(result.encode_bytes)}, encoded video {size(result.memory_bytes)}, "
        f"cache {size(result.cache_bytes)}"
    )
    print(
        "time     "
        + ", ".join(f"{part} {seconds:.2f} s" for part, seconds in result.seconds.items())
        + f"\n         (on {result.device}; all but decode at {result.flops_per_second / 1e9:.0f} GFLOP/s, the "
        "speed of a matrix product here: a lower bound)"
    )
    if result.tokens > result.context:
        print(
            f"These {result.tokens} tokens do not fit the context of {result.context}: take fewer frames, or a "
            "model with longer windows."
        )


def _demo(args: argparse.Namespace) -> None:
    from .demo import demo

    if args.seed < 0:
        raise _UsageError(f"the seed must be at least 0, not {args.seed}.")
    demo(args.model, args.device, args.out, args.seed)


def _world(args: argparse.Namespace) -> None:
    from .world import SPLITS, build_world

    if args.split not in SPLITS:
        raise _UsageError(f"there is no split {args.split!r}: choose one of {', '.join(SPLITS)}.")
    if args.seed < 0:
        raise _UsageError(f"the seed must be at least 0, not {args.seed}.")
    result = build_world(args.out, args.videos, args.seed, args.split, progress=not args.json)
    if args.json:
        print(json.dumps(result))
        return
    print(f"{result['videos']} videos of the split {result['split']!r} in {result['out']}: "
          f"{result['seconds']:.0f} s, {result['questions']} questions, {result['captions']} captions, "
          f"{result['sft']} rows to train on")  # fmt: skip


def _validate(args: argparse.Namespace) -> None:
    from .data.messages import DataError, validate_messages

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
    from .hub import load
    from .training.cache import FeatureCacheError, build_cache, list_media, local_device

    if (args.shard is None) != (args.num_shards is None):
        raise _UsageError("--shard I and --num-shards N go together.")
    media = list_media(args.source, args.root)
    model, processor = load(args.model, args.device or local_device())
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
        **_sampling(args),
    )
    if args.json:
        print(json.dumps(report.to_dict()))
    else:
        for name, reason in report.failed.items():
            print(f"{name}: {reason}")
        print(report)
    if report.failed:
        raise FeatureCacheError(f"{len(report.failed)} media could not be encoded; all others are in the cache")


def _eval(args: argparse.Namespace) -> None:
    from .evaluation import control_named, evaluate_sync, evaluate_world
    from .hub import load
    from .world import SPLITS

    splits = [name for name in args.split.split(",") if name]
    controls = [name for name in args.control.split(",") if name]
    unknown = [name for name in splits if name not in SPLITS]
    if unknown or not splits:
        raise _UsageError(f"there is no split {(unknown or [''])[0]!r}: choose of {', '.join(SPLITS)}.")
    for name in controls:
        control_named(name)  # a wrong name shall be told before the model is loaded
    if args.seed < 0:
        raise _UsageError(f"the seed must be at least 0, not {args.seed}.")
    if args.sampling == "query":
        raise _UsageError("videos are encoded before they are asked about: --sampling query cannot be measured here.")
    options = _sampling(args) | {
        name: value for name, value in (("videos", args.videos), ("batch_size", args.batch_size)) if value is not None
    }
    options |= {"media_dir": args.data, "seed": args.seed, "progress": not args.json}
    if args.benchmark == "world-sync":
        if len(splits) > 1 or controls:
            raise _UsageError("world-sync takes one split and no control.")
        summary = evaluate_sync(*load(args.model, args.device), args.out, splits[0], **options)
    else:
        summary = evaluate_world(*load(args.model, args.device), args.out, splits, controls, **options)
    if args.json:
        print(json.dumps(summary))
        return
    print(f"{100 * summary['accuracy']:.1f} % right; tables are in {os.path.join(args.out, 'report.md')}")


def _train(args: argparse.Namespace) -> None:
    from .training.recipe import RecipeError, explain, load_recipe, shipped_recipes

    if args.keys:
        for name, default, meaning in explain():
            print(f"{name}{'' if default in (None, '', [], {}) else f' = {default}'}\n    {meaning}")
        return
    if args.recipe is None:
        raise _UsageError(f"name a recipe: a YAML file, or one of tiny, {', '.join(shipped_recipes())}.")
    if args.recipe == "tiny":
        _train_tiny(args)
        return
    try:
        recipe = load_recipe(args.recipe, args.set, args.data)
    except RecipeError as error:
        raise _UsageError(str(error)) from error
    try:
        from .training.trainer import train
    except ImportError as error:
        raise _UsageError(f"training needs more packages ({error}): pip install 'saven-hf[train]'") from error
    try:
        result = train(recipe)
    except RecipeError as error:
        raise _UsageError(str(error)) from error
    if int(os.environ.get("RANK", 0)):
        return
    if args.json:
        print(json.dumps(asdict(result)))
        return
    loss = "" if result.loss is None else f", loss {result.loss:.4f}"
    print(f"{result.steps} updates{loss}: {result.model}" + (f", merged: {result.merged}" if result.merged else ""))


def _train_tiny(args: argparse.Namespace) -> None:
    if args.data or args.set:
        raise _UsageError("'tiny' trains everything on the world; --data and --set belong to a single recipe.")
    try:
        from .training.tiny import train_tiny
    except ImportError as error:
        raise _UsageError(f"training needs more packages ({error}): pip install 'saven-hf[train]'") from error
    folder = train_tiny(args.out)
    print(json.dumps({"model": str(folder)}) if args.json else folder)


def _convert_beats(args: argparse.Namespace) -> None:
    from .peers.beats import convert_beats

    print(convert_beats(args.source, args.out))


def _convert_video_salmonn(args: argparse.Namespace) -> None:
    from .peers.video_salmonn import convert_video_salmonn

    parts = {name: getattr(args, name) for name in ("audio", "vision", "speech", "text", "groupsize", "lora_alpha")}
    print(convert_video_salmonn(args.source, args.out, num_attention_heads=args.heads, **parts))


def _convert_videollama2(args: argparse.Namespace) -> None:
    from .peers.videollama2 import convert_videollama2

    print(convert_videollama2(args.source, args.out, args.vision, args.audio, args.preprocessing))


def _verify(args: argparse.Namespace) -> int:
    from .verify import verify

    say = (lambda check: None) if args.json else print
    result = verify(args.model, args.device, args.questions, args.weights_only, on_check=say)
    if args.json:
        print(json.dumps(result.to_dict()))
    else:
        print("passed" if result.passed else "FAILED")
    return 0 if result.passed else 1


def _init_7b(args: argparse.Namespace) -> None:
    from .hub import init_7b, init_from

    if args.source:
        print(f"written: {init_from(args.source, args.out)}")
        return
    if not args.audio:
        raise _UsageError("--audio DIR is needed: a folder written by `saven convert beats`; or --from DIR.")
    parts = {name: getattr(args, name) for name in ("vision", "audio", "text", "speech", "like")}
    print(f"written: {init_7b(args.out, **parts)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `saven`. Exit code 2, and one line, on bad input."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    from transformers.utils import logging as transformers_logging

    from .ask import QuestionError, QuestionFileError
    from .data.messages import DataError
    from .evaluation import ControlError, RunMismatchError
    from .hub import DeviceError, ModelNotFoundError
    from .peers.checkpoint import CheckpointError
    from .savenvideo.media_errors import MediaError
    from .timeline import TimelineError
    from .training.cache import FeatureCacheError
    from .verify import GoldenError
    from .world import MissingDependencyError, WorldBuildError

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    mendable = (_UsageError, MediaError, ModelNotFoundError, DeviceError, CheckpointError)
    mendable += (QuestionError, QuestionFileError, TimelineError, FileExistsError, FileNotFoundError)
    mendable += (FeatureCacheError, WorldBuildError, MissingDependencyError, DataError)
    mendable += (ControlError, RunMismatchError, GoldenError)
    try:
        return args.run(args) or 0
    except mendable as error:
        print(f"saven {args.verb}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"saven {args.verb}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
