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
    file = _file(words[1:]) if words[:1] in (["ask"], ["plan"]) else None
    if file is not None:
        if not (os.path.isdir(file) and "--questions" in words):
            media, errors = _media_modules()
            try:
                media.open_media(file).close()
            except errors.MediaError as error:
                print(f"saven {words[0]}: error: {' '.join(str(error).split())}", file=sys.stderr)
                return 2
    return importlib.import_module("saven_hf.cli").main(words)


def _file(words: list[str]) -> str | None:
    """The first word of a command that is no option and no option's value."""
    words = iter(words)
    for word in words:
        if word == "--":
            return next(words, None)
        if not word.startswith("-") or word == "-":
            return word
        if "--help".startswith(word) or word == "-h":
            return None
        if "=" not in word and not "--json".startswith(word):
            next(words, None)
    return None


def _media_modules() -> tuple[types.ModuleType, types.ModuleType]:
    """The media modules by themselves: their folder depends on nothing outside it, so it works as a package too."""
    package = types.ModuleType("saven_command_media")
    package.__path__ = [str(Path(importlib.util.find_spec("saven_hf").origin).parent / "savenvideo")]
    sys.modules[package.__name__] = package
    return tuple(importlib.import_module(f"{package.__name__}.{name}") for name in ("media", "media_errors"))
