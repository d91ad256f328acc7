"""The errors of the media layer.

Every one is a `MediaError` (and so a `ValueError`); its message is one line that names the file, says what is wrong
and what to do about it. Messages never carry text from the decoders, which may leak paths or memory addresses; the
decoder's own words go to the log at debug level.
"""

import logging
from contextlib import contextmanager


logger = logging.getLogger(__name__)


class MediaError(ValueError):
    """A media file, or what was asked of it, cannot be used. The base of all errors below."""


class MediaNotFoundError(MediaError):
    """There is no such file, or it may not be read."""


class EmptyMediaError(MediaError):
    """The file holds no bytes."""


class UnsupportedMediaError(MediaError):
    """Not something that is opened here: a URL, a directory, a device, a text file or playlist, an unknown container,
    or a codec outside of the allow-list."""


class CorruptMediaError(MediaError):
    """The file is a media file, but damaged or cut short."""


class MediaTooLargeError(MediaError):
    """The file, or the request, passes one of `MediaLimits`."""


class NoFramesError(MediaError):
    """Frames were asked of a file that has none."""


class NoAudioError(MediaError):
    """Sound was asked of a file that has none."""


class NoSubtitlesError(MediaError):
    """Subtitles were asked of a file that has none that can be read as text."""


class MediaBackendError(MediaError):
    """A Python library that reads media is not installed."""


@contextmanager
def decoder_errors(label: str, task: str, error: type[MediaError] = CorruptMediaError, advice: str = ""):
    """Turns whatever a decoder raises while it does `task` into a typed error without the decoder's own words."""
    try:
        yield
    except (MediaError, KeyboardInterrupt, GeneratorExit, StopIteration):
        raise
    except Exception as cause:
        logger.debug("%s: %s failed", label, task, exc_info=cause)
        advice = advice or f"the file is damaged; try `ffmpeg -i {label} -c copy repaired.mkv`, or fetch it again"
        raise error(f"{label}: {task} failed: {advice}.") from None
