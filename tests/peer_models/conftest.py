"""Peers of transformers with random weights. Their processors need torchvision, which nothing else here does:
`make peer-models` installs it aside and runs these tests; in any other run they are skipped."""

import importlib.util
import sys
from pathlib import Path

import pytest


sys.path.insert(0, str(Path(__file__).parents[1] / "peer"))
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
if HAS_TORCHVISION:
    from torchvision_shim import declare_operators

    declare_operators()


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if not HAS_TORCHVISION and item.path.is_relative_to(here):
            item.add_marker(pytest.mark.skip(reason="needs torchvision: run by `make peer-models`"))
