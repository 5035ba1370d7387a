"""Aligns a whole stack: each section to the aligned ones before it, tile by tile, resumable.

The first section does not move. Each further one gets a field (2, Y, X) px, which is stored with
the warped section. Only a tile with its margin is in memory, never a whole section.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from retrace.alignment.aligned_stack import ALIGNED, MASK, AlignedStack
from retrace.alignment.likeness import better_of, likeness, unlike
from retrace.alignment.prepare import prepare_sections, valid_mask
from retrace.alignment.section_tiles import (
    Window,
    read_labels,
    read_section_window,
    render_fine,
    windows,
    write_tile,
)
from retrace.config.seamless_network import StackAlignment
from retrace.displacement import length, vote, warp
from retrace.errors import DataError
from retrace.networks.builders import field_options_of
from retrace.networks.seamless import FieldOptions, Seamless
from retrace.progress import progress
from retrace.targets.ternary import INSIDE

FILL_SECTIONS = 3
"""Earlier sections that the defects of an aligned section are filled from."""


@dataclass(frozen=True)
class AlignmentPlan:
    """How a stack is aligned: the settings `align` of a network of the family seamless."""

    tile: int
    overlap: int
    targets: int
    temperature: float
    max_displacement: int
    realign_below: float
    drift_reach: int
    field_options: FieldOptions

    @classmethod
    def of(cls, settings: StackAlignment) -> AlignmentPlan:
        """The plan in the settings `align`."""
        names = cls.__dataclass_fields__.keys() - {"field_options"}
        values = {name: getattr(settings, name) for name in names}
        return cls(**values, field_options=field_options_of(settings))


class Aligner:
    """Aligns the sections of a volume (Z, Y, X) with a trained network."""

    def __init__(
        self,
        module: Seamless,
        plan: AlignmentPlan,
        device: torch.device,
        *,
        radius_px: int | None,
        fill: float,
    ) -> None:
        """`radius_px`, `fill`: see `prepare_sections`."""
        self.module, self.plan, self.device = module, plan, device
        self.radius_px, self.fill = radius_px, fill
        self.unit = 2**module.coarsest

    def run(self, stack: AlignedStack) -> None:
        """Aligns all sections that are not finished; DataError for a single section."""
        depth = stack.sections.box.shape[0]
        if depth < 2:
            raise DataError(f"{stack.sections.name} has {depth} section; aligning needs 2 or more")
        done = next((z for z in range(depth) if not stack.has_section(z)), depth)
        if done:
            print(f"[align] resumes at section {done} of {depth}", flush=True)
        for z in progress(range(done, depth), depth - done, "align", "sections"):
            begin = time.monotonic()
            self._section(stack, z)
            stack.note(z, seconds=round(time.monotonic() - begin, 3))

    def _section(self, stack: AlignedStack, z: int) -> None:
        height, width = stack.sections.box.shape[1:]
        for window in windows((height, width), self.plan.tile, self.plan.overlap, self.unit):
            field = self._field(stack, z, window)
            self._check_length(field, stack, z)
            write_tile(stack, z, window.core, field)
        if stack.fine is not None:
            render_fine(stack, z, self.plan.tile)

    def _field(self, stack: AlignedStack, z: int, window: Window) -> Tensor:
        """The field of a tile's core (1, 2, h, w) px on the CPU; zero for the first section."""
        y, x = window.core
        if z == 0:
            return torch.zeros(1, 2, y.stop - y.start, x.stop - x.start)
        source = self._source(stack, z, window)
        count = self._target_count(z)
        targets = [self._target(stack, z - back, window) for back in range(1, count + 1)]
        fields = [self._pair(source, target) for target in targets]
        if count == 1 and z > 1:
            field = self._realigned(stack, z, window, source, targets[0], fields[0])
        else:
            field = vote(torch.cat(fields), self.plan.temperature)[None]
        return field[(..., *window.inner)].cpu()

    def _source(self, stack: AlignedStack, z: int, window: Window) -> Tensor:
        """Section `z` in a window, as the network's input (1, 1, h, w), without its defects."""
        image = read_section_window(stack.sections, z, window.read)
        if stack.masks is None:
            return self._prepared(image)
        return self._prepared(image, stack.masks.read(z, window.read) == INSIDE)

    def _target(self, stack: AlignedStack, z: int, window: Window) -> Tensor:
        """The aligned section `z` in a window, as the network's input (1, 1, h, w).

        Defects show what the sections before it have there, as in SEAMLeSS's align_ng_stack.
        """
        aligned = stack.volume(ALIGNED)
        image = read_section_window(aligned, z, window.read)
        if stack.masks is None:
            return self._prepared(image)
        labels = stack.volume(MASK)
        bad = read_labels(labels, z, window.read) == INSIDE
        for earlier in range(z - 1, max(-1, z - 1 - FILL_SECTIONS), -1):
            if not bool(bad.any()):
                break
            image = torch.where(bad, read_section_window(aligned, earlier, window.read), image)
            bad = bad & (read_labels(labels, earlier, window.read) == INSIDE)
        return self._prepared(image, bad)

    def _realigned(
        self,
        stack: AlignedStack,
        z: int,
        window: Window,
        source: Tensor,
        target: Tensor,
        field: Tensor,
    ) -> Tensor:
        """`field` (1, 2, h, w) px, or that to the section before `target` where it matches better.

        Only if much of the window is unlike `target` (1, 1, h, w): it is damaged, or its alignment
        failed.
        """
        correlation = likeness(warp(source, field, "border"), target)
        if not unlike(correlation, self.plan.realign_below):
            return field
        earlier = self._target(stack, z - 2, window)
        other = self._pair(source, earlier)
        other_correlation = likeness(warp(source, other, "border"), earlier)
        return better_of(field, correlation, other, other_correlation)

    def _target_count(self, z: int) -> int:
        """How many aligned sections section `z` is compared with: an odd number, to vote."""
        count = min(self.plan.targets, z)
        return count if count % 2 else count - 1

    def _prepared(self, image: Tensor, bad: Tensor | None = None) -> Tensor:
        """The network's input (1, 1, h, w) for a window, on the device; `bad` pixels are empty."""
        valid = valid_mask(image[0])
        if bad is not None:
            valid = valid & ~bad[0]
        _, filled = prepare_sections(image[0], valid, radius_px=self.radius_px, fill=self.fill)
        return filled[None].to(self.device)

    @torch.no_grad()
    def _pair(self, source: Tensor, target: Tensor) -> Tensor:
        return self.module.field(source, target, self.plan.field_options)

    def _check_length(self, field: Tensor, stack: AlignedStack, z: int) -> None:
        longest = float(length(field).max())
        if not longest <= self.plan.max_displacement:
            raise DataError(
                f"{stack.sections.name}: the field of section {z} reaches {longest:.1f} px, "
                f"beyond `align: max_displacement: {self.plan.max_displacement}`; the sections are "
                "too far apart for this network, or it is not trained. Raise the setting if such "
                "displacements are real"
            )
