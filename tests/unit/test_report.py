"""The report page: sentences, graph, totals."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import report
from retrace.config.networks import network_by_name
from retrace.evaluation.comparison import near_points
from retrace.planning.experiment import Planner
from retrace.planning.report import report_job
from retrace.planning.report_settings import ExperimentSettings
from retrace.reporting import machine, rendering
from retrace.reporting.comparisons import read_comparison
from retrace.reporting.drawings import BOX, embedded, graph
from retrace.reporting.experiments import ReportedExperiment, deviations
from retrace.reporting.figures import learning_figure
from retrace.reporting.machine import commit
from retrace.reporting.manifests import (
    StepCost,
    read_lineage,
    read_store_records,
    step_costs,
    step_edges,
    step_notes,
    step_of,
)
from retrace.reporting.methods import methods_paragraph
from retrace.reporting.scores import experiment_tables, missing_references, volume_tables
from retrace.reporting.size_limit import NOTE, within_limit
from retrace.reporting.tables import Row, cell_order, cell_text, table
from retrace.settings_model import as_json
from retrace.storage.zarr_writer import create_volume
from run_config import run_config

ENTRY = {"volume": "cube", "roi_nm": {"offset": [0, 0, 0], "shape": [800, 2500, 2500]}}
RAW = {"kind": "raw", "path": "raw.zarr", "array": "raw"}
EXPERIMENT = ExperimentSettings.model_validate(
    {
        "dataset": {
            "name": "mine",
            "voxel_size_nm": [10, 10, 10],
            "train": [ENTRY, {"volume": "other", "roi_nm": None}],
            "validation": [{"volume": "held_out", "roi_nm": None}],
            "test": [{"volume": "test_0"}],
        },
        "network": json.loads(as_json(network_by_name("mtlsd", (10, 10, 10)))),
        "segment": {"method": "hist_quant_75", "fragments_in_xy": False},
        "recipe_iterations": 400000,
        "volume": "test_0",
        "layers": [RAW],
        "test_layers": {"test_0": [RAW, {**RAW, "kind": "segments", "array": "segments"}]},
        "folder": "results/mine/mtlsd",
    }
)
HISTORY = {
    "iterations": 1200,
    "seed": 3,
    "batch_size": 1,
    "seconds": 60.0,
    "history": [{"iteration": 1, "loss": 2.0}, {"iteration": 1200, "loss": 1.0}],
}
EVALUATION = {
    "threshold": 0.44,
    "threshold_rule": "least VOI sum",
    "volumes": {"test_0": {"voi_sum": 1.25}},
}


def test_existing_comparisons_are_part_of_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planner = Planner(tmp_path, run_config(experiments=["phantom_mtlsd_small"]))
    assert report_job(planner).untracked_files() == []
    shown = Path("results/phantom/comparison.json")
    shown.parent.mkdir(parents=True)
    shown.write_text("{}")
    Path("results/fib25").mkdir()
    Path("results/fib25/comparison.json").write_text("{}")
    assert report_job(planner).untracked_files() == [str(shown)]


def test_the_methods_paragraph_matches_the_configuration() -> None:
    text = methods_paragraph(EXPERIMENT, HISTORY, EVALUATION)
    for part in (
        "predicts lsds (10) and affs (3) from voxels of 10 × 10 × 10 nm",
        "trained on cube (0–800, 0–2500, 0–2500 nm) and other of mine",
        "for 1,200 iterations of 1 sample, seed 3",
        "learning rate of 5e-05",
        "the threshold 0.44 was chosen on held_out (least VOI sum).",
        "Scores are those of test_0",
    ):
        assert part in text
    boundaries = {"volumes": {"a": {}, "b": {}}}
    assert "watershed" not in methods_paragraph(EXPERIMENT, HISTORY, boundaries)
    assert "of a and b, which" in methods_paragraph(EXPERIMENT, HISTORY, boundaries)


def error(rank: int) -> dict[str, Any]:
    """An error as errors.json lists it; the larger, the lower its rank."""
    ids = {"segments": [7, 8], "ground_truth": [5], "voxels": 9}
    share = {"voi_bits": 1 / rank, "voi_fraction": 0.01}
    return {"rank": rank, "kind": "split", **ids, **share, "point_nm": [10.0, 40.0, 40.0]}


def test_the_page_shows_dates_scores_methods_and_configuration(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rendering, "now", lambda: datetime(2030, 1, 2, 3, 4, tzinfo=UTC))
    array = {"shape": (2, 8, 8), "chunks": (2, 8, 8), "dtype": np.uint8, "offset_nm": (0, 0, 0)}
    for name, dtype in (("raw", np.uint8), ("segments", np.uint64)):
        array["dtype"] = dtype
        created = create_volume(Path("raw.zarr"), name, voxel_size_nm=(10, 10, 10), **array)
        created[...] = np.broadcast_to(np.arange(8) // 4 + 7, (2, 8, 8))
    folder = Path(EXPERIMENT.folder)
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(HISTORY))
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    lists = {"voxels": {"counted": "voxels", "errors": [error(n) for n in range(1, 13)]}}
    errors = {"volumes": {"test_0": {"volume": "test_0", "lists": lists}}}
    (folder / "errors.json").write_text(json.dumps(errors))
    os.utime(folder / "evaluation.json", (1e9, 1e9))
    settings = {"config": {"seed": 3}, "experiments": [EXPERIMENT]}
    template = repository / "workflow/scripts/retrace/reporting/page.html.jinja"
    arguments = ["--template", str(template), "--output", "report.html"]
    report.main(["--settings", as_json(settings), *arguments])
    page = Path("report.html").read_text()
    for part in (
        *("mine_mtlsd", "1.250", "seed 3", "1,200 iterations of 400,000", "data:image/jpeg"),
        "Page of 2030-01-02 03:04 UTC",
        f"commit {commit()}",
        "Results of 2001-09-09 01:46 UTC",
        "There are no validation data",
        "test_0: 10. split 1 %: 5 in 7, 8; 0.1 bits",
    ):
        assert part in page
    assert page.count('class="error"') == 10 and "test_0: 11." not in page


def test_the_commit_is_read_without_git(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "refs/heads").mkdir(parents=True)
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "packed-refs").write_text("# comment\naaaa refs/heads/main\n")
    assert machine._checked_out(tmp_path) == "aaaa"
    (tmp_path / "refs/heads/main").write_text("bbbb\n")
    assert machine._checked_out(tmp_path) == "bbbb"
    (tmp_path / "HEAD").write_text("cccc\n")
    assert machine._checked_out(tmp_path) == "cccc"
    assert machine._checked_out(tmp_path / "none") is None


def picture(side: int) -> str:
    """An image element that does not compress."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, format="png")
    return f'<img src="{embedded(content)}" alt="">'


def test_a_page_that_is_too_large_has_smaller_pictures_and_at_last_fewer() -> None:
    page = f"{NOTE}{picture(100) * 4}"
    size = len(page)
    assert within_limit(page, size) == page
    smaller = within_limit(page, size // 2)
    assert len(smaller) <= size // 2 and smaller.count("<img") == 4
    assert "Pictures have 70% of their width and height: a page has at most" in smaller
    fewer = within_limit(page, size // 12)
    assert len(fewer) <= size // 12 and 0 < fewer.count("<img") < 4
    assert fewer.count("Picture left out.") == 4 - fewer.count("<img")
    assert "some are left out" in fewer


def test_the_page_shows_alignments(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "sections/small"
    folder.mkdir(parents=True)
    row = {"iteration": 9, "loss": 0.5, "similarity": 0.5, "error_px": 2.5, "correlation": 0.9}
    rows = [{"iteration": 9, "epoch": 1, "loss": 0.6, "similarity": 0.6, "field_px": 3.0}]
    history = {"iterations": 9, "history": rows, "validation": {"kept": 9, "rows": [row]}}
    (folder / "training.json").write_text(json.dumps(history))
    (folder / "evaluation.json").write_text("{}")
    (folder / "alignment.txt").write_text("held-out sections")
    for name in ("alignment.png", "before_after.png"):
        Image.new("RGB", (9, 9)).save(folder / name)
    one = {"dataset": "sections", "network": "small", "folder": str(folder)}
    settings = {"config": {"seed": 3}, "experiments": [], "alignments": [one]}
    template = repository / "workflow/scripts/retrace/reporting/page.html.jinja"
    output = tmp_path / "report.html"
    arguments = ["--template", str(template), "--output", str(output)]
    report.main(["--settings", as_json(settings), *arguments])
    page = output.read_text()
    for part in ("sections_small", "for 9 iterations", "held-out sections", "1 experiment"):
        assert part in page
    assert page.count("data:image/jpeg") == 2
    traces = {trace["name"]: trace for trace in learning_figure(history).traces}
    assert traces["validation distance from the true place, px"]["y"] == [2.5]
    assert not any("field" in name for name in traces)


def test_the_curves_have_the_test_passes_of_znn() -> None:
    passes = {"it": [100, 200], "err": [0.5, None], "cls": [0.2, 0.1]}
    figure = learning_figure({**HISTORY, "learning_curve": {"test": passes}})
    shown = {trace["name"]: trace for trace in figure.traces}
    assert shown["test pass, err"]["x"] == [100, 200]
    assert shown["test pass, cls"]["y"] == [0.2, 0.1]
    assert len(learning_figure(HISTORY).traces) == len(figure.traces) - 2


def test_a_run_of_fewer_iterations_differs_from_the_recipe() -> None:
    assert list(deviations(EXPERIMENT, 1200)) == ["1,200 iterations of 400,000"]
    assert list(deviations(EXPERIMENT, 400000)) == []


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("data/zfinch/gt_z0-1.zarr", "fetched"),
        ("results/zfinch/masks/gt.zarr", "mask"),
        ("results/zfinch/mtlsd/gt/prediction.zarr", "prediction"),
        ("results/zfinch/mtlsd/gt/shards/edges_1-of-2.zarr", "edges (shards)"),
        ("../cubes.h5", "source"),
    ],
)
def test_paths_are_classified(path: str, kind: str) -> None:
    assert step_of(path) == kind


def manifest(folder: Path, store: str, inputs: list[str], **facts: object) -> None:
    path = folder / store
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"store": path.name, "inputs": dict.fromkeys(inputs, "0"), "seconds": 2.0, **facts}
    path.with_suffix(".manifest.json").write_text(json.dumps(content))


def test_steps_and_their_cost_come_from_the_manifests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    volume = Path("results/d/n/v")
    manifest(tmp_path, "results/d/masks/v.zarr", ["data/d/v.zarr"])
    model = "results/d/n/model.safetensors"
    manifest(tmp_path, str(volume / "prediction.zarr"), ["data/d/v.zarr", model], gpu="a card")
    manifest(tmp_path, str(volume / "fragments.zarr"), [str(volume / "prediction.zarr")])
    inputs = {"results/d/masks/v.zarr": "0", "data/d/v.zarr": "0"}
    Path("results/d/n/model.record.json").write_text(json.dumps({"identity": {"inputs": inputs}}))

    folders = [Path("results/d/masks"), Path("results/d/n")]
    lineage = read_lineage(folders)

    assert step_edges(lineage) == [
        ("fetched", "mask"),
        ("fetched", "model"),
        ("fetched", "prediction"),
        ("mask", "model"),
        ("model", "prediction"),
        ("prediction", "fragments"),
    ]
    notes = step_notes(lineage)
    assert notes["fetched"] == ["1 result", "data/d/v.zarr"]
    assert notes["prediction"] == ["1 result", "results/d/n/v/prediction.zarr"]
    trained = ("d_n", "train", {"seconds": 60.0, "gpu": None})
    costs = {cost.step: cost for cost in step_costs(read_store_records(folders), [trained])}
    assert costs["prediction"].gpu_seconds == 2.0 and costs["mask"].gpu_seconds == 0.0
    assert costs["train"] == StepCost("d_n", "train", 1, 60.0)
    assert costs["mask"].experiment == "d" and costs["fragments"].experiment == "d_n"


def shapes(drawn: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Boxes (corner, corner), and edges as points along their curves."""
    boxes = [
        np.array([[x, y], [x + BOX[0], y + BOX[1]]])
        for x, y in (
            map(float, place) for place in re.findall(r'class="box" x="(.+?)" y="(.+?)"', drawn)
        )
    ]
    paths = re.findall(r'class="edge" d="(.*?)"', drawn)
    return boxes, [np.concatenate(list(strokes(path))) for path in paths]


def strokes(path: str) -> Iterator[np.ndarray]:
    """Points along each curve and line of an SVG path with M, C and L."""
    end = np.zeros((1, 2))
    for kind, numbers in re.findall(r"([MCL])([^MCL]*)", path):
        points = np.concatenate([end, np.array(numbers.split(), float).reshape(-1, 2)])
        if kind == "C":
            yield bezier(points)
        elif kind == "L":
            yield np.linspace(points[0], points[1], 50)
        end = points[-1:]


def bezier(points: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, 50)[:, None]
    weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
    return np.asarray(sum(w * p for w, p in zip(weights, points, strict=True)))


@settings(max_examples=10)
@given(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1))
def test_no_edge_is_hidden_by_a_box(pairs: set[tuple[int, int]]) -> None:
    edges = [(f"<{a}>", f"<{b}>") for a, b in sorted(pairs) if a < b] or [("<1>", "<2>")]
    drawn = graph(edges, {"<1>": ["2 results", "a & b"]})
    boxes, curves = shapes(drawn)
    assert len(boxes) == len({name for edge in edges for name in edge})
    assert len(curves) == len(edges) == drawn.count("url(#arrowhead)")
    for first, second in combinations(boxes, 2):
        assert (first[1] <= second[0]).any() or (second[1] <= first[0]).any()
    for curve in curves:
        for box in boxes:
            assert not ((curve > box[0] + 1) & (curve < box[1] - 1)).all(axis=1).any()
    assert "&lt;" in drawn and "<1" not in drawn


def test_circles_of_steps_are_drawn() -> None:
    assert len(shapes(graph([("a", "b"), ("b", "a")], {}))[0]) == 2


def test_curves_have_gaps_and_the_measurements_of_validation() -> None:
    rows = [{"iteration": 1, "loss": 2.0, "affs": 1.5}, {"iteration": 2, "loss": None, "affs": 1.0}]
    validation = {
        "rows": [{"iteration": 2, "loss": 1.0, "voi_sum": 3.0, "threshold": 0.5}],
        "kept": 2,
    }
    figure = learning_figure({"history": rows, "validation": validation})
    drawn = json.loads(figure.as_json())
    by_name = {trace["name"]: trace for trace in drawn["data"]}
    assert by_name["training loss"]["y"] == [2.0, None]
    assert by_name["validation loss"]["y"] == [1.0] and by_name["validation VOI"]["y"] == [3.0]
    assert set(by_name) == {"training loss", "affs", "validation loss", "validation VOI"}
    assert drawn["layout"]["yaxis"]["type"] == "log"
    assert drawn["layout"]["shapes"][0]["x0"] == 2 and "iteration 2" in figure.caption
    gone = learning_figure({"history": [{"iteration": 1, "loss": float("nan")}]})
    assert json.loads(gone.as_json())["data"][0]["y"] == [None]


def test_a_page_cannot_be_ended_by_a_name() -> None:
    figure = learning_figure(
        {"history": [{"iteration": 1, "loss": 1.0, "<!--<script></script>": 1.0}]}
    )
    assert "<" not in figure.as_json()


SCORED = {"voi_split": 1.0, "voi_merge": 2.0, "voi_sum": 3.0, "adapted_rand_error": 0.5}
ONE = {"voi_split": 0.0, "voi_merge": 4.0, "voi_sum": 4.0, "adapted_rand_error": 0.9}


def reported(name: str, **more: Any) -> ReportedExperiment:
    entry = {**SCORED, "threshold": 0.4, "one_segment": ONE, "best_possible": SCORED, **more}
    return ReportedExperiment(
        **{"name": f"d_{name}", "dataset": "d", "network": name, "volume": "v", "methods": ""},
        **{"deviations": [], "picture": "", "curves": [], "plot": None, "published": []},
        **{"errors": None},
        **{"convention": None, "threshold": 0.4, "finished": "2030-01-02 03:04 UTC"},
        **{"history": {"iterations": 5}, "origin": {}, "entries": {"v": entry}},
    )


def test_experiments_come_with_references_that_networks_share() -> None:
    skeletons = {"erl_nm": 7.0, "min_cut": {"splits": 1}}
    experiments = [reported("a", untrained_watershed=SCORED, skeletons=skeletons), reported("b")]
    (table,) = experiment_tables(experiments)
    names = [row.values["experiment"] for row in table.rows]
    assert names == ["d_a", "d: untrained watershed", "d_a: best possible", "d: one segment"] + [
        "d_b",
        "d_b: best possible",
    ]
    assert [row.reference for row in table.rows] == [False, True, True, True, False, True]
    assert table.rows[0].values["finished"] == "2030-01-02"
    assert missing_references(experiments)[0].startswith("No untrained watershed of d_b: switched")
    scores, of_skeletons, of_cut = volume_tables(experiments)
    assert [row.values["result"] for row in scores.rows[:2]] == ["the network's", "one segment"]
    assert of_skeletons.rows[0].values["erl_nm"] == 7.0
    assert of_cut.rows[0].values["splits"] == 1


def test_cells_without_a_number_come_last() -> None:
    shown = table(("name", "voi_sum", "absent"), [Row({"name": "a"}), Row({"voi_sum": 12.3456})])
    name, score = shown.columns
    assert (name.numeric, score.numeric, score.heading) == (False, True, "VOI")
    assert "lower is better" in score.about
    assert cell_order(None, score) > cell_order(12.3456, score)
    assert cell_text(12.3456, score) == "12.346" and cell_text(None, score) == ""
    assert cell_text(12.3456, name) == "12.3" and cell_text(12345.6, name) == "12,346"
    assert cell_text(1234, name) == "1,234" and cell_text(0.52, name) == "0.52"


def test_a_comparison_says_where_published_figures_are_from(tmp_path: Path) -> None:
    origin = {"source": "their tables", "convention": "VOI in bits", "differs": "another place"}
    rows = [{"name": "mtlsd", "region": "roi_1, voxels"}]
    path = tmp_path / "comparison.json"
    assert read_comparison(path) is None
    for published, note in ((origin, "[1] their tables. VOI in bits. NOT comparable"), (None, "")):
        path.write_text(json.dumps({"rows": rows, "published": published}))
        comparison = read_comparison(path)
        assert comparison is not None
        assert [column.heading for column in comparison.table.columns] == ["network", "scored on"]
        assert (comparison.footnote or "").startswith(note)


def test_networks_at_one_place_of_a_plot_share_a_label(tmp_path: Path) -> None:
    rows = [
        {"name": f"n{i}", "family": "lsd", "voi_sum": v, "voi_split": v, "voi_merge": 0.0}
        | {"kflop_per_voxel": k}
        for i, (v, k) in enumerate([(1.0, 10.0), (1.001, 10.1), (1.002, 10.0), (3.0, 900.0)])
    ]
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps({"rows": rows}))
    comparison = read_comparison(path)
    assert comparison is not None
    bars, work = (json.loads(figure.as_json()) for figure in comparison.figures)
    assert bars["data"][0]["y"] == ["n0", "n1", "n2", "n3"]
    assert work["data"][0]["text"] == ["n0, n1, n2", "", "", "n3"]
    assert near_points({}) == [] and near_points({4: (1.0, 1.0)}) == [[4]]
