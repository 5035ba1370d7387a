"""Predictions on a CPU are computed by OpenVINO; torch computes what OpenVINO does not."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import predict
from built_networks import built
from prediction_case import Case, make_case, tiny_network
from retrace.config.datasets import load_dataset
from retrace.config.networks import network_for
from retrace.errors import DataError
from retrace.geometry import VoxelBox
from retrace.inference import forward
from retrace.inference.forward import OpenvinoForward, choose_forward
from retrace.inference.predictor import Predictor
from retrace.inference.tiles import tile_for
from retrace.networks import cpu_engine
from retrace.networks.cpu_engine import EngineError, obstacle
from retrace.networks.value_bounds import largest_sum
from retrace.storage.manifest import read_manifest

pytestmark = [
    pytest.mark.usefixtures("tiny_threads"),
    pytest.mark.skipif(obstacle(nn.Identity()) is not None, reason="no OpenVINO here"),
]
CPU = torch.device("cpu")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return make_case(tmp_path)


def _library(case: Case) -> str:
    library: str = read_manifest(case.output)["library"]
    return library


def _affs(case: Case) -> np.ndarray:
    return np.asarray(zarr.open(case.output, mode="r")["affs"][...])


def test_a_prediction_by_openvino_is_torchs(case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    predict.main(case.arguments(dtype="float32"))
    ours = _affs(case)
    assert _library(case).startswith("openvino 20")
    predict.main(case.arguments(dtype="float32", cpu_library="torch"))

    assert _library(case) == f"torch {torch.__version__}"
    assert ours.std() > 0.05
    np.testing.assert_allclose(ours, _affs(case), atol=2e-6)
    assert "computed by torch" not in capfd.readouterr().out


@pytest.mark.parametrize("change", [{"compile": True}, {"cpu_library": "torch"}])
def test_settings_choose_torch(change: dict[str, object]) -> None:
    arguments = {"compiled": change.get("compile") is True}
    library = str(change.get("cpu_library", "auto"))

    chosen = choose_forward(tiny_network(), CPU, cpu_library=library, **arguments)
    assert not isinstance(chosen, OpenvinoForward)


def test_without_openvino_torch_predicts_and_a_line_says_why(
    case: Case, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_engine, "_import_error", lambda: "OpenVINO cannot be imported (x)")
    predict.main(case.arguments())

    line = "[predict] computed by torch, not OpenVINO: OpenVINO cannot be imported (x)\n"
    assert capfd.readouterr().out.count(line) == 1
    assert _library(case).startswith("torch")


def test_an_error_of_openvino_leaves_the_rest_to_torch(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny_network()
    chosen = choose_forward(network, CPU)
    assert chosen.library.startswith("openvino")

    def fail(*_: object) -> None:
        raise EngineError("no such instruction")

    monkeypatch.setattr(forward.CpuEngine, "in_place", fail)
    x = torch.rand(1, 1, *network.valid_shape((2, 4, 4)))
    with torch.inference_mode():
        outputs = [chosen(x)["affs"], chosen(x)["affs"]]
        assert torch.allclose(outputs[0], network(x)["affs"], atol=2e-6)
    assert chosen.library.startswith("torch")
    assert capfd.readouterr().out.count("no such instruction") == 1


class _Overflows(nn.Module):
    """Infinite between neighbouring pixels that differ much, NaN after the next layer."""

    stride, context = (1, 1, 1), (0, 0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 2, (1, 1, 3))
        self.second, self.last = nn.Conv3d(2, 2, 1), nn.Conv3d(2, 1, 1)
        with torch.no_grad():
            for part in (self.first, self.second, self.last):
                part.weight.fill_(1)
                part.bias.zero_()
            self.first.weight[...] = torch.tensor([-1e20, 1e20, 0])
            self.second.weight.mul_(1e20)
            self.last.weight[0, 1] = -1

    def valid_shape(self, output: tuple[int, int, int]) -> tuple[int, int, int]:
        return (output[0], output[1], output[2] + 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"affs": torch.relu(self.last(torch.relu(self.second(torch.relu(self.first(x))))))}


def test_values_that_overflow_for_some_images_are_seen(capfd: pytest.CaptureFixture[str]) -> None:
    """Smooth images, such as the one with which OpenVINO records a pass, give finite values."""
    network = _Overflows().eval()
    smooth, rough = (
        torch.linspace(-1e-3, 1e-3, 16).reshape(1, 1, 1, 1, 16),
        torch.ones(1, 1, 1, 1, 16),
    )
    rough[..., ::2] = -1
    assert bool(network(smooth)["affs"].isfinite().all())
    chosen = choose_forward(network, CPU)
    predictor = Predictor(network, CPU, heads=("affs",), forward=chosen)
    core = VoxelBox((0, 0, 1), (1, 1, 14))
    with pytest.raises(DataError, match="predicts NaN"):
        predictor(tile_for(network, core), (rough[0] + 1) / 2)
    assert capfd.readouterr().out.count("values may overflow") == 1


def test_larger_inputs_are_computed_by_openvino_only_if_nothing_overflows() -> None:
    network = tiny_network()
    chosen = choose_forward(network, CPU)
    x = torch.rand(1, 1, *network.valid_shape((2, 4, 4)))
    for factor, library in ((1, "openvino"), (1e6, "openvino"), (1e34, "torch")):
        with torch.inference_mode():
            chosen(x * factor)
        assert chosen.library.startswith(library)


@given(seed=st.integers(0, 2**16), scale=st.floats(0.1, 10))
@settings(max_examples=8, deadline=None)
def test_no_sum_in_a_network_exceeds_its_bound(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    for name in ("tiny", "n4", "neuro3d_doc"):
        network = _network(name)
        with torch.no_grad():
            for values in network.parameters():
                values.normal_(0, scale * 0.1)
        x = (torch.rand(1, 1, *network.valid_shape((2, 2, 2))) * 2 - 1).sign() * scale
        sums: list[float] = []
        parts = [part for key, part in network.named_modules() if key]
        hooks = [part.register_forward_hook(_noting(sums)) for part in parts]
        with torch.inference_mode():
            network(x)
        for hook in hooks:
            hook.remove()
        bound = largest_sum(network, [(1, 1, *network.valid_shape((1, 1, 1)))], scale)
        assert max(sums) <= bound * (1 + 1e-5) < math.inf


def _noting(sums: list[float]) -> Any:
    def note(_: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            sums.append(float(output.abs().max()))

    return note


@cache
def _network(name: str) -> Any:
    return tiny_network() if name == "tiny" else built(network_for(name, load_dataset("phantom")))


@pytest.mark.parametrize("name", ["n4", "neuro3d_doc"])
def test_every_family_predicts_by_one_library(name: str) -> None:
    network = _network(name).eval()
    chosen = choose_forward(network, CPU)
    x = torch.rand(1, 1, *network.valid_shape((1, 3, 5)))
    with torch.inference_mode():
        ours, torchs = chosen(x), network(x)
    assert all(torch.allclose(ours[head], torchs[head], atol=2e-6) for head in torchs)
