"""Resolved networks as the model of their family: those that jobs and model files hold as JSON."""

from __future__ import annotations

from collections.abc import Mapping
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


def stored_network(content: Mapping[str, Any]) -> Any:
    """The settings that were stored with weights, as a model; a `NetworkSettings` of its family.

    Settings that this version no longer has are left out; new ones get their defaults.
    """
    where = f"stored network {content.get('name')!r}"
    model = family_named(str(content.get("family")), where).load("settings")
    return check(model, {k: v for k, v in content.items() if k in model.model_fields}, where)


AnyNetwork = Annotated[NetworkSettings, BeforeValidator(of_family)]
"""A network of any family."""

VoxelNetwork = Annotated[VoxelNetworkSettings, BeforeValidator(of_family)]
"""A network that predicts volumes, images or vectors."""
