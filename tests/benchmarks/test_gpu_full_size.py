"""The full-size benchmark in its tiny form: the same code on the embedded configuration."""

import json
import subprocess
import sys
from pathlib import Path


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_full_size.py"


def test_tiny_form_runs_every_step():
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--device", "cpu"], capture_output=True, text=True, check=True
    )
    result = json.loads(run.stdout.splitlines()[-1])
    assert list(result["steps"]) == [
        "build",
        "forward",
        "4bit-load",
        "4bit-forward",
        "align-visual",
        "align-audio",
        "temporal",
        "saven",
    ]
    assert all(step["seconds"] > 0 and step["peak_gib"] > 0 for step in result["steps"].values())
    # 16 frames and a minute of sound: six windows of ten seconds, 16 queries each, two question times, 64 of text.
    assert result["prompt_tokens"] == 6 * 16 + 2 + 64


def test_full_form_is_refused_without_a_gpu():
    run = subprocess.run([sys.executable, str(SCRIPT), "--device", "cpu"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "needs a GPU" in run.stderr
