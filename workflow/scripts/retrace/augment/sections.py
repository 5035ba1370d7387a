"""Augmentation of stacks of sections, as SEAMLeSS's aug.py does it.

`augment_stack` moves, turns and scales sections, the same for images and masks, and is not undone:
what it makes is what is aligned. `augment_input` spoils what the network sees of one section, and
nothing else; the loss looks at the unspoilt one. Both draw with numpy and compute with torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.augment.artificial_defects import pixel_grid, pull, pull_labels

MIN_CUT_PX = 32
JITTER_POWER, JITTER_FACTOR = 2, 4
"""Far translations are drawn up to 4 times as often as near ones."""
PLACE_POWER, PLACE_FACTOR = 1, 10
"""The same of how far a cutout's rectangle is from the middle."""
PERIODS_MEAN = 17.3
"""Mean number of a gradient's periods; exponential, so that half have 12 or fewer."""
GRADIENT, TILING = 0.3, 0.5
"""Largest amplitudes."""
DARKEST = 1 / 255
"""What a pixel that was imaged never falls below, for 0 means that it was not."""


def weighted_draw(
    rng: np.random.Generator, most: int, power: float, factor: float, size: int = 1
) -> np.ndarray:
    """Whole numbers 1 … most, each k as likely as k^power + c, `most` `factor` times as 1.

    Zeros where `most` is 0.
    """
    if most < 2:
        return np.full(size, most)
    k = np.arange(1, most + 1, dtype=float) ** power
    c = max(0.0, (k[-1] - factor * k[0]) / (factor - 1))
    weight = k + c
    return rng.choice(np.arange(1, most + 1), size, p=weight / weight.sum())


def largest_jitter(max_displacement: float) -> int:
    """Pixels per axis, so that two sections moved oppositely are `max_displacement` apart."""
    return int(max_displacement / (2 * math.sqrt(2)))


def turning(angle: float, scale: float = 1.0) -> np.ndarray:
    """The map (2, 2) of y and x that turns by `angle` and divides by `scale`."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return np.array([[cos, sin], [-sin, cos]])


@dataclass(frozen=True)
class StackWarp:
    """Where each section of a stack is read from, and what is cut off its image.

    Pixel p of section z is read at centre + matrices[z] (p - centre) + shifts[z]. `cuts` (S, 4) px:
    what is blanked at the top, bottom, left and right. `warps` (S, 2, h, w) px: what is added to
    that on a coarse grid over the section, or None.
    """

    matrices: np.ndarray
    shifts: np.ndarray
    cuts: np.ndarray
    warps: np.ndarray | None = None

    def displacement(self, section: int, shape: tuple[int, int], device: torch.device) -> Tensor:
        """How far from each pixel (H, W) of a section it is read, (2, H, W) px."""
        grid = pixel_grid(shape, device)
        centre = torch.tensor([(n - 1) / 2 for n in shape], device=device)[:, None, None]
        matrix = torch.from_numpy(self.matrices[section]).to(device, torch.float32)
        shift = torch.from_numpy(self.shifts[section]).to(device, torch.float32)
        turned = torch.einsum("ab,bhw->ahw", matrix, grid - centre)
        moved = turned + centre + shift[:, None, None] - grid
        if self.warps is None:
            return moved
        coarse = torch.from_numpy(self.warps[section]).to(device)[None]
        return moved + functional.interpolate(coarse, shape, mode="bicubic", align_corners=True)[0]

    def uncut(self, section: int, shape: tuple[int, int], device: torch.device) -> Tensor:
        """What of a section (H, W) is left, bool."""
        kept = torch.zeros(shape, dtype=torch.bool, device=device)
        top, bottom, left, right = self.cuts[section].tolist()
        kept[top : shape[0] - bottom, left : shape[1] - right] = True
        return kept


def draw_stack_warp(
    rng: np.random.Generator, sections: int, side: int, settings: Mapping[str, Any]
) -> StackWarp:
    """Draws the warp of a stack of sections whose shorter side is `side` pixels.

    `settings`: jitter_px (farthest that two sections are moved apart, SEAMLeSS: 2^(levels - 1)),
    rotation and scale (deviations of a section's own), turn (probability that the stack is turned
    by any angle; 0.5 without it), cut (whether borders are cut off; true without it), warp_px
    (farthest that a smooth warp moves a section's points along an axis; 0 without it) and
    spacing_px (how far apart these points are).
    """
    moves, borders, bends = rng.spawn(3)
    matrices, shifts = _draw_moves(moves, sections, settings)
    cuts = np.zeros((sections, 4), int)
    if settings.get("cut", True):
        strips = borders.integers(min(MIN_CUT_PX, side // 5), side // 5 + 1, (sections, 2))
        ends = borders.integers(0, 2, (sections, 2))
        for axis in (0, 1):
            cuts[np.arange(sections), 2 * axis + ends[:, axis]] = strips[:, axis]
    warps = _draw_warps(bends, sections, side, settings) if settings.get("warp_px") else None
    return StackWarp(matrices, shifts, cuts, warps)


def _draw_warps(
    rng: np.random.Generator, sections: int, side: int, settings: Mapping[str, Any]
) -> np.ndarray:
    """Displacements of points of each section, (S, 2, n, n) float32 px."""
    points = max(2, round(side / settings["spacing_px"]) + 1)
    far = settings["warp_px"]
    return rng.uniform(-far, far, (sections, 2, points, points)).astype(np.float32)


def _draw_moves(
    rng: np.random.Generator, sections: int, settings: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (S, 2, 2) and shifts (S, 2) px: turn the stack, move sections, turn it again."""
    first, second = np.eye(2), np.eye(2)
    if rng.random() < settings.get("turn", 0.5):
        first = turning(rng.uniform(0, 2 * math.pi), rng.normal(1, settings["scale"]))
        second = turning(rng.uniform(0, 2 * math.pi))
    far = largest_jitter(settings["jitter_px"])
    size = weighted_draw(rng, far, JITTER_POWER, JITTER_FACTOR, 2 * sections)
    steps = (size * rng.choice((-1, 1), 2 * sections)).reshape(sections, 2)
    moved = rng.random(sections) < 0.5
    angles = rng.normal(0, settings["rotation"], sections) * moved
    scales = np.where(moved, rng.normal(1, settings["scale"], sections), 1)
    own = np.stack([turning(a, s) for a, s in zip(angles, scales, strict=True)])
    # What is shown at p after the second turning was at second p before it, and so on back.
    matrices = first @ own @ second
    shifts = (first @ (steps * moved[:, None])[:, :, None])[:, :, 0]
    return matrices, shifts


def augment_stack(
    images: Tensor,
    masks: Tensor,
    valid: Tensor,
    known: Tensor,
    rng: np.random.Generator,
    settings: Mapping[str, Any],
    crop: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """SEAMLeSS's aug_stacks: a stack moved, turned and cut, everything by the same map.

    `images` (S, H, W) in [0, 1]; `masks` and `valid` (S, H, W), each pixel the nearest one's;
    `known` (S, 2, H, W) px, displacements so far, given back with this one's. Images and `valid`
    are 0 where nothing is known and where they are cut; masks are not cut. `settings` as in
    draw_stack_warp. `crop`: edge of a window that all are cut to, the same for all sections.
    """
    sections, shape = len(images), (images.shape[1], images.shape[2])
    warp = draw_stack_warp(rng, sections, min(shape), settings)
    window = _draw_window(rng, shape, crop)
    done = []
    for z in range(sections):
        move = warp.displacement(z, shape, images.device)[(slice(None), *window)]
        kept = warp.uncut(z, shape, images.device)[window]
        corner = (window[0].start, window[1].start)
        there = pull_labels(valid[z], move, corner) * kept
        image = pull(images[z], move, corner, "border") * (there > 0)
        field = move + torch.stack([pull(part, move, corner, "border") for part in known[z]])
        done.append((image, pull_labels(masks[z], move, corner), there, field))
    image, mask, there, field = (torch.stack(parts) for parts in zip(*done, strict=True))
    return image, mask, there, field


def _draw_window(
    rng: np.random.Generator, shape: tuple[int, int], crop: int | None
) -> tuple[slice, slice]:
    """A random window of an edge of `crop` pixels, all of it without one."""
    edges = [n if crop is None else min(crop, n) for n in shape]
    y, x = (int(rng.integers(n - edge + 1)) for n, edge in zip(shape, edges, strict=True))
    return slice(y, y + edges[0]), slice(x, x + edges[1])


# ---------------------------------------------------------------- what the network sees


@dataclass(frozen=True)
class Rectangle:
    """A turned rectangle: pixels whose place, turned and moved, is within half its sides."""

    half: tuple[float, float]
    shift: tuple[float, float]
    angles: tuple[float, float]

    def inside(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        """(H, W) bool."""
        outer, inner = (torch.from_numpy(turning(a)).to(device, torch.float32) for a in self.angles)
        centre = torch.tensor([(n - 1) / 2 for n in shape], device=device)[:, None, None]
        shift = torch.tensor(self.shift, device=device)[:, None, None]
        place = torch.einsum("ab,bhw->ahw", outer, pixel_grid(shape, device) - centre) - shift
        y, x = torch.einsum("ab,bhw->ahw", inner, place)
        return (y.abs() <= self.half[0]) & (x.abs() <= self.half[1])


def draw_rectangle(rng: np.random.Generator, side: int) -> Rectangle:
    """Sides of 1 … side / 2 pixels, turned, moved away from the middle, turned again."""
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
class InputSpoiling:
    """What is done to the network's view of one section, in the order of the fields.

    `noise`: rectangles with what is added, (H, W); `contrast`: rectangles with factors; `missing`:
    a rectangle with its grey, or None; `waves` (H, W): gradients and tilings, added; `gain` and
    `offset` of the whole.
    """

    noise: list[tuple[Rectangle, np.ndarray]] = field(default_factory=list)
    contrast: list[tuple[Rectangle, float]] = field(default_factory=list)
    missing: tuple[Rectangle, float] | None = None
    waves: np.ndarray | None = None
    gain: float = 1.0
    offset: float = 0.0

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The spoilt image (H, W), and where data were cut out of it, bool.

        `image` in [0, 1]; its zeros stay zero. What was imaged stays above 0 and may exceed 1,
        until contrast is made alike.
        """
        shape, device = (image.shape[0], image.shape[1]), image.device
        seen, now = image > 0, image
        for where, added in self.noise:
            noise = torch.from_numpy(added).to(device)
            now = now + noise * where.inside(shape, device)
        for where, factor in self.contrast:
            now = torch.where(where.inside(shape, device), now * factor, now)
        cut = torch.zeros_like(seen)
        if self.missing is not None:
            cut = self.missing[0].inside(shape, device)
            now = torch.where(cut, torch.full_like(now, self.missing[1]), now)
        if self.waves is not None:
            now = now + torch.from_numpy(self.waves).to(device)
        now = (now * self.gain + self.offset).clamp_min(DARKEST)
        return torch.where(seen, now, image), cut


def up_or_down(rng: np.random.Generator, most: float = 2.0) -> float:
    """A factor of 1 … most, or one over it."""
    factor = float(rng.uniform(1, most))
    return factor if rng.random() < 0.5 else 1 / factor


def draw_spoiling(rng: np.random.Generator, shape: tuple[int, int]) -> InputSpoiling:
    """Draws what is done to a section of `shape` (H, W) pixels."""
    side = max(shape)
    noises = 0 if rng.random() < 0.5 else int(rng.integers(1, 3))
    noise = [(draw_rectangle(rng, side), draw_noise(rng, shape)) for _ in range(noises)]
    contrasts = 0 if rng.random() < 0.5 else int(rng.integers(1, 5))
    contrast = [(draw_rectangle(rng, side), up_or_down(rng)) for _ in range(contrasts)]
    missing = None
    if rng.random() < 0.25:
        missing = (draw_rectangle(rng, side), float(rng.uniform(DARKEST, 1)))
    gradients = int(rng.integers(0, 3))
    tilings = int(rng.integers(0, 3 - gradients))
    waves = [draw_gradient(rng, side) for _ in range(gradients)]
    waves += [draw_tiling(rng, side) for _ in range(tilings)]
    total = np.add.reduce(waves)[: shape[0], : shape[1]] if waves else None
    return InputSpoiling(
        noise, contrast, missing, total, up_or_down(rng), float(rng.uniform(0, 0.5))
    )


def draw_noise(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Gaussian noise (H, W), every second time smoothed over a square of radius 1 … 20."""
    noise = rng.normal(0, rng.uniform(0.001, 0.03), shape).astype(np.float32)
    if rng.random() < 0.5:
        radius = int(rng.integers(1, 21))
        smooth = functional.avg_pool2d(
            torch.from_numpy(noise)[None, None], 2 * radius + 1, 1, radius, count_include_pad=False
        )
        noise = smooth[0, 0].numpy()
    return noise


def _turned_axes(
    rng: np.random.Generator, side: int, angle: float, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates y and x, (side, side), turned about the middle, in sides."""
    grid = np.indices((side, side), dtype=np.float32) / side - 0.5
    y, x = np.einsum("ab,bhw->ahw", turning(angle, scale), grid)
    return y, x


def draw_gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    """A triangle wave (side, side) across the section."""
    periods = int(1 + rng.exponential(PERIODS_MEAN))
    amplitude = GRADIENT * rng.uniform(0, 1) * rng.choice((-1, 1))
    scale = max(0.1, rng.normal(1, 0.1))
    _, x = _turned_axes(rng, side, rng.uniform(0, 2 * math.pi), scale)
    phase = (x * periods + rng.uniform(0, 1)) % 1
    return np.asarray(amplitude * (2 * np.abs(2 * phase - 1) - 1), np.float32)


def draw_tiling(rng: np.random.Generator, side: int) -> np.ndarray:
    """Tiles (side, side), each a ramp, whose rows or columns are moved against each other."""
    tile = rng.uniform(side / 32, side / 6) / side
    amplitude = TILING * rng.uniform(0, 1) * rng.choice((-1, 1))
    scale = max(0.2, rng.normal(1, 0.2))
    y, x = _turned_axes(rng, side, rng.normal(0, math.pi / 2), scale)
    if rng.random() < 0.5:
        y, x = x, y
    moves = rng.uniform(0, 1, 2 * int(2 / tile) + 3)
    row = np.floor(y / tile).astype(int) % len(moves)
    ramp = (x / tile + moves[row]) % 1
    return np.asarray(amplitude * (ramp - 0.5), np.float32)


def augment_input(
    image: Tensor, rng: np.random.Generator, settings: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """SEAMLeSS's aug_input: a section (H, W) in [0, 1] as the network sees it, and where data were
    cut out of it, bool. Nothing is changed unless `settings` have `input`."""
    if not settings["input"]:
        return image, torch.zeros_like(image, dtype=torch.bool)
    return draw_spoiling(rng, (image.shape[0], image.shape[1]))(image)
