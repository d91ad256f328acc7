"""Media of training rows: a part of a video, and a clock that is moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ..data.messages import DataError
from ..savenvideo.clips import Clip, is_file, is_memory, open_sound
from ..savenvideo.layout import NO_TIME
from ..savenvideo.processing_savenvideo import SAVEnVideoProcessor
from ..savenvideo.tower_features import TowerFeatures, is_tower_features


def take_part(source: Any, start: float | None, end: float | None) -> Any:
    """Only `[start, end)`, in seconds, of a video or sound, on the clock of the whole.

    Args:
        source: a file, of which the processor reads the part, or `TowerFeatures`.

    Raises:
        DataError: of another medium no part can be taken, or there is nothing in it.
    """
    if start is None and end is None:
        return source
    if is_tower_features(source):
        return _part_of_features(source, round((start or 0) * 1e6), None if end is None else round(end * 1e6))
    if not is_file(source):
        raise DataError(
            f"'start' and 'end' take a part of a file or of TowerFeatures, not of a {type(source).__name__}: cut it "
            "yourself, and leave them out."
        )
    named = source if isinstance(source, Mapping) else {"path": source}
    return {**named, **{name: time for name, time in (("start", start), ("end", end)) if time is not None}}


def without_sound(kind: str, source: Any) -> Any:
    """A medium of a row as it is, but a video without its sound.

    Raises:
        DataError: a `VideoMemory`, whose tokens hold the sound.
    """
    if kind != "video":
        return source
    if is_tower_features(source):
        return source.without_sound()
    if is_memory(source):
        raise DataError("The sound of a VideoMemory cannot be left out, for its tokens hold it: pass TowerFeatures.")
    if is_file(source):
        return {**(source if isinstance(source, Mapping) else {"path": source}), "use_audio": False}
    return (
        {name: value for name, value in source.items() if name != "audio"} if isinstance(source, Mapping) else source
    )


def move_clock(
    source: Any, kind: str, offset: int, processor: SAVEnVideoProcessor, settings: Mapping[str, Any]
) -> TowerFeatures | dict[str, Any]:
    """A video or sound on a clock that reads `offset` microseconds more, as the processor takes a video.

    Args:
        kind: "video" or "audio".
        settings: how frames are taken, see `SAVEnVideoVideoProcessor`.

    Raises:
        DataError: the medium has no clock, or it was encoded whole.
        MediaError: a file that cannot be read.
    """
    if is_tower_features(source):
        return source.shifted(offset)
    if is_memory(source):
        raise DataError("The clock of a VideoMemory cannot move, for its tokens hold it: pass TowerFeatures.")
    settings = processor.video_processor.settings(**settings)
    rate = processor.feature_extractor.sampling_rate
    if kind == "audio":
        clip = open_sound(source, None, rate)
    else:
        clip = processor.video_processor.open(
            processor.video_processor.list_sources(source, settings)[0], settings, sampling_rate=rate
        )
    with clip:
        return _arrays(clip, offset, rate)


def _arrays(clip: Clip, offset: int, sampling_rate: int) -> dict[str, Any]:
    """A clip as frames and sound in memory."""
    if NO_TIME in clip.frame_times:
        raise DataError("Frames without times have no clock that could move: give their times.")
    video: dict[str, Any] = {"duration": (clip.duration + offset) / 1e6}
    if clip.frame_times:
        video["frames"] = clip.frames(range(len(clip.frame_times)))
        video["frame_times"] = [(time + offset) / 1e6 for time in clip.frame_times]
    if clip.num_samples:
        if clip.sound_start == NO_TIME:
            raise DataError(
                "Sound that is put together from clips (preprocessing='videollama2') has no clock that could move: "
                "set time_shift_seconds=0, or preprocessing='whole'."
            )
        video["audio"] = clip.samples(0, clip.num_samples)
        video |= {"sampling_rate": sampling_rate, "audio_start": (clip.sound_start + offset) / 1e6}
    return video


def _part_of_features(features: TowerFeatures, first: int, last: int | None) -> TowerFeatures:
    def within(times: torch.Tensor) -> torch.Tensor:
        return times >= first if last is None else (times >= first) & (times < last)

    frames, columns, speech = map(within, (features.frame_times, features.column_times, features.speech_times))
    if not (frames.any() or columns.any()):
        end = "the end" if last is None else f"{last / 1e6} s"
        raise DataError(
            f"There is nothing from {first / 1e6} s to {end} of a medium of {features.duration / 1e6} s: mend 'start' "
            "and 'end'."
        )
    return replace(
        features,
        picture=features.picture[frames],
        frame_times=features.frame_times[frames],
        sound=features.sound[columns],
        column_times=features.column_times[columns],
        speech=features.speech[speech],
        speech_times=features.speech_times[speech],
    )
