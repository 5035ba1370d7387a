"""Packaged networks: checked with bioimage.io's tools, and used without the workflow."""

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
import tiny_digits
import tiny_elektronn
import tiny_seamless
import tiny_training
from built_networks import built
from retrace.alignment.prepare import prepare_sections, valid_mask
from retrace.checkpoints.safetensors import save_model
from retrace.config import compatibility, datasets, families, networks
from retrace.config.any_network import of_family, stored_network
from retrace.config.network_settings import DatasetTraits
from retrace.errors import ConfigError, DataError
from retrace.networks.seamless import FieldOptions
from retrace.packaging.bioimageio import package_files
from retrace.packaging.family import FamilyPackage
from retrace.packaging.single_file import _check_names, modules, single_file
from retrace.planning.align import aligned_voxel_nm
from retrace.planning.package_settings import PackageSettings
from retrace.settings_model import as_json
from retrace.storage.manifest import check_manifest

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


SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"nof_filters": [4], "MLP_layers": [12]},
    "autoencoder": {
        "mode": "vect-scalar",
        "desired_input": 144,
        "shift_augment": False,
        "MLP_layers": [20, 5],
        "activation_func": "tanh",
        "autoencoder": {"activation_func": "tanh", "input_noise": 0.3},
    },
}
"""Networks of single examples."""
METADATA = {"input_mean": 0.1306}
"""What the images of a training lose."""


def plain(chosen: Any) -> dict[str, Any]:
    """The settings of a network as JSON values."""
    content: dict[str, Any] = json.loads(as_json(chosen))
    return content


PREDICTION = {"inference_shape": [24, 24, 24], "predict_padding": "valid", "iterations": 8}
"""Settings that the tiny U-Nets of trainings lack."""


def network(name: str) -> Any:
    """A small U-Net, one that reads descriptors too, networks of ELEKTRONN, ZNN and SEAMLeSS."""
    if name == "unet":
        return stored_network(tiny_training.network(**PREDICTION))
    if name == "autocontext":
        changes = {"name": "tiny_acrlsd", "input_channels": 11}
        return stored_network(tiny_training.network(**PREDICTION, **changes))
    if name == "neuro3d":
        return tiny_elektronn.network()
    if name == "seamless":
        changes = {"zero_start": False, "contrast": {"method": "equalise"}}
        return stored_network(plain(tiny_seamless.network(**changes)))
    if name in SMALL:
        left_out = ("filters", "pool", "nof_filters", "n_dim") if name != "cnn" else ()
        kept = {k: v for k, v in tiny_digits.NETWORK.items() if k not in left_out}
        content = {**kept, "n_lab": 3, **SMALL[name]}
        return networks.resolved(content, DatasetTraits(), name)
    return networks.network_for(name, datasets.load_dataset("vnc_nc"))


def packaged(chosen: dict[str, Any]) -> Any:
    """The module of the package of this network; the same weights at every call."""
    builder = families.family_of(chosen).load("package").builder
    return builder.build(**builder.arguments(of_family(chosen)), seed=3)


def about(chosen: Any) -> dict[str, Any]:
    """The dataset; single examples have no voxels."""
    content = plain(chosen)
    examples = content.get("family") == "elektronn" and content["mode"] != "img-img"
    return {"name": "tiny"} if examples else ABOUT


def settings_of(chosen: Any) -> PackageSettings:
    """Settings of a package of a network."""
    content = {"network": plain(chosen), "dataset": about(chosen)}
    return PackageSettings.model_validate({**content, "authors": ["A"], "license": "MIT"})


@pytest.fixture(
    scope="module",
    params=["unet", "autocontext", "n4", "neuro3d", "seamless", *SMALL],
)
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a package."""
    folder = tmp_path_factory.mktemp(request.param)
    chosen = network(request.param)
    metadata = {"network": chosen, **(METADATA if request.param in SMALL else {})}
    save_model(folder / "model.safetensors", packaged(chosen), metadata)
    experiment = {"network": chosen, "dataset": about(chosen)}
    settings = {**experiment, "authors": ["A. Person"], "license": "MIT"}
    paths = ["--model", str(folder / "model.safetensors"), "--output", str(folder / "package")]
    package.main(["--settings", as_json(settings), *paths])
    return folder / "package"


def verdict(place: Path) -> tuple[str, str]:
    """The status of a package according to bioimageio.core, and its error messages."""
    from bioimageio.core import test_description

    summary = test_description(place, weight_format="pytorch_state_dict", determinism="full")
    return summary.status, "\n".join(e.msg for d in summary.details for e in d.errors)


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


def test_ten_lines_of_python_reproduce_the_workflow(packed: Path, tmp_path: Path) -> None:
    lines = [line for line in (packed / "load.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 10
    for name in ("network.py", "config.json", "model.safetensors", "load.py"):
        (tmp_path / name).write_bytes((packed / name).read_bytes())
    tests = sorted(path.name for path in packed.glob("test_input*.npy"))  # source before target
    for name in tests:
        (tmp_path / name).write_bytes((packed / name).read_bytes())
    site = bare_site(tmp_path / "site")
    run = subprocess.run(
        [sys.executable, "-S", "load.py", *tests, "out.npz"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert not (site / "yaml").exists() and not (site / "zarr").exists()

    config = json.loads((packed / "config.json").read_text())
    module = packaged(stored_network(config["network"])).eval()
    read = [torch.from_numpy(np.load(packed / name)) for name in tests]
    if config["network"]["family"] == "lsd" and read[0].shape[1] == 1:
        read = [read[0] / 255 * 2 - 1]
    elif "voxel_size_nm" not in config["dataset"]:
        read = [read[0] / 255 - METADATA["input_mean"]]
    with torch.inference_mode():
        expected = module(*read)
    with np.load(tmp_path / "out.npz") as outputs:
        assert set(outputs) == set(expected)
        for head, values in expected.items():
            np.testing.assert_allclose(outputs[head], values.numpy(), atol=1e-6)
            stored = np.load(packed / f"test_output_{head}.npy")
            np.testing.assert_allclose(stored, values.numpy(), atol=1e-6)
            assert values.numpy().std() > 0


def test_the_readme_says_how_images_became_grey_values(tmp_path: Path) -> None:
    chosen = network("unet")
    dataset = {**ABOUT, "normalize": [{"range": [1024, 40960], "invert": True}]}
    settings = settings_of(chosen).with_(dataset=dataset)
    model = save_model(tmp_path / "m.safetensors", packaged(chosen), {"network": plain(chosen)})

    places = ["--model", str(model), "--output", str(tmp_path / "package")]
    package.main(["--settings", as_json(settings), *places])

    readme = (tmp_path / "package" / "README.md").read_text()
    assert "`normalize: {range: [1024, 40960], invert: true}`" in readme


def test_the_zip_holds_the_folder(packed: Path) -> None:
    with zipfile.ZipFile(packed.with_suffix(".zip")) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}

    assert inside == {file.name: file.read_bytes() for file in packed.iterdir()}


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    chosen = network("unet")
    model = save_model(tmp_path / "m.safetensors", built(chosen), {"network": chosen})
    first, second = (package_files(model, settings_of(chosen)) for _ in range(2))

    assert first == second


def test_unsupported_experiments_are_not_packed(tmp_path: Path) -> None:
    chosen = network("unet")
    model = save_model(tmp_path / "m.safetensors", built(chosen), {"network": chosen})
    with pytest.raises(DataError, match="with fmaps 3; network 'tiny_mtlsd' has fmaps 4"):
        package_files(model, settings_of({**plain(chosen), "fmaps": 4}))
    with pytest.raises(ConfigError, match="'tiny_mtlsd': family 'other'; allowed: elektronn, lsd"):
        settings_of({**plain(chosen), "family": "other"})
    digits = network("cnn")
    model = save_model(tmp_path / "d.safetensors", packaged(digits), {"network": digits})
    with pytest.raises(DataError, match="without the mean of their training images"):
        package_files(model, settings_of(digits))
    for family in families.FAMILIES.values():
        assert isinstance(family.load("package"), FamilyPackage)


def test_the_packaged_field_is_that_of_the_workflow() -> None:
    chosen = network("seamless")
    module = packaged(chosen).eval()
    pyramid = built(chosen)
    pyramid.load_state_dict(module.state_dict())
    sections = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0)).mul(255).round()
    sections[1, :, 20:30, 20:30] = 0  # nothing was imaged
    settings = tiny_seamless.typed(chosen)
    radius_px, fill = settings.contrast.equalised_radius_px, settings.input.mean
    prepared = [
        prepare_sections(s / 255, valid_mask(s / 255), radius_px=radius_px, fill=fill)[1][None]
        for s in sections
    ]
    with torch.inference_mode():
        expected = pyramid.field(*prepared, FieldOptions(flip_average=True))
        field = module(sections[:1], sections[1:])["field"]
    assert float(expected.abs().max()) > 0.01
    torch.testing.assert_close(field, expected)


def test_pixels_are_those_of_the_mip_that_is_aligned() -> None:
    data = datasets.load_dataset("vnc_nc")
    net = networks.network_for("seamless_small", data)
    assert list(aligned_voxel_nm(data, net)) == [50, 18.4, 18.4]
    assert list(aligned_voxel_nm(data, net.with_(align=net.align.with_(mip=1)))) == [50, 9.2, 9.2]
    assert list(aligned_voxel_nm(data, net.with_(align=net.align.with_(mip=0)))) == [50, 4.6, 4.6]


def test_networks_of_examples_and_of_sections_are_packed() -> None:
    digits, sections = datasets.load_dataset("mnist_sample"), datasets.load_dataset("vnc_nc")
    compatibility.check_pair(digits, networks.network_for("standalone", digits), "package")
    compatibility.check_pair(sections, networks.network_for("seamless_small", sections), "package")


def test_modules_are_joined_each_after_those_it_imports() -> None:
    names = modules("retrace.networks.znn")

    assert names.index("retrace.znn.graph") < names.index("retrace.networks.phases")
    assert names[-1] == "retrace.networks.znn"
    joined = single_file("retrace.networks.znn", "Title.")
    assert "\nfrom retrace" not in joined  # inside `try:` a package does without
    assert "# ---------------- retrace.networks.phases" in joined


def test_two_meanings_of_one_name_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"networks\.unet and retrace\.znn\.graph both define Shape"
    ):
        _check_names(["retrace.networks.unet", "retrace.znn.graph"])
