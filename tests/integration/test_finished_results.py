"""Finished results are never stale and never lost, whatever users do to them and their inputs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
import zarr

import tiny_training as tiny
import tiny_workflow
from plans import planned
from retrace.records.contents import content_digest
from retrace.records.record import KEY

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1200)]

Run = Callable[..., tuple[int, str]]
OPTIONS = ["--quiet", "host", "--cores", "2", *tiny_workflow.threads()]
VOXEL_SIZE_NM = (50, 10, 10)
SHAPE = (24, 80, 80)


def run_in(place: Path, *arguments: str, config: tuple[str, ...] = ()) -> tuple[int, str]:
    settings = ("iterations=2", "evaluate={untrained: false}", *config)
    return tiny_workflow.finish(place, [*arguments, *OPTIONS, "--config", *settings])


def contents(folder: Path) -> dict[str, str]:
    """The digests of all files of a folder, by name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A working directory with segmentations of fetched volumes; the address of a dead server."""
    place = tmp_path_factory.mktemp("segmented")
    tiny_workflow.write_network(place)
    with tiny_workflow.serving() as address:
        status, printed = run_in(place, "segment_phantom_tiny", config=(f"endpoint_url={address}",))
    assert status == 0, printed[-5000:]
    yield place, address


@pytest.mark.parametrize("setting", ["fetch_threads=8", "unsigned=false", "precision=auto"])
def test_nothing_runs_for_settings_without_effect(
    segmented: tuple[Path, str], setting: str
) -> None:
    place, address = segmented
    config = (f"endpoint_url={address}", setting)
    status, printed = run_in(place, "segment_phantom_tiny", config=config)
    assert status == 0 and "Nothing to be done" in printed, printed[-3000:]


def test_nothing_runs_for_another_clone_with_other_comments(
    segmented: tuple[Path, str], tmp_path: Path
) -> None:
    clone = tiny_workflow.copy_workflow(tmp_path)
    for file in (clone / "workflow/scripts/retrace").rglob("*.py"):
        file.write_text(file.read_text() + "\n# one more comment\n")
    snakefile = ("--snakefile", str(clone / "Snakefile"))
    status, printed = run_in(segmented[0], "segment_phantom_tiny", *snakefile)
    assert status == 0 and "Nothing to be done" in printed, printed[-3000:]


def test_what_reads_the_results_of_a_forced_job_is_computed_again(
    segmented: tuple[Path, str],
) -> None:
    place, address = segmented
    config = (f"endpoint_url={address}",)
    words = ("segment_phantom_tiny", "--dry-run", "--forcerun", "predict")
    status, printed = run_in(place, *words, config=config)
    assert status == 0, printed[-3000:]
    plan = planned(printed)
    assert {"predict", "fragments", "choose_threshold", "segment"} <= plan.keys()
    assert not {"fetch", "mask", "train"} & plan.keys()


def test_a_fetch_that_fails_keeps_the_volume(segmented: tuple[Path, str]) -> None:
    place, address = segmented
    before = contents(place / "data")
    config = (f"endpoint_url={address}", "bucket=elsewhere")
    status, printed = run_in(place, "fetch_phantom", config=config)
    assert status != 0 and "bucket changed from 'open-neurodata' to 'elsewhere'" in printed
    assert "does not answer" in printed
    assert contents(place / "data") == before


@pytest.fixture
def copied(segmented: tuple[Path, str], tmp_path: Path) -> tuple[Path, Callable[[], str]]:
    """A copy of that directory without Snakemake's memory, and its plan for the segmentation."""
    place, address = segmented
    ignored = shutil.ignore_patterns(".snakemake", "contents")
    copy = Path(shutil.copytree(place, tmp_path / "copy", ignore=ignored))

    def plan() -> str:
        config = (f"endpoint_url={address}",)
        status, printed = run_in(copy, "segment_phantom_tiny", "--dry-run", config=config)
        assert status == 0, printed[-3000:]
        return printed

    return copy, plan


def test_a_job_that_is_refused_keeps_its_previous_result(
    copied: tuple[Path, Callable[[], str]], segmented: tuple[Path, str]
) -> None:
    place, address = copied[0], segmented[1]
    manifest = place / "results/phantom/tiny/test_0/prediction.manifest.json"
    before = contents(place / "results/phantom/tiny/test_0/fragments.zarr")
    record = (place / "results/phantom/tiny/test_0/fragments.manifest.json").read_text()
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 2}))
    config = (f"endpoint_url={address}", "segment={filter_fragments: 0.1}")
    status, printed = run_in(place, "segment_phantom_tiny", config=config)
    assert status != 0 and "another version of retrace (format 2, this one reads 1)" in printed
    assert "Job stats" not in printed
    assert contents(place / "results/phantom/tiny/test_0/fragments.zarr") == before
    assert (place / "results/phantom/tiny/test_0/fragments.manifest.json").read_text() == record


def test_a_store_that_is_gone_is_computed_again_where_it_is_needed(
    copied: tuple[Path, Callable[[], str]], segmented: tuple[Path, str]
) -> None:
    place, plan = copied

    def planned_for(target: str, *config: str) -> dict[str, int]:
        settings = (f"endpoint_url={segmented[1]}", *config)
        status, printed = run_in(place, target, "--dry-run", config=settings)
        assert status == 0, printed[-3000:]
        return {rule: count for rule, count in planned(printed).items() if "phantom" not in rule}

    volume = place / "data/phantom/val_0.manifest.json"
    volume.rename(volume.with_suffix(".lost"))
    assert "Nothing to be done" in plan(), "it would be fetched as the same volume"
    assert planned_for("fetch_phantom") == {"fetch": 1}
    volume.with_suffix(".lost").rename(volume)
    prediction = place / "results/phantom/tiny/test_0/prediction.zarr"
    for store in (prediction / "affs", place / "data/phantom/test_0.zarr"):
        shutil.rmtree(store)
    assert "Nothing to be done" in plan()
    assert planned_for("predict_phantom_tiny") == {"fetch": 1, "predict": 1}
    manifest = str(prediction.with_suffix(".manifest.json").relative_to(place))
    assert planned_for(manifest) == {"fetch": 1, "predict": 1}
    assert planned_for("fetch_phantom") == {"fetch": 1}
    again = planned_for("segment_phantom_tiny", "segment={filter_fragments: 0.1}")
    assert again["fetch"] == 1 and again["predict"] == 1 and again["fragments"] == 2


def test_a_result_that_another_file_replaced_is_computed_again(
    copied: tuple[Path, Callable[[], str]],
) -> None:
    place, plan = copied
    assert "Nothing to be done" in plan()
    model = place / "results/phantom/tiny/model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    printed = plan()
    name = model.relative_to(place)
    assert f"{name} is computed again: {name} is not the file that was computed" in printed


def test_results_of_earlier_weights_are_computed_again(
    copied: tuple[Path, Callable[[], str]],
) -> None:
    """A training that is repeated gives other weights on a GPU, from the same settings and data."""
    place, plan = copied
    model = place / "results/phantom/tiny/model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    record = model.with_suffix(".record.json")
    manifest = json.loads(record.read_text())
    manifest[KEY]["outputs"][str(model.relative_to(place))] = content_digest(model)
    record.write_text(json.dumps(manifest))
    printed = plan()
    assert "model.safetensors was computed again" in printed
    assert planned(printed).keys().isdisjoint({"fetch", "mask", "train"})
    assert {"predict", "fragments", "segment"} <= planned(printed).keys()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A working directory with an own volume."""
    write_dataset(tmp_path, {"cube": write_volume(tmp_path, "cube", 1)}, train=["cube"])
    tiny_workflow.write_network(tmp_path)
    return tmp_path


@pytest.fixture
def measured(own: Path) -> Path:
    """That directory with a second volume, which trainings are measured on."""
    volumes = {name: write_volume(own, name, n) for n, name in enumerate(("cube", "held"), 1)}
    write_dataset(own, volumes, train=["cube"], validation=["held"])
    return own


def write_volume(place: Path, volume: str, seed: int) -> dict[str, dict[str, str]]:
    """Writes raw and labels of a volume; its sources."""
    raw, labels = tiny.blobs(seed, SHAPE)
    path = f"own/{volume}.zarr"
    for name, array in (("raw", raw), ("labels", labels)):
        store = zarr.open_group(str(place / path), mode="a", zarr_format=2)
        created = store.create_array(
            name, shape=SHAPE, chunks=SHAPE, dtype=array.dtype, overwrite=True
        )
        created.attrs.update({"resolution": list(VOXEL_SIZE_NM), "offset": [0, 0, 0]})
        created[...] = array
    return {part: {"path": path, "array": part} for part in ("raw", "labels")}


def write_dataset(
    place: Path, volumes: dict[str, dict[str, dict[str, str]]], **splits: Any
) -> None:
    """Writes the dataset `mine`."""
    size = list(VOXEL_SIZE_NM)
    dataset = {"name": "mine", "voxel_size_nm": size, "background_ids": [], "volumes": volumes}
    (place / "config/datasets").mkdir(parents=True, exist_ok=True)
    (place / "config/datasets/mine.yaml").write_text(yaml.safe_dump(dataset | splits))


def trained(
    place: Path, *arguments: str, config: tuple[str, ...] = ()
) -> tuple[dict[str, torch.Tensor], str]:
    """The weights after `train_mine_tiny`, and what was printed."""
    status, printed = run_in(place, "train_mine_tiny", *arguments, config=config)
    assert status == 0, printed[-5000:]
    return safetensors.torch.load_file(place / "results/mine/tiny/model.safetensors"), printed


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_corrected_labels_train_again_as_from_an_empty_folder(own: Path, tmp_path: Path) -> None:
    first, _ = trained(own)
    labels = zarr.open_array(str(own / "own/cube.zarr/labels"), mode="r+")
    labels[:, 20:60, 20:60] = np.uint64(99)
    again, printed = trained(own)
    assert "does not resume from work/train/mine_tiny_" in printed
    assert "own/cube.zarr changed" in printed
    assert not same(first, again)

    fresh = own / "fresh"
    for part in ("own", "config"):
        shutil.copytree(own / part, fresh / part)
    assert same(again, trained(fresh)[0])
    history = json.loads((own / "results/mine/tiny/training.json").read_text())
    assert history["iterations_this_run"] == 2


def rows_of(place: Path) -> list[int]:
    """The iterations of the measurements in training.json."""
    history = json.loads((place / "results/mine/tiny/training.json").read_text())
    assert history["iterations_this_run"] == 0
    return [row["iteration"] for row in (history["validation"] or {}).get("rows", [])]


def test_what_only_measures_does_not_train_again(measured: Path) -> None:
    every = ("validation={every: 1}",)
    first, _ = trained(measured, config=every)

    again, printed = trained(measured, config=("validation={every: never}",))
    assert "resumes at iteration 2" in printed and "does not resume" not in printed
    assert same(first, again) and rows_of(measured) == []
    trained(measured, config=every)
    assert rows_of(measured) == [1, 2]

    labels = zarr.open_array(str(measured / "own/held.zarr/labels"), mode="r+")
    labels[:, 20:60, 20:60] = np.uint64(99)
    again, printed = trained(measured, config=every)
    assert "own/held.zarr changed" in printed and "resumes at iteration 2" in printed
    assert "earlier measurements were on other validation data and are left out" in printed
    assert same(first, again) and rows_of(measured) == [2]

    trained(measured, config=("seed=1",))
    _, printed = trained(measured, config=("seed=2", "validation={every: never}"))
    (line,) = {
        line for line in printed.splitlines() if "does not resume" in line and "0 to" in line
    }
    assert line.endswith(": seed changed from 0 to 2")


def test_validation_data_that_choose_the_state_train_again(measured: Path) -> None:
    best = ("validation={every: 1, keep: best}",)
    trained(measured, config=best)
    labels = zarr.open_array(str(measured / "own/held.zarr/labels"), mode="r+")
    labels[:, 20:60, 20:60] = np.uint64(99)
    _, printed = trained(measured, config=best)
    assert "does not resume from work/train/mine_tiny_" in printed


def test_the_format_of_stores_does_not_train_again(measured: Path) -> None:
    first, _ = trained(measured)
    assert "Nothing to be done" in trained(measured, config=("zarr_format=3",))[1]
    again, printed = trained(measured, config=("zarr_format=3", "iterations=3"))
    assert "resumes at iteration 2" in printed and not same(first, again)


def test_a_shorter_training_begins_after_what_the_refusal_names_is_moved(own: Path) -> None:
    trained(own)
    status, refusal = run_in(own, "train_mine_tiny", config=("iterations=1",))
    assert status != 0
    named = re.search(r"move (\S+), (\S+) and (\S+) to another folder first", refusal)
    assert named is not None
    (own / "earlier").mkdir()
    for path in named.groups():
        shutil.move(own / path, own / "earlier")
    _, printed = trained(own, config=("iterations=1",))
    assert "resumes" not in printed
    history = json.loads((own / "results/mine/tiny/training.json").read_text())
    assert history["iterations"] == history["iterations_this_run"] == 1


def test_an_edited_loss_trains_again(own: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first, _ = trained(own)
    clone = tiny_workflow.copy_workflow(tmp_path_factory.mktemp("clone"))
    snakefile = ("--snakefile", str(clone / "Snakefile"))
    assert "Nothing to be done" in trained(own, *snakefile)[1]

    loss = clone / "workflow/scripts/retrace/losses/weighted_mse.py"
    text = loss.read_text()
    assert text.count(".square()") == 1
    loss.write_text(text.replace(".square()", ".abs()"))
    again, printed = trained(own, *snakefile)
    assert "the code in workflow/scripts/retrace/losses/weighted_mse.py changed" in printed
    assert "does not resume from work/train/mine_tiny_" in printed
    assert not same(first, again)
