"""Exported layers open in a real neuroglancer, served by a plain web server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

import export
from retrace.storage.zarr_writer import create_volume
from retrace.viewing.browser import screenshot
from retrace.viewing.scene import start_server

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
    handler = partial(Files, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.parametrize("scale", [0.5, 2.0], ids=["the finest mip", "a coarser mip"])
def test_ids_land_where_they_belong(tmp_path: Path, served: str, scale: float) -> None:
    """Id 7 fills y 80:160, x 60:260 of the world, within 0:280, 0:300 of id 0."""
    import neuroglancer

    ids = np.zeros((8, 280, 300), np.uint64)
    ids[:, 80:160, 60:260] = 7
    place: dict[str, Any] = {"voxel_size_nm": VOXEL, "offset_nm": (0, 0, 0)}
    store = tmp_path / "s.zarr"
    create_volume(store, "segments", shape=ids.shape, chunks=(8, 64, 64), dtype=np.uint64, **place)[
        ...
    ] = ids
    source = {"path": str(store), "array": "segments"}
    chosen = {"format": "precomputed", "labels": True, "gzip": False}
    settings = {"source": source, "within": None, **chosen}
    folders = ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "segments")]
    export.main(["--settings", json.dumps(settings), *folders])

    start_server("127.0.0.1", 0)
    viewer = neuroglancer.Viewer()
    with viewer.txn() as state:
        state.dimensions = neuroglancer.CoordinateSpace(
            names=["x", "y", "z"], units="nm", scales=VOXEL[::-1]
        )
        state.position = [160, 120, 4.5]  # the middle of the id
        layer = neuroglancer.SegmentationLayer(source=f"precomputed://{served}/segments")
        state.layers["segments"] = layer
        state.show_axis_lines = state.show_default_annotations = state.show_scale_bar = False
        state.layout, state.cross_section_scale = "xy", scale
    picture = tmp_path / "view.png"
    screenshot(viewer, picture, SIZE)
    neuroglancer.stop()

    pixels = imread(picture)[..., :3]
    coloured = pixels.max(axis=-1) - pixels.min(axis=-1) > 0.1
    rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured.any(axis=0))
    measured = [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]
    half = [min(80 / scale, SIZE[1]) / 2, min(200 / scale, SIZE[0]) / 2]
    middle = [SIZE[1] / 2, SIZE[0] / 2]
    expected = [middle[0] - half[0], middle[0] + half[0], middle[1] - half[1], middle[1] + half[1]]
    assert measured == pytest.approx(expected, abs=3)
