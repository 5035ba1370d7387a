"""Surfaces of segments: marching cubes in each block, simplified, and joined without gaps.

A vertex lies halfway between the centres of two voxels. Blocks overlap by one voxel, so that the
vertices on the plane between two blocks are the same in both; simplification does not move them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from retrace.shapes.pieces import Piece

ON_HALF = 1e-6
"""A vertex this close to a multiple of half a voxel lies on it: scaling to nm and back rounds."""
MIN_TRIANGLES = 100
"""Smaller pieces are not simplified."""
_ONE_AT_A_TIME = threading.Lock()
"""All objects of pyfqmr share the one mesh that they work on."""
AGGRESSIVENESS, ITERATIONS = 5, 100
"""In iteration i, edges collapse whose quadric error is below 1e-9 (i + 3)^5 of the shortest voxel
edge, squared. On FIB-25, a tenth of the triangles left every vertex within 0.8 voxels."""


def surfaces(
    labels: np.ndarray, offset: Sequence[int], voxel_size_nm: Sequence[float], share: float
) -> dict[int, Piece]:
    """The surface of each segment, open at the sides of `labels` (Z, Y, X).

    `offset`: of its first voxel (z, y, x), voxels; `share`: of triangles to keep, above 0 to 1.
    """
    import fastremap
    from scipy.ndimage import find_objects

    numbers, mapping = fastremap.renumber(labels, preserve_zero=True)
    names = {number: int(name) for name, number in mapping.items()}
    found = {}
    for number, inner in enumerate(find_objects(numbers), start=1):
        box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in inner)
        mask = numbers[box] == number
        if not mask.all():
            start = [o + s.start for o, s in zip(offset, box, strict=True)]
            found[names[number]] = _surface(mask, start, voxel_size_nm, share)
    return found


def _surface(
    mask: np.ndarray, offset: Sequence[int], voxel_size_nm: Sequence[float], share: float
) -> Piece:
    from bioimage_cpp.mesh import marching_cubes

    # The tables of lorensen close every surface of a mask; those of lewiner let sheets touch.
    vertices, faces, _, _ = marching_cubes(mask, 0.5, allow_degenerate=False, method="lorensen")
    vertices = vertices.astype(np.float64)
    if share < 1 and len(faces) >= MIN_TRIANGLES:
        scale = np.divide(voxel_size_nm, min(voxel_size_nm))
        vertices, faces = _simplified(vertices * scale, faces, share)
        vertices = _on_halves(vertices / scale)
    vertices = vertices + np.array(offset, np.float64)
    return vertices, faces.astype(np.int32), np.zeros(len(vertices), np.float32)


def _simplified(vertices: np.ndarray, faces: np.ndarray, share: float) -> tuple[np.ndarray, ...]:
    """A mesh with `share` of the triangles, or more where the surface would move; the same rim."""
    import pyfqmr

    simplifier = pyfqmr.Simplify()
    with _ONE_AT_A_TIME:
        simplifier.setMesh(vertices, faces.astype(np.int32))
        simplifier.simplify_mesh(
            target_count=max(int(len(faces) * share), 4),
            aggressiveness=AGGRESSIVENESS,
            max_iterations=ITERATIONS,
            preserve_border=True,
            verbose=False,
        )
        simple, triangles, _ = simplifier.getMesh()
    return simple, triangles


def _on_halves(vertices: np.ndarray) -> np.ndarray:
    halves = np.round(vertices * 2) / 2
    return np.where(np.abs(vertices - halves) < ON_HALF, halves, vertices)


def merged(pieces: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (F, 3) of one segment; vertices that are equal become one.

    Both are sorted, so that they do not depend on the order of the pieces.
    """
    starts = np.cumsum([0, *(len(vertices) for vertices, _, _ in pieces[:-1])])
    every = np.concatenate([vertices for vertices, _, _ in pieces])
    faces = [links + start for (_, links, _), start in zip(pieces, starts, strict=True)]
    vertices, index = np.unique(every, axis=0, return_inverse=True)
    triangles = index.reshape(-1)[np.concatenate(faces)]
    first = np.argmin(triangles, axis=1)[:, None]
    turned = np.take_along_axis(triangles, (first + np.arange(3)) % 3, axis=1)
    return vertices, turned[np.lexsort(turned.T[::-1])]
