"""A prediction interrupted at any time and run again gives the same bytes."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from kill import finish, kill_when
from prediction_case import make_case, store_bytes
from retrace.storage.manifest import read_manifest


def _done(work: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in work.glob("*/done.jsonl"))


@pytest.mark.usefixtures("tiny_threads")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_interrupted_prediction_ends_with_the_same_bytes(
    tmp_path: Path, zarr_format: int
) -> None:
    case = make_case(tmp_path)
    arguments = case.arguments(tile=[4, 8, 8], zarr_format=zarr_format)
    finish("predict.py", arguments)
    whole, arrays = store_bytes(case.output), read_manifest(case.output)["arrays"]
    shutil.rmtree(case.output)
    (tmp_path / "prediction.manifest.json").unlink()
    work, partial = tmp_path / "work", tmp_path / "prediction.zarr.partial"
    rng = random.Random(5)
    for _ in range(2):
        target = _done(work) + rng.randint(1, 14)
        assert kill_when("predict.py", arguments, lambda aim=target: _done(work) >= aim)
        assert not case.output.exists()
    # A power cut can also leave half a chunk, half a line, a half-written file.
    chunk = next(
        p for p in sorted((partial / "affs").rglob("*")) if p.name[0].isdecimal() and p.is_file()
    )
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    with next(work.glob("*/done.jsonl")).open("a") as journal:
        journal.write('{"box": "[1')
    (chunk.parent / "0.abc.partial").write_bytes(b"x")
    finish("predict.py", arguments)
    assert store_bytes(case.output) == whole
    assert read_manifest(case.output)["arrays"] == arrays
    assert not partial.exists()
    assert not list(work.iterdir())
