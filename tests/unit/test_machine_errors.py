"""Errors of disks and network drives are tried again or reported, and invalidate nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

import failing_reads
from retrace.errors import MachineError, explain
from retrace.files import read_json
from retrace.geometry import VoxelBox
from retrace.reading import files_below, if_intact, read_bytes
from retrace.storage.block_journal import Journal
from retrace.storage.manifest import manifest_path, write_manifest

needs_compiler = pytest.mark.skipif(failing_reads.compiler() is None, reason="no C compiler")
VALUES = np.arange(4 * 16 * 16, dtype=np.uint8).reshape(4, 16, 16)
FILES = ("a.h5", "a.tif", "v2.zarr", "v3.zarr", "layer")

READ_ALL = """
import sys
from pathlib import Path
from retrace.errors import run
from retrace.storage.volumes import open_volume

def main():
    for name in sys.argv[1:] or %r:
        array = "" if name in ("a.tif", "layer") else "raw"
        path = f"file://{Path.cwd()}/layer" if name == "layer" else name
        volume = open_volume(path, array, (1, 1, 1))
        assert int(volume.read(volume.box).sum()) == %d, name
    print("all read")

run(main)
"""

CHECK_STORE = """
from pathlib import Path
from retrace.errors import run
from retrace.storage.manifest import check_manifest
from retrace.storage.store_check import store_check
from retrace.storage.volumes import open_volume

def main():
    check_manifest(Path("s.zarr"), digests=True)
    volume = open_volume("s.zarr", "raw")
    print(int(volume.read(volume.box).sum()))

run(main)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail."""
    return failing_reads.build(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one volume in each format, and a store with a manifest."""
    folder = tmp_path_factory.mktemp("volumes")
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("raw", data=VALUES, chunks=(2, 8, 8), compression="gzip")
    tifffile.imwrite(folder / "a.tif", VALUES, photometric="minisblack", metadata=None)
    for version in (2, 3):
        group = zarr.open_group(folder / f"v{version}.zarr", mode="w", zarr_format=version)  # type: ignore[arg-type]
        group.create_array("raw", data=VALUES, chunks=(2, 8, 8))
    write_layer(folder / "layer")
    group = zarr.open_group(folder / "s.zarr", mode="w", zarr_format=2)
    stored = group.create_array("raw", data=VALUES, chunks=(2, 8, 8))
    stored.attrs.update({"resolution": [1, 1, 1], "offset": [0, 0, 0]})
    write_manifest(folder / "s.zarr", inputs=[], settings={}, seconds=0)
    return folder


def write_layer(folder: Path) -> None:
    """A precomputed layer of one raw chunk."""
    scale = {
        "key": "1",
        "size": list(VALUES.shape[::-1]),
        "resolution": [1, 1, 1],
        "voxel_offset": [0, 0, 0],
        "chunk_sizes": [list(VALUES.shape[::-1])],
        "encoding": "raw",
    }
    info = {"type": "image", "data_type": "uint8", "num_channels": 1, "scales": [scale]}
    (folder / "1").mkdir(parents=True)
    (folder / "info").write_text(json.dumps(info))
    (folder / "1" / "0-16_0-16_0-4").write_bytes(VALUES.tobytes())


@needs_compiler
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM])
def test_a_passing_error_is_not_noticed(volumes: Path, library: Path, number: int) -> None:
    for call in ("read", "open"):
        code = READ_ALL % (FILES, VALUES.sum())
        result = failing_reads.run_python(
            code, volumes, library, str(volumes), number, call=call, times=3
        )

        assert result.stdout == "all read\n", result.stderr


@needs_compiler
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_a_lasting_error_is_the_machines(
    volumes: Path, library: Path, name: str, number: int
) -> None:
    code = READ_ALL % ((name,), VALUES.sum())
    result = failing_reads.run_python(code, volumes, library, f"{volumes}/{name}", number)

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    assert f"{name}" in result.stderr and errno.errorcode[number] in result.stderr
    assert "The data may be intact, nothing was changed" in result.stderr


@needs_compiler
@pytest.mark.parametrize("call", ["read", "open", "list", "stat"])
@pytest.mark.parametrize("part", ["s.zarr", "s.manifest.json", ".s.chunks.gz"])
def test_a_store_stays_valid(volumes: Path, library: Path, call: str, part: str) -> None:
    before = manifest_path(volumes / "s.zarr").read_bytes()
    result = failing_reads.run_python(CHECK_STORE, volumes, library, part, errno.EACCES, call=call)

    if result.returncode:
        assert result.stderr.count("\n") == 1 and "EACCES" in result.stderr, result.stderr
    else:
        assert call in ("list", "stat") and part != "s.zarr", "nothing of this file was needed"
    assert manifest_path(volumes / "s.zarr").read_bytes() == before
    assert not list(volumes.glob("*.damaged"))


@needs_compiler
def test_a_journal_keeps_its_entries(tmp_path: Path, library: Path) -> None:
    box = VoxelBox((0, 0, 0), (1, 1, 1))
    Journal(tmp_path).note(box, "0123")
    code = "from pathlib import Path\nfrom retrace.storage.block_journal import Journal\n"
    code += "from retrace.errors import run\nrun(lambda: Journal(Path('.')))"
    result = failing_reads.run_python(code, tmp_path, library, "done.jsonl", errno.ESTALE)

    assert "ESTALE" in result.stderr and "Traceback" not in result.stderr
    assert Journal(tmp_path).checksum_of(box) == "0123"


# /proc/self/mem opens like any file, and its first page cannot be read: EIO, on every Linux.


def test_a_file_of_a_failing_disk_is_named(tmp_path: Path) -> None:
    failing = tmp_path / "x.json"
    failing.symlink_to("/proc/self/mem")

    for read in (read_bytes, read_json):
        with pytest.raises(MachineError, match=r"x.json: .*EIO"):
            read(failing)
    with pytest.raises(MachineError, match=r"x.json: .*EIO"):
        if_intact(failing.read_bytes, failing)


def test_damaged_work_is_none_and_programming_errors_pass(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\0")

    assert if_intact(lambda: json.loads((tmp_path / "x").read_text()), tmp_path / "x") is None
    assert if_intact((tmp_path / "absent").read_bytes, "absent") is None
    with pytest.raises(NameError):
        if_intact(lambda: undefined, "x")  # type: ignore[name-defined]  # noqa: F821


def test_files_of_a_folder_are_complete_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/z"):
        (tmp_path / name).touch()

    assert [f.relative_to(tmp_path).as_posix() for f in files_below(tmp_path)] == [
        "a/b/z",
        "a/y",
        "x",
    ]
    assert files_below(tmp_path / "absent") == []


def test_an_unnamed_error_is_one_line() -> None:
    message = explain(OSError(errno.EIO, os.strerror(errno.EIO), "/data/x"))

    assert message is not None and message.startswith("/data/x: the machine cannot read it")


def test_all_files_of_a_store_are_on_the_disk_before_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=2)
    group.create_array("raw", data=VALUES, chunks=(2, 8, 8))
    flushed: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        fsync(handle)
        flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink()))

    monkeypatch.setattr(os, "fsync", noted)
    write_manifest(tmp_path / "s.zarr", inputs=[], settings={}, seconds=0)

    manifest = next(i for i, path in enumerate(flushed) if "manifest.json" in path)
    files = [str(path) for path in (tmp_path / "s.zarr").rglob("*")]
    assert len(files) > 8 and set(files) <= set(flushed[:manifest])


def test_an_output_that_nobody_reads_ends_a_program_silently() -> None:
    code = (
        "from retrace.errors import run; run(lambda: [print(i) for i in range(100_000)] and None)"
    )
    pipe = f"{sys.executable} -c '{code}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", pipe],
        env={**os.environ, "PYTHONPATH": str(failing_reads.SCRIPTS)},
        capture_output=True,
        text=True,
    )

    assert (done.stdout, done.stderr) == ("0\n141\n", "")
