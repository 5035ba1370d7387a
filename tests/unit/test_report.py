"""The report page: sentences, graph, totals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import report
from retrace.config.networks import network_by_name
from retrace.evaluation.comparison import plot_comparison
from retrace.planning.experiment import Planner
from retrace.planning.report import report_job
from retrace.planning.report_settings import ExperimentSettings
from retrace.reporting.drawings import graph, learning_curve
from retrace.reporting.experiments import deviations
from retrace.reporting.manifests import read_store_records, step_costs, step_edges, step_of
from retrace.reporting.methods import methods_paragraph
from retrace.reporting.page import read_comparison
from retrace.settings_model import as_json
from retrace.storage.zarr_writer import create_volume
from run_config import run_config

ENTRY = {"volume": "cube", "roi_nm": {"offset": [0, 0, 0], "shape": [800, 2500, 2500]}}
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
        "layers": [{"kind": "raw", "path": "raw.zarr", "array": "raw"}],
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
EVALUATION = {"threshold": 0.44, "volumes": {"test_0": {"voi_sum": 1.25}}}


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
        "threshold 0.44 had the least variation of information on held_out",
        "Scores are those of test_0",
    ):
        assert part in text
    boundaries = {"volumes": {"a": {}, "b": {}}}
    assert "watershed" not in methods_paragraph(EXPERIMENT, HISTORY, boundaries)
    assert "of a and b, which" in methods_paragraph(EXPERIMENT, HISTORY, boundaries)


def test_the_page_shows_scores_methods_and_configuration(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array = {"shape": (2, 8, 8), "chunks": (2, 8, 8), "dtype": np.uint8, "offset_nm": (0, 0, 0)}
    created = create_volume(Path("raw.zarr"), "raw", voxel_size_nm=(10, 10, 10), **array)
    created[...] = 100
    folder = Path(EXPERIMENT.folder)
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(HISTORY))
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    settings = {"config": {"seed": 3}, "experiments": [EXPERIMENT]}
    template = repository / "workflow/scripts/retrace/reporting/page.html.jinja"
    arguments = ["--template", str(template), "--output", "report.html"]
    report.main(["--settings", as_json(settings), *arguments])
    page = Path("report.html").read_text()
    for part in ("mine_mtlsd", "1.250", "seed 3", "1,200 iterations of 400,000", "data:image/jpeg"):
        assert part in page


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

    records = read_store_records([Path("results/d/masks"), Path("results/d/n")])

    assert step_edges(records) == [
        ("fetched", "mask"),
        ("fetched", "model"),
        ("fetched", "prediction"),
        ("mask", "model"),
        ("model", "prediction"),
        ("prediction", "fragments"),
    ]
    rows = {row["step"]: row for row in step_costs(records, [{"seconds": 60.0, "gpu": None}])}
    assert rows["prediction"]["gpu_seconds"] == 2.0 and rows["mask"]["gpu_seconds"] == 0.0
    assert rows["train"] == {
        "step": "train",
        "jobs": 1,
        "seconds": 60.0,
        "gpu_seconds": 0.0,
        "peak_memory_mb": 0.0,
    }
    drawn = graph(step_edges(records))
    assert drawn.count("<rect") == 5 and drawn.count("<path") == 6


def test_names_are_escaped_and_circles_end() -> None:
    assert "&lt;b&gt;" in graph([("<b>", "a")])
    assert graph([("a", "b"), ("b", "a")]).count("<rect") == 2


def test_the_curve_is_embedded_in_the_page() -> None:
    drawn = learning_curve([1, 2], [2.0, 1])
    assert drawn.startswith("<svg") and "http" not in drawn.split("xmlns")[0]


def test_a_comparison_says_where_published_figures_are_from(tmp_path: Path) -> None:
    plot_comparison([{"name": "mtlsd", "voi_sum": 1.0}], ("voi_sum",), tmp_path / "comparison.png")
    origin = {"source": "their tables", "convention": "VOI in bits", "differs": "another place"}
    content = {"rows": [{"name": "mtlsd", "region": "roi_1, voxels"}]}
    for published, note in (
        (origin, "[1] their tables. VOI in bits. NOT comparable"),
        (None, None),
    ):
        (tmp_path / "comparison.json").write_text(json.dumps({**content, "published": published}))
        comparison = read_comparison(tmp_path)
        assert comparison is not None and comparison["headings"] == ["network", "scored on"]
        assert (
            comparison["footnote"] == note
            if note is None
            else comparison["footnote"].startswith(note)
        )
