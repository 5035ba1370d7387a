"""What a training compared: a loss over nothing is no number, and a run of such losses no result.

A row holds the loss terms (terms,) of an iteration; NaN marks a term that had nothing to compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from retrace.errors import StateError

LAST = 100
"""Iterations at the end of a training whose losses a model's metadata averages."""


def marked(values: Tensor, terms: Sequence[str], uncompared: Mapping[str, Tensor]) -> Tensor:
    """Loss terms (terms,) as they are recorded: NaN where nothing was compared.

    `uncompared`: bool scalars by term; absent ones were compared. A term that is NaN although it
    compared something becomes infinite: the training has diverged.
    """
    no = torch.zeros((), dtype=torch.bool, device=values.device)
    nothing = torch.stack([uncompared.get(term, no) for term in terms])
    diverged = values.detach().nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return torch.where(nothing, torch.nan, diverged)


def number(value: float | Tensor) -> float | None:
    """A recorded term as a JSON value: None where nothing was compared."""
    plain = float(value)
    return None if plain != plain else plain


def total(row: Tensor, observed: int) -> Tensor:
    """Sum of the minimised terms of rows (..., terms), (...,): NaN where no term was compared.

    `observed`: how many of the last terms are monitored only.
    """
    minimised = row[..., : row.shape[-1] - observed]
    return torch.where(minimised.isnan().all(-1), torch.nan, minimised.nansum(-1))


def recorded(
    terms: Mapping[str, Tensor], uncompared: Mapping[str, Tensor], observed: int
) -> dict[str, float | None]:
    """`loss` and the loss terms (scalars) of one batch as JSON values; None: nothing was compared.

    `uncompared`: as for `marked`; `observed`: as for `total`.
    """
    values = torch.stack([term.float() for term in terms.values()])
    values = marked(values, [*terms], uncompared).cpu()
    row = {"loss": number(total(values, observed))}
    return row | {name: number(v) for name, v in zip(terms, values, strict=True)}


def check_compared(losses: Tensor, names: Sequence[str], remedy: str, work: Path) -> None:
    """StateError if a whole training compared nothing and therefore learned nothing.

    `losses` (iterations, terms) of the terms `names` that compare with data; `remedy`: what the
    user corrects.
    """
    if not len(losses) or not losses.isnan().all():
        return
    raise StateError(
        f"nothing was compared in {len(losses)} iterations ({', '.join(names)}): the network "
        f"learned nothing, and no result is written. {remedy}; delete {work} to start over"
    )
