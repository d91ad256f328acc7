"""Writes the card of the embedded model: `python hub_configs/build_cards.py [--results RUN ...] [--check]`.

The text is `cards/savenvideo-tiny.md.jinja`, the figures are `savenvideo-tiny/results.json`. `--results` takes folders
of `saven eval` and writes that file anew from them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from saven_hf.cards import signed
from saven_hf.model_cards import CARD_FILE, gather_results, model_card, write_results


TINY = Path(__file__).parent / "savenvideo-tiny"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", metavar="RUN", nargs="+", default=[], help="folders of `saven eval`")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the card is out of date")
    args = parser.parse_args()
    if args.results and not args.check:
        write_results(TINY, gather_results(args.results))
    path, text = TINY / CARD_FILE, signed(model_card(TINY))
    if not args.check:
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        print(f"{path} is out of date: run `python hub_configs/build_cards.py`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
