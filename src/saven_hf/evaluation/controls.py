"""Controls: the same questions on videos that lack something, whose clock or sound was moved, or in another order.

A control says what a model really uses. Edits of sound and picture are made in the file, so that any model can be
tested with them and the real decoder is used; edits of time are made between decoder and model, where times are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn import functional as F

from ..savenvideo.layout import NO_TIME, audio_column_times, speech_column_times
from ..savenvideo.media import open_media
from ..world.conversations import shift_times
from ..world.interventions import blacken_picture, edit_sound
from .benchmarks import FORMS


class ControlError(ValueError):
    """A control that does not exist, whose parts do not go together, or that a model or a benchmark cannot do."""


class NotApplicableError(ControlError):
    """A control that cannot be done to this medium, such as `mute` to an image: its items are left out of the run."""


@dataclass(frozen=True)
class Control:
    """What is done to a video, and to the times in questions about it.

    Attributes:
        name: as it is asked for.
        mute: the sound track is replaced by digital silence of the same length; it is still heard, as silence.
        no_audio: the sound track is left out; nothing is heard.
        no_video: the picture is left out; nothing is seen. With `no_audio`, the question stands alone.
        black: every frame is replaced by a black one at the same time.
        shift: microseconds by which the sound comes later; negative is earlier. What is left open is silent.
        swap: the sound is that of the next video of the benchmark, cut, or followed by silence.
        circular: a choice is asked once more for each rotation of its options.
        no_time: frames, sound, duration and question times lose their times; frames and sound keep their order, and
            the question its text.
        clock: microseconds added to every time: of frames, of sound, the duration, and those written in the question.
    """

    name: str = "plain"
    mute: bool = False
    no_audio: bool = False
    no_video: bool = False
    black: bool = False
    shift: int = 0
    swap: bool = False
    circular: bool = False
    no_time: bool = False
    clock: int = 0

    @property
    def guesser(self) -> str | None:
        """Who cannot do better than the exact chance level: who has only the "picture", only the "sound", only the
        "text", or all but times ("timeless"); None if nothing is missing."""
        if self.deaf and self.sightless:
            return "text"
        if self.deaf or self.sightless:
            return "picture" if self.deaf else "sound"
        return "timeless" if self.no_time else None

    @property
    def deaf(self) -> bool:
        return self.mute or self.no_audio

    @property
    def sightless(self) -> bool:
        return self.black or self.no_video

    @property
    def retimes(self) -> bool:
        return bool(self.clock) or self.no_time

    @property
    def forms(self) -> tuple[str, ...]:
        """Forms of items whose answers say something under it: chance levels are known for choices alone, and ranges
        tell whether they moved."""
        if self == PLAIN:
            return FORMS
        return ("choice", "range") if self.clock else ("choice",)

    @property
    def edits_file(self) -> bool:
        return self.mute or self.black or self.swap or bool(self.shift)

    def edited(self, source: Path, partner: Path | None = None, folder: Path | None = None) -> Path:
        """The file to show: `source` itself, or an edited copy, made once.

        Args:
            partner: the video whose sound is taken for `swap`.
            folder: where the copy goes; beside the source if None.

        Raises:
            NotApplicableError: the file is an image or a sound.
            MediaError: it cannot be read, or has no picture.
        """
        if not self.edits_file:
            return source
        parts = ["mute"] * self.mute + ["black"] * self.black
        parts += [f"shift={self.shift / 1e6:+g}"] if self.shift else []
        parts += [f"sound-of-{partner.stem}"] if self.swap and partner is not None else []
        out = (source.parent if folder is None else folder) / f"{source.stem}.{'+'.join(parts)}.mp4"
        if out.is_file():
            return out
        with open_media(source) as media:
            if media.kind != "video":
                raise NotApplicableError(f"{self.name} edits a video file, and {source.name} is of kind {media.kind}.")
        with TemporaryDirectory(dir=out.parent, prefix=".edit-") as work:
            current = source
            if self.black:
                blackened = Path(work) / "black.mp4"
                blacken_picture(current, blackened)
                current = blackened
            if self.mute:
                muted = Path(work) / "mute.mp4"
                edit_sound(current, muted, mute=True)
                current = muted
            elif self.swap or (self.shift and _has_sound(current)):
                moved = Path(work) / "moved.mp4"
                edit_sound(current, moved, shift=self.shift / 1e6, swap_with=partner if self.swap else None)
                current = moved
            if current == source:  # there is no sound that could be moved
                return source
            os.replace(current, out)
        return out

    def rotations(self, options: int) -> range:
        """By how many places the options of a choice are moved, in one asking after the other."""
        return range(1, options) if self.circular else range(1)

    def text(self, text: str) -> str:
        """A question, option or answer with its times moved as the clock is."""
        return shift_times(text, self.clock) if self.clock else text

    def processor(self, processor):
        """What `model.encode_video` takes as a processor, to see the times that this control leaves."""
        return _RetimedProcessor(processor, self) if self.retimes else processor


PLAIN = Control()
CONTROLS = (
    "blind", "no-audio", "no-video", "mute", "black", "no-time", "swap", "circular", "shift=SECONDS", "clock=SECONDS",
)  # fmt: skip
_FLAGS = ("mute", "no-audio", "no-video", "black", "no-time", "swap", "circular")
# Pairs of fields that a control cannot have both of.
_CLASHES = (
    ("mute", "no_audio"), ("black", "no_video"), ("clock", "no_time"), ("shift", "swap"),
    ("shift", "mute"), ("shift", "no_audio"), ("swap", "mute"), ("swap", "no_audio"),
)  # fmt: skip


def control_named(name: str) -> Control:
    """A control by name: "mute", "no-audio", "black", "no-video", "blind" (neither picture nor sound), "no-time",
    "swap", "circular", "shift=+2" and "clock=+100" (seconds), several joined by "+".

    Raises:
        ControlError: there is none of that name, or the parts do not go together.
    """
    if name == "plain":
        return PLAIN
    fields: dict = {}
    for part in re.split(r"\+(?=[a-z])", name):
        moved = re.fullmatch(r"(clock|shift)=([+-]?\d+(?:\.\d+)?)", part)
        if moved and float(moved[2]):
            fields[moved[1]] = round(float(moved[2]) * 1e6)
        elif part == "blind":
            fields |= {"no_audio": True, "no_video": True}
        elif part in _FLAGS:
            fields[part.replace("-", "_")] = True
        else:
            raise ControlError(
                f"There is no control {part!r}: one of {', '.join(CONTROLS)}, or several joined by '+'."
            )
    if any(fields.get(one) and fields.get(other) for one, other in _CLASHES):
        raise ControlError(f"The control {name!r} removes the same thing twice: leave one of its parts out.")
    return Control(name, **fields)


def _has_sound(path: Path) -> bool:
    with open_media(path) as media:
        return media.has_audio


# ---------------------------------------------------------------------------------------------------------------------
# Between decoder and model


class _RetimedProcessor:
    """Stands in for a processor in `model.encode_video`: its streams have other times."""

    def __init__(self, processor, control: Control):
        self._processor, self._control = processor, control

    def stream_video(self, video, **options) -> _RetimedStream:
        return _RetimedStream(self._processor.stream_video(video, **options), self._processor, self._control)


class _RetimedStream:
    """A `VideoStream` whose clock was moved or taken away, cut into windows anew by its new times."""

    def __init__(self, stream, processor, control: Control):
        self.preprocessing_hash = stream.preprocessing_hash
        self.duration = 0 if control.no_time else stream.duration + control.clock
        chunks = list(stream)
        self._frames = _joined(chunks, "pixel_values_videos", "frame_times", "frame_mask")
        self._sound = _joined(chunks, "input_features", "input_features_mask", "audio_times")
        self._sound |= _joined(chunks, "speech_features", "speech_features_mask", "speech_times")
        for data, name in (
            (self._frames, "frame_times"),
            (self._sound, "audio_times"),
            (self._sound, "speech_times"),
        ):
            if name in data:
                times = data[name]
                data[name] = torch.full_like(times, NO_TIME) if control.no_time else times + control.clock
        frame_times = self._frames["frame_times"][0].tolist() if self._frames else []
        self.frame_times = frame_times
        columns = self._columns("input_features_mask", "audio_times", audio_column_times)
        speech = self._columns("speech_features_mask", "speech_times", speech_column_times)
        self.windows = processor.token_layout.plan(frame_times, columns, self.duration, speech)

    def _columns(self, mask: str, times: str, of_windows: Callable) -> list[int]:
        if times not in self._sound:
            return []
        return of_windows(self._sound[times][0].tolist(), self._sound[mask][0].sum(-1).tolist())

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for number, window in enumerate(self.windows):
            data = {"video_durations": torch.tensor([self.duration])}
            if window.frames:
                data |= {name: tensor[:, window.frames] for name, tensor in self._frames.items()}
            if number == 0:
                data |= self._sound  # all of it: the model keeps what later windows need
            yield data


def _joined(chunks: list[dict[str, torch.Tensor]], *names: str) -> dict[str, torch.Tensor]:
    """Tensors `(1, n, ...)` of all chunks as one, padded with zeros to common sizes; empty if no chunk has them."""
    found = [chunk for chunk in chunks if names[0] in chunk]
    joined = {}
    for name in names if found else ():
        parts = [chunk[name] for chunk in found]
        if parts[0].ndim > 2:  # fbank frames differ from window to window
            longest = max(part.shape[2] for part in parts)
            parts = [F.pad(part, [0, 0] * (part.ndim - 3) + [0, longest - part.shape[2]]) for part in parts]
        joined[name] = torch.cat(parts, dim=1)
    return joined
