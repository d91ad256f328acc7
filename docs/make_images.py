"""Makes the pictures of README and docs from what the commands really print and draw: `python docs/make_images.py`.

    python docs/make_images.py [demo] [app]

Needs `rich` and `playwright`, which the development environment has, and for the page a browser: `chromium`,
`chromium-browser` or `google-chrome`.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright
from rich.console import Console
from rich.text import Text

from saven_hf.app import Settings, engine
from saven_hf.app.examples import EXAMPLES
from saven_hf.app.page import build_page, look
from saven_hf.app.visits import Visits


IMAGES = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT = 600_000  # ms; a browser on a busy machine


def picture_of(words: list[str], path: Path, folder: str) -> None:
    """Run a command of ours in a folder and draw its output as a terminal."""
    output = subprocess.run(
        [sys.executable, "-m", "saven_hf.cli", *words[1:]], capture_output=True, text=True, check=True, cwd=folder
    ).stdout
    console = Console(record=True, width=100, file=open("/dev/null", "w"))
    console.print(Text(f"$ {' '.join(words)}", style="bold"))
    console.print(Text(output))
    # A picture that loads nothing: the reader's own monospaced font instead of one from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=words[0]), flags=re.DOTALL)
    path.write_text(svg.replace("Fira Code, ", "").replace('"https://www.textualize.io"', '"rich"'), encoding="utf-8")


def ask_two(page: Page) -> None:
    """The first two questions of the first example, the second also without sound; whatever comes is shown."""
    example = EXAMPLES[0]
    page.locator("#examples label").first.click()
    expect(page.locator(".suggestion")).to_have_count(len(example.questions))
    page.wait_for_function("() => document.querySelector('#player-media')?.readyState >= 2")
    for turn, question in enumerate(example.questions[:2], 1):
        if turn == 2:
            page.locator("#part-sound input").uncheck()
        page.locator("#question textarea").fill(question.text)
        page.locator("#ask").click()
        expect(page.locator(".turn")).to_have_count(turn)
        expect(page.locator(".chat")).to_have_attribute("aria-busy", "false")
        expect(page.locator(".fed tbody tr")).to_have_count(turn)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(500)


def pictures_of_the_page(folder: str) -> None:
    """The whole page on a desk, and on a phone from the player to the answers."""
    settings = Settings()
    page = build_page(engine.start(device="cpu"), settings, Visits(Path(folder), settings))
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, allowed_paths=[folder], **look())
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        sys.exit(f"There is no browser: none of {', '.join(BROWSERS)}.")
    expect.set_options(timeout=WAIT)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for name, size in (("app", {"width": 1280, "height": 900}), ("app-phone", {"width": 390, "height": 844})):
            context = browser.new_context(viewport=size, device_scale_factor=1 if name == "app" else 2)
            tab = context.new_page()
            tab.set_default_timeout(WAIT)
            tab.goto(address)
            ask_two(tab)
            if name == "app":
                tab.screenshot(path=IMAGES / "app.png", full_page=True)
            else:
                top, chat = (tab.locator(part).bounding_box() for part in ("#player", ".chat"))
                area = {"x": 0, "y": top["y"], "width": size["width"], "height": chat["y"] + chat["height"] - top["y"]}
                tab.screenshot(path=IMAGES / "app-phone.png", full_page=True, clip=area)
            context.close()
        browser.close()
    page.close()


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["demo", "app"]
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if "demo" in wanted:
            picture_of(["saven", "demo", "--seed", "1"], IMAGES / "demo.svg", folder)
            (drawn,) = Path(folder).glob("saven-demo/*.png")
            shutil.copy(drawn, IMAGES / "demo.png")
        if "app" in wanted:
            pictures_of_the_page(folder)
