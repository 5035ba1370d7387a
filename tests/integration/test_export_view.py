"""Exported layers open in a real neuroglancer, served by a plain web server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

import export
import file_server
from conftest import REPOSITORY
from kill import PATIENCE_S
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume
from retrace.viewing.browser import FLAGS, screenshot
from retrace.viewing.exported_meshes import ExportedMeshes
from retrace.viewing.scene import GREY, local_volume, start_server

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("browser")]

SIZE = (600, 400)
VOXEL = (20, 9, 9)


class Files(SimpleHTTPRequestHandler):
    """Files of a folder, for pages of other servers too."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Silent."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    with file_server.answering(partial(Files, directory=str(tmp_path))) as address:
        yield address


def export_layer(
    folder: Path, name: str, data: np.ndarray, offset: Sequence[int], shapes: bool = False
) -> None:
    """Exports `data` (Z, Y, X), whose first voxel is `offset` (z, y, x), with default settings."""
    store = folder / f"{name}.zarr"
    created = create_volume(
        store,
        name,
        shape=data.shape,
        chunks=(8, 64, 64),
        dtype=data.dtype,
        voxel_size_nm=VOXEL,
        offset_nm=[o * size for o, size in zip(offset, VOXEL, strict=True)],
    )
    created[...] = data
    source = {"path": str(store), "array": name}
    settings: dict[str, Any] = {
        "format": "precomputed",
        "source": source,
        "labels": name == "segments",
    }
    if shapes:
        settings["shapes"] = {"meshes": True, "skeletons": True}
    places = ["--work", str(folder / f"work_{name}"), "--output", str(folder / name)]
    export.main(["--settings", json.dumps(settings), *places])


def picture(
    layer: Any, folder: Path, middle: Sequence[float], scale: float, layout: str = "xy"
) -> np.ndarray:
    """The section (H, W, 3) that neuroglancer draws; `middle` x, y, z and `scale` in voxels.

    With the layout 3d: meshes, seen along z, without sections.
    """
    import neuroglancer

    start_server("127.0.0.1", 0)
    viewer = neuroglancer.Viewer()
    with viewer.txn() as state:
        state.dimensions = neuroglancer.CoordinateSpace(
            names=["x", "y", "z"], units="nm", scales=VOXEL[::-1]
        )
        state.position = middle
        state.layers["layer"] = layer
        state.show_axis_lines = state.show_default_annotations = state.show_scale_bar = False
        state.layout, state.cross_section_scale = layout, scale
        state.projection_scale, state.show_slices = scale * SIZE[1], False
    (folder / "view.png").write_bytes(screenshot(viewer, SIZE))
    neuroglancer.stop()
    return imread(folder / "view.png")[..., :3]


VOXEL_PIXELS = 8
"""Pixels along the edge of a voxel in the pictures where every voxel is compared."""
COLOURS = {0: "#808080", 7: "#ff0000", 2**40: "#00ff00", 2**63: "#0000ff"}
"""By id the colour in pictures; neuroglancer draws 0 in the grey of the background."""


def voxel_colours(pixels: np.ndarray, window: Sequence[int]) -> np.ndarray:
    """The colour (H, W, 3), 0 to 255, at the middle of each voxel of a `window` (h, w).

    `pixels` (H, W, 3) has the window in its middle.
    """
    halves = zip(window, SIZE[::-1], strict=True)
    rows, columns = (
        [size // 2 + VOXEL_PIXELS * (i - n // 2) + VOXEL_PIXELS // 2 for i in range(n)]
        for n, size in halves
    )
    return np.round(pixels[np.ix_(rows, columns)] * 255).astype(int)


@pytest.mark.parametrize("name", ["raw", "segments"])
def test_every_voxel_is_where_it_belongs(tmp_path: Path, served: str, name: str) -> None:
    """A window of 44 x 70 voxels around y 30, x 40 of the volume, which starts at an odd voxel."""
    import neuroglancer

    random, offset = np.random.default_rng(0), (3, 5, -7)
    if name == "raw":
        data = random.integers(0, 256, (8, 100, 120), np.uint8)
        layer = neuroglancer.ImageLayer(
            source=f"precomputed://{served}/raw", shader=GREY, opacity=1
        )
    else:
        data = random.choice(np.array(list(COLOURS), np.uint64), (8, 100, 120))
        layer = neuroglancer.SegmentationLayer(
            source=f"precomputed://{served}/segments",
            segment_colors=COLOURS,
            segments=[value for value in COLOURS if value],
            selected_alpha=1,
            not_selected_alpha=0,
            hover_highlight=False,
        )
    export_layer(tmp_path, name, data, offset)
    middle = [offset[2] + 40, offset[1] + 30, offset[0] + 2.5]
    pixels = picture(layer, tmp_path, middle, 1 / VOXEL_PIXELS)

    window = data[2, 30 - 22 : 30 + 22, 40 - 35 : 40 + 35]
    shown = voxel_colours(pixels, window.shape)
    if name == "raw":
        expected = np.repeat(window[..., None], 3, axis=-1)
    else:
        codes = {value: list(bytes.fromhex(text[1:])) for value, text in COLOURS.items()}
        expected = np.array([[codes[int(value)] for value in row] for row in window])
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize(
    ("scale", "layout"),
    [(0.5, "xy"), (2.0, "xy"), (1.0, "3d"), (1.0, "view")],
    ids=["the finest mip", "a coarser mip", "the mesh", "the mesh in a view"],
)
def test_ids_land_where_they_belong(tmp_path: Path, served: str, scale: float, layout: str) -> None:
    """Id 7 fills y 80:160, x 60:260 of the world, within 0:280, 0:300 of id 0."""
    import neuroglancer

    ids = np.zeros((8, 280, 300), np.uint64)
    ids[:, 80:160, 60:260] = 7
    export_layer(tmp_path, "segments", ids, (-2, 9, -7), shapes=layout != "xy")
    source: Any = f"precomputed://{served}/segments"
    if layout == "view":
        volume = Volume(ids, VOXEL, (-2 * 20, 9 * 9, -7 * 9), "segments")
        meshes = ExportedMeshes(tmp_path / "segments/mesh")
        source = local_volume(volume, labels=True, meshes=meshes)
    layer = neuroglancer.SegmentationLayer(source=source, segments=[7] if layout != "xy" else [])
    middle_voxel = [160 - 7, 120 + 9, 2.5] if layout == "xy" else [160 - 7, 120 + 9, 2]
    shown = "xy" if layout == "xy" else "3d"
    pixels = picture(layer, tmp_path, middle_voxel, scale, shown)  # the middle of the id

    coloured = pixels.max(axis=-1) - pixels.min(axis=-1) > 0.1
    rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured.any(axis=0))
    measured = [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]
    half = [min(80 / scale, SIZE[1]) / 2, min(200 / scale, SIZE[0]) / 2]
    middle = [SIZE[1] / 2, SIZE[0] / 2]
    expected = [middle[0] - half[0], middle[0] + half[0], middle[1] - half[1], middle[1] + half[1]]
    assert measured == pytest.approx(expected, abs=3)


def test_the_link_of_served_layers_opens_them(tmp_path: Path) -> None:
    """serve.py as a process: its address shows an image and ids in neuroglancer."""
    raw = np.full((8, 60, 80), 120, np.uint8)
    ids = np.zeros((8, 60, 80), np.uint64)
    ids[:, 20:40, 20:60] = 7
    export_layer(tmp_path / "layers", "raw", raw, (3, 5, -7))
    export_layer(tmp_path / "layers", "segments", ids, (3, 5, -7))
    program = str(REPOSITORY / "workflow/scripts/serve.py")
    command = [sys.executable, program, "--port", "0", str(tmp_path / "layers")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            link = process.stdout.readline().split()[-1]
            picture, messages = page(link, tmp_path / "page.png")
            assert all("favicon" in message for message in messages), messages
            assert segment_pixels(picture) > 500
            assert (np.abs(picture - 120 / 255) < 0.02).all(axis=-1).sum() > 500
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def page(link: str, path: Path) -> tuple[np.ndarray, list[str]]:
    """A screenshot (H, W, 3) of a page once its layers are drawn, and what its console says."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", *FLAGS, f"--user-data-dir={path.parent / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    with webdriver.Chrome(options) as driver:
        driver.get(link)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            time.sleep(1)
            driver.save_screenshot(str(path))
            if segment_pixels(imread(path)[..., :3]) > 500:
                break
        return imread(path)[..., :3], [entry["message"] for entry in driver.get_log("browser")]


def segment_pixels(picture: np.ndarray) -> int:
    """Number of pixels with the colours of ids over grey; lines are of pure colours."""
    spread = picture.max(axis=-1) - picture.min(axis=-1)
    mixed = (picture > 0.15).all(axis=-1) & (picture < 0.9).all(axis=-1)
    return int((mixed & (spread > 0.1)).sum())
