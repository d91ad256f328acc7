"""`saven app`."""

from __future__ import annotations

import argparse

from .words import add_model, positive


def add_app(verbs) -> None:
    app = verbs.add_parser(
        "app",
        help="open a page in the browser to ask about videos",
        description="Serve a page on which people upload a video or pick an example, ask about it, and see what the "
        "model was fed, when its answers are, and what sound, picture and time contribute. Needs gradio: "
        'pip install "saven-hf[app]".',
        epilog="examples:\n  saven app\n  saven app --model me/savenvideo-7b --host 0.0.0.0 --port 7860\n"
        "Environment variables: SAVEN_MODEL, SAVEN_DEVICE, SAVEN_MAX_MB, SAVEN_MAX_SECONDS, SAVEN_MAX_WAITING "
        "(docs/app.md).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    app.add_argument("--host", help="address to listen on (default: this machine alone)")
    app.add_argument("--port", type=positive(int), help="port (default: the first free one from 7860 on)")
    app.add_argument("--max-mb", type=positive(int), help="largest upload, in MB (default: 200)")
    app.add_argument("--max-seconds", type=positive(int), help="longest video, in seconds (default: 600)")
    add_model(app)
    app.set_defaults(run=_app)


def _app(args: argparse.Namespace) -> None:
    from ..app import Settings, serve

    given = {"model": args.model, "device": args.device, "max_megabytes": args.max_mb, "max_seconds": args.max_seconds}
    serve(Settings.from_environment(**given), args.host, args.port)
