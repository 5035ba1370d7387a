"""Files that a user has to provide: what a run says that needs them while they are missing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from file_server import served
from plans import Run

ISBI = (
    "error: dataset 'isbi2012' reads files that you have to provide. Missing:",
    "  data/isbi2012/train-volume.tif (of `volumes: stack: raw: path`): 30 sections of 512 x 512",
    "  data/isbi2012/train-labels.tif (of `volumes: stack: labels: path`): 30 sections of 512 x",
    "Source: https://downloads.imagej.net/ISBI-2012-challenge.zip,",
    "Licence: the organisers' own terms",
    "Put each file at its path below ",
    "To check a file: `python workflow/scripts/describe.py --dataset isbi2012` prints what",
)


def refusal(snakemake: Run, *arguments: str) -> str:
    """The error of a run that is refused."""
    done = snakemake(*arguments, "--cores", "1")
    assert done.returncode != 0, done.stdout
    assert "Missing input files" not in done.stdout
    return done.stdout[done.stdout.index("error: ") :].strip()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The file of a dataset with a small labelled stack; more can be added to it."""
    stack = np.ones((8, 32, 32), np.uint8)
    for name in ("raw", "labels"):
        tifffile.imwrite(tmp_path / f"{name}.tif", stack)
    file = tmp_path / "config/datasets/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "name: mine\nvoxel_size_nm: [10, 10, 10]\ntrain: [a]\n"
        "volumes: {a: {raw: {path: raw.tif}, labels: {path: labels.tif}}}\n"
    )
    return file


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in the folder `served`."""
    (tmp_path / "served").mkdir()
    with served(tmp_path / "served") as address:
        yield address


def test_every_target_gives_the_same_refusal(snakemake: Run) -> None:
    requests = ("mask_isbi2012", "evaluate_isbi2012_n4", "view_isbi2012_n4")
    requests += ("results/isbi2012/n4/model.safetensors",)
    first = refusal(snakemake, "fetch_isbi2012")

    for line, start in zip(first.splitlines(), ISBI, strict=True):
        assert line.startswith(start)
    assert {refusal(snakemake, "--dry-run", request) for request in requests} == {first}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "stacks_vnc_nc",
            "sha256 398464c9f7fa52a88c64b8a5dfceb38b6cdb0956c3d43b2f",
        ),
        ("align_basil_seamless", "in whose private bucket it is the layer basil_v0/raw_image"),
        ("mask_neuro3d", "git hash-object prints e0fe41262cc6ed8d6e34622a4a8020d74e6c8e77"),
        ("train_mnist_sample_mlp", "Licence: CC BY-SA 3.0"),
    ],
)
def test_what_is_known_of_a_missing_file_is_shown(
    snakemake: Run, target: str, message: str
) -> None:
    assert message in refusal(snakemake, "--dry-run", target)


def test_a_result_stays_when_its_file_is_gone(
    snakemake: Run, tmp_path: Path, dataset: Path
) -> None:
    done = snakemake("mask_mine", "--cores", "1")
    assert done.returncode == 0, done.stdout
    (tmp_path / "labels.tif").unlink()

    done = snakemake("mask_mine", "--cores", "1")
    assert "Nothing to be done" in done.stdout
    assert "computed again" not in done.stdout
    dataset.write_text(f"{dataset.read_text()}background_ids: [7]\n")
    message = refusal(snakemake, "mask_mine")
    assert message == (
        "error: dataset 'mine': labels.tif, of `volumes: a: labels: path`, does not exist; put "
        f"the file there, or correct the path in {dataset.relative_to(tmp_path)}"
    )


def test_a_file_with_an_address_is_downloaded(
    snakemake: Run, tmp_path: Path, dataset: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "labels.tif").rename(tmp_path / "served/labels.tif")
    content = (tmp_path / "served/labels.tif").read_bytes()
    fetched = f"{{url: '{server}/labels.tif', sha256: {hashlib.sha256(content).hexdigest()}}}"
    text = dataset.read_text().replace("path: labels", "path: data/mine/labels")
    files = f"{{data/mine/labels.tif: {fetched}}}"
    dataset.write_text(f"{text}obtain: {{address: ours, licence: ours, files: {files}}}\n")

    assert snakemake("fetch_mine", "--cores", "1").returncode == 0
    assert (tmp_path / "data/mine/labels.tif").read_bytes() == content
