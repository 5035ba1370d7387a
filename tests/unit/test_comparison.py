"""Rows of the comparison: means, order, and what is known of the cost."""

from __future__ import annotations

from pathlib import Path

import pytest

import compare
from retrace import config as catalog
from retrace.checkpoints.native import save_model
from retrace.evaluation.comparison import mean_scores, order, plot, text_table, training_seconds
from retrace.networks import build_network


def test_scores_are_means_over_entries_that_all_have_them() -> None:
    entries = {"a": {"voi_sum": 1.0, "erl": 5.0}, "b": {"voi_sum": 2.0, "erl": None}}
    assert mean_scores(entries, ("voi_sum", "erl")) == {"voi_sum": 1.5}
    assert mean_scores({}, ("voi_sum",)) == {}


def test_the_best_comes_first_and_what_has_no_score_last() -> None:
    rows = [{"name": "none"}, {"name": "worse", "voi_sum": 2.0}, {"name": "better", "voi_sum": 1.0}]
    assert [row["name"] for row in order(rows, "voi_sum")] == ["better", "worse", "none"]


def test_seconds_of_a_training_that_was_resumed() -> None:
    assert training_seconds({"iterations": 100, "iterations_per_second": 4.0}) == 25.0
    assert training_seconds({"iterations": 100, "iterations_per_second": 0.0}) is None
    both = {"iterations": 100, "iterations_per_second": 4.0, "training_seconds": 31.04}
    assert training_seconds(both) == 31.0


def test_the_table_and_the_picture(tmp_path: Path) -> None:
    rows = [
        {"name": "n4", "voi_sum": 1.25, "voi_split": 1.0, "voi_merge": 0.25, "parameters": 1234567},
        {"name": "ffn", "voi_sum": 1.5, "voi_split": 1.0, "voi_merge": 0.5},
    ]
    lines = text_table(rows).splitlines()
    assert lines[0] == "| network | VOI split | VOI merge | VOI | parameters |"
    assert lines[2] == "| n4 | 1.000 | 0.250 | 1.250 | 1,234,567 |"
    assert lines[3] == "| ffn | 1.000 | 0.500 | 1.500 |  |"
    plot([{**rows[0], "kflop_per_voxel": 3.0}, rows[1]], ("voi_sum",), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_the_cost_comes_from_the_networks_own_files(tmp_path: Path) -> None:
    network = catalog.network_for("n4", catalog.load_dataset("vnc_nc"))
    module = build_network(network)
    model = save_model(tmp_path / "model.safetensors", module, {"network": network})
    history = {"iterations": 10, "iterations_per_second": 2.0}
    predicted = {
        "arrays": {"boundary": {"shape": [2, 3, 100, 100]}},
        "seconds": 15.0,
        "peak_memory_mb": 900.0,
        "tile_shape": [1, 100, 100],
    }

    found = compare.cost(model, history, predicted)

    assert found.parameters == sum(p.numel() for p in module.parameters())
    assert found.training_s == 5.0 and found.iterations == 10
    assert found.prediction_voxels_per_s == 2000.0
    # Dense output at 100 x 100 voxels: the last of N4's filters alone are 48 x 200 x 9 products.
    assert found.kflop_per_voxel > 2 * 48 * 200 * 9 / 1000
    shares = compare.cost(model, history, {k: v for k, v in predicted.items() if k != "tile_shape"})
    assert shares.prediction_voxels_per_s is None
    assert shares.kflop_per_voxel == pytest.approx(found.kflop_per_voxel, rel=1.0)
