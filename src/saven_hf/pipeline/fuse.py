"""Stage 3: both captions of a segment become one, and those of all segments the three texts of a video."""

from __future__ import annotations

from .annotators import Annotator
from .errors import AnnotatorError
from .spans import span_words


def fuse(row: dict, annotator: Annotator) -> dict:
    """The row whose segments have "av_caption", with its times, and which has the three final captions itself.

    Raises:
        AnnotatorError: a text is missing.
    """
    texts = annotator.fuse_segments(row)
    segments = [
        {**segment, "av_text": text, "av_caption": f"{span_words(segment)}: {text}"}
        for segment, text in zip(row["segments"], texts, strict=True)
    ]
    row = {**row, "segments": segments}
    final = annotator.fuse_video(row)
    if not (final["visual_caption"] and final["av_caption"]) or (row["has_audio"] and not final["audio_caption"]):
        raise AnnotatorError(f"{row['video_id']}: a final caption is missing.")
    return {**row, **final}
