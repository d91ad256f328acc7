"""Pretraining of tiny towers and a tiny language model on the world, from nothing."""

from .audio import pretrain_audio, tiny_audio_config
from .loop import PretrainError
from .vision import pretrain_vision, tiny_vision_config


__all__ = ["PretrainError", "pretrain_audio", "pretrain_vision", "tiny_audio_config", "tiny_vision_config"]
