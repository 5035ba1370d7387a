"""Where files of a dataset come from that a user has to provide."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from retrace.config.datasets import load_dataset
from retrace.config.downloads import downloads
from retrace.errors import ConfigError
from retrace.planning.experiment import Planner
from run_config import run_config

KINDS = {
    "tif": {"path": "absent/raw.tif"},
    "folder": {"path": "absent/sections"},
    "h5": {"path": "absent/raw.h5", "array": "raw"},
    "zarr": {"path": "absent/raw.zarr", "array": "raw"},
    "layer": {"path": "file://absent/layer"},
}
"""A source of each kind that is not there."""
SHA256 = "0" * 64


def write(folder: Path, **content: object) -> Path:
    """The file of a dataset with a volume of each kind."""
    file = folder / "config/datasets/mine.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    volumes = {kind: {"raw": source} for kind, source in KINDS.items()}
    common = {"name": "mine", "voxel_size_nm": [9, 9, 9], "volumes": volumes, "test": list(KINDS)}
    file.write_text(yaml.safe_dump(common | content, sort_keys=False))
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_source_of_each_kind_is_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    planner = Planner(tmp_path, run_config())
    planner.check_data("mine")
    path = KINDS[kind]["path"].removeprefix("file://")

    assert str(planner.missing_file(path)) == (
        f"dataset 'mine': {path}, of `volumes: {kind}: raw: path`, does not exist (4 more of its "
        "files are missing); put the file there, or correct the path in config/datasets/mine.yaml"
    )


def test_a_dataset_of_the_user_says_where_its_files_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "absent/sections").mkdir(parents=True)
    layer = {"file://absent/layer": {"check": "two mips", "sha256": SHA256}}
    write(tmp_path, obtain={"address": "our lab", "licence": "CC0", "steps": "ask", "files": layer})
    planner = Planner(tmp_path, run_config())
    planner.dataset("mine")
    message = str(planner.missing_file("absent/raw.h5"))

    assert message.splitlines()[1:8] == [
        "  absent/raw.tif (of `volumes: tif: raw: path`)",
        "  absent/raw.h5 (of `volumes: h5: raw: path`)",
        "  absent/raw.zarr (of `volumes: zarr: raw: path`)",
        f"  absent/layer (of `volumes: layer: raw: path`): two mips; sha256 {SHA256}",
        "Source: our lab",
        "Licence: CC0",
        "Steps: ask",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"absent/raw.tiff": {}}, "lists absent/raw.tiff, which this dataset does not read; did"),
        ({"absent/raw.tif": {"url": "https://a/raw.tif"}}, "`url` needs `sha256`"),
        (
            {"absent/raw.tif": {"url": "https://a/raw.tif", "sha256": SHA256}},
            "from which only a file data/mine/NAME can be fetched",
        ),
    ],
)
def test_statements_that_cannot_be_used_are_refused(
    files: dict[str, object], message: str, tmp_path: Path
) -> None:
    file = write(tmp_path, obtain={"address": "a", "licence": "b", "files": files})

    with pytest.raises(ConfigError, match=message):
        load_dataset(file)


@pytest.mark.parametrize("name", ["isbi2012", "neuro3d", "fib25_sample", "vnc_nc", "mnist"])
def test_shipped_datasets_say_where_their_files_come_from(name: str) -> None:
    dataset = load_dataset(name)

    assert dataset.obtain is not None
    assert len(downloads(dataset)) == {"neuro3d": 3, "mnist": 4}.get(name, 0)
