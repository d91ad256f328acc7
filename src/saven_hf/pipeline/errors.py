"""Errors of the pipeline; every message says what to do."""

from __future__ import annotations


class PipelineError(ValueError):
    """What was asked of the pipeline cannot be done. The base of all errors below."""


class PromptError(PipelineError):
    """A folder of prompts lacks one, or a template does not render."""


class AnnotatorError(PipelineError):
    """An annotator cannot be opened, or did not give what a stage needs however often it was asked."""


class ServiceError(PipelineError):
    """What all videos need, a server or the disk, fails or refuses us: going on would put every video aside."""


class ReplyError(PipelineError):
    """A reply of a model breaks the rules.

    Attributes:
        problems: what is wrong, one sentence each; they are told to the model when it is asked again.
    """

    def __init__(self, problems: list[str]):
        self.problems = list(problems)
        super().__init__(" ".join(self.problems))
