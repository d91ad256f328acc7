"""SAVEnVideo as transformers classes: the unit that ships to the Hub as remote code.

Importing this package registers the classes with transformers' Auto classes, and marks them so that a saved folder
carries their source and also loads, with `trust_remote_code=True`, where `saven_hf` is not installed.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)

from .configuration_beats import SAVEnVideoBeatsConfig
from .configuration_savenvideo import SAVEnVideoConfig
from .memory import VideoMemory
from .modeling_beats import SAVEnVideoBeatsModel
from .modeling_savenvideo import SAVEnVideoForConditionalGeneration, SAVEnVideoModel


AutoConfig.register("savenvideo_beats", SAVEnVideoBeatsConfig)
AutoConfig.register("savenvideo", SAVEnVideoConfig)
AutoModel.register(SAVEnVideoBeatsConfig, SAVEnVideoBeatsModel)
AutoModel.register(SAVEnVideoConfig, SAVEnVideoModel)
AutoModelForImageTextToText.register(SAVEnVideoConfig, SAVEnVideoForConditionalGeneration)
AutoModelForMultimodalLM.register(SAVEnVideoConfig, SAVEnVideoForConditionalGeneration)

SAVEnVideoBeatsConfig.register_for_auto_class()
SAVEnVideoBeatsModel.register_for_auto_class("AutoModel")
SAVEnVideoConfig.register_for_auto_class()
SAVEnVideoModel.register_for_auto_class("AutoModel")
SAVEnVideoForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = [
    "SAVEnVideoBeatsConfig",
    "SAVEnVideoBeatsModel",
    "SAVEnVideoConfig",
    "SAVEnVideoForConditionalGeneration",
    "SAVEnVideoModel",
    "VideoMemory",
]
