"""Progress of all tasks of a run, read from the logs that they append to."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from .stages import STAGES


class Progress:
    """A bar for each stage, with its rate and the time left; use it as a context manager around the run.

    Args:
        folder: of the stage results.
        videos: how many there are.
        show: False shows nothing, and only counts.
    """

    def __init__(self, folder: Path, videos: int, show: bool = True):
        self._events = folder / "events"
        self._read: dict[Path, int] = {}
        for path in self._events.glob("*.jsonl"):  # of former runs
            path.unlink()
        self.seconds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.usage: Counter[str] = Counter()
        self.failed = 0
        self._bars = [
            # Rates are means of all of the run (smoothing 0), so that work of former runs can be left out of them.
            tqdm(
                total=videos,
                desc=f"{stage:9}",
                unit="video",
                position=at,
                disable=not show,
                dynamic_ncols=True,
                smoothing=0,
            )
            for at, stage in enumerate(STAGES)
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._stop.set()
        self._thread.join()
        self._update()
        for bar in self._bars:
            bar.close()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self._update()

    def _new_events(self) -> Iterator[dict]:
        for path in sorted(self._events.glob("*.jsonl")):
            with open(path, "rb") as file:
                file.seek(self._read.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):  # still being written
                        break
                    self._read[path] = self._read.get(path, 0) + len(line)
                    yield json.loads(line)

    def _update(self) -> None:
        for event in self._new_events():
            if "usage" in event:
                self.usage.update(event["usage"])
                continue
            at = STAGES.index(event["stage"])
            if event.get("failed"):
                self.failed += 1
                for bar in self._bars[at:]:
                    bar.total -= 1
                    bar.refresh()
                continue
            bar = self._bars[at]
            if event["kept"] and not bar.disable:  # a bar that shows nothing has no such field
                bar.initial += 1
            bar.update()
            if not event["kept"]:
                self.counts[event["stage"]] += 1
                self.seconds[event["stage"]] += event["seconds"]
