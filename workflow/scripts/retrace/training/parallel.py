"""Training in several processes on one machine, one per GPU (DistributedDataParallel).

Every process holds the whole network and learns from its part of each batch; gradients are averaged
by NCCL between GPUs and Gloo between CPUs. Common decisions, such as when to save, go through Gloo
on the host, so that they do not wait for a GPU.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
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
from retrace.training.signals import handling_stop_signals

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; a process that ends is noticed immediately."""

UNEXPLAINED_ERROR_DELAY_S = 2.0
"""How long a process waits before it ends with an unexpected error. Such an error may result from
the end of another process, which the parent has to see first."""

STOPPED_EXIT_CODES = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a training that saved its state after SIGINT or SIGTERM."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process receives when its parent ends."""


# ---------------------------------------------------------------- inside each process


def data_parallel(module: nn.Module, device: torch.device, rank: Rank) -> nn.Module:
    """The module, wrapped to average gradients over all processes where there are several."""
    if rank.count == 1:
        return module
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True)


def accumulating_gradients(network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Context for one sample's forward and backward pass: gradients are averaged after the last."""
    if isinstance(network, DistributedDataParallel) and not last:
        return network.no_sync()
    return nullcontext()


def maximum_over_ranks(values: Sequence[int], rank: Rank) -> list[int]:
    """The maximum of each value over all processes; waits for the slowest process."""
    if rank.count == 1:
        return list(values)
    maxima = torch.tensor(values)
    dist.all_reduce(maxima, dist.ReduceOp.MAX)
    return [int(value) for value in maxima]


def mean_over_ranks(values: Tensor, rank: Rank) -> Tensor:
    """The mean over all processes of a tensor on the host, of any shape, without NaNs.

    NaN where all processes have NaN.
    """
    if rank.count > 1:
        counts = (~values.isnan()).to(values.dtype)
        values = values.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        dist.all_reduce(values)
        dist.all_reduce(counts)
        values = values / counts
    return values


def _join_process_group(rank: Rank, device_type: str, rendezvous: Path) -> None:
    if device_type == "cuda":
        torch.cuda.set_device(rank.number)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: no name lookup
    store = dist.FileStore(str(rendezvous), rank.count)
    backend = BACKENDS[device_type]
    dist.init_process_group(
        backend, store=store, rank=rank.number, world_size=rank.count, timeout=TIMEOUT
    )


def _die_with_parent(parent: int) -> None:
    """Has the kernel kill this process as soon as its parent ends for any reason."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before that
        os.kill(os.getpid(), signal.SIGKILL)


def _one_process(
    number: int,
    count: int,
    parent: int,
    device_type: str,
    rendezvous: Path,
    failures: SimpleQueue[str],
    work: Callable[[Rank], None],
) -> None:
    """What one process runs; errors that a user can fix go to `failures`."""
    _die_with_parent(parent)
    signal.signal(signal.SIGTERM, terminate)
    rank = Rank(number, count)
    try:
        with redirect_stdout(sys.stdout if rank.is_first else None):
            _join_process_group(rank, device_type, rendezvous)
            work(rank)
            dist.destroy_process_group()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        message = explain(error)
        if message is None:
            time.sleep(UNEXPLAINED_ERROR_DELAY_S)
            raise
        failures.put(f"{message} (process {number} of 0-{count - 1})")
        sys.exit(1)


# ---------------------------------------------------------------- the parent process


class _SignalForwarder:
    """Forwards SIGTERM and SIGINT to the processes, which then save and end."""

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


def run_in_processes(work: Callable[[Rank], None], count: int, device_type: str) -> None:
    """Runs `work`, which must be picklable, in `count` processes, on `cpu` or one GPU each.

    If one process fails, the others are ended and the error is raised here: RetraceError for what a
    user can fix, StateError naming the process if it was killed. SIGTERM and SIGINT are forwarded
    to all processes; this process then exits with 128 + the signal, as they do.
    """
    failures: SimpleQueue[str] = get_context("spawn").SimpleQueue()
    with (
        tempfile.TemporaryDirectory(prefix="retrace-") as folder,
        handling_stop_signals(_SignalForwarder()) as forwarder,
    ):
        rendezvous = Path(folder) / "rendezvous"
        arguments: tuple[Any, ...] = (count, os.getpid(), device_type, rendezvous, failures, work)
        processes = start_processes(_one_process, arguments, count, join=False)
        forwarder.pids = processes.pids()
        if forwarder.signal:
            forwarder(forwarder.signal)
        try:
            _wait(processes)
        except ProcessException as error:
            if not failures.empty():
                raise RetraceError(failures.get()) from None
            if forwarder.signal:
                sys.exit(128 + forwarder.signal)
            _explain_end(error, count)


def _wait(processes: ProcessContext) -> None:
    while not processes.join():
        pass


def _explain_end(error: ProcessException, count: int) -> None:
    """Raises a StateError for a process that ended without an error message."""
    if not isinstance(error, ProcessExitedException):
        raise error
    if error.exit_code in STOPPED_EXIT_CODES:
        sys.exit(error.exit_code)
    how = error.signal_name or f"exit code {error.exit_code}"
    why = " (often out of memory)" if how == "SIGKILL" else ""
    raise StateError(
        f"process {error.error_index} of 0-{count - 1} was ended with {how}{why}, and the others "
        "after it; run the same command again, it resumes from the last saved state"
    ) from None
