"""Speed of training, end to end, and of the machine's matrix products.

    python benchmarks/train.py                                   # mtlsd_small on FIB-25's recipe
    python benchmarks/train.py --network mtlsd --dataset zfinch --iterations 50

Timed are whole iterations of the real loop: sampling, augmentation, targets, forward, backward,
optimiser, reading the loss. A step counts three times the forward FLOP. The matrix products (in the
precision of the training) run right before and after; the best of them counts.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from machine import matrix_rate
from tissue import parse_args, settings_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.planning.train_settings import read_train_settings
from retrace.training.build import build_trainer
from retrace.training.loop import Trainer, TrainingOutcome  # noqa: E402


def timed(trainer: Trainer, args: argparse.Namespace) -> tuple[TrainingOutcome, float]:
    """Warms up, then trains on from the state; also processor seconds of an iteration.

    Writing the state is not timed. Other work on the machine changes processor seconds least.
    """
    trainer.run()
    total = args.warm_up + args.iterations
    trainer.plan = replace(trainer.plan, iterations=total)
    begin = time.process_time()
    outcome = trainer.run()
    return outcome, (time.process_time() - begin) / outcome.done_here


def report(args: argparse.Namespace, folder: Path) -> str:
    settings = settings_for(args, folder / "tissue.zarr")
    trainer = build_trainer(read_train_settings(settings), {}, folder / "work")
    module = trainer.module
    device, plan = trainer.device, trainer.plan
    dtype = torch.bfloat16 if plan.bf16 else torch.float32
    rates = [matrix_rate(device, dtype)]
    outcome, processor_s = timed(trainer, args)
    rates.append(matrix_rate(device, dtype))
    shape = settings["network"]["input_shape"]
    flop, rate = 3 * module.flop(shape) * outcome.done_here / outcome.seconds, max(rates)
    output = module.output_shape(shape)
    voxels = output[0] * output[1] * output[2] * outcome.done_here / outcome.seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    peak_gpu = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0
    return "\n".join(
        [
            f"{args.network} on {args.dataset}: {list(shape)} -> {list(output)}, {device}, {dtype},"
            f" {torch.get_num_threads()} threads, {plan.workers} workers, compile {plan.compile}",
            f"training            {outcome.done_here / outcome.seconds:10.3f} iterations/s  "
            f"{voxels / 1e6:.3f} Mvoxel/s",
            f"processor time      {processor_s:10.3f} s an iteration",
            f"waiting for data    {outcome.waited_s / outcome.seconds:10.1%}",
            f"arithmetic          {flop / 1e9:10.1f} GFLOP/s",
            f"matrix products     {rate / 1e9:10.1f} GFLOP/s (before, after: "
            f"{rates[0] / 1e9:.1f}, {rates[1] / 1e9:.1f})",
            f"fraction            {flop / rate:10.1%}",
            f"peak memory         {peak:10.0f} MB, GPU {peak_gpu:.0f} MB",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(report(parse_args(argv, __doc__, iterations=20), Path(folder)))


if __name__ == "__main__":
    main()
