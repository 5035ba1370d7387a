"""A Python that starts at once: a fork of a server that has imported the packages already.

Importing takes most of the time of a plan, and of a job on tiny volumes. `program()` is a command
for `python` that runs `-m snakemake` and scripts in forks of servers, and anything else in Python
itself. A fork has the arguments, folder, environment, streams and end of a process of its own. Each
program, and the library of another clone, is imported in it again. Signals are passed on to it, but
it is in a process group of its own: tests about processes, signals or memory start Python itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from warm_command import FORWARDED, at_import

SERVERS = {
    "snakemake": "boto3 numpy pydantic smart_open snakemake.cli snakemake.report yaml",
    "scripts": (
        "PIL.Image boto3 cc3d fastremap filelock h5py jinja2 matplotlib.pyplot mwatershed numba"
        " numcodecs obstore openvino openvino.frontend.pytorch.ts_decoder psutil pydantic"
        " safetensors.torch scipy.ndimage scipy.optimize scipy.spatial skimage.filters"
        " skimage.measure skimage.morphology skimage.segmentation tifffile torch"
        " torch.utils.tensorboard tqdm waterz yaml zarr"
    ),
}
"""The packages that each server imports."""
REPOSITORY = Path(__file__).resolve().parent.parent
CODE = REPOSITORY / "workflow" / "scripts"
OWN = {
    "snakemake": [f"retrace.planning.{p.stem}" for p in (CODE / "retrace/planning").glob("*.py")],
    "scripts": [path.stem for path in CODE.glob("*.py")],
}
"""What each server imports of this repository."""


@cache
def program() -> str:
    """The command; its servers start with the first call, and end with this process."""
    return start({name: [*SERVERS[name].split(), *OWN[name]] for name in SERVERS})


def start(servers: Mapping[str, Sequence[str]]) -> str:
    """Starts servers with the modules that each imports; the command that asks them."""
    folder = Path(tempfile.mkdtemp(prefix="retrace-warm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "environment.json").write_text(json.dumps(at_import(os.environ)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    path = folder / "python"
    for name, modules in servers.items():
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / name))
            listener.listen(64)
            number = listener.fileno()
            command = [sys.executable, __file__, str(path), str(number), *modules]
            server = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, pass_fds=[number]
            )
        atexit.register(server.kill)
    asking = Path(__file__).with_name("warm_command.py")
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {asking} {folder} "$@"\n')
    path.chmod(0o755)
    return str(path)


def serve(modules: Sequence[str], listener: socket.socket) -> dict[str, Any]:
    """Forks for each request, and returns it in the fork; ends with the process that started it."""
    wait_for_request(listener)  # nothing is imported for tests that need nothing
    sys.path.insert(0, str(CODE))
    for module in modules:
        with contextlib.suppress(ImportError):  # a program that needs it says so
            importlib.import_module(module)
    if "snakemake.cli" in sys.modules:
        sys.modules["snakemake.cli"].get_argument_parser()  # imports the plugins, also our own
    sys.path.remove(str(CODE))
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        wait_for_request(listener)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return accompany(connection)
        connection.close()


def wait_for_request(listener: socket.socket) -> None:
    """Returns when a request is there; ends with the tests, who hold the other end of the input."""
    ready, _, _ = select.select([listener, sys.stdin], [], [])
    if sys.stdin in ready:
        sys.exit()


def forget_own_modules() -> None:
    """Drops the modules of this repository, for the code of another clone."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(f"{CODE}{os.sep}"):
            del sys.modules[name]


def accompany(connection: socket.socket) -> dict[str, Any]:
    """Reads a request and forks for it; returns it there, and reports here how that fork ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as file:
        request: dict[str, Any] = json.loads(file.read(int.from_bytes(length, "big")))
    child = os.fork()
    if child == 0:
        connection.close()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        return request
    for stream in streams:
        os.close(stream)
    pass_signals(connection, child)
    _, status = os.waitpid(child, 0)
    connection.sendall(str(status).encode())
    os._exit(0)


def pass_signals(connection: socket.socket, child: int) -> None:
    """Sends a process what its command receives, until it ends; SIGKILL if the command is gone."""
    ended = os.pidfd_open(child)
    while ended not in select.select([connection, ended], [], [])[0]:
        received = connection.recv(1)
        os.kill(child, received[0] if received else signal.SIGKILL)
        if not received:
            os._exit(0)


def become(request: dict[str, Any], executable: str) -> None:
    """Makes this fork what Python is when it has started with the request."""
    os.setpgid(0, 0)
    for number in FORWARDED:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        sys.modules["torch"].set_num_threads(threads)
    sys.executable = executable
    if not is_own(request["arguments"]):
        forget_own_modules()
    own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[1:1] = own
    importlib.invalidate_caches()
    if own and importlib.util.find_spec("sitecustomize"):
        sys.modules.pop("sitecustomize", None)  # Debian's Python has one of its own
        importlib.import_module("sitecustomize")


def is_own(arguments: Sequence[str]) -> bool:
    """Whether arguments name a program, or the Snakefile, of this repository."""
    if arguments[0] != "-m":
        return Path(arguments[0]).resolve().parent == CODE
    named = [Path(file) for option, file in pairwise(arguments) if option == "--snakefile"]
    return [file.resolve() for file in named] == [REPOSITORY / "Snakefile"]


def run(arguments: list[str]) -> None:
    """Runs a module or a script as Python does."""
    if arguments[0] == "-m":
        sys.path[0], sys.argv = str(Path.cwd()), arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(arguments[0]).resolve().parent), arguments
        runpy.run_path(arguments[0], run_name="__main__")


def run_to_the_end(arguments: list[str]) -> None:
    """Runs a program, and ends this process; one that fails ends as Python does.

    Its memory is left to the system. Python would visit the objects of all modules, and so copy the
    pages that forks share: half a second of a core for a program that does nothing.
    """
    status = 0
    try:
        run(arguments)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        status = ended.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    asked = serve(sys.argv[3:], socket.socket(fileno=int(sys.argv[2])))
    become(asked, sys.argv[1])
    run_to_the_end(asked["arguments"])
