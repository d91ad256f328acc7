"""Stage 2: what is seen and what is heard in each segment, apart from each other (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable

from ..savenvideo.media import Media
from .annotators import Annotator, Clip
from .errors import AnnotatorError


# Given a clip, what is said in it; None or "" where nothing is.
Transcriber = Callable[[Clip], str | None]


def caption(row: dict, media: Media, annotator: Annotator, transcriber: Transcriber | None = None) -> dict:
    """The row whose segments have "visual_caption", "audio_caption" and "transcript".

    Args:
        row: with its segments.
        media: the video, opened.
        annotator: describes.
        transcriber: writes down speech, as a field of its own: audio captions describe sound instead.

    Raises:
        AnnotatorError: not every segment got its captions.
    """
    clips = [Clip(media, segment) for segment in row["segments"]]
    captions = annotator.caption(row, clips)
    segments = []
    for clip, texts in zip(clips, captions, strict=True):
        if not texts["visual_caption"] or (media.has_audio and not texts["audio_caption"]):
            raise AnnotatorError(f"{row['video_id']}: segment {clip.segment['segment']} got no caption.")
        said = transcriber(clip) if transcriber is not None and media.has_audio else None
        segments.append({**clip.segment, **texts, "transcript": said or None})
    return {**row, "segments": segments}
