"""Runs programs of several environments in turn, on the same inputs, and compares their results.

A comparison is a file of this folder. It runs once as the parent, which prints the rows, and once
for each contender with `--serve NAME FOLDER`, in the contender's environment: there it prepares
its inputs, then works each time it is asked to. Hence imports and start-ups are not timed, and
contenders alternate. This module and the tops of the comparisons need only the standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / "work" / "peers"
HEADING = ("work", "peer", "ours", "peer's", "ours is", "difference of the results")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PATIENCE_S = 600
"""An environment that takes longer to make is given up."""

Work = Callable[[], Any]
"""What is timed. Its value is the result, or a function that returns it."""


@dataclass(frozen=True)
class Contender:
    """A program: `prepare` gets the folder of inputs and returns the work that is timed.

    `pins`: packages of its environment; none: that of this project.
    """

    name: str
    prepare: Callable[[Path], Work]
    pins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Contenders for one piece of work; the first one is ours.

    `make` writes the inputs, and may return a function that cleans up. `amount` of `unit` is the
    work of one run. `difference` describes how two results differ, each as `load` reads it.
    `wall`: by the clock, for work that waits; else by the processor time of all threads.
    """

    file: str
    title: str
    make: Callable[[Path], Callable[[], None] | None]
    contenders: tuple[Contender, ...]
    amount: float
    unit: str
    difference: Callable[[Any, Any], str]
    wall: bool = False


class UnavailableError(Exception):
    """A contender that cannot take part; the message says why."""


# ---------------------------------------------------------------- environments


def environment(pins: Sequence[str]) -> Path:
    """The interpreter of an environment with these packages, made with uv on first use.

    The package index is that of the user's configuration. UnavailableError if it cannot be made.
    """
    if not pins:
        return Path(sys.executable)
    name = hashlib.sha256(" ".join(pins).encode()).hexdigest()[:12]
    folder = ENVIRONMENTS / name
    python, finished = folder / "bin" / "python", folder / "finished"
    if finished.is_file():
        return python
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if uv is None:
        raise UnavailableError("uv is not installed")
    shutil.rmtree(folder, ignore_errors=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for command in (
        [uv, "venv", "--quiet", "--python", version, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *pins],
    ):
        run_quietly(command)
    finished.write_text("\n".join(pins) + "\n")
    return python


def run_quietly(command: Sequence[str]) -> None:
    """Runs a command; UnavailableError with its last line if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{Path(command[0]).name} took more than {PATIENCE_S} s") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UnavailableError(lines[-1] if lines else f"{command[0]} failed")


# ---------------------------------------------------------------- a contender's process


def serve(contender: Contender, folder: Path, wall: bool) -> None:
    """Works each time a line arrives: `run` is timed, `save` writes the last result."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print to the standard output
    work, result = contender.prepare(folder), None
    clock = time.perf_counter if wall else time.process_time
    print("ready", file=answers)
    for line in sys.stdin:
        if line.strip() == "save":
            save(folder / f"{contender.name}.result", result)
            print("saved", file=answers)
            continue
        begin = clock()
        result = work()
        print(clock() - begin, file=answers)


def save(file: Path, result: Any) -> None:
    """A result: an array as .npy, anything else as JSON."""
    value = result() if callable(result) else result
    if hasattr(value, "dtype"):
        import numpy as np

        with file.open("wb") as opened:
            np.save(opened, value)
    else:
        file.write_text(json.dumps(value))


def load(file: Path) -> Any:
    """What `save` wrote."""
    if file.read_bytes()[:6] == b"\x93NUMPY":
        import numpy as np

        return np.load(file)
    return json.loads(file.read_text())


class Server:
    """The process of a contender, ready to work; UnavailableError if it does not get so far."""

    def __init__(self, comparison: Comparison, contender: Contender, folder: Path) -> None:
        self.contender, self.result = contender, folder / f"{contender.name}.result"
        command = [str(environment(contender.pins)), comparison.file, "--serve", contender.name]
        one_thread = {} if comparison.wall else dict.fromkeys(THREAD_VARIABLES, "1")
        self.errors = folder / f"{contender.name}.errors"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **one_thread},
            )
        self._answer()

    def ask(self, what: str) -> str:
        """The answer to `run` (seconds) or `save`."""
        with suppress(BrokenPipeError):  # its errors say why
            print(what, file=_pipe(self.process.stdin), flush=True)
        return self._answer()

    def _answer(self) -> str:
        answer = _pipe(self.process.stdout).readline().strip()
        if not answer:
            self.process.wait()
            lines = self.errors.read_text().strip().splitlines()
            raise UnavailableError(
                lines[-1] if lines else f"it ended with {self.process.returncode}"
            )
        return answer

    def close(self) -> None:
        """Ends the process."""
        _pipe(self.process.stdin).close()
        self.process.wait()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


# ---------------------------------------------------------------- the comparison


def compare(comparison: Comparison, repeats: int) -> list[Sequence[str]]:
    """A row for each peer: rates, ratio with spread, how the results differ."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clean_up = comparison.make(folder)
        try:
            return _rows(comparison, folder, repeats)
        finally:
            if clean_up:
                clean_up()


def _rows(comparison: Comparison, folder: Path, repeats: int) -> list[Sequence[str]]:
    servers: dict[str, Server] = {}
    absent: dict[str, str] = {}
    for contender in comparison.contenders:
        try:
            servers[contender.name] = Server(comparison, contender, folder)
        except UnavailableError as error:
            absent[contender.name] = str(error)
    try:
        seconds = alternate(servers, repeats, absent)
        return [_row(comparison, peer, servers, seconds, absent) for peer in _peers(comparison)]
    finally:
        for server in servers.values():
            server.close()


def _peers(comparison: Comparison) -> list[str]:
    return [contender.name for contender in comparison.contenders[1:]]


def alternate(
    servers: Mapping[str, Server], repeats: int, absent: dict[str, str]
) -> dict[str, list[float]]:
    """Seconds of each contender; each round begins with another one, the first is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    names = list(servers)
    for turn in range(repeats + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if name in absent:
                continue
            try:
                taken = float(servers[name].ask("run"))
            except UnavailableError as error:
                absent[name] = str(error)
                continue
            if turn:
                seconds[name].append(taken)
    return seconds


def _row(
    comparison: Comparison,
    peer: str,
    servers: Mapping[str, Server],
    seconds: Mapping[str, Sequence[float]],
    absent: Mapping[str, str],
) -> Sequence[str]:
    ours = comparison.contenders[0].name
    missing = next((name for name in (ours, peer) if name in absent), None)
    if missing:
        return (comparison.title, peer, "", "", f"not compared: {missing}: {absent[missing]}", "")
    rates = [comparison.amount / statistics.median(seconds[name]) for name in (ours, peer)]
    ratios = [b / a for a, b in zip(seconds[ours], seconds[peer], strict=True)]
    try:
        for name in (ours, peer):
            servers[name].ask("save")
        difference = comparison.difference(load(servers[ours].result), load(servers[peer].result))
    except UnavailableError as error:
        difference = f"not compared: {error}"
    return (
        comparison.title,
        peer,
        *(f"{rate:.3g} {comparison.unit}" for rate in rates),
        verdict(ratios),
        difference,
    )


def verdict(ratios: Sequence[float]) -> str:
    """`2.1 × (1.9 to 2.2): ahead`; "ahead" or "behind" only where every round says so."""
    middle = statistics.median(ratios)
    word = "ahead" if min(ratios) > 1 else "behind" if max(ratios) < 1 else "level"
    return f"{middle:.3g} × ({min(ratios):.3g} to {max(ratios):.3g}): {word}"


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main(comparison: Comparison) -> None:
    """The command line of a comparison."""
    parser = argparse.ArgumentParser(description=comparison.title)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", action="store_true", help="print rows without the heading")
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        name, folder = args.serve
        contender = next(c for c in comparison.contenders if c.name == name)
        serve(contender, Path(folder), comparison.wall)
        return
    if not args.rows:
        print(row(HEADING) + "\n|" + "---|" * len(HEADING))
    for cells in compare(comparison, args.repeats):
        print(row(cells), flush=True)


def ours() -> None:
    """Makes `import retrace` work."""
    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
