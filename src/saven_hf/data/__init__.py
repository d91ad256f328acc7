"""Data: rows of SAVEn-Vid and of chat messages, how questions are worded, readers of what others published."""

from .messages import (
    DataError,
    MissingMediaError,
    Report,
    attach_media,
    check_row,
    media_of,
    read_messages,
    validate_messages,
)
from .prompts import LETTERS, multiple_choice_answer, multiple_choice_prompt
from .readers import READERS, open_reader
from .schema import CONFIGS, RowError, validate_row, validate_segments


__all__ = [
    "CONFIGS",
    "LETTERS",
    "READERS",
    "DataError",
    "MissingMediaError",
    "Report",
    "RowError",
    "attach_media",
    "check_row",
    "media_of",
    "multiple_choice_answer",
    "multiple_choice_prompt",
    "open_reader",
    "read_messages",
    "validate_messages",
    "validate_row",
    "validate_segments",
]
