"""Choices of the configuration for one network: iterations, GPUs, batch size, weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.network_settings import NetworkSettings, VoxelNetworkSettings
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import Settings
from retrace.settings_model import SettingsModel

COMPUTE = ("device", "precision", "compile")
"""How a network is computed."""


def iterations_for(config: WorkflowConfig, network: str) -> int | None:
    """The iterations that the configuration sets for a network; None: the network's own number."""
    iterations = config["iterations"]
    if isinstance(iterations, Mapping):
        iterations = iterations.get(network)
    return None if iterations is None else int(iterations)


def gpus_for(config: WorkflowConfig, verb: str) -> int:
    """The GPUs that one job of a verb, `train` or `predict`, uses."""
    gpus = config["gpus"]
    return int(gpus.get(verb, 1) if isinstance(gpus, Mapping) else gpus)


def trained_network(config: WorkflowConfig, network: NetworkSettings) -> NetworkSettings:
    """The network with the `batch_size` of the configuration, if it sets one."""
    size = config["batch_size"]
    if size is None or not isinstance(network, VoxelNetworkSettings):
        return network
    return network.with_(batch_size=size)


def is_published(config: WorkflowConfig, network: str) -> bool:
    """Whether the published weights of a network are used unchanged."""
    return config["weights"] == "published" and iterations_for(config, network) is None


def without(content: Mapping[str, Any] | SettingsModel, *keys: str) -> Settings:
    """The settings except some."""
    return {key: value for key, value in content.items() if key not in keys}
