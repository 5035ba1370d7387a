"""Planning knows which results are current from the results alone, without Snakemake's memory."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr

import tiny_training as tiny
import tiny_workflow
from retrace.records.record import read_finished
from retrace.storage.precomputed_writer import write_layer

Plan = Callable[..., str]


def write_dataset(folder: Path, layer: str | None = None, **changes: object) -> None:
    store = {part: {"path": "own/a.zarr", "array": part} for part in ("raw", "labels")}
    sources = store if layer is None else store | {"labels": {"path": layer}}
    dataset = {
        "name": "mine",
        "voxel_size_nm": list(tiny.VOXEL_SIZE_NM),
        "background_ids": [],
        "volumes": {"a": sources},
        "train": ["a"],
        **changes,
    }
    path = folder / "config/datasets/mine.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dataset))


def snakemake(place: Path, *arguments: str, code: Path = tiny_workflow.REPOSITORY) -> str:
    options = ["--snakefile", str(code / "Snakefile")] if code != tiny_workflow.REPOSITORY else []
    return tiny_workflow.succeed(place, [*options, *arguments])


def plan(place: Path, *arguments: str, code: Path = tiny_workflow.REPOSITORY) -> str:
    """Why the masks are computed again; empty if they are current."""
    printed = snakemake(place, "-n", "mask_mine", *arguments, code=code)
    reasons = re.findall(r"^results/mine/masks/a is computed again: (.*)$", printed, re.MULTILINE)
    assert ("Nothing to be done" in printed) is not bool(reasons), printed
    return "; ".join(reasons)


def test_every_rule_with_planned_inputs_passes_the_job_to_its_program() -> None:
    """Only a program that gets its job writes a record, with which planning compares."""
    rules = [
        block
        for file in (tiny_workflow.REPOSITORY / "rules").glob("*.smk")
        for block in re.split(r"^\s*(?:use )?rule\b", file.read_text(), flags=re.MULTILINE)[1:]
    ]
    planned = [block for block in rules if "unpack(files_of(" in block]
    assert len(planned) > 40
    assert [block[:60] for block in planned if "job=job_of(" not in block] == []


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with an own volume and its finished mask."""
    place = tmp_path_factory.mktemp("masked")
    tiny.write_volume(place / "own/a.zarr")
    write_dataset(place)
    snakemake(place, "--cores", "1", "mask_mine")
    return place


@pytest.fixture
def place(masked: Path, tmp_path: Path) -> Path:
    """A copy of it on another disk: all times are new, and Snakemake has no memory."""
    copy = tmp_path / "copy"
    shutil.copytree(masked, copy, ignore=shutil.ignore_patterns(".snakemake", "work"))
    return copy


@pytest.mark.parametrize(
    "config",
    [
        ("fetch_threads=8",),
        ("precision=auto",),
        ("endpoint_url=http://127.0.0.1:9", "unsigned=false"),
        ("gpus=2", "device=cpu", "compile=true"),
        ("seed=5", "segment={epsilon: 0.5}"),
        ("blocks={cache: elsewhere, cache_gib: 2}", "mirror=copy"),
        ("view={port: 5}", "serve=true"),
    ],
)
def test_settings_that_do_not_decide_a_mask_change_nothing(
    place: Path, config: tuple[str, ...]
) -> None:
    assert plan(place, "--config", *config) == ""


def test_results_that_are_touched_stay_current(place: Path) -> None:
    for path in [*place.rglob("*")]:
        os.utime(path)
    assert plan(place) == ""


def test_a_changed_setting_is_named_with_both_values(place: Path) -> None:
    write_dataset(place, background_ids=[3])
    assert plan(place) == "background_ids changed from [] to [3]"


def test_labels_edited_in_place_are_noticed_although_their_time_stays(place: Path) -> None:
    labels = place / "own/a.zarr/labels"
    (chunk,) = [file for file in labels.iterdir() if not file.name.startswith(".")]
    times = chunk.stat()
    array = zarr.open_array(labels, mode="r+")
    array[:5, :5, :5] = np.uint64(77)
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert plan(place) == "own/a.zarr changed"


def test_a_chunk_of_an_own_layer_edited_in_place_is_noticed(place: Path) -> None:
    labels = zarr.open_array(place / "own/a.zarr/labels", mode="r")[:].astype(np.uint32)
    write_layer(place / "own/layer", labels, tiny.VOXEL_SIZE_NM, (0, 0, 0))
    write_dataset(place, layer="file://own/layer")
    snakemake(place, "--cores", "1", "mask_mine")
    assert plan(place) == ""
    files = [file for file in (place / "own/layer").rglob("*") if file.is_file()]
    chunk = max(files, key=lambda file: file.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[::-1])
    assert plan(place) == "own/layer changed"


def test_a_copied_timestamp_of_snakemake_is_no_content(place: Path) -> None:
    (place / "own/a.zarr/.snakemake_timestamp").touch()
    assert plan(place) == ""


def test_a_result_without_a_record_is_not_trusted(place: Path) -> None:
    (place / "results/mine/masks/a.manifest.json").write_text("{}")
    assert "does not say from what it was computed" in plan(place)


@pytest.mark.parametrize("target", ["mask_mine", "results/mine/masks/a.manifest.json"])
def test_a_result_in_the_format_of_another_version_is_refused_and_kept(
    place: Path, target: str
) -> None:
    manifest = place / "results/mine/masks/a.manifest.json"
    content = json.loads(manifest.read_text()) | {"format_version": 7}
    manifest.write_text(json.dumps(content))
    status, printed = tiny_workflow.finish(place, ["--cores", "1", target])
    assert status != 0 and "another version of retrace (format 7, this one reads 1)" in printed
    assert json.loads(manifest.read_text()) == content


def test_files_that_a_user_put_into_a_store_are_kept(place: Path) -> None:
    own = place / "results/mine/masks/a.zarr/proofread/notes.txt"
    own.parent.mkdir()
    own.write_text("checked")
    assert plan(place) == ""
    write_dataset(place, background_ids=[4])
    status, printed = tiny_workflow.finish(place, ["--cores", "1", "mask_mine"])
    assert status != 0 and "masks/a.zarr/proofread is not part of results/mine" in printed
    assert own.read_text() == "checked"
    own.parent.rename(place / "proofread")
    snakemake(place, "--cores", "1", "mask_mine")
    assert plan(place) == ""


def test_what_was_computed_again_is_current(place: Path) -> None:
    write_dataset(place, background_ids=[3])
    snakemake(place, "--cores", "1", "mask_mine")
    assert plan(place) == ""
    finished = read_finished(place / "results/mine/masks/a.manifest.json")
    assert finished is not None and "3" in str(finished.record["settings"])


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another clone of the workflow's code."""
    return tiny_workflow.copy_workflow(tmp_path_factory.mktemp("clone"))


def test_another_clone_and_other_comments_change_nothing(place: Path, clone: Path) -> None:
    file = clone / "workflow/scripts/retrace/progress.py"
    text = file.read_text()
    file.write_text(f'"""Another docstring."""\n# A comment.\n{text.partition(chr(10))[2]}')
    try:
        assert plan(place, code=clone) == ""
    finally:
        file.write_text(text)


def test_changed_code_is_named(place: Path, clone: Path) -> None:
    file = clone / "workflow/scripts/retrace/storage/labels_mask.py"
    text = file.read_text()
    file.write_text(f"{text}\nCHANGED = 1\n")
    try:
        reason = "the code in workflow/scripts/retrace/storage/labels_mask.py changed"
        assert plan(place, code=clone) == reason
    finally:
        file.write_text(text)


OTHER_WORKFLOW = """
rule summary:
    input:
        "results/mine/masks/a.manifest.json",
    output:
        "summary.txt",
    shell:
        "wc -c {input} > {output}"
"""


def test_another_workflow_reads_results_in_the_same_folder(place: Path) -> None:
    (place / "Snakefile").write_text(OTHER_WORKFLOW)
    own = ["--snakefile", str(place / "Snakefile"), "--cores", "1", "summary.txt"]
    tiny_workflow.succeed(place, own)
    assert "a.manifest.json" in (place / "summary.txt").read_text()
    assert plan(place) == ""


def test_a_forced_job_is_reported_by_snakemake_alone(place: Path) -> None:
    printed = snakemake(place, "-n", "--forcerun", "mask", "--", "mask_mine")
    assert "Forced execution" in printed and "computed again" not in printed
