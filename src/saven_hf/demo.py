"""`saven demo`: a real video file with known content, asked about, each answer beside the truth."""

from __future__ import annotations

import os
import tempfile
from fractions import Fraction

import numpy as np
from PIL import Image, ImageDraw

from .ask import VideoSession
from .hub import load
from .savenvideo.media_sniff import import_av


# Three seconds each: what is drawn, its colour, and the tone that sounds (Hz; 0 is silence).
SEGMENT_SECONDS = 3
SEGMENTS = (
    ("circle", "red", 220),
    ("square", "blue", 0),
    ("triangle", "green", 880),
    ("circle", "yellow", 440),
)
FRAME_RATE, WIDTH, HEIGHT, SAMPLING_RATE = 25, 320, 240, 44_100

QUESTIONS = (
    ("What is seen from 00:00:00 to 00:00:03?", "a red circle"),
    ("Is there any sound from 00:00:03 to 00:00:06?", "no, it is silent"),
    ("Which shape is shown while the highest tone is heard?", "a green triangle"),
    ("From when to when is the yellow circle shown?", "from 00:00:09 to 00:00:12"),
)


def demo(model: str | None = None, device: str | None = None, out: str | None = None) -> None:
    """Render the demo video, ask a model about it and print answers beside the truth.

    Args:
        model: folder or Hub id; None for the embedded tiny model.
        device: a torch device.
        out: where to keep the video; a temporary file if None.
    """
    if out is not None and not os.path.isdir(os.path.dirname(out) or "."):
        raise FileNotFoundError(f"There is no folder {os.path.dirname(out)!r} to keep the video in.")
    loaded, processor = load(model, device)
    with tempfile.TemporaryDirectory() as folder:
        path = out or os.path.join(folder, "demo.mp4")
        render(path)
        session = VideoSession(path, loaded, processor)
        print(f"{path}: {len(SEGMENTS) * SEGMENT_SECONDS} s of H.264 and AAC")
        for question, truth in QUESTIONS:
            answer = session.ask(question, max_new_tokens=24)
            print(f"\n? {question}\n  answer: {answer.answer!r}\n  truth:  {truth!r}")
        print(f"\n{session.fed}")
    if loaded.config.notice:
        print(f"\nNote: {loaded.config.notice}")


def render(path: str | os.PathLike) -> None:
    """Write the demo video: mp4 with H.264 pictures and AAC sound."""
    av = import_av()
    with av.open(os.fspath(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLING_RATE, layout="mono")
        for index, (shape, colour, tone) in enumerate(SEGMENTS):
            picture = av.VideoFrame.from_ndarray(np.asarray(_draw(shape, colour)), format="rgb24")
            for frame in range(FRAME_RATE * SEGMENT_SECONDS):
                picture.pts = index * FRAME_RATE * SEGMENT_SECONDS + frame
                picture.time_base = Fraction(1, FRAME_RATE)
                container.mux(video.encode(picture))
            seconds = np.arange(SAMPLING_RATE * SEGMENT_SECONDS) / SAMPLING_RATE
            wave = (0.4 * np.sin(2 * np.pi * tone * seconds)).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            sound.sample_rate, sound.time_base = SAMPLING_RATE, Fraction(1, SAMPLING_RATE)
            sound.pts = index * len(wave)
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _draw(shape: str, colour: str) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), "gray")
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = WIDTH // 2 - 70, HEIGHT // 2 - 70, WIDTH // 2 + 70, HEIGHT // 2 + 70
    if shape == "circle":
        draw.ellipse((left, top, right, bottom), fill=colour)
    elif shape == "square":
        draw.rectangle((left, top, right, bottom), fill=colour)
    else:
        draw.polygon([(WIDTH // 2, top), (left, bottom), (right, bottom)], fill=colour)
    return image
