"""Whatever a power cut takes: what has a manifest is whole, and the rest is made again."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import fetch
import fetch_object
import segment
from power_cut import Flushes, after_a_cut
from retrace import replacement
from retrace.errors import DataError
from retrace.storage.manifest import check_manifest, manifest_path, read_manifest, write_manifest
from retrace.storage.zarr_writer import create_volume
from retrace.synthetic.phantom_files import write_phantom_store

PREFIX = "v.zarr"
STORE = "f.zarr.partial"
"""The folder of fragments in progress."""
VOXEL = {"voxel_size_nm": (20, 9, 9), "offset_nm": (0, 0, 0)}


def write_sources(folder: Path) -> Path:
    """A mirror with a volume and a file, and a prediction."""
    write_phantom_store(folder / PREFIX, (6, 20, 20), (2, 4, 4), (20, 9, 9), 1, chunks=(4, 16, 16))
    (folder / "images").mkdir()
    (folder / "images/a.img").write_bytes(random.Random(0).randbytes(10**5))
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((3, 8, 40, 44)), (0, 1, 2, 2))
    store = folder / "prediction.zarr"
    options: dict[str, Any] = {"chunks": (3, 8, 32, 32), "dtype": np.uint8, **VOXEL}
    array = create_volume(store, "affs", shape=smooth.shape, **options)
    array[...] = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    write_manifest(store, inputs=[], settings={}, seconds=0)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


def fetch_volume(sources: Path) -> Path:
    settings = {"bucket": "b", "prefix": PREFIX, "threads": 2}
    output = ["--output", "data/v.zarr", "--mirror", str(sources)]
    fetch.main(["--settings", json.dumps(settings), *output])
    return Path("data/v.zarr")


def fetch_image(sources: Path) -> Path:
    settings = {"bucket": "b", "key": "images/a.img", "mirror": str(sources), "part_bytes": 30_000}
    fetch_object.main(["--settings", json.dumps(settings), "--output", "data/a.img"])
    return Path("data/a.img")


def make_fragments(sources: Path) -> Path:
    places = {"prediction": sources / "prediction.zarr", "work": "work", "output": "f.zarr"}
    options = [part for name, place in places.items() for part in (f"--{name}", str(place))]
    blocks = {"fragments_in_xy": True, "block_shape": [8, 20, 22], "block_context": [2, 10, 10]}
    segment.main(["fragments", "--settings", json.dumps(blocks), *options])
    return Path("f.zarr")


PROGRAMS: dict[str, Callable[[Path], Path]] = {
    "fetch": fetch_volume,
    "fetch_object": fetch_image,
    "fragments": make_fragments,
}


def content(output: Path) -> dict[str, bytes]:
    """The bytes of all files of an output."""
    files = [output] if output.is_file() else [p for p in output.rglob("*") if p.is_file()]
    return {path.name if path == output else str(path): path.read_bytes() for path in files}


def moments(count: int) -> set[int]:
    """Some of the fsyncs of a run: at its begin, on its way, and all of its end."""
    return {1, count // 3, count // 2, *range(count - 8, count + 1)}


def repaired(
    program: Callable[[], Path], is_job: bool, tmp_path: Path, rng: random.Random
) -> Iterator[bool]:
    """Runs a program until a power cut and again; yields whether its output was finished before.

    AssertionError if a finished output is not whole, or the second run makes another one. The last
    cut comes after the program's end.
    """

    def run(folder: Path) -> Path:
        """A job replaces its outputs together at its end; by hand, each is put in its place."""
        os.chdir(folder)
        with replacement.replacing_together() if is_job else nullcontext():
            return program()

    for folder in ("trial", "run"):
        (tmp_path / folder).mkdir()
    seen: list[int] = []
    with Flushes(tmp_path / "trial.log").noted(lambda: seen.append(1)):
        output = run(tmp_path / "trial")
    expected, chosen = content(output), moments(len(seen))
    flushes, cuts, number = Flushes(tmp_path / "log"), list[Path](), 0

    def cut() -> None:
        nonlocal number
        number += 1
        if number in chosen:
            copy = tmp_path / f"cut_{number}"
            cuts.append(after_a_cut(tmp_path / "run", copy, flushes, rng))

    with flushes.noted(cut):
        run(tmp_path / "run")
    cuts.append(after_a_cut(tmp_path / "run", tmp_path / "end", flushes, rng))

    for folder in cuts:
        os.chdir(folder)
        finished = is_finished(output, expected)
        assert content(run(folder)) == expected
        check_manifest(output, digests=True) if output.is_dir() else read_manifest(output)
        yield finished


@pytest.mark.parametrize("is_job", [True, False], ids=["job", "by hand"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_power_cut_at_any_moment_is_repaired(
    name: str, is_job: bool, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, rng = partial(PROGRAMS[name], sources), random.Random(name)
    finished = list(repaired(program, is_job, tmp_path, rng))

    assert finished[-1], "nothing is lost after the end"
    assert not finished[0]


def is_finished(output: Path, expected: dict[str, bytes]) -> bool:
    """Whether an output has a manifest; then it is whole."""
    try:
        read_manifest(output)
    except DataError:
        assert not manifest_path(output).is_file()
        return False
    assert content(output) == expected
    return True


def test_what_is_put_in_its_place_is_on_the_disk(tmp_path: Path) -> None:
    flushes = Flushes(tmp_path / "log")
    (tmp_path / "a").mkdir()
    new = tmp_path / "a/.new"
    with flushes.noted():
        for make in (Path.touch, lambda path: path.write_bytes(b"x"), Path.mkdir):
            make(new)
            if new.is_dir():
                (new / "inside").write_bytes(b"y")
            target = tmp_path / "a" / ("folder" if new.is_dir() else "file")
            replacement.put(new, target)
    assert flushes.lost(tmp_path / "a") == []
    shutil.copy(tmp_path / "a/file", tmp_path / "a/other")
    assert [path.name for path in flushes.lost(tmp_path / "a")] == ["other"]


def test_a_store_is_on_the_disk_before_a_journal_says_that_it_can_be_resumed(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flushes, seen, unsafe = Flushes(tmp_path / "log"), 0, list[Path]()

    def look() -> None:
        nonlocal seen
        if list(tmp_path.rglob("begun.json")):
            seen += 1
            lost = (path for path in flushes.lost(tmp_path) if path.name.startswith(".z"))
            unsafe.extend(path for path in lost if path.parent.name in ("fragments", STORE))

    with flushes.noted(look):
        make_fragments(sources)

    assert seen and not unsafe
