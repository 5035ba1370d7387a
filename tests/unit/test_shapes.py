"""Meshes and skeletons of exported segments: closed forms, joins between blocks, other readers."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import export
from prediction_case import store_bytes
from retrace.config.export_model import ShapeSettings
from retrace.errors import DataError
from retrace.geometry import Triple, VoxelBox, blocks
from retrace.shapes import layer as shape_layer
from retrace.shapes.formats import swc_bytes
from retrace.shapes.layer import ShapeWriter
from retrace.shapes.meshes import merged, surfaces
from retrace.storage.manifest import check_manifest
from retrace.storage.precomputed_writer import LayerPlan, LayerWriter, all_mips
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume

SIZE = (20, 8, 9)
"""nm, z, y, x: three different edges."""
OFFSET = (3, 5, -7)
"""Voxels."""
BALL, TUBE, BIG = 7, 9, 2**63
RADIUS_NM = 250


def ball(labels: np.ndarray, middle: tuple[float, float, float]) -> np.ndarray:
    """Where a ball of RADIUS_NM around `middle` (voxels) is."""
    grid = np.indices(labels.shape) - np.reshape(middle, (3, 1, 1, 1))
    return (np.square(grid * np.reshape(SIZE, (3, 1, 1, 1))).sum(0)) < RADIUS_NM**2


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """A ball inside; a tube of radius 72 nm along x; a segment that ends at the volume's side."""
    volume = np.zeros((40, 90, 120), np.uint64)
    volume[ball(volume, (19, 40, 50))] = BALL
    y, z = np.arange(90), np.arange(40)[:, None]
    section = np.square((y - 80) * SIZE[1]) + np.square((z - 20) * SIZE[0]) < 72**2
    volume[section[:, :, None] & (np.arange(120) >= 10)[None, None] & (np.arange(120) < 110)] = TUBE
    volume[30:, :10, 100:] = BIG
    return volume


def write_layer(folder: Path, labels: np.ndarray, size: Any = SIZE) -> Path:
    """A finished precomputed layer of ids."""
    box = VoxelBox(OFFSET, labels.shape)
    volume = Volume(labels, size, box.to_nm(size).offset, "labels")
    plan = LayerPlan(all_mips(size, box), labels.dtype.name, 0, labels=True, gzip=False)
    LayerWriter(folder / "layer", folder / "chunks", plan).write(volume, 1)
    return folder / "layer"


def shapes(folder: Path, labels: np.ndarray, block_shape: Triple, **choices: Any) -> Path:
    """A layer with meshes and skeletons."""
    layer = write_layer(folder, labels)
    asked = ShapeSettings(**{"meshes": True, "skeletons": True, "min_voxels": 1, **choices})
    ShapeWriter(layer, folder / "work", asked, False, block_shape).write(2)
    return layer


def opened(layer: Path) -> Any:
    from cloudvolume import CloudVolume

    return CloudVolume(f"precomputed://file://{layer}", progress=False)


def area_and_volume(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, float]:
    """nm² and nm³, the latter above 0 if triangles are counter-clockwise from outside."""
    a, b, c = np.moveaxis(vertices[faces].astype(float), 1, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    return float(area), float((np.cross(a, b) * c).sum() / 6)


def is_closed(faces: np.ndarray) -> bool:
    """Whether each edge belongs to two triangles, which run along it in opposite directions."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    forward, back = (np.sort(e[:, 0] * 2**32 + e[:, 1]) for e in (edges, edges[:, ::-1]))
    return bool(np.array_equal(forward, back))


@pytest.mark.parametrize("block_shape", [(256, 256, 256), (16, 32, 32)], ids=["one", "many"])
def test_a_ball_and_a_tube(tmp_path: Path, labels: np.ndarray, block_shape: Triple) -> None:
    layer = opened(shapes(tmp_path, labels, block_shape, triangles=0.2, skeleton_constant_nm=100))
    mesh = layer.mesh.get(BALL)

    assert is_closed(mesh.faces)
    area, volume = area_and_volume(mesh.vertices, mesh.faces)
    assert volume == pytest.approx((labels == BALL).sum() * np.prod(SIZE), rel=0.01)
    assert volume == pytest.approx(4 / 3 * np.pi * RADIUS_NM**3, rel=0.01)
    # A surface of steps is larger than that of a ball, and more so where voxels are not cubes.
    assert 1 < area / (4 * np.pi * RADIUS_NM**2) < 1.16
    middle = [(m + 0.5 + o) * s for m, o, s in zip((19, 40, 50), OFFSET, SIZE, strict=True)][::-1]
    np.testing.assert_allclose(
        (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2, middle, atol=max(SIZE) / 2
    )

    skeleton = layer.skeleton.get(TUBE)
    # TEASAR begins and ends at the rim of the tube's flat ends.
    assert skeleton.cable_length() == pytest.approx(100 * SIZE[2], abs=2 * 72)
    assert len(skeleton.components()) == 1
    axis = [(20.5 + OFFSET[0]) * SIZE[0], (80.5 + OFFSET[1]) * SIZE[1]]
    inner = np.abs(skeleton.vertices[:, 0] - (OFFSET[2] + 60) * SIZE[2]) < 300
    np.testing.assert_allclose(
        skeleton.vertices[inner][:, [2, 1]], np.tile(axis, (inner.sum(), 1)), atol=max(SIZE)
    )
    np.testing.assert_allclose(skeleton.radius[inner], 72, atol=max(SIZE))


def test_a_segment_at_the_side_of_the_volume_is_closed(tmp_path: Path, labels: np.ndarray) -> None:
    """Its surface is the volume's side there; without simplification each vertex is exact."""
    layer = shapes(tmp_path, labels, (16, 32, 32), triangles=1, skeletons=False)
    mesh = opened(layer).mesh.get(BIG)

    assert is_closed(mesh.faces)
    low = [(100 + OFFSET[2]) * SIZE[2], OFFSET[1] * SIZE[1], (30 + OFFSET[0]) * SIZE[0]]
    high = [(120 + OFFSET[2]) * SIZE[2], (10 + OFFSET[1]) * SIZE[1], (40 + OFFSET[0]) * SIZE[0]]
    assert mesh.vertices.min(0).tolist() == low
    assert mesh.vertices.max(0).tolist() == high


@given(
    arrays(np.uint64, (7, 6, 8), elements=st.sampled_from([0, 1, 2, 2**63])),
    st.tuples(*[st.integers(1, 9)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_surfaces_of_blocks_join_to_that_of_the_whole(
    labels: np.ndarray, block_shape: Triple
) -> None:
    """Without simplification, the mesh is the same for any block, and always closed."""
    whole = surfaces(np.pad(labels, 1), (-1, -1, -1), SIZE, 1)
    padded, parts = np.pad(labels, 1), []
    for block in blocks(VoxelBox((0, 0, 0), labels.shape), block_shape):
        begin = [o + (o > 0) for o in block.offset]
        window = tuple(slice(b, e + 2) for b, e in zip(begin, block.end, strict=True))
        parts.append(surfaces(padded[window], [b - 1 for b in begin], SIZE, 1))
    assert {name for part in parts for name in part} == whole.keys()
    for name, piece in whole.items():
        vertices, faces = merged([part[name] for part in parts if name in part])
        assert is_closed(faces)
        expected = merged([piece])
        np.testing.assert_array_equal(vertices, expected[0])
        np.testing.assert_array_equal(faces, expected[1])


def test_simplified_surfaces_of_real_shapes_have_no_gap() -> None:
    """Rough random segments across 3 x 3 x 3 blocks: closed, although each block is simplified."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(4).normal(size=(48, 48, 48)), 3)
    labels = np.digitize(noise, np.quantile(noise, [0.3, 0.6])).astype(np.uint64)
    padded, parts = np.pad(labels, 1), []
    for corner in product((0, 16, 32), repeat=3):
        begin = [c + (c > 0) for c in corner]
        window = tuple(slice(b, c + 18) for b, c in zip(begin, corner, strict=True))
        parts.append(surfaces(padded[window], [b - 1 for b in begin], SIZE, 0.1))
    for name in (1, 2):
        pieces = [part[name] for part in parts if name in part]
        vertices, faces = merged(pieces)
        assert is_closed(faces)
        volume = -area_and_volume(vertices * SIZE, faces)[1]
        assert volume == pytest.approx((labels == name).sum() * np.prod(SIZE), rel=0.02)


def arguments(folder: Path, labels: np.ndarray, **choices: Any) -> list[str]:
    """What export.py gets for a segmentation in zarr."""
    if not (folder / "s.zarr").exists():
        created = create_volume(
            folder / "s.zarr",
            "segments",
            shape=labels.shape,
            chunks=(32, 32, 32),
            dtype=labels.dtype,
            voxel_size_nm=SIZE,
            offset_nm=[o * s for o, s in zip(OFFSET, SIZE, strict=True)],
        )
        created[...] = labels
    asked = {"meshes": True, "skeletons": True, "min_voxels": 1, **choices}
    source = {"path": str(folder / "s.zarr"), "array": "segments"}
    content = {"format": "precomputed", "source": source, "labels": True, "shapes": asked}
    places = ["--work", str(folder / "work"), "--output", str(folder / "out" / "segments")]
    return ["--settings", json.dumps(content), "--threads", "1", *places]


def test_an_export_that_stops_resumes_to_the_same_files(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some blocks, and one of their files is cut short."""
    monkeypatch.setattr(shape_layer, "SHAPE_BLOCK", (16, 32, 32))
    command = arguments(tmp_path, labels, segments=[TUBE, BALL], files=["obj", "swc"])
    layer = tmp_path / "out" / "segments"
    real, calls = ShapeWriter._block_skeletons, [0]

    def stopping(writer: ShapeWriter, block: VoxelBox) -> Any:
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return real(writer, block)

    monkeypatch.setattr(ShapeWriter, "_block_skeletons", stopping)
    with pytest.raises(KeyboardInterrupt):
        export.main(command)
    assert not layer.exists()
    [cut] = tmp_path.glob("work/*/shapes/mesh/0/voxels.npy")
    cut.write_bytes(cut.read_bytes()[:-3])
    export.main(command)
    resumed = store_bytes(layer)
    assert 5 < calls[0] < 5 + 5 * 3 * 4
    check_manifest(layer, digests=True)

    export.main(command)  # and all at once
    assert store_bytes(layer) == resumed
    assert {f"{kind}/{name}.{kind}" for kind in ("obj",) for name in (TUBE, BALL)} <= {*resumed}
    (layer / "obj" / f"{BALL}.obj").write_text("v 0 0 0\n")
    with pytest.raises(DataError, match="its bytes changed"):
        check_manifest(layer, digests=True)


def test_only_segments_that_exist_and_are_large_enough(tmp_path: Path, labels: np.ndarray) -> None:
    layer = shapes(tmp_path, labels, (64, 64, 64), min_voxels=2001, skeletons=False)
    assert {path.name for path in (layer / "mesh").glob("*:0")} == {f"{BALL}:0", f"{TUBE}:0"}
    with pytest.raises(DataError, match="names 8, but the segmentation has no such segment"):
        export.main(arguments(tmp_path, labels, segments=[8, BALL], skeletons=False))


def test_swc_lists_each_node_after_its_parent() -> None:
    vertices = np.array([[9, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 4, 4]], float)
    edges = np.array([[0, 3], [1, 2], [2, 3]], np.uint64)
    lines = swc_bytes(vertices, edges, np.arange(5.0)).decode().splitlines()
    rows = [[float(word) for word in line.split()] for line in lines[1:]]
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4, 5]
    assert all(row[6] == -1 or row[6] < row[0] for row in rows)
    assert sum(row[6] == -1 for row in rows) == 2
    pairs = {frozenset((row[2], rows[int(row[6]) - 1][2])) for row in rows if row[6] > 0}
    assert pairs == {frozenset(p) for p in ((9, 3), (1, 2), (2, 3))}
