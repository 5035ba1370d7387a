"""Detects the defects of whole sections tile by tile: neither stack nor section is in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from retrace.alignment.detector import EPSILON, Detector, blurred
from retrace.alignment.section_tiles import read_section_window
from retrace.files import read_json
from retrace.geometry import VoxelBox, blocks
from retrace.networks.defect_unet import REACH, STEP
from retrace.progress import progress
from retrace.reading import if_intact
from retrace.storage.block_journal import Journal, checksum, drop_damaged
from retrace.storage.unfinished import note_begun, open_unfinished
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import create_volume

INSIDE_DEFECTS = "inside"
"""Array (Z, Y, X) uint8 of the store: 1 inside detected defects."""
CHUNK = 256
TILE_PX = 1024
"""Side of the tiles; a multiple of CHUNK and of the network's STEP."""
POOLED_PX = 2
"""Radius of the maximum and the mean that probabilities are smoothed with."""


class SectionDetector:
    """Detects the defects of the sections of a volume, equal to `Detector` on whole sections."""

    def __init__(self, detector: Detector, sections: Volume, store: Path, work: Path) -> None:
        """Resumes the store of an earlier run, with its journal in `work`, or creates it."""
        self.detector, self.sections, self.store = detector, sections, store
        shape = sections.box.shape
        begun = work / "begun.json"
        if not (begun.is_file() and read_json(begun) == list(shape) and store.is_dir()):
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            create_volume(
                store,
                INSIDE_DEFECTS,
                shape=shape,
                chunks=(1, CHUNK, CHUNK),
                dtype="uint8",
                voxel_size_nm=sections.voxel_size_nm,
                offset_nm=sections.offset_nm,
            )
            note_begun(store, begun, list(shape))
        self.array: Any = open_unfinished(store)[INSIDE_DEFECTS]
        self.journal = Journal(work)

    def run(self) -> Volume:
        """The volume (Z, Y, X) uint8 of detected defects, after all sections."""
        depth = self.sections.box.shape[0]
        left = [z for z in range(depth) if not self._has_section(z)]
        for z in progress(left, len(left), "defects", "sections"):
            self._section(z)
            self.journal.note(self._box(z), self._checksum(z))
        size, offset = self.sections.voxel_size_nm, self.sections.offset_nm
        return Volume(self.array, size, offset, f"{self.store}/{INSIDE_DEFECTS}")

    def _box(self, z: int) -> VoxelBox:
        return VoxelBox((z, 0, 0), (1, *self.sections.box.shape[1:]))

    def _tiles(self, z: int) -> Iterator[VoxelBox]:
        return blocks(self._box(z), (1, TILE_PX, TILE_PX))

    def _checksum(self, z: int) -> str:
        return checksum(np.asarray(self.array[box.slices()]) for box in self._tiles(z))

    def _has_section(self, z: int) -> bool:
        expected = self.journal.checksum_of(self._box(z))
        if expected is None:
            return False
        stored = if_intact(lambda: self._checksum(z), self.store)
        if stored is None:
            drop_damaged(self.array, self.store / INSIDE_DEFECTS, self._box(z))
        return stored == expected

    def _section(self, z: int) -> None:
        mean, deviation = self._statistics(z)
        for box in self._tiles(z):
            core = box.slices()[1:]
            inside = self._inside(z, core, mean, deviation) if deviation > 0 else True
            self.array[box.slices()] = np.broadcast_to(inside, box.shape).astype(np.uint8)

    def _statistics(self, z: int) -> tuple[float, float]:
        """Mean and deviation of a blurred section; the deviation of a constant one is 0."""
        count, total, squares = 0, 0.0, 0.0
        lowest, highest = np.inf, -np.inf
        for box in self._tiles(z):
            values = self._blurred(z, box.slices()[1:]).double()
            count += values.numel()
            total += float(values.sum())
            squares += float(values.square().sum())
            lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
        mean = total / count
        variance = max(0.0, squares - count * mean * mean) / max(1, count - 1)
        return mean, 0.0 if highest - lowest < EPSILON else variance**0.5

    def _blurred(self, z: int, window: tuple[slice, ...]) -> Tensor:
        """A window (y, x) inside a section, blurred as the whole section: (1, 1, h, w)."""
        shape = self.sections.box.shape[1:]
        low = [max(0, s.start - 1) for s in window]
        high = [min(n, s.stop + 1) for s, n in zip(window, shape, strict=True)]
        part = read_section_window(
            self.sections, z, [slice(*ends) for ends in zip(low, high, strict=True)]
        )
        top, left = (int(s.start == 0) for s in window)
        bottom, right = (int(s.stop == n) for s, n in zip(window, shape, strict=True))
        return blurred(functional.pad(part, [left, right, top, bottom], mode="replicate"))

    def _inside(self, z: int, core: tuple[slice, ...], mean: float, deviation: float) -> np.ndarray:
        """Where the tile `core` (y, x) is inside a defect, (h, w) bool.

        A defect that the window cuts off reaches `smallest_px` from the core, so it is large
        enough to be kept, as in the whole section.
        """
        shape = self.sections.box.shape[1:]
        far = self.detector.smallest_px + POOLED_PX
        ends = [
            (max(0, s.start - far), min(n, s.stop + far)) for s, n in zip(core, shape, strict=True)
        ]
        # The network's windows begin and end at multiples of STEP, or at those beyond the section.
        low = [max(0, begin // STEP * STEP - REACH) for begin, _ in ends]
        high = [
            min(-(-n // STEP) * STEP, -(-end // STEP) * STEP + REACH)
            for (_, end), n in zip(ends, shape, strict=True)
        ]
        read = tuple(slice(b, min(e, n)) for b, e, n in zip(low, high, shape, strict=True))
        values = (self._blurred(z, read) - mean) / (deviation + EPSILON)
        pads = [0, high[1] - read[1].stop, 0, high[0] - read[0].stop]
        image = functional.pad(values, pads, mode="replicate")
        window = [slice(b - o, e - o) for (b, e), o in zip(ends, low, strict=True)]
        logits = self.detector.predict(image)[(slice(None), *window)]
        inside = self.detector.inside(self.detector.pooled(logits))
        y, x = (slice(s.start - b, s.stop - b) for s, (b, _) in zip(core, ends, strict=True))
        return inside[y, x]
