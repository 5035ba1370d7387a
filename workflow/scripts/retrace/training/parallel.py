"""Training in several processes of one machine, one for each GPU, with torch's own means.

Every process holds the whole network and learns from its part of each batch; gradients are averaged
(DistributedDataParallel; NCCL between GPUs, Gloo between CPUs). What the processes decide together,
such as when to save, goes through Gloo on the host, so that no GPU is waited for.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import ProcessExitedException, start_processes
from torch.multiprocessing.spawn import ProcessContext, ProcessException
from torch.nn.parallel import DistributedDataParallel

from retrace.errors import RetraceError, StateError, explain, terminate
from retrace.training.ranks import Rank

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others. One that ends is noticed at once, not by this."""

LAST_WORD_S = 2.0
"""An error nobody can explain may follow from the end of another process, which is to be seen first
by the one that watches them."""

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a training that was told to stop and saved its state."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent ends."""


# ---------------------------------------------------------------- inside one of the processes


def shared(module: nn.Module, device: torch.device, rank: Rank) -> nn.Module:
    """The module itself, or the form of it whose gradients are averaged over all processes."""
    if rank.count == 1:
        return module
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True)


def adding_up(network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """For one sample's forward and backward pass: gradients are averaged after the last one."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()
    return nullcontext()


def highest(values: Sequence[int], rank: Rank) -> list[int]:
    """The largest of each value over all processes; all wait here for the slowest."""
    if rank.count == 1:
        return list(values)
    everyone = torch.tensor(values)
    dist.all_reduce(everyone, dist.ReduceOp.MAX)
    return [int(value) for value in everyone]


def mean(values: Tensor, rank: Rank) -> Tensor:
    """The mean over all processes of a tensor on the host, any shape."""
    if rank.count > 1:
        dist.all_reduce(values)
        values /= rank.count
    return values


def _join(rank: Rank, device_type: str, meeting: Path) -> None:
    if device_type == "cuda":
        torch.cuda.set_device(rank.number)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: no need to look for its name
    store = dist.FileStore(str(meeting), rank.count)
    backend = BACKENDS[device_type]
    dist.init_process_group(
        backend, store=store, rank=rank.number, world_size=rank.count, timeout=TIMEOUT
    )


def _end_with(parent: int) -> None:
    """Has this process killed as soon as its parent is gone, however that ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before that
        os.kill(os.getpid(), signal.SIGKILL)


def _one_process(
    number: int,
    count: int,
    parent: int,
    device_type: str,
    meeting: Path,
    failures: SimpleQueue[str],
    work: Callable[[Rank], None],
) -> None:
    """All that one process does; what a user can act on goes to `failures`."""
    _end_with(parent)
    signal.signal(signal.SIGTERM, terminate)
    rank = Rank(number, count)
    try:
        with redirect_stdout(sys.stdout if rank.is_first else None):
            _join(rank, device_type, meeting)
            work(rank)
            dist.destroy_process_group()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        message = explain(error)
        if message is None:
            time.sleep(LAST_WORD_S)
            raise
        failures.put(f"{message} (process {number} of 0-{count - 1})")
        sys.exit(1)


# ---------------------------------------------------------------- the process that watches them


class _PassOn:
    """Hands SIGTERM and SIGINT to the processes, which save and end."""

    def __init__(self) -> None:
        self.signal = 0
        self.pids: list[int] = []

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        self.signal = number
        for pid in self.pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # it has ended


@contextmanager
def _passing_on() -> Iterator[_PassOn]:
    pass_on = _PassOn()
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.signal(kind, pass_on) for kind in kinds}
    try:
        yield pass_on
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def run_in_processes(work: Callable[[Rank], None], count: int, device_type: str) -> None:
    """Runs `work`, which must pickle, in `count` processes at a time, on `cpu` or one GPU each.

    Where one ends with an error, the others are ended and the error is raised here: what a user can
    act on as RetraceError, a process that was killed as StateError with its number. SIGTERM and
    SIGINT reach all of them; told to stop, this process ends as they do, with 128 + the signal.
    """
    failures: SimpleQueue[str] = get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="retrace-") as folder, _passing_on() as pass_on:
        meeting = Path(folder) / "meeting"
        told: tuple[Any, ...] = (count, os.getpid(), device_type, meeting, failures, work)
        processes = start_processes(_one_process, told, count, join=False)
        pass_on.pids = processes.pids()
        if pass_on.signal:
            pass_on(pass_on.signal)
        try:
            _wait(processes)
        except ProcessException as error:
            if not failures.empty():
                raise RetraceError(failures.get()) from None
            if pass_on.signal:
                sys.exit(128 + pass_on.signal)
            _explain_end(error, count)


def _wait(processes: ProcessContext) -> None:
    while not processes.join():
        pass


def _explain_end(error: ProcessException, count: int) -> None:
    """Raises what is to be said of a process that ended without a word of its own."""
    if not isinstance(error, ProcessExitedException):
        raise error
    if error.exit_code in STOPPED:
        sys.exit(error.exit_code)
    how = error.signal_name or f"exit code {error.exit_code}"
    why = " (often for want of memory)" if how == "SIGKILL" else ""
    raise StateError(
        f"process {error.error_index} of 0-{count - 1} was ended with {how}{why}, and the others "
        "after it; run the same command again, it goes on from the last saved state"
    ) from None
