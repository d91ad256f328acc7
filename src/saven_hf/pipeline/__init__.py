"""Long videos become SAVEn-Vid rows: segment, caption, fuse, question, check (paper, section 3.2).

    from saven_hf.pipeline import Settings, build_dataset

    build_dataset(["videos/"], "mine", Settings(annotator="signal"))
    questions = load_dataset("mine", "qa")

Each stage is a module with a function of that name, from row to row.
"""

from .annotators import ANNOTATORS, Annotator, Clip, open_annotator
from .build import assemble, build_dataset, find_videos, read_list
from .errors import AnnotatorError, PipelineError, PromptError, ReplyError, ServiceError
from .executors import EXECUTORS
from .segment import ChangeDetector
from .stages import STAGES, Settings
from .templates import Prompts


__all__ = [
    "ANNOTATORS",
    "EXECUTORS",
    "STAGES",
    "Annotator",
    "AnnotatorError",
    "ChangeDetector",
    "Clip",
    "PipelineError",
    "PromptError",
    "Prompts",
    "ReplyError",
    "ServiceError",
    "Settings",
    "assemble",
    "build_dataset",
    "find_videos",
    "open_annotator",
    "read_list",
]
