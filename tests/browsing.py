"""What the tests of the Spaces share: a page served as a Space is, and a browser to visit it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright


TIMEOUT = 600_000  # ms; a browser on a busy machine
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def start_page(space: Path, *words: str, **environment: str) -> tuple[str, subprocess.Popen]:
    """`python app.py WORDS` in the folder of a Space, on a free port: its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "app.py", *words],
        cwd=space,
        env={
            **os.environ,
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            **environment,
        },
    )
    deadline = time.monotonic() + TIMEOUT / 1000
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"http://127.0.0.1:{port}", process
        time.sleep(0.5)
    process.kill()
    raise AssertionError("the page did not start")


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The browser of this machine, without a window."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.fail(f"There is no browser: none of {', '.join(BROWSERS)}. `make test-slow` installs one.")
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
