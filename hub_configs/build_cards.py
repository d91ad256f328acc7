"""Writes the cards of the embedded model and of the demo Space: `python hub_configs/build_cards.py`.

Their texts are `cards/savenvideo-tiny.md.jinja` and `cards/savenvideo-demo.md.jinja`, their figures
`savenvideo-tiny/results.json`. `--results` takes folders of `saven eval` and writes that file anew from them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from huggingface_hub import SpaceCardData

from saven_hf.app import Settings
from saven_hf.cards import render, signed
from saven_hf.model_cards import CARD_FILE, gather_results, model_card, read_results, write_results


TINY = Path(__file__).parent / "savenvideo-tiny"
DEMO = Path(__file__).parents[1] / "spaces" / "savenvideo-demo"


def demo_card() -> str:
    """The card of the demo Space: the limits of its page, and what its model reaches."""
    data = SpaceCardData(
        title="SAVEnVideo",
        emoji="🎬",
        colorFrom="red",
        colorTo="gray",
        sdk="gradio",
        sdk_version="6.31.0",
        app_file="app.py",
        python_version="3.11",
        license="apache-2.0",
        short_description="Ask a video, with its sound and its time",
        tags=["video", "audio", "video-question-answering"],
    )
    results = [one for one in read_results(TINY) if one.kind is one.control is None]
    return render(DEMO.name, data, title=data.title, settings=Settings(), plain=results, controlled=[])


def cards() -> dict[Path, str]:
    return {TINY / CARD_FILE: signed(model_card(TINY)), DEMO / CARD_FILE: demo_card()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", metavar="RUN", nargs="+", default=[], help="folders of `saven eval`")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a card is out of date")
    args = parser.parse_args()
    if args.results and not args.check:
        write_results(TINY, gather_results(args.results))
    outdated = {path: text for path, text in cards().items() if path.read_text(encoding="utf-8") != text}
    for path, text in outdated.items():
        if args.check:
            print(f"{path} is out of date: run `python hub_configs/build_cards.py`", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if args.check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
