"""Predictions that are stored as float32 are computed in float32, unless `precision` is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

import examples
import predict
import tiny_digits as tiny
from built_networks import built
from prediction_case import make_case, tiny_network
from retrace import device
from retrace.checkpoints.safetensors import save_model
from retrace.inference.precision import prepare_precision
from retrace.inference.predictor import to_stored
from retrace.planning.examples_settings import ExamplesSettings, ScoredExamples
from retrace.records import record
from retrace.storage.volumes import open_volume

pytestmark = pytest.mark.usefixtures("tiny_threads", "computes_bf16")
CPU = torch.device("cpu")


@pytest.fixture
def computes_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that says that it multiplies bfloat16."""
    info = tmp_path / "cpuinfo"
    info.write_text("flags : avx2 avx512_bf16\n")
    monkeypatch.setattr(device, "CPU_INFO", info)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> record.Running:
    """A running job, whose record notes the precision."""
    running = record.Running(record.Planned("x.json", settings={"precision": "auto"}), {})
    monkeypatch.setattr(record, "_running", [running])
    return running


@pytest.mark.parametrize(
    ("precision", "dtype", "used"),
    [
        ("auto", "uint8", "bf16"),
        ("auto", "float32", "fp32"),
        ("bf16", "float32", "bf16"),
        ("fp32", "uint8", "fp32"),
    ],
)
def test_the_record_notes_the_precision_that_is_used(
    precision: str, dtype: str, used: str, job: record.Running
) -> None:
    assert prepare_precision(precision, dtype, CPU) is (used == "bf16")
    assert job.content()["resolved"] == {"precision": used}


@pytest.mark.parametrize(("precision", "nearer"), [("auto", 2e-6), ("bf16", 0.2)])
def test_stored_floats_of_volumes(precision: str, nearer: float, tmp_path: Path) -> None:
    case = make_case(tmp_path, (26, 44, 44))
    predict.main(case.arguments(dtype="float32", precision=precision, tile="auto"))
    stored = np.asarray(zarr.open(case.output, mode="r")["affs"][...])
    raw = open_volume(case.raw, "volumes/raw").array[...].astype(np.float32) / 255 * 2 - 1
    with torch.inference_mode():
        exact = to_stored(tiny_network()(torch.from_numpy(raw)[None, None])["affs"][0], "float32")
    worst = float(np.abs(stored - exact.numpy()).max())
    assert worst <= nearer
    assert (worst <= 2e-6) is (precision == "auto")


@pytest.mark.parametrize(("precision", "used"), [("auto", "fp32"), ("bf16", "bf16")])
def test_predictions_of_examples(
    precision: Any, used: str, tmp_path: Path, job: record.Running
) -> None:
    data = tiny.dataset(tmp_path)
    network = tiny.network(data)
    module = built(network, seed=1)
    metadata = {"network": network.plain(), "iteration": 3, "input_mean": 0.25}
    model = save_model(tmp_path / "model.safetensors", module, metadata)
    settings = ExamplesSettings(
        dataset=ScoredExamples(name=data.name, examples=data.examples),
        network=network,
        seed=0,
        device="cpu",
        precision=precision,
    )
    values, _ = examples.predictions(settings, model)
    exact, _ = examples.predictions(settings.with_(precision="fp32"), model)
    assert bool(np.abs(values - exact).max() < 1e-7) is (used == "fp32")
    job.resolved.clear()
    examples.predictions(settings, model)
    assert job.resolved == {"precision": used}
