"""Folders and files with names like commands: a run reads them, and nothing but programs runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

import tiny_training as tiny
import tiny_workflow
from retrace.planning.container_images import image_path
from retrace.storage.manifest import check_manifest

WORKING = "my work $(touch RAN);touch RAN %j"
"""Apptainer would split it at a colon, and Snakemake misread an apostrophe."""
HOSTILE = 'it\'s "$(touch RAN)" `touch RAN`,a:b;touch RAN & %x é'
STAND_IN = """\
#!/bin/sh
[ "$*" = --version ] && exec echo "apptainer version 1.3.0"
printf '%s\\0' "$@" "" >> "$RECORD"
shift $(($# - 3))
exec "$@"
"""
"""Notes its arguments and runs the command without a container."""


def write_dataset(place: Path, name: str, folder: Path) -> None:
    tiny.write_volume(folder / "a.zarr")
    parts = {p: {"path": str(folder / "a.zarr"), "array": p} for p in ("raw", "labels")}
    dataset = {"name": name, "voxel_size_nm": list(tiny.VOXEL_SIZE_NM), "volumes": {"a": parts}}
    file = place / "config/datasets" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({**dataset, "train": ["a"]}))


def write_place(here: Path, data: Path) -> Path:
    """A working directory with two datasets in folders elsewhere, and an image."""
    write_dataset(here, "mine", data)
    write_dataset(here, "other", data.with_name(f"of another dataset {data.name[:4]}"))
    image = image_path(tiny_workflow.REPOSITORY, here / "containers/images", "modern")
    image.parent.mkdir(parents=True)
    image.touch()
    return here


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and data with hostile names, and a stand-in for apptainer."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").write_text(STAND_IN)
    (tmp_path / "bin/apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    return write_place(tmp_path / WORKING, tmp_path / HOSTILE)


def snakemake(place: Path, *arguments: str) -> tuple[int, str]:
    mirror = place.parent / HOSTILE / "mirror"
    mirror.mkdir(exist_ok=True)
    return tiny_workflow.finish(
        place, ["--use-singularity", "mask_mine", *arguments, "--config", f"mirror={mirror}"]
    )


def ran(place: Path) -> list[Path]:
    return list(place.parent.rglob("RAN"))


def test_hostile_names_are_bound_and_read_and_only_those_of_the_target(place: Path) -> None:
    status, printed = snakemake(place, "--cores", "1")
    assert status == 0, printed[-4000:]
    check_manifest(place / "results/mine/masks/a.zarr", digests=True)
    calls = (place.parent / "record").read_text().split("\0\0")
    words = next(call.split("\0") for call in calls if "mask.py" in call)
    assert words[:3] == ["exec", "--home", str(place)]
    text = str(place.parent / HOSTILE).replace('"', '""')
    assert f'type=bind,"source={text}","destination={text}"' in words
    assert not any("of another dataset" in word for word in words)
    assert ran(place) == []


CLUSTER = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "bash", "--jobs", "1")


def test_a_cluster_gets_such_settings_and_refuses_such_paths(place: Path) -> None:
    """Plugins for clusters quote the command of a job once more, in double quotes."""
    status, printed = snakemake(place, *CLUSTER)
    assert status == 1
    assert "cannot be passed to jobs safely; rename it" in printed
    other = write_place(place.parent / "plain", place.parent / "plain data")
    status, printed = snakemake(other, *CLUSTER)
    assert status == 0, printed[-4000:]
    check_manifest(other / "results/mine/masks/a.zarr", digests=True)
    assert ran(place) == []


@pytest.mark.parametrize("name", ["{dataset}", "a{b}.zarr", "a\nb"])
def test_names_that_snakemake_would_change_are_refused(place: Path, name: str) -> None:
    write_dataset(place, "mine", place.parent / name)
    status, printed = snakemake(place, "-n")
    assert status == 1
    assert f"{name!r}"[1:-1] in printed
    assert "rename it" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("file", ["$(touch RAN).yaml", "a(b.yaml", "--version.yaml"])
def test_other_files_of_datasets_do_not_matter(place: Path, file: str) -> None:
    (place / "config/datasets" / file).write_text("name: a\nvoxel_size_nm: [1, 1, 1]\n")
    status, printed = snakemake(place, "-n")
    assert status == 0, printed
    assert ran(place) == []
