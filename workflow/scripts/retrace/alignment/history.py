"""The losses and the speed of an alignment training, as training.json keeps them."""

from __future__ import annotations

from typing import Any

from retrace.alignment.pairs import PairPlan
from retrace.training.history import history_rows
from retrace.training.loop import TrainingOutcome
from retrace.training.validation import ValidationCurve


def alignment_history(
    outcome: TrainingOutcome, plan: PairPlan, validation: ValidationCurve | None
) -> dict[str, Any]:
    """The content of training.json: loss terms averaged over equal ranges of iterations.

    `validation`: the measurements, which are included unchanged.
    """
    rows = [
        {"iteration": row["iteration"], "epoch": plan.epoch(row["iteration"] - 1)} | row
        for row in history_rows(outcome)
    ]
    return {
        "iterations": outcome.iteration,
        "iterations_per_epoch": plan.iterations_per_epoch,
        "iterations_this_run": outcome.done_here,
        "iterations_per_second": round(outcome.done_here / max(outcome.seconds, 1e-9), 4),
        "terms": list(outcome.terms),
        "history": rows,
        "validation": validation.content(outcome.iteration) if validation else None,
    }
