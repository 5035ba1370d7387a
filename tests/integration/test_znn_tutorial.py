"""ZNN's two commands on the literal files of its tutorial, without any file of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import tiny_workflow
from retrace.storage.volumes import open_volume
from znn_tutorial import lay_out

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("shared_dir")]

SHORT = {
    "train_range": "1",
    "test_range": "1",
    "forward_range": "2",
    "train_outsz": "1,4,4",
    "train_conv_mode": "direct",
    "forward_outsz": "2,28,30",
    "forward_conv_mode": "direct",
    "logging": "yes",
    "Num_iter_per_show": "1",
    "Num_iter_per_test": "2",
    "test_num": "1",
    "Num_iter_per_save": "2",
}
"""What is changed of the tutorial's .cfg besides the path of the data: ranges and sizes."""


def znn(place: Path, program: str) -> str:
    """Runs one of ZNN's programs in its folder `python`; returns what it printed."""
    options = ["--cores", "2", "--quiet", "host", "--config", "cfg=config.cfg", "device=cpu"]
    return tiny_workflow.succeed(place / "python", [f"{program}_znn", *options])


def test_train_resume_and_forward_with_the_tutorials_files(tmp_path: Path) -> None:
    lay_out(tmp_path, **SHORT, Max_iter="3")
    printed = znn(tmp_path, "train")
    nets, results = tmp_path / "experiments/piriform/N4", tmp_path / "python/results"
    logs = ["config.cfg", "data.spec", "log.txt", "network.znn"]
    written = [*logs, "2.h5", "current.h5", "init.h5"]
    assert "voxels are 1 x 1 x 1 nm" in printed
    assert sorted(path.name for path in nets.iterdir()) == sorted(f"net_{end}" for end in written)
    assert (nets / "net_log.txt").read_text().count("iteration 2: ") == 2
    assert (nets / "net_config.cfg").read_text() == (tmp_path / "python/config.cfg").read_text()
    current = (nets / "net_current.h5").read_bytes()
    earlier = (nets / "net_2.h5").read_bytes()

    for folder in ("results", "work"):  # now these networks are somebody else's
        shutil.rmtree(tmp_path / "python" / folder)
    lay_out(tmp_path, **SHORT, Max_iter="5")
    printed = znn(tmp_path, "train")
    (folder,) = results.glob("znn_*/znn_cfg")
    assert "which is at iteration 2" in printed
    history = json.loads((folder / "training.json").read_text())
    assert history["learning_curve"]["train"]["it"] == [1, 2, 3, 4, 5]
    assert history["learning_curve"]["test"]["it"] == [2, 4]
    assert (folder / "resumed.h5").read_bytes() == current
    assert (nets / "net_2.h5").read_bytes() == earlier
    assert (nets / "net_4.h5").read_bytes() == (nets / "net_current.h5").read_bytes() != current

    (folder / "model.safetensors").unlink()
    printed = znn(tmp_path, "forward")
    assert "net_current.h5 predicts; nothing is trained" in printed
    assert not (folder / "model.safetensors").exists()
    prediction = open_volume(folder / "sample2/prediction.zarr", "boundary")
    with h5py.File(nets / "out_sample2_output.h5") as file:
        values = file["main"][()]
        np.testing.assert_array_equal(values, prediction.read(prediction.box))
    np.testing.assert_allclose(values.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(tifffile.imread(nets / "out_sample2_output_1.tif"), values[1])
    assert not (nets / "out_sample1_output.h5").exists()
