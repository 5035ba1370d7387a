"""Predictions on a CPU are computed by OpenVINO; torch computes what OpenVINO does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch import nn

import predict
from built_networks import built
from prediction_case import Case, make_case, tiny_network
from retrace.config.datasets import load_dataset
from retrace.config.networks import network_for
from retrace.inference import forward
from retrace.inference.forward import OpenvinoForward, choose_forward
from retrace.networks import cpu_engine
from retrace.networks.cpu_engine import EngineError, obstacle
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


@pytest.mark.parametrize("name", ["n4", "neuro3d_doc"])
def test_every_family_predicts_by_one_library(name: str) -> None:
    network = built(network_for(name, load_dataset("phantom"))).eval()
    chosen = choose_forward(network, CPU)
    x = torch.rand(1, 1, *network.valid_shape((1, 3, 5)))
    with torch.inference_mode():
        ours, torchs = chosen(x), network(x)
    assert all(torch.allclose(ours[head], torchs[head], atol=2e-6) for head in torchs)
