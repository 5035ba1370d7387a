"""What a wrong call of the library in a notebook says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from retrace.config.networks import network_by_name
from retrace.errors import ConfigError, DataError, RetraceError
from retrace.networks import build_network
from retrace.segmentation.fragments import watershed_fragments
from retrace.targets.affinities import affinities, affinity_mask
from retrace.targets.lsds import compute_lsds

LABELS = torch.ones((4, 8, 8), dtype=torch.int64)
SIZE = (20, 9, 9)


@pytest.mark.parametrize(
    ("call", "kind", "expected"),
    [
        (lambda: network_by_name("mtlds", SIZE), ConfigError, "did you mean 'mtlsd'?"),
        (lambda: network_by_name("mtlsd"), ConfigError, "give their `voxel_size_nm`, z, y, x"),
        (lambda: network_by_name("mtlsd", (20, 9)), ConfigError, "(20, 9) is not allowed; give th"),
        (lambda: network_by_name("mtlsd", 20), ConfigError, "voxel_size_nm: 20 is not allowed"),
        (lambda: network_by_name("mtlsd", (20, 9, 0)), ConfigError, "three numbers above 0"),
        (lambda: network_by_name("mtlsd", "20,9,9"), ConfigError, "three numbers above 0"),
        (lambda: network_by_name("mtlsd", SIZE, isotropy=True), ConfigError, "mean 'isotropic'?"),
        (lambda: build_network("mtlsd"), ConfigError, "give what `network_by_name` returns"),
        (lambda: compute_lsds(LABELS.numpy(), SIZE, 120), DataError, "give torch.from_numpy"),
        (lambda: compute_lsds(LABELS[0], SIZE, 120), DataError, "volume of integers, not (8, 8)"),
        (lambda: compute_lsds(LABELS, SIZE, -1), DataError, "sigma_nm: -1 is not allowed"),
        (lambda: affinities(LABELS.numpy(), [[-1, 0, 0]]), DataError, "not ndarray (4, 8, 8)"),
        (lambda: affinities(LABELS[0], [[-1, 0, 0]]), DataError, "not Tensor (8, 8)"),
        (lambda: affinity_mask(LABELS[0], [[-1, 0, 0]]), DataError, "not Tensor (8, 8)"),
        (lambda: affinities(LABELS, [[-1, 0]]), ConfigError, "offset [-1, 0]"),
        (lambda: watershed_fragments(torch.rand(3, 4, 8, 8), in_xy=False), DataError, "Tensor (3"),
        (lambda: watershed_fragments(np.ones((4, 8, 8)), in_xy=False), DataError, "(4, 8, 8)"),
        (lambda: watershed_fragments(np.ones((2, 4, 8, 8)), in_xy=True), DataError, "(2, 4, 8, 8)"),
    ],
)
def test_a_wrong_argument_is_named(
    call: Callable[[], Any], kind: type[RetraceError], expected: str
) -> None:
    with pytest.raises(kind) as error:
        call()
    assert expected in str(error.value)
