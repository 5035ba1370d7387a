"""Effect of masks at a crack: fields fitted with and without them, on known displacements.

    python benchmarks/cracks.py --picture docs/images/crack.png

Pairs of neighbouring generated sections; one side of the second is moved away by a crack. The field
itself is fitted (Adam, coarse to fine) to SEAMLeSS's loss, similarity and smoothness with their
lambdas, once with ternary masks and once as if there were no defect; nothing else differs. Printed:
mean endpoint error within NEAR_PX of the crack, on the side that moved and on the side that did
not, px; pixels folded outside the crack.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.alignment.losses import (
    Lambdas,
    Sections,
    border_mask,
    similarity_error,
    similarity_map,
    similarity_weights,
    smoothness_error,
    smoothness_weights,
    warped_labels,
)
from retrace.alignment.metrics import field_facts, remaining_displacement
from retrace.alignment.prepare import prepare_sections, valid_mask  # noqa: E402
from retrace.augment.artificial_defects import apply_defect, draw_crack
from retrace.displacement import identity, length, upsample, warp
from retrace.files import atomic_write
from retrace.synthetic.neurites import generate_neurites
from retrace.targets.ternary import INSIDE, dilate, ternary  # noqa: E402
from retrace.viewing.displacement_pictures import field_colours, overlay, png_bytes

LAMBDAS = Lambdas(0.3, 0.04, 0.0, 5.0, 0.0)
"""lambda2 to lambda5 as SEAMLeSS's README has them; lambda1 for a field that is fitted directly."""
MASK_PX, RADIUS_PX = 16, 12
"""Radius of the label 1 around a crack, and of the smoothing of the weights."""
NEAR_PX, MARGIN = 12, 24
LEVELS, STEPS = 4, 100
CONTRAST_RADIUS_PX = 32


@dataclass(frozen=True)
class Pair:
    """A cracked section and the one before it, the true displacement, and where the crack is."""

    source: Sections
    target: Sections
    applied: Tensor
    shown: Tensor


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--width-px", type=float, nargs=2, default=(5, 12), help="of the cracks")
    parser.add_argument("--picture", type=Path, help="PNG of the first pair")
    return parser.parse_args(argv)


def make_pair(seed: int, side: int, width_px: tuple[float, float]) -> Pair:
    """Neighbouring sections (1, 1, side, side), the second with a crack."""
    raw, _ = generate_neurites((2, side, side), (40, 8, 8), seed)
    images = torch.from_numpy(raw.astype(np.float32) / 255)
    crack = draw_crack(np.random.default_rng((seed, 0)), (side, side), width_px)
    cracked, labels = apply_defect(images[1], torch.zeros(side, side), crack)
    mask = ternary((labels == INSIDE).to(torch.uint8), MASK_PX).float()
    source, target = section(cracked, mask), section(images[0], torch.zeros_like(mask))
    return Pair(source, target, crack.displacement[None], cracked[None, None])


def section(image: Tensor, mask: Tensor) -> Sections:
    """An image (H, W) with even contrast and its mask."""
    valid = valid_mask(image)
    even, _ = prepare_sections(image, valid, radius_px=CONTRAST_RADIUS_PX, fill=0.5)
    parts = (even, mask, valid.float(), torch.zeros_like(mask))
    return Sections(*(part[None, None] for part in parts))


def unmasked(side: Sections) -> Sections:
    return Sections(side.image, torch.zeros_like(side.mask), side.valid, side.cutout)


def at_level(side: Sections, level: int) -> Sections:
    factor = 2**level
    return Sections(
        functional.avg_pool2d(side.image, factor),
        functional.max_pool2d(side.mask, factor),
        (functional.avg_pool2d(side.valid, factor) > 0.99).float(),
        functional.max_pool2d(side.cutout, factor),
    )


def loss(source: Sections, target: Sections, field: Tensor, level: int) -> Tensor:
    """SEAMLeSS's: weighted similarity and lambda1 x weighted smoothness."""
    border = border_mask(source, target, field, max(1, 5 >> level))
    weights = similarity_weights(source, target, field, border, LAMBDAS)
    radius = max(1, RADIUS_PX >> level)
    smooth = smoothness_weights(source, target, field, border, LAMBDAS, radius)
    errors = similarity_map(warp(source.image, field), target.image)
    similarity = similarity_error(errors, weights, border)
    return similarity + LAMBDAS.smoothness * smoothness_error(field, smooth, "jacob")


def fit(source: Sections, target: Sections) -> Tensor:
    """The field (1, 2, H, W) with the least loss that Adam finds, coarse to fine."""
    shape = source.image.shape[-2:]
    field = identity([n // 2 ** (LEVELS - 1) for n in shape])
    for level in range(LEVELS - 1, -1, -1):
        sides = at_level(source, level), at_level(target, level)
        field = field.detach().requires_grad_()
        optimizer = torch.optim.Adam([field], lr=0.1)
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(*sides, field, level).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        field = field.detach()
        if level:
            field = upsample(field)
    return field


def score(field: Tensor, pair: Pair) -> dict[str, float]:
    """Mean endpoint errors, px, by place, and folds outside the crack; nothing is counted where
    the crack itself is read, nor at the border."""
    errors = length(remaining_displacement(field, pair.applied))[0]
    crack = warped_labels((pair.source.mask == INSIDE).float(), field) > 0
    counted = torch.zeros_like(errors, dtype=torch.bool)
    counted[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    counted &= ~crack[0, 0]
    # where the target shows tissue from one side of the seam or the other
    still = length(pair.applied)[0] == 0
    seam = dilate(still.float(), 1) + dilate((~still).float(), 1) == 2
    near = dilate(seam.float(), NEAR_PX) > 0
    places = {"near": near, "moved": ~near & ~still, "still": ~near & still}
    errors_px = {name: float(errors[place & counted].mean()) for name, place in places.items()}
    open_ = dilate((pair.source.mask == INSIDE).float(), NEAR_PX)
    return errors_px | {"folded": field_facts(field, open_).folded_outside}


def picture(pair: Pair, fields: dict[str, Tensor]) -> bytes:
    """A PNG: the pair before, and for each field the section read through it and its colours."""
    figure = Figure(figsize=(3 * (1 + 2 * len(fields)), 3.2), dpi=90, layout="constrained")
    axes = figure.subplots(1, 1 + 2 * len(fields))
    target = pair.target.image
    panels = [("before (red), target (green)", overlay(pair.source.image, target))]
    for name, field in fields.items():
        panels += [
            (f"after, {name}", overlay(warp(pair.source.image, field), target)),
            (f"field, {name}", field_colours(field, float(length(pair.applied).max()))),
        ]
    for axis, (title, shown) in zip(axes, panels, strict=True):
        axis.imshow(shown)
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    return png_bytes(figure)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, float]]] = {
        "no field": [],
        "with masks": [],
        "without masks": [],
    }
    for seed in range(args.pairs):
        pair = make_pair(seed, args.side, tuple(args.width_px))
        fields = {
            "with masks": fit(pair.source, pair.target),
            "without masks": fit(unmasked(pair.source), pair.target),
        }
        for name, field in {"no field": identity(pair.applied.shape[-2:]), **fields}.items():
            rows[name].append(score(field, pair))
        if seed == 0 and args.picture:
            atomic_write(args.picture, picture(pair, fields))
    print(f"| {args.pairs} pairs | at the crack, px | moved side, px | other side, px | folded |")
    print("|---|---|---|---|---|")
    for name, scores in rows.items():
        near, moved, still, folded = (
            float(np.nanmean([row[key] for row in scores]))
            for key in ("near", "moved", "still", "folded")
        )
        print(f"| {name} | {near:.2f} | {moved:.2f} | {still:.2f} | {100 * folded:.3f} % |")


if __name__ == "__main__":
    main()
