"""`make setup` on machines with other Pythons, without pip, and without any fitting Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loaded_programs import program


def version(uv: Path) -> str:
    return subprocess.run([uv, "--version"], capture_output=True, text=True, check=True).stdout


@pytest.mark.index
def test_uv_comes_from_the_index_without_pip(repository: Path, tmp_path: Path) -> None:
    obtain, lock = program(repository / "envs/obtain_uv.py"), repository / "envs/uv.txt"

    obtain.install_without_pip(lock, tmp_path)

    assert version(tmp_path / "bin/uv").split()[1] == obtain.locked_version(lock)


@pytest.mark.index
def test_a_wheel_that_the_lock_does_not_know_is_refused(repository: Path, tmp_path: Path) -> None:
    obtain, lock = program(repository / "envs/obtain_uv.py"), tmp_path / "uv.txt"
    lock.write_text("\n".join((repository / "envs/uv.txt").read_text().splitlines()[:4]) + "\n")
    digits = lock.read_text().split("sha256:")[1].split()[0]
    lock.write_text(lock.read_text().replace(digits, "0" * 64))

    with pytest.raises(SystemExit, match="has sha256 .* which is not in"):
        obtain.install_without_pip(lock, tmp_path)

    assert not (tmp_path / "bin").exists()


def test_without_a_fitting_python_setup_says_what_to_install(
    repository: Path, tmp_path: Path
) -> None:
    shutil.copy(repository / "Makefile", tmp_path)
    (tmp_path / "envs").mkdir()
    for name in ("dev.txt", "torch.txt", "uv.txt", "obtain_uv.py"):
        shutil.copy(repository / "envs" / name, tmp_path / "envs")
    (tmp_path / ".uv/bin").mkdir(parents=True)
    (tmp_path / ".uv/bin/uv").symlink_to(Path(sys.executable).parent / "uv")

    run = subprocess.run(
        ["make", "setup", "PYTHON=3.99"], cwd=tmp_path, capture_output=True, text=True
    )

    assert run.returncode == 2
    assert "error: no Python 3.99 on this machine, and uv could not download one" in run.stderr
    assert "make setup PYTHON=PATH" in run.stderr
