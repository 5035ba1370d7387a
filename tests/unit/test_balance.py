"""Class balancing equals gunpowder's BalanceLabels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrace.losses.balance import balance_weights


def test_both_classes_weigh_the_same_inside_the_mask() -> None:
    affinities = torch.zeros(3, 4, 4, 4)
    affinities[:, :3] = 1
    mask = torch.ones(3, 4, 4, 4)
    mask[1, :2] = 0

    weights = balance_weights(affinities, mask)

    positive = weights[affinities == 1].sum().item()
    assert positive == pytest.approx(weights[affinities == 0].sum().item())
    assert weights.sum().item() == pytest.approx(mask.sum().item())
    assert not weights[mask == 0].any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_06_one_class_alone_is_clipped(value: float) -> None:
    weights = balance_weights(torch.full((3, 2, 2, 2), value))

    assert weights.unique().tolist() == pytest.approx([1 / (2 * 0.95)])


def test_a_rare_class_weighs_at_most_ten() -> None:
    affinities = torch.zeros(3, 10, 10, 10)
    affinities[0, 0, 0, 0] = 1

    weights = balance_weights(affinities)

    assert weights.max().item() == pytest.approx(10)
    assert weights.min().item() == pytest.approx(1 / 1.9)


def test_an_empty_mask_gives_zeros() -> None:
    assert not balance_weights(torch.ones(3, 2, 2, 2), torch.zeros(3, 2, 2, 2)).any()


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**24 - 1))
def test_equals_gunpowders_formula(affinity_bits: int, mask_bits: int) -> None:
    affinities = np.array([affinity_bits >> i & 1 for i in range(24)], np.float64)
    mask = np.array([mask_bits >> i & 1 for i in range(24)], np.float64)
    classes, counts = np.unique(affinities[mask != 0].astype(int), return_counts=True)
    weight = np.zeros(2)
    weight[classes] = 0.5 / np.clip(counts / max(mask.sum(), 1), 0.05, 0.95)

    ours = balance_weights(torch.from_numpy(affinities), torch.from_numpy(mask))

    np.testing.assert_allclose(ours, mask * weight[affinities.astype(int)], rtol=1e-5)
