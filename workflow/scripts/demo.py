"""Runs the whole workflow on generated volumes, on this machine alone: `make demo`.

Starts an S3 server on the loopback, uploads generated volumes under the keys of the real bucket,
and has Snakemake fetch, mask, train, predict, segment, evaluate and show one small experiment.
Prints its scores next to those of an untrained watershed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, RetraceError, run
from retrace.evaluation.plots import scores_table
from retrace.planning.container_images import image_path

REPOSITORY = Path(__file__).resolve().parents[2]
EXPERIMENT = "phantom_mtlsd_small"
RESULTS = Path("results/phantom/mtlsd_small")
PREFERRED_PORT = 5557
"""Tried first: with the same address, a second demo reuses the fetched data."""
CONTAINER_CHOICES = ("auto", "always", "never")


def listen(preferred: int) -> socket.socket:
    """A socket of the loopback that listens on port `preferred`, or else on any free port.

    It already listens, so that no other program can take the port in between. RetraceError where
    no port is free.
    """
    for port in (preferred, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(128)
            return listener
        except OSError:
            listener.close()
    raise RetraceError("no port of the loopback is free; stop a program that listens there")


@contextmanager
def s3_server() -> Iterator[str]:
    """An S3 server in this process; yields its address."""
    from moto.moto_server import werkzeug_app as moto
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # otherwise a line per request
    with listen(PREFERRED_PORT) as listener:
        host, port = listener.getsockname()
        server = make_server(
            *(host, port, moto.DomainDispatcherApplication(moto.create_backend_app)),
            threaded=True,
            request_handler=moto.MotoRequestHandler,
            fd=listener.fileno(),
        )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.shutdown()
        thread.join()


def choose_containers(setting: str, image: Path) -> tuple[bool, str]:
    """Whether the rules run in the image, and the reason in one line.

    `auto` uses an image only if it exists: building one takes minutes and hundreds of megabytes,
    too much for a first try. ConfigError if `setting` is unknown or impossible.
    """
    if setting not in CONTAINER_CHOICES:
        raise ConfigError(f"RETRACE_CONTAINERS is {setting!r}; allowed: {CONTAINER_CHOICES}")
    program = shutil.which("apptainer") or shutil.which("singularity")
    if setting == "never":
        return False, "host environment (RETRACE_CONTAINERS=never)"
    if program is None:
        if setting == "always":
            raise ConfigError(
                "RETRACE_CONTAINERS=always, but neither apptainer nor singularity is on the PATH"
            )
        return False, "host environment (no apptainer or singularity on the PATH)"
    if setting == "always" or image.exists():
        return True, f"container image {image.name}"
    return False, "host environment (no image yet: `make image` builds it)"


def snakemake_command(
    containers: bool, config: Sequence[str], extra: Sequence[str] = ()
) -> list[str]:
    """The command a user would type for this experiment, with the demo's configuration."""
    return [
        *(sys.executable, "-m", "snakemake", f"evaluate_{EXPERIMENT}", f"view_{EXPERIMENT}"),
        *("--quiet", "host", "reason", "rules"),
        "--nolock",  # an interrupted demo must not block the next one
        *("--cores", "all", "--configfile", "config/demo.yaml"),
        *("--config", *config),
        *(["--use-singularity"] if containers else []),
        *extra,
    ]


def environment() -> dict[str, str]:
    """Environment of Snakemake, in which `python` is the one that runs this demo."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def score_lines(evaluation: dict[str, Any]) -> list[str]:
    """A table of scores per volume: those of the network and of an untrained watershed."""
    lines = []
    for volume, scores in evaluation["volumes"].items():
        untrained = scores["untrained_watershed"]
        table = scores_table({"this network": scores, "untrained watershed": untrained})
        lines += ["", volume, *table.splitlines()]
    return [*lines, "", "lower is better"]


def run_demo(config: Sequence[str], extra: Sequence[str]) -> None:
    """Serves the volumes and runs Snakemake on them; RetraceError where it fails.

    `config`: KEY=VALUE settings; `extra`: further options of Snakemake.
    """
    image = image_path(REPOSITORY, REPOSITORY / "containers" / "images", "modern")
    containers, where = choose_containers(os.environ.get("RETRACE_CONTAINERS", "auto"), image)
    print(f"[demo] every step runs in: {where}", flush=True)
    with s3_server() as endpoint:
        upload = [sys.executable, "workflow/scripts/phantom.py", "upload", "--endpoint", endpoint]
        subprocess.run(upload, cwd=REPOSITORY, check=True)
        command = snakemake_command(containers, [f"endpoint_url={endpoint}", *config], extra)
        print("[demo] " + " ".join(["snakemake", *command[3:]]), flush=True)
        status = subprocess.run(command, cwd=REPOSITORY, env=environment(), check=False).returncode
    if status != 0:
        raise RetraceError(f"snakemake failed with status {status}; its last lines name the log")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the demo and prints its scores; unknown options go to Snakemake."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="settings")
    args, extra = parser.parse_known_args(argv)
    started = time.monotonic()
    run_demo(args.config, extra)
    evaluation = json.loads((REPOSITORY / RESULTS / "evaluation.json").read_text())
    print("\n".join(score_lines(evaluation)))
    print(f"scores   {RESULTS / 'evaluation.json'}")
    print(f"curve    {RESULTS / 'evaluation.png'}")
    print(f"picture  {RESULTS / 'view.png'}")
    print(f"[demo] {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    run(main)
