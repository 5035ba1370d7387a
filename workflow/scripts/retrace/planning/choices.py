"""Choices of the configuration for one network: iterations, GPUs, batch size, weights."""

from __future__ import annotations

from typing import Literal

from retrace.config.network_settings import NetworkSettings, VoxelNetworkSettings
from retrace.config.workflow import Gpus, WorkflowConfig


def iterations_for(config: WorkflowConfig, network: str) -> int | None:
    """The iterations that the configuration sets for a network; None: the network's own number."""
    iterations = config.iterations
    if isinstance(iterations, dict):
        iterations = iterations.get(network)
    return None if iterations is None else int(iterations)


def gpus_for(config: WorkflowConfig, verb: Literal["train", "predict"]) -> int:
    """The GPUs that one job of a verb uses."""
    gpus = config.gpus
    if isinstance(gpus, Gpus):
        return gpus.train if verb == "train" else gpus.predict
    return int(gpus)


def trained_network(config: WorkflowConfig, network: NetworkSettings) -> NetworkSettings:
    """The network with the `batch_size` of the configuration, if it sets one."""
    size = config.batch_size
    if size is None or not isinstance(network, VoxelNetworkSettings):
        return network
    return network.with_(batch_size=size)


def is_published(config: WorkflowConfig, network: str) -> bool:
    """Whether the published weights of a network are used unchanged."""
    return config.weights == "published" and iterations_for(config, network) is None
