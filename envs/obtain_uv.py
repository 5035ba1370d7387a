"""Provides FOLDER/bin/uv, of the version that a lock names.

    python3 envs/obtain_uv.py envs/uv.txt FOLDER

Python 3.8 or newer runs this. It needs no virtual environment, and no pip: without pip it takes the
wheel from the package index (UV_DEFAULT_INDEX, PIP_INDEX_URL, or the public one) and compares its
sha256 with the lock. A uv of this version on the PATH is used as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import urljoin

PUBLIC_INDEX = "https://pypi.org/simple"
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"


def version_of(program: str) -> str:
    """`uv 0.13.9 (...)` -> `0.13.9`; empty if the program does not run."""
    try:
        said = subprocess.run([program, "--version"], stdout=subprocess.PIPE, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.decode().split()[1]


def locked_version(lock: Path) -> str:
    """The version of `uv==VERSION` in the lock."""
    found = re.search(r"^uv==(\S+)", lock.read_text(), re.MULTILINE)
    if not found:
        raise SystemExit(f"error: {lock} has no line uv==VERSION; take it from git again")
    return found.group(1)


def install_with_pip(lock: Path, folder: Path) -> None:
    """Installs with this Python's own pip, which knows this machine's package index."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--upgrade", "--target", str(folder)]
    # Standard output is this program's answer.
    done = subprocess.run([*command, "-r", str(lock)], stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit("error: pip could not install uv (see above); install uv yourself")


def refuse_system() -> None:
    """Ends with one line where the packages of the locks do not exist."""
    if sys.platform in ("win32", "cygwin", "msys"):
        why = "Windows itself; install WSL (wsl --install), then clone and set up inside it"
    elif sys.platform == "darwin" and platform.machine() == "x86_64":
        why = (
            "Macs with an Intel processor, because torch has no builds for them; on a Mac with"
            " Apple's processor, take a python3 for arm64 (this one is for x86_64)"
        )
    elif "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
        why = "systems with musl (Alpine), because torch has no builds for them"
    else:
        return
    raise SystemExit(f"error: retrace does not run on {why}")


def platform_words() -> tuple[str, str]:
    """What the name of a fitting wheel contains: the system and the processor."""
    system = "macosx" if sys.platform == "darwin" else "manylinux"
    return system, platform.machine()


def wheel_address(index: str, version: str) -> str:
    """The address of the wheel for this machine, from the index's page of uv."""
    page = f"{index.rstrip('/')}/uv/"
    request = urllib.request.Request(page, headers={"Accept": f"{SIMPLE_JSON}, text/html;q=0.1"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text, is_json = answer.read().decode(), "json" in answer.headers.get("Content-Type", "")
    links = [f["url"] for f in json.loads(text)["files"]] if is_json else _links(text)
    system, machine = platform_words()
    for link in links:
        name = link.partition("#")[0].rpartition("/")[2]
        if name.startswith(f"uv-{version}-") and system in name and machine in name:
            return urljoin(page, link)
    raise SystemExit(f"error: {page} has no wheel of uv {version} for {system} {machine}")


def _links(page: str) -> list[str]:
    """The addresses of an HTML page of links."""
    return re.findall(r'href="([^"]+)"', page)


def install_without_pip(lock: Path, folder: Path) -> None:
    """Takes the program out of the wheel, once its sha256 is one of the lock's."""
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL") or PUBLIC_INDEX
    address = wheel_address(index, locked_version(lock))
    with urllib.request.urlopen(address, timeout=60) as answer:
        content = answer.read()
    digest = hashlib.sha256(content).hexdigest()
    if f"sha256:{digest}" not in lock.read_text():
        raise SystemExit(f"error: {address} has sha256 {digest}, which is not in {lock}")
    with tempfile.TemporaryDirectory() as scratch:
        wheel = Path(scratch) / "uv.whl"
        wheel.write_bytes(content)
        with zipfile.ZipFile(str(wheel)) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith("scripts/uv")]
            program = Path(archive.extract(member, scratch))
        program.chmod(0o755)
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        shutil.move(str(program), str(folder / "bin" / "uv"))


def has_pip() -> bool:
    """Whether this Python can run pip; Debian's can not, until python3-pip is installed."""
    command = [sys.executable, "-m", "pip", "--version"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.run(command, check=False, **quiet).returncode == 0


def main() -> None:
    """Installs or links uv, unless the folder has it; ends where nothing could be installed."""
    refuse_system()
    lock, folder = Path(sys.argv[1]), Path(sys.argv[2])
    program, version = folder / "bin" / "uv", locked_version(lock)
    if version_of(str(program)) == version:
        return
    present = shutil.which("uv")
    if present and version_of(present) == version:
        program.parent.mkdir(parents=True, exist_ok=True)
        program.symlink_to(present)
    elif has_pip():
        install_with_pip(lock, folder)
    else:
        install_without_pip(lock, folder)


if __name__ == "__main__":
    main()
