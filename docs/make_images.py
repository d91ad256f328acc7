"""Makes the pictures of README and docs from what the commands really print and draw: `python docs/make_images.py`.

Needs `rich`, which the development environment has.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text


IMAGES = Path(__file__).parent / "images"


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


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        picture_of(["saven", "demo", "--seed", "1"], IMAGES / "demo.svg", folder)
        (drawn,) = Path(folder).glob("saven-demo/*.png")
        shutil.copy(drawn, IMAGES / "demo.png")
