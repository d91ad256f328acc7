"""What does the pipeline cost beside decoding and model calls?

    python benchmarks/pipeline_overhead.py [--videos 48] [--delay 1.0] [--concurrency 32]

Videos of the world are built with the `endpoint` annotator against a server on this machine that answers everything
rightly after `--delay` seconds. If nothing else cost time, the run would take calls x delay / concurrency, or what
decoding takes where that is more. The last line is the part of the run that is more than this.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from saven_hf.pipeline.annotators.endpoint import EndpointAnnotator
from saven_hf.pipeline.stages import Settings, VideoTask, Work, Worker
from saven_hf.savenvideo.media import open_media
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


def make_videos(folder: Path, count: int) -> list[VideoTask]:
    tasks = []
    for seed in range(count):
        scene = sample_scene(seed, "iid")
        path = folder / f"{scene.video_id}.mp4"
        write_video(scene, path)
        tasks.append(VideoTask(scene.video_id, str(path), path.name))
    return tasks


def decode_seconds(tasks: list[VideoTask]) -> float:
    """What decoding alone costs: all frames once, as segmentation asks for, and the sound once."""
    started = time.process_time()
    for task in tasks:
        with open_media(task.path) as media:
            media.frames_at(media.frame_times(), (36, 64), "area")
            media.audio()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--delay", type=float, default=1.0, help="seconds until the server answers")
    parser.add_argument("--concurrency", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tasks = make_videos(Path(folder), arguments.videos)
        decoding = decode_seconds(tasks)
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(TESTS), str(arguments.delay)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            url = server.stdout.readline().strip()
            annotator = EndpointAnnotator(
                url, "any", concurrency=arguments.concurrency, frames=4, longest_side=64, timeout=600
            )
            worker = Worker(Settings("endpoint"), Work(Path(folder) / "work"), annotator=annotator)
            started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
            done = list(worker.run(tasks))
            seconds, now = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
            usage = annotator.usage()
            annotator.close()
        finally:
            server.stdin.close()
            server.wait()
    processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    calls = usage["calls"] * arguments.delay / arguments.concurrency
    print(
        f"{len(done)} videos, {usage['calls']:.0f} calls at {arguments.concurrency} a time, {arguments.delay:g} s each"
    )
    print(f"run                      {seconds:8.2f} s, of which on the processor {processor:.2f} s")
    print(f"calls alone              {calls:8.2f} s")
    print(f"decoding alone           {decoding:8.2f} s on the processor")
    print(f"processor beside decoding, of the run   {max(0.0, processor - decoding) / seconds:8.3f}")
    print(f"run beside calls alone, of the run      {max(0.0, seconds - max(calls, decoding)) / seconds:8.3f}")


if __name__ == "__main__":
    main()
