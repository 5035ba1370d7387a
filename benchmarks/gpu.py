"""Checks and measures one GPU within a few minutes, and prints rows for docs/performance.md.

    python benchmarks/gpu.py                       # at most 8 minutes, seven full networks
    python benchmarks/gpu.py --seconds 240 --networks mtlsd --only speed
    python benchmarks/gpu.py --device cpu --small --networks mtlsd --rounds 1     # to try it

1. Equality: outputs and gradients in float32, TF32 and bf16, both memory layouts, compiled;
   batches, losses and weights of a training; stored predictions, in small and in the largest tiles;
   all compared with the CPU. Several processes are compared with one where there are several GPUs.
2. Speed: whole iterations of training and whole predictions (disk to store) of each network with
   the settings that the workflow chooses, next to the network alone and to matrix products.

Everything is generated; nothing is downloaded. Each work runs in a process that is replaced if it
crashes or hangs. What the time did not suffice for is listed. Exit code 1: a check has failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

import gpu_equality as equality
import gpu_speed as speed
from gpu_case import NETWORKS, Case
from machine import describe_machine, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.device import choose_device  # noqa: E402
from retrace.geometry import triple

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

FIRST_NETWORK = "mtlsd"
"""The network whose variants are measured and compared in every way."""
SMALL_RAW = (40, 64, 64)
EQUALITY_RAW = (60, 270, 270)
PARTS = ("equality", "speed", "other")
SECONDS = {
    "rates": 20, "network": 15, "ways": 90, "training": 40, "prediction": 40, "variants": 60,
    "trained": 20, "stored": 40, "other": 15, "processes": 90,
}  # fmt: skip
"""About how long each kind of work takes on one GPU; it begins only if as much is left."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=480, help="for everything together")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--dataset", default="zfinch", help="whose recipe and voxel size are taken")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--volume", type=int, nargs=3, default=(160, 1024, 1024), help="raw, z y x")
    parser.add_argument("--rounds", type=int, default=20, help="iterations that are timed")
    parser.add_argument(
        "--compile", choices=["yes", "no"], help="default: both are checked on GPUs"
    )
    parser.add_argument("--small", action="store_true", help="networks of a few hundred weights")
    parser.add_argument("--processes", type=int, help="default: one for each GPU")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- works within a time


@dataclass
class Session:
    """Runs works one after another until the time is over; failures do not end it."""

    seconds: float
    isolated: bool
    """Whether works run in a process of their own, which is replaced if it crashes or hangs."""
    begun: float = field(default_factory=time.monotonic)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _pool: ProcessPoolExecutor | None = None

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - (time.monotonic() - self.begun)

    def run(
        self,
        name: str,
        kind: str,
        work: Callable[Parameters, Result],
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Result | None:
        """The result of a work; None if it was left out or failed, which is noted."""
        if self.left < SECONDS[kind]:
            self.left_out.append(f"{name} (about {SECONDS[kind]} s, {self.left:.0f} s were left)")
            return None
        begin = time.monotonic()
        try:
            result = self._result(work, *args, **kwargs)
        except Exception as error:
            self._replace()
            self.failed.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            traceback.print_exc(limit=-4)
            return None
        print(f"[gpu] {name}: {time.monotonic() - begin:.1f} s, {self.left:.0f} s left", flush=True)
        return result

    def _result(self, work: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        if not self.isolated:
            return work(*args, **kwargs)
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return self._pool.submit(work, *args, **kwargs).result(timeout=self.left)

    def _replace(self) -> None:
        """Ends the process; the next work starts another one."""
        if self._pool is not None:
            for process in list(self._pool._processes.values()):  # public from Python 3.14 on
                process.kill()
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def close(self) -> None:
        """Ends the process."""
        self._replace()


# ---------------------------------------------------------------- the parts


def measured_rates(session: Session, device: torch.device) -> speed.Rates | None:
    """Rates of matrix products, printed."""
    rates = session.run("matrix products", "rates", speed.matrix_rates, device)
    if rates is not None:
        print(
            f"matrix products: {_tera(rates.bf16)} TFLOP/s in bf16, {_tera(rates.tf32)} in TF32, "
            f"{_tera(rates.fp32)} in fp32\n"
        )
    return rates


def check_all(session: Session, case: Case, args: argparse.Namespace) -> list[equality.Check]:
    """Every comparison that the time suffices for."""
    compiled = args.compile == "yes" or (args.compile is None and case.device.type == "cuda")
    first = FIRST_NETWORK if FIRST_NETWORK in args.networks else args.networks[0]
    found: list[equality.Check] = []

    def add(name: str, kind: str, work: Callable[..., list[equality.Check]], *rest: Any) -> None:
        found.extend(session.run(name, kind, work, *rest) or [])

    raw = SMALL_RAW if case.small else EQUALITY_RAW
    add(f"{first} in all ways", "ways", equality.network_checks, case, first, True, compiled)
    for name in [name for name in args.networks if name != first]:
        add(f"{name} in fp32", "network", equality.network_checks, case, name, False, False)
    small = case.in_small()
    add("a training", "trained", equality.training_checks, small, first)
    add("predictions", "stored", equality.prediction_checks, case, first, raw)
    add("the largest tile", "stored", equality.large_tile_checks, case, first)
    if "other" in args.only:
        add("N4", "other", equality.other_checks, "n4", (1, 40, 40), case.device)
        add("neuro3d", "other", equality.other_checks, "neuro3d_doc", (3, 20, 20), case.device)
        add("SEAMLeSS", "other", equality.section_checks, "seamless_small", 256, case.device)
    return found


def compare_processes(session: Session, args: argparse.Namespace, device: torch.device) -> None:
    """Training in several processes compared with one, if there are several GPUs."""
    gpus = torch.cuda.device_count() if device.type == "cuda" else 1
    count = args.processes or gpus
    if count < 2:
        session.left_out.append("several processes (one GPU)")
        return
    program = Path(__file__).with_name("data_parallel.py")
    command = [sys.executable, str(program), "--processes", str(count), "--device", device.type]
    command += ["--iterations", "20" if gpus > 1 else "2", "--rounds", "2" if gpus > 1 else "1"]
    done = session.run(
        "several processes", "processes", subprocess.run, command, check=True, timeout=session.left
    )
    del done  # it has printed its figures


def training_rows(
    session: Session, case: Case, rates: speed.Rates, args: argparse.Namespace
) -> list[list[str]]:
    """A row for each network."""
    rows = []
    changes = {} if args.compile is None else {"compile": args.compile == "yes"}
    for name in args.networks:
        found = session.run(
            f"training of {name}",
            "training",
            speed.training_speed,
            case,
            name,
            args.rounds,
            changes,
        )
        if found is not None:
            rows.append(_training_row(name, found, rates))
    return rows


def _training_row(name: str, found: speed.TrainingSpeed, rates: speed.Rates) -> list[str]:
    limit = rates.of(found.bf16)
    alone = found.flop_per_s * found.alone_per_s / found.iterations_per_s
    return [
        f"`{name}`, {'bf16' if found.bf16 else 'fp32'}{', compiled' if found.compiled else ''}",
        f"{found.iterations_per_s:.2f}",
        _tera(found.flop_per_s),
        f"{found.flop_per_s / limit:.0%}",
        f"{found.alone_per_s:.2f}",
        f"{alone / limit:.0%}",
        f"{found.waiting:.0%} ({found.workers} workers)",
        f"{found.first_s:.0f} s",
        f"{found.peak_gb:.1f} GB",
    ]


TRAINING = (
    "training", "iterations/s", "TFLOP/s", "of products", "network alone, iterations/s",
    "of products", "waiting for data", "first iteration after", "peak memory",
)  # fmt: skip
PREDICTION = (
    "prediction", "Mvoxel/s", "TFLOP/s", "of products", "network alone, Mvoxel/s", "of products",
    "reading and writing", "tiles", "peak memory",
)  # fmt: skip


def prediction_rows(
    session: Session, case: Case, rates: speed.Rates, args: argparse.Namespace
) -> list[list[str]]:
    """A row for each network; those that read descriptors after the network that predicts them."""
    rows = []
    stores: dict[str, Path] = {}
    names = sorted(args.networks, key=lambda name: case.context(name) is not None)
    for name in names:
        below = case.context(name)
        descriptors = stores.get(below.name) if below else None
        if below and descriptors is None:
            session.left_out.append(f"prediction of {name} (its descriptors: {below.name})")
            continue
        found = session.run(
            f"prediction of {name}", "prediction", speed.prediction_speed, case, name, descriptors
        )
        if found is not None:
            stores[name] = found.store
            rows.append(_prediction_row(name, found, rates))
    return rows


def _prediction_row(name: str, found: speed.PredictionSpeed, rates: speed.Rates) -> list[str]:
    limit = rates.of(found.bf16)
    return [
        f"`{name}`, {'bf16' if found.bf16 else 'fp32'}",
        f"{found.voxels / found.seconds / 1e6:.2f}",
        _tera(found.flop / found.seconds),
        f"{found.flop / found.seconds / limit:.0%}",
        f"{found.voxels / found.alone_s / 1e6:.2f}",
        f"{found.flop / found.alone_s / limit:.0%}",
        f"{found.waiting:.0%}",
        f"{found.tiles} of {list(found.tile)}",
        f"{found.peak_gb:.1f} GB",
    ]


def variant_rows(
    session: Session, case: Case, rates: speed.Rates, args: argparse.Namespace
) -> list[list[str]]:
    """Forward pass and step of one network in variants, in bf16."""
    name = FIRST_NETWORK if FIRST_NETWORK in args.networks else args.networks[0]
    compiled = args.compile == "yes" or (args.compile is None and case.device.type == "cuda")
    rounds = min(5, args.rounds)
    found = session.run(
        f"variants of {name}", "variants", speed.step_variants, case, name, rounds, compiled
    )
    return [
        [
            key,
            f"{1e3 * timed.forward_s:.2f} ms",
            f"{timed.flop / timed.forward_s / rates.bf16:.0%}",
            f"{1e3 * timed.step_s:.2f} ms",
            f"{3 * timed.flop / timed.step_s / rates.bf16:.0%}",
        ]
        for key, timed in (found or {}).items()
    ]


def other_rows(session: Session, case: Case, rates: speed.Rates) -> list[list[str]]:
    """N4, ELEKTRONN's 3-D example and SEAMLeSS, float32."""
    rows = []
    outputs = {"n4": (1, 40, 40), "neuro3d_doc": (3, 20, 20)} if case.small else OTHER_OUTPUTS
    for name, output in outputs.items():
        found = session.run(name, "other", speed.other_speed, name, output, case.device)
        if found is not None:
            share = found.flop / found.forward_s / rates.fp32
            step = 3 * found.flop / found.step_s / rates.fp32
            forward = f"{found.voxels / found.forward_s / 1e6:.3f} Mvoxel/s"
            rows.append(
                [f"`{name}`", forward, f"{share:.0%}", f"{1 / found.step_s:.1f}", f"{step:.0%}"]
            )
    side = 256 if case.small else 1024
    field_s = session.run(
        "seamless", "other", speed.section_speed, "seamless_small", side, case.device
    )
    if field_s is not None:
        rows.append(["`seamless_small`", f"{side**2 / field_s / 1e6:.2f} Mpx/s", "", "", ""])
    return rows


OTHER_OUTPUTS = {"n4": (1, 300, 300), "neuro3d_doc": (5, 120, 120)}


def _tera(flop_per_s: float) -> str:
    return f"{flop_per_s / 1e12:.3g}"


# ---------------------------------------------------------------- all together


def print_checks(checks: Sequence[equality.Check]) -> None:
    """A table of the comparisons, failed ones first."""
    if not checks:
        return
    rows = [
        [each.name, f"{each.difference:.2g}", f"{each.allowed:.2g}", "yes" if each.passed else "NO"]
        for each in sorted(checks, key=lambda each: each.passed)
    ]
    print("\n" + table(("compared with the CPU", "difference", "allowed", "passed"), rows))


def measure(session: Session, case: Case, args: argparse.Namespace) -> list[equality.Check]:
    """Runs all parts and prints their tables as soon as they are complete."""
    rates = measured_rates(session, case.device)
    checks: list[equality.Check] = []
    if "equality" in args.only:
        checks = check_all(session, case, args)
        print_checks(checks)
    if rates is None:
        return checks
    tables: list[tuple[Sequence[str], list[list[str]]]] = []
    if "speed" in args.only:
        tables.append((TRAINING, training_rows(session, case, rates, args)))
        tables.append((PREDICTION, prediction_rows(session, case, rates, args)))
        tables.append((VARIANTS, variant_rows(session, case, rates, args)))
    if "other" in args.only:
        tables.append((OTHER, other_rows(session, case, rates)))
    for heading, rows in tables:
        if rows:
            print("\n" + table(heading, rows), flush=True)
    if "equality" in args.only:
        compare_processes(session, args, case.device)
    return checks


VARIANTS = ("one step in bf16", "forward", "of products", "whole step", "of products")
OTHER = ("fp32, no TF32", "forward", "of products", "training, steps/s", "of products")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints machine, tables, what was left out, and what failed."""
    args = parse_args(argv)
    device = choose_device(args.device)
    if args.device == "auto" and device.type != "cuda":
        print("no GPU here: nothing is measured (`--device cpu --small` tries the program)")
        return
    volume = SMALL_RAW if args.small else triple(args.volume)
    session = Session(args.seconds, isolated=device.type == "cuda")
    print(describe_machine(device))
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder), args.dataset, device, args.small, volume)
        checks = measure(session, case, args)
        session.close()
    for title, lines in (("left out", session.left_out), ("failed", session.failed)):
        for line in lines:
            print(f"{title}: {line}")
    wrong = sum(not check.passed for check in checks)
    print(f"\n{len(checks)} comparisons, {wrong} beyond what is allowed, {session.left:.0f} s left")
    if wrong or session.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
