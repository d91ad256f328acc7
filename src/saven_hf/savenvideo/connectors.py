"""The connectors by name: what `resampler_type` may be."""

from __future__ import annotations

from .connector_avts import AVTSResampler
from .connector_base import BaseConnector
from .connector_mlp import MLPConnector
from .connector_qformer import CausalQFormer
from .connector_stc import STCConnector


CONNECTORS: dict[str, type[BaseConnector]] = {
    "avts": AVTSResampler,
    "mlp": MLPConnector,
    "mlp_pool": MLPConnector,
    "stc": STCConnector,
    "causal_qformer": CausalQFormer,
}


def build_connector(config) -> BaseConnector:
    """The connector that `config.resampler_type` names."""
    return CONNECTORS[config.resampler_type](config)
