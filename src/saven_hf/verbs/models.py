"""`saven convert`, `saven verify`, `saven init-7b`."""

from __future__ import annotations

import argparse
import json

from .words import UsageError, positive


def add_convert(verbs) -> None:
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

    autoshot = formats.add_parser(
        "autoshot",
        help="AutoShot's shot detector, from its authors' .pth",
        description="Read AutoShot's published checkpoint (tensors only) and write it in transformers form, for "
        "`saven build --shots`.",
        epilog="example:\n  saven convert autoshot ckpt_0_200_0.pth autoshot",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    autoshot.add_argument("source", help="the .pth file")
    autoshot.add_argument("out", help="folder to write")
    autoshot.set_defaults(run=_convert_autoshot)

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
    salmonn.add_argument("--groupsize", type=positive(int), default=10, help="steps of a window (%(default)s)")
    salmonn.add_argument("--heads", type=positive(int), default=12, help="of the Q-Former (%(default)s)")
    salmonn.add_argument("--lora-alpha", type=positive(float), default=32, help="scale of LoRA (%(default)s)")
    salmonn.set_defaults(run=_convert_video_salmonn)


def add_verify(verbs) -> None:
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


def add_init(verbs) -> None:
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


def _convert_beats(args: argparse.Namespace) -> None:
    from ..peers.beats import convert_beats

    print(convert_beats(args.source, args.out))


def _convert_autoshot(args: argparse.Namespace) -> None:
    from ..peers.autoshot import convert_autoshot

    print(convert_autoshot(args.source, args.out))


def _convert_video_salmonn(args: argparse.Namespace) -> None:
    from ..peers.video_salmonn import convert_video_salmonn

    parts = {name: getattr(args, name) for name in ("audio", "vision", "speech", "text", "groupsize", "lora_alpha")}
    print(convert_video_salmonn(args.source, args.out, num_attention_heads=args.heads, **parts))


def _convert_videollama2(args: argparse.Namespace) -> None:
    from ..peers.videollama2 import convert_videollama2

    print(convert_videollama2(args.source, args.out, args.vision, args.audio, args.preprocessing))


def _verify(args: argparse.Namespace) -> int:
    from ..verify import verify

    say = (lambda check: None) if args.json else print
    result = verify(args.model, args.device, args.questions, args.weights_only, on_check=say)
    if args.json:
        print(json.dumps(result.to_dict()))
    else:
        print("passed" if result.passed else "FAILED")
    return 0 if result.passed else 1


def _init_7b(args: argparse.Namespace) -> None:
    from ..hub import init_7b, init_from

    if args.source:
        print(f"written: {init_from(args.source, args.out)}")
        return
    if not args.audio:
        raise UsageError("--audio DIR is needed: a folder written by `saven convert beats`; or --from DIR.")
    parts = {name: getattr(args, name) for name in ("vision", "audio", "text", "speech", "like")}
    print(f"written: {init_7b(args.out, **parts)}")
