"""Media of published benchmarks: files found by the names that annotations call them by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov"),
    *(".wav", ".flac", ".mp3", ".m4a", ".opus", ".ogg"),
    *(".jpg", ".jpeg", ".png", ".webp"),
)


class MediaFolders:
    """Files below some folders, by path, by name, or by name without its suffix.

    Annotations name files by paths of their authors' machines as a rule, so a file is looked for by ever shorter ends
    of its path. Each folder is listed once.

    Args:
        folders: where to look; those that do not exist are passed over.
    """

    def __init__(self, folders: Sequence[str | os.PathLike]):
        self.folders = [Path(folder) for folder in folders]
        self._by_end: dict[str, Path] | None = None

    def find(self, name: str) -> Path | None:
        """The file of that name, or of that name and one of `SUFFIXES`; None if there is none.

        A name that leads out of the folders finds nothing.
        """
        parts = Path(name.replace("\\", "/")).parts
        if ".." in parts:
            return None
        files = self._files()
        for first in range(len(parts)):
            end = "/".join(parts[first:])
            for candidate in (end, *(f"{end}{suffix}" for suffix in SUFFIXES)):
                if candidate in files:
                    return files[candidate]
        return None

    def _files(self) -> dict[str, Path]:
        if self._by_end is None:
            self._by_end = {}
            for folder in self.folders:
                for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
                    parts = path.relative_to(folder).parts
                    for first in range(len(parts)) if path.suffix.lower() in SUFFIXES else ():
                        self._by_end.setdefault("/".join(parts[first:]), path)
        return self._by_end
