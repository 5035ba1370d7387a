"""Our networks against TensorFlow itself, in the stand-in for the legacy image."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from built_networks import built
from conftest import Apptainer
from legacy_batches import write_batch, write_message
from retrace.checkpoints.published import (
    Published,
    load_moments,
    load_published,
    read_published,
)
from retrace.config import datasets
from retrace.config import networks as config_networks
from retrace.losses.weighted_mse import weighted_mse
from retrace.networks import UNet
from retrace.training.adam import make_optimizer

pytestmark = [pytest.mark.container, pytest.mark.timeout(2400)]

NETWORKS = ("baseline", "long_range", "malis", "mtlsd", "lsd", "aclsd", "acrlsd")
NARROW = {"fmaps": 3, "fmap_factor": 2, "fmaps_out": 4}
LARGEST_DIFFERENCE = 1e-5


PROGRAM = """
import json, os, sys
import train, predict
def job(**inputs):
    return json.dumps({"inputs": inputs})
for folder in sys.argv[1:]:
    for name in ("first", "second"):
        if os.path.exists(folder + "/" + name + ".stream"):
            train.main(["--job", job(batches=folder + "/" + name + ".stream"),
                        "--work", folder + "/work", "--output", folder + "/" + name,
                        "--history", folder + "/" + name + ".json"])
    predict.main(["--job", job(tiles=folder + "/input", checkpoint=folder + "/first"),
                  "--work", folder + "/work", "--output", folder + "/out"])
"""


@dataclass(frozen=True)
class Case:
    """A network, TensorFlow's working folder, and the loss of its second step."""

    network: dict[str, Any]
    folder: Path
    second: dict[str, np.ndarray]

    @property
    def loss(self) -> float:
        history = json.loads((self.folder / "second.json").read_text())["history"]
        assert [row["iteration"] for row in history] == [1, 2]
        return float(history[1]["loss"])


def network_of(name: str, **changes: Any) -> dict[str, Any]:
    """A network of the zebra finch with the smallest input, and `changes`."""
    network = config_networks.network_for(name, datasets.load_dataset("zfinch")).plain() | changes
    shape = list(built(network, device="meta").valid_shape((1, 1, 1)))
    return network | {"input_shape": shape, "inference_shape": shape}


def make_batch(network: dict[str, Any], iteration: int) -> dict[str, np.ndarray]:
    """Random input, targets and weights (a third of them 0) under the names of a batch."""
    draw = np.random.default_rng(iteration).random
    module = built(network, device="meta")
    shape = (network["input_channels"], *network["input_shape"])
    arrays = {"raw": draw(shape, dtype=np.float32) * 2 - 1}
    for head in network["heads"]:
        output = (head["channels"], *module.output_shape(network["input_shape"]))
        weight = draw(output, dtype=np.float32)
        arrays[f"gt_{head['name']}"] = draw(output, dtype=np.float32)
        arrays[f"weight_{head['name']}"] = np.where(weight < 1 / 3, 0, weight)
    return arrays


def write_stream(
    path: Path, network: dict[str, Any], first: int, batch: dict[str, np.ndarray]
) -> None:
    """What legacy_batches.py would send for iteration `first` + 1."""
    header = {
        **{"dataset": "random", "network": network, "seed": 0, "folder": "net", "every": 1000},
        **{"first": first, "last": first + 1},
    }
    with path.open("wb") as file:
        write_message(file, json.dumps(header).encode())
        write_batch(file, batch)


def write_input(folder: Path, network: dict[str, Any], block: np.ndarray) -> None:
    """One tile as legacy_arrays.py prepares it, with unchanged values."""
    folder.mkdir()
    output = list(built(network, device="meta").output_shape(network["input_shape"]))
    plan = {
        "network": network,
        "heads": {head["name"]: head["channels"] for head in network["heads"]},
        **{"dtype": "float32", "raw_channels": 0, "window_shape": network["input_shape"]},
        **{"core_shape": output, "output_shape": output, "tiles": [[0, 0, 0]]},
    }
    np.save(folder / "input.npy", block)
    (folder / "plan.json").write_text(json.dumps(plan))


@pytest.fixture(scope="module")
def cases(
    apptainer: Apptainer, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Case]:
    """Every network, initialised and trained for two steps by TensorFlow; one at full width."""
    top = tmp_path_factory.mktemp("legacy")
    networks = {name: network_of(name, **NARROW) for name in NETWORKS}
    networks["full width"] = network_of("mtlsd")
    by_name = {}
    for name, network in networks.items():
        folder = top / name.replace(" ", "_")
        folder.mkdir()
        first, second = (make_batch(network, iteration) for iteration in (0, 1))
        write_stream(folder / "first.stream", network, 0, first)
        if name in NETWORKS:  # at full width, only the outputs of one step are compared
            write_stream(folder / "second.stream", network, 1, second)
        write_input(folder / "input", network, first["raw"])
        by_name[name] = Case(network, folder, second)
    scripts = repository / "workflow" / "scripts" / "legacy"
    folders = [case.folder for case in by_name.values()]
    command = [apptainer.program, "exec", "--bind", f"{scripts},{top}", "--pwd", scripts]
    done = subprocess.run(
        [*command, apptainer.image("standin"), "python", "-c", PROGRAM, *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return by_name


def filled(published: Published, network: dict[str, Any]) -> UNet:
    module = built(network, seed=1)
    load_published(published, module, network["name"])
    return module


def check_outputs(module: UNet, case: Case) -> None:
    with torch.no_grad():
        ours = module(torch.from_numpy(np.load(case.folder / "input" / "input.npy"))[None])
    for head, values in ours.items():
        theirs = np.load(case.folder / "out" / f"{head}.npy")
        difference = float(np.abs(values[0].numpy() - theirs).max())
        print(f"{case.folder.name} {head}: largest difference from TensorFlow {difference:.1e}")
        assert theirs.std() > 1e-4
        assert difference < LARGEST_DIFFERENCE


@pytest.mark.parametrize("name", NETWORKS)
def test_same_outputs_as_tensorflow(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    check_outputs(filled(read_published(case.folder / "first"), case.network), case)


def test_same_outputs_at_full_width(cases: dict[str, Case]) -> None:
    case = cases["full width"]
    published = read_published(case.folder / "first")
    assert sum(weight.numel() for weight in published.weights.values()) == 95_856_355
    check_outputs(filled(published, case.network), case)


@pytest.mark.parametrize("name", NETWORKS)
def test_same_next_step_as_tensorflow(cases: dict[str, Case], name: str) -> None:
    """Loss, weights and both moments of Adam after one step from an imported checkpoint."""
    case = cases[name]
    before, after = (read_published(case.folder / part) for part in ("first", "second"))
    assert (before.iteration, after.iteration) == (1, 2)
    module = filled(before, case.network)
    adam = case.network["optimizer"]
    optimizer = make_optimizer(module, lr=adam["lr"], betas=adam["betas"], eps=adam["eps"])
    assert load_moments(before, module, optimizer)
    loss = loss_of(module, case.second)
    loss.backward()
    optimizer.step()
    assert float(loss.detach()) == pytest.approx(case.loss, abs=2e-6)
    rate = case.network["optimizer"]["lr"]
    for key, parameter in module.named_parameters():
        wrong = (parameter.detach() - after.weights[key]).abs()
        # Where a gradient is rounding noise Adam still takes a whole step: few weights may differ.
        assert wrong.max() <= 2 * rate
        assert wrong.mean() <= 0.01 * rate
        for moment in ("exp_avg", "exp_avg_sq"):
            ours, theirs = optimizer.state[parameter][moment], after.moments[key][moment]
            # Outputs of random weights are nearly constant, and so is their rounding error: it adds
            # up over voxels, where errors of the prediction itself cancel.
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=0.02 * float(theirs.abs().max()))


def loss_of(module: UNet, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """The sum of the heads' losses on a batch that was written for TensorFlow."""
    arrays = {key: torch.from_numpy(values) for key, values in batch.items()}
    outputs = module(arrays["raw"][None])
    terms = [
        weighted_mse(values[0], arrays[f"gt_{head}"], arrays[f"weight_{head}"])
        for head, values in outputs.items()
    ]
    return torch.stack(terms).sum()
