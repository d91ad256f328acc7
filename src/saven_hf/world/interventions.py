"""Interventions: another sound under the same picture, in a scene or in any video file, or a black picture over it.

They show what a model really uses: after a shift its answers about sound and picture have to change, after muting it
has to fall to chance. And they teach one to answer from what is left.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from ..files import written_whole
from ..savenvideo.media import open_media
from ..savenvideo.media_sniff import import_av
from .scenes import TICK, Scene, Sound
from .video import AUDIO_RATE, add_sound, encode_sound
from .vocabulary import SILENT


_MICROSECONDS = Fraction(1, 1_000_000)


# ---------------------------------------------------------------------------------------------------------------------
# On scenes; the clicks of clutter are left out of an edited scene


def shift_sound(scene: Scene, seconds: float) -> Scene:
    """The scene with its sound `seconds` later, or earlier if negative; what is left open is silent.

    Args:
        seconds: rounded to 0.1 s, as all times of a scene are.
    """
    shift = round(seconds * 1_000_000 / TICK) * TICK
    return _with_sounds(scene, _moved(scene.sounds, shift), f"shift {shift / 1e6:+.1f} s")


def mute(scene: Scene) -> Scene:
    """The scene in silence."""
    return _with_sounds(scene, [], "mute")


def swap_sound(scene: Scene, other: Scene) -> Scene:
    """The scene with the sound of another one, from where events begin; cut, or followed by silence."""
    shift = scene.lead_in - other.lead_in
    return _with_sounds(scene, _moved(other.sounds, shift), f"sound of {other.video_id}")


def _moved(sounds: Iterable[Sound], shift: int) -> list[Sound]:
    return [
        event._replace(
            start=event.start + shift,
            end=event.end + shift,
            whole=event.whole and (event.whole[0] + shift, event.whole[1] + shift),
        )
        for event in sounds
    ]


def _with_sounds(scene: Scene, sounds: Iterable[Sound], edit: str) -> Scene:
    """`scene` with these sounds, cut to where it has events, and silence wherever there is none."""
    filled, at = [], scene.lead_in
    for event in sounds:
        start, end = max(event.start, scene.lead_in), min(event.end, scene.duration)
        if start >= end:
            continue
        if start > at:
            filled.append(Sound(at, start, SILENT))
        whole = event.whole or ((event.start, event.end) if (start, end) != (event.start, event.end) else None)
        filled.append(event._replace(start=start, end=end, whole=whole))
        at = end
    if at < scene.duration:
        filled.append(Sound(at, scene.duration, SILENT))
    return replace(scene, sounds=tuple(filled), edits=(*scene.edits, edit))


# ---------------------------------------------------------------------------------------------------------------------
# On files


def edit_sound(
    source: str | os.PathLike,
    out: str | os.PathLike,
    shift: float = 0.0,
    mute: bool = False,
    swap_with: str | os.PathLike | None = None,
) -> None:
    """Copy a video with another sound; its pictures are copied as they are, not encoded again.

    Args:
        source: a local video file with picture.
        out: an mp4 or Matroska file, by its ending.
        shift: seconds by which the sound comes later; negative is earlier. What is left open is silent.
        mute: replace the sound by silence of the same length.
        swap_with: another file whose sound to take, from its start; cut, or followed by silence.

    Raises:
        MediaError: a file that cannot be read, or has no picture or (unless `mute`) no sound.
        ValueError: an ending that is neither .mp4 nor .mkv.
    """
    file_format = {".mp4": "mp4", ".mkv": "matroska"}.get(os.path.splitext(os.fspath(out))[1].lower())
    if file_format is None:
        raise ValueError(f"{os.fspath(out)!r}: edited videos are written as .mp4 or .mkv.")
    av = import_av()
    with open_media(source) as media:
        if not media.has_video:
            media.frame_times()  # raises, and says that there is no picture
        zero = media.clock_offset
        waveform = np.zeros(media.duration * AUDIO_RATE // 1_000_000, dtype=np.float32)
        if swap_with is not None:
            with open_media(swap_with) as other:
                _place(waveform, *other.audio(sampling_rate=AUDIO_RATE), shift)
        elif not mute:
            _place(waveform, *media.audio(sampling_rate=AUDIO_RATE), shift)
        with (
            written_whole(out) as partial,
            media.open_container() as reader,
            av.open(partial, "w", format=file_format) as container,
        ):
            _copy_with_sound(av, reader, container, waveform, zero)


def _copy_with_sound(av, reader, container, waveform: np.ndarray, zero: int) -> None:
    """Copy the pictures of `reader` and add a waveform that starts at `zero` us on the file's clock."""
    pictures = reader.streams.best("video")
    video = container.add_stream_from_template(pictures)
    audio = add_sound(container)
    first_sample, done = zero * AUDIO_RATE // 1_000_000, 0
    for packet in reader.demux(pictures):
        if packet.dts is None:
            continue
        # Sound up to the picture's time, so that both lie close together in the file.
        upto = min(int(packet.dts * pictures.time_base * AUDIO_RATE) - first_sample, len(waveform))
        if upto - done >= AUDIO_RATE:
            encode_sound(av, container, audio, waveform[done:upto], first_sample + done)
            done = upto
        packet.stream = video
        container.mux(packet)
    encode_sound(av, container, audio, waveform[done:], first_sample + done)
    container.mux(audio.encode(None))


def _place(waveform: np.ndarray, sound, start: int, shift: float) -> None:
    """Put a sound that starts at `start` us into a silent waveform, `shift` seconds later."""
    sound = sound.numpy()
    at = round((start / 1e6 + shift) * AUDIO_RATE)
    if at < 0:
        sound, at = sound[-at:], 0
    length = max(0, min(len(sound), len(waveform) - at))
    waveform[at : at + length] = sound[:length]


def blacken_picture(source: str | os.PathLike, out: str | os.PathLike) -> None:
    """Copy a video as mp4 with black frames at the same times; its sound is copied as it is.

    The frames keep their size, made even where it is not.

    Raises:
        MediaError: the file cannot be read or has no picture.
    """
    av = import_av()
    with open_media(source) as media:
        times, size, has_audio = media.frame_times(), (media.height, media.width), media.has_audio
        zero = media.clock_offset
        black = np.zeros((size[0] + size[0] % 2, size[1] + size[1] % 2, 3), dtype=np.uint8)
        with (
            written_whole(out) as partial,
            media.open_container() as reader,
            av.open(partial, "w", format="mp4") as container,
        ):
            video = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "ultrafast"})
            video.height, video.width, video.pix_fmt = *black.shape[:2], "yuv420p"
            video.codec_context.time_base = _MICROSECONDS
            video.codec_context.thread_count = 1
            sound = container.add_stream_from_template(reader.streams.best("audio")) if has_audio else None
            packets = reader.demux(reader.streams.best("audio")) if has_audio else iter(())
            waiting = next(packets, None)
            for time in times:
                # Sound up to the picture's time, so that both lie close together in the file.
                while waiting is not None and (waiting.dts is None or waiting.dts * waiting.time_base * 10**6 <= time):
                    _mux(container, waiting, sound)
                    waiting = next(packets, None)
                frame = av.VideoFrame.from_ndarray(black, format="rgb24")
                frame.pts, frame.time_base = time + zero, _MICROSECONDS
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
            while waiting is not None:
                _mux(container, waiting, sound)
                waiting = next(packets, None)


def _mux(container, packet, stream) -> None:
    if packet.dts is not None:  # the empty one that ends a stream
        packet.stream = stream
        container.mux(packet)
