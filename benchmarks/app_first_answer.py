"""How long does a visitor wait for the first answer?

    python benchmarks/app_first_answer.py [--runs 3] [--model MODEL] [--threads 2]

The 30 s example of `saven app`, each run as a new visitor for whom nothing is encoded yet: asked about through the
same functions as the page calls, and then as a browser asks, through the server and gradio's queue ("through the
page"). The clock starts at the click on "Ask" and stops at the first piece of the answer's text, and again at its end.
Parts: decode, encode, prefill, generate as the page shows them, and the rest.
Opening the example (render once, then film strip, waveform and spectrogram, kept for all visitors) comes before and is
shown by itself. The second question shows what is left when nothing has to be decoded or encoded.

The goal is an answer within 6 s of the click on two cores. On a machine that does other work as well, see the column
"CPU": the processor's seconds of the whole answer, which the others' work does not lengthen by waiting.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from gradio_client import Client

from saven_hf.app import Settings, engine
from saven_hf.app.examples import EXAMPLES, example_file
from saven_hf.app.page import build_page, look
from saven_hf.app.visits import Visits, look_at_example


def asked(visit, question: str) -> dict[str, float]:
    """Seconds of one question from the click: to the first text, to the end, and of its parts."""
    start, worked = time.perf_counter(), time.process_time()
    first = None
    for turn in visit.ask(question, (), engine.answer):
        if first is None and turn.columns[0].text:
            first = time.perf_counter() - start
    total = time.perf_counter() - start
    spent = dict(turn.columns[0].fed.seconds)
    rest = total - sum(spent.values())
    return {
        "first text": first or total, "whole answer": total, **spent, "rest": rest,
        "CPU": time.process_time() - worked,
    }  # fmt: skip


def clicked(client, question: str) -> dict[str, float]:
    """The same of a question that takes the way of a click: sent to the server, queued, answered, sent back."""
    start, worked = time.perf_counter(), time.process_time()
    first = None
    for data, *_ in client.submit(question, True, True, True, api_name="/ask"):
        if first is None and data["answers"][0]["answer"]:
            first = time.perf_counter() - start
    total = time.perf_counter() - start
    spent = data["answers"][0]["fed"]["seconds"]
    return {
        "first text": first or total, "whole answer": total, **spent, "rest": total - sum(spent.values()),
        "CPU": time.process_time() - worked,
    }  # fmt: skip


def line(name: str, runs: list[dict[str, float]]) -> str:
    return f"{name:18s}" + "".join(f"{statistics.median(run[part] for run in runs):13.2f}" for part in runs[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="new visitors; medians are shown, and the slowest")
    parser.add_argument("--model", help="as for `saven app`")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    example = min(EXAMPLES, key=lambda one: abs(one.scene.duration - 30_000_000))
    print(f"example: {example.title}, {example.scene.duration / 1e6:.1f} s; {arguments.threads} threads")
    start = time.perf_counter()
    loaded = engine.start(arguments.model)
    print(f"load the model, once       {time.perf_counter() - start:6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings()
        visits = Visits(Path(folder), settings)
        start = time.perf_counter()
        path = example_file(example, visits.examples)
        print(f"render the example, once   {time.perf_counter() - start:6.2f} s")
        start = time.perf_counter()
        look_at_example(path)
        print(f"draw its axis, once        {time.perf_counter() - start:6.2f} s")
        first, second, opening = [], [], []
        for run in range(arguments.runs):
            visit = visits.of(str(run))
            start = time.perf_counter()
            visit.open_example(example, visits.examples)
            opening.append(time.perf_counter() - start)
            first.append(asked(visit, example.questions[0].text))
            second.append(asked(visit, example.questions[1].text))
        through = []
        page = build_page(loaded, settings, visits)
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, allowed_paths=[folder], **look())
        for _ in range(arguments.runs):
            client = Client(url, verbose=False)
            client.predict(example.title, api_name="/open_example")
            through.append(clicked(client, example.questions[0].text))
        page.close()
    print(f"open it, each visitor      {statistics.median(opening):6.2f} s\n")
    print(f"{'seconds':18s}" + "".join(f"{name:>13s}" for name in first[0]))
    print(line("first question", first))
    print(line("second question", second))
    print(line("through the page", through))
    slowest = max(run["whole answer"] for run in (*first, *through))
    print(f"\nfirst answer within {slowest:.2f} s of the click at the slowest of {arguments.runs}; the goal is 6 s")


if __name__ == "__main__":
    main()
