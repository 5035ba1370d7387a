"""Neurites grow as chains of balls until they fill a volume; positions and radii in nm.

A neurite moves forward in small random turns, and ends where other neurites leave no room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from retrace.synthetic.tissue import Tissue

GROW_ATTEMPTS = 200
"""Starting points tried in a row without finding room before the volume counts as full."""
TURNS = 6
"""Directions tried at each step, each further from straight ahead, before the neurite ends."""


@dataclass(frozen=True)
class Ball:
    """One step of a neurite: centre (z, y, x) and radius in nm."""

    centre: np.ndarray
    radius: float
    neurite: int
    in_mitochondrion: bool


@lru_cache(maxsize=256)
def _ball_cells(quarters: int) -> np.ndarray:
    """Grid positions (N, 3) within a radius given in quarter cells."""
    reach = (quarters + 3) // 4
    steps = np.arange(-reach, reach + 1)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    return np.asarray(grid[(grid**2).sum(1) <= (quarters / 4) ** 2 + 0.5])


class _Occupancy:
    """A coarse isotropic grid that stores which neurite fills each cell; 0 is free."""

    def __init__(self, extent_nm: np.ndarray, cell_nm: float) -> None:
        self.cell_nm = cell_nm
        self.owner = np.zeros(np.maximum(1, np.ceil(extent_nm / cell_nm)).astype(int), np.int32)
        self.taken = 0

    def _ball(self, centre: np.ndarray, radius: float) -> tuple[np.ndarray, ...]:
        near = _ball_cells(max(1, round(4 * radius / self.cell_nm)))
        cells = np.floor(centre / self.cell_nm).astype(int) + near
        inside = ((cells >= 0) & (cells < self.owner.shape)).all(1)
        return tuple(cells[inside].T)

    def is_free(self, centre: np.ndarray, radius: float, neurite: int) -> bool:
        """Whether no other neurite fills a cell of this ball."""
        owners = self.owner[self._ball(centre, radius)]
        return not ((owners != 0) & (owners != neurite)).any()

    def claim(self, centre: np.ndarray, radius: float, neurite: int) -> None:
        """Gives the cells of this ball to a neurite."""
        cells = self._ball(centre, radius)
        self.taken += int((self.owner[cells] == 0).sum())
        self.owner[cells] = neurite

    def free_fraction(self) -> float:
        """The part of the volume that no neurite fills, in [0, 1]."""
        return 1 - self.taken / self.owner.size


def _random_direction(random: Generator) -> np.ndarray:
    vector = random.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def _grow_branch(
    start: np.ndarray,
    direction: np.ndarray,
    radius: float,
    neurite: int,
    space: _Occupancy,
    extent_nm: np.ndarray,
    tissue: Tissue,
    random: Generator,
) -> Iterator[Ball]:
    """Balls from `start` until the branch leaves the volume or finds no room."""
    centre, mitochondrion = start, 0
    while ((centre > -radius) & (centre < extent_nm + radius)).all():
        if not mitochondrion and random.random() < tissue.mitochondria:
            mitochondrion = int(random.integers(5, 14))
        mitochondrion = max(0, mitochondrion - 1)
        swell = radius * (1 + 0.25 * float(random.normal()))
        yield Ball(centre, max(0.5 * radius, swell), neurite, mitochondrion > 0)
        for attempt in range(TURNS):
            turned = direction + tissue.bend * (1 + attempt) * random.normal(size=3)
            turned /= np.linalg.norm(turned)
            ahead = centre + 0.7 * radius * turned
            if space.is_free(ahead, 0.8 * radius, neurite):
                centre, direction = ahead, turned
                break
        else:
            return


def grow_neurites(extent_nm: np.ndarray, tissue: Tissue, random: Generator) -> list[Ball]:
    """The balls of all neurites, some of which branch, until 5 % of the volume is free.

    `extent_nm`: edges of the volume (z, y, x). Balls of a neurite follow each other.
    """
    space = _Occupancy(extent_nm, max(20.0, tissue.diameter_nm / 8))
    balls: list[Ball] = []
    failures = neurite = 0
    while failures < GROW_ATTEMPTS and space.free_fraction() > 0.05:
        # Thinner neurites as room gets scarce; gaps would make their neighbours huge.
        thinner = 1 - 0.6 * failures / GROW_ATTEMPTS
        radius = thinner * tissue.diameter_nm / 2 * float(np.exp(0.35 * random.normal()))
        start = random.random(3) * extent_nm
        if not space.is_free(start, radius, 0):
            failures += 1
            continue
        neurite, failures = neurite + 1, 0
        first = _random_direction(random)
        branches = [first, -first] + ([_random_direction(random)] if random.random() < 0.3 else [])
        for way in branches:
            for ball in _grow_branch(start, way, radius, neurite, space, extent_nm, tissue, random):
                space.claim(ball.centre, ball.radius, neurite)
                balls.append(ball)
    return balls


def neurite_edges(balls: Sequence[Ball]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of consecutive balls; all branches of a neurite begin at its first ball."""
    first = 0
    for index, ball in enumerate(balls):
        if ball.neurite != balls[first].neurite:
            first = index
        elif index != first:
            begins = np.array_equal(ball.centre, balls[first].centre)
            yield (first if begins else index - 1), index
