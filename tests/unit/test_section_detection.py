"""Defects of whole sections, detected tile by tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retrace.alignment import section_detection
from retrace.alignment.detector import Detector
from retrace.alignment.section_detection import SectionDetector
from retrace.networks.defect_unet import DefectNet
from retrace.storage.volumes import Volume

pytestmark = pytest.mark.usefixtures("tiny_threads")


def detector() -> Detector:
    """An untrained network whose threshold marks about half of the pixels."""
    torch.manual_seed(0)
    return Detector(DefectNet(2), threshold=0.55, smallest_px=30, near_px=0)


def sections() -> Volume:
    random = np.random.default_rng(0)
    images = random.integers(1, 255, (2, 141, 130), np.uint8)
    images[1] = 9
    return Volume(np.repeat(np.repeat(images, 3, 1), 3, 2), (40, 8, 8), (0, 0, 0), "sections")


def detected(folder: Path) -> np.ndarray:
    run = SectionDetector(detector(), sections(), folder / "m.zarr", folder / "work").run()
    return np.asarray(run.array[:])


def test_tiles_give_the_defects_of_whole_sections_and_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(section_detection, "TILE_PX", 64)
    whole = detector()(sections().array) == 2
    assert 0.05 < whole[0].mean() < 0.95

    found = detected(tmp_path)

    assert (found.astype(bool) == whole).mean() > 0.9999
    assert found[1].all()
    lines = (tmp_path / "work/done.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "work/done.jsonl").write_text(lines[1])
    np.testing.assert_array_equal(detected(tmp_path), found)
