"""Programs overwrite no file of a user, or of another training, in folders outside results."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrace.config.workflow import WorkflowConfig
from retrace.errors import DataError
from retrace.files import write_json
from retrace.planning import foreign_files
from retrace.planning.experiment import Planner
from retrace.planning.train import train_job
from retrace.storage.owned_files import (
    RECORD,
    check_owned,
    check_replaceable,
    put_owned,
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


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The record of a training that has written nothing yet."""
    return tmp_path / "results/mine/n4" / RECORD


def put(record: Path, file: Path, text: str) -> None:
    """Writes a file as a training does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    put_owned(record, new, file, "train_net_prefix")


def test_a_file_of_somebody_else_is_refused(prefix: str, record: Path) -> None:
    (current,) = written(prefix, "current.h5")

    with pytest.raises(
        DataError, match=r"net_current\.h5 exists and was not written for .*mine/n4"
    ):
        put(record, current, "new weights")
    assert current.read_text() == "weights"


def test_a_training_replaces_what_it_wrote_until_somebody_changes_it(
    prefix: str, record: Path
) -> None:
    current = Path(f"{prefix}_current.h5")
    put(record, current, "first")
    put(record, current, "second")
    assert current.read_text() == "second"

    current.write_text("second, and a note of the user")
    with pytest.raises(
        DataError, match=r"was changed after .*mine/n4 wrote it.*`train_net_prefix`"
    ):
        put(record, current, "third")
    assert current.read_text() == "second, and a note of the user"


def test_another_training_does_not_replace_these_files(prefix: str, record: Path) -> None:
    current = Path(f"{prefix}_current.h5")
    put(record, current, "first")

    other = record.parents[1] / "other" / RECORD
    with pytest.raises(DataError, match="move it to another folder"):
        put(other, current, "weights of another network")
    assert current.read_text() == "first"


def test_a_file_is_owned_when_the_program_is_killed_before_or_after_it_is_replaced(
    prefix: str, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = Path(f"{prefix}_current.h5")
    put(record, current, "first")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for where in ("pathlib.Path.replace", "retrace.storage.owned_files.sync_folder"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(where, killed)
            put(record, current, "second")
        check_owned(record, [current], "train_net_prefix")
        put(record, current, "first")


def test_names_without_digests_of_an_earlier_version_own_nothing(prefix: str, record: Path) -> None:
    files = written(prefix, "current.h5")
    write_json(record, [str(file) for file in files])

    with pytest.raises(DataError, match="was not written for"):
        check_owned(record, files, "train_net_prefix")


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
    settings = foreign_files.outputs_job(planner, "zfinch", "n4", "a").settings
    files = foreign_files.output_files(settings)
    assert Path("out/net_sample_a_output.h5") in files

    folder = Path("results/zfinch/n4/a")
    foreign_files.WrittenFiles().check(settings, folder)
    Path("out").mkdir()
    files[0].touch()
    with pytest.raises(DataError, match="choose another `output_prefix`"):
        foreign_files.WrittenFiles().check(settings, folder)
    files[0].unlink()
    put(folder / RECORD, files[0], "prediction")
    foreign_files.WrittenFiles().check(settings, folder)


def test_an_export_replaces_only_what_an_export_wrote(tmp_path: Path) -> None:
    output, work = tmp_path / "layer", tmp_path / "work"
    check_replaceable(output, work, in_results=True)
    output.mkdir()
    with pytest.raises(DataError, match="so it is not replaced"):
        check_replaceable(output, work, in_results=True)
    (tmp_path / "layer.manifest.json").write_text("{}")
    check_replaceable(output, work, in_results=True)


def test_a_network_of_znn_at_train_net_prefix_is_refused_while_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    planner = Planner(tmp_path, WorkflowConfig.model_validate({}).complete(deep=True))
    files = {"prefix": "nets/net", "is_stdio": True}
    settings = train_job(planner, "zfinch", "n4").settings
    settings = settings.with_(network=settings.network.with_(net_files=files))
    plan, folder = foreign_files.WrittenFiles(), Path("results/zfinch/n4")
    plan.check(settings, folder)
    with pytest.raises(DataError, match="for results/zfinch/n4 and for results/zfinch/n4_a"):
        plan.check(settings, Path("results/zfinch/n4_a"))

    put(folder / RECORD, Path("nets/net_current.h5"), "weights")
    plan.check(settings, folder)
    written("nets/net", "current.h5")[0].write_text("weights of the user")
    with pytest.raises(DataError, match="choose another `train_net_prefix`"):
        plan.check(settings, folder)
