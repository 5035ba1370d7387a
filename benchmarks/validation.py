"""What validation costs a training: measurements on validation patches, timed within one run.

    python benchmarks/validation.py                              # mtlsd_small on FIB-25's recipe
    python benchmarks/validation.py --network mtlsd --dataset zfinch --iterations 32

Printed is the share of a real training loop that is spent on measurements, at the shortest
interval of `auto` (32 iterations, until iteration 1024) and computed from it at the longest (1024).
The first measurement, for which a new machine compiles the segmentation, is in the warm-up. Shares
are given in wall time and in processor time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tissue import parse_args, settings_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.config.validation_model import FIRST_EVERY, LONGEST_EVERY
from retrace.planning.train_settings import read_train_settings
from retrace.training.build import build_trainer
from retrace.training.validation import ValidationCurve
from retrace.training.validation_patches import PATCHES


class TimedCurve(ValidationCurve):
    """A curve that counts the processor time of its measurements, too."""

    processor_s = 0.0

    def measure(self, *args: object) -> None:
        """As a curve, timed."""
        begin = time.process_time()
        super().measure(*args)  # type: ignore[arg-type]
        self.processor_s += time.process_time() - begin


def report(args: argparse.Namespace, folder: Path) -> str:
    settings = settings_for(args, folder / "tissue.zarr")
    entry = {"volume": "generated", "roi_nm": None, "probability": 1.0}
    settings["dataset"]["validation"] = [entry]
    trainer = build_trainer(read_train_settings(settings), {}, folder / "work")
    trainer.run()  # measures its end
    curve = trainer.validation
    assert curve is not None
    timed = trainer.validation = TimedCurve(curve.data, curve.settings)
    trainer.plan = replace(trainer.plan, iterations=args.warm_up + args.iterations)
    begin = time.process_time()
    outcome = trainer.run()
    processor_s = time.process_time() - begin
    count = len(timed.rows)
    lines = [
        f"{args.network} on {args.dataset}, {trainer.device}, {torch.get_num_threads()} threads, "
        f"{outcome.done_here} iterations, {count} measurements of {PATCHES} patches"
    ]
    for name, all_s, measured_s in (
        ("wall time", outcome.seconds, timed.seconds),
        ("processor time", processor_s, timed.processor_s),
    ):
        iteration_s = (all_s - measured_s) / outcome.done_here
        in_iterations = measured_s / count / iteration_s
        shares = [in_iterations / every for every in (FIRST_EVERY, LONGEST_EVERY)]
        lines.append(
            f"{name:15} iteration {iteration_s:.3f} s, measurement {measured_s / count:.3f} s "
            f"({in_iterations:.2f} iterations): {shares[0]:.2%} of the training at the shortest "
            f"interval, {shares[1]:.2%} at the longest"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        args = parse_args(argv, __doc__, iterations=2 * FIRST_EVERY)
        print(report(args, Path(folder)))


if __name__ == "__main__":
    main()
