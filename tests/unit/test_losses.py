"""The weighted mean squared error against TensorFlow's reduction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from retrace.losses.weighted_mse import weighted_mse


def test_05_divides_by_the_number_of_nonzero_weights() -> None:
    prediction = torch.tensor([1.0, 2.0, 3.0, 4.0])
    weight = torch.tensor([0.5, 0.25, 0.0, 2.0])

    loss = weighted_mse(prediction, torch.zeros(4), weight)

    assert pytest.approx(loss.item()) == (0.5 * 1 + 0.25 * 4 + 2.0 * 16) / 3


def test_a_mask_broadcasts_over_the_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.rand(2, 10, 3, 4, 5, generator=generator)
    mask = torch.rand(3, 4, 5, generator=generator) > 0.5

    full = weighted_mse(prediction, target, mask.float().expand(10, 3, 4, 5).contiguous())
    expected = (prediction - target).square()[:, mask].mean()

    torch.testing.assert_close(weighted_mse(prediction, target, mask.float()), expected)
    torch.testing.assert_close(full, expected)


def test_zero_weights_give_zero_loss_and_gradient() -> None:
    prediction = torch.ones(4, requires_grad=True)
    loss = weighted_mse(prediction, torch.zeros(4), torch.zeros(4))
    loss.backward()

    assert loss.item() == 0
    assert prediction.grad is not None and not prediction.grad.any()


def test_half_precision_is_reduced_in_single() -> None:
    prediction = torch.full((10_000,), 0.5, dtype=torch.bfloat16)

    loss = weighted_mse(prediction, torch.zeros(10_000), torch.ones(10_000))

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.25)


def test_same_loss_as_the_tensorflow_graph(shared_dir: Path) -> None:
    with np.load(shared_dir / "oracles/lsd_tensorflow/one_step.npz") as arrays:
        output, target, weight = (
            torch.from_numpy(arrays[name].astype(np.float32))
            for name in ("out_affs", "gt_affs", "weight_affs")
        )
        expected = float(arrays["loss"])

    loss = weighted_mse(output, target, weight).item()

    assert loss == pytest.approx(expected, rel=1e-6)
    assert (weight == 0).any() and ((weight > 0) & (weight != 1)).any()
