"""Ask, train and measure long videos with their sound and their time.

Importing the package registers SAVEnVideo with transformers' Auto classes. It stays light: what trains, serves or
evaluates is imported by the module that does it, when it is used.
"""

from .ask import Answer, Fed, VideoSession, ask
from .hub import ModelNotFoundError, init_7b, load
from .plan import Plan, plan
from .savenvideo import (
    SAVEnVideoBeatsConfig,
    SAVEnVideoBeatsFeatureExtractor,
    SAVEnVideoBeatsModel,
    SAVEnVideoConfig,
    SAVEnVideoForConditionalGeneration,
    SAVEnVideoModel,
    SAVEnVideoProcessor,
    SAVEnVideoSpeechFeatureExtractor,
    SAVEnVideoVideoProcessor,
    TowerFeatures,
    VideoMemory,
)
from .savenvideo.media_errors import MediaError
from .version import __version__


__all__ = [
    "Answer",
    "Fed",
    "MediaError",
    "ModelNotFoundError",
    "Plan",
    "SAVEnVideoBeatsConfig",
    "SAVEnVideoBeatsFeatureExtractor",
    "SAVEnVideoBeatsModel",
    "SAVEnVideoConfig",
    "SAVEnVideoForConditionalGeneration",
    "SAVEnVideoModel",
    "SAVEnVideoProcessor",
    "SAVEnVideoSpeechFeatureExtractor",
    "SAVEnVideoVideoProcessor",
    "TowerFeatures",
    "VideoMemory",
    "VideoSession",
    "__version__",
    "ask",
    "init_7b",
    "load",
    "plan",
]
