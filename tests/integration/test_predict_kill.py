"""A prediction interrupted at any time and run again gives the same bytes."""

from __future__ import annotations

import random
import shutil
from functools import partial
from pathlib import Path

import pytest

from kill import finish, interrupt
from prediction_case import make_case, store_bytes
from retrace.storage.manifest import manifest_path, read_manifest


def _done(work: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in work.glob("*/done.jsonl"))


def _has_come_to(work: Path, tiles: int) -> bool:
    return _done(work) >= tiles


def _remove(output: Path) -> None:
    shutil.rmtree(output)
    manifest_path(output).unlink()


@pytest.mark.usefixtures("tiny_threads")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_interrupted_prediction_ends_with_the_same_bytes(
    tmp_path: Path, zarr_format: int
) -> None:
    case = make_case(tmp_path)
    arguments = case.arguments(tile=[4, 8, 8], zarr_format=zarr_format)
    finish("predict.py", arguments)
    whole, arrays = store_bytes(case.output), read_manifest(case.output)["arrays"]
    _remove(case.output)
    work, begun = tmp_path / "work", tmp_path / "prediction.zarr.partial"
    rng = random.Random(5)
    for _ in range(2):
        target = _done(work) + rng.randint(1, 14)
        is_due = partial(_has_come_to, work, target)
        interrupt("predict.py", arguments, is_due, partial(_remove, case.output))
        assert not case.output.exists()
    # A power cut can also leave half a chunk, half a line, a half-written file.
    chunk = next(
        p for p in sorted((begun / "affs").rglob("*")) if p.name[0].isdecimal() and p.is_file()
    )
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    with next(work.glob("*/done.jsonl")).open("a") as journal:
        journal.write('{"box": "[1')
    (chunk.parent / "0.abc.partial").write_bytes(b"x")
    finish("predict.py", arguments)
    assert store_bytes(case.output) == whole
    assert read_manifest(case.output)["arrays"] == arrays
    assert not begun.exists()
    assert not list(work.iterdir())
