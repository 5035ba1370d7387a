"""Layers appear at the right position in neuroglancer in a headless browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import neuroglancer
import numpy as np
import pytest
from matplotlib.image import imread
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

import tiny_workflow
import view
from conftest import REPOSITORY
from kill import PATIENCE_S
from retrace.config.view_model import ViewLayerSource
from retrace.storage.zarr_writer import create_volume
from retrace.viewing.browser import headless_browser
from retrace.viewing.error_layer import error_layers
from retrace.viewing.layers import open_layers
from retrace.viewing.scene import build_viewer, start_server

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("browser")]

VOXEL = (20, 9, 9)
SIZE = (1200, 400)
GAP = 9
"""Pixels between two panels."""
PANEL = (SIZE[0] - 3 * GAP) / 4
"""Width of one of four panels, pixels."""
TOLERANCE = 3
"""Pixels: rounding, and the line around the layer in the foreground."""


def write(path: Path, array: str, data: np.ndarray, start: tuple[int, int, int]) -> dict[str, Any]:
    created = create_volume(
        path,
        array,
        shape=data.shape,
        chunks=data.shape,
        dtype=data.dtype,
        voxel_size_nm=VOXEL,
        offset_nm=[s * v for s, v in zip(start, VOXEL, strict=True)],
    )
    created[:] = data
    return {"path": str(path), "array": array}


@pytest.fixture
def layers(tmp_path: Path) -> list[dict[str, Any]]:
    """Grey raw of 12 x 60 x 60 voxels; the others cover y 20:50, x 5:45 of it, z 4:8.

    In that box the upper left 10 x 10 voxels (y 20:30, x 5:15) carry label 7 and differ in colour.
    """
    raw = np.full((12, 60, 60), 90, np.uint8)
    raw[:, 20:30, 5:15] = 250
    affs = np.zeros((3, 4, 30, 40), np.uint8)
    affs[0, :, :10, :10] = 255
    lsds = np.zeros((10, 4, 30, 40), np.float32)
    lsds[1, :, :10, :10] = 1
    labels = np.zeros((4, 30, 40), np.uint64)
    labels[:, :10, :10] = 7
    store, start = tmp_path / "all.zarr", (4, 20, 5)
    return [
        {"kind": "raw", **write(store, "raw", raw, (0, 0, 0))},
        {"kind": "affinities", **write(store, "affs", affs, start)},
        {"kind": "lsds", **write(store, "lsds", lsds, start)},
        {"kind": "segments", **write(store, "segments", labels, start)},
        {"kind": "fragments", "path": str(tmp_path / "not_yet.zarr"), "array": "fragments"},
    ]


def settings(layers: list[dict[str, Any]]) -> str:
    where = {"bind_address": "127.0.0.1", "port": 0, "meshes": "not_exported"}
    return json.dumps({**where, "layers": layers})


def corners(marked: np.ndarray) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, left, right) that hold marked pixels."""
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def expected_corners() -> tuple[float, float, float, float]:
    """Corners of the 10 x 10 voxels in a panel centred on the box of 30 x 40 voxels."""
    voxel = PANEL / (40 * 1.04)
    top, left = SIZE[1] / 2 - 15 * voxel, PANEL / 2 - 20 * voxel
    return top, top + 10 * voxel, left, left + 10 * voxel


def test_layers_land_where_they_belong(
    layers: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "view.png"
    size = f"{SIZE[0]}x{SIZE[1]}"
    view.main(["--settings", settings(layers), "--screenshot", str(picture), "--size", size])
    out = capsys.readouterr().out
    assert "headless browser" in out
    assert "left out: fragments" in out

    pixels = imread(picture)[..., :3]
    assert pixels.shape == (SIZE[1], SIZE[0], 3)
    starts = [round(index * (PANEL + GAP)) for index in range(4)]
    raw, affs, lsds, segments = (pixels[:, start : start + int(PANEL)] for start in starts)
    colour = segments.max(axis=-1) - segments.min(axis=-1)
    rows = np.arange(SIZE[1])[:, None]
    scale_bar = (rows >= SIZE[1] - 50) | (rows < 30)  # and the caption
    for name, marked in {
        "raw": (raw.min(axis=-1) > 0.95) & ~scale_bar,
        "affinities": (affs[..., 0] > 0.9) & (affs[..., 1:] < 0.1).all(axis=-1),
        "lsds": (lsds[..., 1] > 0.9) & (lsds[..., [0, 2]] < 0.1).all(axis=-1),
        "segments": colour > 0.1,
    }.items():
        positions = corners(marked)
        assert positions == pytest.approx(expected_corners(), abs=TOLERANCE), name


def listed_error(rank: int, point: tuple[int, int, int]) -> dict[str, Any]:
    """An error at a voxel (z, y, x), as errors.json lists it."""
    ids = {"segments": [7], "ground_truth": [5], "voxels": 9}
    place = [(p + 0.5) * v for p, v in zip(point, VOXEL, strict=True)]
    share = {"voi_bits": 1 / rank, "voi_fraction": 0.01}
    return {"rank": rank, "kind": "split", **ids, **share, "point_nm": place}


def test_a_right_click_on_a_listed_error_moves_the_view_to_it(
    layers: list[dict[str, Any]],
) -> None:
    places = [(5, 24, 9), (6, 44, 31)]
    errors = [listed_error(rank, place) for rank, place in enumerate(places, 1)]
    lists = {"voxels": {"counted": "voxels", "errors": errors}}
    content = {"volumes": {"v": {"volume": "v", "lists": lists}}}
    opened, _ = open_layers([ViewLayerSource.model_validate(layer) for layer in layers])
    start_server("127.0.0.1", 0)
    viewer = build_viewer(opened, error_layers(content))
    try:
        with headless_browser(viewer, (1600, 900)) as driver:
            wait = WebDriverWait(driver.driver, PATIENCE_S)
            entries = "neuroglancer-annotation-list-entry"
            wait.until(lambda found: len(found.find_elements(By.CLASS_NAME, entries)) == 2)
            for number, (z, y, x) in ((1, places[1]), (0, places[0])):
                entry = driver.driver.find_elements(By.CLASS_NAME, entries)[number]
                ActionChains(driver.driver).context_click(entry).perform()
                middle = [x + 0.5, y + 0.5, z + 0.5]
                wait.until(lambda _, at=middle: np.allclose(viewer.state.position, at))
    finally:
        neuroglancer.stop()


def test_serves_until_interrupted(layers: list[dict[str, Any]]) -> None:
    command = [sys.executable, str(REPOSITORY / "workflow" / "scripts" / "view.py"), "--serve"]
    process = subprocess.Popen(
        [*command, "--settings", settings(layers)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        printed: list[str] = []
        while "open http" not in "".join(printed[-1:]):
            printed.append(process.stdout.readline())
            assert printed[-1], printed
        assert "meshes: neuroglancer computes them" in printed[-2]
        address = printed[-1].split()[2]
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as page:
            assert b"neuroglancer" in page.read().lower()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.stdout.close()


DATASET = """\
name: mine
voxel_size_nm: [20, 9, 9]
volumes: {a: {raw: {path: all.zarr, array: raw}}}
test: [a]
"""


def test_ctrl_c_ends_a_served_view_with_success(
    layers: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The terminal sends the signal to Snakemake and to its jobs."""
    (tmp_path / "config/datasets").mkdir(parents=True)
    (tmp_path / "config/datasets/mine.yaml").write_text(DATASET)
    arguments = ["view_data_mine", "--cores", "1", "--config", "serve=true"]
    with tiny_workflow.start(tmp_path, arguments, in_own_group=True) as process:
        assert process.stdout is not None
        try:
            address = next(line for line in process.stdout if "open http" in line)
            os.killpg(process.pid, signal.SIGINT)
            printed, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 0, address + printed
