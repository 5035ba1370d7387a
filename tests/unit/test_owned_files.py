"""Programs overwrite no file of a user, or of another training, in folders outside results."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrace.config.workflow import WorkflowConfig
from retrace.errors import DataError
from retrace.planning import foreign_files
from retrace.planning.experiment import Planner
from retrace.storage.owned_files import (
    check_replaceable,
    check_unowned,
    claim,
    recorded,
    znn_network_files,
)


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """A prefix in an empty folder."""
    return str(tmp_path / "nets" / "net")


def written(prefix: str, *ends: str) -> list[Path]:
    """Files under the prefix, that now exist."""
    Path(prefix).parent.mkdir(exist_ok=True)
    files = [Path(f"{prefix}_{end}") for end in ends]
    for file in files:
        file.write_text("weights")
    return files


def test_a_file_of_somebody_else_is_refused(prefix: str, tmp_path: Path) -> None:
    files = written(prefix, "current.h5")

    with pytest.raises(DataError, match=r"net_current\.h5 exists and is not one of this run's own"):
        check_unowned([tmp_path / "record.json"], files, "train_net_prefix")


def test_files_in_a_record_may_be_overwritten(prefix: str, tmp_path: Path) -> None:
    files = [Path(f"{prefix}_{end}") for end in ("init.h5", "current.h5")]
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    claim(own, files)
    written(prefix, "init.h5", "current.h5")

    check_unowned([other, own], files, "train_net_prefix")
    with pytest.raises(DataError, match="choose another `train_net_prefix`"):
        check_unowned([other], files, "train_net_prefix")
    claim(own, [Path(f"{prefix}_4.h5")])
    assert sorted(Path(name).name for name in recorded([own])) == [
        "net_4.h5",
        "net_current.h5",
        "net_init.h5",
    ]


def test_only_files_with_znns_names_count(prefix: str) -> None:
    assert znn_network_files(prefix) == []
    files = written(prefix, "init.h5", "40.h5", "statistics_current.h5")
    written(prefix, "notes.txt", "current.h5.partial", "4x.h5")

    assert sorted(znn_network_files(prefix)) == sorted(files)


def test_an_output_prefix_with_files_of_somebody_else_is_refused_while_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = WorkflowConfig.model_validate({"output_prefix": "out/net"}).complete(deep=True)
    planner = Planner(tmp_path, config)
    files = foreign_files.output_files(
        foreign_files.outputs_job(planner, "zfinch", "n4", "a").settings
    )
    assert Path("out/net_sample_a_output.h5") in files

    foreign_files.check_output_files(planner, "zfinch", "n4", "a")
    Path("out").mkdir()
    files[0].touch()
    with pytest.raises(DataError, match="choose another `output_prefix`"):
        foreign_files.check_output_files(planner, "zfinch", "n4", "a")
    claim(Path("results/zfinch/n4/a/written_files.json"), files)
    foreign_files.check_output_files(planner, "zfinch", "n4", "a")


def test_an_export_replaces_only_what_an_export_wrote(tmp_path: Path) -> None:
    output, manifest = tmp_path / "layer", tmp_path / "layer.manifest.json"
    check_replaceable(output, manifest, tmp_path / "work")
    output.mkdir()
    with pytest.raises(DataError, match="so it is not replaced"):
        check_replaceable(output, manifest, tmp_path / "work")
    manifest.write_text("{}")
    check_replaceable(output, manifest, tmp_path / "work")


def test_a_network_of_znn_at_train_net_prefix_is_refused_while_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planner = Planner(tmp_path, WorkflowConfig.model_validate({}).complete(deep=True))
    files = {"prefix": "nets/net", "is_stdio": True}
    network = planner.network("zfinch", "n4").with_(net_files=files)
    foreign_files.check_network_files(network)
    current = written("nets/net", "current.h5")

    with pytest.raises(DataError, match="choose another `train_net_prefix`"):
        foreign_files.check_network_files(network)
    claim(Path("work/train/any_training/written_files.json"), current)
    foreign_files.check_network_files(network)
