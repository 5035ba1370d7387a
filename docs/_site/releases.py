"""Looks up the last releases of the direct dependencies: `python docs/_site/releases.py UV`.

UV is the program uv. It asks the package index for the newest version of each package that runs
on a current Python.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any

import yaml
from dependencies_page import RELEASES, direct

PYTHON = "3.13"
ENDED = {"tensorflow-gpu"}
"""Packages that cannot be installed any more; their entry in releases.yaml is kept."""


def newest(uv: str, names: list[str]) -> dict[str, str]:
    """The newest version of each package and the day of its upload."""
    options = ["--quiet", "--no-deps", "--python-version", PYTHON, "--format", "pylock.toml", "-"]
    command, asked = [uv, "pip", "compile", *options], "\n".join(names)
    done = subprocess.run(command, input=asked, text=True, capture_output=True, check=True)
    return {one["name"]: _said(one) for one in tomllib.loads(done.stdout)["packages"]}


def _said(package: dict[str, Any]) -> str:
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    days = sorted(f"{file['upload-time']:%Y-%m-%d}" for file in files)
    return f"{package['version']} ({days[-1]})"


if __name__ == "__main__":
    names = sorted(name for names in direct().values() for name in names if name not in ENDED)
    kept = yaml.safe_load(RELEASES.read_text())
    RELEASES.write_text(yaml.safe_dump({**kept, **newest(sys.argv[1], names)}))
