"""Meshes and skeletons as files: those of precomputed layers, OBJ and SWC. All are in x, y, z, nm.

Formats: github.com/google/neuroglancer, src/datasource/precomputed/meshes.md and skeletons.md;
www.neuronland.org/NLMorphologyConverter/MorphologyFormats/SWC/Spec.html.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from retrace.shapes.skeletons import rooted

MESH_INFO: dict[str, Any] = {"@type": "neuroglancer_legacy_mesh"}
SKELETON_INFO: dict[str, Any] = {
    "@type": "neuroglancer_skeletons",
    "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
}


def mesh_bytes(vertices: np.ndarray, triangles: np.ndarray) -> bytes:
    """A fragment of a mesh; `vertices` (V, 3) in nm, x, y, z."""
    count = np.array([len(vertices)], "<u4")
    return b"".join([count.tobytes(), _floats(vertices), triangles.astype("<u4").tobytes()])


def skeleton_bytes(vertices: np.ndarray, edges: np.ndarray, radii: np.ndarray) -> bytes:
    """A skeleton with the attribute radius; `vertices` (V, 3) in nm, x, y, z."""
    counts = np.array([len(vertices), len(edges)], "<u4")
    parts = [counts.tobytes(), _floats(vertices), edges.astype("<u4").tobytes(), _floats(radii)]
    return b"".join(parts)


def _floats(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()


def obj_bytes(vertices: np.ndarray, triangles: np.ndarray) -> bytes:
    """A mesh as Wavefront OBJ; `vertices` (V, 3) in nm, x, y, z."""
    lines = [f"v {x:.10g} {y:.10g} {z:.10g}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (triangles + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def swc_bytes(vertices: np.ndarray, edges: np.ndarray, radii: np.ndarray) -> bytes:
    """A skeleton as SWC: trees, in nm, every node of type 0; `vertices` (V, 3) in x, y, z."""
    order, parents = rooted(len(vertices), edges)
    number = np.empty(len(order) + 1, np.int64)
    number[order], number[-1] = np.arange(1, len(order) + 1), -1
    rows = zip(vertices[order].tolist(), radii[order].tolist(), number[parents[order]], strict=True)
    lines = ["# id type x_nm y_nm z_nm radius_nm parent"]
    for row, ((x, y, z), radius, parent) in enumerate(rows, start=1):
        lines.append(f"{row} 0 {x:.10g} {y:.10g} {z:.10g} {radius:.10g} {parent}")
    return ("\n".join(lines) + "\n").encode()
