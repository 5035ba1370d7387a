"""Training of the defect network: on labelled sections, and on artificial defects in clean ones."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.alignment.detector import Detector, prepared
from retrace.alignment.stack_files import Stack, StackDataset
from retrace.augment.artificial_defects import DRAW, apply_defect
from retrace.errors import DataError
from retrace.networks.defect_unet import CLASSES, DefectNet
from retrace.targets.ternary import INSIDE, contract, dilate
from retrace.training.state import TrainingProgress, load_state, save_state, state_files

TERMS = ("classes", "defect")
"""Terms of the loss: each class where it is known, and whether there is a defect at all."""
CHECKPOINT_EVERY = 100
HELD_OUT = 0.1
"""Share of the stacks, the last ones, that the score is taken on where no others are."""
ARTIFICIAL = 0.75
"""Share of patches that get artificial defects; the others show what none looks like."""
MISSING_RADIUS = 2
"""Zeros count as missing where a square of that radius is all zeros."""
CLASS_OF = {"crack": 0, "missing": 0, "fold": 1}
LARGEST_GAIN, LARGEST_SHIFT = 0.3, 0.1
BINS = 1000
"""Of probabilities, for the area under the curve."""
ALL = "all"


@dataclass(frozen=True)
class Patch:
    """A patch as trained on: `image` (H, W) in [0, 1], `classes` (2, H, W) booleans of CLASSES,
    whether those are `known`, and whether there is any `defect` (H, W)."""

    image: Tensor
    classes: Tensor
    defect: Tensor
    known: bool


class DefectPatches:
    """Patches by number, each depending on the seed and its number alone."""

    def __init__(
        self,
        data: StackDataset,
        settings: Mapping[str, Any],
        seed: int,
        held_out: StackDataset | None = None,
    ) -> None:
        """`held_out`: stacks to score on; without them the last of `data`, which are not trained on
        then, but may lie beside those that are.

        DataError where a section is smaller than a patch.
        """
        self.data, self.side, self.seed = data, settings["side"], seed
        self.scored = held_out or data
        for one in (*data.sets, *self.scored.sets):
            if min(one.shape[2:]) < self.side:
                raise DataError(
                    f"{one.path}: sections of {list(one.shape[2:])} px are smaller than the "
                    f"patches of {self.side} px that defects are learned on; lower `defects: side`"
                )
        if held_out is not None:
            self.train, self.test = range(len(data)), range(len(held_out))
            return
        last = max(1, round(len(data) * HELD_OUT))
        self.train = range(max(1, len(data) - last))
        self.test = range(self.train.stop if len(data) > 1 else 0, len(data))

    def patch(
        self, number: int, *, test: bool = False, kinds: Collection[str] | None = None
    ) -> Patch:
        """Patch `number` of the training stacks, or of those held out; `kinds` as in damaged."""
        rng = np.random.default_rng((self.seed, int(test), number))
        chosen = int(rng.choice(self.test if test else self.train))
        stack = self.scored[chosen] if test else self.data[chosen]
        return damaged(*self._cut(stack, rng), rng, kinds)

    def _cut(self, stack: Stack, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A patch of one section, mirrored and transposed at random, and where it is defect."""
        section = int(rng.integers(len(stack.images)))
        image, mask = stack.images[section], stack.masks[section] == INSIDE
        y, x = (int(rng.integers(n - self.side + 1)) for n in image.shape)
        window = (slice(y, y + self.side), slice(x, x + self.side))
        flips = [axis for axis in (0, 1) if rng.random() < 0.5]
        turned = rng.random() < 0.5
        image, mask = (part[window].flip(flips) for part in (image, mask))
        return (image.T, mask.T) if turned else (image, mask)


def is_missing(image: Tensor) -> Tensor:
    """Where (H, W) nothing was imaged: zeros, but for single dark pixels."""
    return dilate(contract(image == 0, MISSING_RADIUS), MISSING_RADIUS)


def damaged(
    image: Tensor,
    defect: Tensor,
    rng: np.random.Generator,
    kinds: Collection[str] | None = None,
) -> Patch:
    """An image with artificial defects of one or several kinds, or left as it is.

    `defect` (H, W): what is labelled, whose kind nobody said. `kinds` of DRAW: which ones are made;
    None: drawn at random.
    """
    known = not bool(defect.any())
    labels = (defect | is_missing(image)).to(torch.uint8) * INSIDE
    classes = torch.stack([is_missing(image), torch.zeros_like(defect)])
    shape = (image.shape[0], image.shape[1])
    streams = rng.spawn(len(DRAW))
    drawn = rng.random() < ARTIFICIAL
    for (kind, draw), stream in zip(DRAW.items(), streams, strict=True):
        chance = drawn and stream.random() < 0.5
        if chance if kinds is None else kind in kinds:
            made = draw(stream, shape)
            image, labels = apply_defect(image, labels, made)
            own = torch.arange(len(CLASSES))[:, None, None] == CLASS_OF[kind]
            moved = torch.stack(
                [apply_defect(image, c, made)[1] > 0 for c in classes.to(torch.uint8)]
            )
            classes = torch.where(made.inside, own, moved)
    gain = 1 + rng.uniform(-LARGEST_GAIN, LARGEST_GAIN)
    shift = rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT)
    lit = torch.where(image > 0, (image * gain + shift).clamp(1 / 255, 1), image)
    return Patch(lit, classes, labels == INSIDE, known)


def losses(network: DefectNet, patches: Sequence[Patch], device: torch.device) -> Tensor:
    """TERMS as means over pixels, (2,)."""
    images = prepared(torch.stack([p.image for p in patches]).to(device))
    logits = network(images)
    classes = torch.stack([p.classes for p in patches]).to(device).float()
    defect = torch.stack([p.defect for p in patches]).to(device).float()
    known = torch.tensor([p.known for p in patches], device=device).float()
    each = functional.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    by_class = (each.mean((1, 2, 3)) * known).sum() / known.sum().clamp_min(1)
    whole = functional.binary_cross_entropy_with_logits(logits.amax(1), defect)
    return torch.stack([by_class, whole])


class DefectTraining:
    """Adam from where the last saved state was, to `iterations`."""

    def __init__(
        self,
        patches: DefectPatches,
        settings: Mapping[str, Any],
        seed: int,
        device: torch.device,
        work: Path,
    ) -> None:
        self.patches, self.settings, self.device, self.work = patches, settings, device, work
        self.network = DefectNet(settings["fmaps"], seed).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), settings["learning_rate"])
        self.progress = TrainingProgress(0, TERMS, torch.zeros(0, len(TERMS)))
        saved = state_files(work)
        if saved:
            self.progress = load_state(saved[-1], self.network, self.optimizer)
            print(f"[defects] going on from iteration {self.progress.iteration}", flush=True)

    def run(self) -> Iterator[int]:
        """Trains to the end; gives the iteration after each step. States are saved on the way."""
        found = list(self.progress.losses)
        last = self.settings["iterations"]
        for iteration in range(self.progress.iteration + 1, last + 1):
            found.append(self._step(iteration))
            if iteration % CHECKPOINT_EVERY == 0 or iteration == last:
                self.progress = TrainingProgress(iteration, TERMS, torch.stack(found))
                save_state(self.work, self.network, self.optimizer, self.progress)
            yield iteration

    def _step(self, iteration: int) -> Tensor:
        size = self.settings["batch_size"]
        first = (iteration - 1) * size
        batch = [self.patches.patch(number) for number in range(first, first + size)]
        self.network.train()
        terms = losses(self.network, batch, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        terms.sum().backward()
        self.optimizer.step()
        return terms.detach().cpu()


@dataclass
class Tally:
    """Pixels counted one patch after the other: inside defects, found, both; of those inside and
    those outside, how many had which probability, (2, BINS)."""

    hit: int = 0
    found: int = 0
    wanted: int = 0
    seconds: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, BINS), np.int64))

    def add(self, detector: Detector, patch: Patch) -> None:
        """Counts the pixels of a patch."""
        begin = time.perf_counter()
        probability = detector.smoothed(patch.image)
        inside = detector.inside(probability)
        self.seconds += time.perf_counter() - begin
        wanted = patch.defect.numpy()
        self.hit += int((inside & wanted).sum())
        self.found += int(inside.sum())
        self.wanted += int(wanted.sum())
        bins = (probability.cpu().numpy() * BINS).astype(int).clip(0, BINS - 1)
        for row, part in zip(self.counts, (wanted, ~wanted), strict=True):
            row += np.bincount(bins[part], minlength=BINS)

    def scores(self) -> dict[str, float | None]:
        """Precision, recall and intersection over union of the pixels inside defects, the area
        under the receiver operating characteristic of their probability, the share of them, and
        how many megapixels a second were looked at."""
        pixels = int(self.counts.sum())
        return {
            "precision": self.hit / max(self.found, 1),
            "recall": self.hit / max(self.wanted, 1),
            "iou": self.hit / max(self.found + self.wanted - self.hit, 1),
            "auc": area_under_curve(self.counts),
            "defect_share": self.wanted / max(pixels, 1),
            "megapixels_per_s": pixels / 1e6 / max(self.seconds, 1e-9),
        }


def area_under_curve(counts: np.ndarray) -> float | None:
    """How probable it is that a pixel inside has a higher bin than one outside, a tie counted half
    (Hanley and McNeil 1982); `counts` (2, bins) of those inside and outside. None where either is
    empty."""
    inside, outside = counts.astype(float)
    below = np.cumsum(outside) - outside / 2
    total = inside.sum() * outside.sum()
    return float((inside * below).sum() / total) if total else None


def score(
    detector: Detector, patches: DefectPatches, count: int
) -> dict[str, dict[str, float | None]]:
    """The scores on `count` patches of stacks that were held out: `all` as they are trained on, and
    each kind of DRAW by itself in every second patch, where nothing else is labelled."""
    tallies = {name: Tally() for name in (ALL, *DRAW)}
    for number in range(count):
        tallies[ALL].add(detector, patches.patch(number, test=True))
        for kind in DRAW:
            patch = patches.patch(number, test=True, kinds=() if number % 2 else (kind,))
            if patch.known:
                tallies[kind].add(detector, patch)
    return {name: tally.scores() for name, tally in tallies.items()}


def scores_text(scores: Mapping[str, Mapping[str, float | None]]) -> str:
    """Scores as aligned text."""
    names = ("precision", "recall", "iou", "auc")
    lines = ["".join(f"{text:>11}" for text in ("", *names, "share"))]
    for kind, one in scores.items():
        values = [f"{'-' if one[name] is None else format(one[name], '.3f'):>11}" for name in names]
        lines.append(f"{kind:>11}{''.join(values)}{100 * (one['defect_share'] or 0):9.1f} %")
    return "\n".join(lines)
