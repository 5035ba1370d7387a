"""Rows of the comparison: means, order, cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import compare
from built_networks import built
from retrace.checkpoints.safetensors import save_model
from retrace.config import datasets, networks, paper, yaml_files
from retrace.config.dataset_model import PublishedFigures, ShownFigures
from retrace.errors import ConfigError
from retrace.evaluation.comparison import (
    SEGMENT_SCORES,
    best_first,
    combined,
    comparison_table,
    footnote,
    mean_scores,
    plot_comparison,
    published_rows,
    training_seconds,
)
from retrace.evaluation.comparison_rows import network_cost
from retrace.evaluation.coverage import total_coverage
from retrace.planning import compare as settings
from retrace.settings_model import as_json
from volume_datasets import load_volumes


def test_scores_are_means_over_entries_that_all_have_them() -> None:
    entries = {"a": {"voi_sum": 1.0, "erl": 5.0}, "b": {"voi_sum": 2.0, "erl": None}}
    assert mean_scores(entries, ("voi_sum", "erl")) == {"voi_sum": 1.5}
    assert mean_scores({}, ("voi_sum",)) == {}


def test_the_best_comes_first_and_what_has_no_score_last() -> None:
    rows = [{"name": "none"}, {"name": "worse", "voi_sum": 2.0}, {"name": "better", "voi_sum": 1.0}]
    assert [row["name"] for row in best_first(rows, "voi_sum")] == ["better", "worse", "none"]


def test_a_row_of_a_part_is_marked_and_comes_after_those_of_all(tmp_path: Path) -> None:
    entries = [{"scored_voxels": 5, "label_voxels": 5}, {"scored_voxels": 1, "label_voxels": 3}]
    part = {"name": "part", "voi_sum": 0.1, **total_coverage(entries)}
    whole = {"name": "all", "voi_sum": 2.0, **total_coverage(entries[:1])}
    rows = best_first([part, {"name": "none"}, {"name": "old", "voi_sum": 3.0}, whole], "voi_sum")

    assert [row["name"] for row in rows] == ["all", "old", "part", "none"]
    assert (part["scored_voxels"], part["label_voxels"]) == (6, 8)
    lines = comparison_table(rows).splitlines()
    assert lines[0] == "| network | scored voxels | VOI |"
    assert lines[2] == "| all | all 5 | 2.000 |"
    assert lines[4] == "| part | 6 of 8 (75.0 %), ONLY A PART | 0.100 |"
    assert total_coverage([{"voi_sum": 1.0}]) == total_coverage([]) == {}
    plot_comparison(rows, ("voi_sum",), tmp_path / "plot.png")


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
    lines = comparison_table(rows).splitlines()
    assert lines[0] == "| network | VOI split | VOI merge | VOI | parameters |"
    assert lines[2] == "| n4 | 1.000 | 0.250 | 1.250 | 1,234,567 |"
    assert lines[3] == "| ffn | 1.000 | 0.500 | 1.500 |  |"
    plot_comparison(
        [{**rows[0], "kflop_per_voxel": 3.0}, rows[1]], ("voi_sum",), tmp_path / "plot.png"
    )
    assert (tmp_path / "plot.png").stat().st_size > 5000


PUBLISHED = {
    "source": "their tables",
    "convention": "VOI in bits",
    "regions": {
        "small": {
            "voxels": {"mtlsd": {"voi_sum": 0.7, "erl_nm": 12}, "malis": None},
            "nodes": {"mtlsd": {"voi_sum": 0.2}},
        },
        "large": {"voxels": {"mtlsd": {"voi_sum": 1.1}}},
    },
}


def test_published_figures_of_other_voxels_are_listed_apart_and_marked() -> None:
    chosen = ShownFigures(regions=("small",), truths=("voxels",), differs="another place")
    others = published_rows(PUBLISHED, chosen, SEGMENT_SCORES)
    assert [(row["name"], row["voi_sum"], row["erl_nm"]) for row in others] == [("mtlsd", 0.7, 12)]

    rows = combined([{"name": "n4", "family": "znn", "voi_sum": 1.3}], others, "voi_sum", "another")

    lines = comparison_table(rows).splitlines()
    assert lines[0] == "| network | family | scored on | VOI | ERL, nm |"
    assert lines[2].startswith("| n4 | znn | test entries | 1.300 |")
    assert lines[3].startswith("| mtlsd | published [1] | small, voxels | 0.700 |")
    text = footnote({**PUBLISHED, "differs": chosen.differs})
    assert (
        text.startswith("[1] their tables. VOI in bits. NOT comparable") and "another place" in text
    )


def test_published_figures_of_the_same_voxels_are_sorted_among_ours() -> None:
    others = published_rows(
        PUBLISHED,
        ShownFigures(regions=("small",), truths=("voxels",), differs=None),
        SEGMENT_SCORES,
    )
    ours = [{"name": "n4", "voi_sum": 1.3}, {"name": "vd2d", "voi_sum": 0.1}]
    assert [r["name"] for r in combined(ours, others, "voi_sum", None)] == ["vd2d", "mtlsd", "n4"]
    assert "NOT" not in footnote({**PUBLISHED, "differs": None})
    assert combined(ours, [], "voi_sum", None) == [ours[1], ours[0]]


@pytest.mark.parametrize("name", ["zfinch", "fib25", "hemi", "fib25_sample"])
def test_datasets_show_the_figures_that_the_project_has(name: str) -> None:
    data = datasets.load_dataset(name)
    figures = paper.published_figures(data)
    assert figures is not None
    rows = published_rows(yaml_files.read_yaml(figures[0]), figures[1], SEGMENT_SCORES)
    assert {row["name"] for row in rows} >= {"baseline", "mtlsd", "acrlsd", "ffn"}
    assert figures[1].differs, "none of them is scored on the test entries"
    others = PublishedFigures(figures="fib25")
    assert paper.published_figures(data.model_copy(update={"published": others}))
    assert paper.published_figures(datasets.load_dataset("vnc_nc")) is None


@pytest.mark.realdata
def test_the_flood_filling_networks_of_sample_and_paper_are_compared(
    shared_dir: Path, tmp_path: Path
) -> None:
    data = load_volumes("fib25_sample")
    ((name, cube),) = data.volumes.items()
    sample = str(shared_dir / "data/fib25/training_sample2_z000-124.h5")
    ffn = cube.segmentations["ffn"].with_(path=sample)
    own = {"labels": cube.labels.with_(path=sample), "segmentations": {"ffn": ffn}}
    data = data.model_copy(update={"volumes": {name: cube.model_copy(update=own)}})
    figures = paper.published_figures(data)
    assert figures is not None
    comparison = settings.compare_settings(data, {}, {"n4": "no reason"}, figures[1])
    places = [tmp_path / f"comparison.{end}" for end in ("json", "md", "png")]
    names = ("--output", "--text", "--plot")
    files = [word for pair in zip(names, map(str, places), strict=True) for word in pair]

    compare.main(["--settings", as_json(comparison), "--published", str(figures[0]), *files])

    rows = json.loads(places[0].read_text())["rows"]
    assert [row["region"] for row in rows] == ["test entries"] + 7 * ["roi_1, voxels"]
    assert rows[0]["voi_sum"] == pytest.approx(1.424, abs=1e-3)
    assert "NOT comparable" in places[1].read_text()
    assert places[2].stat().st_size > 5000


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"figures": "fib52"}, "no config/published/fib52.yaml"),
        ({"figures": "fib25", "regions": ["roi_3"]}, "no 'roi_3'; did you mean 'roi_"),
        ({"figures": "fib25", "truths": ["nodes"]}, "no 'nodes'"),
    ],
)
def test_missing_published_figures_are_refused(published: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data = datasets.load_dataset("phantom")
        figures_of = PublishedFigures.model_validate(published)
        paper.published_figures(data.model_copy(update={"published": figures_of}))


def test_the_cost_comes_from_the_networks_own_files(tmp_path: Path) -> None:
    network = networks.network_for("n4", datasets.load_dataset("vnc_nc"))
    module = built(network)
    model = save_model(tmp_path / "model.safetensors", module, {"network": network})
    history = {"iterations": 10, "iterations_per_second": 2.0}
    predicted = {
        "arrays": {"boundary": {"shape": [2, 3, 100, 100]}},
        "seconds": 15.0,
        "peak_memory_mb": 900.0,
        "tile_shape": [1, 100, 100],
    }

    cost = network_cost(model, history, predicted)

    assert cost.parameters == sum(p.numel() for p in module.parameters())
    assert cost.training_s == 5.0 and cost.iterations == 10
    assert cost.prediction_voxels_per_s == 2000.0
    # Dense output at 100 x 100 voxels: the last of N4's filters alone are 48 x 200 x 9 products.
    assert cost.kflop_per_voxel > 2 * 48 * 200 * 9 / 1000
    shares = network_cost(model, history, {k: v for k, v in predicted.items() if k != "tile_shape"})
    assert shares.prediction_voxels_per_s is None
    assert shares.kflop_per_voxel == pytest.approx(cost.kflop_per_voxel, rel=1.0)
