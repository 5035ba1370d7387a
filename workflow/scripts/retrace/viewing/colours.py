"""Colours of ids, clearly different where ids are neighbours.

A palette of colours that differ in lightness as well as in hue; each id prefers one of them, which
only depends on the id, and gets another one where a neighbour has it already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

PALETTE = (
    *("#ff0000", "#00ff00", "#003cff", "#4be1ff", "#787800", "#ff78c3", "#005ab4", "#00ffb4"),
    *("#ff00ff", "#f0f000", "#ff9669", "#008769", "#e1f0a5", "#b40f3c", "#1ea50f", "#961ea5"),
    *("#c3b4ff", "#ffb41e"),
)
"""Each is the saturated colour that is farthest from those before it in CIELAB, the first is red.
Any two differ by more than 40 there; a difference of 2 can just be seen."""

REACH = 3
"""Voxels along an axis up to which two ids are neighbours, with boundaries of 0 between them."""

RGB = np.array([[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in PALETTE]) / 255.0
"""The palette as red, green and blue in [0, 1], (colours, 3)."""


def neighbouring_ids(labels: np.ndarray) -> np.ndarray:
    """Pairs of ids (pairs, 2), smaller one first, that are up to `REACH` voxels apart on an axis.

    `labels` has any number of axes. Id 0 is nobody's neighbour.
    """
    ids, numbers = np.unique(labels, return_inverse=True)
    numbers = numbers.reshape(labels.shape).astype(np.int64)
    found = [np.zeros(0, np.int64)]
    for axis in range(labels.ndim):
        along = np.moveaxis(numbers, axis, 0)
        for step in range(1, min(REACH, len(along) - 1) + 1):
            first, second = along[:-step], along[step:]
            differ = first != second
            first, second = first[differ], second[differ]
            low, high = np.minimum(first, second), np.maximum(first, second)
            found.append(np.unique(low * ids.size + high))
    codes = np.unique(np.concatenate(found))
    pairs = np.column_stack([ids[codes // ids.size], ids[codes % ids.size]])
    return np.asarray(pairs[(pairs != 0).all(axis=1)])


def preferred(ids: np.ndarray) -> np.ndarray:
    """The number of the colour that each id prefers, (ids,)."""
    # A multiplicative hash spreads neighbouring ids over the palette.
    mixed = ids.astype(np.uint64) * np.uint64(11400714819323198485)
    return np.asarray((mixed >> np.uint64(40)) % np.uint64(len(PALETTE))).astype(np.int64)


def colour_numbers(labels: np.ndarray) -> dict[int, int]:
    """The number in the palette of each id of `labels` but 0: neighbours have different ones.

    Ids with the most neighbours choose first. One with more neighbours than there are colours takes
    the colour that the fewest of them have.
    """
    near: Mapping[int, set[int]] = defaultdict(set)
    for first, second in neighbouring_ids(labels).tolist():
        near[first].add(second)
        near[second].add(first)
    ids = np.unique(labels)
    wanted = dict(zip(ids.tolist(), preferred(ids).tolist(), strict=True))
    chosen: dict[int, int] = {}
    for id_ in sorted(wanted, key=lambda id_: (-len(near[id_]), id_)):
        taken = [chosen[other] for other in near[id_] if other in chosen]
        turns = [(wanted[id_] + turn) % len(PALETTE) for turn in range(len(PALETTE))]
        chosen[id_] = min(turns, key=taken.count)
    return {id_: number for id_, number in chosen.items() if id_}


def label_colours(labels: np.ndarray, opacity: float = 0.45) -> np.ndarray:
    """Colours (…, 4) in [0, 1] of ids of any shape; 0 is clear."""
    numbers = colour_numbers(labels)
    ids, inverse = np.unique(labels, return_inverse=True)
    table = np.zeros((ids.size, 4))
    for row, id_ in enumerate(ids.tolist()):
        if id_:
            table[row] = [*RGB[numbers[id_]], opacity]
    return np.asarray(table[inverse.reshape(labels.shape)])
