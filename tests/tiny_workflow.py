"""The workflow on tiny phantoms: networks, server, runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import phantom
import s3_server
import warm_python
from built_networks import built
from retrace.checkpoints.published import write_published
from retrace.config import datasets, networks

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = {"fmap_factor": 2, "input_shape": [24, 52, 52]}
"""What makes a network tiny, besides being two maps wide."""
VOLUME = ["--shape", "24", "80", "80", "--margin", "12", "24", "24", "--chunks", "16", "32", "32"]
"""Options of phantom.py that make volumes which a tiny network just fits into."""
CHECKPOINTS = "funke/phantom/training/checkpoints"
ONE_CORE = ("train", "predict", "fragments", "choose_threshold", "evaluate")
"""Rules whose jobs run side by side here."""


WORKFLOW_PARTS = ("Snakefile", "README.md", "rules", "config", "workflow", "profiles")
BUILD_PARTS = ("containers", "envs")


def copy_workflow(folder: Path) -> Path:
    """Copies the code and the recipes of the workflow into `folder`, without images.

    Compiled modules are copied too: programs of the copy start as fast as those of the repository.
    """
    ignore = shutil.ignore_patterns("images", "*.pyc.*", "*.nb[ci]*")  # *.pyc.*: half written
    for part in WORKFLOW_PARTS + BUILD_PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignore)
        else:
            shutil.copy2(source, folder / part)
    return folder


def threads(rules: Sequence[str] = ONE_CORE) -> list[str]:
    """The option that gives each of the rules one core."""
    return ["--set-threads", *(f"{rule}=1" for rule in rules)]


def write_network(
    folder: Path, name: str = "tiny", base: str = "mtlsd_small", **more: object
) -> None:
    """A network two maps wide, as `folder`'s own; `more` are further keys of its file."""
    content = {
        "name": name,
        "extends": base,
        "fmaps": 2,
        "fmaps_out": 2,
        "recipes": {"anisotropic": TINY},
        **more,
    }
    path = folder / "config" / "networks" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))


def edited(text: str, **values: object) -> str:
    """A YAML text with other values for settings, each of which occurs once."""
    for key, value in values.items():
        line = rf"^( *){key}: [^#\n]*"
        text, count = re.subn(line, rf"\g<1>{key}: {value} ", text, flags=re.M)
        assert count == 1, f"{key} stands {count} times"
    return text


def edited_profile(folder: Path, name: str, **values: str) -> Path:
    """A copy in `folder` of profiles/NAME with other values in the block that users edit."""
    copy = folder / "profiles" / name
    copy.mkdir(parents=True)
    for file in (REPOSITORY / "profiles" / name).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
        (copy / file.name).chmod(file.stat().st_mode)
    text = (copy / "profile.yaml").read_text()
    (copy / "profile.yaml").write_text(edited(text, **values))
    return copy


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The address of an S3 server with the phantoms; `options` are more of phantom.py's."""
    with s3_server.serving() as address:
        phantom.main(["upload", "--endpoint", address, *VOLUME, *options])
        yield address


def publish(endpoint: str, folder: Path, name: str, **options: Any) -> None:
    """Uploads a checkpoint of the untrained network `name` in the authors' layout.

    Run in the working directory of the network; the files are written to `folder`.
    """
    network = networks.network_for(name, datasets.load_dataset("phantom"))
    prefix = write_published(folder, built(network, seed=5), 400, **options)
    client = s3_server.writer(endpoint)
    for file in prefix.parent.iterdir():
        key = f"{CHECKPOINTS}/{name}/{file.name}"
        client.put_object(Bucket="open-neurodata", Key=key, Body=file.read_bytes())


def start(
    place: Path,
    arguments: Sequence[str],
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    in_own_group: bool = False,
    python: str = sys.executable,
) -> subprocess.Popen[str]:
    """Snakemake in the working directory `place`; what it prints goes to `log`, or into a pipe.

    `in_own_group`: a signal can be sent to it and its jobs together, as a terminal does.
    `python`: the program that runs it, and its jobs.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [python, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    output = log.open("w") if log else subprocess.PIPE
    try:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=place,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0 if in_own_group else None,
        )
    finally:
        if not isinstance(output, int):
            output.close()


def finish(
    place: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Runs Snakemake in `place`, in forks of warm_python; its status and its output."""
    python = warm_python.program()
    with start(place, arguments, environment=environment, python=python) as process:
        printed, _ = process.communicate()
    return process.returncode, printed


def succeed(
    place: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> str:
    """The output of Snakemake in `place`; AssertionError with its end if it fails."""
    status, printed = finish(place, arguments, environment)
    assert status == 0, printed[-6000:]
    return printed
