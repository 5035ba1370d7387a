"""The losses and the speed of an alignment training, as training.json keeps them."""

from __future__ import annotations

from typing import Any

from retrace.alignment.pairs import PairPlan
from retrace.training.compared import number, total
from retrace.training.history import mean_rows
from retrace.training.loop import TrainingOutcome
from retrace.training.validation import ValidationCurve


def alignment_history(
    outcome: TrainingOutcome, plan: PairPlan, validation: ValidationCurve | None
) -> dict[str, Any]:
    """The content of training.json: loss terms averaged over equal ranges of iterations.

    `validation`: the measurements, which are included unchanged.
    """
    rows = [
        {"iteration": end, "epoch": plan.epoch(end - 1)}
        | {"loss": number(total(terms, outcome.observed))}
        | dict(zip(outcome.terms, map(number, terms), strict=True))
        for end, terms in mean_rows(outcome.losses)
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
