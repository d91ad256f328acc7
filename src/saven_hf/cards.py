"""Cards: README.md of a model, a dataset or a Space, from the templates of `hub_configs/cards/`."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .version import __version__


if TYPE_CHECKING:
    import jinja2


_MADE = "<!-- made by saven_hf, sum "  # then eight digits: the card is remade as long as they agree with its text


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    package = Path(__file__).parent
    roots = [root / "hub_configs" / "cards" for root in (package, package.parents[1])]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([root for root in roots if root.is_dir()]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    environment.globals["version"] = __version__
    return environment


def render(template: str, metadata: Any, **values: Any) -> str:
    """A card: its YAML, and a template of `hub_configs/cards/` filled with values.

    Args:
        metadata: of huggingface_hub's `CardData`.
    """
    body = _templates().get_template(f"{template}.md.jinja").render(**values)
    return f"---\n{metadata.to_yaml()}\n---\n\n{body.strip()}\n"


def has_template(name: str) -> bool:
    return f"{name}.md.jinja" in _templates().list_templates()


def signed(text: str) -> str:
    """The card with its sum, by which `is_untouched` tells that nobody has changed it since."""
    return f"{text}\n{_MADE}{zlib.crc32(text.encode()):08x} -->\n"


def is_untouched(text: str) -> bool:
    """Whether a card is as it was made: it may be made again, and nothing that a person wrote is lost."""
    body, mark, rest = text.rpartition(f"\n{_MADE}")
    return bool(mark) and rest == f"{zlib.crc32(body.encode()):08x} -->\n"
