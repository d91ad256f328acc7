"""Measuring models: benchmarks with controls, answers parsed by stated rules, intervals over videos.

from saven_hf.evaluation import evaluate, open_adapter, open_benchmark

summary = evaluate(open_benchmark("music-avqa", "MUSIC-AVQA"), open_adapter("Qwen/Qwen2.5-Omni-7B"), "run")
print(summary["accuracy"])  # and run/report.md
"""

from .adapters import Adapter, Asked, Likelihood, MemoryAdapter, ModelAdapter, ProtocolError, Watched
from .avbench import AVBench
from .aveb import AVEB
from .baselines import GuessingAdapter, TextAdapter
from .benchmarks import Benchmark, Item, Pair, Problem, Table
from .catalog import BASELINES, BENCHMARKS, PUBLISHED, AdapterError, open_adapter, open_benchmark
from .compare import ComparisonError, compare, comparison_table
from .controls import CONTROLS, PLAIN, Control, ControlError, control_named
from .endpoint import EndpointAdapter, EndpointError
from .evaluate import evaluate, read_timing
from .music_avqa import MusicAVQA
from .open_qa import OpenQA
from .published import BenchmarkFileError, PublishedBenchmark
from .runner import PROTOCOLS, RunMismatchError, run
from .sync import SyncBenchmark, evaluate_sync
from .text_metrics import MetricUnavailableError
from .transformers_adapter import TransformersAdapter
from .videomme import VideoMME
from .world import WorldBenchmark, evaluate_world


__all__ = [
    "AVEB",
    "BASELINES",
    "BENCHMARKS",
    "CONTROLS",
    "PLAIN",
    "PROTOCOLS",
    "PUBLISHED",
    "AVBench",
    "Adapter",
    "AdapterError",
    "Asked",
    "Benchmark",
    "BenchmarkFileError",
    "ComparisonError",
    "Control",
    "ControlError",
    "EndpointAdapter",
    "EndpointError",
    "GuessingAdapter",
    "Item",
    "Likelihood",
    "MemoryAdapter",
    "MetricUnavailableError",
    "ModelAdapter",
    "MusicAVQA",
    "OpenQA",
    "Pair",
    "Problem",
    "ProtocolError",
    "PublishedBenchmark",
    "RunMismatchError",
    "SyncBenchmark",
    "Table",
    "TextAdapter",
    "TransformersAdapter",
    "VideoMME",
    "Watched",
    "WorldBenchmark",
    "compare",
    "comparison_table",
    "control_named",
    "evaluate",
    "evaluate_sync",
    "evaluate_world",
    "open_adapter",
    "open_benchmark",
    "read_timing",
    "run",
]
