"""Training of the family seamless: its schedule, its pictures, and collapse detection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from retrace.alignment.task import DATA_TERMS, SeamlessTask
from retrace.errors import StateError
from retrace.networks.seamless import Seamless
from retrace.training.compared import LAST
from retrace.training.loop import Trainer
from retrace.training.task import Batch
from retrace.viewing.displacement_pictures import save_pair


@dataclass
class SeamlessTrainer(Trainer):
    """The training loop with SEAMLeSS's schedule, pictures, and detection of two collapses.

    Zero field: smoothness outweighs similarity, and the network predicts 0 forever (README). Empty
    mask: the field points outside the sections, nothing is left to compare, and the loss is 0.
    """

    _printed_epoch: int = -1

    @property
    def seamless(self) -> SeamlessTask:
        """The task, which is always a SeamlessTask."""
        assert isinstance(self.task, SeamlessTask)
        return self.task

    def _step(
        self, samples: Iterator[Batch], iteration: int, writer: SummaryWriter | None
    ) -> tuple[dict[str, Tensor], Batch]:
        task = self.seamless
        epoch = task.plan.epoch(iteration - 1)
        phase = task.schedule.phase(epoch)
        if epoch != self._printed_epoch:
            print(f"[train] {task.schedule.trace(epoch + 1)[-1]}", flush=True)
            self._printed_epoch = epoch
        self._set_lambda1()
        task.enter(phase)
        assert isinstance(self.module, Seamless)
        chosen = {id(p) for p in task.schedule.trained(self.module, phase)}
        for parameter in self.module.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
        for group in self.optimizer.param_groups:
            group["lr"] = phase.lr
        shown = super()._step(samples, iteration, writer)
        self._detect_collapse(iteration)
        return shown

    def _set_lambda1(self) -> None:
        """Takes lambda1 from the last iteration, also when the training resumes."""
        if self._losses:
            row = dict(zip(self.terms, self._losses[-1].tolist(), strict=True))
            current = self.seamless.lambdas.smoothness
            if 0 < row["lambda1"] < current * (1 - 1e-6):
                self.seamless.lambdas = replace(self.seamless.lambdas, smoothness=row["lambda1"])

    def _detect_collapse(self, iteration: int) -> None:
        """Checks the means of the last `patience` iterations, every `patience` iterations.

        StateError for a collapse; with `action: lower`, a zero field halves lambda1 instead.
        """
        settings = self.seamless.network.collapse
        if iteration % settings.patience or len(self._losses) < settings.patience:
            return
        kind, means = self._collapse(settings.patience)
        if kind == ZERO_FIELD and settings.action == "lower":
            self._lower_lambda1(iteration, means["lambda1"])
        elif kind is not None:
            self._refuse(iteration, kind, means)

    def _check_end(self) -> None:
        """StateError for a training, however short, that compared nothing or ends collapsed.

        The field of a training shorter than `patience` may still be zero, which is printed.
        """
        super()._check_end()
        if not self._losses:
            return
        settings, iteration = self.seamless.network.collapse, self.begun + len(self._losses)
        for window in (LAST, settings.patience):
            kind, means = self._collapse(window)
            if kind == EMPTY:
                self._refuse(iteration, kind, means)
        if kind == ZERO_FIELD and settings.action == "stop":
            if len(self._losses) >= settings.patience:
                self._refuse(iteration, kind, means)
            print(f"[train] warning: {EXPLAIN[kind].format(**means)}", flush=True)

    def _collapse(self, window: int) -> tuple[str | None, dict[str, float]]:
        """The kind of collapse in the last `window` iterations, and the means of their terms."""
        settings = self.seamless.network.collapse
        rows = torch.stack(self._losses[-window:])
        means = dict(zip(self.terms, rows.nanmean(0).tolist(), strict=True))
        kind = collapse(
            means,
            field_fraction=settings.field_fraction,
            valid_fraction=settings.valid_fraction,
        )
        return kind, means

    def _refuse(self, iteration: int, kind: str, means: Mapping[str, float]) -> None:
        """StateError that names the collapse; the last saved state stays."""
        raise StateError(
            f"iteration {iteration}: {EXPLAIN[kind].format(**means)} No result is written. The "
            f"weights of the last checkpoint are in {self.plan.work}; delete it to start over with "
            "other settings"
        )

    def _lower_lambda1(self, iteration: int, lambda1: float) -> None:
        """Halves lambda1; StateError if it has been halved ten times."""
        smallest = self.seamless.network.lambda1 / 2**10
        if lambda1 / 2 < smallest:
            raise StateError(
                f"iteration {iteration}: the field stays zero though lambda1 was lowered to "
                f"{lambda1:g}; lower `lr`, or train longer on the coarsest level (`fall_time`)"
            )
        self.seamless.lambdas = replace(self.seamless.lambdas, smoothness=lambda1 / 2)
        # read by `_set_lambda1` when the training resumes
        place = self.terms.index("lambda1")
        self._losses[-1][place] = lambda1 / 2
        print(
            f"[train] iteration {iteration}: the field is almost zero; lambda1 {lambda1:g} -> "
            f"{lambda1 / 2:g}",
            flush=True,
        )

    def _save_snapshot(self, iteration: int, outputs: Mapping[str, Tensor], batch: Batch) -> None:
        """Draws the first pair."""
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
        "the network predicts an almost zero field ({field_px:.3f} px on average, sections are "
        "{moved_px:.2f} px apart): smoothness outweighs similarity, and it will not recover. Lower "
        "`lambda1` (now {lambda1:g}) or `lr`, or set `collapse: {{action: lower}}`."
    ),
    EMPTY: (
        "only {valid:.1%} of the pixels are compared, or all that are lie in defects: the field "
        "points outside the sections, where there is no loss, or sections are blank. Lower `lr`, "
        "raise `lambda1` (now {lambda1:g}), or correct the sections and their masks."
    ),
}


def collapse(
    means: Mapping[str, float], *, field_fraction: float, valid_fraction: float
) -> str | None:
    """The kind of collapse in the mean terms of the last iterations; None if there is none.

    EMPTY: `valid` below `valid_fraction`, or all terms that compare are NaN or 0. ZERO_FIELD:
    `field_px` below `field_fraction` of `moved_px`.
    """
    compared = [means[name] for name in DATA_TERMS if name in means]
    if means["valid"] < valid_fraction or not any(mean > 0 for mean in compared):
        return EMPTY
    zero = means["field_px"] < field_fraction * means["moved_px"]
    return ZERO_FIELD if zero else None
