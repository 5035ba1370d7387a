"""Losses of alignment: similarity, smoothness, consensus, a known field; and their weights.

After the README-era program of SEAMLeSS (training/loss.py, train.py) and Mitchell et al. 2019,
eq. 1. Fields follow retrace.fields; smoothness takes them in SEAMLeSS' normalised units
(`normalised`), in which the sum of `jacob` does not depend on the resolution. Validity is a mask of
its own: a pixel whose value is 0 is a pixel like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from retrace.displacement import compose, inside, normalised, rotate_field, warp
from retrace.targets.ternary import contract, dilate

BORDER = 5
"""Pixels taken off the border of what is valid before sections are compared (train.py)."""
SOFT_PX = 0.1
"""Below this the endpoint error is squared, so that it can be differentiated at 0."""
NEAR_DEFECT, DEFECT = 0, 1
"""Labels above these are near a defect or in it: ternary masks hold 0, 1 and 2."""


def _shifted(field: Tensor, axis: int, step: int) -> Tensor:
    """field at r + step along `axis`, 0 where that leaves the image."""
    return torch.roll(field, -step, axis)


def _interior(field: Tensor) -> Tensor:
    """1 where the four neighbours are in the image, (1, 1, H, W)."""
    ones = field.new_ones(1, 1, *(side - 2 for side in field.shape[-2:]))
    return functional.pad(ones, [1, 1, 1, 1])


def laplacian_map(field: Tensor) -> Tensor:
    """Squared deviation from the mean of the four neighbours, (N, H, W); 0 at the border."""
    neighbours = [_shifted(field, axis, step) for axis in (-2, -1) for step in (-1, 1)]
    deviation = field - torch.stack(neighbours).mean(0)
    return (deviation.square() * _interior(field)).sum(1)


def _central(field: Tensor) -> tuple[Tensor, Tensor]:
    """Differences over two pixels along y and x, (N, 2, H, W); 0 where one leaves the image."""
    down = field[..., 2:, :] - field[..., :-2, :]
    right = field[..., 2:] - field[..., :-2]
    return functional.pad(down, [0, 0, 1, 1]), functional.pad(right, [1, 1])


def jacobian_map(field: Tensor) -> Tensor:
    """Squared centred differences over two pixels, not halved, (N, H, W)."""
    return sum(part.square().sum(1) for part in _central(field))  # type: ignore[return-value]


def centred_jacobian_map(field: Tensor) -> Tensor:
    """The same after each difference has lost its mean: a linear field costs nothing, (N, H, W).

    The mean is over the pixels that have both neighbours; SEAMLeSS took the border's zeros with
    them, so that a linear field left 2 c / D.
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
"""Penalties by SEAMLeSS' names."""


def similarity_map(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared difference of two images (N, 1, H, W), (N, H, W)."""
    return (prediction - target).square().sum(1)


@dataclass(frozen=True)
class Lambdas:
    """Coefficients by SEAMLeSS' names.

    1: smoothness; 2 and 3: its weight near a defect and in it; 4 and 5: the same for similarity;
    6: consensus; known: the endpoint error where the displacement is known.
    """

    smoothness: float = 0.1
    near_smoothness: float = 0.3
    in_smoothness: float = 1e-5
    near_similarity: float = 10.0
    in_similarity: float = 0.0
    consensus: float = 0.0
    known: float = 0.0

    @classmethod
    def of(cls, network: Mapping[str, float]) -> Lambdas:
        """From `lambda1` to `lambda6` and `lambda_known` of a network's settings."""
        names = [*(f"lambda{number}" for number in range(1, 7)), "lambda_known"]
        return cls(*(float(network[name]) for name in names))


@dataclass(frozen=True)
class Sections:
    """One side of a pair at the level that is trained: `image` (N, 1, H, W) in [0, 1], `mask` its
    ternary defects, `valid` 1 where there is an image, `cutout` 1 where what the network sees was
    blanked; all (N, 1, H, W) float."""

    image: Tensor
    mask: Tensor
    valid: Tensor
    cutout: Tensor


def warped_labels(mask: Tensor, field: Tensor) -> Tensor:
    """A ternary mask read through a field: the greatest label of those that take part."""
    return warp(mask, field).sub(1e-3).ceil().clamp(min=0)


def warped_valid(valid: Tensor, field: Tensor) -> Tensor:
    """1 where all that a pixel reads is in the image and valid."""
    whole = warp(valid, field, "border") > 0.999
    return (whole & inside(field, valid.shape[-2:])).float()


def border_mask(source: Sections, target: Sections, field: Tensor, margin: int) -> Tensor:
    """1 where both sections are valid, `margin` px away from where not: (N, 1, H, W)."""
    both = warped_valid(source.valid, field) * target.valid
    return contract(both, margin)


def similarity_weights(
    source: Sections, target: Sections, field: Tensor, border: Tensor, lambdas: Lambdas
) -> Tensor:
    """(N, 1, H, W) in the target's frame: 1, near a defect lambda4, in one lambda5, else 0.

    0 as well where either image was blanked for the network, and close to the target's defects
    (train.py, run_sample).
    """
    label = torch.maximum(warped_labels(source.mask, field), target.mask)
    weights = torch.ones_like(label)
    weights = torch.where(label > NEAR_DEFECT, lambdas.near_similarity, weights)
    in_defect = dilate((label > DEFECT).float(), 2) > 0
    weights = torch.where(in_defect, lambdas.in_similarity, weights)
    cutout = torch.maximum(warped_labels(source.cutout, field), target.cutout) > 0
    kept = border * (~cutout)
    if lambdas.in_similarity == 0:  # what the target hides cannot be compared
        kept = kept * contract((dilate(target.mask, 1) <= DEFECT).float(), 2)
    return weights * kept


def smoothness_weights(
    source: Sections, target: Sections, field: Tensor, border: Tensor, lambdas: Lambdas, radius: int
) -> Tensor:
    """(N, 1, H, W) in the target's frame: 1, near a defect of the source lambda2, in one lambda3.

    Relaxed weights spread by `radius` px, then fade: mean over (2 radius + 1)^2 px and its root,
    and a mean over 5 x 5 px (train.py, run_sample). The field takes no gradient through it.
    """
    weights = torch.ones_like(source.mask)
    weights = torch.where(source.mask > NEAR_DEFECT, lambdas.near_smoothness, weights)
    weights = torch.where(source.mask > DEFECT, lambdas.in_smoothness, weights)
    weights = contract(weights, radius) * source.valid * target.valid
    weights = box_mean(weights, radius).sqrt()
    weights = torch.where(source.mask > DEFECT, lambdas.in_smoothness, weights)
    return warp(box_mean(weights, 2), field.detach()) * border


def box_mean(image: Tensor, radius: int) -> Tensor:
    """The mean over (2 radius + 1)^2 px, of those in the image; (N, 1, H, W)."""
    size = 2 * radius + 1
    for kernel, pad in (((size, 1), (radius, 0)), ((1, size), (0, radius))):
        image = functional.avg_pool2d(image, kernel, 1, pad, count_include_pad=False)
    return image


def similarity_error(errors: Tensor, weights: Tensor, border: Tensor) -> Tensor:
    """Mean of errors (N, H, W) x weights over the pixels of `border` (N, 1, H, W): a scalar.

    0, with no gradient, where nothing is valid.
    """
    return (errors[:, None] * weights).sum() / border.sum().clamp(min=1)


def smoothness_error(field: Tensor, weights: Tensor, kind: str) -> Tensor:
    """Sum over the pixels of penalty x weight, the mean of the pairs: a scalar.

    `field` (N, 2, H, W) px. Equals 16 g^2 for `jacob` of a field that changes by g px a px in one
    component along one axis, whatever the resolution.
    """
    maps = SMOOTHNESS[kind](normalised(field))
    return (maps[:, None] * weights).sum() / len(field)


def consensus_error(field: Tensor, turned: Tensor, valid: Tensor, valid_turned: Tensor) -> Tensor:
    """How far the field and that of the sections turned by 180 degrees disagree: a scalar.

    `turned` (N, 2, H, W) and `valid_turned` (N, 1, H, W) as found on the turned sections. Mean over
    all pixels of the squared length of the difference, normalised units.
    """
    back = rotate_field(turned) * valid_turned.flip(-2, -1)
    return normalised(field * valid - back).square().sum(1).mean()


def known_field_error(
    field: Tensor, source: Tensor, target: Tensor, counted: Tensor, *, squared: bool = False
) -> Tensor:
    """How far `field` is from where the target shows the same tissue, a scalar.

    `source` and `target` (N, 2, H, W) px: what was applied to either, as retrace.evaluation takes
    it. Mean over `counted` (N, 1, H, W) of the endpoint error in px of the field's grid; `squared`:
    of its square in normalised units, as train.py's run_supervised has it.
    """
    left = compose(source, field) - target
    if squared:
        errors = normalised(left).square().sum(1, keepdim=True)
    else:
        errors = (left.square().sum(1, keepdim=True) + SOFT_PX**2).sqrt()
    return (errors * counted).sum() / counted.sum().clamp(min=1)
