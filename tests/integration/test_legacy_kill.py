"""The programs of the legacy image, interrupted and run again, in the stand-in image."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from built_networks import built
from conftest import Apptainer
from kill import PATIENCE_S
from legacy_batches import write_batch, write_message
from retrace.checkpoints.published import read_published, write_published
from retrace.config import datasets, networks

pytestmark = [pytest.mark.container, pytest.mark.timeout(2400)]

TILES, STRIDE, ITERATIONS = 120, 4, 60


def narrow() -> dict[str, Any]:
    """A network of two maps, at its smallest input."""
    network = networks.network_for("baseline_small", datasets.load_dataset("zfinch")).plain()
    network |= {"fmaps": 2, "fmaps_out": 2, "fmap_factor": 2}
    shape = list(built(network, device="meta").valid_shape((1, 4, 4)))
    return network | {"input_shape": shape, "inference_shape": shape}


class Job:
    """A program of workflow/scripts/legacy in the image."""

    def __init__(self, apptainer: Apptainer, repository: Path, folder: Path) -> None:
        scripts = repository / "workflow" / "scripts" / "legacy"
        command = [apptainer.program, "exec", "--bind", f"{scripts},{folder}"]
        self._command = [*command, str(apptainer.image("standin")), "python"]
        self._scripts = scripts

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """In a new session, so that all its processes can be killed."""
        return subprocess.Popen(
            [*self._command, str(self._scripts / name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, name: str, *arguments: str) -> str:
        process = self.start(name, *arguments)
        printed, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, printed[-3000:]
        return printed

    def kill_when(self, is_due: Callable[[], bool], name: str, *arguments: str) -> None:
        process = self.start(name, *arguments)
        end = time.monotonic() + PATIENCE_S
        while not is_due() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        assert process.poll() is None, process.communicate()[0][-3000:]
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def job(apptainer: Apptainer, repository: Path, tmp_path: Path) -> Job:
    return Job(apptainer, repository, tmp_path)


def write_input(folder: Path, network: dict[str, Any]) -> None:
    """A row of tiles of random raw."""
    window = list(network["inference_shape"])
    core = list(built(network, device="meta").output_shape(window))
    core = [core[0], core[1], STRIDE]
    length = STRIDE * TILES
    plan = {
        **{"network": network, "heads": {"affs": 3}, "dtype": "uint8", "raw_channels": 1},
        **{"window_shape": window, "core_shape": core, "output_shape": [*core[:2], length - 1]},
        "tiles": [[0, 0, STRIDE * index] for index in range(TILES)],
    }
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps(plan))
    shape = (1, window[0], window[1], length - STRIDE + window[2])
    raw = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    np.save(folder / "input.npy", raw)


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.is_file() else 0


def test_an_interrupted_prediction_resumes_with_the_same_result(job: Job, tmp_path: Path) -> None:
    network = narrow()
    write_published(tmp_path / "checkpoint", built(network, seed=2), 7, scope="setup02")
    write_input(tmp_path / "input", network)
    inputs = {"tiles": f"{tmp_path}/input", "checkpoint": f"{tmp_path}/checkpoint"}
    fixed = ["--job", json.dumps({"inputs": inputs})]
    interrupted = [*fixed, f"--work={tmp_path}/killed", f"--output={tmp_path}/out"]

    def some_are_done() -> bool:
        return any(lines(path) >= 3 for path in tmp_path.glob("killed/*/done.txt"))

    job.kill_when(some_are_done, "predict.py", *interrupted)
    assert not (tmp_path / "out").exists()
    assert f"of {TILES} tiles are done already" in job.finish("predict.py", *interrupted)
    job.finish("predict.py", *fixed, f"--work={tmp_path}/whole", f"--output={tmp_path}/whole_out")
    resumed, expected = (np.load(tmp_path / name / "affs.npy") for name in ("out", "whole_out"))
    assert np.array_equal(resumed, expected)
    assert expected.std() > 0.1


def write_stream(path: Path, network: dict[str, Any], first: int) -> None:
    """Batches from iteration `first` on; each is drawn from its own number."""
    header = {
        **{"dataset": "random", "network": network, "seed": 0, "folder": "net", "every": 2},
        **{"first": first, "last": ITERATIONS},
    }
    output = built(network, device="meta").output_shape(network["input_shape"])
    with path.open("wb") as file:
        write_message(file, json.dumps(header).encode())
        for iteration in range(first, ITERATIONS):
            draw = np.random.default_rng(iteration).random
            arrays = {"raw": draw((1, *network["input_shape"]), dtype=np.float32)}
            for name in ("gt_affs", "weight_affs"):
                arrays[name] = draw((3, *output), dtype=np.float32)
            write_batch(file, arrays)


def test_an_interrupted_training_resumes(job: Job, tmp_path: Path) -> None:
    network = narrow()

    def arguments(run: str) -> list[str]:
        batches = json.dumps({"inputs": {"batches": f"{tmp_path}/{run}.stream"}})
        paths = {"work": f"{run}_work", "output": run, "history": f"{run}.json"}
        named = [f"--{name}={tmp_path}/{path}" for name, path in paths.items()]
        return [f"--job={batches}", *named]

    def some_are_saved() -> bool:
        saved = tmp_path.glob("killed_work/net/*_checkpoint_*.index")
        return any(int(path.stem.rpartition("_")[2]) >= 4 for path in saved)

    write_stream(tmp_path / "killed.stream", network, 0)
    job.kill_when(some_are_saved, "train.py", *arguments("killed"))
    reached = read_published(tmp_path / "killed_work" / "net").iteration
    assert 4 <= reached < ITERATIONS
    write_stream(tmp_path / "killed.stream", network, reached)
    job.finish("train.py", *arguments("killed"))
    write_stream(tmp_path / "whole.stream", network, 0)
    job.finish("train.py", *arguments("whole"))
    ends = [json.loads((tmp_path / f"{run}.json").read_text()) for run in ("killed", "whole")]
    rows = [[row["iteration"] for row in end["history"]] for end in ends]
    assert rows[0] == rows[1] == list(range(1, ITERATIONS + 1))
    losses = [[row["loss"] for row in end["history"]] for end in ends]
    assert np.allclose(*losses, rtol=1e-3)
