"""The page on which people ask about videos: `saven app`, and the demo Space.

    from saven_hf.app import Settings, serve

    serve(Settings(model="me/savenvideo-7b"))

A video is decoded and encoded once, however many questions follow, unless the model's tokens depend on the question.
`engine` answers, `visits` keeps what a visitor opened and asked, `examples` makes videos whose answers are known,
`axis` and `words` say it in HTML, `page` lays it out with gradio, which is optional (`pip install "saven-hf[app]"`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


class AppError(ValueError):
    """Something that a visitor, or whoever starts the page, can mend; the message says how."""


@dataclass(frozen=True)
class Settings:
    """How a page is run.

    Args:
        model: folder or Hub id, as for `saven ask`; None for the embedded tiny model.
        device: a torch device; None for the GPU if there is one, else the CPU.
        max_megabytes, max_seconds: the largest and longest video that is taken.
        max_waiting: questions that may wait for their turn; who comes later is asked to try again.
        max_new_tokens: longest answer.
        idle_seconds: after so long without a question, what a visitor opened is removed.
    """

    model: str | None = None
    device: str | None = None
    max_megabytes: int = 200
    max_seconds: int = 600
    max_waiting: int = 16
    max_new_tokens: int = 256
    idle_seconds: int = 1800

    # Spaces are set up by environment variables.
    VARIABLES = {
        "model": "SAVEN_MODEL",
        "device": "SAVEN_DEVICE",
        "max_megabytes": "SAVEN_MAX_MB",
        "max_seconds": "SAVEN_MAX_SECONDS",
        "max_waiting": "SAVEN_MAX_WAITING",
    }

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **given) -> Settings:
        """Settings of environment variables, for whatever is not given (None) here.

        Raises:
            AppError: a variable that has to be a positive number is something else.
        """
        found = {name: value for name, value in given.items() if value is not None}
        for name, variable in cls.VARIABLES.items():
            text = environment.get(variable, "").strip()
            if not text or name in found:
                continue
            if name.startswith("max_"):
                if not text.isdecimal() or int(text) < 1:
                    raise AppError(f"{variable} is {text!r}: give a whole number of at least 1, or leave it out.")
                found[name] = int(text)
            else:
                found[name] = text
        return cls(**found)


def serve(settings: Settings | None = None, host: str | None = None, port: int | None = None) -> None:
    """Load the model, start the page and stay until it is stopped.

    Args:
        settings: None takes those of the environment.
        host: address to listen on; None for this machine alone, or what GRADIO_SERVER_NAME says, as Spaces do.
        port: None for the first free one from 7860 on, or what GRADIO_SERVER_PORT says.

    Raises:
        AppError: gradio is not installed, or the port is taken.
    """
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise AppError('The page needs gradio 6: pip install "saven-hf[app]"') from error
    from .page import run

    run(settings or Settings.from_environment(), host, port)
