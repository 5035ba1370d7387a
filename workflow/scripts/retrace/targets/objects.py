"""Objects: the connected parts of labels."""

from __future__ import annotations

import cc3d
import numpy as np
import torch
from torch import Tensor

from retrace.formats.label_values import compact


def connected_objects(labels: Tensor) -> Tensor:
    """Labels (Z, Y, X) split into 6-connected components, int64.

    As gunpowder's RenumberConnectedComponents, which the original runs before MALIS.
    """
    numbers = compact(labels.cpu().numpy())
    parts = cc3d.connected_components(numbers.astype(np.uint32), connectivity=6)
    return torch.from_numpy(parts.astype(np.int64)).to(labels.device)
