"""Faults at random times of a sharded run: does it end with the bytes of an undisturbed one?

    python benchmarks/faults.py --faults 200          # needs root for the disk that is full

Four shards of a small volume go through predict, segment and assemble, each step a new process, in
a folder on a small disk of memory. Before each fault the run is set back to a random step. After
the fault verify.py checks everything, then steps are repeated until all are done, as the workflow
does: a step runs when its manifest is missing or a step before it ran. A fault is *lost* when the
run does not end within some passes, *wrong* when a voxel or an edge differs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from sharded_run import SCRIPTS, ShardedRun

sys.path.insert(0, str(SCRIPTS))
sys.path.insert(0, str(SCRIPTS.parent.parent / "tests"))

import verify  # noqa: E402
from power_cut import Flushes, lose  # noqa: E402
from retrace.checkpoints.safetensors import save_model
from retrace.config.networks import network_by_name
from retrace.networks import build_network  # noqa: E402
from retrace.segmentation.lut import components  # noqa: E402
from retrace.storage.manifest import manifest_path
from retrace.storage.zarr_writer import create_volume

SHARDS = 4
PASSES = 8
DISK_MB = 96
NETWORK = network_by_name("baseline_small", (20, 9, 9)).with_(
    name="tiny",
    fmaps=2,
    fmap_factor=2,
    fmaps_out=3,
    downsample=[[1, 2, 2]],
    predict_padding="reflect",
)
SEGMENT: dict[str, Any] = {
    "fragments_in_xy": True,
    "block_shape": [16, 64, 64],
    "block_context": [4, 8, 8],
}
PREDICT: dict[str, Any] = {
    "network": NETWORK.plain(),
    "tile": [32, 64, 64],
    "dtype": "uint8",
    "device": "cpu",
    "precision": "fp32",
}
SHAPE = (32, 128, 128)


class Workflow(ShardedRun):
    """A sharded run that resumes after a fault like the workflow."""

    def one_pass(self, strike: Callable[[int], None] | None = None) -> bool:
        """Computes missing outputs and everything after them; False if a step fails."""
        again: set[str] = set()
        for step in self.steps:
            depends = any(path in " ".join(step.arguments) for path in again)
            if step.is_done and not depends:
                continue
            child = step.start()
            if strike:
                strike(child)
                strike = None
            _, status = os.waitpid(child, 0)
            if status:
                return False
            again.add(str(step.output))
        return True

    def finish(self) -> int:
        """Number of passes until all is done, or 0 if it does not end."""
        for number in range(1, PASSES + 1):
            if self.one_pass():
                return number
        return 0

    def found(self) -> dict[str, bytes]:
        """Every array of the three final stores."""
        stores = [self.prediction, self.results / "f.zarr", self.results / "segmentation.zarr"]
        return {
            f"{store.name}/{name}": np.asarray(array[...]).tobytes()
            for store in stores
            for name, array in zarr.open_group(store, mode="r").arrays()
        }


def prepare(folder: Path) -> Workflow:
    """Raw of smoothed noise, random weights, a threshold."""
    rng = np.random.default_rng(0)
    place: dict[str, Any] = {"voxel_size_nm": (20, 9, 9), "offset_nm": (0, 0, 0)}
    array = create_volume(
        folder / "raw.zarr", "raw", shape=SHAPE, chunks=(32, 64, 64), dtype=np.uint8, **place
    )
    array[...] = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    network = build_network(NETWORK, seed=3)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith("heads") and name.endswith("weight"):
                weight.mul_(30)
    save_model(folder / "model.safetensors", network, {"network": NETWORK.plain()})
    (folder / "threshold.json").write_text(json.dumps({"threshold": 0.3}))
    return Workflow(folder, SHARDS, PREDICT, SEGMENT)


def files_of(workflow: Workflow) -> list[Path]:
    """Every file of finished and unfinished stores and of scratch."""
    places = [workflow.results, workflow.work]
    return sorted(p for place in places for p in place.rglob("*") if p.is_file())


def chunks_of(workflow: Workflow) -> list[Path]:
    """Every chunk file that is not empty."""
    named = (p for p in files_of(workflow) if p.name.replace(".", "").isdigit())
    return [p for p in named if p.stat().st_size > 8]


class Faults:
    """The kinds of faults; each is a function of the workflow."""

    def __init__(self, workflow: Workflow, rng: random.Random) -> None:
        self.workflow, self.rng = workflow, rng

    def _signal(self, number: int) -> None:
        def strike(child: int) -> None:
            time.sleep(self.rng.uniform(0.01, 1.0))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

        self.workflow.one_pass(strike)

    def job_killed(self) -> None:
        """SIGKILL: out of memory, or the node is gone."""
        self._signal(signal.SIGKILL)

    def time_limit(self) -> None:
        """SIGTERM: the scheduler's time limit, or scancel."""
        self._signal(signal.SIGTERM)

    def power_cut(self) -> None:
        """The machine stops, and loses what was not flushed since the run was set back."""
        with tempfile.TemporaryDirectory() as place:
            flushes = Flushes(Path(place) / "log")
            with flushes.noted():
                self._signal(signal.SIGKILL)
            for folder in (self.workflow.results, self.workflow.work):
                for path in flushes.lost(folder):
                    lose(path, self.rng)

    def disk_full(self) -> None:
        """A file of another user almost fills the disk."""
        ballast = self.workflow.folder / "ballast"
        free = shutil.disk_usage(self.workflow.folder).free
        left = int(self.rng.uniform(0, 0.5) * 2**20)
        with ballast.open("wb") as file:
            file.write(b"\0" * max(0, free - left))
        self.workflow.one_pass()
        ballast.unlink()

    def _damage(self, change: Callable[[Path], None]) -> None:
        # Half of the time in the middle of a step, so that unfinished stores are hit too.
        if self.rng.random() < 0.5:
            self._signal(signal.SIGKILL)
        chunks = chunks_of(self.workflow)
        if chunks:
            change(self.rng.choice(chunks))

    def chunk_truncated(self) -> None:
        """The end of a chunk is missing."""
        self._damage(lambda path: os.truncate(path, self.rng.randrange(path.stat().st_size)))

    def bit_flipped(self) -> None:
        """One bit of a chunk is another."""

        def flip(path: Path) -> None:
            content = bytearray(path.read_bytes())
            content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
            with path.open("r+b") as file:  # in place: a link shows it too
                file.write(content)

        self._damage(flip)

    def chunk_lost(self) -> None:
        """A chunk's file is gone."""
        self._damage(lambda path: path.unlink())

    def manifest_damaged(self) -> None:
        """A manifest ends in the middle."""
        manifests = [manifest_path(s.output) for s in self.workflow.steps if s.is_done]
        if manifests:
            path = self.rng.choice(manifests)
            os.truncate(path, self.rng.randrange(path.stat().st_size))

    def clock_skewed(self) -> None:
        """Some files come from a machine whose clock is a day off."""
        self._signal(signal.SIGKILL)
        for path in self.rng.sample(files_of(self.workflow), 5):
            day = self.rng.choice([-86400, 86400]) + time.time()
            os.utime(path, (day, day))


KINDS = (
    "job_killed",
    "time_limit",
    "power_cut",
    "disk_full",
    "chunk_truncated",
    "bit_flipped",
    "chunk_lost",
    "manifest_damaged",
    "clock_skewed",
)


def set_back(workflow: Workflow, rng: random.Random) -> None:
    """Sets the run back to a random step."""
    for step in workflow.steps[rng.randrange(1, len(workflow.steps)) :]:
        step.clear()
    shutil.rmtree(workflow.work, ignore_errors=True)


def is_found(workflow: Workflow) -> bool:
    """Whether verify.py names something damaged."""
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            verify.main([str(workflow.results)])
        except SystemExit:
            return True
    return False


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """A folder on a disk of DISK_MB in memory."""
    with tempfile.TemporaryDirectory() as folder:
        size = f"size={DISK_MB}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints one row for each kind of fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    rng = random.Random(args.seed)
    rows: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    components(2, [np.array([[0, 1]])])  # compiled once, before the processes part
    with small_disk() as folder:
        workflow = prepare(folder)
        if not workflow.finish():
            sys.exit("the undisturbed run does not end")
        expected = workflow.found()
        for number in range(args.faults):
            kind = KINDS[number % len(KINDS)]
            set_back(workflow, rng)
            getattr(Faults(workflow, rng), kind)()
            detected = is_found(workflow)
            passes = workflow.finish()
            row = rows[kind]
            row.update(faults=1, found=int(detected), lost=int(not passes), passes=passes)
            row.update(wrong=int(bool(passes) and workflow.found() != expected))
            print(f"[faults] {number + 1}/{args.faults} {kind}: {passes} passes", flush=True)
    columns = ("faults", "found", "lost", "wrong", "passes")
    print("| kind | " + " | ".join(columns) + " |\n|---" * 1 + "|---" * len(columns) + "|")
    for kind, row in rows.items():
        print(f"| {kind.replace('_', ' ')} | " + " | ".join(str(row[c]) for c in columns) + " |")
    total = {column: sum(row[column] for row in rows.values()) for column in columns}
    print("| all | " + " | ".join(str(total[c]) for c in columns) + " |")
    if total["lost"] or total["wrong"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
