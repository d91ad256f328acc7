"""Peers of transformers with random weights. Their processors need torchvision, which nothing else here does:
`make peer-models` installs it aside and runs these tests; in any other run they are skipped."""

import importlib.util
from pathlib import Path

import pytest


HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if not HAS_TORCHVISION and item.path.is_relative_to(here):
            item.add_marker(pytest.mark.skip(reason="needs torchvision: run by `make peer-models`"))
