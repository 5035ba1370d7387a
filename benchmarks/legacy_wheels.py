"""The locked wheels of the legacy image: does its pip take them, and what provides their libraries?

    python benchmarks/legacy_wheels.py [--folder DIR] [--only PACKAGE ...]

Downloads the pip of envs/legacy_pip.txt. That pip, run by this Python but choosing for CPython 3.6,
downloads the wheels of envs/legacy.txt (180 MB), checks their hashes and installs them into a
layout of Python 3.6. Prints the wheel of each package, every library that their binaries are linked
with and what provides it in the image, and the newest symbol versions that they need. The exit
status is 1 if something is not provided. Needs `readelf` of binutils.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHOICE = (
    *("--no-deps", "--require-hashes", "--only-binary=:all:"),
    *("--python-version", "3.6", "--implementation", "cp", "--abi", "cp36m"),
)
"""What pip is asked for: wheels for CPython 3.6, on the platforms that it sees on this machine."""
BASE = {
    "libc6": "ld-linux-x86-64.so.2 libc.so.6 libdl.so.2 libm.so.6 libpthread.so.0 librt.so.1",
    "libgcc1": "libgcc_s.so.1",
    "libstdc++6": "libstdc++.so.6",
}
"""Packages of Debian 10 (buster) in python:3.6.15-slim-buster, and the libraries in them."""
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11)}
"""The newest symbol versions of Debian 10: glibc 2.28 and GCC 8.3."""
DRIVER = ("libcuda.so.1",)
"""Libraries of the card's driver, which --nv makes available."""


@dataclass(frozen=True)
class Binary:
    """What an ELF file is linked with.

    `versions`: the newest that it needs of each kind of symbols (GLIBC, GLIBCXX, CXXABI).
    """

    path: Path
    needed: tuple[str, ...]
    versions: Mapping[str, tuple[int, ...]]


def pip_wheel(folder: Path) -> Path:
    """The pip of the legacy image, downloaded by this Python's pip and checked against its hash."""
    command = ["download", "--quiet", "--no-deps", "--require-hashes", "--dest", str(folder)]
    lock = str(ROOT / "envs" / "legacy_pip.txt")
    subprocess.run([sys.executable, "-m", "pip", *command, "-r", lock], check=True)
    return next(folder.glob("pip-*.whl"))


def locked(packages: Sequence[str]) -> str:
    """The lines of envs/legacy.txt about these packages, all of them if none is named."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "envs" / "legacy.txt").read_text())
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    chosen = [line for line in lines if not packages or line.partition("==")[0] in packages]
    return "\n".join(chosen) + "\n"


def install(folder: Path, packages: Sequence[str]) -> tuple[Path, Path]:
    """The folders of the wheels that the locked pip takes, and of what it installs of them."""
    lock, pip = folder / "lock.txt", pip_wheel(folder)
    lock.write_text(locked(packages))
    wheels, site = folder / "wheels", folder / "lib" / "python3.6" / "site-packages"
    download = ["download", "--dest", str(wheels)]
    unpack = ["install", "--no-compile", "--no-index", "--find-links", str(wheels)]
    for command in (download, [*unpack, "--target", str(site)]):
        options = [*command, "--quiet", *CHOICE, "-r", str(lock)]
        subprocess.run([sys.executable, str(pip / "pip"), *options], check=True)
    return wheels, site


def binary(path: Path) -> Binary:
    """What readelf says of an ELF file."""
    command = ["readelf", "--dynamic", "--version-info", "--wide", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    needs = text.partition("Version needs section")[2]
    versions: dict[str, tuple[int, ...]] = {}
    for kind, numbers in re.findall(r"Name: ([A-Z]+)_([\d.]+)", needs):
        version = tuple(map(int, numbers.split(".")))
        versions[kind] = max(version, versions.get(kind, version))
    return Binary(path, tuple(re.findall(r"\(NEEDED\).*\[(.+)\]", text)), versions)


def copied_libraries() -> dict[str, str]:
    """By name the libraries that the recipe copies, and from where."""
    recipe = (ROOT / "containers" / "legacy.def").read_text()
    copied = re.findall(r"^ +(/\S+) (/opt/cuda/\S+)$", recipe, re.M)
    return {Path(to).name: source for source, to in copied}


def providers(packed: Mapping[str, str]) -> dict[str, str]:
    """What provides each library in the image; a wheel's own comes first. `packed`: these."""
    base = {name: f"base: {package}" for package, names in BASE.items() for name in names.split()}
    driver = dict.fromkeys(DRIVER, "driver: --nv")
    recipe = {name: f"recipe: {source}" for name, source in copied_libraries().items()}
    return base | driver | recipe | {name: f"wheel: {path}" for name, path in packed.items()}


def libraries(found: Sequence[Binary], site: Path) -> list[tuple[str, int, str | None]]:
    """Each library, how many binaries need it, and what provides it."""
    packed = {one.path.name: str(one.path.relative_to(site)) for one in found}
    users, sources = Counter(name for one in found for name in one.needed), providers(packed)
    return [(name, users[name], sources.get(name)) for name in sorted(users)]


def newest(found: Sequence[Binary]) -> dict[str, tuple[int, ...]]:
    """The newest version that any binary needs of each kind of symbols that the base has."""
    return {
        kind: max((one.versions[kind] for one in found if kind in one.versions), default=(0,))
        for kind in NEWEST
    }


def report(wheels: Path, site: Path) -> bool:
    """Prints the tables; whether everything is provided."""
    found = [binary(path) for path in sorted(site.rglob("*.so*")) if path.is_file()]
    print("| wheel that pip takes |\n|---|")
    for path in sorted(wheels.glob("*.whl")):
        print(f"| {path.name} |")
    print("\n| library | binaries that need it | provided by |\n|---|---|---|")
    used = libraries(found, site)
    for name, count, source in used:
        print(f"| {name} | {count} | {source or 'NOTHING'} |")
    print("\n| symbols | newest that is needed | newest in Debian 10 |\n|---|---|---|")
    needed = newest(found)
    for kind, version in needed.items():
        print(f"| {kind} | {_dotted(version)} | {_dotted(NEWEST[kind])} |")
    has_symbols = all(version <= NEWEST[kind] for kind, version in needed.items())
    return has_symbols and all(source for _, _, source in used)


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="an empty folder for the downloads")
    parser.add_argument("--only", nargs="+", default=[], metavar="PACKAGE", help="a few of them")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sys.exit(0 if report(*install(folder, args.only)) else 1)


if __name__ == "__main__":
    main()
