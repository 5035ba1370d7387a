"""The tests start no SLURM on a machine that has one."""

from __future__ import annotations

from pathlib import Path

import pytest

import slurm_cluster


@pytest.mark.parametrize("name", slurm_cluster.FILES)
def test_a_foreign_configuration_file_is_not_overwritten(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_cluster, "CONFIGURATION", tmp_path)
    (tmp_path / name).write_text("ClusterName=institute\n")
    assert slurm_cluster.why_not() == f"{tmp_path / name} is somebody else's"
    (tmp_path / name).write_text(slurm_cluster.MARK + "ClusterName=retrace\n")
    assert "somebody else" not in (slurm_cluster.why_not() or "")


def test_only_the_written_files_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_cluster, "CONFIGURATION", tmp_path)
    (tmp_path / "plugstack.conf").write_text("kept")
    with pytest.raises(KeyError), slurm_cluster.configuration(tmp_path / "base"):
        assert (tmp_path / "slurm.conf").read_text().startswith(slurm_cluster.MARK)
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["plugstack.conf"]
