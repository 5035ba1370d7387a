"""benchmarks/gpu.py on the CPU: what it measures and checks, and that it keeps its time."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tiny_threads: None) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setitem(importlib.import_module("machine").EDGE, "cpu", 300)
    return importlib.import_module("gpu")


def test_a_network_is_checked_and_measured_whole(
    gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = "--device cpu --small --networks lsd --rounds 1 --only equality speed"
    gpu.main(tried.split())
    lines = capsys.readouterr().out.splitlines()
    checked = [line for line in lines if line.endswith("| yes |")]
    measured = [line for line in lines if line.startswith("| `lsd`, ")]

    assert any("gradients, bf16, channels last" in line for line in checked)
    assert any("in tiles of" in line for line in checked)
    assert [line.count("|") for line in measured] == [10, 10]  # training, prediction
    assert any(line.startswith("| channels last, 16 features |") for line in lines)
    assert "0 beyond what is allowed" in lines[-1]


def test_a_device_that_computes_something_else_fails(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = gpu.Case(tmp_path, "zfinch", torch.device("cpu"), True, gpu.SMALL_RAW)
    right = gpu.equality.computed

    def wrong(module: Any, x: Any, device: Any, way: Any, *, gradients: bool) -> Any:
        outputs, found = right(module, x, device, way, gradients=gradients)
        if way.bf16:
            outputs = {head: values.roll(1, -1) for head, values in outputs.items()}
        return outputs, found

    monkeypatch.setattr(gpu.equality, "computed", wrong)
    failed = [c.name for c in gpu.equality.network_checks(case, "lsd", True, False) if not c.passed]

    assert failed == ["lsd, outputs, bf16, channels first", "lsd, outputs, bf16, channels last"]
    assert not gpu.equality.Check("", float("nan"), 1.0).passed


def test_works_without_time_are_left_out_and_failures_do_not_end_the_rest(gpu: Any) -> None:
    session = gpu.Session(gpu.SECONDS["other"] + 5.0, isolated=False)

    assert session.run("long", "training", lambda: 1) is None
    assert session.run("broken", "other", lambda: 1 / 0) is None
    assert session.run("short", "other", lambda: 1) == 1
    assert session.left_out[0].startswith("long (about 40 s, ")
    assert session.failed == ["broken: ZeroDivisionError: division by zero"]


def test_a_hanging_or_crashing_work_is_ended_and_the_next_one_runs(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import time

    monkeypatch.setitem(gpu.SECONDS, "other", 0)
    session = gpu.Session(4.0, isolated=True)
    session.run("crash", "other", os._exit, 3)
    assert session.run("after it", "other", os.path.basename, "a/b") == "b"
    session.run("hang", "other", time.sleep, 60)
    session.close()

    assert [line.split(":")[0] for line in session.failed] == ["crash", "hang"]
    assert session.left > -5
