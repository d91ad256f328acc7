"""A procedural world of pictures, sounds and times, to learn from and to measure with.

    from saven_hf import world

    scene = world.sample_scene(seed=7)                        # events in continuous time, no pixel yet
    frames = world.render_frames(scene, [0, 1_500_000])       # (frames, 3, height, width) uint8 at 0 and 1.5 s
    waveform = world.render_sound(scene)                      # (samples,) float32 at 16 kHz
    world.write_video(scene, "scene.mp4")                     # H.264 and AAC
    for question in world.make_questions(scene):
        print(question.prompt(), question.answer, question.chance)

Everything follows from a split's name and an integer seed. Times are integer microseconds.
"""

from ..data.schema import MissingDependencyError
from .build import WorldBuildError, build_world
from .captions import Caption, caption
from .chance import Chance
from .interventions import blacken_picture, edit_sound, mute, shift_sound, swap_sound
from .oracle import solve
from .pictures import render_frames
from .questions import FAMILIES, Question, make_questions
from .scenes import Layout, Picture, Scene, Segment, Sound
from .sounds import pulse_times, render_sound
from .splits import SPLITS, Split, sample_scene
from .video import frame_times, write_video


__all__ = [
    "FAMILIES",
    "SPLITS",
    "Caption",
    "Chance",
    "Layout",
    "MissingDependencyError",
    "Picture",
    "Question",
    "Scene",
    "Segment",
    "Sound",
    "Split",
    "WorldBuildError",
    "blacken_picture",
    "build_world",
    "caption",
    "edit_sound",
    "frame_times",
    "make_questions",
    "mute",
    "pulse_times",
    "render_frames",
    "render_sound",
    "sample_scene",
    "shift_sound",
    "solve",
    "swap_sound",
    "write_video",
]
