"""Captions of the oracle say enough to answer the world's questions, and those of one stream do not."""

import numpy as np
from world_solver import answer

from saven_hf.pipeline.annotators import open_annotator
from saven_hf.world import sample_scene


def asked(count: int, split: str = "iid"):
    """Rows of scenes without their files: what the oracle needs of them."""
    oracle = open_annotator("oracle")
    for seed in range(count):
        scene = sample_scene(seed, split)
        row = {"video_id": scene.video_id, "duration": scene.duration / 1e6}
        row |= oracle.fuse_video(row)
        for question in oracle.ask(row):
            yield row, question


def accuracy(rows, visual: bool, audio: bool) -> float:
    hits = [
        answer(one["question"], one["options"], row["visual_caption"] if visual else None,
               row["audio_caption"] if audio else None) == one["answer"]
        for row, one in rows
    ]  # fmt: skip
    return float(np.mean(hits))


def test_a_solver_answers_from_both_captions_and_is_at_chance_with_one():
    rows = list(asked(150))
    assert len(rows) > 500
    assert accuracy(rows, True, True) >= 0.95
    for visual, audio in ((True, False), (False, True)):
        # The best guesser reaches 0.39 on average: options of some families differ in both streams.
        assert accuracy(rows, visual, audio) < 0.45, (visual, audio)
    assert abs(accuracy(rows, False, False) - 0.25) < 0.08
