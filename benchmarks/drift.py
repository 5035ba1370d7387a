"""Drift of phantoms with known displacements, aligned with and without correction of drift.

Kinds of phantoms: `plain` (each section moved and warped), `defects` (also cracks, folds and
missing areas, as in the dataset phantom_sections), and `damaged` (`plain`, one section is noise).
Drift is what evaluation.json reports: the length of a section's mean displacement from the first
one; here the greatest of a stack. Both ways align the same stacks in the same process.

python benchmarks/drift.py --model results/phantom_sections/seamless_small/model.safetensors
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.alignment.aligned_stack import ALIGNED, FIELD, AlignedStack
from retrace.alignment.aligner import Aligner, AlignmentPlan
from retrace.alignment.drift import DriftCorrector
from retrace.alignment.scoring import KnownDistortion, Scorer
from retrace.alignment.stack_files import Stack
from retrace.checkpoints.safetensors import load_model
from retrace.config.network_settings import DatasetTraits
from retrace.config.networks import network_content, resolved
from retrace.networks import build_network  # noqa: E402
from retrace.networks.seamless import Seamless  # noqa: E402
from retrace.storage.volumes import Volume  # noqa: E402
from retrace.synthetic.distorted_sections import Distortion, phantom_stack  # noqa: E402

VOXEL_NM = (40, 8, 8)
PLAIN = Distortion(jitter_px=3, warp_px=2.5, spacing_px=48, near_px=12)
KINDS = {
    "plain": PLAIN,
    "defects": replace(PLAIN, crack=0.15, fold=0.15, missing=0.15),
    "damaged": PLAIN,
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="seamless_small")
    parser.add_argument("--model", type=Path, help="its weights; without, it is untrained")
    parser.add_argument("--sections", type=int, default=24)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[301, 302, 303, 304, 305])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Phantom:
    """Sections (Z, Y, X) with their distortion."""

    sections: Volume
    known: KnownDistortion


def damaged(stack: Stack, seed: int) -> Stack:
    """The stack with noise, of the same mean and deviation, instead of its middle section."""
    images, masks = stack.images.clone(), stack.masks.clone()
    z = len(images) // 2
    random = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 1, *images.shape[1:], generator=random)
    noise = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)[0, 0]
    noise = (noise - noise.mean()) / noise.std() * images[z].std() + images[z].mean()
    images[z], masks[z] = noise.clamp(1 / 255, 1), 2
    return replace(stack, images=images, masks=masks)


def phantom(kind: str, sections: int, side: int, seed: int) -> Phantom:
    """A phantom of a kind; defects count for the scores as in the workflow."""
    stack = phantom_stack((sections, side, side), seed, KINDS[kind], VOXEL_NM)
    if kind == "damaged":
        stack = damaged(stack, seed)
    assert stack.fields is not None
    images = stack.images.mul(255).round().to(torch.uint8).numpy()

    def volume(array: np.ndarray, name: str) -> Volume:
        return Volume(array, VOXEL_NM, (0, 0, 0), name)

    fields = np.ascontiguousarray(stack.fields.numpy().swapaxes(0, 1))
    known = KnownDistortion(volume(fields, "fields"), volume(stack.masks.numpy(), "masks"), 1)
    return Phantom(volume(images, "sections"), known)


def greatest_drift(phantom: Phantom, stack: AlignedStack, after: bool) -> float:
    """Greatest drift of a section from the first, px."""
    scorer = Scorer(phantom.sections, stack.volume(ALIGNED), stack.volume(FIELD), phantom.known)
    drifts = [scorer.drift(z, after) for z in range(1, phantom.sections.box.shape[0])]
    return max(drift for drift in drifts if drift is not None)


class Comparison:
    """Aligns stacks with a network, with and without the correction of drift."""

    def __init__(self, name: str, model: Path | None) -> None:
        self.network = resolved(network_content(name), DatasetTraits(), name)
        self.module: Seamless = build_network(self.network)
        if model is not None:
            load_model(model, self.module, self.network)
        self.module.eval()

    def aligner(self, plan: AlignmentPlan) -> Aligner:
        radius_px = self.network.contrast.equalised_radius_px
        fill = self.network.input.mean
        device = torch.device("cpu")
        return Aligner(self.module, plan, device, radius_px=radius_px, fill=fill)

    def aligned(
        self, phantom: Phantom, folder: Path, *, correct: bool
    ) -> tuple[AlignedStack, float]:
        """The aligned stack and seconds per section; `correct`: with the settings as shipped."""
        plan = AlignmentPlan.of(self.network.align)
        begin = time.monotonic()
        stack = AlignedStack(folder / "a.zarr", folder / "a", phantom.sections, None)
        if correct:
            chained = AlignedStack(folder / "c.zarr", folder / "c", phantom.sections, None)
            self.aligner(plan).run(chained)
            DriftCorrector(chained, plan.drift_reach, plan.tile).run(stack)
        else:
            self.aligner(replace(plan, realign_below=-1.0)).run(stack)
        return stack, (time.monotonic() - begin) / phantom.sections.box.shape[0]


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(1)
    comparison = Comparison(args.network, args.model)
    for kind in args.kinds:
        rows = []
        for seed in args.seeds:
            example = phantom(kind, args.sections, args.side, seed)
            with tempfile.TemporaryDirectory() as folder:
                chained, slow = comparison.aligned(example, Path(folder) / "0", correct=False)
                corrected, slower = comparison.aligned(example, Path(folder) / "1", correct=True)
                before = greatest_drift(example, chained, after=False)
                drifts = [greatest_drift(example, stack, True) for stack in (chained, corrected)]
            rows.append((before, *drifts, drifts[0] / before, drifts[1] / before, slow, slower))
            print(f"{kind} {seed}: " + row_text(rows[-1]), flush=True)
        table = np.array(rows)
        print(f"{kind}, mean: " + row_text(table.mean(0)), flush=True)
        print(f"{kind}, standard deviation: " + row_text(table.std(0, ddof=1)), flush=True)


def row_text(row: Sequence[float]) -> str:
    """One line of the table."""
    before, chained, corrected, ratio, corrected_ratio, slow, slower = row
    return (
        f"drift before {before:.2f} px, chained {chained:.2f} ({ratio:.2f}), corrected "
        f"{corrected:.2f} ({corrected_ratio:.2f}); s/section {slow:.2f}, {slower:.2f}"
    )


if __name__ == "__main__":
    main()
