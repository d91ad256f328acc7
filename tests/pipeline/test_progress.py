"""Progress tells what this run did, not what it found done."""

import json

from saven_hf.pipeline.progress import Progress


def test_kept_work_fills_the_bar_and_not_the_rate(tmp_path):
    (tmp_path / "events").mkdir()
    seen = Progress(tmp_path, videos=10, show=True)
    events = [{"stage": "segment", "video": str(at), "seconds": 0.0, "kept": True} for at in range(6)]
    events += [{"stage": "segment", "video": "6", "seconds": 2.0, "kept": False}]
    events += [{"stage": "segment", "video": "7", "failed": True}]
    (tmp_path / "events" / "00000.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    seen._update()
    bar = seen._bars[0].format_dict
    assert (bar["n"], bar["initial"], bar["total"]) == (7, 6, 9)
    assert not bar["rate"]  # so that tqdm takes (n - initial) / elapsed
    assert (seen.counts["segment"], seen.seconds["segment"], seen.failed) == (1, 2.0, 1)
    for one in seen._bars:
        one.close()
