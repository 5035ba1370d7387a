"""Training of the family seamless: pairs of sections, the loss on them, and what keeps it alive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

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
from retrace.alignment.pairs import PairPlan, Place, Sample, StackReader, is_blank, spread, turned
from retrace.alignment.prepare import prepared
from retrace.alignment.schedule import Phase, Schedule
from retrace.augment.artificial_defects import apply_defect, draw_fold
from retrace.augment.sections import augment_input, augment_stack
from retrace.displacement import downsample, inside, length, rotate, rotate_field, warp
from retrace.errors import StateError
from retrace.geometry import Triple
from retrace.networks.seamless import Seamless
from retrace.targets.ternary import contract
from retrace.training.loop import Trainer
from retrace.training.task import Batch, Picture, PlainTask
from retrace.viewing.displacement_pictures import save_pair

OBSERVED = ("field_px", "moved_px", "valid", "lambda1")
"""Terms that are watched and not minimised: mean length of the field and of what was applied, px of
level 0; share of the pixels that are compared; lambda1 as it is now."""
FOLD_BORDER = 7
"""Pixels taken off around a fold's line in the supervised branch (train.py, run_supervised)."""


@dataclass
class SeamlessTask(PlainTask):
    """Pairs and losses; `enter` says which phase they belong to."""

    network: Mapping[str, Any]
    reader: StackReader
    plan: PairPlan
    schedule: Schedule
    seed: int
    device: torch.device
    voxel_size_nm: Triple
    lambdas: Lambdas
    phase: Phase | None = None
    batch_size: int = 1
    observed: int = len(OBSERVED)

    def enter(self, phase: Phase) -> None:
        """What is asked of the losses from now on."""
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

    def _stack(self, place: Place) -> tuple[Tensor, Tensor, Tensor, Tensor, bool]:
        """Images, masks, valid (S, H, W), what was applied to them (S, 2, H, W) px, and whether
        that is all that lies between them."""
        rng = np.random.default_rng((self.seed, 1, place.epoch, place.visit))
        sample = self._same(self.reader[place.stack], rng)
        images, masks, valid, moved = augment_stack(
            sample.images,
            sample.masks,
            sample.valid,
            sample.fields,
            rng,
            self.network["augment"],
            self.network["crop"],
        )
        (images, masks, valid), moved = turned([images, masks, valid], moved, rng)
        return images, masks, (valid > 0.5).float(), moved, sample.known

    def _same(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Now and then a stack of one section again and again: only the jitter differs then.

        SEAMLeSS at the time of the paper trained every other pair on a section and itself.
        """
        if rng.random() >= self.network["self_pairs"]:
            return sample
        return sample.only(int(rng.integers(len(sample.images))))

    def _pair(
        self,
        place: Place,
        pair: int,
        images: Tensor,
        masks: Tensor,
        valid: Tensor,
        moved: Tensor,
    ) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, 2, place.epoch, place.visit, pair))
        clean, seen = [images[pair], images[pair + 1]], [masks[pair], masks[pair + 1]]
        shown = [valid[pair], valid[pair + 1]]
        applied = torch.zeros(2, *clean[0].shape)
        supervised = rng.random() < self.network["fold_probability"]
        if supervised:
            clean[0], seen[0], applied = self._folded(rng, clean[1])
            shown[0] = shown[1]
        found = {"applied": applied, "supervised": torch.full((1, 1, 1), float(supervised))}
        found |= {"source_moved": moved[pair], "target_moved": moved[pair + 1]}
        sides = zip(("source", "target"), clean, seen, shown, strict=True)
        for side, image, mask, there in sides:
            found |= {f"{side}_{k}": v for k, v in self._side(rng, image, mask, there).items()}
        return found

    def _folded(self, rng: np.random.Generator, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The target (H, W) with an artificial fold, its mask, and the fold's field (2, H, W)."""
        height, width = target.shape
        largest = min(height, width) / 6
        low, high = self.network["fold_radius_px"]
        fold = draw_fold(rng, (height, width), (min(low, largest), min(high, largest)))
        image, labels = apply_defect(target, torch.zeros(height, width), fold)
        return image, labels.float(), fold.displacement

    def _side(
        self, rng: np.random.Generator, image: Tensor, mask: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """One section (H, W) as the loss and as the network sees it, (1, H, W) each."""
        shown, cutout = image, torch.zeros_like(image)
        if self.network["augment"]["input"]:
            shown, cutout = augment_input(image, rng, self.network["augment"])
            shown, _ = prepared(shown, valid > 0, self.network)
        shown = torch.where(valid > 0, shown, float(self.network["input"]["mean"]))
        found = {"image": image, "input": shown, "mask": mask, "valid": valid, "cutout": cutout}
        return {name: tensor.float()[None] for name, tensor in found.items()}

    def begins_phase(self, iteration: int) -> bool:
        """Whether an epoch begins that trains something else than the last."""
        epoch, inner = divmod(iteration - 1, self.plan.iterations_per_epoch)
        return inner == 0 and self.schedule.begins(epoch)

    # ------------------------------------------------------------ losses

    def predict(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The fields at the phase's level, also of the sections turned by 180 degrees."""
        assert self.phase is not None
        level = self.phase.level
        source, target = batch["source_input"], batch["target_input"]
        found = {"field": module(source, target, level).field}
        if self.lambdas.consensus:
            found["turned"] = module(rotate(source), rotate(target), level).field
        return found

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """similarity, smoothness, consensus and fold, and what is watched."""
        source, target = self._sections(batch, "source"), self._sections(batch, "target")
        found, border = self._errors(outputs["field"], source, target, batch)
        if "turned" in outputs:
            ends = (_turned_sections(source), _turned_sections(target))
            other, turned_border = self._errors(outputs["turned"], *ends, batch, turned=True)
            found = {name: (found[name] + other[name]) / 2 for name in found}
            found["consensus"] = self.lambdas.consensus * consensus_error(
                outputs["field"], outputs["turned"], border, turned_border
            )
        return found | self._watched(outputs["field"], border, batch)

    def _sections(self, batch: Batch, side: str) -> Sections:
        """One side at the phase's level."""
        assert self.phase is not None
        factor = 2**self.phase.level
        valid = batch[f"{side}_valid"]
        image = spread(
            batch[f"{side}_image"], valid, self.phase.level, self.network["rescale_downsampled"]
        )
        usable = (functional.avg_pool2d(valid, factor) > 0.99).float()
        usable = usable * self._not_blank(image, usable)
        labels = [
            functional.max_pool2d(batch[f"{side}_{name}"], factor) for name in ("mask", "cutout")
        ]
        return Sections(image, labels[0], usable, labels[1])

    def _not_blank(self, image: Tensor, valid: Tensor) -> Tensor:
        """1 for each image (N, 1, 1, 1) that shows something, 0 for empty or constant ones."""
        blank = is_blank(image, valid, self.network["blank_var_threshold"])
        return (~blank).float()[:, None, None, None]

    def _errors(
        self, found: Tensor, source: Sections, target: Sections, batch: Batch, turned: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The terms of one orientation, and where pairs were compared."""
        assert self.phase is not None
        level, network = self.phase.level, self.network
        border = border_mask(source, target, found, max(1, BORDER >> level))
        learns = border * (1 - batch["supervised"])
        weights = similarity_weights(source, target, found, learns, self.lambdas)
        radius = max(1, network["mask_smooth_radius"] >> level)
        smooth = smoothness_weights(source, target, found, learns, self.lambdas, radius)
        errors = similarity_map(warp(source.image, found), target.image)
        factor = self.lambdas.smoothness * self.phase.smooth_factor
        kind = network["smoothness_penalty_type"]
        terms = {
            "similarity": similarity_error(errors, weights, border),
            "smoothness": factor * smoothness_error(found, smooth, kind),
        }
        if network["fold_probability"]:
            terms["fold"] = self._fold_error(found, target, batch, turned)
        if self.lambdas.known:
            terms["known"] = self._known_error(found, source, target, batch, turned)
        return terms, border

    def _at_level(self, field: Tensor, turned: bool) -> Tensor:
        """A displacement (N, 2, H, W) px on the grid of the phase's level."""
        assert self.phase is not None
        coarse = downsample(field, 2**self.phase.level)
        return rotate_field(coarse) if turned else coarse

    def _fold_error(self, found: Tensor, target: Sections, batch: Batch, turned: bool) -> Tensor:
        """The supervised branch: how far the field is from undoing the fold that was applied."""
        assert self.phase is not None
        applied = self._at_level(batch["applied"], turned)
        where = contract(target.valid, max(1, FOLD_BORDER >> self.phase.level))
        counted = where * batch["supervised"]
        return known_field_error(found, applied, torch.zeros_like(found), counted, squared=True)

    def _known_error(
        self, found: Tensor, source: Sections, target: Sections, batch: Batch, turned: bool
    ) -> Tensor:
        """lambda_known x endpoint error, px of level 0, outside defects.

        Whether the field reads from outside does not matter, so that it cannot flee from the loss.
        """
        assert self.phase is not None
        moved = [self._at_level(batch[f"{side}_moved"], turned) for side in ("source", "target")]
        label = torch.maximum(warped_labels(source.mask, found.detach()), target.mask)
        counted = target.valid * (label <= DEFECT) * batch["known"] * (1 - batch["supervised"])
        counted = counted * inside(moved[1] - moved[0])  # all but exactly what the source shows
        error = known_field_error(found, moved[0], moved[1], counted)
        return self.lambdas.known * 2**self.phase.level * error

    def _watched(self, found: Tensor, border: Tensor, batch: Batch) -> dict[str, Tensor]:
        assert self.phase is not None
        far = length(found.detach()) * 2**self.phase.level
        values = (far.mean(), batch["moved_px"].mean(), border.mean())
        return dict(zip(OBSERVED, (*values, torch.tensor(self.lambdas.smoothness)), strict=True))

    # ------------------------------------------------------------ for the loop

    def pictures(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Picture]:
        """Nothing for a zarr: sections are shown as pictures (SeamlessTrainer)."""
        return {}


def _turned_sections(side: Sections) -> Sections:
    return Sections(*(rotate(part) for part in (side.image, side.mask, side.valid, side.cutout)))


@dataclass
class SeamlessTrainer(Trainer):
    """The loop with SEAMLeSS' schedule, its pictures, and a guard against two dead ends.

    The zero field: smoothness outweighs similarity and the network gives 0 from then on (README).
    The empty mask: the field reads from outside, nothing is left to compare, the loss is 0.
    """

    _shown: int = -1

    @property
    def seamless(self) -> SeamlessTask:
        assert isinstance(self.task, SeamlessTask)
        return self.task

    def _step(self, samples: Iterator[Batch], iteration: int, writer: SummaryWriter | None) -> None:
        task = self.seamless
        epoch = task.plan.epoch(iteration - 1)
        phase = task.schedule.phase(epoch)
        if epoch != self._shown:
            print(f"[train] {task.schedule.trace(epoch + 1)[-1]}", flush=True)
            self._shown = epoch
        self._set_lambda1()
        task.enter(phase)
        assert isinstance(self.module, Seamless)
        chosen = {id(p) for p in task.schedule.trained(self.module, phase)}
        for parameter in self.module.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
        for group in self.optimizer.param_groups:
            group["lr"] = phase.lr
        super()._step(samples, iteration, writer)
        self._guard(iteration)

    def _set_lambda1(self) -> None:
        """lambda1 as the last iteration left it: also where a killed training goes on."""
        if self._losses:
            row = dict(zip(self.terms, self._losses[-1].tolist(), strict=True))
            now = self.seamless.lambdas.smoothness
            if 0 < row["lambda1"] < now * (1 - 1e-6):
                self.seamless.lambdas = replace(self.seamless.lambdas, smoothness=row["lambda1"])

    def _guard(self, iteration: int) -> None:
        """Looks at the last iterations of the phase once in `patience` of them."""
        settings = self.seamless.network["collapse"]
        patience = settings["patience"]
        if iteration % patience or len(self._losses) < patience:
            return
        rows = torch.stack(self._losses[-patience:])
        means = dict(zip(self.terms, rows.mean(0).tolist(), strict=True))
        found = collapse(means, settings)
        if found is None:
            return
        if found == ZERO_FIELD and settings["action"] == "lower":
            self._lower(iteration, means["lambda1"])
        else:
            raise StateError(
                f"iteration {iteration}: {EXPLAIN[found].format(**means)} The weights of the last "
                f"checkpoint are in {self.plan.work}; delete it to begin again with other settings"
            )

    def _lower(self, iteration: int, lambda1: float) -> None:
        smallest = self.seamless.network["lambda1"] / 2**10
        if lambda1 / 2 < smallest:
            raise StateError(
                f"iteration {iteration}: the field stays zero though lambda1 was lowered to "
                f"{lambda1:g}; lower `lr`, or train longer on the coarsest level (`fall_time`)"
            )
        self.seamless.lambdas = replace(self.seamless.lambdas, smoothness=lambda1 / 2)
        # what a killed training reads back
        place = self.terms.index("lambda1")
        self._losses[-1][place] = lambda1 / 2
        print(
            f"[train] iteration {iteration}: the field is all but zero; lambda1 {lambda1:g} -> "
            f"{lambda1 / 2:g}",
            flush=True,
        )

    def _save_snapshot(self, iteration: int, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Pictures of the first pair where they are due."""
        if iteration % self.plan.snapshot_every:
            return
        level = self.seamless.phase.level if self.seamless.phase else 0
        folder = self.plan.work / "pictures"
        source, target = (
            functional.avg_pool2d(batch[f"{side}_image"][:1], 2**level)
            for side in ("source", "target")
        )
        name = f"{iteration:09d}_level{level}"
        save_pair(folder, name, source, target, outputs["field"][:1].detach())


ZERO_FIELD, EMPTY = "zero field", "empty mask"
EXPLAIN = {
    ZERO_FIELD: (
        "the network gives an all but zero field ({field_px:.3f} px on average where sections are "
        "{moved_px:.2f} px apart): smoothness outweighs similarity, and it will not recover. Lower "
        "`lambda1` (now {lambda1:g}) or `lr`, or set `collapse: {{action: lower}}`."
    ),
    EMPTY: (
        "only {valid:.1%} of the pixels are compared: the field reads from outside the sections, "
        "where no loss is. Lower `lr` or raise `lambda1` (now {lambda1:g})."
    ),
}


def collapse(means: Mapping[str, float], settings: Mapping[str, Any]) -> str | None:
    """Which dead end the means of the last iterations show, None where there is none.

    `field_px` below `field_fraction` of `moved_px`; or `valid` below `valid_fraction`; or a
    similarity of exactly 0.
    """
    if means["valid"] < settings["valid_fraction"] or means["similarity"] == 0:
        return EMPTY
    zero = means["field_px"] < settings["field_fraction"] * means["moved_px"]
    return ZERO_FIELD if zero else None
