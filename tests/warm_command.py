"""The command of warm_python: lets a server run its arguments, and ends as the fork ends.

Started as `python -IS warm_command.py FOLDER ARGUMENT...`; it imports little, to start at once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping

AT_IMPORT = ("OMP_", "MKL_", "OPENBLAS_", "ONEDNN_", "TORCH_", "NUMBA_", "MPL", "LD_", "PYTHON")
"""Beginnings of the names of variables that packages read when they are imported."""
IN_FORKS = ("PYTHONPATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Those of them that a fork follows all the same."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def at_import(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a server has to share with its forks."""
    names = [n for n in environment if n.startswith(AT_IMPORT) and n not in IN_FORKS]
    return {name: environment[name] for name in names}


def server_for(folder: str, arguments: list[str]) -> str | None:
    """The socket of the server that can run the arguments in this environment."""
    if arguments[:2] == ["-m", "snakemake"]:
        return f"{folder}/snakemake"
    with open(f"{folder}/environment.json") as file:  # noqa: PTH123
        environment = json.load(file)
    is_script = bool(arguments) and arguments[0].endswith(".py")
    return f"{folder}/scripts" if is_script and at_import(os.environ) == environment else None


def ask(address: str, arguments: list[str]) -> int:
    """Sends arguments, folder, environment and streams; returns the status of the ended fork."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    ignored = [n for n in FORWARDED if signal.getsignal(n) == signal.SIG_IGN]
    for number in set(FORWARDED).difference(ignored):
        signal.signal(number, lambda received, _: connection.sendall(bytes([received])))
    request = {"arguments": arguments, "folder": os.getcwd(), "ignored": ignored}  # noqa: PTH109
    text = json.dumps({**request, "environment": dict(os.environ)}).encode()
    socket.send_fds(connection, [len(text).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(text)
    return int(connection.recv(16))


def main() -> None:
    """Ends with the exit status, or by the signal, of the fork."""
    folder, *arguments = sys.argv[1:]
    address = server_for(folder, arguments)
    if address is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    status = ask(address, arguments)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
