"""How much of the alignment error of real sections is shared by distortions of the same pair.

    python benchmarks/shared_error.py --mixed --iterations 960 2880   # options of alignment.py

The ground truth of vnc_nc is the registration that it was shipped with, whose errors are unknown.
They are the same for each distortion of a pair, seen in the undistorted sections; and so is what a
method always makes of the same two sections. The table divides the mean squared error of a method,
of a vector at each pixel, in two: *shared*, the square of the mean over the distortions, less what
the own parts of few distortions contribute to it; and *own*, the variance between distortions.
Square roots of the means over pixels and pairs, px, ± standard deviation (n - 1) over seeds. Only
*own* is surely an error of the method, and it is not all of its error.

Weights are those of alignment.py in FOLDER; what is absent there is trained first.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.alignment.metrics import remaining_displacement
from retrace.displacement import inverse, warp

from alignment import Run, check_options, learned, parse_args, prepared  # isort: skip
from alignment_stacks import Pair  # isort: skip
from classical_fields import MARGIN, Field, classical  # isort: skip
from machine import describe_machine, shown, table  # isort: skip

METHODS = (
    *("ILK", "ILK, radius 30", "ILK, smoothed"),
    *("direct optimisation", "direct optimisation, weight 1.6", "direct optimisation, smoothed"),
)
INNER = (..., slice(2 * MARGIN, -2 * MARGIN), slice(2 * MARGIN, -2 * MARGIN))
"""Pixels whose error is known in each distortion."""


def error_vectors(field: Tensor, pair: Pair) -> Tensor:
    """The error (2, h, w) px of `field` (1, 2, H, W) at the pixels of the undistorted target."""
    errors = remaining_displacement(field, pair.source_field) - pair.target_field
    return warp(errors, inverse(pair.target_field), "border")[0][INNER]


def divided(errors: Tensor) -> tuple[float, float]:
    """Shared and own part, px², of the squared errors (distortions, 2, h, w) of one pair."""
    variance, mean = torch.var_mean(errors, dim=0)
    own = float(variance.sum(0).mean())
    return float(mean.square().sum(0).mean()) - own / len(errors), own


def fields_of(run: Run) -> Iterator[tuple[str, Field]]:
    """The methods that are compared."""
    methods = classical()
    yield from ((name, methods[name]) for name in METHODS)
    for name, module, _ in run.networks({}):
        yield name, learned(module, run.network)


def parts(run: Run, field_of: Field) -> tuple[float, float]:
    """Shared and own part, px, of all pairs of neighbours together."""
    per_stack = len(run.tests[0].images) - 1
    rows = []
    for number in range(per_stack):
        errors = []
        for pair in run.pairs[number::per_stack]:
            images = prepared(pair.source, run.network), prepared(pair.target, run.network)
            with torch.enable_grad():
                field = field_of(*images).detach()
            errors.append(error_vectors(field, pair))
        rows.append(divided(torch.stack(errors)))
    shared, own = (sum(part) / per_stack for part in zip(*rows, strict=True))
    return math.sqrt(max(shared, 0.0)), math.sqrt(own)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.data != "vnc" or args.tests < 2:
        sys.exit("phantoms have no error of registration, and one distortion shares nothing")
    torch.set_num_threads(1)
    print(describe_machine(), flush=True)
    check_options(args)
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in args.seeds:
        run = Run(args, seed)
        for name, field_of in fields_of(run):
            found.setdefault(name, []).append(parts(run, field_of))
            print(f"seed {seed}, {name}: {found[name][-1]}", flush=True)
    rows = [
        [name, *(shown(part) for part in zip(*values, strict=True))]
        for name, values in found.items()
    ]
    print(f"\n{table(['method', 'shared, px', 'own, px'], rows)}")


if __name__ == "__main__":
    main()
