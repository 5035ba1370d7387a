"""A segmentation interrupted at any time and run again gives the same bytes."""

from __future__ import annotations

import json
import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import zarr

from kill import finish, interrupt, kill_when
from prediction_case import store_bytes
from unit.test_segment import fragments_arguments, make_prediction


def _progress(work: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in work.glob("*/*.jsonl"))


def _has_come_to(work: Path, blocks: int) -> bool:
    return _progress(work) >= blocks


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_interrupted_segmentation_ends_with_the_same_bytes(
    tmp_path: Path, zarr_format: int
) -> None:
    make_prediction(tmp_path)
    blocks = {"block_shape": [4, 10, 11], "block_context": [1, 4, 4]}
    arguments = fragments_arguments(
        tmp_path, fragments_in_xy=True, zarr_format=zarr_format, **blocks
    )
    output, work = tmp_path / "fragments.zarr", tmp_path / "work"
    finish("segment.py", arguments)
    whole = store_bytes(output)
    shutil.rmtree(output)
    rng = random.Random(3)
    # 64 blocks of fragments, then 64 of edges: the last interruption is among the edges, before
    # the program has finished.
    for target in (rng.randint(1, 50), rng.randint(66, 90)):
        is_due = partial(_has_come_to, work, target)
        interrupt("segment.py", arguments, is_due, partial(shutil.rmtree, output))
        assert not output.exists()
    finish("segment.py", arguments)
    assert store_bytes(output) == whole
    assert not list(work.iterdir())


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_interrupted_apply_leaves_no_partial_result(tmp_path: Path, zarr_format: int) -> None:
    make_prediction(tmp_path)
    finish(
        "segment.py", fragments_arguments(tmp_path, fragments_in_xy=True, zarr_format=zarr_format)
    )
    (tmp_path / "threshold.json").write_text(json.dumps({"threshold": 0.4}))
    output = tmp_path / "segmentation.zarr"
    arguments = ["apply", "--output", str(output)]
    arguments += ["--fragments", str(tmp_path / "fragments.zarr")]
    arguments += ["--threshold-file", str(tmp_path / "threshold.json")]
    begun = tmp_path / "segmentation.zarr.partial"
    kill_when("segment.py", arguments, begun.exists)
    finish("segment.py", arguments)
    first = store_bytes(output)
    finish("segment.py", arguments)
    assert store_bytes(output) == first
    segments = np.asarray(zarr.open(output, mode="r")["segments"][...])
    assert 1 < len(np.unique(segments)) < segments.size
