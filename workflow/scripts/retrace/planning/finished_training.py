"""Refuses to replace a finished training by a shorter one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.config.network_settings import NetworkSettings, VoxelNetworkSettings
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError
from retrace.formats.safetensors_header import header_metadata
from retrace.planning.choices import iterations_for
from retrace.planning.paths import results
from retrace.planning.training_folders import WORK
from retrace.reading import json_if_intact
from retrace.replacement import RECORD


def check_length(config: WorkflowConfig, dataset: str, network: NetworkSettings) -> None:
    """ConfigError if fewer iterations or less time are requested than the trained network has.

    A training with another seed is another one, which does not continue this one.
    """
    history = Path(results(dataset, network.name, "training.json"))
    model = history.with_name("model.safetensors")
    trained = _trained(model, history)
    if trained.get("seed", config.seed) != config.seed:
        return
    done, requested = int(trained.get("iterations", 0)), _requested(config, network, trained)
    if requested is not None and done > requested:
        raise _shorter(model, history, "iterations", done, requested)
    setting, limit = "train_seconds", config.train_seconds
    if limit is None:
        setting, limit = "max_runtime", getattr(network, "max_runtime", None)
    if limit is None or not done or _had_limit(model, limit):
        return
    if not json_if_intact(history):
        raise ConfigError(
            f"{model} is trained for {done} iterations, and `{setting}` may end a training "
            f"earlier; {history}, which is missing or damaged, would say how long this one took. "
            f"Restore it, leave out `{setting}`, or, to train again, move "
            f"{_and([model, *_states(model)])} to another folder first"
        )
    if (seconds := trained.get("training_seconds", 0)) > limit:
        raise _shorter(model, history, setting, math.ceil(seconds), limit)


def _trained(model: Path, history: Path) -> Mapping[str, Any]:
    """What is known of a finished training; empty if there is none.

    Without a readable training.json this is what the model and its record hold.
    """
    settings = _settings(model)
    done = header_metadata(model).get("iteration")
    known: dict[str, Any] = {"seed": settings.get("seed"), "iterations": done}
    epochs = settings.get("epochs") or (settings.get("network") or {}).get("epochs")
    if done and epochs and not settings.get("iterations"):
        known["iterations_per_epoch"] = done / epochs
    return {k: v for k, v in known.items() if v is not None} | json_if_intact(history)


def _had_limit(model: Path, seconds: float) -> bool:
    """Whether a training was limited to this time, or to less; its last iteration takes longer."""
    settings = _settings(model)
    limit = settings.get("seconds") or (settings.get("network") or {}).get("max_runtime")
    return limit is not None and limit <= seconds


def _settings(model: Path) -> Mapping[str, Any]:
    """The settings in the record of a model; empty if there is none."""
    record = json_if_intact(model.with_suffix(RECORD))
    return record.get("identity", {}).get("settings") or {}


def check_defect_iterations(seed: int, dataset: str, requested: int) -> None:
    """ConfigError if fewer iterations are requested than the trained defect detector has."""
    history = Path(results(dataset, "defects_training.json"))
    model = history.with_name("defects.safetensors")
    settings = (json_if_intact(history) or header_metadata(model)).get("settings", {})
    done = int(settings.get("defects", {}).get("iterations", 0))
    if done > requested and settings.get("seed") == seed:
        raise _shorter(model, history, "iterations", done, requested)


def _shorter(model: Path, history: Path, setting: str, done: int, requested: float) -> ConfigError:
    unit = "iterations" if setting == "iterations" else "s"
    files = [model, history, *_states(model)]
    return ConfigError(
        f"{model} is trained for {done} {unit}, and {requested} are requested; a shorter "
        f"training would replace it. Set `{setting}` to {done} to keep it or higher to train on, "
        f"or, to train again with {requested}, move {_and(files)} to another folder first"
    )


def _states(model: Path) -> list[Path]:
    """The folders with the saved states of a trained model.

    Those of the legacy engine do not say which model they belong to: all of its network count.
    """
    experiment = f"{model.parent.parent.name}_{model.parent.name}"
    training = header_metadata(model).get("training_digest")
    if training is None:
        return sorted(Path(WORK["legacy"]).glob(f"{experiment}_{'[0-9a-f]' * 16}"))
    folder = Path(WORK["modern"], f"{experiment}_{training}")
    return [folder] if folder.is_dir() else []


def _and(paths: Sequence[Path]) -> str:
    """Paths in words: `a, b and c`."""
    *first, last = map(str, paths)
    return f"{', '.join(first)} and {last}" if first else last


def _requested(
    config: WorkflowConfig, network: NetworkSettings, trained: Mapping[str, Any]
) -> int | None:
    """The last iteration that the settings ask for; None if they leave it open."""
    own = network.iterations if isinstance(network, VoxelNetworkSettings) else None
    iterations = iterations_for(config, network.name) or own
    if iterations is not None or "iterations_per_epoch" not in trained:
        return iterations
    own_epochs = network.epochs if isinstance(network, SeamlessNetworkSettings) else None
    epochs = config.epochs or own_epochs
    return None if epochs is None else round(epochs * trained["iterations_per_epoch"])
