"""Drift of aligned stacks: the trend of the fields, its removal, and sections that are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blob_sections import SHIFTS, chained, moved_blobs, volume
from retrace.alignment.aligned_stack import ALIGNED, FIELD, AlignedStack
from retrace.alignment.drift import DriftCorrector, fine_values, trend
from retrace.alignment.scoring import KnownDistortion, Scorer
from retrace.alignment.section_tiles import as_uint8
from retrace.displacement import warp

pytestmark = pytest.mark.usefixtures("tiny_threads")


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


def test_a_stack_that_jumps_is_named_and_one_that_drifts_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrected(tmp_path / "drifting", drifting(tmp_path))
    assert "warning" not in capsys.readouterr().out
    jumping = drifting(tmp_path / "jumping")
    for z in range(13):
        jumping.group[FIELD][1, z] = 40 * (z > 6)
        jumping.note(z)

    corrected(tmp_path / "corrected", jumping)

    [line] = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert "drift_reach" in line and "mounted again" in line


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
