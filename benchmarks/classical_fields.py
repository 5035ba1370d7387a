"""Classical methods that align a pair of sections, to compare the network with.

Each takes source and target (1, 1, H, W) in [0, 1] and gives a field (1, 2, H, W) px.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.registration import optical_flow_ilk, optical_flow_tvl1, phase_cross_correlation
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.displacement import identity, smooth, upsample, warp

MARGIN = 16
"""Pixels at the border that do not count where shifts are compared."""
LEVELS = 4
"""Of the direct optimisation."""
Field = Callable[[Tensor, Tensor], Tensor]


def shifted(shape: Sequence[int], shift: Sequence[float]) -> Tensor:
    """The field (1, 2, H, W) that reads at r - shift."""
    field = identity(shape)
    field[0, 0], field[0, 1] = -float(shift[0]), -float(shift[1])
    return field


def phase_correlation(source: Tensor, target: Tensor) -> Tensor:
    """One translation of all pixels, the peak of the phase correlation: (1, 2, H, W)."""
    images = target[0, 0].numpy(), source[0, 0].numpy()
    shift = phase_cross_correlation(*images, upsample_factor=10, normalization="phase")[0]
    return shifted(source.shape[-2:], shift)


def best_shift(source: Tensor, target: Tensor) -> Tensor:
    """The best of three translations: none, and the peaks of phase and of cross-correlation.

    Neighbouring sections differ so much that the phase correlation's peak is often a wrong one.
    """
    images = [windowed(image) for image in (target, source)]
    peak = phase_cross_correlation(*images, upsample_factor=10, normalization=None)[0]
    candidates = [
        identity(source.shape[-2:]),
        phase_correlation(source, target),
        shifted(source.shape[-2:], peak),
    ]
    crop = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    errors = [float((warp(source, field) - target)[crop].square().mean()) for field in candidates]
    return candidates[int(np.argmin(errors))]


def windowed(image: Tensor) -> np.ndarray:
    """(H, W) without its mean, smoothed and faded out to the border."""
    fine = smooth(image, 2.0)[0, 0].numpy()
    fade = np.outer(*(np.hanning(side) for side in fine.shape))
    return np.asarray((fine - fine.mean()) * fade)


def flow(method: Callable[..., Any], begin: Field, **options: Any) -> Field:
    """A shift, then scikit-image's optical flow for the rest."""

    def found(source: Tensor, target: Tensor) -> Tensor:
        start = begin(source, target)
        moved = warp(source, start, "border")
        field = method(target[0, 0].numpy(), moved[0, 0].numpy(), **options)
        return start + torch.from_numpy(np.asarray(field, np.float32))[None]

    return found


def smoothed(method: Field, sigma_px: float = 24) -> Field:
    """A method whose field is smoothed by a Gaussian at the end, as with `align: smoothing_px`."""

    def found(source: Tensor, target: Tensor) -> Tensor:
        return smooth(method(source, target).detach(), sigma_px)

    return found


def still(source: Tensor, target: Tensor) -> Tensor:
    """The field of zero."""
    return identity(source.shape[-2:])


def optimise(source: Tensor, target: Tensor, weight: float = 0.8) -> Tensor:
    """Adam on the field itself, coarse to fine: squared error and |grad|^2, 60 steps a level.

    As the reference of ../shared/specs/seamless.md 9.3.
    """
    factor = 2 ** (LEVELS - 1)
    field = identity([n // factor for n in source.shape[-2:]])
    for level in range(LEVELS - 1, -1, -1):
        a, b = (functional.avg_pool2d(image, 2**level) for image in (source, target))
        field = field.detach().requires_grad_()
        optimizer = torch.optim.Adam([field], lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            change = sum(
                (field.narrow(d, 1, n - 1) - field.narrow(d, 0, n - 1)).square().sum(1).mean()
                for d, n in ((2, field.shape[2]), (3, field.shape[3]))
            )
            loss = (warp(a, field, "border") - b).square().mean() + weight * change
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
        field = field.detach()
        if level:
            field = upsample(field)
    return field


def classical() -> dict[str, Field]:
    """The classical methods.

    A radius of 30 px, a weight of 1.6 and 24 px of smoothing are the best of 7 to 45 px, of 0.2 to
    2.5 and of 8, 16 and 24 px on the training side of benchmarks/alignment.py, on phantoms and
    vnc_nc; the others were not tuned.
    """
    return {
        "phase correlation": phase_correlation,
        "best shift": best_shift,
        "ILK": flow(optical_flow_ilk, still, radius=15),
        "ILK, radius 30": flow(optical_flow_ilk, still, radius=30),
        "ILK, smoothed": smoothed(flow(optical_flow_ilk, still, radius=15)),
        "TV-L1": flow(optical_flow_tvl1, still),
        "best shift + ILK": flow(optical_flow_ilk, best_shift, radius=15),
        "best shift + TV-L1": flow(optical_flow_tvl1, best_shift),
        "direct optimisation": optimise,
        "direct optimisation, weight 1.6": partial(optimise, weight=1.6),
        "direct optimisation, smoothed": smoothed(optimise),
        "direct optimisation, smoother": partial(optimise, weight=4.0),
    }
