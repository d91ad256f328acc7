"""Memory of `encode_video` on real files: the benchmark on short videos."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "encode_memory.py"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video():
    run = subprocess.run([sys.executable, str(SCRIPT), "--minutes", "2", "6"], capture_output=True, text=True)
    result = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0 and result["ratio"] <= result["limit"]
    # All of it was watched and heard.
    assert [row["frames"] for row in result["rows"]] == [120, 360]
    assert [round(row["audio_seconds"]) for row in result["rows"]] == [120, 360]
