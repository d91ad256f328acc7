"""Files that appear under their names when they are complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[str]:
    """A name to write to; the file gets its own name when all went well, else nothing is left."""
    partial = f"{os.fspath(path)}.{os.getpid()}.partial"
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
