"""Refuses to replace a finished training by a shorter one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrace.config.network_settings import NetworkSettings, VoxelNetworkSettings
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError
from retrace.planning.choices import iterations_for
from retrace.planning.paths import results


def check_iterations(config: WorkflowConfig, dataset: str, network: NetworkSettings) -> None:
    """ConfigError if fewer iterations are requested than the trained network has.

    A training with another seed is another one, which does not continue this one.
    """
    history = Path(results(dataset, network.name, "training.json"))
    record = _record(history)
    done = int(record.get("iterations", 0))
    requested = _requested(config, network, record)
    if requested is None or done <= requested or record.get("seed", config.seed) != config.seed:
        return
    raise _shorter(history.with_name("model.safetensors"), history, done, requested)


def check_defect_iterations(seed: int, dataset: str, requested: int) -> None:
    """ConfigError if fewer iterations are requested than the trained defect detector has."""
    history = Path(results(dataset, "defects_training.json"))
    record = _record(history).get("settings", {})
    done = int(record.get("defects", {}).get("iterations", 0))
    if done > requested and record.get("seed") == seed:
        raise _shorter(history.with_name("defects.safetensors"), history, done, requested)


def _shorter(model: Path, history: Path, done: int, requested: int) -> ConfigError:
    return ConfigError(
        f"{model} is trained for {done} iterations, and {requested} are requested; a shorter "
        f"training would replace it. Set `iterations` to {done} to keep it or higher to train on, "
        f"or, to train again with {requested}, move {model} and {history} to another folder first"
    )


def is_finished(config: WorkflowConfig, dataset: str, network: NetworkSettings) -> bool:
    """Whether there is a model with all iterations that the settings ask for."""
    history = Path(results(dataset, network.name, "training.json"))
    record = _record(history)
    done = record.get("iterations") == _requested(config, network, record)
    return done and history.with_name("model.safetensors").is_file()


def _requested(
    config: WorkflowConfig, network: NetworkSettings, record: Mapping[str, Any]
) -> int | None:
    """The last iteration that the settings ask for; None if they leave it open."""
    own = network.iterations if isinstance(network, VoxelNetworkSettings) else None
    iterations = iterations_for(config, network.name) or own
    if iterations is not None or "iterations_per_epoch" not in record:
        return iterations
    own_epochs = network.epochs if isinstance(network, SeamlessNetworkSettings) else None
    epochs = config.epochs or own_epochs
    return None if epochs is None else int(epochs * record["iterations_per_epoch"])


def _record(history: Path) -> Mapping[str, Any]:
    """The training.json of a finished training; empty if there is none."""
    try:
        content = json.loads(history.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
