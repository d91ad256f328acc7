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
    group.add_argument("--num-frames", type=_positive(int), help="how many frames, for all but fps")
    group.add_argument("--fps", type=_positive(float), help="frames a second, for --sampling fps")
    group.add_argument(
        "--max-frames", type=_positive(int), help="most frames for --sampling fps; beyond, they are spread evenly"
    )


def _sampling(args: argparse.Namespace) -> dict:
    given = {name: getattr(args, name) for name in ("sampling", "num_frames", "fps", "max_frames")}
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
        description="Render a short H.264/AAC video whose content is known, ask about it, and show each answer beside "
        "the truth.",
    )
    demo.add_argument("--out", metavar="FILE", help="keep the video here (default: a temporary file)")
    _add_model(demo)
    demo.set_defaults(run=_demo)

    world = verbs.add_parser(
        "world",
        help="make videos of the procedural world, with questions and their truth",
        description="Render scenes of shapes and tones as mp4 files, with questions, their answers, the chance level "
        "of every question and captions: a dataset that `load_dataset` opens.",
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

    init = verbs.add_parser(
        "init-7b",
        help="assemble the paper's 7B from SigLIP, BEATs and Qwen2",
        description="Put SigLIP, BEATs and Qwen2 together into one model folder. The connector is new: train it with "
        "the recipes.",
        epilog="example:\n  saven init-7b savenvideo-7b-init --audio beats-iter3plus",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    init.add_argument("out", help="folder to write")
    init.add_argument("--vision", default="google/siglip-so400m-patch14-384", help="folder or Hub id (%(default)s)")
    init.add_argument("--audio", required=True, help="folder written by `saven convert beats`")
    init.add_argument("--text", default="Qwen/Qwen2-7B-Instruct", help="folder or Hub id (%(default)s)")
    init.set_defaults(run=_init_7b)
    return parser


def _ask(args: argparse.Namespace) -> None:
    from .ask import VideoSession, answer_file, as_json
    from .hub import load
    from .savenvideo.media import open_media

    options = {"max_new_tokens": args.max_new_tokens}
    if args.questions or args.out:
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
    open_media(args.video).close()

    model, processor = load(args.model, args.device)
    session = VideoSession(args.video, model, processor, subtitles=args.subtitles, **_sampling(args))
    answers = []
    for question in args.question:
        if not args.json:
            print(f"\n? {question}\n> ", end="", flush=True)
        stream = None if args.json else lambda text: print(text, end="", flush=True)
        answers.append(session.ask(question, on_text=stream, **options))
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

    demo(args.model, args.device, args.out)


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
          f"{result['seconds']:.0f} s, {result['questions']} questions, {result['captions']} captions")  # fmt: skip


def _convert_beats(args: argparse.Namespace) -> None:
    from .peers.beats import convert_beats

    print(convert_beats(args.source, args.out))


def _init_7b(args: argparse.Namespace) -> None:
    from .hub import init_7b

    print(f"written: {init_7b(args.out, vision=args.vision, audio=args.audio, text=args.text)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `saven`. Exit code 2, and one line, on bad input."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    from transformers.utils import logging as transformers_logging

    from .ask import QuestionError, QuestionFileError
    from .hub import DeviceError, ModelNotFoundError
    from .peers.beats import CheckpointError
    from .savenvideo.media_errors import MediaError
    from .world import MissingDependencyError, WorldBuildError

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    mendable = (_UsageError, MediaError, ModelNotFoundError, DeviceError, CheckpointError)
    mendable += (QuestionError, QuestionFileError, FileExistsError, FileNotFoundError)
    mendable += (WorldBuildError, MissingDependencyError)
    try:
        args.run(args)
    except mendable as error:
        print(f"saven {args.verb}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"saven {args.verb}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
