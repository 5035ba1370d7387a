"""Fields of settings models that hold a resolved network, read as the model of its family."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from retrace.config.families import family_named
from retrace.config.network_settings import NetworkSettings, VoxelNetworkSettings
from retrace.config.schema import check


def of_family(content: Any) -> Any:
    """A network's settings as the model of its family; ConfigError for wrong settings."""
    if isinstance(content, NetworkSettings):
        return content
    where = f"network {content.get('name')!r}"
    return check(family_named(str(content.get("family")), where).load("settings"), content, where)


VoxelNetwork = Annotated[VoxelNetworkSettings, BeforeValidator(of_family)]
"""A network that predicts volumes, images or vectors."""
