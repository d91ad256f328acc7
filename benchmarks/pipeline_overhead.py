"""What does the pipeline cost beside decoding and model calls?

    python benchmarks/pipeline_overhead.py [--videos 48] [--delay 1.0] [--concurrency 32]

Videos of the world are built by `build_dataset` with the `endpoint` annotator, as it is set by default, against a
server on this machine that answers everything rightly after `--delay` seconds. Processor time of the run is divided
into

    decoding    all that `Media` does: opening, decoding and scaling of frames, decoding and resampling of sound
    client      huggingface_hub's client in its thread: HTTP, JSON, the event loop
    rest        everything else: shots, JPEG and WAV, prompts, parsing, checks, hashes, files, the dataset, its report

and the run's length is held against calls x delay / concurrency, what it would take if nothing else cost time.
Processor seconds do not depend on what else the machine does; the run's length does. Ends with status 1 if the rest is
`--limit` of the run or more.
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

from saven_hf.pipeline import Settings, build_dataset, report, stages
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


def make_videos(folder: Path, count: int) -> None:
    folder.mkdir()
    for seed in range(count):
        scene = sample_scene(seed, "iid")
        write_video(scene, folder / f"{scene.video_id}.mp4")


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


class ClientTime(Stopwatch):
    """Processor seconds of the threads that annotators keep their clients in, read when they are closed."""

    def __init__(self):
        super().__init__()
        close = endpoint.EndpointAnnotator.close

        def timed(annotator):
            if annotator._loop is not None:
                self.seconds += asyncio.run_coroutine_threadsafe(_thread_seconds(), annotator._loop).result()
            close(annotator)

        endpoint.EndpointAnnotator.close = timed


async def _thread_seconds() -> float:
    return time.thread_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds until the server answers")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--limit", type=float, default=0.05, help="most of the run that the rest may take")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        make_videos(videos, arguments.videos)
        decoding, packing, client = Stopwatch(), Stopwatch(), ClientTime()
        for name in ("frames_at", "audio", "close"):
            decoding.watch(Media, name)
        for module in (stages, report):
            decoding.watch(module, "open_media")
        packing.watch(endpoint, "_messages")  # ours, though it runs in the client's thread
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(TESTS), str(arguments.delay)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            options = {"base_url": server.stdout.readline().strip(), "text_model": "any",
                       "concurrency": arguments.concurrency, "timeout": 600}  # fmt: skip
            started, used = time.perf_counter(), time.process_time()
            result = build_dataset([videos], Path(folder) / "out", Settings("endpoint", options), progress=False)
            seconds, processor = time.perf_counter() - started, time.process_time() - used
        finally:
            server.stdin.close()
            server.wait()
    made = result["usage"]["calls"]
    calls = made * arguments.delay / arguments.concurrency
    in_client = client.seconds - packing.seconds
    rest = processor - decoding.seconds - in_client
    print(
        f"{result['videos']} videos, {made:.0f} calls at {arguments.concurrency} a time, {arguments.delay:g} s each, "
        f"{len(result['quarantined'])} put aside"
    )
    print(f"run          {seconds:8.2f} s")
    print(f"calls alone  {calls:8.2f} s           the run is longer by {1 - calls / seconds:.3f} of it")
    for name, part in (("decoding", decoding.seconds), ("client", in_client), ("rest", rest)):
        print(f"{name:12} {part:8.2f} s processor {part / seconds:8.3f} of the run")
    sys.exit(int(rest / seconds >= arguments.limit or bool(result["quarantined"])))


if __name__ == "__main__":
    main()
