"""Its place puts this folder on sys.path, so that tests import what they share (`tiny`, `batches`) by name."""

import pytest
from clip import render


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """12 s, to be read only: red circle, blue square, green triangle, yellow circle; a tone with all but blue."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    render(path)
    return path
