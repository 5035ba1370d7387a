"""Drift of aligned stacks: the trend of the fields, its removal, and sections that are damaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny_seamless as tiny
from built_networks import built
from retrace.alignment.aligned_stack import ALIGNED, FIELD, AlignedStack
from retrace.alignment.aligner import Aligner, AlignmentPlan
from retrace.alignment.drift import DriftCorrector, fine_values, trend
from retrace.alignment.scoring import KnownDistortion, Scorer
from retrace.alignment.section_tiles import as_uint8
from retrace.displacement import smooth, warp
from retrace.storage.volumes import Volume

pytestmark = pytest.mark.usefixtures("tiny_threads")

VOXEL_NM = (40, 8, 8)
SHIFTS = [(0, 0), (2, -1), (-1, 2), (1, 1), (-2, 0), (2, 2), (0, -2)]


def volume(images: np.ndarray) -> Volume:
    return Volume(images, VOXEL_NM, (0, 0, 0), "sections")


def moved_blobs(shifts: Sequence[Sequence[int]] | np.ndarray, side: int = 96) -> np.ndarray:
    """The same blobs (n, side, side) uint8, moved by `shifts` (y, x) of less than 16 px."""
    random = torch.Generator().manual_seed(3)
    blobs = smooth(torch.rand(1, 1, side + 32, side + 32, generator=random), 2.0)[0, 0]
    blobs = 0.5 + 0.12 * (blobs - blobs.mean()) / blobs.std()
    parts = [blobs[16 + y : 16 + y + side, 16 + x : 16 + x + side] for y, x in shifts]
    return torch.stack(parts).clamp(0.01, 1).mul(255).round().to(torch.uint8).numpy()


def chained(folder: Path, sections: Volume, **changes: Any) -> AlignedStack:
    """The sections aligned one after the other by the correlation of their maps, untrained."""
    network = tiny.typed(tiny.network())
    plan = replace(AlignmentPlan.of(network.align), tile=256, **changes)
    stack = AlignedStack(folder / "chained.zarr", folder / "chained", sections, None)
    radius_px, fill = network.contrast.equalised_radius_px, network.input.mean
    module, device = built(network, seed=0).eval(), torch.device("cpu")
    Aligner(module, plan, device, radius_px=radius_px, fill=fill).run(stack)
    return stack


def corrected(folder: Path, stack: AlignedStack, reach: int = 12, tile: int = 96) -> AlignedStack:
    result = AlignedStack(folder / "a.zarr", folder / "work", stack.sections, None)
    DriftCorrector(stack, reach, tile).run(result)
    return result


def mean_field(stack: AlignedStack, z: int) -> np.ndarray:
    """Mean of the inner field of a section, (2,) px."""
    return np.asarray(stack.group[FIELD])[:, z, 24:-24, 24:-24].mean((1, 2))


def line(slope_px: float, sections: Tensor) -> Tensor:
    """Coarse fields (n, 2, 2, 3) that drift along y, 1 px at section 0."""
    fields = torch.zeros(len(sections), 2, 2, 3)
    fields[:, 0] = (1 + slope_px * sections.float())[:, None, None]
    return fields


def test_the_trend_of_steady_drift_is_the_drift_in_spite_of_an_outlier() -> None:
    around = torch.arange(-8, 9)
    fields = line(0.5, around)
    fields[3] += 30

    level = trend(fields, around, 8)

    torch.testing.assert_close(level[0], torch.ones(2, 3), atol=0.05, rtol=0)
    torch.testing.assert_close(level[1], torch.zeros(2, 3), atol=0.05, rtol=0)


def test_two_sections_stay_aligned() -> None:
    fields = line(4.0, torch.arange(2))

    difference = trend(fields, torch.arange(2) - 1, 12) - trend(fields, torch.arange(2), 12)

    assert difference.abs().max() < 0.2


def test_values_between_cells_do_not_depend_on_the_window() -> None:
    cells = torch.rand(2, 3, 2)
    whole = fine_values(cells, (slice(0, 96), slice(0, 50)))

    part = fine_values(cells, (slice(30, 70), slice(11, 50)))

    torch.testing.assert_close(part, whole[..., 30:70, 11:50])
    centre = whole[0, :, 15:17, 15:17].mean((1, 2))
    assert (centre - cells[:, 0, 0]).abs().max() < 0.03


def drifting(folder: Path) -> AlignedStack:
    """A stack whose fields drift by 1 px per section along x; section z lies at 3 (-1)^z px."""
    sections = volume(np.random.default_rng(0).integers(1, 255, (13, 64, 64), np.uint8))
    stack = AlignedStack(folder / "chained.zarr", folder / "chained", sections, None)
    for z in range(13):
        stack.group[FIELD][1, z] = z + 3 * (-1) ** z - 3
        stack.note(z)
    return stack


def test_steady_drift_is_removed_and_each_section_stays_in_its_place(tmp_path: Path) -> None:
    stack = drifting(tmp_path)

    result = corrected(tmp_path, stack)

    field = np.asarray(result.group[FIELD])
    assert np.abs(field[0]).max() < 1e-5
    assert np.abs(field[:, 0]).max() < 1e-5
    means = field[1, 1:].mean((1, 2)) - [3 * (-1) ** z - 3 for z in range(1, 13)]
    assert np.abs(means).max() < 2.5 < 12
    source = torch.from_numpy(stack.sections.array[6] / np.float32(255))[None, None]
    warped = warp(source, torch.from_numpy(field[None, :, 6]))
    difference = as_uint8(warped).astype(int) - np.asarray(result.group[ALIGNED])[6]
    assert np.abs(difference).max() <= 1


def test_tiles_and_interruptions_do_not_change_the_result(tmp_path: Path) -> None:
    expected = np.asarray(corrected(tmp_path / "whole", drifting(tmp_path)).group[FIELD])
    stack = drifting(tmp_path / "again")
    result = corrected(tmp_path / "again", stack, tile=24)
    journal = tmp_path / "again/work/done.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:5]))
    result.group[FIELD][:, 7:] = 0

    resumed = corrected(tmp_path / "again", stack, tile=24)

    np.testing.assert_allclose(np.asarray(resumed.group[FIELD]), expected, atol=1e-5)


@pytest.mark.parametrize("damage", ["noise", "torn"])
def test_sections_after_a_damaged_one_are_not_shifted(tmp_path: Path, damage: str) -> None:
    images = moved_blobs(SHIFTS)
    if damage == "noise":
        images[3] = np.random.default_rng(1).integers(1, 255, images.shape[1:], np.uint8)
    else:
        images[3, :, 48:] = np.roll(images[3, :, 48:], 31, axis=0)

    stack = chained(tmp_path / "with", volume(images))
    without = chained(tmp_path / "without", volume(images), realign_below=-1.0)

    def errors(result: AlignedStack) -> list[float]:
        return [float(np.abs(mean_field(result, z) + SHIFTS[z]).max()) for z in (4, 5, 6)]

    assert max(errors(stack)) < 0.4
    assert max(errors(without)) > 2 * max(errors(stack))


def test_drift_after_alignment_is_less_than_half_of_that_before(tmp_path: Path) -> None:
    count, side = 16, 96
    jitter = np.random.default_rng(2).integers(-3, 3, (count, 2), endpoint=True)
    oblique = np.outer(np.arange(count), [0.4, -0.5]).round().astype(int)
    sections = volume(moved_blobs(jitter + oblique, side))
    fields = np.broadcast_to(jitter.T[..., None, None], (2, count, side, side))
    known = KnownDistortion(
        volume(fields.astype(np.float32)), volume(np.zeros((count, side, side), np.uint8)), 1
    )
    stack = chained(tmp_path, sections)
    result = corrected(tmp_path, stack)

    def greatest(aligned: AlignedStack, after: bool = True) -> float:
        scorer = Scorer(sections, aligned.volume(ALIGNED), aligned.volume(FIELD), known)
        return max(scorer.drift(z, after) or 0.0 for z in range(1, count))

    before = greatest(stack, after=False)
    assert greatest(result) <= 0.5 * before
    assert greatest(stack) > before
