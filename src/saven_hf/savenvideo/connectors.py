"""The connectors by name: what `resampler_type` may be."""

from __future__ import annotations

from .connector_avts import AVTSResampler
from .connector_base import Connector
from .connector_mlp import MLPConnector


CONNECTORS: dict[str, type[Connector]] = {
    "avts": AVTSResampler,
    "mlp": MLPConnector,
    "mlp_pool": MLPConnector,
}


def build_connector(config) -> Connector:
    """The connector that `config.resampler_type` names."""
    return CONNECTORS[config.resampler_type](config)
