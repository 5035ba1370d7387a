"""`make setup` on machines with other Pythons, without pip, and without any fitting Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
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


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    """What `make setup` reads, with a uv that is there."""
    shutil.copy(repository / "Makefile", tmp_path)
    (tmp_path / "envs").mkdir()
    for name in ("dev.txt", "torch.txt", "uv.txt", "obtain_uv.py"):
        shutil.copy(repository / "envs" / name, tmp_path / "envs")
    (tmp_path / ".uv/bin").mkdir(parents=True)
    (tmp_path / ".uv/bin/uv").symlink_to(Path(sys.executable).parent / "uv")
    return tmp_path


OTHER_PYTHON = """\
#!/bin/sh
exec {python} -c 'import sys; sys.version_info = (3, 14, 2, "final", 0); exec(sys.argv[1])' "$2"
"""


def test_a_python_that_the_locks_do_not_hold_for_is_refused(clone: Path) -> None:
    (clone / ".venv/bin").mkdir(parents=True)
    python = clone / ".venv/bin/python"
    python.write_text(OTHER_PYTHON.format(python=sys.executable))
    python.chmod(0o755)

    run = subprocess.run(["make", "setup"], cwd=clone, capture_output=True, text=True)

    assert run.returncode == 2
    assert (
        "error: .venv has Python 3.14, and the locks hold for 3.11, 3.12 and 3.13. Take another: "
        "rm -r .venv; make setup PYTHON=3.13"
    ) in run.stderr
    assert not (clone / ".venv/.installed").exists()


@pytest.mark.parametrize(
    ("system", "machine", "libc", "message"),
    [
        ("win32", "AMD64", "", "not run on Windows itself; install WSL"),
        ("msys", "x86_64", "", "not run on Windows itself; install WSL"),
        ("darwin", "x86_64", "", "not run on Macs with an Intel processor, because torch has no"),
        ("linux", "x86_64", "x86_64-pc-linux-musl", "not run on systems with musl"),
        ("darwin", "arm64", "", None),
        ("linux", "aarch64", "aarch64-unknown-linux-gnu", None),
    ],
)
def test_systems_without_packages_are_refused(
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    libc: str,
    message: str | None,
) -> None:
    obtain = program(repository / "envs/obtain_uv.py")
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(obtain.platform, "machine", lambda: machine)
    monkeypatch.setattr(obtain.sysconfig, "get_config_var", lambda name: libc)
    with pytest.raises(SystemExit, match=message) if message else nullcontext():
        obtain.refuse_system()


PURE_PYTHON = ("atomicwrites", "connection-pool")
"""Packages that exist as source alone, which needs no compiler."""


@pytest.mark.index
@pytest.mark.parametrize(
    ("system", "python"),
    [
        ("x86_64-manylinux_2_28", "3.12"),
        ("x86_64-manylinux_2_28", "3.13"),
        ("aarch64-apple-darwin", "3.13"),
    ],
)
def test_every_locked_package_has_a_wheel(
    repository: Path, tmp_path: Path, system: str, python: str
) -> None:
    """Nothing is installed: uv reads names, hashes and metadata of the package index."""
    lock, torch = tmp_path / "lock.txt", repository / "envs/torch.txt"
    others = "|".join(PURE_PYTHON)
    text = (repository / "envs/dev.txt").read_text()
    lock.write_text(re.sub(rf"^({others})==.*\n(    .*\n)*", "", text, flags=re.M))
    command = [Path(sys.executable).parent / "uv", "pip", "install", "--dry-run", "--no-deps"]
    command += ["--only-binary", ":all:", "--target", tmp_path / "nothing"]
    command += ["--python-platform", system, "--python-version", python]
    for more in (["--require-hashes", "-r", lock], ["-r", torch]):
        run = subprocess.run(
            [*command, *more],
            env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr


def test_without_a_fitting_python_setup_says_what_to_install(clone: Path) -> None:
    run = subprocess.run(
        ["make", "setup", "PYTHON=3.99"], cwd=clone, capture_output=True, text=True
    )

    assert run.returncode == 2
    assert "error: no Python 3.99 on this machine, and uv could not download one" in run.stderr
    assert "make setup PYTHON=PATH" in run.stderr
