"""Alignment losses (similarity, smoothness, consensus, known field) and their pixel weights.

After SEAMLeSS (training/loss.py, train.py) and Mitchell et al. 2019, eq. 1. Fields follow
retrace.displacement. Smoothness takes them in SEAMLeSS's normalised units (`normalised`), in which
the sum of `jacob` does not depend on the resolution. Validity is a separate mask: a pixel of value
0 may be valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.displacement import compose, inside, normalised, rotate_field_180, warp
from retrace.targets.ternary import contract, dilate

BORDER = 5
"""Pixels by which the valid area is eroded before sections are compared (train.py)."""
SOFT_PX = 0.1
"""Softening of the endpoint error, sqrt(d^2 + 0.1^2): it is differentiable at 0."""
NEAR_DEFECT, DEFECT = 0, 1
"""A ternary label (0, 1, 2) above the first is near a defect, above the second in one."""


def _shifted(field: Tensor, axis: int, step: int) -> Tensor:
    """The field at r + step along `axis`, cyclic."""
    return torch.roll(field, -step, axis)


def _interior(field: Tensor) -> Tensor:
    """1 where all four neighbours are in the image, (1, 1, H, W)."""
    ones = field.new_ones(1, 1, *(side - 2 for side in field.shape[-2:]))
    return functional.pad(ones, [1, 1, 1, 1])


def laplacian_map(field: Tensor) -> Tensor:
    """Squared deviation from the mean of the four neighbours, (N, H, W); 0 at the border."""
    neighbours = [_shifted(field, axis, step) for axis in (-2, -1) for step in (-1, 1)]
    deviation = field - torch.stack(neighbours).mean(0)
    return (deviation.square() * _interior(field)).sum(1)


def _central(field: Tensor) -> tuple[Tensor, Tensor]:
    """Differences over two pixels along y and x, each (N, 2, H, W); 0 at the border."""
    down = field[..., 2:, :] - field[..., :-2, :]
    right = field[..., 2:] - field[..., :-2]
    return functional.pad(down, [0, 0, 1, 1]), functional.pad(right, [1, 1])


def jacobian_map(field: Tensor) -> Tensor:
    """Squared centred differences over two pixels, not halved, (N, H, W)."""
    return sum(part.square().sum(1) for part in _central(field))  # type: ignore[return-value]


def centred_jacobian_map(field: Tensor) -> Tensor:
    """`jacobian_map` of differences minus their mean, (N, H, W): 0 for a linear field.

    The mean excludes the border. SEAMLeSS includes the border's zeros, so that a linear field of
    slope c has a rest of 2 c / D.
    """
    down = field[..., 2:, :] - field[..., :-2, :]
    right = field[..., 2:] - field[..., :-2]
    down = functional.pad(down - down.mean((-2, -1), keepdim=True), [0, 0, 1, 1])
    right = functional.pad(right - right.mean((-2, -1), keepdim=True), [1, 1])
    return down.square().sum(1) + right.square().sum(1)


def variation_map(field: Tensor) -> Tensor:
    """Total variation: absolute centred differences over two pixels, (N, H, W)."""
    return sum(part.abs().sum(1) for part in _central(field))  # type: ignore[return-value]


SMOOTHNESS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "lap": laplacian_map,
    "jacob": jacobian_map,
    "cjacob": centred_jacobian_map,
    "tv": variation_map,
}
"""Smoothness penalties by SEAMLeSS's names."""


def similarity_map(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared difference (N, H, W) of two images (N, 1, H, W)."""
    return (prediction - target).square().sum(1)


@dataclass(frozen=True)
class Lambdas:
    """Coefficients of the losses, `lambda1` to `lambda6` of SEAMLeSS and `lambda_known`.

    1: smoothness; 2, 3: its weight near and in defects; 4, 5: the same for similarity; 6:
    consensus; known: endpoint error where the displacement is known.
    """

    smoothness: float = 0.1
    near_smoothness: float = 0.3
    in_smoothness: float = 1e-5
    near_similarity: float = 10.0
    in_similarity: float = 0.0
    consensus: float = 0.0
    known: float = 0.0

    @classmethod
    def of(cls, network: SeamlessNetworkSettings) -> Lambdas:
        """From `lambda1` to `lambda6` and `lambda_known` of a network's settings."""
        names = [*(f"lambda{number}" for number in range(1, 7)), "lambda_known"]
        return cls(*(float(getattr(network, name)) for name in names))


@dataclass(frozen=True)
class Sections:
    """The sources or targets of a batch at the trained level, all (N, 1, H, W) float.

    `image` in [0, 1]; `mask`: ternary defects; `valid`: 1 where imaged; `cutout`: 1 where the
    network's input was blanked.
    """

    image: Tensor
    mask: Tensor
    valid: Tensor
    cutout: Tensor


def warped_labels(mask: Tensor, field: Tensor) -> Tensor:
    """A ternary mask (N, 1, H, W) warped by a field: the largest of the interpolated labels."""
    return warp(mask, field).sub(1e-3).ceil().clamp(min=0)


def warped_valid(valid: Tensor, field: Tensor) -> Tensor:
    """1 where all pixels that a warped pixel interpolates are in the image and valid."""
    whole = warp(valid, field, "border") > 0.999
    return (whole & inside(field, valid.shape[-2:])).float()


def border_mask(source: Sections, target: Sections, field: Tensor, margin: int) -> Tensor:
    """1 where both sections are valid, eroded by `margin` px: (N, 1, H, W)."""
    both = warped_valid(source.valid, field) * target.valid
    return contract(both, margin)


def similarity_weights(
    source: Sections, target: Sections, field: Tensor, border: Tensor, lambdas: Lambdas
) -> Tensor:
    """Weights (N, 1, H, W) in the target's frame: 1; lambda4 near and lambda5 in a defect.

    0 outside `border`, where either input was blanked, and, if lambda5 is 0, close to the target's
    defects (train.py, run_sample).
    """
    label = torch.maximum(warped_labels(source.mask, field), target.mask)
    weights = torch.ones_like(label)
    weights = torch.where(label > NEAR_DEFECT, lambdas.near_similarity, weights)
    in_defect = dilate((label > DEFECT).float(), 2) > 0
    weights = torch.where(in_defect, lambdas.in_similarity, weights)
    cutout = torch.maximum(warped_labels(source.cutout, field), target.cutout) > 0
    kept = border * (~cutout)
    if lambdas.in_similarity == 0:  # pixels hidden in the target cannot be compared
        kept = kept * contract((dilate(target.mask, 1) <= DEFECT).float(), 2)
    return weights * kept


def smoothness_weights(
    source: Sections, target: Sections, field: Tensor, border: Tensor, lambdas: Lambdas, radius: int
) -> Tensor:
    """Weights (N, 1, H, W) in the target's frame: 1; lambda2 near and lambda3 in a source defect.

    Lower weights spread by `radius` px and fade out: root of a mean over (2 radius + 1)^2 px, then
    a mean over 5 x 5 px (train.py, run_sample). No gradient flows through the warp by the field.
    """
    weights = torch.ones_like(source.mask)
    weights = torch.where(source.mask > NEAR_DEFECT, lambdas.near_smoothness, weights)
    weights = torch.where(source.mask > DEFECT, lambdas.in_smoothness, weights)
    weights = contract(weights, radius) * source.valid * target.valid
    weights = box_mean(weights, radius).sqrt()
    weights = torch.where(source.mask > DEFECT, lambdas.in_smoothness, weights)
    return warp(box_mean(weights, 2), field.detach()) * border


def box_mean(image: Tensor, radius: int) -> Tensor:
    """Mean (N, 1, H, W) over those of (2 radius + 1)^2 px that are in the image."""
    size = 2 * radius + 1
    for kernel, pad in (((size, 1), (radius, 0)), ((1, size), (0, radius))):
        image = functional.avg_pool2d(image, kernel, 1, pad, count_include_pad=False)
    return image


def similarity_error(errors: Tensor, weights: Tensor, border: Tensor) -> Tensor:
    """Mean of errors (N, H, W) x weights over the pixels of `border` (N, 1, H, W): a scalar.

    0, without gradient, if nothing is valid.
    """
    return (errors[:, None] * weights).sum() / border.sum().clamp(min=1)


def smoothness_error(field: Tensor, weights: Tensor, kind: str) -> Tensor:
    """Sum over pixels of penalty x weight, averaged over pairs: a scalar.

    `field` (N, 2, H, W) px; `kind`: a name in SMOOTHNESS. At any resolution, `jacob` of a field
    whose one component changes along one axis by g px per px is 16 g^2.
    """
    maps = SMOOTHNESS[kind](normalised(field))
    return (maps[:, None] * weights).sum() / len(field)


def consensus_error(field: Tensor, turned: Tensor, valid: Tensor, valid_turned: Tensor) -> Tensor:
    """Disagreement of the field with that of the sections rotated by 180 degrees: a scalar.

    Mean squared length of the difference over all pixels, in normalised units. `turned`
    (N, 2, H, W) and `valid_turned` (N, 1, H, W) are in the frame of the rotated sections.
    """
    back = rotate_field_180(turned) * valid_turned.flip(-2, -1)
    return normalised(field * valid - back).square().sum(1).mean()


def known_field_error(
    field: Tensor, source: Tensor, target: Tensor, counted: Tensor, *, squared: bool = False
) -> Tensor:
    """Endpoint error of `field` (N, 2, H, W) px where the true displacement is known: a scalar.

    `source`, `target` (N, 2, H, W) px: the displacements applied to either section. Mean over
    `counted` (N, 1, H, W) of the error in px of the field's grid; with `squared`, of its square in
    normalised units, as in SEAMLeSS's run_supervised (train.py).
    """
    difference = compose(source, field) - target
    if squared:
        errors = normalised(difference).square().sum(1, keepdim=True)
    else:
        errors = (difference.square().sum(1, keepdim=True) + SOFT_PX**2).sqrt()
    return (errors * counted).sum() / counted.sum().clamp(min=1)
