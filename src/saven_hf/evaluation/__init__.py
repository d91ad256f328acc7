"""Measuring models: benchmarks with controls, answers parsed by stated rules, intervals over videos.

from saven_hf.evaluation import evaluate_world

summary = evaluate_world(model, processor, "run", splits=("iid", "vfr"), controls=("mute", "black"), fps=4)
print(summary["accuracy"])  # and run/report.md
"""

from .adapters import Adapter, Asked, MemoryAdapter, Watched
from .benchmarks import Benchmark, Item
from .controls import CONTROLS, PLAIN, Control, ControlError, control_named
from .runner import RunMismatchError, run
from .sync import SyncBenchmark, evaluate_sync
from .world import WorldBenchmark, evaluate_world


__all__ = [
    "CONTROLS",
    "PLAIN",
    "Adapter",
    "Asked",
    "Benchmark",
    "Control",
    "ControlError",
    "Item",
    "MemoryAdapter",
    "RunMismatchError",
    "SyncBenchmark",
    "Watched",
    "WorldBenchmark",
    "control_named",
    "evaluate_sync",
    "evaluate_world",
    "run",
]
