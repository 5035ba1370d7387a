"""The recipe and the wheels of the legacy image, as far as they work without its base systems."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Apptainer, skip_or_fail

LIBRARIES = "libcublas libcudart libcufft libcurand libcusolver"
FOLDERS = ("bin", "etc", "lib", "lib64", "opt", "proc", "sys", "tmp", "dev", "root", "home")
PYTHON = """\
#!/bin/sh
mkdir -p "$3/bin"
cat > "$3/bin/python" <<'PROGRAM'
#!/bin/sh
[ "$1" = - ] || echo "$@" >> /opt/retrace/calls
PROGRAM
chmod +x "$3/bin/python"
"""
"""A python3.6 whose virtual environments note what their python is called with."""


def write_system(root: Path) -> None:
    """A base system with a shell and three programs of this machine."""
    for name in (*FOLDERS, "usr/bin"):
        (root / name).mkdir(parents=True)
    for name in ("passwd", "group"):
        (root / "etc" / name).touch()
    for name in ("sh", "cat", "mkdir", "chmod"):
        program = Path(shutil.which(name) or "/bin/sh").resolve()
        shutil.copy(program, root / "bin" / name)
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for path in re.findall(r"(/\S+) \(0x", linked.stdout):
            library = root / path.lstrip("/")
            library.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, library)


@pytest.fixture
def systems(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Stand-ins for the two base systems of the recipe."""
    folders = {name: tmp_path / name for name in ("FROM", "CUDA_FROM")}
    for folder in folders.values():
        write_system(folder)
    python = folders["FROM"] / "bin/python3.6"
    python.write_text(PYTHON)
    python.chmod(0o755)
    cuda = "usr/local/cuda-8.0/targets/x86_64-linux/lib"
    copied = [f"{cuda}/{name}.so.8.0" for name in LIBRARIES.split()]
    for name in (*copied, "usr/lib/x86_64-linux-gnu/libcudnn.so.6"):
        library = folders["CUDA_FROM"] / name
        library.parent.mkdir(parents=True, exist_ok=True)
        library.write_text(library.name)
    (folders["CUDA_FROM"] / "usr/lib/x86_64-linux-gnu/libgomp.so.1").touch()
    yield folders


def build(
    apptainer: Apptainer, image: Path, arguments: dict[str, object]
) -> subprocess.CompletedProcess[str]:
    """A build of the recipe by hand."""
    command = ["unshare", "-Ur"] if os.geteuid() == 0 else []
    command += [apptainer.program, "build", "--force", "--sandbox"]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    command += [str(image), "containers/legacy.def"]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.container
def test_the_recipe_is_built_on_stand_ins_for_its_base_systems(
    apptainer: Apptainer, systems: dict[str, Path], tmp_path: Path
) -> None:
    image = tmp_path / "image"
    local = {"BOOTSTRAP": "localimage", "CUDA_BOOTSTRAP": "localimage"}
    done = build(apptainer, image, local | systems)

    assert done.returncode == 0, done.stdout
    lines = (image / "opt/retrace/calls").read_text().splitlines()
    install = "-m pip install --no-cache-dir --no-deps --require-hashes -r /opt/retrace/envs"
    assert lines == [f"{install}/legacy_pip.txt", f"{install}/legacy.txt"]
    assert {path.name for path in (image / "opt/cuda/lib").iterdir()} == {
        *(f"{name}.so.8.0" for name in LIBRARIES.split()),
        *("libcudnn.so.6", "libgomp.so.1"),
    }


@pytest.mark.container
@pytest.mark.parametrize(
    ("given", "asks_for"),
    [
        ({"CUDA_BOOTSTRAP": "localimage"}, "tensorflow/tensorflow:1.3.0-gpu-py3: lstat"),
        ({"CUDA_FROM": "/NONE"}, "could not parse reference: /NONE"),
    ],
)
def test_every_stage_knows_its_arguments(
    apptainer: Apptainer, tmp_path: Path, given: dict[str, object], asks_for: str
) -> None:
    done = build(apptainer, tmp_path / "image", given)

    assert "is not defined" not in done.stdout
    assert asks_for in done.stdout


@pytest.mark.index
def test_pip_of_the_image_takes_every_locked_wheel_and_their_libraries_are_there(
    repository: Path, tmp_path: Path
) -> None:
    if shutil.which("readelf") is None:
        skip_or_fail("index", "binutils' readelf is not on the PATH")
    program = repository / "benchmarks/legacy_wheels.py"
    done = subprocess.run(
        [sys.executable, program, "--folder", tmp_path], capture_output=True, text=True
    )
    if "Could not find a version that satisfies the requirement pip==" in done.stderr:
        skip_or_fail("index", "no package index answers")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "protobuf-3.19.6-cp36-cp36m-manylinux_2_17_x86_64.manylinux2014" in done.stdout
    assert "| libcublas.so.8.0 | 1 | recipe: /usr/local/cuda-8.0/" in done.stdout
    assert "| libcuda.so.1 | 1 | driver: --nv |" in done.stdout
    assert "NOTHING" not in done.stdout
    site = tmp_path / "lib/python3.6/site-packages"
    assert (site / "tensorflow/python/_pywrap_tensorflow_internal.so").is_file()
