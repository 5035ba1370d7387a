"""Alignment of a stack: tiles, resuming, rendering, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

import tiny_seamless as tiny
from built_networks import built
from retrace.alignment.aligned_stack import ALIGNED, FIELD, RENDERED, AlignedStack
from retrace.alignment.aligner import Aligner, AlignmentPlan
from retrace.alignment.section_tiles import check_fine, windows
from retrace.config.any_network import of_family
from retrace.errors import DataError
from retrace.networks.builders import pyramid_of
from retrace.networks.seamless import Seamless
from retrace.storage.volumes import Volume

pytestmark = pytest.mark.usefixtures("tiny_threads")


def volume(sections: int = 3, side: int = 96, pixel_nm: int = 8) -> Volume:
    images = tiny.stack(2, sections, side).images.mul(255).round().to(torch.uint8).numpy()
    return Volume(images, (40, pixel_nm, pixel_nm), (0, 0, 0), "sections")


def moving() -> Seamless:
    """An untrained network that moves sections by a little, differently everywhere."""
    module = built(tiny.network(zero_start=False), seed=1)
    with torch.no_grad():
        for aligner in module.aligners:
            aligner[-1].weight.mul_(0.5)  # type: ignore[index]
    return module.eval()


def plan(**changes: Any) -> AlignmentPlan:
    return replace(AlignmentPlan.of(tiny.typed(tiny.network()).align), **changes)


def aligned(
    folder: Path, plan: AlignmentPlan, sections: Volume, fine: Volume | None = None
) -> zarr.Group:
    stack = AlignedStack(folder / "a.zarr", folder / "work", sections, fine)
    network = tiny.typed(tiny.network())
    radius_px, fill = network.contrast.equalised_radius_px, network.input.mean
    device = torch.device("cpu")
    Aligner(moving(), plan, device, radius_px=radius_px, fill=fill).run(stack)
    return stack.group


def test_windows_cover_a_section_once_on_the_grid_of_the_pooling() -> None:
    covered = np.zeros((70, 50), int)
    for window in windows((70, 50), 32, 10, 4):
        covered[window.core] += 1
        assert all(s.start % 4 == 0 and (s.stop - s.start) % 4 == 0 for s in window.read)
        assert all(
            s.start >= 0 and s.stop <= most for s, most in zip(window.read, (72, 52), strict=True)
        )

    assert (covered == 1).all()


def test_tiles_with_enough_overlap_equal_the_whole_section(tmp_path: Path) -> None:
    reach = tiny.receptive_radius(pyramid_of(of_family(tiny.network()))) + 8
    whole = aligned(tmp_path / "whole", plan(tile=96, overlap=reach), volume())
    tiled = aligned(tmp_path / "tiled", plan(tile=32, overlap=reach), volume())

    field = np.asarray(whole[FIELD])
    assert np.abs(field[:, 1:]).max() > 0.05
    np.testing.assert_allclose(np.asarray(tiled[FIELD])[:, :2], field[:, :2], atol=1e-4)
    # later sections are aligned to rounded grey values
    np.testing.assert_allclose(np.asarray(tiled[FIELD]), field, atol=0.01)
    assert np.abs(field[:, 0]).max() == 0
    np.testing.assert_array_equal(np.asarray(whole[ALIGNED])[0], volume().array[0])


def test_an_interrupted_alignment_resumes_with_the_same_result(tmp_path: Path) -> None:
    expected = np.asarray(aligned(tmp_path / "whole", plan(), volume())[ALIGNED])
    folder = tmp_path / "again"
    aligned(folder, plan(), volume())
    lines = (folder / "work/done.jsonl").read_text().splitlines()
    (folder / "work/done.jsonl").write_text("\n".join(lines[:2]) + "\n")
    stack = AlignedStack(folder / "a.zarr", folder / "work", volume(), None)
    stack.group[ALIGNED][2] = 0
    assert stack.has_section(1)
    assert not stack.has_section(2)

    np.testing.assert_array_equal(np.asarray(aligned(folder, plan(), volume())[ALIGNED]), expected)


def test_a_section_whose_bytes_changed_is_aligned_again(tmp_path: Path) -> None:
    group = aligned(tmp_path, plan(), volume())
    expected = np.asarray(group[ALIGNED])
    group[ALIGNED][1] = 7

    np.testing.assert_array_equal(
        np.asarray(aligned(tmp_path, plan(), volume())[ALIGNED]), expected
    )


def test_several_targets_vote(tmp_path: Path) -> None:
    single = aligned(tmp_path / "one", plan(targets=1), volume(4))
    several = aligned(tmp_path / "three", plan(targets=3), volume(4))

    np.testing.assert_array_equal(
        np.asarray(several[FIELD])[:, :3], np.asarray(single[FIELD])[:, :3]
    )
    assert not np.array_equal(np.asarray(several[FIELD])[:, 3], np.asarray(single[FIELD])[:, 3])


def test_a_finer_mip_is_rendered_through_the_same_field(tmp_path: Path) -> None:
    fine = volume(3, 96, 4)
    coarse = fine.array.reshape(3, 48, 2, 48, 2).mean((2, 4)).round().astype(np.uint8)
    sections = Volume(coarse, (40, 8, 8), (0, 0, 0), "coarse")

    group = aligned(tmp_path, plan(), sections, fine)

    rendered = np.asarray(group[RENDERED]).astype(float)
    assert rendered.shape == (3, 96, 96)
    np.testing.assert_array_equal(rendered[0], fine.array[0])
    pooled = rendered.reshape(3, 48, 2, 48, 2).mean((2, 4))[:, 8:-8, 8:-8]
    difference = np.abs(pooled - np.asarray(group[ALIGNED])[:, 8:-8, 8:-8])
    assert difference.mean() < 4


def test_unalignable_volumes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs 2 or more"):
        aligned(
            tmp_path / "one",
            plan(),
            Volume(np.ones((1, 32, 32), np.uint8), (40, 8, 8), (0, 0, 0), "s"),
        )
    with pytest.raises(DataError, match="max_displacement: 0"):
        aligned(tmp_path / "far", plan(max_displacement=0), volume())
    with pytest.raises(DataError, match="as fine as `mip` or finer"):
        check_fine(volume(), volume(3, 96, 16))


def test_empty_sections_stay_empty(tmp_path: Path) -> None:
    images = volume().array.copy()
    images[1] = 0

    group = aligned(tmp_path, plan(), Volume(images, (40, 8, 8), (0, 0, 0), "sections"))

    assert np.asarray(group[ALIGNED])[1].max() == 0
    assert np.isfinite(np.asarray(group[FIELD])).all()
