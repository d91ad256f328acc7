"""The front door of the `saven` command.

`import saven_hf` takes seconds, nearly all of them transformers' own. Whoever mistyped a file name should not wait for
that: the file is looked at first, through the media modules alone, and only then the command proper is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path


def main() -> int:
    """Entry point. Exit code 2, and one line, on a file that cannot be read."""
    words = sys.argv[1:]
    # Any other order of words is fine too; it is looked at a little later, by the command proper.
    if len(words) > 1 and words[0] in ("ask", "plan") and not words[1].startswith("-"):
        if not (os.path.isdir(words[1]) and "--questions" in words):
            media, errors = _media_modules()
            try:
                media.open_media(words[1]).close()
            except errors.MediaError as error:
                print(f"saven {words[0]}: error: {' '.join(str(error).split())}", file=sys.stderr)
                return 2
    return importlib.import_module("saven_hf.cli").main(words)


def _media_modules() -> tuple[types.ModuleType, types.ModuleType]:
    """The media modules by themselves: their folder depends on nothing outside it, so it works as a package too."""
    package = types.ModuleType("saven_command_media")
    package.__path__ = [str(Path(importlib.util.find_spec("saven_hf").origin).parent / "savenvideo")]
    sys.modules[package.__name__] = package
    return tuple(importlib.import_module(f"{package.__name__}.{name}") for name in ("media", "media_errors"))
