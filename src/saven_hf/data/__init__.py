"""Training data: rows of chat messages, how questions are worded, readers of published annotations."""

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


__all__ = [
    "LETTERS",
    "READERS",
    "DataError",
    "MissingMediaError",
    "Report",
    "attach_media",
    "check_row",
    "media_of",
    "multiple_choice_answer",
    "multiple_choice_prompt",
    "open_reader",
    "read_messages",
    "validate_messages",
]
