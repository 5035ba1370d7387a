"""Layers of a view and their positions, without a browser."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from skimage.color import rgb2lab

import export
import view
from retrace.config.view_model import LayerKind, ViewLayerSource
from retrace.errors import ConfigError, DataError
from retrace.geometry import NmBox, VoxelBox
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume
from retrace.viewing.captions import caption, scale_bar_nm
from retrace.viewing.colours import PALETTE, RGB, colour_numbers, label_colours, neighbouring_ids
from retrace.viewing.exported_meshes import find_meshes
from retrace.viewing.layers import ViewLayer, central_section, focus, open_layers
from retrace.viewing.picture import coloured_section
from retrace.viewing.scene import (
    LazyArray,
    build_viewer,
    local_volume,
    panel_captions,
    panel_grid,
    panel_groups,
    start_server,
)

VOXEL = (20, 9, 9)


def layer(
    kind: LayerKind, data: np.ndarray, offset_nm: tuple[int, int, int] = (0, 0, 0)
) -> ViewLayer:
    return ViewLayer(kind, kind, Volume(data, VOXEL, offset_nm, kind))


class Counting:
    """An array that counts the voxels read from it."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.shape, self.dtype, self.read = data, data.shape, data.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self.data[key]
        self.read += part.size
        return part


def store(path: Path, name: str, data: np.ndarray) -> dict[str, Any]:
    created = create_volume(
        path,
        name,
        shape=data.shape,
        chunks=data.shape,
        dtype=data.dtype,
        voxel_size_nm=VOXEL,
        offset_nm=(0, 0, 0),
    )
    created[:] = data
    return {"path": str(path), "array": name}


def test_absent_layers_are_left_out(tmp_path: Path) -> None:
    place = store(tmp_path / "a.zarr", "raw", np.zeros((2, 3, 4), np.uint8))
    raw = ViewLayerSource(kind="raw", **place)
    segments = ViewLayerSource(kind="segments", path=str(tmp_path / "b.zarr"), array="segments")
    layers, absent = open_layers([raw, segments])

    assert [item.name for item in layers] == ["raw"]
    assert absent == [f"segments ({tmp_path / 'b.zarr'})"]
    with pytest.raises(DataError, match="nothing to show"):
        open_layers([segments])
    with pytest.raises(ConfigError, match="did you mean 'segments'"):
        settings = {"layers": [{**segments.plain(), "kind": "segment"}]}
        view.main(["--settings", json.dumps(settings), "--serve"])


def test_exported_meshes_are_those_of_the_segmentation(tmp_path: Path) -> None:
    segments, layer = tmp_path / "segmentation.zarr", tmp_path / "precomputed/segments"
    ids = np.zeros((6, 12, 12), np.uint64)
    ids[1:5, 2:9, 3:10] = 7
    source = store(segments, "segments", ids)
    assert "is not exported" in find_meshes(layer, segments)[1]
    settings = {"format": "precomputed", "source": source, "labels": True, "gzip": True}
    arguments = ["--work", str(tmp_path / "work"), "--output", str(layer)]
    export.main(["--settings", json.dumps(settings), *arguments])
    assert "has none: set `export:" in find_meshes(layer, segments)[1]
    settings["shapes"] = {"meshes": True, "skeletons": False, "min_voxels": 1}
    export.main(["--settings", json.dumps(settings), *arguments])
    meshes, words = find_meshes(layer, segments)
    assert meshes is not None and words == f"those exported to {layer}"
    mesh = meshes.read(7)
    assert mesh is not None and meshes.read(8) is None
    assert mesh.vertices.min(0).tolist() == [3 * 9, 2 * 9, 1 * 20]
    assert mesh.vertices.max(0).tolist() == [10 * 9, 9 * 9, 5 * 20]
    shutil.rmtree(segments)
    store(segments, "segments", ids + 1)
    assert "of an earlier segmentation" in find_meshes(layer, segments)[1]


def test_view_is_centred_on_the_most_finished_result() -> None:
    raw = layer("raw", np.zeros((10, 40, 40), np.uint8))
    labels = layer("labels", np.zeros((4, 10, 10), np.uint64), (60, 90, 180))

    assert focus([raw, labels]) == NmBox((60, 90, 180), (80, 90, 90))
    assert central_section(raw.volume, focus([raw, labels]), 6) == VoxelBox((5, 12, 22), (1, 6, 6))


def test_panels_show_results_over_raw() -> None:
    layers = [
        layer("raw", np.zeros((2, 3, 4), np.uint8)),
        layer("mask", np.zeros((2, 3, 4), np.uint8)),
        layer("labels", np.zeros((2, 3, 4), np.uint64)),
        layer("lsds", np.zeros((10, 2, 3, 4), np.uint8)),
    ]

    assert panel_groups(layers) == [["raw"], ["raw", "labels", "mask"], ["raw", "lsds offset"]]
    assert panel_groups(layers[:2]) == [["raw"], ["raw", "mask"]]
    assert panel_groups(layers[2:3]) == [["labels"]]
    assert [panel_grid(n) for n in (1, 4, 5, 8)] == [(1, 1), (1, 4), (2, 3), (2, 4)]


def test_volumes_are_read_in_pieces() -> None:
    source = Counting(np.arange(4**3, dtype=np.int64).reshape(4, 4, 4))
    lazy = LazyArray(source, labels=True)
    layers = [ViewLayer("labels", "labels", Volume(source, VOXEL, (0, 0, 0), "labels"))]

    build_viewer(layers)
    assert source.read == source.data.size  # once, for colours; larger volumes only their middle
    source.read = 0
    part = lazy[1:2, :2, :2]
    assert source.read == part.size == 4
    assert part.dtype == lazy.dtype == np.uint64
    assert LazyArray(np.zeros((1, 1, 1), np.uint8), labels=True).dtype == np.uint32
    assert LazyArray(np.zeros((1, 1, 1), np.float16), labels=False).dtype == np.float32


def test_viewer_state_has_true_sizes_and_shaders() -> None:
    layers = [
        layer("raw", np.zeros((10, 40, 40), np.uint8)),
        layer("lsds", np.zeros((10, 4, 10, 20), np.uint8), (40, 90, 180)),
    ]
    state = build_viewer(layers).state
    source = local_volume(layers[1].volume, labels=False)
    pearson = state.layers["lsds pearson"]

    assert list(state.dimensions.names) == ["x", "y", "z"]
    assert list(source.voxel_offset) == [0, 2, 10, 20]
    assert list(source.dimensions.names) == ["c^", "z", "y", "x"]
    assert list(state.position) == [30, 15, 4.5]
    assert "getDataValue(6)" in pearson.shader
    assert not pearson.visible
    assert "colormapJet" in state.layers["lsds size"].shader


COVARIANCE = """\
void main() {
    emitRGB(
        vec3(
            toNormalized(getDataValue(3)),
            toNormalized(getDataValue(4)),
            toNormalized(getDataValue(5)))
        );
}
"""
CHANNEL_6 = """\
void main() {
    float v = toNormalized(getDataValue(6));
    vec4 rgba = vec4(0,0,0,0);
    if (v != 0.0) {
        rgba = vec4(colormapJet(v), 1.0);
    }
    emitRGBA(rgba);
}
"""


def test_shaders_are_those_of_the_lsd_tutorial(shared_dir: Path) -> None:
    seed = (shared_dir / "seeds" / "lsd_nm_experiments_tutorial.md.txt").read_text()
    data = np.zeros((10, 4, 10, 20), np.uint8)
    for channels, shader in (((3, 4, 5), COVARIANCE), ((6,), CHANNEL_6)):
        chosen = ViewLayer("lsds", "lsds", Volume(data, VOXEL, (0, 0, 0), "lsds"), channels)
        shown = build_viewer([chosen]).state.layers
        (name,) = (layer.name for layer in shown)
        assert name == f"lsds {','.join(map(str, channels))}" and shown[name].visible
        assert shown[name].shader == shader and f"```\n{shader}```" in seed
    affinities = build_viewer([layer("affinities", data[:3])]).state.layers["affinities"].shader
    assert affinities == build_viewer([layer("lsds", data)]).state.layers["lsds offset"].shader
    assert affinities == COVARIANCE.translate(str.maketrans("345", "012")).replace("vec0", "vec3")


def test_pictures_without_a_browser_show_the_chosen_channel() -> None:
    data = np.zeros((10, 1, 2, 2), np.uint8)
    data[6, 0, 0] = (1, 255)
    chosen = ViewLayer("lsds", "lsds", Volume(data, VOXEL, (0, 0, 0), "lsds"), (6,))
    colours, _ = coloured_section(chosen, chosen.box_nm)
    assert (colours[..., 3] == [[1, 1], [0, 0]]).all()
    assert colours[0, 0, 2] > colours[0, 0, 0] and colours[0, 1, 0] > colours[0, 1, 2]


def test_used_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="cannot listen"):
            start_server("127.0.0.1", port)


def test_section_is_placed_in_nm() -> None:
    data = np.zeros((4, 10, 20), np.uint64)
    data[2, :5, :10] = 3
    labels = layer("labels", data, (40, 90, 180))
    colours, extent = coloured_section(labels, labels.box_nm)

    assert extent == (180, 360, 180, 90)
    assert (colours[..., 3] > 0).sum() == 50
    assert (colours[:5, :10, 3] > 0).all()


def test_labels_keep_their_colour() -> None:
    colours = label_colours(np.array([[0, 1, 2, 1]], np.uint64))

    assert colours[0, 0, 3] == 0
    np.testing.assert_array_equal(colours[0, 1], colours[0, 3])
    assert np.abs(colours[0, 1] - colours[0, 2]).max() > 0.2


def test_without_a_browser_a_plain_picture_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = np.full((4, 30, 30), 90, np.uint8)
    labels = np.zeros((4, 30, 30), np.uint64)
    labels[:, :15] = 5
    layers = [
        {"kind": "raw", **store(tmp_path / "a.zarr", "raw", raw)},
        {"kind": "labels", **store(tmp_path / "a.zarr", "labels", labels)},
    ]
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = json.dumps({"bind_address": "127.0.0.1", "port": 0, "layers": layers})
    picture = tmp_path / "view.png"
    view.main(["--settings", settings, "--screenshot", str(picture), "--size", "600x300"])

    assert "without neuroglancer (no Chromium" in capsys.readouterr().out
    pixels = imread(picture)[..., :3]
    assert pixels.shape == (300, 600, 3)
    left, right = np.split(pixels, 2, axis=1)
    assert (left.max(axis=-1) - left.min(axis=-1)).max() < 0.05
    assert ((right.max(axis=-1) - right.min(axis=-1)) > 0.1).mean() > 0.1


def test_a_view_opens_with_raw_and_the_largest_segments() -> None:
    """25 segments of different sizes: the 20 largest are selected, and other layers are hidden."""
    segments = np.repeat(np.arange(26, dtype=np.uint64), np.arange(1, 27)).reshape(1, 3, 117)
    grey = np.zeros(segments.shape, np.uint8)
    layers = [
        layer("raw", grey),
        layer("labels", segments),
        layer("mask", grey),
        layer("affinities", np.stack([grey] * 3)),
        layer("lsds", np.stack([grey] * 10)),
        layer("fragments", segments),
        layer("segments", segments),
    ]
    state = build_viewer(layers).state
    visible = [item.name for item in state.layers if item.visible]
    shown = state.layers["segments"]

    assert visible == ["raw", "segments"]
    assert set(shown.segments) == set(range(6, 26))
    assert shown.not_selected_alpha > 0 and not state.show_slices
    assert len(state.layers) == 10
    assert [item.name for item in build_viewer(layers[:3]).state.layers if item.visible] == [
        "raw",
        "labels",
    ]


def test_only_the_middle_of_a_large_volume_is_read_for_colours() -> None:
    source = Counting(np.ones((70, 300, 300), np.uint64))
    build_viewer([ViewLayer("segments", "segments", Volume(source, VOXEL, (0, 0, 0), "s"))])

    assert source.read == 64 * 256 * 256


def test_neighbours_differ_in_colour() -> None:
    """Random cells: touching ids, and ids on both sides of a boundary of 0, differ clearly."""
    random = np.random.default_rng(0)
    grid = random.integers(1, 2**63, (6, 8, 8)).astype(np.uint64)
    labels = np.kron(grid, np.ones((5, 5, 5), np.uint64))
    labels[:, ::5] = 0
    numbers = colour_numbers(labels)
    pairs = neighbouring_ids(labels)

    assert len(pairs) == 5 * 8 * 8 + 2 * 6 * 7 * 8 and 0 not in numbers
    assert all(numbers[a] != numbers[b] for a, b in pairs.tolist())


def test_colours_of_the_palette_are_clearly_different() -> None:
    lab = rgb2lab(RGB)
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)

    assert (distances[~np.eye(len(PALETTE), dtype=bool)] > 40).all()


def test_an_id_with_more_neighbours_than_colours_has_the_rarest_colour() -> None:
    ring = np.arange(2, 52, dtype=np.uint64).repeat(2)
    labels = np.stack([ring, np.ones_like(ring)])
    numbers = colour_numbers(labels)

    others = [numbers[id_] for id_ in range(2, 52)]
    assert all(numbers[id_] != numbers[id_ + 1] for id_ in range(2, 51))
    assert others.count(numbers[1]) == min(others.count(n) for n in range(len(PALETTE)))


def test_captions_name_layer_and_section() -> None:
    layers = [
        layer("raw", np.zeros((10, 40, 40), np.uint8)),
        layer("segments", np.zeros((4, 10, 10), np.uint64), (60, 90, 180)),
    ]

    assert panel_captions(layers) == [["raw, z 5 (100 nm)", "segments, z 5 (100 nm)"]]
    assert caption("raw", -2, 4.6) == "raw, z -2 (-9.2 nm)"
    assert [scale_bar_nm(width) for width in (40, 999, 21000)] == [
        (10, "10 nm"),
        (200, "200 nm"),
        (5000, "5 µm"),
    ]
