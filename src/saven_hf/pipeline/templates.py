"""Prompts: `.jinja` files with a block `system` and a block `user`, from the package or from a folder of one's own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .errors import PromptError


# Name -> what a template is given.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "visual_caption": ("frames", "seconds"),
    "audio_caption": ("seconds",),
    "merge_audio": ("captions",),
    "fuse_segment": ("start", "end", "visual_caption", "audio_caption"),
    "fuse_video": ("modality", "segments"),
    "questions": ("visual_caption", "audio_caption", "av_caption", "segments"),
    "options": ("visual_caption", "audio_caption", "av_caption", "segments", "question", "kind"),
    "answer": ("caption", "question", "options"),
    "repair": ("system", "request", "reply", "problems"),
}
_SHIPPED = Path(__file__).parent / "prompts"


class Prompt(NamedTuple):
    """A rendered prompt."""

    system: str
    user: str


class Prompts:
    """The prompts of a run.

    Args:
        folder: templates of one's own, `<name>.jinja` for names of `TEMPLATES`; those it lacks are the package's.

    Raises:
        PromptError: no such folder, a file in it that no stage asks for, or a template that cannot be used.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        self._files = {name: _SHIPPED / f"{name}.jinja" for name in TEMPLATES}
        if folder is not None:
            if not Path(folder).is_dir():
                raise PromptError(f"There is no folder of prompts {os.fspath(folder)}.")
            for path in sorted(Path(folder).glob("*.jinja")):
                if path.stem not in TEMPLATES:
                    raise PromptError(f"{path}: no stage uses it; prompts are named {', '.join(TEMPLATES)}.")
                self._files[path.stem] = path
        for name in TEMPLATES:
            self._check(name)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """First twelve hexadecimal digits of the SHA-256 of each template, by name."""
        return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for name, path in self._files.items()}

    def hashes_of(self, *names: str) -> list[str]:
        """ "questions.jinja=0a1b2c3d4e5f", as rows store them."""
        return [f"{name}.jinja={self.hashes[name]}" for name in names or TEMPLATES]

    def render(self, name: str, values: Mapping[str, Any]) -> Prompt:
        """A prompt with its values filled in.

        Raises:
            PromptError: the template needs what it is not given.
        """
        from jinja2 import TemplateError

        template = self._loaded[name]
        try:
            parts = ("".join(template.blocks[block](template.new_context(dict(values)))) for block in Prompt._fields)
            return Prompt(*(part.strip() for part in parts))
        except (TemplateError, TypeError, KeyError, IndexError) as error:
            raise PromptError(f"{self._files[name]}: {error}.") from error

    @cached_property
    def _loaded(self) -> dict:
        # A folder of prompts may be someone else's: nothing in it can reach into Python.
        from jinja2 import StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return {name: environment.from_string(path.read_text(encoding="utf-8")) for name, path in self._files.items()}

    def _check(self, name: str) -> None:
        from jinja2 import TemplateSyntaxError

        path = self._files[name]
        try:
            missing = [block for block in Prompt._fields if block not in self._loaded[name].blocks]
        except TemplateSyntaxError as error:
            raise PromptError(f"{path}, line {error.lineno}: {error.message}.") from error
        if missing:
            raise PromptError(f"{path}: it lacks the block {missing[0]!r}; write {{% block {missing[0]} %}}.")
