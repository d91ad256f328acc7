"""SAVEnVideo as transformers classes: the unit that ships to the Hub as remote code.

Importing this package registers the classes with transformers' Auto classes, and marks them so that a saved folder
carries their source and also loads, with `trust_remote_code=True`, where `saven_hf` is not installed.
"""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
)

# The name at the top of transformers is a dummy where torchvision is missing; this one needs nothing of it.
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from .configuration_beats import SAVEnVideoBeatsConfig
from .configuration_savenvideo import SAVEnVideoConfig
from .feature_extraction_beats import SAVEnVideoBeatsFeatureExtractor
from .feature_extraction_speech import SAVEnVideoSpeechFeatureExtractor
from .memory import VideoMemory
from .modeling_beats import SAVEnVideoBeatsModel
from .modeling_savenvideo import SAVEnVideoForConditionalGeneration, SAVEnVideoModel
from .processing_savenvideo import SAVEnVideoProcessor
from .tower_features import TowerFeatures
from .video_processing_savenvideo import SAVEnVideoVideoProcessor


AutoConfig.register("savenvideo_beats", SAVEnVideoBeatsConfig)
AutoConfig.register("savenvideo", SAVEnVideoConfig)
AutoModel.register(SAVEnVideoBeatsConfig, SAVEnVideoBeatsModel)
AutoModel.register(SAVEnVideoConfig, SAVEnVideoModel)
AutoModelForImageTextToText.register(SAVEnVideoConfig, SAVEnVideoForConditionalGeneration)
AutoModelForMultimodalLM.register(SAVEnVideoConfig, SAVEnVideoForConditionalGeneration)
AutoFeatureExtractor.register(SAVEnVideoBeatsConfig, SAVEnVideoBeatsFeatureExtractor)
AutoFeatureExtractor.register(SAVEnVideoConfig, SAVEnVideoBeatsFeatureExtractor)
AutoVideoProcessor.register(SAVEnVideoConfig, SAVEnVideoVideoProcessor)
AutoProcessor.register(SAVEnVideoConfig, SAVEnVideoProcessor)

SAVEnVideoBeatsConfig.register_for_auto_class()
SAVEnVideoBeatsModel.register_for_auto_class("AutoModel")
SAVEnVideoConfig.register_for_auto_class()
SAVEnVideoModel.register_for_auto_class("AutoModel")
SAVEnVideoForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")
SAVEnVideoBeatsFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
SAVEnVideoSpeechFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
SAVEnVideoVideoProcessor.register_for_auto_class("AutoVideoProcessor")
SAVEnVideoProcessor.register_for_auto_class("AutoProcessor")

__all__ = [
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
]
