"""The history of a training, as training.json keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.storage.manifest import gpu_name, peak_memory_mb
from retrace.training.loop import Outcome

HISTORY_ROWS = 2000


LAST = 100
"""Iterations whose mean loss is written beside the weights."""


def history(settings: Mapping[str, Any], outcome: Outcome, seconds: float) -> dict[str, Any]:
    """The content of training.json: loss terms averaged over equal stretches of iterations."""
    count = outcome.iteration - outcome.begun
    stretch = max(1, -(-count // HISTORY_ROWS))
    rows = []
    for begin in range(0, count, stretch):
        part = outcome.losses[begin : begin + stretch].double().mean(dim=0)
        end = min(begin + stretch, count)
        row: dict[str, Any] = {"iteration": outcome.begun + end}
        row["loss"] = float(part[: len(part) - outcome.observed].sum())
        rows.append(row | dict(zip(outcome.terms, part.tolist(), strict=True)))
    return {
        "dataset": settings["dataset"]["name"],
        "network": settings["network"]["name"],
        "iterations": outcome.iteration,
        "batch_size": settings["network"].get("batch_size", 1),
        "processes": settings.get("gpus", 1),
        "seed": settings["seed"],
        "terms": list(outcome.terms),
        "seconds": round(seconds, 3),
        "peak_memory_mb": peak_memory_mb(),
        "gpu": gpu_name(),
        "training_seconds": round(outcome.all_seconds, 3),
        "iterations_this_run": outcome.done_here,
        "iterations_per_second": round(outcome.done_here / max(outcome.seconds, 1e-9), 4),
        "share_waiting_for_data": round(outcome.waited_s / max(outcome.seconds, 1e-9), 4),
        "history": rows,
    }


def last_loss(outcome: Outcome) -> float | None:
    """Mean loss of the last iterations, None where published weights were left as they are."""
    if not len(outcome.losses):
        return None
    minimised = outcome.losses.shape[1] - outcome.observed
    return round(float(outcome.losses[-LAST:, :minimised].double().sum(dim=1).mean()), 6)
