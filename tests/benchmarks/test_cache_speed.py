"""The benchmark of the feature cache, on a few short videos."""

import json
import subprocess
import sys
from pathlib import Path


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cache_speed.py"


def test_a_step_from_the_cache_is_faster_and_has_the_same_loss():
    run = subprocess.run([sys.executable, str(SCRIPT), "--tiny"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["ratio"] < 1 and result["feed_ratio"] < 0.5
    assert result["loss_gap"] < 1e-3  # the features are stored in half precision
    assert result["reads_per_second"] > 100
