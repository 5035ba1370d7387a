"""Affinity targets and masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrace.errors import ConfigError
from retrace.targets.affinities import affinities, affinity_mask

DIRECT = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
LONG = [*DIRECT, (-3, 0, 0), (0, -3, 0), (0, 0, -3), (0, -9, 0), (2, -1, 1)]


def reference(labels: np.ndarray, offset: tuple[int, int, int]) -> np.ndarray:
    result = np.zeros(labels.shape)
    for here in np.ndindex(labels.shape):
        there = tuple(h + o for h, o in zip(here, offset, strict=True))
        if all(0 <= t < n for t, n in zip(there, labels.shape, strict=True)):
            result[here] = labels[here] == labels[there] and labels[here] > 0
    return result


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 6)] * 3))
def test_any_neighborhood_against_the_definition(seed: int, shape: tuple[int, int, int]) -> None:
    labels = np.random.default_rng(seed).integers(-1, 3, shape)

    ours = affinities(torch.from_numpy(labels), LONG)

    assert ours.dtype == torch.float32
    np.testing.assert_array_equal(ours, np.stack([reference(labels, offset) for offset in LONG]))


def test_09_channels_follow_the_neighborhood() -> None:
    labels = torch.ones(2, 2, 2, dtype=torch.int64)
    labels[1] = 2

    z, y, x = affinities(labels, DIRECT)

    assert not z.any()
    assert not y[:, 0].any() and y[:, 1].all()
    assert not x[..., 0].any() and x[..., 1].all()


def test_large_ids_are_compared_as_integers() -> None:
    labels = torch.tensor([[[2**53, 2**53 + 1, 2**53 + 1]]])

    assert affinities(labels, [(0, 0, -1)]).flatten().tolist() == [0, 0, 1]


def test_mask_needs_both_ends() -> None:
    mask = torch.ones(1, 1, 5, dtype=torch.uint8)
    mask[..., 2] = 0

    masked = affinity_mask(mask, [(0, 0, -1), (0, 0, -2)])

    assert masked.dtype == torch.bool
    expected = [[False, True, False, False, True], [False, False, False, True, False]]
    assert masked[:, 0, 0].tolist() == expected


def test_a_batch_equals_the_samples_of_its_volumes() -> None:
    labels = torch.randint(0, 3, (2, 4, 5, 6), generator=torch.Generator().manual_seed(0))

    assert torch.equal(affinities(labels, LONG), torch.stack([affinities(v, LONG) for v in labels]))


def test_an_offset_needs_three_axes() -> None:
    with pytest.raises(ConfigError, match=r"\[-1, 0\]"):
        affinities(torch.ones(2, 2, 2, dtype=torch.int64), [(-1, 0)])
