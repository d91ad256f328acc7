"""Times of segments as text: HH:MM:SS.mmm of the first and the last frame (paper, figures 2 and 11)."""

from __future__ import annotations

from ..savenvideo.times import format_time


def segment_times(segment: dict) -> tuple[int, int]:
    """Times of a segment's first and last frame in microseconds, as text names them."""
    return round(segment["first_frame"] * 1e6), round(segment["last_frame"] * 1e6)


def span_option(segment: dict) -> str:
    """ "00:01:30.200 - 00:03:57.440", an option of a question about a time range."""
    return " - ".join(map(format_time, segment_times(segment)))


def span_words(segment: dict) -> str:
    """ "From 00:01:30.200 to 00:03:57.440" """
    start, end = map(format_time, segment_times(segment))
    return f"From {start} to {end}"
