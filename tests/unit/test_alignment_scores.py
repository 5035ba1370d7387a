"""Chunked correlation against the reference table, endpoint errors, drift."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrace.alignment.metrics import (
    alignment_table,
    chunked_correlation,
    correlation_summary,
    drift,
    endpoint_errors,
    error_summary,
    field_facts,
    remaining_displacement,
)
from retrace.displacement import identity, inverse, smooth


def pooled(raw: np.ndarray, factor: int) -> np.ndarray:
    depth, height, width = raw.shape
    shape = (depth, height // factor, factor, width // factor, factor)
    return np.asarray(raw.astype(np.float32).reshape(shape).mean((2, 4), dtype=np.float32))


@pytest.mark.realdata
def test_correlation_of_the_real_sections_lies_where_the_reference_has_it(shared_dir: Path) -> None:
    """The reference (specs/seamless.md 9.2) is of 20 sections, of which 10 are here: 0.379 at 4."""
    with h5py.File(shared_dir / "data/vnc_nc/stack1_z00-09.h5") as file:
        raw = file["raw"][()]
    coarse = pooled(raw, 4)

    values = np.stack([chunked_correlation(a, b) for a, b in zip(coarse, coarse[1:], strict=False)])
    shifted = np.stack(
        [
            chunked_correlation(a[2:, 2:], b[:-2, :-2])
            for a, b in zip(coarse, coarse[1:], strict=False)
        ]
    )

    assert values.shape == (9, 12, 12)
    assert correlation_summary(values)["mean"] == pytest.approx(0.379, abs=0.03)
    assert correlation_summary(shifted)["mean"] == pytest.approx(0.195, abs=0.04)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@given(st.floats(0.1, 9), st.floats(-3, 3))
def test_correlation_with_itself_is_one_whatever_the_contrast(gain: float, shift: float) -> None:
    section = noise(48, 60)

    assert chunked_correlation(section, section * gain + shift) == pytest.approx(1, abs=1e-4)
    assert chunked_correlation(section, -section) == pytest.approx(-1, abs=1e-4)


def test_a_chunk_is_the_pearson_correlation_of_its_pixels() -> None:
    first, second = noise(50, 50), noise(50, 50, seed=1)

    correlation = chunked_correlation(first, second)

    expected = np.corrcoef(first[4:8, 8:12].ravel(), second[4:8, 8:12].ravel())[0, 1]
    assert correlation.shape == (12, 12)
    assert correlation[1, 2] == pytest.approx(expected, abs=1e-6)


def test_constant_chunks_and_chunks_with_missing_data_are_dropped() -> None:
    first, second = noise(48, 48), noise(48, 48, seed=1)
    first[:4, :4] = 0.5
    valid = np.ones((48, 48), bool)
    valid[47, 47] = False

    correlation = chunked_correlation(first, second, valid)

    assert np.isnan(correlation[0, 0])
    assert np.isnan(correlation[11, 11])
    assert np.isfinite(correlation).sum() == 142
    assert correlation_summary(correlation)["chunks"] == 142
    assert correlation_summary(np.full((12, 12), np.nan))["mean"] is None
    with pytest.raises(ValueError, match="no 12 x 12 chunks"):
        chunked_correlation(first[:8], second[:8])


def test_the_true_field_leaves_no_error() -> None:
    generator = torch.Generator().manual_seed(0)
    applied = smooth(torch.rand(1, 2, 64, 64, generator=generator) - 0.5, 8) * 30
    truth = inverse(applied, rounds=20)
    inner = torch.zeros(1, 1, 64, 64)
    inner[..., 12:-12, 12:-12] = 1
    none = identity((64, 64))

    assert float(endpoint_errors(truth, applied, none, inner).max()) < 0.05
    before = endpoint_errors(none, applied, none, inner)
    assert error_summary(before)["mean"] == pytest.approx(
        float(torch.linalg.vector_norm(applied, dim=1)[inner[:, 0] > 0].mean()), rel=1e-5
    )


def test_a_shared_displacement_is_no_error_between_neighbours() -> None:
    applied = torch.full((1, 2, 20, 20), 2.5)

    left = remaining_displacement(identity((20, 20)), applied)

    assert float(endpoint_errors(identity((20, 20)), applied, left).max()) == 0


def test_pixels_from_outside_are_not_counted() -> None:
    field = torch.zeros(1, 2, 10, 10)
    field[0, 1] = 4

    assert len(endpoint_errors(field, identity((10, 10)), identity((10, 10)))) == 60
    assert error_summary(torch.zeros(0))["mean"] is None


def test_folds_in_defects_are_counted_separately() -> None:
    field = torch.zeros(1, 2, 20, 20)
    field[0, 1, :, 10:] = -3
    defect = torch.zeros(1, 1, 20, 20)
    defect[..., 8:12] = 1

    facts = field_facts(field, defect)

    assert facts.folded == pytest.approx(1 / 19)
    assert facts.folded_outside == 0
    assert facts.max_px == 3


def test_drift_is_the_mean_vector() -> None:
    left = torch.zeros(1, 2, 10, 10)
    left[0, 0], left[0, 1] = 3, 4
    ones = torch.ones(1, 1, 10, 10)

    assert drift(left, torch.zeros_like(left), ones) == pytest.approx(5)
    swung = torch.stack([torch.linspace(-1, 1, 10)] * 10)[None].expand(2, 10, 10)[None]
    assert drift(swung, torch.zeros_like(left), ones) == pytest.approx(0, abs=1e-6)


def test_the_table_contains_the_existing_results() -> None:
    part = {"pairs": 3, "before": {"correlation": 0.25}, "after": {"correlation": 0.5}}

    text = alignment_table({"all": part, "held_out": None})

    assert "all sections (3 pairs)" in text
    assert text.splitlines()[2].split() == [
        *["correlation", "of", "neighbours,", "mean"],
        "0.25",
        "0.5",
    ]
