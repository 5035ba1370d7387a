"""Modules whose weights are drawn from a seed, on the CPU whatever the device."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn


class Drawn(Protocol):
    """A module that says how its weights are drawn."""

    def initialise(self, generator: torch.Generator) -> None:
        """Draws every weight anew."""


Shaped = TypeVar("Shaped", bound=nn.Module)


def with_weights(module: Shaped, seed: int, device: torch.device | str) -> Shaped:
    """`module`, built on "meta", with weights of `seed` on `device`; "meta" leaves it as it is.

    It needs a method `initialise` (`Drawn`).
    """
    if torch.device(device).type == "meta":
        return module
    # As `to_empty` does, which takes a second, as it loads what torch knows of meta tensors.
    module._apply(_unset)
    drawn: Drawn = module  # type: ignore[assignment]
    drawn.initialise(torch.Generator().manual_seed(seed))
    return module.to(device)


def _unset(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
