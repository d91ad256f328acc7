"""Clips whose truth is known, made with the ffmpeg command line.

Every clip is a recording of one scene: frame n of the scene is what happens at n / fps seconds. The number n is burnt
into the picture as black and white blocks, and at known frames the lower half of the picture flashes white for one
frame while a click begins in the sound. A test reads n back from decoded pixels and so knows the true time of a frame
whatever the container says; flashes and clicks tell whether sound and picture share a clock.
"""

import re
import shutil
import subprocess
import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np


FFMPEG = shutil.which("ffmpeg")
NO_FFMPEG = "the ffmpeg command line makes the clips: apt-get install ffmpeg"
WIDTH, HEIGHT, BITS, BLOCK = 160, 96, 10, 16
SAMPLE_RATE = 48_000
FLASH_SECONDS = (0.52, 1.2, 2.8, 3.6, 4.4, 5.2)


@dataclass
class Clip:
    """A made file, the frame rate of its scene, and the scene time of the clip's own zero (seconds)."""

    path: Path
    fps: Fraction
    scene_start: float = 0.0
    has_sound: bool = True

    def true_time(self, number: int) -> float:
        """Seconds on the clip's clock at which scene frame `number` happens."""
        return float(number / self.fps) - self.scene_start


def ffmpeg(*arguments, stdin: bytes | None = None):
    """Runs ffmpeg quietly; its own message is in the error if it fails."""
    command = [FFMPEG, "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    if stdin is not None:
        command.remove("-nostdin")
    done = subprocess.run(command, input=stdin, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr.decode(errors='replace')}")


def ffmpeg_version() -> tuple[int, int]:
    text = subprocess.run([FFMPEG, "-version"], capture_output=True, text=True).stdout
    found = re.search(r"version n?(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (99, 0)


def flash_frames(fps: Fraction, seconds: float) -> list[int]:
    return [round(second * fps) for second in FLASH_SECONDS if second < seconds - 0.2]


def scene_frames(fps: Fraction, seconds: float) -> np.ndarray:
    """(frames, HEIGHT, WIDTH) uint8 gray pictures of the scene."""
    count = int(seconds * fps)
    frames = np.full((count, HEIGHT, WIDTH), 90, dtype=np.uint8)
    for number in range(count):
        for bit in range(BITS):
            frames[number, : HEIGHT // 2, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    frames[flash_frames(fps, seconds), HEIGHT // 2 :] = 255
    return frames


def scene_sound(fps: Fraction, seconds: float) -> np.ndarray:
    """(samples,) float waveform at SAMPLE_RATE: a faint hum, and a click that begins with each flash."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = 0.01 * np.sin(2 * np.pi * 200 * time)
    burst = np.arange(int(0.01 * SAMPLE_RATE)) / SAMPLE_RATE
    for number in flash_frames(fps, seconds):
        start = round(float(number / fps) * SAMPLE_RATE)
        sound[start : start + len(burst)] += 0.9 * np.cos(2 * np.pi * 1500 * burst)
    return sound


def read_number(frame: np.ndarray) -> int:
    """The scene frame number burnt into a decoded (3, height, width) frame of any size."""
    gray = np.asarray(frame, dtype=np.float32).mean(0)
    height, width = gray.shape
    row = gray[int(height * 0.15) : int(height * 0.35)].mean(0)
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    return int(sum(int(row[centre - 1 : centre + 2].mean() > 128) << bit for bit, centre in enumerate(centres)))


def is_flash(frame: np.ndarray) -> bool:
    gray = np.asarray(frame, dtype=np.float32).mean(0)
    return bool(gray[int(gray.shape[0] * 0.7) :].mean() > 180)


def click_times(waveform: np.ndarray, rate: int, start: float) -> list[float]:
    """Seconds at which clicks begin in a waveform whose first sample is at `start` seconds."""
    loud = np.flatnonzero(np.abs(waveform) > 0.25)
    if not loud.size:
        return []
    onsets = loud[np.concatenate([[True], np.diff(loud) > rate // 5])]
    return [start + float(onset) / rate for onset in onsets]


def write_wav(path: Path, sound: np.ndarray, rate: int = SAMPLE_RATE, channels: int = 1) -> Path:
    pcm = np.repeat((np.clip(sound, -1, 1) * 32767).astype("<i2")[:, None], channels, axis=1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return path


def make_clip(
    path: Path,
    fps: Fraction = Fraction(25),
    seconds: float = 6.0,
    sound: bool = True,
    picture: bool = True,
    sound_from: float = 0.0,
    picture_from: float = 0.0,
    b_frames: int = 0,
    gop: int = 25,
    codec: tuple[str, ...] = ("libx264", "-preset", "veryfast", "-crf", "18"),
    audio_codec: tuple[str, ...] = ("aac", "-b:a", "128k"),
    filters: str | None = None,
    turned: int = 0,
    output: tuple[str, ...] = (),
) -> Clip:
    """Records the scene. `sound_from` / `picture_from`: the stream begins, and is placed, that late in the scene."""
    fps = Fraction(fps)
    inputs, options = [], []
    frames = scene_frames(fps, seconds)[round(picture_from * fps) :]
    frames = np.ascontiguousarray(np.rot90(frames, turned, axes=(1, 2)))
    if picture:
        height, width = frames.shape[1:]
        inputs += ["-itsoffset", picture_from, "-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{width}x{height}"]
        inputs += ["-framerate", fps, "-i", "pipe:0"]
        options += ["-map", "0:v", "-c:v", *codec, "-g", gop, "-pix_fmt", "yuv420p"]
        options += ["-bf", b_frames] if codec[0] in ("libx264", "mpeg4", "mpeg2video") else []
        options += ["-vf", filters] if filters else []
        # frames keep the times they have: none is doubled or dropped to make the rate constant
        options += ["-fps_mode" if ffmpeg_version() >= (5, 1) else "-vsync", "passthrough"]
    if sound:
        wav = write_wav(path.with_suffix(".source.wav"), scene_sound(fps, seconds)[round(sound_from * SAMPLE_RATE) :])
        inputs += ["-itsoffset", sound_from, "-i", wav]
        options += ["-map", "1:a" if picture else "0:a", "-c:a", *audio_codec]
    ffmpeg(*inputs, *options, *output, path, stdin=frames.tobytes() if picture else None)
    starts = [start for start, there in ((picture_from, picture), (sound_from, sound)) if there]
    return Clip(path, fps, min(starts), sound)


# ---------------------------------------------------------------------------------------------------------------------
# The kinds of clips on which times go wrong elsewhere. Each takes a folder and returns a Clip.


def cfr_23976(folder: Path) -> Clip:
    return make_clip(folder / "cfr23976.mp4", fps=Fraction(24000, 1001))


def cfr_25(folder: Path) -> Clip:
    return make_clip(folder / "cfr25.mp4")


def cfr_60(folder: Path) -> Clip:
    return make_clip(folder / "cfr60.mp4", fps=Fraction(60))


def vfr(folder: Path) -> Clip:
    """Runs of dense frames, then stretches where one frame stays; flashes are kept."""
    kept = "+".join(f"eq(n,{number})+eq(n,{number + 1})" for number in flash_frames(Fraction(25), 6.0))
    return make_clip(folder / "vfr.mp4", filters=f"select='lt(mod(n,40),12)+not(mod(n,9))+{kept}'", gop=20)


def vfr_mkv(folder: Path) -> Clip:
    clip = vfr(folder)
    ffmpeg("-i", clip.path, "-c", "copy", folder / "vfr.mkv")
    return Clip(folder / "vfr.mkv", clip.fps)


def late_audio(folder: Path) -> Clip:
    return make_clip(folder / "late_audio.mp4", sound_from=2.0)


def late_audio_mkv(folder: Path) -> Clip:
    return make_clip(folder / "late_audio.mkv", sound_from=2.0)


def late_video(folder: Path) -> Clip:
    return make_clip(folder / "late_video.mp4", picture_from=2.0)


def negative_start(folder: Path) -> Clip:
    """Timestamps that begin 1.5 s below zero."""
    output = ("-output_ts_offset", "-1.5", "-avoid_negative_ts", "disabled")
    return make_clip(folder / "negative.mkv", b_frames=2, output=output)


def transport_stream(folder: Path) -> Clip:
    """MPEG-TS: timestamps begin at 1.4 s and more."""
    return make_clip(folder / "stream.ts", b_frames=2, output=("-output_ts_offset", "20"))


def edit_list(folder: Path) -> Clip:
    """Cut without re-encoding between two key frames: the file holds frames that must not be shown."""
    whole = make_clip(folder / "whole.mp4", b_frames=3, gop=60)
    path = folder / "edit_list.mp4"
    ffmpeg("-ss", 1.0, "-i", whole.path, "-c", "copy", path)
    return Clip(path, whole.fps, 1.0)


def edit_list_within_a_frame(folder: Path) -> Clip:
    """Cut while a frame is on screen: the sound begins with the cut, the next frame a little after."""
    whole = make_clip(folder / "whole.mp4", b_frames=3, gop=60)
    path = folder / "edit_list_within_a_frame.mp4"
    ffmpeg("-ss", 1.015, "-i", whole.path, "-c", "copy", path)
    return Clip(path, whole.fps, 1.015)


def b_frames(folder: Path) -> Clip:
    return make_clip(folder / "b_frames.mp4", b_frames=3, gop=48)


def open_gop(folder: Path) -> Clip:
    """Groups of pictures that lean on the group before: frames shown before a key frame follow it in the file."""
    codec = ("libx264", "-preset", "veryfast", "-crf", "18", "-x264-params", "open-gop=1:b-adapt=0:scenecut=0")
    return make_clip(folder / "open_gop.mp4", b_frames=3, gop=22, codec=codec)


def rotated(folder: Path) -> Clip:
    """Held sideways: stored a quarter turn counter-clockwise, with the metadata that turns it back."""
    stored = make_clip(folder / "stored.mp4", turned=1)
    path = folder / "rotated.mp4"
    if ffmpeg_version() >= (6, 0):
        ffmpeg("-display_rotation:v:0", -90, "-i", stored.path, "-c", "copy", path)
    else:
        ffmpeg("-i", stored.path, "-c", "copy", "-metadata:s:v:0", "rotate=270", path)
    return Clip(path, stored.fps)


def avi_mpeg4(folder: Path) -> Clip:
    """A container without presentation times, with frames stored out of order."""
    return make_clip(
        folder / "mpeg4.avi", codec=("mpeg4", "-q:v", "3"), b_frames=2, audio_codec=("libmp3lame", "-b:a", "128k")
    )


def webm_vp8(folder: Path) -> Clip:
    """VP8 with packets that show no picture (alternate references)."""
    codec = (
        "libvpx",
        "-b:v",
        "500k",
        "-auto-alt-ref",
        "1",
        "-lag-in-frames",
        "16",
        "-deadline",
        "good",
        "-cpu-used",
        "5",
    )
    return make_clip(folder / "vp8.webm", codec=codec, audio_codec=("libopus", "-b:a", "64k"))


def fragmented(folder: Path) -> Clip:
    """What browsers and streaming write: an MP4 in fragments."""
    return make_clip(folder / "fragmented.mp4", b_frames=2, output=("-movflags", "frag_keyframe+empty_moov"))


KINDS = {
    kind.__name__: kind
    for kind in (
        cfr_23976, cfr_25, cfr_60, vfr, vfr_mkv, late_audio, late_audio_mkv, late_video, negative_start,
        transport_stream, edit_list, edit_list_within_a_frame, b_frames, open_gop, rotated, avi_mpeg4,
        webm_vp8, fragmented,
    )
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Plain files


def silent_video(folder: Path) -> Clip:
    return make_clip(folder / "silent.mp4", sound=False, seconds=2.0)


def sound_file(folder: Path, suffix: str, seconds: float = 3.0) -> Clip:
    """A sound file of the scene: .wav, .mp3, .flac, .ogg (Opus), .m4a."""
    codecs = {
        ".mp3": ("libmp3lame",),
        ".flac": ("flac",),
        ".ogg": ("libopus",),
        ".m4a": ("aac",),
        ".wav": ("pcm_s16le",),
    }
    return make_clip(folder / f"sound{suffix}", picture=False, seconds=seconds, audio_codec=codecs[suffix])


def song_with_cover(folder: Path) -> Clip:
    """An M4A with a cover image, which is no video."""
    song = sound_file(folder, ".m4a")
    cover, path = image_file(folder, ".jpg"), folder / "song.m4a"
    ffmpeg(
        "-i", song.path, "-i", cover, "-map", "0", "-map", "1", "-c", "copy", "-disposition:v:0", "attached_pic", path
    )
    return Clip(path, song.fps)


def image_file(folder: Path, suffix: str, size: tuple[int, int] = (48, 80)) -> Path:
    """A still image, red on its left half and blue on its right; `size` is (height, width)."""
    from PIL import Image

    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[:, : size[1] // 2, 0] = 255
    pixels[:, size[1] // 2 :, 2] = 255
    path = folder / f"image{suffix}"
    Image.fromarray(pixels).save(path, **({"quality": 95} if suffix in (".jpg", ".webp") else {}))
    return path


SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i>, world

2
00:00:03,000 --> 00:00:04,250
{\\an8}Two
lines
"""


def with_subtitles(folder: Path, suffix: str = ".mkv") -> Clip:
    """A clip with the text of `SRT` embedded (SubRip in .mkv, mov_text in .mp4)."""
    plain = make_clip(folder / "plain.mp4")
    text = folder / "plain.srt"
    text.write_text(SRT, encoding="utf-8")
    path = folder / f"subtitled{suffix}"
    ffmpeg("-i", plain.path, "-i", text, "-c", "copy", "-c:s", "srt" if suffix == ".mkv" else "mov_text", path)
    return Clip(path, plain.fps)
