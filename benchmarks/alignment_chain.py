"""Stacks with known displacements, aligned section by section with any method that aligns a pair.

Both ways are those of the workflow: chained, as SEAMLeSS does, and with the settings as shipped,
which align badly aligned tiles again and remove the drift.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.alignment.aligned_stack import ALIGNED, FIELD, AlignedStack
from retrace.alignment.aligner import Aligner, AlignmentPlan
from retrace.alignment.drift import DriftCorrector
from retrace.alignment.scoring import KnownDistortion, Scorer
from retrace.alignment.stack_files import Stack
from retrace.config.network_settings import DatasetTraits
from retrace.config.networks import network_content, resolved
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.config.yaml_files import merge
from retrace.networks.seamless import FieldOptions, Seamless
from retrace.storage.volumes import Volume


def changed(name: str, settings: Sequence[str]) -> Any:
    """The settings of a network with changes, each KEY=VALUE with dots for levels."""
    content = network_content(name)
    for text in settings:
        key, _, word = text.partition("=")
        value = yaml.safe_load(word)
        for part in reversed(key.split(".")):
            value = {part: value}
        content = merge(content, value)
    return resolved(content, DatasetTraits(), name)


@dataclass(frozen=True)
class KnownStack:
    """Sections (Z, Y, X) with their distortion."""

    sections: Volume
    known: KnownDistortion

    @classmethod
    def of(cls, stack: Stack, voxel_nm: tuple[int, int, int]) -> KnownStack:
        """The stack as the workflow reads it; defects count for the scores as in the workflow."""
        assert stack.fields is not None

        def volume(array: np.ndarray, name: str) -> Volume:
            return Volume(array, voxel_nm, (0, 0, 0), name)

        images = stack.images.mul(255).round().to(torch.uint8).numpy()
        fields = np.ascontiguousarray(stack.fields.numpy().swapaxes(0, 1))
        known = KnownDistortion(volume(fields, "fields"), volume(stack.masks.numpy(), "masks"), 1)
        return cls(volume(images, "sections"), known)

    @property
    def depth(self) -> int:
        """The number of sections."""
        return int(self.sections.box.shape[0])


@dataclass(frozen=True)
class PairMethod:
    """What `Aligner` needs of a network, for a function of source and target."""

    field_of: Callable[[Tensor, Tensor], Tensor]
    coarsest: int = 3
    """Sides of tiles are multiples of 2^coarsest px."""

    def field(self, source: Tensor, target: Tensor, options: FieldOptions) -> Tensor:
        """The field (1, 2, H, W) px; `options` are those of networks, and have no effect."""
        with torch.enable_grad():
            return self.field_of(source, target).detach()


@dataclass(frozen=True)
class ChainScores:
    """Greatest drift of a section from the first one, and mean endpoint error of neighbours, px.

    Before alignment, chained, and corrected with the settings as shipped; `seconds` and
    `corrected_seconds`: CPU seconds per section.
    """

    drift_before: float
    drift: float
    drift_corrected: float
    error: float
    error_corrected: float
    seconds: float
    seconds_corrected: float


def align_chain(
    module: Seamless | PairMethod,
    network: SeamlessNetworkSettings,
    example: KnownStack,
    folder: Path,
    *,
    correct: bool,
) -> tuple[AlignedStack, float]:
    """The aligned stack and CPU seconds per section; `correct`: with the settings as shipped."""
    plan = AlignmentPlan.of(network.align)
    begin = time.process_time()
    stack = AlignedStack(folder / "a.zarr", folder / "a", example.sections, None)
    if correct:
        chained = AlignedStack(folder / "c.zarr", folder / "c", example.sections, None)
        _aligner(module, network, plan).run(chained)
        DriftCorrector(chained, plan.drift_reach, plan.tile).run(stack)
    else:
        _aligner(module, network, replace(plan, realign_below=-1.0)).run(stack)
    return stack, (time.process_time() - begin) / example.depth


def _aligner(
    module: Seamless | PairMethod, network: SeamlessNetworkSettings, plan: AlignmentPlan
) -> Aligner:
    """The workflow's aligner, with the network's contrast."""
    return Aligner(
        cast(Seamless, module),
        plan,
        torch.device("cpu"),
        radius_px=network.contrast.equalised_radius_px,
        fill=network.input.mean,
    )


def scorer_of(example: KnownStack, stack: AlignedStack) -> Scorer:
    """The workflow's scores of an aligned stack."""
    return Scorer(example.sections, stack.volume(ALIGNED), stack.volume(FIELD), example.known)


def greatest_drift(example: KnownStack, stack: AlignedStack, after: bool) -> float:
    """Greatest drift of a section from the first, px."""
    scorer = scorer_of(example, stack)
    drifts = [scorer.drift(z, after) for z in range(1, example.depth)]
    return max(drift for drift in drifts if drift is not None)


def mean_error(example: KnownStack, stack: AlignedStack) -> float:
    """Mean endpoint error of all pairs of neighbours after alignment, px."""
    scorer = scorer_of(example, stack)
    errors = [scorer.pair(z, True)["errors"] for z in range(1, example.depth)]
    return float(torch.cat(errors).mean())


def score_chain(
    module: Seamless | PairMethod, network: SeamlessNetworkSettings, example: KnownStack
) -> ChainScores:
    """Aligns a stack in both ways, and scores them."""
    with tempfile.TemporaryDirectory() as folder:
        chained, seconds = align_chain(module, network, example, Path(folder) / "0", correct=False)
        corrected, more = align_chain(module, network, example, Path(folder) / "1", correct=True)
        return ChainScores(
            greatest_drift(example, chained, after=False),
            greatest_drift(example, chained, after=True),
            greatest_drift(example, corrected, after=True),
            mean_error(example, chained),
            mean_error(example, corrected),
            seconds,
            more,
        )
