"""The whole workflow, from a real S3 server to scores and a picture, at a width of a few maps."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cost
import page_browser
import sharded
import tiny_workflow
from retrace.planning.earlier_jobs import earlier_jobs
from retrace.planning.estimate import estimate
from retrace.planning.work import MVOXEL, Work
from retrace.segmentation.edge_classifier import read_classifier
from retrace.storage.volumes import open_group, open_volume

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1500)]

NETWORKS = ("baseline", "long_range", "malis", "mtlsd", "lsd", "aclsd", "acrlsd")


BOUNDARIES = {
    "name": "tiny_n4",
    "extends": "n4",
    "layers": [
        {"conv": "conv1", "size": [1, 4, 4], "to": "n1", "maps": 4},
        {"conv": "conv2", "size": [1, 3, 3], "to": "output", "maps": 2, "function": "linear"},
    ],
    "parameters": {"train_outsz": [1, 20, 20], "num_iter_per_test": 5, "test_num": 1},
}


def write_networks(folder: Path) -> None:
    """`tiny_NETWORK` for each of the family: its small form, two maps wide; and one of ZNN."""
    more: dict[str, dict[str, object]] = {"malis": {"loss": {"start_iteration": 1}}}
    more |= {name: {"autocontext": "tiny_lsd"} for name in ("aclsd", "acrlsd")}
    for name in NETWORKS:
        tiny_workflow.write_network(folder, f"tiny_{name}", f"{name}_small", **more.get(name, {}))
    (folder / "config/networks/tiny_n4.yaml").write_text(json.dumps(BOUNDARIES))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory that contains only its own networks."""
    folder = tmp_path_factory.mktemp("workflow")
    write_networks(folder)
    return folder


def command(endpoint: str, *arguments: str, config: Sequence[str]) -> list[str]:
    """The arguments of Snakemake."""
    settings = [f"endpoint_url={endpoint}", "evaluate={untrained: false}", *config]
    options = ["--quiet", "host", "--cores", "2", "--resources", "gpu=2"]
    return [*arguments, *options, *tiny_workflow.threads(), "--config", *settings]


@pytest.fixture
def start(place: Path, endpoint: str) -> Callable[..., subprocess.Popen[str]]:
    """Starts Snakemake in `place`."""

    def begin(*arguments: str, config: Sequence[str]) -> subprocess.Popen[str]:
        return tiny_workflow.start(place, command(endpoint, *arguments, config=config))

    return begin


@pytest.fixture
def snakemake(place: Path, endpoint: str) -> Callable[..., str]:
    """Runs Snakemake in `place` and returns what it prints; shown if it fails."""

    def run(*arguments: str, config: Sequence[str] = ("iterations=2",)) -> str:
        return tiny_workflow.succeed(place, command(endpoint, *arguments, config=config))

    return run


def results(place: Path, name: str) -> Path:
    return place / "results" / "phantom" / f"tiny_{name}"


def test_every_network_trains_predicts_segments_and_is_scored(
    snakemake: Callable[..., str], place: Path
) -> None:
    scored = [name for name in NETWORKS if name != "lsd"]
    snakemake(*(f"evaluate_phantom_tiny_{name}" for name in scored))
    for name in scored:
        evaluation = json.loads((results(place, name) / "evaluation.json").read_text())
        scores = evaluation["volumes"]["test_0"]
        assert 0 < scores["scored_voxels"] <= 24 * 80 * 80
        assert 0 < scores["voi_sum"] < 40
        assert 0 <= scores["threshold"] < 1
        history = json.loads((results(place, name) / "training.json").read_text())
        assert history["iterations"] == 2
    far = open_volume(results(place, "long_range") / "test_0" / "prediction.zarr", "affs")
    assert far.channels == 12


def test_a_second_run_recomputes_nothing(snakemake: Callable[..., str]) -> None:
    assert "Nothing to be done" in snakemake("evaluate_phantom_tiny_acrlsd", "-n")


def test_costs_follow_from_jobs_that_ran(
    place: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    snakefile = ["--snakefile", str(tiny_workflow.REPOSITORY / "Snakefile")]
    arguments = command(endpoint, *snakefile, config=("iterations=2", "seed=1"))
    costs = cost.planned_costs("evaluate_phantom_tiny_mtlsd", arguments)
    assert {one.job.rule for one in costs if one.is_done} == {"fetch", "mask"}
    assert all(one.seconds and one.fetched_files is None for one in costs if not one.is_done)
    predicted = re.compile(r"test_0/prediction\.manifest\.json$")
    jobs = earlier_jobs()
    took = [job for job in jobs if predicted.search(job.file)]
    others = [job for job in jobs if not predicted.search(job.file)]
    expected = [
        estimate(Work(("predict",), MVOXEL, job.amount, job.alike, True), "any", others)
        for job in took
    ]
    assert len(took) >= 6
    factor = sum(one.seconds or 0 for one in expected) / sum(job.seconds for job in took)
    assert 1 / 4 < factor < 4, "jobs of one kind on one machine, which does other work too"


def test_the_bucket_says_how_much_there_is_to_fetch(
    place: Path, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    snakefile = ["--snakefile", str(tiny_workflow.REPOSITORY / "Snakefile")]
    arguments = command(endpoint, *snakefile, config=())
    costs = cost.planned_costs("fetch_phantom", arguments, ask=True)
    files = sorted(place.glob("data/phantom/*.manifest.json"))
    fetched = [json.loads(file.read_text()) for file in files]
    assert len(costs) == len(fetched) == 3
    for what, key in (("fetched_bytes", "bytes"), ("fetched_files", "objects")):
        assert sum(getattr(one, what) for one in costs) == sum(one[key] for one in fetched)


def test_other_thresholds_leave_training_and_prediction_alone(
    snakemake: Callable[..., str],
) -> None:
    config = ("iterations=2", "segment={thresholds: [0, 1, 0.1]}")
    planned = snakemake("evaluate_phantom_tiny_mtlsd", "-n", config=config)
    jobs = re.findall(r"^rule (\w+):$", planned, re.M)
    assert "choose_threshold" in jobs
    assert not {"train", "predict", "fragments"} & set(jobs)


def test_networks_side_by_side(snakemake: Callable[..., str], place: Path) -> None:
    networks = "compare={networks: [tiny_mtlsd, tiny_malis, tiny_n4, tiny_lsd]}"
    snakemake("compare_phantom", config=("iterations=2", networks))
    content = json.loads((place / "results/phantom/comparison.json").read_text())
    rows = {row["name"]: row for row in content["rows"]}
    assert rows.keys() == {"tiny_mtlsd", "tiny_malis", "tiny_n4"}
    assert "predicts no affinities" in content["refused"]["tiny_lsd"]
    sums = [row["voi_sum"] for row in content["rows"]]
    assert sums == sorted(sums)
    evaluation = json.loads((results(place, "mtlsd") / "evaluation.json").read_text())
    assert rows["tiny_mtlsd"]["voi_sum"] == evaluation["volumes"]["test_0"]["voi_sum"]
    assert all(row["iterations"] == 2 and row["kflop_per_voxel"] > 0 for row in rows.values())
    fragments = open_volume(results(place, "n4") / "test_0" / "fragments.zarr", "fragments")
    assert len(np.unique(fragments.read(fragments.box))) > 10


@pytest.mark.browser
def test_the_report_is_one_page_that_sorts_and_shows_values(
    browser: str, snakemake: Callable[..., str], place: Path
) -> None:
    experiments = "experiments=[phantom_tiny_mtlsd, phantom_tiny_baseline]"
    snakemake("report", config=("iterations=2", experiments))
    file = place / "results" / "report.html"
    assert file.stat().st_size < 20e6
    text = file.read_text()
    assert text.count("2 iterations of 4,000") == 2
    assert 2 <= text.count('class="error"') <= 20
    for title in ("Networks of phantom side by side", "phantom: one segment"):
        assert title in text
    assert "no validation data" not in text
    with page_browser.opened(browser, file) as page:
        rising = page.sorted_by("experiments", "VOI")
        assert rising == sorted(rising) and len(rising) == 5
        assert page.sorted_by("experiments", "VOI") == rising[::-1]
        assert "training loss" in page.under_mouse("learning")
        assert "test_0" in page.under_mouse("thresholds")
        assert page.console() == [] and page.requests() == [file.as_uri()]


@pytest.mark.browser
def test_the_page_of_a_comparison_fits_into_a_small_window(browser: str, place: Path) -> None:
    file = place / "results/phantom/comparison_page.html"
    with page_browser.opened(browser, file, (500, 700)) as page:
        parameters = page.sorted_by("comparison of phantom", "parameters")
        assert parameters == sorted(parameters) and len(parameters) == 3
        assert "tiny_mtlsd: VOI" in page.under_mouse("bars")
        assert not page.is_wider_than_window()
        assert page.console() == [] and page.requests() == [file.as_uri()]


def test_published_weights_come_from_the_bucket(
    snakemake: Callable[..., str], place: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    tiny_workflow.publish(endpoint, place / "original", "tiny_mtlsd")
    snakemake("evaluate_phantom_tiny_mtlsd", config=("weights=published",))
    assert (results(place, "mtlsd") / "published.safetensors").is_file()
    manifest = results(place, "mtlsd") / "test_0" / "prediction.manifest.json"
    assert "published.safetensors" in manifest.read_text()


def scores_of(folder: Path) -> dict[str, object]:
    """An evaluation without its origin, which contains memory use and the names of shards."""
    scores: dict[str, object] = json.loads((folder / "evaluation.json").read_text())
    assert scores.pop("origin")
    return scores


def errors_of(folder: Path) -> dict[str, Any]:
    """The lists of errors by volume."""
    volumes: dict[str, Any] = json.loads((folder / "errors.json").read_text())["volumes"]
    return volumes


def test_shards_give_the_same_result_as_one_job(snakemake: Callable[..., str], place: Path) -> None:
    config = ("iterations=2", "tile=[64, 64, 64]", "segment={block_shape: [16, 32, 32]}")
    folder = results(place, "mtlsd")
    stores = [folder / "test_0" / f"{name}.zarr" for name in ("prediction", "fragments")]
    stores.append(folder / "test_0" / "segmentation.zarr")
    snakemake("evaluate_phantom_tiny_mtlsd", config=config)
    whole, scores, errors = sharded.arrays(*stores), scores_of(folder), errors_of(folder)

    done = snakemake("evaluate_phantom_tiny_mtlsd", config=(*config, "shards=2"))

    assert "rule train:" not in done and done.count("rule edges:") == 4
    for name, values in sharded.arrays(*stores).items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)
    assert scores_of(folder) == scores
    assert errors_of(folder) == errors
    listed = errors["test_0"]["lists"]["voxels"]
    bits = sum(row["voi_bits"] for row in listed["errors"])
    total = listed["voi_split"] + listed["voi_merge"]
    everything = len(listed["errors"]) == listed["splits"] + listed["merges"]
    assert bits == pytest.approx(total) if everything else 0 < bits < total


def test_a_second_workflow_in_the_same_folder_is_refused(
    start: Callable[..., subprocess.Popen[str]], place: Path
) -> None:
    locks = place / ".snakemake" / "locks"
    with start("train_phantom_tiny_malis", config=("iterations=40",)) as first:
        while not any(lock.stat().st_size for lock in locks.glob("*.output.lock")):
            assert first.poll() is None
            time.sleep(0.2)
        # Stopped, so that it holds the folder however long the second takes to begin.
        first.send_signal(signal.SIGSTOP)
        try:
            with start("train_phantom_tiny_malis", config=("iterations=50",)) as second:
                printed, _ = second.communicate()
        finally:
            first.send_signal(signal.SIGCONT)
        assert second.returncode != 0 and "cannot be locked" in printed
        first.communicate()
    assert first.returncode == 0
    history = json.loads((results(place, "malis") / "training.json").read_text())
    assert history["iterations"] == 40


@pytest.mark.browser
@pytest.mark.usefixtures("browser")
def test_a_picture_of_the_results(snakemake: Callable[..., str], place: Path) -> None:
    snakemake("view_phantom_tiny_baseline")
    assert (results(place, "baseline") / "view.png").stat().st_size > 20_000


def test_joining_that_is_learned(snakemake: Callable[..., str], place: Path) -> None:
    """Edges of validation entries train a classifier, whose multicuts are scored and segmented."""
    config = ("iterations=2", "segment={method: multicut, thresholds: [0, 1, 0.25]}")
    snakemake("evaluate_phantom_tiny_baseline", config=config)
    folder = results(place, "baseline")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    curve = evaluation["volumes"]["test_0"]["curve"]
    assert [row["threshold"] for row in curve] == [0, 0.25, 0.5, 0.75]
    fragments = evaluation["volumes"]["test_0"]["fragments"]
    assert curve[0]["voi_sum"] == fragments["voi_sum"], "at 0 nothing joins"
    assert len({row["voi_sum"] for row in curve}) > 1
    classifier = read_classifier(folder / "edge_classifier.safetensors")
    assert "difference_lsds_0" not in classifier.names
    graph = open_group(folder / "test_0" / "fragments.zarr")
    assert "scores" not in graph
    again = snakemake("evaluate_phantom_tiny_baseline", "-n", config=config)
    assert "Nothing to be done" in again
