"""Ten kills at random moments of a run of 200 videos: it ends with the bytes of one that was left alone."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from contextlib import contextmanager

import pytest
from test_build import contents

from saven_hf.pipeline import build_dataset
from saven_hf.pipeline.stages import STAGES
from saven_hf.world import sample_scene, write_video


pytest.importorskip("datasets", reason="datasets are written by the datasets library")
pytest.importorskip("datatrove", reason="builds run on datatrove's executors: pip install saven-hf[pipeline]")

VIDEOS, KILLS = 200, 10
# Processes that are forked from one that has everything imported: a start costs no time.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["saven_hf.pipeline.build", "datatrove.executor.local", "datasets"])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """200 files of eight scenes: six of the shortest, and two that are long enough for questions."""
    folder = tmp_path_factory.mktemp("videos")
    short = sorted((sample_scene(seed, segments=2) for seed in range(50)), key=lambda scene: scene.duration)
    scenes = [*short[:6], sample_scene(0, "iid"), sample_scene(1, "iid")]
    for number in range(VIDEOS):
        path = folder / f"{number:03d}.mp4"
        if number < len(scenes):
            write_video(scenes[number], path, (32, 32))
        else:
            shutil.copy(folder / f"{number % len(scenes):03d}.mp4", path)
    return folder


@pytest.fixture(scope="module")
def unbroken(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "out"
    result = build_dataset([videos], out, progress=False)
    assert result["videos"] == VIDEOS and result["questions"] > 0
    return contents(out)


@contextmanager
def cluster(executor: str):
    """The address of a ray cluster of this machine, for "ray"."""
    if executor != "ray":
        yield None
        return
    # A token would be known only to processes forked after the cluster began; nobody but this test reaches it.
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray = pytest.importorskip("ray", reason="pip install saven-hf[ray]")
    # Ray's workers have a niceness of 15, by which they stand still on a machine that does other things.
    os.environ.setdefault("RAY_worker_niceness", "0")
    context = ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    try:
        yield context.address_info["gcs_address"]
    finally:
        ray.shutdown()


def run(videos, out, executor: str, address: str | None) -> None:
    os.setsid()  # so that what it starts can be killed with it
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    build_dataset([videos], out, executor=executor, tasks=4 if executor == "ray" else 1, progress=False)


def results(out) -> int:
    return sum(len(list((out / "work" / stage).glob("*.json"))) for stage in STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_ten_kills_end_in_the_same_bytes(videos, unbroken, executor, tmp_path):
    out, draw, at = tmp_path / "out", random.Random(0), []
    moments = sorted(draw.uniform(0, VIDEOS * len(STAGES)) for _ in range(KILLS))
    with cluster(executor) as address:
        for moment in moments:
            process = PROCESSES.Process(target=run, args=(videos, out, executor, address))
            process.start()
            while process.is_alive() and results(out) <= moment:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 0.05))
            assert process.is_alive(), f"it ended before it was killed, with {results(out)} results"
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            at.append(results(out))
        process = PROCESSES.Process(target=run, args=(videos, out, executor, address))
        process.start()
        process.join()
    assert process.exitcode == 0
    assert len(set(at)) == KILLS, at
    assert contents(out) == unbroken
