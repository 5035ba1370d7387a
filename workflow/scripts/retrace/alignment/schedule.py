"""SEAMLeSS's training schedule: level by level from the coarsest, then all levels together.

After SEAMLeSS's train.py: each level is trained for `fall_time` epochs. In the last epoch of a
level, and always after the last level, all aligners and encoders are trained at a lower learning
rate. Each change resets the optimiser.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.networks.seamless import Seamless


@dataclass(frozen=True)
class Phase:
    """What one epoch trains: level, with or without encoders, learning rate, smoothness."""

    level: int
    fine_tuning: bool
    encoders: bool
    lr: float
    smooth_factor: float


@dataclass(frozen=True)
class PhaseSchedule:
    """The phases of a training; `network`: settings of the family seamless."""

    network: SeamlessNetworkSettings

    @property
    def first_level(self) -> int:
        """The level that training begins at: `trunc`, or the coarsest one if it is null."""
        trunc = self.network.trunc
        coarsest = int(self.network.height - 1 - self.network.topskips)
        return coarsest if trunc is None else int(trunc)

    def phase(self, epoch: int) -> Phase:
        """The phase of epoch `epoch`, from 0."""
        network, fall_time = self.network, self.network.fall_time
        level = max(self.first_level - epoch // fall_time, 0)
        over = epoch >= fall_time * (self.first_level + 1) - 1
        last = fall_time > 1 and epoch % fall_time == fall_time - 1
        tuning = bool(network.fine_tuning or over or last)
        encoders = tuning or epoch < fall_time - 1 or network.train_encoders == "always"
        factor = network.fine_tuning_lr_factor if tuning else 1.0
        smooth = network.smooth_factor
        fine = tuning and level == 0
        return Phase(
            level, tuning, encoders, network.lr * factor, smooth.fine if fine else smooth.coarse
        )

    @property
    def final(self) -> Phase:
        """The phase that a long training ends with: all levels, up to the finest one."""
        return self.phase(self.network.fall_time * (self.first_level + 1))

    def begins(self, epoch: int) -> bool:
        """Whether the phase changes with this epoch, so that the optimiser is reset."""
        return epoch == 0 or self.phase(epoch) != self.phase(epoch - 1)

    def trained(self, module: Seamless, phase: Phase) -> list[nn.Parameter]:
        """The weights that a phase trains."""
        if phase.fine_tuning or phase.level < module.pyramid.skip:
            levels = range(module.pyramid.skip, module.pyramid.height)
        else:
            levels = range(phase.level, phase.level + 1)
        chosen = [p for level in levels for p in module.level_parameters(level)]
        return chosen + (module.encoder_parameters() if phase.encoders else [])

    def trace(self, epochs: int) -> list[str]:
        """One line per epoch, as printed by `align.py schedule`."""
        lines = []
        for epoch in range(epochs):
            phase = self.phase(epoch)
            all_levels = phase.fine_tuning or phase.level < self.network.skip
            what = "all" if all_levels else f"aligner {phase.level}"
            if phase.encoders and not phase.fine_tuning:
                what += " + encoders"
            lines.append(f"epoch {epoch}: level {phase.level}, {what}, lr {phase.lr:g}")
        return lines
