"""A video file with sound that tests share: twelve seconds of the world, known to the frame."""

from __future__ import annotations

import os

from saven_hf.world import Layout, Picture, Scene, Sound, write_video
from saven_hf.world.vocabulary import SILENT, PictureKind, SoundKind


SECONDS, FRAME_RATE, HEIGHT, WIDTH = 12, 25, 240, 320
_PICTURES = (("red", "circle"), ("blue", "square"), ("green", "triangle"), ("yellow", "circle"))
_SOUNDS = (SoundKind("tone", "low"), SILENT, SoundKind("tone", "high"), SoundKind("tone", "mid"))
_STEP = 3_000_000  # us


def render(path: str | os.PathLike) -> None:
    """Write it: H.264 of 320 x 240 at 25 frames a second, AAC; four pictures of 3 s with a tone each, one silent."""
    spans = [(at * _STEP, (at + 1) * _STEP) for at in range(4)]
    scene = Scene(
        seed=0,
        split="train",
        layout=Layout("distinct"),
        duration=SECONDS * 1_000_000,
        pictures=tuple(
            Picture(*span, PictureKind(*kind), background="grey") for span, kind in zip(spans, _PICTURES, strict=True)
        ),
        sounds=tuple(Sound(*span, kind) for span, kind in zip(spans, _SOUNDS, strict=True)),
        fades=(0, 0, 0),
        frame_rate=FRAME_RATE,
    )
    write_video(scene, path, (HEIGHT, WIDTH))
