"""OpenVINO computes on CPUs what torch computes: any shape, any number of threads, both formats."""

from __future__ import annotations

import platform
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from prediction_case import tiny_network
from retrace.networks import cpu_engine
from retrace.networks.cpu_engine import CpuEngine, EngineError, obstacle

pytestmark = pytest.mark.skipif(obstacle(nn.Identity()) is not None, reason="no OpenVINO here")
needs_bf16 = pytest.mark.skipif(
    obstacle(nn.Identity(), bf16=True) is not None, reason="this processor has no bf16 products"
)


def _largest_difference(ours: dict[str, Tensor], torchs: dict[str, Tensor]) -> float:
    assert list(ours) == list(torchs)
    return max(float((ours[name] - torchs[name]).abs().max()) for name in ours)


def _engine(module: nn.Module, bf16: bool = False) -> CpuEngine:
    return CpuEngine(module, [(1, 1, *module.valid_shape((1, 1, 1)))], bf16=bf16)


@pytest.mark.parametrize(
    ("bf16", "tolerance"), [(False, 2e-6), pytest.param(True, 2e-2, marks=needs_bf16)]
)
def test_outputs_are_torchs_for_every_shape(bf16: bool, tolerance: float) -> None:
    network = tiny_network()
    engine = _engine(network, bf16)
    for core in ((2, 4, 4), (8, 4, 12), (2, 4, 4)):
        x = torch.rand(1, 1, *network.valid_shape(core)) * 2 - 1
        with torch.inference_mode():
            assert _largest_difference(engine(x), network(x)) < tolerance


def test_outputs_do_not_depend_on_threads_and_stay_after_the_next_pass() -> None:
    network, threads = tiny_network(), torch.get_num_threads()
    inputs = torch.rand(2, 1, 1, *network.valid_shape((8, 8, 8)))
    try:
        torch.set_num_threads(1)
        engine = _engine(network)
        first, _ = engine(inputs[0]), engine(inputs[1])
        torch.set_num_threads(3)
        again = _engine(network)(inputs[0])
    finally:
        torch.set_num_threads(threads)

    assert all(torch.equal(first[name], again[name]) for name in again)


class _CountsInPython(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., : int(x.shape[-1]) // 2]


class _Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    ("module", "reason"), [(_CountsInPython(), "sizes"), (_Unknown(), "lacks an operation")]
)
def test_a_module_that_openvino_would_compute_wrongly_is_refused(
    module: nn.Module, reason: str
) -> None:
    with pytest.raises(EngineError, match=reason):
        CpuEngine(module, [(1, 1, 8, 8)])


def test_tensors_and_tuples_are_returned_as_such() -> None:
    x = torch.rand(2, 1, 9, 9)
    single = nn.Conv2d(1, 3, 3)

    assert torch.allclose(CpuEngine(single, [(1, 1, 4, 4)])(x), single(x), atol=1e-6)
    halves = CpuEngine(nn.Sequential(single, _Halves()), [(1, 1, 4, 4)])(x)
    assert isinstance(halves, tuple)
    assert torch.equal(halves[1], halves[0] / 2)


class _Halves(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x / 2


def test_errors_of_openvino_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that do not fit into memory are halved; other errors leave the network to torch."""
    engine = CpuEngine(nn.Conv2d(1, 3, 3), [(1, 1, 4, 4)])
    errors = {"Failed to allocate 163840000 bytes of memory": MemoryError, "no ISA": EngineError}
    for text, expected in errors.items():
        failing = RuntimeError(f"Exception from src/core.cpp:117:\n{text}\n")
        monkeypatch.setattr(engine, "_request", Mock(side_effect=failing))
        with pytest.raises(expected, match=text):
            engine(torch.rand(1, 1, 5, 5))


def test_what_torch_computes_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "float64" in (obstacle(nn.Linear(2, 2).double()) or "")
    monkeypatch.setattr(cpu_engine, "_import_error", lambda: "OpenVINO cannot be imported (x)")
    assert obstacle(nn.Identity()) == "OpenVINO cannot be imported (x)"
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "aarch64" in (obstacle(nn.Identity()) or "")
