"""Masks of defects in whole sections: read from a layer, used by the alignment, aligned with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
import zarr

from blob_sections import SHIFTS, chained, moved_blobs, volume
from built_networks import built
from retrace.alignment.aligned_stack import ALIGNED, FIELD, MASK, AlignedStack
from retrace.alignment.detector import Detector, StoredDefectNetwork
from retrace.alignment.drift import DriftCorrector
from retrace.alignment.section_detection import SectionDetector
from retrace.alignment.section_masks import SectionMasks, open_marked
from retrace.alignment.section_tiles import write_tile
from retrace.alignment.volume import align_volume
from retrace.checkpoints.safetensors import save_model
from retrace.config.alignment_model import DefectDetector
from retrace.config.datasets import load_dataset
from retrace.config.yaml_files import merge
from retrace.formats.source import DefectMaskSource, Source
from retrace.networks.defect_unet import DefectNet
from retrace.planning.align import align_settings
from retrace.planning.align_settings import AlignSettings
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume
from run_config import run_config
from tiny_seamless import SECTIONS, network, typed

pytestmark = pytest.mark.usefixtures("tiny_threads")


def masks_of(sections: Volume, bad: np.ndarray, near_px: int = 2) -> SectionMasks:
    return SectionMasks(sections, (Volume(bad, (40, 8, 8), (0, 0, 0), "mask"),), near_px)


def test_a_layer_of_larger_voxels_marks_defects_from_a_value_on(tmp_path: Path) -> None:
    marked = np.zeros((2, 4, 4), np.uint8)
    marked[1, 1, 2], marked[1, 3, 3] = 120, 99
    store = tmp_path / "mask.zarr"
    place = {"voxel_size_nm": (40, 32, 32), "offset_nm": (0, 0, 0)}
    array = create_volume(store, "bad", shape=(2, 4, 4), chunks=(1, 4, 4), dtype="uint8", **place)
    array[:] = marked
    source = DefectMaskSource(path=str(store), array="bad").complete()
    sections = volume(np.ones((2, 16, 16), np.uint8))

    masks = SectionMasks(sections, (open_marked(source),), 3)  # type: ignore[arg-type]

    labels = masks.read(1, (slice(2, 16), slice(0, 16)))[0, 0].numpy()
    expected = np.zeros((16, 16), np.uint8)
    expected[1:11, 5:15] = 1
    expected[4:8, 8:12] = 2
    np.testing.assert_array_equal(labels, expected[2:])
    assert masks.read(0, (slice(0, 16), slice(0, 16))).max() == 0


def test_masks_are_moved_with_the_field_and_kept_by_the_correction(tmp_path: Path) -> None:
    sections = volume(np.full((2, 32, 32), 9, np.uint8))
    bad = np.zeros((2, 32, 32), np.uint8)
    bad[:, 10:14, 10:14] = 1
    masks = masks_of(sections, bad)
    stack = AlignedStack(tmp_path / "a.zarr", tmp_path / "work", sections, None, masks=masks)
    field = torch.zeros(1, 2, 32, 32)
    whole = (slice(0, 32), slice(0, 32))
    write_tile(stack, 0, whole, field)
    field[:, 0], field[:, 1] = 3.0, -2.5
    write_tile(stack, 1, whole, field)
    for z in (0, 1):
        stack.note(z)

    labels = np.asarray(stack.group[MASK])
    inside = np.zeros((32, 32), bool)
    inside[7:11, 12:17] = True  # half a pixel touches one more column
    np.testing.assert_array_equal(labels[1] == 2, inside)
    np.testing.assert_array_equal(labels[0] == 2, bad[0] == 1)
    copy = AlignedStack(tmp_path / "b.zarr", tmp_path / "copy", sections, None, masks=masks)
    DriftCorrector(stack, 4, 32).run(copy)
    assert (np.asarray(copy.group[MASK])[1] == 2)[7:11, 12:17].all()


def test_pixels_inside_defects_do_not_pull_the_field(tmp_path: Path) -> None:
    images = moved_blobs(SHIFTS)
    bad = np.zeros(images.shape, np.uint8)
    bad[3, :, 40:] = 1
    images[3, :, 40:] = np.roll(images[3, :, 40:], 5, axis=0)
    sections = volume(images)

    with_masks = chained(tmp_path / "with", sections, masks_of(sections, bad), realign_below=-1.0)
    without = chained(tmp_path / "without", sections, realign_below=-1.0)

    def errors(stack: AlignedStack) -> list[float]:
        fields = np.asarray(stack.group[FIELD])[:, :, 24:-24, 24:-24].mean((2, 3))
        return [float(np.abs(fields[:, z] + SHIFTS[z]).max()) for z in (3, 4, 5)]

    assert max(errors(with_masks)) < 0.6
    assert max(errors(without)) > 2 * max(errors(with_masks))
    assert MASK in with_masks.group
    assert MASK not in without.group
    assert np.asarray(with_masks.group[ALIGNED]).shape == images.shape


def test_align_reads_the_mask_layer_of_the_dataset(tmp_path: Path) -> None:
    content = merge(SECTIONS, {"alignment": {"mask": {"path": "file:///masks", "defect_from": 7}}})
    file = tmp_path / "slices.yaml"
    file.write_text(yaml.safe_dump(content))

    settings = align_settings(run_config(), load_dataset(file), typed(network()))

    assert settings.mask is not None
    assert (settings.mask.path, settings.mask.defect_from) == ("file:///masks", 7)
    assert settings.near_px == 75
    assert settings.detect is None


def test_align_detects_the_defects_of_all_sections(tmp_path: Path) -> None:
    images = moved_blobs(SHIFTS[:3], 64)
    images[2] = 90  # a section of one value is a defect as a whole
    raw = tmp_path / "raw.zarr"
    place = {"voxel_size_nm": (40, 8, 8), "offset_nm": (0, 0, 0)}
    create_volume(raw, "raw", shape=images.shape, chunks=(1, 64, 64), dtype="uint8", **place)[:] = (
        images
    )
    settings = AlignSettings(
        dataset="slices",
        network=typed(network()),
        sections=Source(path=str(raw), array="raw").complete(),
        detect=DefectDetector(threshold=0.99, smallest_px=4, fmaps=2),
        near_px=1,
        gzip=False,
        device="cpu",
    ).complete()
    model, defects = tmp_path / "m.safetensors", tmp_path / "d.safetensors"
    save_model(model, built(network(), seed=0), {"network": typed(network()).plain()})
    stored = StoredDefectNetwork(fmaps=2).complete().plain()
    save_model(defects, DefectNet(2), {"network": stored})
    layers = {"layer": tmp_path / "image", "field_layer": tmp_path / "field"}

    align_volume(settings, model, defects, tmp_path / "work", tmp_path / "a.zarr", **layers)

    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    moved = np.asarray(group[MASK])
    expected = SectionDetector(
        Detector(DefectNet(2), threshold=0.99, smallest_px=4, near_px=1),
        volume(images),
        tmp_path / "again.zarr",
        tmp_path / "again",
    ).run()
    np.testing.assert_array_equal(moved[0] == 2, np.asarray(expected.array[:])[0] == 1)
    assert (moved[2, 16:48, 16:48] == 2).all()
    assert str(defects) in (tmp_path / "a.manifest.json").read_text()
