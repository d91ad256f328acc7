from pathlib import Path

import pytest
from clip import render

from saven_hf.world import sample_scene, write_video


SIZE = (32, 32)


@pytest.fixture(scope="session")
def clip_path(tmp_path_factory) -> Path:
    """Twelve seconds at 25 frames a second: red, blue, green and yellow for 3 s each, with tones; see `clip`."""
    path = tmp_path_factory.mktemp("clip") / "four.mp4"
    render(path)
    return path


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory) -> Path:
    """Six small videos of the world."""
    folder = tmp_path_factory.mktemp("world")
    for seed in range(6):
        scene = sample_scene(seed, "iid")
        write_video(scene, folder / f"{scene.video_id}.mp4", SIZE)
    return folder
