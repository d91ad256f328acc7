"""Sound of a scene: a waveform at any sampling rate, drawn with numpy.

Every sound, and every pulse of one that pulses, begins and ends within 5 ms. A pulsing sound has its first pulse at
the start of its event and the others in even steps; a glide of two thirds of an octave runs over the event, or over
each pulse.
"""

from __future__ import annotations

import numpy as np

from .scenes import Scene, Sound
from .splits import generator
from .vocabulary import GLIDES, LOUDNESSES, PITCHES, SILENT, TIMBRES


_RAMP_SECONDS = 0.005
_LONGEST_PULSE, _PULSE_SHARE = 0.4, 0.5  # seconds, and of the step from pulse to pulse
GLIDE_OCTAVES = 2 / 3
_CLICKS_PER_SECOND, _CLICK_SECONDS, _CLICK_LEVEL = 0.1, 0.004, 0.08


def render_sound(scene: Scene, sampling_rate: int = 16_000) -> np.ndarray:
    """The sound of a whole scene.

    Args:
        sampling_rate: Hz, at least 16 000: the highest partial lies below 8 kHz.

    Returns:
        (samples,) float32 in -1 .. 1, mono; sample n is at n / sampling_rate seconds.
    """
    if sampling_rate < 16_000:
        raise ValueError(f"The world has partials up to 8 kHz: render at 16000 Hz or more, not {sampling_rate}.")
    waveform = np.zeros(_sample(scene.duration, sampling_rate), dtype=np.float32)
    for at, event in enumerate(scene.sounds):
        if event.kind == SILENT:
            continue
        rng = generator(scene.split, scene.seed, f"noise {at}")
        left, right = (min(_sample(time, sampling_rate), len(waveform)) for time in (event.start, event.end))
        for start, end in _whole_pulses(event):
            first, last = _sample(start, sampling_rate), _sample(end, sampling_rate)
            begin, stop = max(first, left), min(last, right)
            if begin < stop:
                pulse = _synthesise(event, last - first, sampling_rate, rng)
                waveform[begin:stop] = pulse[begin - first : stop - first]
    _add_clicks(waveform, scene, sampling_rate)
    return waveform


def pulse_times(event: Sound) -> list[tuple[int, int]]:
    """When an event really sounds: (start, end) in microseconds of each pulse, or of the whole of it."""
    cut = [(max(start, event.start), min(end, event.end)) for start, end in _whole_pulses(event)]
    return [(start, end) for start, end in cut if start < end]


def _whole_pulses(event: Sound) -> list[tuple[int, int]]:
    """The same for an event that nothing was cut off from."""
    if event.kind == SILENT:
        return []
    first, last = event.whole or (event.start, event.end)
    if not event.pulses:
        return [(first, last)]
    step = (last - first) / event.pulses
    length = min(_LONGEST_PULSE * 1e6, _PULSE_SHARE * step)
    starts = [first + round(step * at) for at in range(event.pulses)]
    return [(start, start + round(length)) for start in starts]


def _sample(time: int, rate: int) -> int:
    return (time * rate + 500_000) // 1_000_000


def _synthesise(event: Sound, count: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """`count` samples of a sound, with its ramps."""
    seconds = np.arange(count) / rate
    frequency = PITCHES[event.kind.pitch] * event.detune
    octaves = GLIDES[event.glide] * GLIDE_OCTAVES
    if octaves:
        frequency = frequency * 2.0 ** (octaves * (seconds * rate / count - 0.5))
    turns = np.cumsum(np.broadcast_to(frequency, (count,))) / rate
    if event.kind.timbre == "hiss":
        wave = _band_of_noise(turns, PITCHES[event.kind.pitch] / 4, rate, rng)
    else:
        partials = TIMBRES[event.kind.timbre]
        wave = sum(level * np.sin(2 * np.pi * ratio * turns) for ratio, level in partials)
        wave /= sum(level for _, level in partials)
    if event.kind.timbre == "warble":
        wave *= 0.6 + 0.4 * np.sin(2 * np.pi * 9 * seconds)
    ramp = min(int(_RAMP_SECONDS * rate), count // 2)
    rise = np.sin(0.5 * np.pi * (np.arange(ramp) + 0.5) / ramp) ** 2 if ramp else np.zeros(0)
    wave[:ramp] *= rise
    wave[count - ramp :] *= rise[::-1]
    return (LOUDNESSES[event.loudness] * wave).astype(np.float32)


def _band_of_noise(turns: np.ndarray, width: float, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of a band `width` Hz to both sides of a carrier whose phase is given in turns."""
    knots = np.arange(0, len(turns) + rate / width, rate / (2 * width))
    slow = [np.interp(np.arange(len(turns)), knots, rng.standard_normal(len(knots))) for _ in range(2)]
    wave = slow[0] * np.cos(2 * np.pi * turns) + slow[1] * np.sin(2 * np.pi * turns)
    return np.clip(0.5 * wave, -1, 1)


def click_times(scene: Scene, sampling_rate: int = 16_000) -> list[int]:
    """When the clicks of a scene's clutter begin in its sound of that rate, in microseconds, in no order."""
    clicks = _clicks(scene, _sample(scene.duration, sampling_rate), sampling_rate)
    return [at * 1_000_000 // sampling_rate for at, _ in clicks]


def _add_clicks(waveform: np.ndarray, scene: Scene, rate: int) -> None:
    """Short clicks at random times, in place."""
    for at, click in _clicks(scene, len(waveform), rate):
        waveform[at : at + len(click)] += click


def _clicks(scene: Scene, count: int, rate: int) -> list[tuple[int, np.ndarray]]:
    """First sample and samples of each click in a sound of `count` samples."""
    if not scene.clutter or scene.edits:
        return []
    rng = generator(scene.split, scene.seed, "clicks")
    length = int(_CLICK_SECONDS * rate)
    return [
        (int(rng.random() * (count - length)), _CLICK_LEVEL * rng.uniform(-1, 1, length).astype(np.float32))
        for _ in range(round(scene.clutter * _CLICKS_PER_SECOND * scene.duration / 1e6))
    ]
