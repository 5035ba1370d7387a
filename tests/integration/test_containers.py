"""Builds the image and runs the rules inside it."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr
from snakemake.deployment.singularity import Singularity, shellcmd

import phantom
import s3_server
import tiny_seamless
import tiny_training
import tiny_workflow
from conftest import Apptainer, run_snakemake
from hostile_names import EXAMPLES, PIECES
from retrace.errors import ConfigError
from retrace.planning.container_binds import bind_options, with_options
from retrace.planning.plain_names import check_path
from retrace.storage.manifest import read_manifest
from retrace.storage.volumes import open_volume

pytestmark = pytest.mark.container

PHANTOM = ["--shape", "16", "32", "32", "--margin", "4", "8", "8", "--chunks", "16", "16", "16"]


@pytest.fixture(scope="session")
def image(apptainer: Apptainer) -> Path:
    """The modern image."""
    return apptainer.image("modern")


@pytest.fixture
def checkout(tmp_path: Path, image: Path) -> Path:
    """A copy of the workflow with the built image and no data."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    tiny_workflow.copy_workflow(folder)
    images = folder / "containers" / "images"
    images.mkdir()
    (images / image.name).symlink_to(image)
    return folder


def locked(repository: Path, package: str) -> str:
    """The version of a package in the image's lock."""
    lines = (repository / "envs" / "modern.txt").read_text().splitlines()
    versions = [line.split()[0] for line in lines if line.startswith(f"{package}==")]
    return versions[0].partition("==")[2]


@pytest.mark.timeout(2400)
def test_exec_finds_the_locked_packages(
    apptainer: Apptainer, image: Path, repository: Path
) -> None:
    program = (
        "import sys, importlib.metadata as m, torch, zarr;"
        "print(sys.prefix, m.version('zarr'), m.version('scikit-image'), torch.ones(3).sum())"
    )
    done = subprocess.run(
        [apptainer.program, "exec", image, "python", "-c", program],
        check=True,
        capture_output=True,
        text=True,
    )
    versions = [locked(repository, "zarr"), locked(repository, "scikit-image")]
    assert done.stdout.split() == ["/opt/retrace", *versions, "tensor(3.)"]


@pytest.mark.timeout(2400)
def test_containers_see_folders_with_hostile_names(
    apptainer: Apptainer, image: Path, tmp_path: Path
) -> None:
    """Each folder is bound alone, under its name, by the command that Snakemake runs."""
    folders = []
    for name in (*EXAMPLES, *PIECES, " begin", "end ", "a\\:b"):
        try:
            check_path(name, on_cluster=False)
        except ConfigError:
            continue
        folders.append(tmp_path / "data" / name)
        folders[-1].mkdir(parents=True, exist_ok=True)
        (folders[-1] / "name").write_text(name)
    working = tmp_path / "work $(touch RAN);x"
    working.mkdir()
    arguments = with_options("--no-mount tmp", bind_options(folders))
    Singularity().binary = apptainer.program
    with contextlib.chdir(working):
        shown = f'for f in {shlex.quote(str(tmp_path))}/data/*/name; do cat "$f"; echo; done; pwd'
        command = shellcmd(shlex.quote(str(image)), shown, args=arguments)
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert sorted(done.stdout.splitlines()) == sorted([*(f.name for f in folders), str(working)])
    assert not list(tmp_path.rglob("RAN")) + list(tmp_path.rglob("X"))


@pytest.mark.s3
@pytest.mark.timeout(2400)
def test_fetch_and_mask_run_inside(checkout: Path, image: Path) -> None:
    with s3_server.serving() as endpoint:
        phantom.main(["upload", "--endpoint", endpoint, *PHANTOM])
        done = run_snakemake(
            checkout,
            *("mask_phantom", "--use-singularity", "--cores", "2"),
            *("--configfile", "config/demo.yaml", "--config", f"endpoint_url={endpoint}"),
        )
    assert "image_modern" not in done.stdout
    for written in ("data/phantom/train_0", "results/phantom/masks/train_0"):
        manifest = json.loads((checkout / f"{written}.manifest.json").read_text())
        assert Path(manifest["image"]).name == image.name


@pytest.mark.s3
@pytest.mark.timeout(2400)
def test_remote_volumes_are_streamed_in_the_container_through_a_host_cache(
    checkout: Path, tmp_path: Path
) -> None:
    near = yaml.safe_load((checkout / "config" / "datasets" / "phantom.yaml").read_text())
    bucket = near["bucket"] | {"read": "blocks"}
    near |= {"name": "near", "bucket": bucket, "weights_of": "phantom"}
    (checkout / "config" / "datasets" / "near.yaml").write_text(yaml.safe_dump(near))
    cache = tmp_path / "blocks"
    with s3_server.serving() as endpoint:
        phantom.main(["upload", "--endpoint", endpoint, *PHANTOM])
        run_snakemake(
            checkout,
            *("mask_near", "--use-singularity", "--cores", "2"),
            *("--configfile", "config/demo.yaml", "--config", f"endpoint_url={endpoint}"),
            f"blocks={{cache: {cache}}}",
        )
    assert not (checkout / "data").exists()
    (read,) = read_manifest(checkout / "results/near/masks/train_0.zarr")["read"].items()
    assert read[0] == f"{endpoint}/open-neurodata/funke/phantom/training/train_0.zarr"
    assert read[1]["blocks"] <= len([file for file in cache.glob("*/*") if file.is_file()])


@pytest.mark.timeout(2400)
def test_folders_with_special_names_and_links_to_other_disks_are_visible_inside(
    checkout: Path, tmp_path: Path
) -> None:
    """Names are data, wherever they are; `results` and `data` are links, one through another."""
    place = checkout.rename(tmp_path / "my retrace; $(touch owned)")
    disk = tmp_path / "disk, 2: fast"
    for name in ("results", "logs", "data"):
        (disk / name).mkdir(parents=True)
    (tmp_path / "scratch").symlink_to(disk)
    (place / "results").symlink_to(tmp_path / "scratch" / "results")
    (place / "data").symlink_to(disk / "data")
    (place / "logs").symlink_to(Path("..") / disk.name / "logs")
    cube = tiny_training.write_volume(disk / "its $(touch owned)" / "cube.zarr")
    (tmp_path / "near").symlink_to(cube.parent)
    sources = {
        part: {"path": str(tmp_path / "near" / "cube.zarr"), "array": part}
        for part in ("raw", "labels")
    }
    dataset = {
        "name": "mine",
        "voxel_size_nm": list(tiny_training.VOXEL_SIZE_NM),
        "background_ids": [],
        "volumes": {"cube": sources},
        "train": ["cube"],
    }
    (place / "config/datasets/mine.yaml").write_text(yaml.safe_dump(dataset))
    run_snakemake(place, "mask_mine", "--use-singularity", "--cores", "1")
    assert read_manifest(disk / "results/mine/masks/cube.zarr")["image"]
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.timeout(2400)
def test_sections_are_generated_trained_on_and_aligned_in_the_container(
    checkout: Path, image: Path
) -> None:
    tiny_seamless.write_configuration(checkout)
    run_snakemake(
        checkout,
        *("align_slices_tiny", "--use-singularity", "--cores", "1"),
        *("--config", "iterations=2", "device=cpu"),
    )
    results = checkout / "results" / "slices" / "tiny"
    manifest = json.loads((results / "aligned.manifest.json").read_text())
    aligned = zarr.open_group(results / "aligned.zarr", mode="r")["aligned"]
    layer = open_volume(f"file://{checkout}/results/slices/sections/layer")
    sections = layer.read(layer.box)

    assert Path(manifest["image"]).name == image.name
    assert aligned.shape == sections.shape == (7, 96, 96)
    np.testing.assert_array_equal(aligned[0], sections[0])
    assert all(aligned[z].any() for z in range(1, 7))


def test_an_unknown_recipe_is_refused(
    apptainer: Apptainer, repository: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [repository / "containers" / "build.sh", "modem", tmp_path / "modem.sif"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    known = " ".join(sorted(path.name for path in (repository / "containers").glob("*.def")))
    assert f"no recipe containers/modem.def; known: {known}" in done.stderr
    assert list(tmp_path.iterdir()) == []
