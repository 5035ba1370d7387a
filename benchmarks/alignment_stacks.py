"""The distorted stacks of the benchmarks of alignment: generated neurites, and real sections.

Each section is moved and warped separately by a known field. Kinds of sections:

* `phantom`: generated, 8 nm pixels.
* `vnc`: ../shared/data/vnc_nc, cut and imaged one by one, averaged over 4 x 4 px to 18.4 nm. The
  registration that they were shipped with serves as ground truth; its error is unknown.
* `fib25`: every fourth section (40 nm) of ../shared/data/fib25/training_sample1_raw.h5, 10 nm
  pixels. The block face was imaged, so sections were never deformed; nothing is trained on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from torch import Tensor

from retrace.alignment.stack_files import Stack
from retrace.synthetic.distorted_sections import Distortion, distort_sections, phantom_stack

SHARED = Path("../shared/data")
POOL = 4
"""Pixels of vnc_nc that are averaged along y and x."""
FIB_STEP = 4
"""Sections of the FIB-25 sample from one to the next that is used."""
FIB_STARTS = (0, 80, 160)
"""First sections of the stacks from the FIB-25 sample, which take turns."""
TRAINED, HELD_OUT = slice(0, 6), slice(6, 10)
CHOOSING = slice(0, 4), slice(3, 6)
"""Sections to train on and to score with --choose."""
TRAINABLE = ("vnc", "phantom")
DATA = (*TRAINABLE, "fib25")
VOXEL_NM = {"vnc": (50, 18, 18), "phantom": (40, 8, 8), "fib25": (40, 10, 10)}


def vnc_sections() -> np.ndarray:
    """The real sections (10, 256, 256) uint8, 18.4 nm."""
    with h5py.File(SHARED / "vnc_nc/stack1_z00-09.h5") as file:
        raw = file["raw"][()].astype(np.float32)
    depth, height, width = raw.shape
    parts = raw.reshape(depth, height // POOL, POOL, width // POOL, POOL)
    return np.asarray(parts.mean((2, 4)).round().astype(np.uint8))


def fib25_sections(number: int) -> np.ndarray:
    """Sections (6, 250, 250) uint8 of the FIB-25 sample, 10 nm, from one of FIB_STARTS."""
    start = FIB_STARTS[number % len(FIB_STARTS)]
    with h5py.File(SHARED / "fib25/training_sample1_raw.h5") as file:
        return np.asarray(file["raw"][start : start + FIB_STEP * TRAINED.stop : FIB_STEP])


def make_stacks(args: argparse.Namespace, seed: int) -> tuple[list[Stack], list[Stack]]:
    """Distorted stacks to train on and to score; those of two seeds have nothing in common."""
    trained, scored = CHOOSING if args.choose else (TRAINED, HELD_OUT)
    begin = 1000 * seed + (500 if args.choose else 100)
    train = [
        stack
        for data in (TRAINABLE if args.mixed else [args.data])
        for stack in distorted(args, data, trained, range(1000 * seed, 1000 * seed + args.versions))
    ]
    return train, distorted(args, args.data, scored, range(begin, begin + args.tests))


def distorted(
    args: argparse.Namespace, data: str, sections: slice, seeds: Iterable[int]
) -> list[Stack]:
    """A stack for each seed: `sections` of vnc_nc, others of FIB-25, or a phantom of its own."""
    distortion = Distortion(args.jitter, args.warp, 64, contrast=0.2)
    if data == "vnc":
        raw = vnc_sections()[sections]
        return [distort_sections(raw, n, distortion, f"vnc_{n}") for n in seeds]
    if data == "fib25":
        parts = ((n, fib25_sections(k)) for k, n in enumerate(seeds))
        return [distort_sections(raw, n, distortion, f"fib25_{n}") for n, raw in parts]
    depth = TRAINED.stop
    if args.mixed and args.choose:  # stacks that are trained on together have the same depth
        depth = CHOOSING[0].stop
    return [phantom_stack((depth, args.side, args.side), n, distortion) for n in seeds]


@dataclass(frozen=True)
class Pair:
    """Two held-out sections (1, 1, H, W) and their displacements (1, 2, H, W) px."""

    source: Tensor
    target: Tensor
    source_field: Tensor
    target_field: Tensor


def cut(stack: Stack, unit: int) -> Stack:
    """A stack whose sides are multiples of `unit`."""
    height, width = (n - n % unit for n in stack.images.shape[1:])
    assert stack.fields is not None
    return Stack(
        stack.name,
        stack.images[:, :height, :width],
        stack.masks[:, :height, :width],
        stack.fields[..., :height, :width],
    )


def pairs_of(stacks: Sequence[Stack]) -> list[Pair]:
    """All neighbours."""
    pairs = []
    for stack in stacks:
        assert stack.fields is not None
        images, fields = stack.images[:, None, None], stack.fields[:, None]
        pairs += [
            Pair(images[z + 1], images[z], fields[z + 1], fields[z])
            for z in range(len(stack.images) - 1)
        ]
    return pairs
