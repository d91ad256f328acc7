"""`saven ask`, `saven plan`, `saven demo`."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict

from .words import UsageError, add_model, add_sampling, positive, sampling


def add_ask(verbs) -> None:
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
        "--max-new-tokens", type=positive(int), default=256, help="longest answer, in tokens (default: 256)"
    )
    ask.add_argument("--json", action="store_true", help="print one JSON object: answers, and what the model was fed")
    ask.add_argument(
        "--picture",
        metavar="FILE",
        help="draw film strip, waveform, spectrogram and the times of questions and answers on one time axis "
        "(.png, .svg, .pdf)",
    )
    add_sampling(ask)
    add_model(ask)
    ask.set_defaults(run=_ask)


def add_plan(verbs) -> None:
    plan = verbs.add_parser(
        "plan",
        help="count tokens, memory and time before you start",
        description="Count what asking about a video will cost, and training on it, from its header and a few frames. "
        "The model's configuration is enough: no weights are read.",
        epilog="examples:\n  saven plan lecture.mp4 --model savenvideo-7b --sampling fps --fps 1\n"
        "  saven plan lecture.mp4 --model savenvideo-7b --dtype bfloat16 --tflops 400     (on a GPU elsewhere)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    plan.add_argument("video", help="a video, image or sound file")
    plan.add_argument(
        "--tflops",
        metavar="N",
        type=positive(float),
        help="speed of the machine that you think of, in 1e12 operations a second (default: measured on this one)",
    )
    plan.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="of its weights (default: bfloat16 on a GPU, float32 on a CPU)",
    )
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    add_sampling(plan)
    add_model(plan)
    plan.set_defaults(run=_plan)


def add_demo(verbs) -> None:
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
    add_model(demo)
    demo.set_defaults(run=_demo)


def _ask(args: argparse.Namespace) -> None:
    from ..ask import answer_file, as_json, load_any, open_session
    from ..savenvideo.media import open_media
    from ..timeline import TimelineError, check_picture_path, draw_timeline, rows_of

    options = {"max_new_tokens": args.max_new_tokens}
    if args.picture:
        check_picture_path(args.picture)
    if args.questions or args.out:
        if args.picture:
            raise UsageError("--picture FILE is for one video; it does not go with --questions.")
        if not (args.questions and args.out) or args.question or not os.path.isdir(args.video):
            raise UsageError("--questions FILE and --out FILE go together, with a folder and no question.")
        model = load_any(args.model, args.device, **sampling(args))
        done = answer_file(args.video, args.questions, args.out, model, **options, **sampling(args))
        print(f"{done} questions answered in {args.out}")
        return
    if not all(question.strip() for question in args.question or [""]):
        raise UsageError('there is no question: saven ask VIDEO "QUESTION"')
    # A file that cannot be read shall be told in a second, not after the model has been loaded.
    with open_media(args.video) as media:
        if args.picture and media.kind == "image":
            raise TimelineError("--picture draws a time axis, which an image does not have: leave it out.")

    model = load_any(args.model, args.device, **sampling(args))
    session = open_session(args.video, model, args.subtitles, **sampling(args))
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
    if isinstance(model, tuple) and model[0].config.notice:
        print(f"\nNote: {model[0].config.notice}")


def _plan(args: argparse.Namespace) -> None:
    import torch

    from ..plan import plan

    speed = None if args.tflops is None else args.tflops * 1e12
    dtype = None if args.dtype is None else getattr(torch, args.dtype)
    result = plan(args.video, args.model, device=args.device, dtype=dtype, flops_per_second=speed, **sampling(args))
    if args.json:
        print(json.dumps(asdict(result)))
        return

    def size(value: float) -> str:
        return f"{value / 1e9:.2f} GB" if value >= 1e8 else f"{value / 1e6:.2f} MB"

    where = f"decode on this machine, all else at {result.flops_per_second / 1e9:.0f} GFLOP/s, "
    where += "as given" if args.tflops else f"the speed of a matrix product on this {result.device}"
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
        + f"\n         ({where}; a lower bound)"
    )
    print(
        f"training  with LoRA and connector ({result.trained_parameters / 1e6:.1f} M parameters): memory "
        f"{size(result.train_bytes)}, {result.train_seconds:.2f} s a row of this video, without decoding"
    )
    if result.tokens > result.context:
        print(
            f"These {result.tokens} tokens do not fit the context of {result.context}: take fewer frames, or a "
            "model with longer windows."
        )


def _demo(args: argparse.Namespace) -> None:
    from ..demo import demo

    if args.seed < 0:
        raise UsageError(f"the seed must be at least 0, not {args.seed}.")
    demo(args.model, args.device, args.out, args.seed)
