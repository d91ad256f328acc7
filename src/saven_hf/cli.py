"""The `saven` command. Thin: its verbs stand in `verbs/`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from .verbs.app import add_app
from .verbs.ask import add_ask, add_demo, add_plan
from .verbs.data import add_build, add_cache, add_push, add_validate, add_world
from .verbs.evaluate import add_eval
from .verbs.models import add_convert, add_init, add_verify
from .verbs.train import add_train
from .verbs.words import Parser, UsageError


# In the order of `saven --help`.
VERBS = (
    add_ask,
    add_plan,
    add_demo,
    add_app,
    add_world,
    add_build,
    add_validate,
    add_cache,
    add_eval,
    add_train,
    add_convert,
    add_verify,
    add_init,
    add_push,
)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="saven",
        description="Ask, train and measure long videos with their sound and their time.",
        epilog="`saven VERB --help` explains a verb and shows examples.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for add in VERBS:
        add(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `saven`. Exit code 2, and one line, on bad input."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    from transformers.utils import logging as transformers_logging

    from .app import AppError
    from .ask import QuestionError, QuestionFileError
    from .data.messages import DataError
    from .evaluation import (
        AdapterError,
        BenchmarkFileError,
        ComparisonError,
        ControlError,
        EndpointError,
        MetricUnavailableError,
        ProtocolError,
        RunMismatchError,
    )
    from .hub import DeviceError, ModelNotFoundError
    from .model_cards import CardError
    from .peers.auto import PeerError
    from .peers.checkpoint import CheckpointError
    from .pipeline.errors import PipelineError
    from .push import PushError
    from .savenvideo.media_errors import MediaError
    from .timeline import TimelineError
    from .training.cache import FeatureCacheError
    from .verify import GoldenError
    from .world import MissingDependencyError, WorldBuildError

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    mendable = (UsageError, MediaError, ModelNotFoundError, DeviceError, CheckpointError)
    mendable += (QuestionError, QuestionFileError, TimelineError, FileExistsError, FileNotFoundError)
    mendable += (FeatureCacheError, WorldBuildError, MissingDependencyError, DataError)
    mendable += (ControlError, RunMismatchError, AdapterError, BenchmarkFileError, ComparisonError, EndpointError)
    mendable += (MetricUnavailableError, ProtocolError, PeerError, PushError, PipelineError, GoldenError, CardError)
    mendable += (AppError,)
    try:
        return args.run(args) or 0
    except mendable as error:
        print(f"saven {args.verb}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"saven {args.verb}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
