"""A real container registry on the loopback (Debian's `docker-registry`) that asks for a login."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from kill import PATIENCE_S

USER, PASSWORD = "lab", "secret"
BCRYPT = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
"""That of the password, as htpasswd writes it."""


def free_port() -> int:
    """A port of the loopback that nobody uses at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serving(program: str, folder: Path) -> Iterator[str]:
    """`HOST:PORT` of a registry that keeps its content in `folder`, until the end."""
    host = f"127.0.0.1:{free_port()}"
    (folder / "htpasswd").write_text(f"{USER}:{BCRYPT}\n")
    content = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "content")}},
        "http": {"addr": host, "secret": "of tests"},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    }
    (folder / "registry.yml").write_text(yaml.safe_dump(content))
    with (folder / "registry.log").open("w") as log:
        process = subprocess.Popen(
            [program, "serve", str(folder / "registry.yml")], stdout=log, stderr=log
        )
    try:
        wait_for(process, host, folder / "registry.log")
        yield host
    finally:
        process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], host: str, log: Path) -> None:
    """Returns as soon as the registry takes connections."""
    name, _, port = host.partition(":")
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex((name, int(port))) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"the registry does not start: {log.read_text()}")


def own_logins(folder: Path) -> dict[str, str]:
    """An environment in which Apptainer keeps its logins and its cache in `folder`."""
    return {
        **os.environ,
        "APPTAINER_CONFIGDIR": str(folder / "logins"),
        "APPTAINER_CACHEDIR": str(folder / "cache"),
    }
