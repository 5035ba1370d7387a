"""A training interrupted at any time and run again ends with the same bytes."""

from __future__ import annotations

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import tiny_training as tiny
from kill import PATIENCE_S, SCRIPTS, finish, kill_when, start

ITERATIONS = 40
EVERY = 3
KILLS = 4


def result(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("work/*/state_*.pt"))


def reached(folder: Path) -> int:
    """The iteration of the last state, 0 if there is none."""
    return max((int(re.sub(r"\D", "", name)) for name in states(folder)), default=0)


def test_interruptions_at_random_times_keep_the_same_weights(tmp_path: Path) -> None:
    settings = tiny.settings(tiny.write_volume(tmp_path / "cube.zarr"), ITERATIONS)
    settings["network"]["checkpoint_every"] = EVERY
    settings["network"]["optimizer"] |= {"warmup": 9, "decay": {"kind": "cosine"}}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish("train.py", tiny.arguments(whole, settings))
    draw = random.Random(0)
    kills = 0
    for _ in range(KILLS):
        target = reached(killed) + EVERY * draw.randint(1, 2)
        delay = draw.uniform(0, 0.03)  # about the time between two states
        reached_at_s: list[float] = []

        def moment(
            target: int = target, delay: float = delay, reached_at_s: list[float] = reached_at_s
        ) -> bool:
            """A random time after this run has saved its first or second state of its own."""
            if not reached_at_s and reached(killed) >= target:
                reached_at_s.append(time.monotonic())
            return bool(reached_at_s) and time.monotonic() - reached_at_s[0] >= delay

        kills += kill_when("train.py", tiny.arguments(killed, settings), moment)
    finish("train.py", tiny.arguments(killed, settings))
    assert kills >= 2
    assert result(killed) == result(whole)
    assert states(killed) == states(whole)


def test_sigterm_saves_at_once_and_exits_143(tmp_path: Path) -> None:
    settings = tiny.settings(tiny.write_volume(tmp_path / "cube.zarr"), 100_000)
    settings["network"]["checkpoint_every"] = 5
    process = start("train.py", tiny.arguments(tmp_path, settings))
    try:
        while process.poll() is None and not states(tmp_path):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 143
    finally:
        process.kill()  # one that ignored the signal would run forever
    assert not (tmp_path / "model.safetensors").exists()
    settings["iterations"] = reached(tmp_path)
    assert settings["iterations"] >= 5
    finish("train.py", tiny.arguments(tmp_path, settings))
    assert (tmp_path / "model.safetensors").exists()


def test_a_signal_to_every_process_of_a_job_leaves_its_shell_waiting(
    tmp_path: Path, repository: Path
) -> None:
    """A cluster kills the remaining processes of a job as soon as its shell has ended."""
    settings = tiny.settings(tiny.write_volume(tmp_path / "cube.zarr"), 100_000)
    settings["network"]["checkpoint_every"] = 5
    snakefile = (repository / "Snakefile").read_text()
    prefix = re.search(r'^shell\.prefix\(\s*f"(.*; )export \{', snakefile, re.M)
    assert prefix
    program = [sys.executable, str(SCRIPTS / "train.py"), *tiny.arguments(tmp_path, settings)]
    tee = f" 2>&1 | (trap '' INT TERM; exec tee {tmp_path}/log)"
    command = ["bash", "-c", prefix[1] + shlex.join(program) + tee]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    shell = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        while shell.poll() is None and not states(tmp_path):
            time.sleep(0.05)
        os.killpg(shell.pid, signal.SIGTERM)
        assert shell.wait(PATIENCE_S) == 143
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    assert "run again to resume" in (tmp_path / "log").read_text()
