"""Meshes that were exported, in a served view: their segmentation may be of any size."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrace.geometry import NmTriple
from retrace.reading import json_if_intact
from retrace.storage.manifest import LAYER_INFO, input_digest, manifest_path

EXPORT_THEM = "set `export: {layers: [segments, meshes]}` and run export_DATASET_NETWORK"


@dataclass(frozen=True)
class Mesh:
    """A surface: `vertices` (V, 3) float32 in nm, x, y, z, and `triangles` (T, 3) of them."""

    vertices: np.ndarray
    triangles: np.ndarray

    def as_bytes(self, origin_nm: NmTriple) -> bytes:
        """What neuroglancer reads of a local volume whose first voxel is at `origin_nm` (z, y, x).

        There, vertices have the order of the volume's axes, z, y, x, and are in m from its corner.
        """
        corner = np.array(origin_nm[::-1], np.float64)
        places = ((self.vertices - corner)[:, ::-1] * 1e-9).astype("<f4")
        count = np.array([len(places)], "<u4")
        # Reversed axes mirror the surface; reversing the vertices of each triangle turns it back.
        turned = np.ascontiguousarray(self.triangles[:, ::-1], "<u4")
        return count.tobytes() + np.ascontiguousarray(places).tobytes() + turned.tobytes()


@dataclass(frozen=True)
class ExportedMeshes:
    """The meshes in a folder of a precomputed layer, by the id of the segment."""

    folder: Path

    def read(self, segment: int) -> Mesh | None:
        """The mesh of a segment; None if it has none, as segments of few voxels."""
        index = self._bytes(f"{segment}:0")
        if index is None:
            return None
        names = _fragments(index)
        parts = [body for name in names if (body := self._bytes(name)) is not None]
        return _joined([_decoded(part) for part in parts]) if parts else None

    def _bytes(self, name: str) -> bytes | None:
        path = self.folder / name
        if path.is_file():
            return path.read_bytes()
        packed = path.with_name(f"{name}.gz")
        return gzip.decompress(packed.read_bytes()) if packed.is_file() else None


def _fragments(index: bytes) -> list[str]:
    """The names of the files that a mesh consists of."""
    return [str(name) for name in json.loads(index)["fragments"]]


def _decoded(body: bytes) -> Mesh:
    """A fragment of the format neuroglancer_legacy_mesh."""
    count = int(np.frombuffer(body, "<u4", 1)[0])
    vertices = np.frombuffer(body, "<f4", 3 * count, 4).reshape(-1, 3)
    triangles = np.frombuffer(body, "<u4", offset=4 + 12 * count).reshape(-1, 3)
    return Mesh(vertices, triangles)


def _joined(meshes: list[Mesh]) -> Mesh:
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    triangles = [mesh.triangles + begin for mesh, begin in zip(meshes, first, strict=False)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(triangles))


def find_meshes(layer: Path, segments: Path) -> tuple[ExportedMeshes | None, str]:
    """The meshes of an exported layer, if they are those of a segmentation; and why, in words.

    `layer`: folder of the precomputed layer; `segments`: store of the segmentation.
    """
    info, manifest = json_if_intact(layer / LAYER_INFO), json_if_intact(manifest_path(layer))
    if not (info and manifest):
        return None, f"{layer} is not exported: {EXPORT_THEM}"
    name = info.get("mesh")
    if not name:
        return None, f"{layer} has none: {EXPORT_THEM}"
    exported = manifest.get("inputs", {}).get(str(segments))
    if not exported or exported != input_digest(segments):
        return None, f"those in {layer} are of an earlier segmentation: export them again"
    return ExportedMeshes(layer / str(name)), f"those exported to {layer}"
