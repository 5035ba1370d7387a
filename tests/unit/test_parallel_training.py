"""Training in several processes: the same batches and weights, one that writes, no hanging."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import tiny_training as tiny
import train
from kill import PATIENCE_S, start
from retrace import device
from retrace.config.compatibility import check_division
from retrace.errors import ConfigError, DeviceError, RetraceError
from retrace.planning.train_settings import read_train_settings
from retrace.training import build
from retrace.training import task as training_task
from retrace.training.lsd_family import LsdFamilyTask
from retrace.training.ranks import Rank
from retrace.training.state import state_files

pytestmark = pytest.mark.usefixtures("tiny_threads")

TOLERANCE = 1e-6
"""Of a weight tensor, relative to its norm, after a few iterations in float32. Sums are taken in
another order; 2e-7 was the largest seen after 20 iterations with 2 and with 4 processes."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tiny.write_volume(tmp_path / "cube.zarr")


def settings(store: Path, iterations: int, gpus: int = 1, **network: Any) -> dict[str, Any]:
    chosen = tiny.network(batch_size=4, **network)
    return tiny.settings(store, iterations, network=chosen, gpus=gpus)


def trained(folder: Path, chosen: dict[str, Any], *more: str) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    train.main(tiny.arguments(folder, chosen, *more))
    return load_file(folder / "model.safetensors")


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, weights in one.items():
        assert (weights - other[name]).norm() <= TOLERANCE * weights.norm(), name


def losses(folder: Path) -> np.ndarray:
    rows = json.loads((folder / "training.json").read_text())["history"]
    return np.array([row["loss"] for row in rows])


def work(folder: Path) -> Path:
    (work_folder,) = (folder / "work").iterdir()
    return work_folder


# ---------------------------------------------------------------- which samples


@given(
    first=st.integers(0, 50),
    iterations=st.integers(0, 5),
    count=st.integers(1, 8),
    each=st.integers(1, 4),
)
def test_every_number_of_processes_has_the_samples_of_one(
    first: int, iterations: int, count: int, each: int
) -> None:
    size, last = count * each, first + iterations
    alone = list(Rank().samples(first, last, size))
    parts = [list(Rank(n, count).samples(first, last, size)) for n in range(count)]
    dealt = np.array(parts, dtype=int).reshape(count, iterations, each).transpose(1, 0, 2)
    assert alone == list(range(first * size, last * size))
    assert dealt.ravel().tolist() == alone


def test_the_batch_size_must_divide_by_the_processes() -> None:
    check_division("n", 4, 2)
    with pytest.raises(ConfigError, match=r"`batch_size` 4 .* 3 GPUs.* to 3, 6, 9 .* 1 or 2 or 4$"):
        check_division("n", 4, 3)


def test_a_batch_is_the_mean_of_its_samples(store: Path, tmp_path: Path) -> None:
    chosen = settings(store, 1)
    trainer = build.build_trainer(read_train_settings(chosen), {}, tmp_path / "none")
    module = trainer.module
    task = trainer.task
    assert isinstance(task, LsdFamilyTask)
    expected = [
        sum(float(loss.detach()) for loss in task.losses(task.predict(module, b), b).values())
        for b in map(task.batch, range(4))
    ]
    trained(tmp_path / "a", chosen)
    assert losses(tmp_path / "a") == pytest.approx([np.mean(expected)])


def test_samples_do_not_depend_on_the_size_of_the_batch(store: Path, tmp_path: Path) -> None:
    tasks = [
        build.build_trainer(
            read_train_settings(tiny.settings(store, 1, network=tiny.network(**size))),
            {},
            tmp_path / "none",
        ).task
        for size in ({}, {"batch_size": 4})
    ]
    assert torch.equal(tasks[0].batch(6)["raw"], tasks[1].batch(6)["raw"])


def test_a_batch_of_one_keeps_the_training_digest(store: Path) -> None:
    plain = tiny.settings(store, 1)
    weights = training_task.WeightFiles()
    for size, same in ((1, True), (2, False)):
        sized = tiny.settings(store, 1, network=tiny.network(batch_size=size))
        equal = build.training_digest(read_train_settings(sized), weights) == build.training_digest(
            read_train_settings(plain), weights
        )
        assert equal is same


# ---------------------------------------------------------------- refused


def test_bad_divisions_and_absent_gpus_are_refused_before_work(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`batch_size` 4 cannot be dealt out evenly to 3 GPUs"):
        trained(tmp_path / "a", settings(store, 1, gpus=3))
    there = torch.cuda.device_count()
    if there < 4:
        with pytest.raises(DeviceError, match=rf"training on 4 GPUs: torch .* sees {there}"):
            trained(tmp_path / "a", settings(store, 1, gpus=4) | {"device": "auto"})
    assert list((tmp_path / "a").iterdir()) == []


def test_as_many_gpus_as_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert device.check_devices("auto", 2) == "cuda"
    assert device.check_devices("cpu", 8) == "cpu"
    assert device.choose_own_device("auto", 1, 2) == torch.device("cuda", 1)
    assert device.choose_own_device("auto", 0, 1) == torch.device("cuda")
    with pytest.raises(
        DeviceError, match=r"3 GPUs.* sees 2 \(CUDA_VISIBLE_DEVICES: 4,6\).* to 2 or"
    ):
        device.check_devices("auto", 3)


def test_several_processes_are_refused_outside_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(DeviceError, match="Linux only, and this is darwin; set `gpus` to 1"):
        device.check_devices("cpu", 2)


def test_an_error_in_a_process_is_reported_once(store: Path, tmp_path: Path) -> None:
    wild = settings(store, 20, 2, optimizer={"lr": 1e30, "betas": [0.9, 0.99], "eps": 1e-8})
    with pytest.raises(RetraceError, match=r"no number at iteration .*\(process [01] of 0-1\)"):
        trained(tmp_path, wild)
    assert not (tmp_path / "model.safetensors").exists()


# ---------------------------------------------------------------- the same result


def test_one_and_two_processes_take_turns(store: Path, tmp_path: Path) -> None:
    """With averaged weights, snapshots and uneven checkpoints: 1, 1 then 2, 2 then 1 process."""
    often: dict[str, Any] = {"snapshot_every": 2, "checkpoint_every": 3}
    whole = trained(tmp_path / "whole", settings(store, 6, **often))
    for name, (first, second) in {"more": (1, 2), "fewer": (2, 1)}.items():
        trained(tmp_path / name, settings(store, 3, first, **often))
        assert_close(whole, trained(tmp_path / name, settings(store, 6, second, **often)))
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
        one, other = work(tmp_path / "whole"), work(tmp_path / name)
        assert one.name == other.name
        assert [p.name for p in state_files(other)] == [p.name for p in state_files(one)]
        snapshots = sorted(p.name for p in (other / "snapshots").iterdir())
        assert snapshots == [f"batch_{n:09d}.zarr" for n in (1, 2, 3, 4, 6)]
        # Scalars of the first process only.
        assert len(list((other / "log").glob("events.*"))) == 2


def test_an_autocontext_network_trains_with_malis_in_two_processes(
    store: Path, tmp_path: Path
) -> None:
    lsd = tiny.network(name="lsd", heads=[{"name": "lsds", "channels": 10}], neighborhood=[])
    trained(tmp_path / "lsd", tiny.settings(store, 1, network=lsd))
    reader: dict[str, Any] = {
        "input_channels": 11,
        "autocontext": "lsd",
        "heads": [{"name": "affs", "channels": 3}],
        "lsd": None,
        "loss": {"kind": "malis", "start_iteration": 1},
    }
    more = ("--context", str(tmp_path / "lsd" / "model.safetensors"))
    one, two = (settings(store, 3, gpus, **reader) | {"autocontext": lsd} for gpus in (1, 2))
    whole = trained(tmp_path / "one", one, *more)
    assert_close(whole, trained(tmp_path / "two", two, *more))


# ---------------------------------------------------------------- signals and kills


def running(folder: Path, chosen: dict[str, Any]) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A training in two processes that has saved its first state, and the ids of the two."""
    process = start("train.py", tiny.arguments(folder, chosen), stderr=subprocess.PIPE)
    end = time.monotonic() + PATIENCE_S
    while not list(folder.glob("work/*/state_*.pt")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    children = psutil.Process(process.pid).children()
    return process, [c.pid for c in children if "spawn_main" in " ".join(c.cmdline())]


def ends(process: subprocess.Popen[bytes], pids: list[int]) -> tuple[int, str]:
    """Exit code and stderr, once all processes have ended."""
    _, output = process.communicate(timeout=PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    while any(psutil.pid_exists(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)
    return process.returncode, output.decode()


def test_a_killed_process_is_named_and_its_training_resumes(store: Path, tmp_path: Path) -> None:
    often = {"checkpoint_every": 1}
    process, pids = running(tmp_path, settings(store, 100_000, 2, **often))
    assert len(pids) == 2
    os.kill(pids[1], signal.SIGKILL)
    code, output = ends(process, pids)
    assert code == 1
    assert "error: process 1 of 0-1 was ended with SIGKILL" in output
    reached = int(state_files(work(tmp_path))[-1].stem.removeprefix("state_"))
    goes_on = trained(tmp_path, settings(store, reached + 1, **often))
    assert_close(trained(tmp_path / "whole", settings(store, reached + 1)), goes_on)


def test_sigterm_saves_once_and_exits_143(store: Path, tmp_path: Path) -> None:
    process, pids = running(tmp_path, settings(store, 100_000, 2, checkpoint_every=2))
    process.send_signal(signal.SIGTERM)
    code, output = ends(process, pids)
    assert code == 143 and "error" not in output
    assert not (tmp_path / "model.safetensors").exists()
    reached = int(state_files(work(tmp_path))[-1].stem.removeprefix("state_"))
    assert reached >= 2
    trained(tmp_path, settings(store, reached))
    assert len(losses(tmp_path)) == reached


def test_no_process_outlives_the_one_that_watches(store: Path, tmp_path: Path) -> None:
    process, pids = running(tmp_path, settings(store, 100_000, 2, checkpoint_every=1))
    process.kill()
    assert ends(process, pids)[0] == -signal.SIGKILL
