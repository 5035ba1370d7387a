"""Packaged networks: what bioimage.io's own tools say of them, and the ten lines without us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import package
import tiny_elektronn
import tiny_training
from retrace import config as catalog
from retrace.checkpoints.native import save_model
from retrace.errors import ConfigError, DataError
from retrace.manifest import check_manifest
from retrace.networks import build_network
from retrace.package import FAMILIES, package_files
from retrace.single_file import _check_names, modules, single_file

pytestmark = pytest.mark.usefixtures("tiny_threads")

NEEDED = (
    "torch",
    "torchgen",
    "safetensors",
    "numpy",
    "typing_extensions",
    "sympy",
    "mpmath",
    "networkx",
)
"""Torch, safetensors and numpy, and what torch itself loads: all that the ten lines find."""
ABOUT = {"name": "tiny", "voxel_size_nm": [20, 9, 9]}


def network(name: str) -> dict[str, Any]:
    """A small U-Net, one that reads descriptors too, a network of ELEKTRONN or of ZNN."""
    if name == "unet":
        return tiny_training.network()
    if name == "autocontext":
        return tiny_training.network(name="tiny_acrlsd", input_channels=11)
    if name == "neuro3d":
        return tiny_elektronn.network()
    return catalog.network_for(name, catalog.load_dataset("vnc_nc"))


@pytest.fixture(scope="module", params=["unet", "autocontext", "n4", "neuro3d"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a package."""
    folder = tmp_path_factory.mktemp(request.param)
    chosen = network(request.param)
    save_model(folder / "model.safetensors", build_network(chosen, seed=3), {"network": chosen})
    settings = {"network": chosen, "dataset": ABOUT, "authors": ["A. Person"], "license": "MIT"}
    paths = ["--model", str(folder / "model.safetensors"), "--output", str(folder / "package")]
    package.main(["--settings", json.dumps(settings), *paths])
    return folder / "package"


def verdict(place: Path) -> tuple[str, str]:
    """The status that bioimageio.core gives a package, and all that it says of errors."""
    from bioimageio.core import test_description

    found = test_description(place, weight_format="pytorch_state_dict", determinism="full")
    return found.status, "\n".join(e.msg for d in found.details for e in d.errors)


def test_the_tools_of_bioimage_io_accept_it(packed: Path) -> None:
    status, errors = verdict(packed.with_suffix(".zip"))

    assert (status, errors) == ("passed", "")
    check_manifest(packed)


def test_the_tools_of_bioimage_io_find_other_weights(packed: Path, tmp_path: Path) -> None:
    for file in packed.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = torch.load(packed / "weights.pt", weights_only=True)
    name = next(name for name, tensor in state.items() if tensor.numel() > 1)
    torch.save({**state, name: state[name] * 1.5}, tmp_path / "weights.pt")
    status, errors = verdict(tmp_path / "rdf.yaml")

    assert status != "passed"
    assert "weights.pt" in errors or "sha256" in errors.lower()


def bare_site(folder: Path) -> Path:
    """A folder with links to the needed packages alone."""
    folder.mkdir()
    for name in NEEDED:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        origin = Path(spec.origin)
        place = origin.parent if spec.submodule_search_locations else origin
        (folder / place.name).symlink_to(place)
    libs = Path(str(distribution("numpy").locate_file("numpy.libs")))
    (folder / libs.name).symlink_to(libs)
    return folder


def test_ten_lines_give_what_the_workflow_gives(packed: Path, tmp_path: Path) -> None:
    lines = [line for line in (packed / "load.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 10
    for name in ("network.py", "config.json", "model.safetensors", "load.py", "test_input.npy"):
        (tmp_path / name).write_bytes((packed / name).read_bytes())
    site = bare_site(tmp_path / "site")
    run = subprocess.run(
        [sys.executable, "-S", "load.py", "test_input.npy", "out.npz"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert not (site / "yaml").exists() and not (site / "zarr").exists()

    config = json.loads((packed / "config.json").read_text())
    module = build_network(config["network"], seed=3).eval()
    raw = torch.from_numpy(np.load(packed / "test_input.npy"))
    grey = config["network"]["family"] == "lsd" and raw.shape[1] == 1
    with torch.inference_mode():
        expected = module(raw / 255 * 2 - 1 if grey else raw)
    with np.load(tmp_path / "out.npz") as found:
        assert set(found) == set(expected)
        for head, values in expected.items():
            np.testing.assert_allclose(found[head], values.numpy(), atol=1e-6)
            stored = np.load(packed / f"test_output_{head}.npy")
            np.testing.assert_allclose(stored, values.numpy(), atol=1e-6)
            assert values.numpy().std() > 0


def test_the_zip_holds_the_folder(packed: Path) -> None:
    with zipfile.ZipFile(packed.with_suffix(".zip")) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}

    assert inside == {file.name: file.read_bytes() for file in packed.iterdir()}


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    chosen = network("unet")
    model = save_model(tmp_path / "m.safetensors", build_network(chosen), {"network": chosen})
    first, second = (package_files(model, chosen, ABOUT, ["A"], "MIT") for _ in range(2))

    assert first == second


def test_what_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    chosen = network("unet")
    model = save_model(tmp_path / "m.safetensors", build_network(chosen), {"network": chosen})
    with pytest.raises(DataError, match="with fmaps 3; network 'tiny_mtlsd' has fmaps 4"):
        package_files(model, {**chosen, "fmaps": 4}, ABOUT, ["A"], "MIT")
    data = catalog.load_dataset("phantom")
    net = {**catalog.network_for("mtlsd_small", data), "family": "other"}
    with pytest.raises(ConfigError, match="family 'other' have no package form.*lsd, znn"):
        catalog.check_pair(data, net, "package")
    with pytest.raises(ConfigError, match="'mnist_sample' has single examples.*nothing to package"):
        catalog.check_pair(catalog.load_dataset("mnist_sample"), net, "package")
    assert set(FAMILIES) == set(catalog.PACKAGED)


def test_modules_are_joined_each_after_those_it_imports() -> None:
    names = modules("retrace.networks.znn")

    assert names.index("retrace.znn.graph") < names.index("retrace.networks.phases")
    assert names[-1] == "retrace.networks.znn"
    joined = single_file("retrace.networks.znn", "Title.")
    assert "from retrace" not in joined
    assert "# ---------------- retrace.networks.phases" in joined


def test_two_meanings_of_one_name_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"networks\.unet and retrace\.znn\.graph both define Shape"
    ):
        _check_names(["retrace.networks.unet", "retrace.znn.graph"])
