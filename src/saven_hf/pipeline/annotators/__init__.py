"""Who describes and asks: measurements, local models, an endpoint, or the truth of the procedural world."""

from .base import ANNOTATORS, Annotator, Clip, open_annotator


__all__ = ["ANNOTATORS", "Annotator", "Clip", "open_annotator"]
