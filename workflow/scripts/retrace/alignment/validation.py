"""Validation of an alignment training: pairs of sections that it never sees, always the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrace.alignment.losses import Sections, border_mask
from retrace.alignment.pairs import PairPlan, StackReader, check_stacks
from retrace.alignment.stack_files import StackDataset, StackPaths
from retrace.alignment.task import SeamlessTask
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.config.validation_model import Interval
from retrace.displacement import compose, length, warp
from retrace.files import digest
from retrace.training.task import Batch, Measurement
from retrace.training.validation import FixedBatches, mean_values
from retrace.viewing.displacement_pictures import pair_image

BATCHES = 2
"""Batches of a measurement, each as large as a step of the training."""
SEED = 0
"""Seed of their pairs: all trainings on a dataset are measured on the same ones."""
CONSTANT = ("moved_px", "lambda1")
"""Terms that are the same in all measurements."""
PIXELS = (-3, -2, -1)


class MeasuredSeamlessTask(SeamlessTask):
    """Losses of whole pyramids, and how well pairs are aligned."""

    def quality(self, field: Tensor, batch: Batch) -> dict[str, float | None]:
        """`correlation` of the aligned pairs, and `error_px`, px of level 0.

        `field` (N, 2, H, W). The error is the mean distance of pixels from the same tissue in the
        target, None where the true displacement is unknown.
        """
        source, target = self._sections(batch, "source"), self._sections(batch, "target")
        counted = border_mask(source, target, field, 1)
        likeness = correlations(warp(source.image, field), target.image, counted)
        error = self._endpoint_error(field, source, target, batch)
        return {"correlation": _mean(likeness), "error_px": error}

    def _endpoint_error(
        self, field: Tensor, source: Sections, target: Sections, batch: Batch
    ) -> float | None:
        moved, counted = self._where_known(field, source, target, batch, False)
        errors = length(compose(moved[0], field) - moved[1])[:, None]
        return _mean(errors[counted > 0])


def _mean(values: Tensor) -> float | None:
    """The mean of the values that are numbers; None if there are none."""
    known = values[~values.isnan()]
    return float(known.mean()) if known.numel() else None


def correlations(one: Tensor, other: Tensor, counted: Tensor) -> Tensor:
    """Correlation coefficients (N,) of images (N, 1, H, W) over the pixels that are `counted`.

    NaN where either image is constant there, or nothing is counted.
    """
    total = counted.sum(PIXELS, keepdim=True).clamp(min=1)
    a, b = (
        (image - (image * counted).sum(PIXELS, keepdim=True) / total) * counted
        for image in (one, other)
    )
    norm = (a.square().sum(PIXELS) * b.square().sum(PIXELS)).sqrt()
    return torch.where(norm > 0, (a * b).sum(PIXELS) / norm, torch.nan)


@dataclass(frozen=True)
class PairValidation(FixedBatches):
    """Measures pyramids on fixed pairs, as the network would be used after this iteration.

    All levels are used throughout, so that the losses of all epochs can be compared.
    """

    task: MeasuredSeamlessTask

    def measure(self, module: nn.Module, iteration: int) -> Measurement:
        """The means over the batches of the loss, its terms and the quality; the first pair."""
        rows = []
        shown: Tensor | None = None
        for batch, outputs, row in self.measured(module):
            losses = {name: value for name, value in row.items() if name not in CONSTANT}
            rows.append(losses | self.task.quality(outputs["field"], batch))
            shown = outputs["field"][:1] if shown is None else shown
        first = self.batches[0]
        assert shown is not None
        image = pair_image(first["source_image"][:1], first["target_image"][:1], shown)
        return Measurement(mean_values(rows), image)


def plain_network(network: SeamlessNetworkSettings) -> SeamlessNetworkSettings:
    """The settings without degradations of sections, which are still moved as in training."""
    augment = network.augment.model_copy(update={"turn": 0.0, "cut": False, "input": False})
    changes = {"augment": augment, "self_pairs": 0.0, "fold_probability": 0.0}
    return network.model_copy(update=changes)


def pair_validation(task: SeamlessTask, files: StackPaths, every: Interval) -> PairValidation:
    """How a training is measured; `task`: that of the training.

    DataError for validation stacks that the network cannot be measured on.
    """
    network, dataset = plain_network(task.network), StackDataset(files.stacks, files.masks)
    height = check_stacks(dataset, network)
    plan = PairPlan(
        len(dataset), height - 1, SEED, visits_per_stack=1, pairs_per_step=network.pairs_per_step
    )
    measured = MeasuredSeamlessTask(
        network=network,
        reader=StackReader(dataset, task.reader.radius_px, near_px=task.reader.near_px),
        plan=plan,
        schedule=task.schedule,
        seed=SEED,
        device=task.device,
        voxel_size_nm=task.voxel_size_nm,
        lambdas=task.lambdas,
        phase=task.schedule.final,
    )
    # Far from each other in the epoch: of different stacks, where there are several.
    count = min(BATCHES, plan.iterations_per_epoch)
    step = plan.iterations_per_epoch // count
    batches = [measured.batch(number * step) for number in range(count)]
    return PairValidation(measured, batches, every, digest([files.digests, BATCHES, SEED]))
