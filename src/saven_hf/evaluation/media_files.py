"""Media of published benchmarks: files found by the names that annotations call them by."""

from __future__ import annotations

import filecmp
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".opus", ".ogg")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SUFFIXES = (*VIDEO_SUFFIXES, *SOUND_SUFFIXES, *IMAGE_SUFFIXES)


class Missing(NamedTuple):
    """Why a name has no file: `kind` is "missing_media" or "ambiguous_media"."""

    kind: str
    why: str


class MediaFolders:
    """Files below some folders, by path, by name, or by name without its suffix.

    Annotations name files by paths of their authors' machines as a rule, so a file is looked for by ever shorter ends
    of its path. Each folder is listed once.

    Args:
        folders: where to look; those that do not exist are passed over.
    """

    def __init__(self, folders: Sequence[str | os.PathLike]):
        self.folders = [Path(folder) for folder in folders]
        self._by_end: dict[str, list[Path]] | None = None
        self._inner: set[str] = set()  # names of the folders below

    def assign(self, names: Iterable[str]) -> dict[str, Path | Missing]:
        """The file of each name, or why it has none.

        A name has the file whose path has the longest end in common with it. It has none if several files with
        different content have, if its own folder is there and the file is not in it, or if the file is as much or
        more another name's, whose whole path or a longer end of it fits. A name that leads out of the folders finds
        nothing.

        Args:
            names: all that annotations use, with or without one of `SUFFIXES`; alternatives are joined by "|".
        """
        found: dict[str, Path | Missing] = {}
        claims: dict[Path, dict[str, tuple[int, int]]] = defaultdict(dict)
        for name in dict.fromkeys(names):
            tried = [(one, *self._find(one)) for one in name.split("|")]
            one, file, kept = next((those for those in tried if isinstance(those[1], Path)), tried[0])
            found[name] = file
            if isinstance(file, Path):
                claims[file][name] = (kept, len(Path(one).parts) - kept)
        for file, claimants in claims.items():
            most = max(kept for kept, _ in claimants.values())
            strongest = [name for name, (kept, _) in claimants.items() if kept == most]
            for name, (kept, dropped) in claimants.items():
                if dropped and kept < most:
                    found[name] = Missing("missing_media", f"no {name}; {file} is that of {strongest[0]}")
                elif dropped and len(strongest) > 1:
                    other = next(one for one in strongest if one != name)
                    found[name] = Missing("ambiguous_media", f"{file} may be {name} or {other}")
        return found

    def _find(self, name: str) -> tuple[Path | Missing, int]:
        """The file that fits the longest end of a name, and of how many parts that end is."""
        parts = Path(name.replace("\\", "/")).parts
        if ".." not in parts:
            files = self._files()
            for first in range(len(parts)):
                end = "/".join(parts[first:])
                for candidate in (end, *(f"{end}{suffix}" for suffix in SUFFIXES)):
                    if candidate not in files:
                        continue
                    path, *others = files[candidate]
                    unlike = next((one for one in others if not filecmp.cmp(path, one, shallow=False)), None)
                    if unlike is not None:
                        return Missing("ambiguous_media", f"{name} may be {path} or {unlike}"), 0
                    if first and parts[first - 1] in self._inner:
                        return Missing("missing_media", f"no {name}; {path} is in another folder"), 0
                    return path, len(parts) - first
        return Missing("missing_media", f"no {name}"), 0

    def _files(self) -> dict[str, list[Path]]:
        if self._by_end is None:
            self._by_end = defaultdict(list)
            seen: set[Path] = set()
            for folder in self.folders:
                for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
                    parts = path.relative_to(folder).parts
                    if path.suffix.lower() not in SUFFIXES or path.resolve() in seen:
                        continue
                    seen.add(path.resolve())
                    self._inner |= set(parts[:-1])
                    for first in range(len(parts)):
                        self._by_end["/".join(parts[first:])].append(path)
        return self._by_end
