"""Augmentation of stacks of sections, as in SEAMLeSS.

`augment_stack` moves, rotates and scales sections, their masks and known displacements; its
result is what the network learns to align. `augment_input` corrupts a section for the network's
input only; the loss compares the uncorrupted one. Source: SEAMLeSS, aug.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.augment.artificial_defects import pixel_grid, pull, pull_labels
from retrace.config.seamless_network import StackAugment

MIN_CUT_PX = 32
"""Smallest width of a blanked border, unless the section is smaller than 5 times that."""
JITTER_POWER, JITTER_FACTOR = 2, 4
"""Arguments of `weighted_draw` for translations: the farthest is 4 times as likely as 1 px."""
PLACE_POWER, PLACE_FACTOR = 1, 10
"""Arguments of `weighted_draw` for the distance of a rectangle from the middle."""
PERIODS_MEAN = 17.3
"""Mean of the exponential distribution of a gradient's periods; half have 12 or fewer."""
GRADIENT, TILING = 0.3, 0.5
"""Largest amplitudes."""
DARKEST = 1 / 255
"""Lower bound of imaged pixels; 0 means that a pixel was not imaged."""


def weighted_draw(
    rng: np.random.Generator, most: int, power: float, factor: float, size: int = 1
) -> np.ndarray:
    """Random integers (size,) from 1 to `most`, k with probability proportional to k^power + c.

    c makes `most` `factor` times as likely as 1. All 0 if `most` is 0.
    """
    if most < 2:
        return np.full(size, most)
    k = np.arange(1, most + 1, dtype=float) ** power
    c = max(0.0, (k[-1] - factor * k[0]) / (factor - 1))
    weight = k + c
    return rng.choice(np.arange(1, most + 1), size, p=weight / weight.sum())


def largest_jitter(max_displacement: float) -> int:
    """Pixels per axis such that two sections moved in opposite directions are at most
    `max_displacement` px apart."""
    return int(max_displacement / (2 * math.sqrt(2)))


def rotation_matrix(angle: float, scale: float = 1.0) -> np.ndarray:
    """The matrix (2, 2) of y and x that rotates by `angle` (rad) and divides by `scale`."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return np.array([[cos, sin], [-sin, cos]])


@dataclass(frozen=True)
class StackWarp:
    """A map per section: pixel p is read at centre + matrix (p - centre) + shift + warp."""

    matrices: np.ndarray
    """(S, 2, 2)."""
    shifts: np.ndarray
    """(S, 2) px."""
    cuts: np.ndarray
    """(S, 4) px that are blanked at the top, bottom, left and right."""
    warps: np.ndarray | None = None
    """(S, 2, h, w) px on a coarse grid over the section, with bicubic interpolation; or none."""

    def displacement(self, section: int, shape: tuple[int, int], device: torch.device) -> Tensor:
        """Displacement field (2, H, W) px of a section of `shape` (H, W)."""
        grid = pixel_grid(shape, device)
        centre = torch.tensor([(n - 1) / 2 for n in shape], device=device)[:, None, None]
        matrix = torch.from_numpy(self.matrices[section]).to(device, torch.float32)
        shift = torch.from_numpy(self.shifts[section]).to(device, torch.float32)
        rotated = torch.einsum("ab,bhw->ahw", matrix, grid - centre)
        moved = rotated + centre + shift[:, None, None] - grid
        if self.warps is None:
            return moved
        coarse = torch.from_numpy(self.warps[section]).to(device)[None]
        return moved + functional.interpolate(coarse, shape, mode="bicubic", align_corners=True)[0]

    def uncut(self, section: int, shape: tuple[int, int], device: torch.device) -> Tensor:
        """(H, W) bool: the pixels of a section of `shape` that are not blanked."""
        kept = torch.zeros(shape, dtype=torch.bool, device=device)
        top, bottom, left, right = self.cuts[section].tolist()
        kept[top : shape[0] - bottom, left : shape[1] - right] = True
        return kept


def draw_stack_warp(
    rng: np.random.Generator, sections: int, side: int, settings: StackAugment
) -> StackWarp:
    """Draws the warp of a stack of sections whose shorter side is `side` pixels."""
    moves, borders, bends = rng.spawn(3)
    matrices, shifts = _draw_moves(moves, sections, settings)
    cuts = np.zeros((sections, 4), int)
    if settings.cut:
        strips = borders.integers(min(MIN_CUT_PX, side // 5), side // 5 + 1, (sections, 2))
        ends = borders.integers(0, 2, (sections, 2))
        for axis in (0, 1):
            cuts[np.arange(sections), 2 * axis + ends[:, axis]] = strips[:, axis]
    warps = None
    if settings.warp_px:
        assert settings.spacing_px is not None
        warps = _draw_warps(bends, sections, side, settings.warp_px, settings.spacing_px)
    return StackWarp(matrices, shifts, cuts, warps)


def _draw_warps(
    rng: np.random.Generator, sections: int, side: int, warp_px: float, spacing_px: float
) -> np.ndarray:
    """Displacements (S, 2, n, n) float32 px of the control points of each section."""
    points = max(2, round(side / spacing_px) + 1)
    return rng.uniform(-warp_px, warp_px, (sections, 2, points, points)).astype(np.float32)


def _draw_moves(
    rng: np.random.Generator, sections: int, settings: StackAugment
) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (S, 2, 2) and shifts (S, 2) px: rotate the stack, move sections, rotate it again."""
    first, second = np.eye(2), np.eye(2)
    if rng.random() < settings.turn:
        first = rotation_matrix(rng.uniform(0, 2 * math.pi), rng.normal(1, settings.scale))
        second = rotation_matrix(rng.uniform(0, 2 * math.pi))
    assert settings.jitter_px is not None, "a resolved network has a number"
    far = largest_jitter(settings.jitter_px)
    size = weighted_draw(rng, far, JITTER_POWER, JITTER_FACTOR, 2 * sections)
    steps = (size * rng.choice((-1, 1), 2 * sections)).reshape(sections, 2)
    moved = rng.random(sections) < 0.5
    angles = rng.normal(0, settings.rotation, sections) * moved
    scales = np.where(moved, rng.normal(1, settings.scale, sections), 1)
    own = np.stack([rotation_matrix(a, s) for a, s in zip(angles, scales, strict=True)])
    # Backward maps compose in reverse: pixel p of the result was at `second` p, and so on.
    matrices = first @ own @ second
    shifts = (first @ (steps * moved[:, None])[:, :, None])[:, :, 0]
    return matrices, shifts


def augment_stack(
    images: Tensor,
    masks: Tensor,
    valid: Tensor,
    known: Tensor,
    rng: np.random.Generator,
    settings: StackAugment,
    crop: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A stack and what belongs to it, all moved by the same random map (SEAMLeSS, aug_stacks).

    Takes and returns `images` (S, H, W) in [0, 1]; `masks` and `valid` (S, H, W), sampled at the
    nearest pixel; `known` (S, 2, H, W) px, displacements, to which the map is added. Images and
    `valid` are 0 outside the section and in blanked borders; masks are not blanked. `crop`: side of
    a random square that all are cropped to, the same for all sections.
    """
    sections, shape = len(images), (images.shape[1], images.shape[2])
    warp = draw_stack_warp(rng, sections, min(shape), settings)
    window = _draw_window(rng, shape, crop)
    corner = (window[0].start, window[1].start)
    moved = []
    for z in range(sections):
        move = warp.displacement(z, shape, images.device)[(slice(None), *window)]
        kept = warp.uncut(z, shape, images.device)[window]
        is_valid = pull_labels(valid[z], move, corner) * kept
        image = pull(images[z], move, corner, "border") * (is_valid > 0)
        field = move + torch.stack([pull(part, move, corner, "border") for part in known[z]])
        moved.append((image, pull_labels(masks[z], move, corner), is_valid, field))
    image, mask, is_valid, field = (torch.stack(parts) for parts in zip(*moved, strict=True))
    return image, mask, is_valid, field


def _draw_window(
    rng: np.random.Generator, shape: tuple[int, int], crop: int | None
) -> tuple[slice, slice]:
    """A random square of side `crop` in an image of `shape` (H, W); all of it without `crop`."""
    edges = [n if crop is None else min(crop, n) for n in shape]
    y, x = (int(rng.integers(n - edge + 1)) for n, edge in zip(shape, edges, strict=True))
    return slice(y, y + edges[0]), slice(x, x + edges[1])


# ---------------------------------------------------------------- the network's input


@dataclass(frozen=True)
class Rectangle:
    """A rectangle that is rotated, moved, and rotated again about the middle of a section."""

    half: tuple[float, float]
    """Half its sides, px (y, x)."""
    shift: tuple[float, float]
    """px (y, x)."""
    angles: tuple[float, float]
    """Radians."""

    def inside(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        """(H, W) bool: the pixels of a section of `shape` that it covers."""
        outer, inner = (
            torch.from_numpy(rotation_matrix(a)).to(device, torch.float32) for a in self.angles
        )
        centre = torch.tensor([(n - 1) / 2 for n in shape], device=device)[:, None, None]
        shift = torch.tensor(self.shift, device=device)[:, None, None]
        place = torch.einsum("ab,bhw->ahw", outer, pixel_grid(shape, device) - centre) - shift
        y, x = torch.einsum("ab,bhw->ahw", inner, place)
        return (y.abs() <= self.half[0]) & (x.abs() <= self.half[1])


def draw_rectangle(rng: np.random.Generator, side: int) -> Rectangle:
    """Draws a rectangle with sides of 1 to `side` / 2 px for a section of that side."""
    half = rng.integers(1, side // 2 + 1, 2) / 2
    far = weighted_draw(rng, max(1, side // 2), PLACE_POWER, PLACE_FACTOR, 2)
    shift = far * rng.choice((-1, 1), 2)
    angles = rng.uniform(0, 2 * math.pi, 2)
    return Rectangle(
        (float(half[0]), float(half[1])),
        (float(shift[0]), float(shift[1])),
        (float(angles[0]), float(angles[1])),
    )


@dataclass(frozen=True)
class InputCorruption:
    """Corruptions of a section (H, W), applied in the order of the fields."""

    noise: list[tuple[Rectangle, np.ndarray]] = field(default_factory=list)
    """Rectangles with noise (H, W) that is added inside."""
    contrast: list[tuple[Rectangle, float]] = field(default_factory=list)
    """Rectangles with a factor."""
    missing: tuple[Rectangle, float] | None = None
    """A rectangle that is filled with one grey value."""
    waves: np.ndarray | None = None
    """(H, W), sum of gradients and tilings that is added."""
    gain: float = 1.0
    offset: float = 0.0

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The corrupted `image` (H, W) in [0, 1], and (H, W) bool where data were cut out.

        Zeros, which were not imaged, stay zero; other pixels stay above 0 and may exceed 1 until
        contrast is normalised.
        """
        shape, device = (image.shape[0], image.shape[1]), image.device
        imaged, result = image > 0, image
        for rectangle, added in self.noise:
            noise = torch.from_numpy(added).to(device)
            result = result + noise * rectangle.inside(shape, device)
        for rectangle, factor in self.contrast:
            result = torch.where(rectangle.inside(shape, device), result * factor, result)
        cut = torch.zeros_like(imaged)
        if self.missing is not None:
            cut = self.missing[0].inside(shape, device)
            result = torch.where(cut, torch.full_like(result, self.missing[1]), result)
        if self.waves is not None:
            result = result + torch.from_numpy(self.waves).to(device)
        result = (result * self.gain + self.offset).clamp_min(DARKEST)
        return torch.where(imaged, result, image), cut


def draw_gain(rng: np.random.Generator, most: float = 2.0) -> float:
    """A factor between 1 and `most`, or its inverse."""
    factor = float(rng.uniform(1, most))
    return factor if rng.random() < 0.5 else 1 / factor


def draw_corruption(rng: np.random.Generator, shape: tuple[int, int]) -> InputCorruption:
    """Draws the corruptions of a section of `shape` (H, W) pixels."""
    side = max(shape)
    noises = 0 if rng.random() < 0.5 else int(rng.integers(1, 3))
    noise = [(draw_rectangle(rng, side), draw_noise(rng, shape)) for _ in range(noises)]
    contrasts = 0 if rng.random() < 0.5 else int(rng.integers(1, 5))
    contrast = [(draw_rectangle(rng, side), draw_gain(rng)) for _ in range(contrasts)]
    missing = None
    if rng.random() < 0.25:
        missing = (draw_rectangle(rng, side), float(rng.uniform(DARKEST, 1)))
    gradients = int(rng.integers(0, 3))
    tilings = int(rng.integers(0, 3 - gradients))
    waves = [draw_gradient(rng, side) for _ in range(gradients)]
    waves += [draw_tiling(rng, side) for _ in range(tilings)]
    total = np.add.reduce(waves)[: shape[0], : shape[1]] if waves else None
    return InputCorruption(
        noise, contrast, missing, total, draw_gain(rng), float(rng.uniform(0, 0.5))
    )


def draw_noise(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Gaussian noise (H, W), with probability 1/2 averaged over a square of radius 1 to 20 px."""
    noise = rng.normal(0, rng.uniform(0.001, 0.03), shape).astype(np.float32)
    if rng.random() < 0.5:
        radius = int(rng.integers(1, 21))
        smooth = functional.avg_pool2d(
            torch.from_numpy(noise)[None, None], 2 * radius + 1, 1, radius, count_include_pad=False
        )
        noise = smooth[0, 0].numpy()
    return noise


def _rotated_axes(side: int, angle: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates y and x (side, side), rotated about the middle, in units of the side."""
    grid = np.indices((side, side), dtype=np.float32) / side - 0.5
    y, x = np.einsum("ab,bhw->ahw", rotation_matrix(angle, scale), grid)
    return y, x


def draw_gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    """A triangle wave (side, side) float32 in a random direction."""
    periods = int(1 + rng.exponential(PERIODS_MEAN))
    amplitude = GRADIENT * rng.uniform(0, 1) * rng.choice((-1, 1))
    scale = max(0.1, rng.normal(1, 0.1))
    _, x = _rotated_axes(side, rng.uniform(0, 2 * math.pi), scale)
    phase = (x * periods + rng.uniform(0, 1)) % 1
    return np.asarray(amplitude * (2 * np.abs(2 * phase - 1) - 1), np.float32)


def draw_tiling(rng: np.random.Generator, side: int) -> np.ndarray:
    """Tiles (side, side) float32, each a ramp, with randomly shifted rows or columns."""
    tile = rng.uniform(side / 32, side / 6) / side
    amplitude = TILING * rng.uniform(0, 1) * rng.choice((-1, 1))
    scale = max(0.2, rng.normal(1, 0.2))
    y, x = _rotated_axes(side, rng.normal(0, math.pi / 2), scale)
    if rng.random() < 0.5:
        y, x = x, y
    moves = rng.uniform(0, 1, 2 * int(2 / tile) + 3)
    row = np.floor(y / tile).astype(int) % len(moves)
    ramp = (x / tile + moves[row]) % 1
    return np.asarray(amplitude * (ramp - 0.5), np.float32)


def augment_input(
    image: Tensor, rng: np.random.Generator, settings: StackAugment
) -> tuple[Tensor, Tensor]:
    """`image` (H, W) in [0, 1] corrupted for the network, and (H, W) bool where data were cut out.

    Unchanged unless `settings.input`. Source: SEAMLeSS, aug_input.
    """
    if not settings.input:
        return image, torch.zeros_like(image, dtype=torch.bool)
    return draw_corruption(rng, (image.shape[0], image.shape[1]))(image)
