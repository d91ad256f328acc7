"""What does the pipeline cost beside decoding and model calls?

    python benchmarks/pipeline_overhead.py [--videos 48] [--delay 1.0] [--concurrency 32]

Videos of the world are built with the `endpoint` annotator, as it is set by default, against a server on this machine
that answers everything rightly after `--delay` seconds. Processor time of the run is divided into

    decoding    all that `Media` does: opening, decoding and scaling of frames, decoding and resampling of sound
    client      huggingface_hub's client in its thread: HTTP, JSON, the event loop
    rest        everything else: shots, JPEG and WAV, prompts, parsing, checks, hashes, files, waiting for locks

and the run's length is held against calls x delay / concurrency, what it would take if nothing else cost time.
Processor seconds do not depend on what else the machine does; the run's length does.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from saven_hf.pipeline import stages
from saven_hf.pipeline.annotators import endpoint
from saven_hf.savenvideo.media import Media
from saven_hf.world import sample_scene, write_video


TESTS = Path(__file__).parents[1] / "tests" / "pipeline"
# In a process of its own, so that its threads do not wait for ours.
SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
from openai_server import good_reply, OpenAIServer
server = OpenAIServer(good_reply, float(sys.argv[2]))
print(server.url, flush=True)
sys.stdin.read()
"""


def make_videos(folder: Path, count: int) -> list[stages.VideoTask]:
    tasks = []
    for seed in range(count):
        scene = sample_scene(seed, "iid")
        path = folder / f"{scene.video_id}.mp4"
        write_video(scene, path)
        tasks.append(stages.VideoTask(scene.video_id, str(path), path.name))
    return tasks


class Stopwatch:
    """Processor seconds spent in functions, over all threads."""

    def __init__(self):
        self.seconds = 0.0
        self._inside, self._adding = threading.local(), threading.Lock()

    def watch(self, owner: object, name: str) -> None:
        """Replace a function by one that is timed; calls of watched functions by watched ones count once."""
        function = getattr(owner, name)

        def timed(*arguments, **options):
            if getattr(self._inside, "one", False):
                return function(*arguments, **options)
            self._inside.one, started = True, time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                self._inside.one = False
                with self._adding:
                    self.seconds += time.thread_time() - started

        setattr(owner, name, timed)


async def thread_seconds() -> float:
    return time.thread_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds until the server answers")
    parser.add_argument("--concurrency", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tasks = make_videos(Path(folder), arguments.videos)
        decoding, packing = Stopwatch(), Stopwatch()
        for name in ("frames_at", "audio", "close"):
            decoding.watch(Media, name)
        decoding.watch(stages, "open_media")
        packing.watch(endpoint, "_messages")  # ours, though it runs in the client's thread
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(TESTS), str(arguments.delay)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            url = server.stdout.readline().strip()
            annotator = endpoint.EndpointAnnotator(url, "any", concurrency=arguments.concurrency, timeout=600)
            worker = stages.Worker(
                stages.Settings("endpoint"), stages.Work(Path(folder) / "work"), annotator=annotator
            )
            started, used = time.perf_counter(), time.process_time()
            done = list(worker.run(tasks))
            seconds, processor = time.perf_counter() - started, time.process_time() - used
            client = asyncio.run_coroutine_threadsafe(thread_seconds(), annotator._loop).result() - packing.seconds
            usage = annotator.usage()
            annotator.close()
        finally:
            server.stdin.close()
            server.wait()
    calls = usage["calls"] * arguments.delay / arguments.concurrency
    rest = processor - decoding.seconds - client
    print(
        f"{len(done)} videos, {usage['calls']:.0f} calls at {arguments.concurrency} a time, {arguments.delay:g} s each"
    )
    print(f"run          {seconds:8.2f} s")
    print(f"calls alone  {calls:8.2f} s           the run is longer by {1 - calls / seconds:.3f} of it")
    for name, part in (("decoding", decoding.seconds), ("client", client), ("rest", rest)):
        print(f"{name:12} {part:8.2f} s processor {part / seconds:8.3f} of the run")


if __name__ == "__main__":
    main()
