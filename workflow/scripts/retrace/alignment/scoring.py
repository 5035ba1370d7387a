"""Scores of an aligned stack, section by section, and their plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from retrace.alignment.metrics import (
    chunked_correlation,
    correlation_summary,
    drift,
    endpoint_errors,
    error_summary,
    field_facts,
    remaining_displacement,
)
from retrace.alignment.prepare import valid_mask
from retrace.alignment.stack_sampling import DEFECTS, DISPLACEMENT
from retrace.displacement import downsample, inside
from retrace.errors import DataError
from retrace.geometry import VoxelBox, pixel_factor
from retrace.progress import progress
from retrace.storage.volumes import Volume, open_volume
from retrace.targets.ternary import dilate
from retrace.viewing.displacement_pictures import png_bytes

MARGIN_PX = 16
"""Border of a section, pixels, in which errors do not count: other tissue moves in there."""


@dataclass(frozen=True)
class KnownDistortion:
    """The displacements and defects applied to the sections (see stack_files.Stack).

    `factor`: pixels of the ground truth per pixel of the sections.
    """

    displacement: Volume
    defects: Volume
    factor: int

    @classmethod
    def open(cls, store: Path, sections: Volume) -> KnownDistortion:
        """The ground truth that `stacks.py make` wrote."""
        displacement = open_volume(store, DISPLACEMENT)
        factor = pixel_factor(sections.voxel_size_nm, displacement.voxel_size_nm)
        return cls(displacement, open_volume(store, DEFECTS), factor)

    def read(self, z: int) -> tuple[Tensor, Tensor]:
        """Displacement (1, 2, H, W) px, and 1 in or near defects (1, 1, H, W), of section `z`."""
        box = self.displacement.box
        window = VoxelBox((box.offset[0] + z, *box.offset[1:]), (1, *box.shape[1:]))
        field = torch.from_numpy(self.displacement.read(window)[:, 0].astype(np.float32))[None]
        labels = torch.from_numpy(self.defects.read(window).astype(np.float32))[None]
        near = functional.max_pool2d(self._whole(labels), self.factor)
        return downsample(self._whole(field), self.factor), (near > 0).float()

    def _whole(self, values: Tensor) -> Tensor:
        """(1, C, H, W) padded with its border to whole pixels of the sections."""
        pads: list[int] = []
        for begin, end in zip(
            self.displacement.box.offset[:0:-1], self.displacement.box.end[:0:-1], strict=True
        ):
            pads += [begin % self.factor, -end % self.factor]
        return functional.pad(values, pads, mode="replicate")


@dataclass(frozen=True)
class ScoredSection:
    """A section to compare: `image` (H, W) in [0, 1] and where it is `valid` (H, W).

    `remaining` (1, 2, H, W) px: its remaining displacement, None if unknown. `clean` (1, 1, H, W):
    1 where errors count, away from defects and borders.
    """

    image: np.ndarray
    valid: np.ndarray
    remaining: Tensor | None
    clean: Tensor


class Scorer:
    """Scores the sections of a stack before and after alignment."""

    def __init__(
        self,
        sections: Volume,
        aligned: Volume,
        field: Volume,
        known: KnownDistortion | None,
    ) -> None:
        """`known`: the distortion that was applied to the sections, if any."""
        self.sections, self.aligned, self.field, self.known = sections, aligned, field, known
        self.shape = sections.box.shape[1:]

    def read_image(self, volume: Volume, z: int) -> np.ndarray:
        """Section `z` of a volume, (H, W) float32 in [0, 1]."""
        box = volume.box
        data = volume.read(VoxelBox((box.offset[0] + z, *box.offset[1:]), (1, *box.shape[1:])))[0]
        scale = 255 if data.dtype == np.uint8 else 1
        return np.asarray(data.astype(np.float32) / scale)

    def read_field(self, z: int) -> Tensor:
        """The field of section `z`, (1, 2, H, W) px."""
        box = self.field.box
        window = VoxelBox((box.offset[0] + z, *box.offset[1:]), (1, *box.shape[1:]))
        return torch.from_numpy(self.field.read(window)[:, 0].astype(np.float32))[None]

    def section(self, z: int, after: bool) -> ScoredSection:
        """Section `z` before or after alignment."""
        image = self.read_image(self.aligned if after else self.sections, z)
        valid = valid_mask(torch.from_numpy(image))
        field = self.read_field(z) if after else torch.zeros(1, 2, *self.shape)
        valid = valid & inside(field)[0, 0]
        clean = torch.zeros(1, 1, *self.shape)
        clean[..., MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] = 1
        if self.known is None:
            return ScoredSection(image, valid.numpy(), None, clean)
        applied, defect = self.known.read(z)
        clean = clean * (1 - dilate(defect, MARGIN_PX))
        return ScoredSection(image, valid.numpy(), remaining_displacement(field, applied), clean)

    def pair(self, z: int, after: bool) -> dict[str, Any]:
        """The scores of section `z` against the one before it."""
        this, previous = self.section(z, after), self.section(z - 1, after)
        valid = this.valid & previous.valid
        scores: dict[str, Any] = {"map": chunked_correlation(previous.image, this.image, valid)}
        if z > 1:
            other = self.section(z - 2, after)
            scores["two"] = chunked_correlation(other.image, this.image, other.valid & this.valid)
        if this.remaining is not None and previous.remaining is not None:
            counted = this.clean * previous.clean * torch.from_numpy(valid)
            zero = torch.zeros_like(this.remaining)
            scores["errors"] = endpoint_errors(zero, this.remaining, previous.remaining, counted)
        return scores

    def drift(self, z: int, after: bool) -> float | None:
        """Mean displacement of section `z` from the first one, px; None if unknown."""
        this, first = self.section(z, after), self.section(0, after)
        if this.remaining is None or first.remaining is None:
            return None
        return drift(this.remaining, first.remaining, this.clean * first.clean)


def score_stack(scorer: Scorer, held_out_from: int) -> dict[str, Any]:
    """All scores; sections from `held_out_from` on were held out from training."""
    depth = scorer.sections.box.shape[0]
    rows = []
    for z in progress(range(1, depth), depth - 1, "evaluate", "sections"):
        row: dict[str, Any] = {"section": z, "held_out": z > held_out_from}
        for name, after in (("before", False), ("after", True)):
            row[name] = scorer.pair(z, after)
            row[name]["drift"] = scorer.drift(z, after)
        defect = None if scorer.known is None else scorer.known.read(z)[1]
        row["field"] = asdict(field_facts(scorer.read_field(z), defect))
        rows.append(row)
    held = [row for row in rows if row["held_out"]]
    merged = {"all": _merged(rows), "held_out": _merged(held)}
    check_compared(merged, scorer.sections.name, scorer.aligned.name)
    return {**merged, "sections": [_section_summary(row) for row in rows]}


def check_compared(
    merged: Mapping[str, Mapping[str, Any] | None], sections: str, aligned: str
) -> None:
    """DataError if nothing was compared, before or after alignment, in all or held-out sections.

    `sections`, `aligned`: names of the two volumes. Scores of nothing would look like a result.
    """
    if merged["all"] is None:
        raise DataError(f"{sections} has one section: nothing was compared; alignment needs two")
    for part, scores in merged.items():
        for side, volume in (("before", sections), ("after", aligned)):
            compared = scores[side] if scores else {"chunks": 1}
            if not compared["chunks"] or compared.get("error_px", 0) is None:
                raise DataError(
                    f"nothing was compared in {'all' if part == 'all' else 'the held-out'} "
                    f"sections of {volume}: every chunk or pixel of all pairs is constant or "
                    "missing. Correct `raw` or `mip` of the sections; "
                    "if only the aligned sections are empty, train the network longer"
                )


def _merged(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Scores over all pairs of `rows`, before and after; None without pairs."""
    if not rows:
        return None
    return {"pairs": len(rows), **{side: _merged_side(rows, side) for side in ("before", "after")}}


def _merged_side(rows: list[dict[str, Any]], side: str) -> dict[str, Any]:
    parts = [row[side] for row in rows]
    correlation = correlation_summary(np.stack([part["map"] for part in parts]))
    two = [part["two"] for part in parts if "two" in part]
    scores: dict[str, Any] = {
        "correlation": correlation["mean"],
        "correlation_variance": correlation["variance"],
        "correlation_5": correlation["percentile_5"],
        "correlation_95": correlation["percentile_95"],
        "chunks": correlation["chunks"],
        "correlation_two": correlation_summary(np.stack(two))["mean"] if two else None,
    }
    if "errors" in parts[0]:
        errors = error_summary(torch.cat([part["errors"] for part in parts]))
        scores["error_px"], scores["error_median_px"] = errors["mean"], errors["median"]
        scores["error_95_px"] = errors["percentile_95"]
    drifts = [part["drift"] for part in parts if part["drift"] is not None]
    scores["drift_px"] = max(drifts) if drifts else None
    if side == "after":
        for key in ("folded", "folded_outside", "roughness"):
            scores[key] = float(np.mean([row["field"][key] for row in rows]))
    return scores


def _section_summary(row: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of one section in evaluation.json."""
    summary: dict[str, Any] = {key: row[key] for key in ("section", "held_out", "field")}
    for side in ("before", "after"):
        part = row[side]
        summary[side] = {
            "correlation": correlation_summary(part["map"])["mean"],
            "map": [[None if np.isnan(v) else round(float(v), 4) for v in r] for r in part["map"]],
            "error_px": error_summary(part["errors"])["mean"] if "errors" in part else None,
            "drift_px": part["drift"],
        }
    return summary


def plot_scores(scores: Mapping[str, Any]) -> bytes:
    """A PNG: correlation, error and drift by section, and maps of the mean correlation."""
    rows = scores["sections"]
    figure = Figure(figsize=(15, 3.6), dpi=80, layout="constrained")
    axes = figure.subplots(1, 5)
    z = [row["section"] for row in rows]
    panels = (("correlation", "correlation"), ("error_px", "endpoint error, px"))
    for axis, (key, title) in zip(axes, (*panels, ("drift_px", "drift, px")), strict=False):
        for side in ("before", "after"):
            values = [np.nan if row[side][key] is None else row[side][key] for row in rows]
            axis.plot(z, values, label=side, marker=".")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("section")
    axes[0].legend(fontsize=8)
    for axis, side in zip(axes[3:], ("before", "after"), strict=True):
        maps = np.array([row[side]["map"] for row in rows], np.float64)
        finite = np.isfinite(maps)
        mean = np.where(finite, maps, 0).sum(0) / np.maximum(finite.sum(0), 1)
        picture = axis.imshow(mean, vmin=-0.1, vmax=1)
        axis.set_title(f"mean correlation, {side}", fontsize=9)
    figure.colorbar(picture, ax=axes[-1])
    return png_bytes(figure)


def before_after(scorer: Scorer) -> bytes:
    """A PNG: cuts along z through the middle, before and after; they jitter without alignment."""
    figure = Figure(figsize=(12, 5), dpi=80, layout="constrained")
    axes = figure.subplots(2, 2)
    depth = scorer.sections.box.shape[0]
    middle = [n // 2 for n in scorer.shape]
    for column, volume in enumerate((scorer.sections, scorer.aligned)):
        sections = [scorer.read_image(volume, z) for z in range(depth)]
        cuts = (
            np.stack([s[middle[0]] for s in sections]),
            np.stack([s[:, middle[1]] for s in sections]),
        )
        for row, cut in enumerate(cuts):
            axes[row, column].imshow(cut, cmap="gray", vmin=0, vmax=1, aspect="auto")
            axes[row, column].set_title(
                f"{('before', 'after')[column]}, section along {'xy'[row]}", fontsize=9
            )
            axes[row, column].set_ylabel("z")
    return png_bytes(figure)
