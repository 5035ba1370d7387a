"""Published TensorFlow checkpoints in our networks, against what TensorFlow itself computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convert
import tiny_training as tiny
import train
from built_networks import built
from retrace.checkpoints.published import (
    Published,
    load_moments,
    load_published,
    parameter_name,
    read_published,
    to_torch,
    variable_name,
    write_published,
)
from retrace.checkpoints.safetensors import load_model
from retrace.checkpoints.tensorflow import find_checkpoint, masked_crc32c, open_bundle
from retrace.config.any_network import of_family
from retrace.config.networks import network_by_name
from retrace.errors import DataError, StateError
from retrace.losses.weighted_mse import weighted_mse
from retrace.networks import UNet
from retrace.training.adam import make_optimizer

NETWORK = (
    network_by_name("baseline_small", (8, 8, 8))
    .with_(
        name="oracle",
        fmaps=6,
        fmap_factor=2,
        fmaps_out=6,
        downsample=[[2, 2, 2], [2, 2, 2], [3, 3, 3]],
        heads=[{"name": "affs", "channels": 3}],
    )
    .plain()
)
ADAM: dict[str, Any] = {"lr": 5e-5, "betas": [0.95, 0.999], "eps": 1e-8}


@pytest.fixture(scope="module")
def folder(shared_dir: Path) -> Path:
    return shared_dir / "oracles/lsd_tensorflow"


@pytest.fixture(scope="module")
def published(folder: Path) -> Published:
    return read_published(folder)


@pytest.fixture(scope="module")
def step(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "one_step.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def unet(published: Published) -> UNet:
    module = built(NETWORK)
    load_published(published, module, "oracle")
    return module


def after(step: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The oracle's variables after one more step, in our names."""
    named = {}
    for key, value in step.items():
        *_, layer, kind = ["", "", *key.split("/")]
        if key.startswith("after/") and (name := parameter_name(layer, kind)):
            named[name] = to_torch(value)
    return named


def test_13_a_checkpoint_file_of_another_iteration_is_refused(folder: Path) -> None:
    assert "500000" in (folder / "checkpoint").read_text()
    assert find_checkpoint(folder)[1] == 2
    assert read_published(folder).iteration == 2


def test_same_outputs_as_the_tensorflow_graph(unet: UNet, step: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        ours = unet(torch.from_numpy(step["raw"])[None, None])["affs"][0].numpy()
    difference = float(np.abs(ours - step["out_affs"]).max())
    print(f"largest difference from TensorFlow: {difference:.1e}")
    assert ours.std() > 1e-4  # not constant, so that agreement means something
    assert difference < 1e-5


def test_one_more_step_equals_tensorflows(
    unet: UNet, published: Published, step: dict[str, np.ndarray]
) -> None:
    optimizer = make_optimizer(unet, **ADAM)
    assert load_moments(published, unet, optimizer)
    outputs = unet(torch.from_numpy(step["raw"])[None, None])["affs"][0]
    target, weight = torch.from_numpy(step["gt_affs"]), torch.from_numpy(step["weight_affs"])
    loss = weighted_mse(outputs, target, weight)
    loss.backward()
    optimizer.step()
    assert float(loss.detach()) == pytest.approx(float(step["loss"]), rel=1e-5)
    expected = after(step)
    before = published.weights
    for name, parameter in unet.named_parameters():
        moved = float((expected[name] - before[name]).abs().max())
        wrong = float((parameter.detach() - expected[name]).abs().max())
        assert wrong <= max(2e-7, 0.02 * moved), f"{name}: moved {moved:.1e}, wrong by {wrong:.1e}"


def test_every_variable_of_a_foreign_checkpoint_reads(shared_dir: Path) -> None:
    bundle = open_bundle(shared_dir / "data/ffn_fib25_checkpoint/model.ckpt-27465036")
    assert int(bundle.read("global_step")) == 27465036
    assert bundle.read("seed_update/conv0_a/weights").shape == (3, 3, 3, 2, 32)
    total = sum(bundle.read(name).nbytes for name in bundle.entries)
    assert total == bundle.data_file(0).stat().st_size
    with pytest.raises(DataError, match="did you mean 'global_step'"):
        bundle.read("global_steps")


def test_ffn_is_no_network_of_this_family(shared_dir: Path, tmp_path: Path) -> None:
    for file in (shared_dir / "data/ffn_fib25_checkpoint").iterdir():
        name = file.name.replace("model.ckpt-27465036", "train_net_checkpoint_1")
        shutil.copy(file, tmp_path / name.replace("-00000-of", "-00000-of"))
    with pytest.raises(DataError, match="no network of the LSD family"):
        read_published(tmp_path)


STEM = "train_net_checkpoint_2"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (".index", Path.unlink, "no checkpoint"),
        (".index", truncate, "index cannot be read"),
        (".index", damage, "checksum"),
        (".data-00000-of-00001", Path.unlink, "is missing"),
        (".data-00000-of-00001", truncate, r"truncated: \d+ of \d+ bytes"),
        (".data-00000-of-00001", damage, "damaged"),
    ],
)
def test_a_broken_checkpoint_is_named(
    folder: Path, tmp_path: Path, part: str, change: Callable[[Path], Any], message: str
) -> None:
    for file in folder.glob(f"{STEM}*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    change(tmp_path / f"{STEM}{part}")
    with pytest.raises(DataError, match=message):
        read_published(tmp_path)


def test_a_renamed_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob(f"{STEM}.*"):
        (tmp_path / file.name.replace("_2.", "_500000.")).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="contains iteration 2"):
        read_published(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fmaps": 12}, r"heads.affs.weight is \(3, 6, 1, 1, 1\) there"),
        ({"heads": [{"name": "lsds", "channels": 10}]}, "heads.affs"),
        ({"fmaps_out": 14}, "fmaps_out"),
    ],
)
def test_another_network_is_refused(
    published: Published, change: dict[str, Any], message: str
) -> None:
    other = built(NETWORK | change)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(DataError, match=message):
        load_published(published, other, "other")
    assert all(torch.equal(before[n], v) for n, v in other.state_dict().items())


def test_masked_crc32c_of_the_standard_vector() -> None:
    # RFC 3720, B.4: CRC-32C of "123456789" is 0xE3069283; the mask is LevelDB's.
    crc = 0xE3069283
    expected = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == expected


def test_03_permuted_kernels_give_the_same_convolution() -> None:
    """Both kinds of kernel against loops over numpy arrays: input and output are not swapped."""
    rng = np.random.default_rng(0)
    x = rng.random((2, 4, 4, 4), dtype=np.float32)
    kernel = rng.random((3, 3, 3, 2, 5), dtype=np.float32)  # z, y, x, in, out
    ours = torch.nn.functional.conv3d(torch.from_numpy(x)[None], to_torch(kernel))[0].numpy()
    for place in np.ndindex(2, 2, 2):
        window = x[(slice(None), *(slice(p, p + 3) for p in place))]
        expected = np.einsum("czyx,zyxcd->d", window, kernel)
        np.testing.assert_allclose(ours[(slice(None), *place)], expected, rtol=1e-5)
    up = rng.random((1, 2, 2, 5, 2), dtype=np.float32)  # z, y, x, out, in
    weight = to_torch(up)
    raised = torch.nn.functional.conv_transpose3d(
        torch.from_numpy(x)[None], weight, stride=(1, 2, 2)
    )[0].numpy()
    expected = np.einsum("czyx,dhwoc->ozdyhxw", x, up).reshape(5, 4, 8, 8)
    np.testing.assert_allclose(raised, expected, rtol=1e-5)


# ---------------------------------------------------------------- used by the programs

TINY = tiny.network(name="tiny_affs", heads=[{"name": "affs", "channels": 3}], lsd=None)


@pytest.fixture
def tiny_checkpoint(tmp_path: Path) -> tuple[Path, UNet]:
    """A checkpoint of 30 iterations of a tiny network, written as the original does."""
    folder = tmp_path / "checkpoints"
    module = built(TINY, seed=11)
    optimizer = make_optimizer(module, **{key: TINY["optimizer"][key] for key in ADAM})
    for _ in range(2):
        optimizer.zero_grad()
        module(torch.rand(1, 1, 24, 24, 24))["affs"].sum().backward()
        optimizer.step()
    write_published(folder, module, 30, scope="setup07", optimizer=optimizer)
    (folder / "checkpoint").write_text('model_checkpoint_path: "train_net_checkpoint_500000"\n')
    return folder, module


def test_names_translate_both_ways() -> None:
    network = NETWORK | {"heads": [*NETWORK["heads"], {"name": "lsds", "channels": 10}]}
    for name in built(network, device="meta").state_dict():
        assert parameter_name(*variable_name(name).split("/")) == name


def test_the_original_checkpoint_is_written_again_identically(
    published: Published, folder: Path, unet: UNet, tmp_path: Path
) -> None:
    optimizer = make_optimizer(unet, **ADAM)
    load_moments(published, unet, optimizer)
    prefix = write_published(tmp_path, unet, published.iteration, optimizer=optimizer)
    ours, theirs = open_bundle(prefix), open_bundle(folder / STEM)
    assert set(ours.entries) == set(theirs.entries)
    for name in ours.entries:
        np.testing.assert_allclose(ours.read(name), theirs.read(name), rtol=1e-6)


def test_convert_and_predict_with_published_weights(
    tiny_checkpoint: tuple[Path, UNet], tmp_path: Path
) -> None:
    folder, module = tiny_checkpoint
    model = tmp_path / "published.safetensors"
    settings = json.dumps({"dataset": "tiny", "network": TINY})
    convert.main(["--settings", settings, "--checkpoint", str(folder), "--output", str(model)])
    again = built(TINY, seed=0)
    metadata = load_model(model, again, of_family(TINY))
    assert metadata["iteration"] == 30
    assert metadata["source"]["checkpoint"] == "train_net_checkpoint_30"
    assert all(
        torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True)
    )


def test_training_continues_from_published_weights(
    tiny_checkpoint: tuple[Path, UNet], tmp_path: Path
) -> None:
    folder, module = tiny_checkpoint
    store = tiny.write_volume(tmp_path / "cube.zarr")
    more = ("--published", str(folder))
    with pytest.raises(StateError, match="already at iteration 30, beyond the 5"):
        train.main(tiny.arguments(tmp_path / "a", tiny.settings(store, 5, network=TINY), *more))
    still = tmp_path / "b"
    train.main(tiny.arguments(still, tiny.settings(store, 30, network=TINY), *more))
    left = built(TINY, seed=0)
    assert load_model(still / "model.safetensors", left, of_family(TINY))["loss"] is None
    assert all(
        torch.equal(a, b) for a, b in zip(module.parameters(), left.parameters(), strict=True)
    )
    for iterations in (31, 33):
        train.main(tiny.arguments(still, tiny.settings(store, iterations, network=TINY), *more))
    whole = tmp_path / "c"
    train.main(tiny.arguments(whole, tiny.settings(store, 33, network=TINY), *more))
    one, other = (f / "model.safetensors" for f in (still, whole))
    assert one.read_bytes() == other.read_bytes()
    history = json.loads((whole / "training.json").read_text())["history"]
    assert [row["iteration"] for row in history] == [31, 32, 33]
    state = torch.load(sorted(whole.glob("work/*/state_*.pt"))[-1], weights_only=True)
    assert {float(m["step"]) for m in state["optimizer"]["state"].values()} == {33.0}
