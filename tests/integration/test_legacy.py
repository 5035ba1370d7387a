"""Our networks against TensorFlow itself, in the stand-in for the legacy image."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import Apptainer
from retrace import config as catalog
from retrace.checkpoints.published import (
    Published,
    load_moments,
    load_published,
    read_published,
)
from retrace.losses.weighted import weighted_mse
from retrace.networks import UNet, build_network
from retrace.training.loop import make_optimizer

pytestmark = [pytest.mark.container, pytest.mark.timeout(2400)]

NETWORKS = ("baseline", "long_range", "malis", "mtlsd", "lsd", "aclsd", "acrlsd")
NARROW = {"fmaps": 3, "fmap_factor": 2, "fmaps_out": 4}
LARGEST_DIFFERENCE = 1e-5


@pytest.fixture(scope="session")
def standin(apptainer: Apptainer) -> Path:
    return apptainer.image("standin")


@pytest.fixture
def legacy(apptainer: Apptainer, standin: Path, repository: Path) -> Callable[..., str]:
    """Runs programs of workflow/scripts/legacy inside the image, one after the other."""
    scripts = repository / "workflow" / "scripts" / "legacy"

    def run(*lines: str, folder: Path) -> str:
        program = " && ".join(f"python {scripts}/{line}" for line in lines)
        binds = f"{scripts},{folder}"
        command = [apptainer.program, "exec", "--bind", binds, "--pwd", folder, standin]
        done = subprocess.run(
            [*command, "bash", "-c", program], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


def network_of(name: str, **changes: Any) -> dict[str, Any]:
    """A network of the zebra finch with the smallest input, and `changes`."""
    network = catalog.network_for(name, catalog.load_dataset("zfinch")) | changes
    shape = list(build_network(network, device="meta").valid_shape((1, 1, 1)))
    return network | {"input_shape": shape, "inference_shape": shape}


def write_batch(folder: Path, network: dict[str, Any], iteration: int) -> dict[str, np.ndarray]:
    """Random input, targets and weights (a third of them 0) under the names of a batch."""
    draw = np.random.default_rng(iteration).random
    module = build_network(network, device="meta")
    shape = (network["input_channels"], *network["input_shape"])
    arrays = {"raw": draw(shape, dtype=np.float32) * 2 - 1}
    for head in network["heads"]:
        output = (head["channels"], *module.output_shape(network["input_shape"]))
        weight = draw(output, dtype=np.float32)
        arrays[f"gt_{head['name']}"] = draw(output, dtype=np.float32)
        arrays[f"weight_{head['name']}"] = np.where(weight < 1 / 3, 0, weight)
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"batch_{iteration:09d}.npz", **arrays)
    return arrays


def started(legacy: Callable[..., str], folder: Path, network: dict[str, Any]) -> Published:
    """What TensorFlow has after one step, and in out.npz what it then predicts of block.npy."""
    (folder / "network.json").write_text(json.dumps(network))
    first = write_batch(folder / "batches", network, 0)
    np.save(folder / "block.npy", first["raw"])
    legacy(
        "mknet.py --settings network.json --output net",
        "train.py --net net --batches batches --iterations 1",
        "predict.py --net net --raw block.npy --output out.npz",
        folder=folder,
    )
    return read_published(folder / "net")


def filled(found: Published, network: dict[str, Any]) -> UNet:
    module = build_network(network, seed=1)
    load_published(found, module, network["name"])
    return module


def check_outputs(module: UNet, folder: Path, name: str) -> None:
    with torch.no_grad():
        ours = module(torch.from_numpy(np.load(folder / "block.npy"))[None])
    with np.load(folder / "out.npz") as theirs:
        assert set(theirs) == set(ours)
        for head, values in ours.items():
            difference = float(np.abs(values[0].numpy() - theirs[head]).max())
            print(f"{name} {head}: largest difference from TensorFlow {difference:.1e}")
            assert theirs[head].std() > 1e-4
            assert difference < LARGEST_DIFFERENCE


@pytest.mark.parametrize("name", NETWORKS)
def test_same_outputs_and_same_next_step_as_tensorflow(
    legacy: Callable[..., str], tmp_path: Path, name: str
) -> None:
    network = network_of(name, **NARROW)
    before = started(legacy, tmp_path, network)
    module = filled(before, network)
    check_outputs(module, tmp_path, name)

    batch = write_batch(tmp_path / "batches", network, 1)
    printed = legacy("train.py --net net --batches batches --iterations 2", folder=tmp_path)
    optimizer = make_optimizer(module, network["optimizer"])
    assert load_moments(before, module, optimizer)
    outputs = module(torch.from_numpy(batch["raw"])[None])
    terms = [
        weighted_mse(
            values[0],
            torch.from_numpy(batch[f"gt_{head}"]),
            torch.from_numpy(batch[f"weight_{head}"]),
        )
        for head, values in outputs.items()
    ]
    loss = torch.stack(terms).sum()
    loss.backward()
    optimizer.step()
    assert float(loss.detach()) == pytest.approx(float(printed.split("loss")[1]), abs=2e-6)
    after = read_published(tmp_path / "net")
    assert after.iteration == 2
    rate = network["optimizer"]["lr"]
    for key, parameter in module.named_parameters():
        wrong = (parameter.detach() - after.weights[key]).abs()
        # Where a gradient is rounding noise Adam still takes a whole step: few weights may differ.
        assert wrong.max() <= 2 * rate
        assert wrong.mean() <= 0.01 * rate
        for moment in ("exp_avg", "exp_avg_sq"):
            ours, theirs = optimizer.state[parameter][moment], after.moments[key][moment]
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_same_outputs_at_full_width(legacy: Callable[..., str], tmp_path: Path) -> None:
    network = network_of("mtlsd")
    found = started(legacy, tmp_path, network)
    assert sum(weight.numel() for weight in found.weights.values()) == 95_856_355
    check_outputs(filled(found, network), tmp_path, "mtlsd, full width")
