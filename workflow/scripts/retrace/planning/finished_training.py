"""Refuses to replace a finished training by a shorter one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrace.config.network_settings import NetworkSettings, VoxelNetworkSettings
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError
from retrace.planning.choices import iterations_for
from retrace.planning.paths import results
from retrace.planning.records import RECORD


def check_length(config: WorkflowConfig, dataset: str, network: NetworkSettings) -> None:
    """ConfigError if fewer iterations or less time are requested than the trained network has.

    A training with another seed is another one, which does not continue this one.
    """
    history = Path(results(dataset, network.name, "training.json"))
    record = _record(history)
    if record.get("seed", config.seed) != config.seed:
        return
    model = history.with_name("model.safetensors")
    done, requested = int(record.get("iterations", 0)), _requested(config, network, record)
    if requested is not None and done > requested:
        raise _shorter(model, history, "iterations", done, requested)
    seconds, limit = record.get("training_seconds", 0), config.train_seconds
    if limit is not None and seconds > limit and not _had_limit(model, limit):
        raise _shorter(model, history, "train_seconds", math.ceil(seconds), limit)


def _had_limit(model: Path, seconds: float) -> bool:
    """Whether a training was limited to this time, or to less; its last iteration takes longer."""
    record = _record(model.with_suffix(RECORD)).get("identity", {})
    limit = record.get("settings", {}).get("seconds")
    return limit is not None and limit <= seconds


def check_defect_iterations(seed: int, dataset: str, requested: int) -> None:
    """ConfigError if fewer iterations are requested than the trained defect detector has."""
    history = Path(results(dataset, "defects_training.json"))
    record = _record(history).get("settings", {})
    done = int(record.get("defects", {}).get("iterations", 0))
    if done > requested and record.get("seed") == seed:
        model = history.with_name("defects.safetensors")
        raise _shorter(model, history, "iterations", done, requested)


def _shorter(model: Path, history: Path, setting: str, done: int, requested: float) -> ConfigError:
    unit = "s" if setting == "train_seconds" else setting
    return ConfigError(
        f"{model} is trained for {done} {unit}, and {requested} are requested; a shorter "
        f"training would replace it. Set `{setting}` to {done} to keep it or higher to train on, "
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
