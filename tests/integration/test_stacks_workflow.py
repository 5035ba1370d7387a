"""From a data set of sections to training stacks and masks, through the workflow and from S3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import s3_server
import stacks
import tiny_workflow
from retrace.alignment.stack_files import StackDataset
from retrace.config.alignment_model import StackSet
from retrace.storage.precomputed_writer import write_layer

TINY = """
name: tiny_sections
voxel_size_nm: [40, 8, 8]
volumes:
  sections: {raw: {path: "file://results/tiny_sections/sections/layer"}}
alignment:
  volume: sections
  made: {phantom_shape: [5, 96, 96], jitter_px: 2, warp_px: 1, spacing_px: 32, crack: 0.5}
  stacks:
    main:
      {count: 3, test_count: 1, height: 2, side: 48, test_fraction: 0.4, reject: {least_filled: 0}}
  defects: {iterations: 4, batch_size: 1, side: 32, fmaps: 2, near_px: 4, smallest_px: 10}
"""


def test_a_data_set_becomes_stacks_and_masks(tmp_path: Path) -> None:
    (tmp_path / "config" / "datasets").mkdir(parents=True)
    (tmp_path / "config" / "datasets" / "tiny_sections.yaml").write_text(TINY)
    command = ("mask_stacks_tiny_sections", "--cores", "1", "--config", "device=cpu")
    tiny_workflow.succeed(tmp_path, command)
    folder = tmp_path / "results" / "tiny_sections"
    stacks = folder / "stacks"
    train = StackDataset([stacks / "main_train.h5"], [stacks / "main_train_masks.h5"])
    test = StackDataset([stacks / "main_test.h5"], [stacks / "main_test_masks.h5"])
    history = json.loads((folder / "defects_training.json").read_text())

    assert [len(train), len(test)] == [3, 1]
    assert train[0].images.shape == train[0].masks.shape == (2, 48, 48)
    assert train[0].fields is not None
    assert train[0].name == "tiny_sections_main[0]"
    assert len(history["losses"]) == 4
    assert set(history["score"]) == {"all", "crack", "fold", "missing"}
    assert {"precision", "recall", "iou", "auc"} <= set(history["score"]["fold"])
    assert len(history["scored_on"]) == 1
    assert "Nothing to be done" in tiny_workflow.succeed(tmp_path, command)
    shorter = TINY.replace("iterations: 4", "iterations: 3")
    (tmp_path / "config" / "datasets" / "tiny_sections.yaml").write_text(shorter)
    status, printed = tiny_workflow.finish(tmp_path, command)
    assert status != 0
    assert "defects.safetensors is trained for 4 iterations, and 3 are requested" in printed
    assert (folder / "defects.safetensors").is_file()


@pytest.mark.s3
def test_stacks_from_a_bucket_are_those_from_a_folder(tmp_path: Path) -> None:
    """The layer streamed from a real S3 server gives the same bytes as the local layer."""
    data = np.random.default_rng(0).integers(40, 255, (6, 80, 80), np.uint8)
    write_layer(tmp_path / "layer", data, (40, 8, 8), (0, 0, 0))
    files = [p for p in (tmp_path / "layer").rglob("*") if p.is_file()]
    objects = {f"em/{p.relative_to(tmp_path / 'layer')}": p.read_bytes() for p in files}
    stack = StackSet(count=3, height=2, side=32).complete(deep=True).plain()
    common = {"name": "a", "split": "train", "seed": 1, "mask": None, "near_px": 2, "stacks": stack}
    with s3_server.serving() as endpoint:
        s3_server.put_objects(endpoint, "tissue", objects)
        remote = {"path": "s3://tissue/em", "endpoint_url": endpoint, "unsigned": True}
        here = {"path": f"file://{tmp_path}/layer"}
        for name, source in (("remote", remote), ("here", here)):
            settings = {**common, "source": source | {"array": "", "mip": 0}}
            output = str(tmp_path / f"{name}.h5")
            stacks.main(["gen_stack", "--settings", json.dumps(settings), "--output", output])
    manifest = json.loads((tmp_path / "remote.manifest.json").read_text())

    assert (tmp_path / "remote.h5").read_bytes() == (tmp_path / "here.h5").read_bytes()
    assert len(manifest["read"]) == 1
