"""What tests of clusters share: a tiny network, a profile edited as a user does, and the run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
VOLUME = ["--shape", "24", "80", "80", "--margin", "12", "24", "24", "--chunks", "16", "32", "32"]
"""Options of phantom.py that make volumes which a tiny network just fits into."""


def write_network(folder: Path, name: str = "tiny", checkpoint_every: int = 1_000_000) -> None:
    """A network two maps wide, as `folder`'s own; by default its state is saved only at a stop."""
    content = {
        "name": name,
        "extends": "mtlsd_small",
        "fmaps": 2,
        "fmaps_out": 2,
        "checkpoint_every": checkpoint_every,
        "recipes": {"anisotropic": {"fmap_factor": 2, "input_shape": [24, 52, 52]}},
    }
    path = folder / "config" / "networks" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))


def edited_profile(folder: Path, name: str, **values: str) -> Path:
    """A copy in `folder` of profiles/NAME with other values in the block that users edit."""
    copy = folder / "profiles" / name
    copy.mkdir(parents=True)
    for file in (REPOSITORY / "profiles" / name).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
        (copy / file.name).chmod(file.stat().st_mode)
    text = (copy / "profile.yaml").read_text()
    for key, value in values.items():
        text, count = re.subn(rf"^  {key}: [^#\n]*", f"  {key}: {value} ", text, flags=re.M)
        assert count == 1, f"{key} stands {count} times in profiles/{name}"
    (copy / "profile.yaml").write_text(text)
    return copy


def start(
    place: Path, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Snakemake in the working directory `place`; what it prints goes to `log`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    with log.open("wb") as file:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=place,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
