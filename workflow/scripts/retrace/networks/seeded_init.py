"""Weights drawn from a seed on the CPU, so that they are the same on every device."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn


class Initialisable(Protocol):
    """A module that draws its own weights."""

    def initialise(self, generator: torch.Generator) -> None:
        """Draws every weight and bias from `generator`, in a fixed order."""


Module = TypeVar("Module", bound=nn.Module)


def with_seeded_weights(module: Module, seed: int, device: torch.device | str) -> Module:
    """`module`, built on device "meta", with weights drawn from `seed` and moved to `device`.

    `module` has a method `initialise` (`Initialisable`). On "meta" it keeps shapes without memory.
    """
    if torch.device(device).type == "meta":
        return module
    # `to_empty` does the same, but spends a second on importing torch's code for meta tensors.
    module._apply(_uninitialised)
    initialisable: Initialisable = module  # type: ignore[assignment]
    initialisable.initialise(torch.Generator().manual_seed(seed))
    return module.to(device)


def _uninitialised(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
