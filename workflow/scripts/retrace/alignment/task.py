"""The task of the family seamless: pairs of sections and their losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace.alignment.losses import (
    BORDER,
    DEFECT,
    Lambdas,
    Sections,
    border_mask,
    consensus_error,
    known_field_error,
    similarity_error,
    similarity_map,
    similarity_weights,
    smoothness_error,
    smoothness_weights,
    warped_labels,
)
from retrace.alignment.pairs import (
    PairPlan,
    PairRange,
    PreparedStack,
    StackReader,
    average_valid,
    is_blank,
    rotate_and_flip,
)
from retrace.alignment.prepare import prepare_sections
from retrace.alignment.schedule import Phase, PhaseSchedule
from retrace.augment.artificial_defects import apply_defect, draw_fold
from retrace.augment.sections import augment_input, augment_stack
from retrace.config.seamless_network import OBSERVED, SeamlessNetworkSettings, StackAugment
from retrace.displacement import downsample, inside, length, rotate_180, rotate_field_180, warp
from retrace.geometry import NmTriple
from retrace.targets.ternary import contract
from retrace.training.task import Batch, Picture, PlainTask

DATA_TERMS = ("similarity", "fold", "known")
"""Terms that compare sections or known displacements."""
FOLD_BORDER = 7
"""Pixels by which the valid area is eroded in the supervised branch (train.py, run_supervised)."""


@dataclass
class SeamlessTask(PlainTask):
    """Pairs of sections and their losses; `enter` sets the phase that they belong to."""

    network: SeamlessNetworkSettings
    reader: StackReader
    plan: PairPlan
    schedule: PhaseSchedule
    seed: int
    device: torch.device
    voxel_size_nm: NmTriple
    lambdas: Lambdas
    phase: Phase | None = None
    batch_size: int = 1
    observed: int = len(OBSERVED)

    @property
    def augment(self) -> StackAugment:
        """Augmentation of stacks and of the network's input."""
        return self.network.augment

    def enter(self, phase: Phase) -> None:
        """Computes losses for this phase from now on."""
        self.phase = phase

    # ------------------------------------------------------------ batches

    def batch(self, number: int) -> Batch:
        """The pairs of iteration `number`, from 0: tensors (P, C, H, W) on the training device."""
        place = self.plan.place(number)
        images, masks, valid, moved, known = self._stack(place)
        rows = [
            self._pair(place, pair, images, masks, valid, moved)
            for pair in range(place.first, place.end)
        ]
        joined = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        joined["known"] = torch.full((len(rows), 1, 1, 1), float(known))
        apart = length(moved[1:] - moved[:-1]).mean((-2, -1))[place.first : place.end]
        joined["moved_px"] = apart
        return {name: tensor.to(self.device) for name, tensor in joined.items()}

    def _stack(self, place: PairRange) -> tuple[Tensor, Tensor, Tensor, Tensor, bool]:
        """An augmented stack: images, masks, valid (S, H, W), displacements (S, 2, H, W) px.

        The last value is whether these displacements are the ground truth.
        """
        rng = np.random.default_rng((self.seed, 1, place.epoch, place.visit))
        sample = self._self_pairs(self.reader[place.stack], rng)
        images, masks, valid, moved = augment_stack(
            sample.images,
            sample.masks,
            sample.valid,
            sample.fields,
            rng,
            self.augment,
            self.network.crop,
        )
        (images, masks, valid), moved = rotate_and_flip([images, masks, valid], moved, rng)
        return images, masks, (valid > 0.5).float(), moved, sample.known

    def _self_pairs(self, stack: PreparedStack, rng: np.random.Generator) -> PreparedStack:
        """With probability `self_pairs`, one section repeated; otherwise the stack unchanged.

        SEAMLeSS, at the time of the paper, trained every other pair on a section and itself.
        """
        if rng.random() >= self.network.self_pairs:
            return stack
        return stack.only(int(rng.integers(len(stack.images))))

    def _pair(
        self,
        place: PairRange,
        pair: int,
        images: Tensor,
        masks: Tensor,
        valid: Tensor,
        moved: Tensor,
    ) -> dict[str, Tensor]:
        """Tensors (C, H, W) of pair number `pair` of a stack: source, target, displacements."""
        rng = np.random.default_rng((self.seed, 2, place.epoch, place.visit, pair))
        pair_images, pair_masks = [images[pair], images[pair + 1]], [masks[pair], masks[pair + 1]]
        pair_valid = [valid[pair], valid[pair + 1]]
        applied = torch.zeros(2, *pair_images[0].shape)
        supervised = rng.random() < self.network.fold_probability
        if supervised:
            pair_images[0], pair_masks[0], applied = self._folded(rng, pair_images[1])
            pair_valid[0] = pair_valid[1]
        tensors = {"applied": applied, "supervised": torch.full((1, 1, 1), float(supervised))}
        tensors |= {"source_moved": moved[pair], "target_moved": moved[pair + 1]}
        sides = zip(("source", "target"), pair_images, pair_masks, pair_valid, strict=True)
        for side, *section in sides:
            tensors |= {f"{side}_{k}": v for k, v in self._side(rng, *section).items()}
        return tensors

    def _folded(self, rng: np.random.Generator, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The target (H, W) with an artificial fold, its mask, and the fold's field (2, H, W)."""
        height, width = target.shape
        largest = min(height, width) / 6
        low, high = self.network.fold_radius_px
        fold = draw_fold(rng, (height, width), (min(low, largest), min(high, largest)))
        image, labels = apply_defect(target, torch.zeros(height, width), fold)
        return image, labels.float(), fold.displacement

    def _side(
        self, rng: np.random.Generator, image: Tensor, mask: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """Tensors (1, H, W) of a section (H, W): for the losses, and augmented as network input."""
        augmented, cutout = image, torch.zeros_like(image)
        if self.augment.input:
            augmented, cutout = augment_input(image, rng, self.augment)
            radius_px = self.network.contrast.equalised_radius_px
            augmented, _ = prepare_sections(augmented, valid > 0, radius_px=radius_px, fill=0)
        network_input = torch.where(valid > 0, augmented, float(self.network.input.mean))
        tensors = {
            "image": image,
            "input": network_input,
            "mask": mask,
            "valid": valid,
            "cutout": cutout,
        }
        return {name: tensor.float()[None] for name, tensor in tensors.items()}

    def begins_phase(self, iteration: int) -> bool:
        """Whether a new phase begins with this iteration, from 1."""
        epoch, inner = divmod(iteration - 1, self.plan.iterations_per_epoch)
        return inner == 0 and self.schedule.begins(epoch)

    # ------------------------------------------------------------ losses

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Fields at the phase's level; with consensus, also of sections rotated by 180 degrees."""
        assert self.phase is not None
        level = self.phase.level
        source, target = batch["source_input"], batch["target_input"]
        outputs = {"field": module(source, target, level).field}
        if self.lambdas.consensus:
            outputs["turned"] = module(rotate_180(source), rotate_180(target), level).field
        return outputs

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """similarity, smoothness, consensus, fold and known, then the monitored terms."""
        source, target = self._sections(batch, "source"), self._sections(batch, "target")
        terms, border = self._errors(outputs["field"], source, target, batch)
        if "turned" in outputs:
            sides = (_rotated(source), _rotated(target))
            other, turned_border = self._errors(outputs["turned"], *sides, batch, turned=True)
            terms = {name: (terms[name] + other[name]) / 2 for name in terms}
            terms["consensus"] = self.lambdas.consensus * consensus_error(
                outputs["field"], outputs["turned"], border, turned_border
            )
        return terms | self._monitored(outputs["field"], border, batch)

    def _sections(self, batch: Batch, side: str) -> Sections:
        """The source or target sections at the phase's level."""
        assert self.phase is not None
        factor = 2**self.phase.level
        valid = batch[f"{side}_valid"]
        image = average_valid(
            batch[f"{side}_image"], valid, self.phase.level, self.network.rescale_downsampled
        )
        usable = (functional.avg_pool2d(valid, factor) > 0.99).float()
        usable = usable * self._not_blank(image, usable)
        labels = [
            functional.max_pool2d(batch[f"{side}_{name}"], factor) for name in ("mask", "cutout")
        ]
        return Sections(image, labels[0], usable, labels[1])

    def _not_blank(self, image: Tensor, valid: Tensor) -> Tensor:
        """1 for each image that shows something, 0 for empty or constant ones, (N, 1, 1, 1)."""
        blank = is_blank(image, valid, self.network.blank_var_threshold)
        return (~blank).float()[:, None, None, None]

    def _errors(
        self, field: Tensor, source: Sections, target: Sections, batch: Batch, turned: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The terms of one orientation, and where pairs were compared (N, 1, H, W)."""
        assert self.phase is not None
        level, network = self.phase.level, self.network
        border = border_mask(source, target, field, max(1, BORDER >> level))
        learns = border * (1 - batch["supervised"])
        weights = similarity_weights(source, target, field, learns, self.lambdas)
        radius = max(1, network.mask_smooth_radius >> level)
        smooth = smoothness_weights(source, target, field, learns, self.lambdas, radius)
        errors = similarity_map(warp(source.image, field), target.image)
        factor = self.lambdas.smoothness * self.phase.smooth_factor
        kind = network.smoothness_penalty_type
        terms = {
            "similarity": similarity_error(errors, weights, border),
            "smoothness": factor * smoothness_error(field, smooth, kind),
        }
        if network.fold_probability:
            terms["fold"] = self._fold_error(field, target, batch, turned)
        if self.lambdas.known:
            terms["known"] = self._known_error(field, source, target, batch, turned)
        return terms, border

    def _at_level(self, field: Tensor, turned: bool) -> Tensor:
        """A displacement (N, 2, H, W) px of level 0, on the grid of the phase's level."""
        assert self.phase is not None
        coarse = downsample(field, 2**self.phase.level)
        return rotate_field_180(coarse) if turned else coarse

    def _fold_error(self, field: Tensor, target: Sections, batch: Batch, turned: bool) -> Tensor:
        """The supervised branch: error of the field that should undo the applied fold."""
        assert self.phase is not None
        applied = self._at_level(batch["applied"], turned)
        where = contract(target.valid, max(1, FOLD_BORDER >> self.phase.level))
        counted = where * batch["supervised"]
        return known_field_error(field, applied, torch.zeros_like(field), counted, squared=True)

    def _known_error(
        self, field: Tensor, source: Sections, target: Sections, batch: Batch, turned: bool
    ) -> Tensor:
        """lambda_known x endpoint error, px of level 0, outside defects.

        Pixels that the field reads from outside count too: otherwise the field could avoid the loss
        by pointing outside.
        """
        assert self.phase is not None
        moved, counted = self._where_known(field, source, target, batch, turned)
        error = known_field_error(field, moved[0], moved[1], counted)
        return self.lambdas.known * 2**self.phase.level * error

    def _where_known(
        self, field: Tensor, source: Sections, target: Sections, batch: Batch, turned: bool
    ) -> tuple[list[Tensor], Tensor]:
        """The displacements applied to source and target, and where they are ground truth.

        That is 1 outside defects where they are known, else 0, (N, 1, H, W).
        """
        moved = [self._at_level(batch[f"{side}_moved"], turned) for side in ("source", "target")]
        label = torch.maximum(warped_labels(source.mask, field.detach()), target.mask)
        counted = target.valid * (label <= DEFECT) * batch["known"] * (1 - batch["supervised"])
        # The true position must be in the source.
        return moved, counted * inside(moved[1] - moved[0])

    def _monitored(self, field: Tensor, border: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The terms of OBSERVED."""
        assert self.phase is not None
        lengths = length(field.detach()) * 2**self.phase.level
        values = (lengths.mean(), batch["moved_px"].mean(), border.mean())
        lambda1 = torch.tensor(self.lambdas.smoothness, device=border.device)
        return dict(zip(OBSERVED, (*values, lambda1), strict=True))

    # ------------------------------------------------------------ for the loop

    @property
    def data_terms(self) -> tuple[str, ...]:
        """Smoothness and consensus alone teach nothing."""
        return DATA_TERMS

    @property
    def remedy(self) -> str:
        """Where sections that show nothing come from."""
        return (
            "The sections are blank or defects as a whole, or the field points outside them: "
            "correct `raw` or `stacks` of the dataset or its masks, or lower `lr`"
        )

    def uncompared(self, terms: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Data terms of exactly 0, which no pixel entered; all terms where no pixel is valid."""
        nothing = terms["valid"] == 0
        minimised = [name for name in terms if name not in OBSERVED]
        return {n: terms[n] == 0 if n in DATA_TERMS else nothing for n in minimised}

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """No zarr snapshots; SeamlessTrainer draws pictures instead."""
        return {}


def _rotated(side: Sections) -> Sections:
    """The sections rotated by 180 degrees."""
    return Sections(
        *(rotate_180(part) for part in (side.image, side.mask, side.valid, side.cutout))
    )
