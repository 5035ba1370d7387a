"""Training of the defect network, on labelled sections and on artificial defects."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrace.alignment.detector import Detector, standardise
from retrace.alignment.stack_files import Stack, StackDataset
from retrace.augment.artificial_defects import DRAW, apply_defect
from retrace.config.alignment_model import DefectDetector
from retrace.errors import DataError
from retrace.networks.defect_unet import DEFECT_CLASSES, DefectNet
from retrace.targets.ternary import INSIDE, contract, dilate
from retrace.training.compared import check_compared, marked
from retrace.training.divergence import check_loss, check_trained_weights
from retrace.training.state import TrainingProgress, load_state, save_state, state_files

TERMS = ("classes", "defect")
"""Terms of the loss: the class of a defect where it is known, and whether there is a defect."""
REMEDY = "The sections are blank: correct `raw` or `stacks` of the dataset"
CHECKPOINT_EVERY = 100
HELD_OUT = 0.1
"""Fraction of the stacks, the last ones, to score on if none are given for that."""
ARTIFICIAL = 0.75
"""Fraction of patches that get artificial defects."""
MISSING_RADIUS = 2
"""Zeros count as missing where a square of this radius is all zeros, pixels."""
CLASS_OF = {"crack": 0, "missing": 0, "fold": 1}
LARGEST_GAIN, LARGEST_SHIFT = 0.3, 0.1
BINS = 1000
"""Bins of the probability, for the area under the curve."""
ALL = "all"


@dataclass(frozen=True)
class Patch:
    """A patch to train on: `image` (H, W) in [0, 1], `classes` (2, H, W) bool of DEFECT_CLASSES.

    `defect` (H, W) bool: whether there is any defect. `known`: whether its class is known. `shows`:
    whether the section shows anything there, apart from artificial defects.
    """

    image: Tensor
    classes: Tensor
    defect: Tensor
    known: bool
    shows: bool = True


class DefectPatches:
    """Patches by number; a patch depends only on the seed and its number."""

    def __init__(
        self,
        data: StackDataset,
        side: int,
        seed: int,
        held_out: StackDataset | None = None,
    ) -> None:
        """`side`: of the square patches, pixels. `held_out`: stacks to score on.

        Without `held_out`, the last tenth of `data` is held out; these stacks may be adjacent to
        those trained on. DataError if a section is smaller than a patch.
        """
        self.data, self.side, self.seed = data, side, seed
        self.scored = held_out or data
        for stacks in (*data.sets, *self.scored.sets):
            if min(stacks.shape[2:]) < self.side:
                raise DataError(
                    f"{stacks.path}: sections of {list(stacks.shape[2:])} px are smaller than the "
                    f"patches of {self.side} px to train on; lower `defects: side`"
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
        """Patch `number` of the training or test stacks; `kinds` as in with_artificial_defects."""
        rng = np.random.default_rng((self.seed, int(test), number))
        chosen = int(rng.choice(self.test if test else self.train))
        stack = self.scored[chosen] if test else self.data[chosen]
        return with_artificial_defects(*self._cut(stack, rng), rng, kinds)

    def _cut(self, stack: Stack, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A random patch of a section, flipped and transposed, and its defects, both (H, W)."""
        section = int(rng.integers(len(stack.images)))
        image, mask = stack.images[section], stack.masks[section] == INSIDE
        y, x = (int(rng.integers(n - self.side + 1)) for n in image.shape)
        window = (slice(y, y + self.side), slice(x, x + self.side))
        flips = [axis for axis in (0, 1) if rng.random() < 0.5]
        turned = rng.random() < 0.5
        image, mask = (part[window].flip(flips) for part in (image, mask))
        return (image.T, mask.T) if turned else (image, mask)


def is_missing(image: Tensor) -> Tensor:
    """Where an image (H, W) is missing: areas of 5 x 5 zeros or more, (H, W) bool."""
    return dilate(contract(image == 0, MISSING_RADIUS), MISSING_RADIUS)


def with_artificial_defects(
    image: Tensor,
    defect: Tensor,
    rng: np.random.Generator,
    kinds: Collection[str] | None = None,
) -> Patch:
    """An image (H, W) in [0, 1] with artificial defects of several kinds, or none, as a patch.

    `defect` (H, W) bool: labelled defects, whose class is unknown. `kinds`: which of DRAW to add;
    None draws them at random.
    """
    known, shows = not bool(defect.any()), bool((image != image[0, 0]).any())
    labels = (defect | is_missing(image)).to(torch.uint8) * INSIDE
    classes = torch.stack([is_missing(image), torch.zeros_like(defect)])
    shape = (image.shape[0], image.shape[1])
    streams = rng.spawn(len(DRAW))
    drawn = rng.random() < ARTIFICIAL
    for (kind, draw), stream in zip(DRAW.items(), streams, strict=True):
        chosen = drawn and stream.random() < 0.5
        if chosen if kinds is None else kind in kinds:
            artificial = draw(stream, shape)
            image, labels = apply_defect(image, labels, artificial)
            own = torch.arange(len(DEFECT_CLASSES))[:, None, None] == CLASS_OF[kind]
            moved = torch.stack(
                [apply_defect(image, c, artificial)[1] > 0 for c in classes.to(torch.uint8)]
            )
            classes = torch.where(artificial.inside, own, moved)
    gain = 1 + rng.uniform(-LARGEST_GAIN, LARGEST_GAIN)
    shift = rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT)
    lit = torch.where(image > 0, (image * gain + shift).clamp(1 / 255, 1), image)
    return Patch(lit, classes, labels == INSIDE, known, shows)


def defect_losses(network: DefectNet, patches: Sequence[Patch], device: torch.device) -> Tensor:
    """The terms of TERMS as means over the pixels of patches, (2,)."""
    images = standardise(torch.stack([p.image for p in patches]).to(device))
    logits = network(images)
    classes = torch.stack([p.classes for p in patches]).to(device).float()
    defect = torch.stack([p.defect for p in patches]).to(device).float()
    known = torch.tensor([p.known for p in patches], device=device).float()
    per_pixel = functional.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    by_class = (per_pixel.mean((1, 2, 3)) * known).sum() / known.sum().clamp_min(1)
    any_defect = functional.binary_cross_entropy_with_logits(logits.amax(1), defect)
    return torch.stack([by_class, any_defect])


def recorded_losses(terms: Tensor, patches: Sequence[Patch]) -> Tensor:
    """The terms of `defect_losses` (2,) as they are recorded: NaN where nothing was compared.

    No class is known in patches with labelled defects, and blank patches show nothing.
    """
    nothing = {
        "classes": torch.tensor(not any(patch.known for patch in patches)),
        "defect": torch.tensor(not any(patch.shows for patch in patches)),
    }
    nothing["classes"] |= nothing["defect"]
    return marked(terms.detach().cpu(), TERMS, nothing)


class DefectTraining:
    """Trains the defect network with Adam, from the last saved state in `work`, if there is one."""

    def __init__(
        self,
        patches: DefectPatches,
        settings: DefectDetector,
        seed: int,
        device: torch.device,
        work: Path,
    ) -> None:
        self.patches, self.settings, self.device, self.work = patches, settings, device, work
        self.network = DefectNet(settings.fmaps, seed).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), settings.learning_rate)
        self.progress = TrainingProgress(0, TERMS, torch.zeros(0, len(TERMS)))
        saved = state_files(work)
        if saved:
            self.progress = load_state(saved[-1], self.network, self.optimizer)
            print(f"[defects] resumes at iteration {self.progress.iteration}", flush=True)

    def run(self) -> Iterator[int]:
        """Trains to `iterations`; yields each finished iteration. Saves states on the way.

        StateError if the network diverges, or if the sections show nothing.
        """
        losses = list(self.progress.losses)
        last = self.settings.iterations
        for iteration in range(self.progress.iteration + 1, last + 1):
            losses.append(self._step(iteration))
            check_loss(losses[-1], TERMS, iteration, self.work)
            if iteration % CHECKPOINT_EVERY == 0 or iteration == last:
                check_trained_weights(self.network, iteration, self.work)
                self.progress = TrainingProgress(iteration, TERMS, torch.stack(losses))
                save_state(self.work, self.network, self.optimizer, self.progress)
            yield iteration
        check_compared(torch.stack(losses), TERMS, REMEDY, self.work)

    def _step(self, iteration: int) -> Tensor:
        size = self.settings.batch_size
        first = (iteration - 1) * size
        batch = [self.patches.patch(number) for number in range(first, first + size)]
        self.network.train()
        terms = defect_losses(self.network, batch, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        terms.sum().backward()
        self.optimizer.step()
        return recorded_losses(terms, batch)


@dataclass
class DefectTally:
    """Counts of pixels over patches.

    `predicted`, `actual`: pixels inside defects; `correct`: both. `counts` (2, BINS): pixels inside
    and outside defects by predicted probability.
    """

    correct: int = 0
    predicted: int = 0
    actual: int = 0
    seconds: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, BINS), np.int64))

    def add(self, detector: Detector, patch: Patch) -> None:
        """Adds the pixels of a patch."""
        begin = time.perf_counter()
        probability = detector.smoothed(patch.image)
        inside = detector.inside(probability)
        self.seconds += time.perf_counter() - begin
        actual = patch.defect.numpy()
        self.correct += int((inside & actual).sum())
        self.predicted += int(inside.sum())
        self.actual += int(actual.sum())
        bins = (probability.cpu().numpy() * BINS).astype(int).clip(0, BINS - 1)
        for row, part in zip(self.counts, (actual, ~actual), strict=True):
            row += np.bincount(bins[part], minlength=BINS)

    def scores(self) -> dict[str, float | None]:
        """Precision, recall, intersection over union and ROC AUC of the pixels inside defects.

        Also the fraction of such pixels (`defect_share`) and the speed in megapixels per second.
        """
        pixels = int(self.counts.sum())
        return {
            "precision": self.correct / max(self.predicted, 1),
            "recall": self.correct / max(self.actual, 1),
            "iou": self.correct / max(self.predicted + self.actual - self.correct, 1),
            "auc": area_under_curve(self.counts),
            "defect_share": self.actual / max(pixels, 1),
            "megapixels_per_s": pixels / 1e6 / max(self.seconds, 1e-9),
        }


def area_under_curve(counts: np.ndarray) -> float | None:
    """Area under the ROC curve from `counts` (2, bins) of pixels inside and outside defects.

    The probability that a pixel inside has a higher bin than one outside; ties count half (Hanley
    and McNeil 1982). None if either row is empty.
    """
    inside, outside = counts.astype(float)
    below = np.cumsum(outside) - outside / 2
    total = inside.sum() * outside.sum()
    return float((inside * below).sum() / total) if total else None


def score_detector(
    detector: Detector, patches: DefectPatches, count: int
) -> dict[str, dict[str, float | None]]:
    """Scores on `count` patches of the held-out stacks, by kind of defect.

    `all`: patches as in training. Each kind of DRAW: added alone to every second patch, on patches
    without labelled defects.
    """
    tallies = {name: DefectTally() for name in (ALL, *DRAW)}
    for number in range(count):
        tallies[ALL].add(detector, patches.patch(number, test=True))
        for kind in DRAW:
            patch = patches.patch(number, test=True, kinds=() if number % 2 else (kind,))
            if patch.known:
                tallies[kind].add(detector, patch)
    return {name: tally.scores() for name, tally in tallies.items()}


def scores_text(scores: Mapping[str, Mapping[str, float | None]]) -> str:
    """Scores as a text table."""
    names = ("precision", "recall", "iou", "auc")
    lines = ["".join(f"{text:>11}" for text in ("", *names, "share"))]
    for kind, values in scores.items():
        cells = [
            f"{'-' if values[name] is None else format(values[name], '.3f'):>11}" for name in names
        ]
        lines.append(f"{kind:>11}{''.join(cells)}{100 * (values['defect_share'] or 0):9.1f} %")
    return "\n".join(lines)
