"""Scenes as real mp4 files: H.264 pictures and AAC sound, at constant or variable frame rate."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np

from ..files import written_whole
from ..savenvideo.media_sniff import import_av
from .pictures import render_frames
from .scenes import Scene
from .sounds import render_sound
from .splits import generator


AUDIO_RATE, AUDIO_BITS_PER_SECOND = 48_000, 64_000
_TIME_BASE = Fraction(1, 90_000)
_VARIABLE_STEP, _MOST_STEPS = 25_000, 5  # us between frames of a variable rate: 1 to 5 steps
_CHUNK = 1_000_000  # us rendered and encoded at a time, so that picture and sound lie close together in the file


def frame_times(scene: Scene) -> list[int]:
    """Times of the frames of the scene's file, in microseconds from its first frame.

    A constant rate of `scene.frame_rate`, or 25 to 125 ms from frame to frame for `scene.variable_rate`.
    """
    if not scene.variable_rate:
        count = -(-scene.duration * scene.frame_rate // 1_000_000)
        return [at * 1_000_000 // scene.frame_rate for at in range(count)]
    rng = generator(scene.split, scene.seed, "frame times")
    steps = rng.integers(1, _MOST_STEPS + 1, scene.duration // _VARIABLE_STEP)
    times = np.concatenate([[0], np.cumsum(steps)]) * _VARIABLE_STEP
    return [int(time) for time in times[times < scene.duration]]


def write_video(scene: Scene, path: str | os.PathLike, size: tuple[int, int] = (64, 64), crf: int = 18) -> None:
    """Write a scene as mp4: H.264 at the scene's frame times, mono AAC at 48 kHz, clock from `scene.start_time`.

    The file appears under its name when it is complete.

    Args:
        size: (height, width), both even.
        crf: quality of H.264, 0 (lossless) to 51.

    Raises:
        ValueError: an odd height or width.
    """
    height, width = size
    if height % 2 or width % 2 or min(size) < 2:
        raise ValueError(f"H.264 with 4:2:0 colour needs an even height and width, not {height} x {width}.")
    times = np.asarray(frame_times(scene))
    sound = render_sound(scene, AUDIO_RATE)
    av = import_av()
    with written_whole(path) as partial, av.open(partial, "w", format="mp4") as container:
        # Times are set frame by frame; the rate only tells players what to expect.
        video = container.add_stream("libx264", rate=scene.frame_rate, options={"crf": str(crf), "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = _TIME_BASE
        video.codec_context.thread_count = 1
        audio = add_sound(container)
        for start in range(0, scene.duration, _CHUNK):
            chunk = times[(times >= start) & (times < start + _CHUNK)]
            for time, pixels in zip(chunk, render_frames(scene, chunk, size), strict=True):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)), format="rgb24")
                picture.pts = round((int(time) + scene.start_time) * _TIME_BASE.denominator / 1_000_000)
                picture.time_base = _TIME_BASE
                container.mux(video.encode(picture))
            first, last = (at * AUDIO_RATE // 1_000_000 for at in (start, start + _CHUNK))
            encode_sound(av, container, audio, sound[first:last], first + scene.start_time * AUDIO_RATE // 1_000_000)
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def add_sound(container):
    """An AAC stream in a container that is written."""
    stream = container.add_stream("aac", rate=AUDIO_RATE, layout="mono")
    stream.bit_rate = AUDIO_BITS_PER_SECOND
    return stream


def encode_sound(av, container, stream, samples: np.ndarray, first: int) -> None:
    """Encode mono float32 samples of which the first has the number `first` on the file's clock."""
    if not len(samples):
        return
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = AUDIO_RATE, Fraction(1, AUDIO_RATE), first
    container.mux(stream.encode(frame))
