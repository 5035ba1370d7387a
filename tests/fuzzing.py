"""Reads damaged files with a reader, in a process of its own, and counts what happens.

A changed file gives a clear error, counts as absent, gives the same values, or other values where
its format has no checksum. A traceback, further printed lines, a hang, a crash or much memory is a
fault of the reader, and so are other values of a format with a checksum.
benchmarks/damaged_files.py prints the counts of all readers.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mutations import mutated
from retrace.errors import RetraceError
from retrace.storage import store_check

INPUTS = 200
SECONDS_EACH = 20
"""Longest time for one file; a sound one takes milliseconds."""
SECONDS_SILENT = 120
"""Longest time without a finished file, after which the process is ended."""
MEMORY_BYTES = 3 << 30
"""Address space that a reader may use in addition to the loaded libraries."""
RESIDENT_MIB = 1024
"""Memory that a reader may really use."""


@dataclass(frozen=True)
class FuzzReader:
    """A reader of files that others wrote, or that were stored."""

    name: str
    write: Callable[[Path], object]
    """Writes sound files into an empty folder."""
    read: Callable[[Path], Any]
    """What the reader makes of the files of that folder."""
    files: str = "*"
    """Pattern of the files that are changed, below the folder."""
    checksum: bool = False
    """Whether every byte of these files that matters is covered by a checksum."""


@dataclass
class Outcome:
    """Counts for one reader."""

    name: str
    checksum: bool
    inputs: int = 0
    errors: int = 0
    same: int = 0
    absent: int = 0
    other: int = 0
    tracebacks: int = 0
    hangs: int = 0
    mib: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    """What went wrong, with the input's number."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing happened that must not."""
        silent = self.other if self.checksum else 0
        return not (self.tracebacks or self.hangs or silent) and self.mib <= RESIDENT_MIB


class CountsAsAbsentError(Exception):
    """Raised by `read` where damaged content counts as absent, and the work is done again."""


def fingerprint(value: Any) -> str:
    """A digest that equal values share: arrays, tensors, dataclasses, lists, numbers, text."""
    total = hashlib.sha256()
    _add(total, value)
    return total.hexdigest()


def _add(total: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        total.update(f"{value.shape}{value.dtype}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            _add(total, [str(key), value[key]])
    elif is_dataclass(value):
        _add(total, {f.name: getattr(value, f.name) for f in fields(value)})
    elif isinstance(value, list | tuple | Iterator):
        total.update(b"[")
        for part in value:
            _add(total, part)
        total.update(b"]")
    else:
        total.update(f"{type(value).__name__}{value!r}".encode())


# ---------------------------------------------------------------- one reader, in its own process


@contextmanager
def _time_limit() -> Iterator[None]:
    def ended(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS_EACH} s")

    signal.signal(signal.SIGALRM, ended)
    signal.alarm(SECONDS_EACH)
    try:
        yield
    finally:
        signal.alarm(0)


def _read_once(reader: FuzzReader, folder: Path) -> str:
    """The digest of what is read, as a new program would read it."""
    store_check._CHECKS.clear()
    store_check._COMPLETE.clear()
    with _time_limit():
        return fingerprint(reader.read(folder))


def _count(reader: FuzzReader, folder: Path, outcome: Outcome, sound: str) -> str:
    """Reads a changed folder and counts the outcome; returns its name."""
    try:
        found = _read_once(reader, folder)
    except RetraceError as error:
        lines = str(error).strip().splitlines()
        if len(lines) != 1:
            outcome.tracebacks += 1
            return f"the message has {len(lines)} lines: {error}"
        outcome.errors += 1
        return f"error: {error}"
    except CountsAsAbsentError:
        outcome.absent += 1
        return "absent"
    except TimeoutError as error:
        outcome.hangs += 1
        return f"hang: {error}"
    except BaseException:
        outcome.tracebacks += 1
        return traceback.format_exc(limit=-4)
    outcome.same += found == sound
    outcome.other += found != sound
    return "same" if found == sound else "other"


def _resident_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def fuzz(reader: FuzzReader, folder: Path, inputs: int, seed: int, log: Any) -> Outcome:
    """Counts for one reader; `log`: a file that gets a line for each input."""
    reader.write(folder)
    outcome = Outcome(reader.name, reader.checksum)
    paths = sorted(p for p in folder.glob(reader.files) if p.is_file())
    whole = {path: path.read_bytes() for path in paths}
    sound = _read_once(reader, folder)
    assert sound == _read_once(reader, folder), f"{reader.name}: two reads differ"
    begin, before = time.monotonic(), _resident_mib()
    for number in range(inputs):
        rng = random.Random(f"{reader.name} {seed} {number}")
        path = rng.choice(paths)
        path.write_bytes(mutated(whole[path], rng))
        result = _count(reader, folder, outcome, sound)
        outcome.inputs += 1
        is_fault = result.startswith(("Traceback", "hang", "the message")) or (
            result == "other" and reader.checksum
        )
        if is_fault and len(outcome.faults) < 5:
            outcome.faults.append(f"input {number} ({path.relative_to(folder)}): {result}")
        print(f"{number} {path.relative_to(folder)} {result}", file=log, flush=True)
        path.write_bytes(whole[path])
    gc.collect()
    outcome.seconds = round(time.monotonic() - begin, 1)
    outcome.mib = _resident_mib() - before
    return outcome


def _child(reader: FuzzReader, work: Path, inputs: int, seed: int) -> None:
    """Runs `fuzz` in this process, and writes its outcome to work/outcome.json."""
    os.environ["TMPDIR"] = str(work)
    tempfile.tempdir = None
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    torch.set_num_threads(1)
    folder = work / "files"
    folder.mkdir()
    os.chdir(folder)
    with (work / "stderr").open("w") as quiet, (work / "log").open("w") as log:
        os.dup2(quiet.fileno(), 2)
        os.dup2(quiet.fileno(), 1)
        outcome = fuzz(reader, folder, inputs, seed, log)
    printed = (work / "stderr").read_text(errors="replace").splitlines()
    if printed:  # the only line that users see is to be the error
        outcome.tracebacks += 1
        outcome.faults.append(f"{len(printed)} lines were printed, such as {printed[:5]}")
    (work / "outcome.json").write_text(json.dumps(asdict(outcome)))


# ---------------------------------------------------------------- all readers


@dataclass
class Running:
    """A forked process with one reader."""

    reader: FuzzReader
    work: Path
    process: int
    seen: str = ""
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, reader: FuzzReader, work: Path, inputs: int, seed: int) -> Running:
        """Forks: the libraries are loaded once, for all readers."""
        work.mkdir()
        process = os.fork()
        if process == 0:
            status = 1
            try:
                _child(reader, work, inputs, seed)
                status = 0
            except BaseException:
                (work / "failed").write_text(traceback.format_exc())
            finally:
                os._exit(status)
        return cls(reader, work, process)

    def is_over(self) -> bool:
        """Whether the process has ended; one that makes no progress is ended."""
        with suppress(ChildProcessError):
            if os.waitpid(self.process, os.WNOHANG)[0]:
                return True
        log = self.work / "log"
        size = str(log.stat().st_size) if log.is_file() else ""
        if size != self.seen:
            self.seen, self.since = size, time.monotonic()
        elif time.monotonic() - self.since > SECONDS_SILENT:
            os.kill(self.process, signal.SIGKILL)
        return False

    def outcome(self) -> Outcome:
        """What the process wrote; a crash or a hang if it wrote nothing."""
        file = self.work / "outcome.json"
        if file.is_file():
            return Outcome(**json.loads(file.read_text()))
        failed = self.work / "failed"
        text = (
            failed.read_text() if failed.is_file() else "the process crashed, or made no progress"
        )
        log = self.work / "log"
        lines = log.read_text().splitlines() if log.is_file() else []
        found = Outcome(self.reader.name, self.reader.checksum, len(lines), tracebacks=1)
        found.faults.append(f"after input {len(lines) - 1}: {text}")
        return found


def fuzz_all(
    readers: Sequence[FuzzReader], inputs: int, seed: int, processes: int, keep: Path
) -> list[Outcome]:
    """The outcome of each reader."""
    waiting, running, outcomes = list(readers), [], {}
    while waiting or running:
        while waiting and len(running) < processes:
            reader = waiting.pop(0)
            work = keep / reader.name.replace(" ", "_").replace("/", "-")
            running.append(Running.start(reader, work, inputs, seed))
        time.sleep(0.02)
        for one in [one for one in running if one.is_over()]:
            running.remove(one)
            outcomes[one.reader.name] = one.outcome()
    return [outcomes[reader.name] for reader in readers]


COUNTS = ("inputs", "errors", "absent", "same", "other")


def table(outcomes: Sequence[Outcome]) -> str:
    """The counts as a Markdown table, as in docs/results.md."""
    rows = [
        "| reader | inputs | clear errors | done again | same values | other values | checksum |"
        " tracebacks | hangs | MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        cells = [getattr(one, name) for name in COUNTS]
        cells += ["yes" if one.checksum else "no", one.tracebacks, one.hangs, one.mib]
        rows.append(f"| {one.name} | {' | '.join(map(str, cells))} |")
    with_checksum = [one for one in outcomes if one.checksum]
    total = [sum(getattr(one, name) for one in outcomes) for name in COUNTS]
    silent = sum(one.other for one in with_checksum)
    ends = [sum(getattr(o, n) for o in outcomes) for n in ("tracebacks", "hangs")]
    last = [
        *total,
        f"{silent} of {len(with_checksum)} readers",
        *ends,
        max(o.mib for o in outcomes),
    ]
    rows.append(f"| **all {len(outcomes)}** | {' | '.join(map(str, last))} |")
    return "\n".join(rows)
