"""The library as an installed package: contents, dependencies, and the code of its page."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import HeaderParser
from pathlib import Path

import pytest
import yaml

import retrace
from retrace.checkpoints.published import write_published
from retrace.config.networks import network_by_name
from retrace.config.yaml_files import WORKFLOW_CONFIG
from retrace.networks import build_network

LIBRARY = Path(retrace.__file__).parent
DISTRIBUTIONS = {
    "PIL": "pillow",
    "annotated_types": "pydantic",
    "cc3d": "connected-components-3d",
    "google_crc32c": "google-crc32c",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "botocore": "boto3",
    "bson": "pymongo",
    "urllib3": "boto3",
}
"""Modules that have another name than the package that installs them."""
OPTIONAL = {"neuroglancer", "selenium", "cloudvolume", "brotli", "rocrate", "openvino"}
OPTIONAL |= {
    "networkx",
    "bioimage_cpp",
    "pyfqmr",
    "sklearn",
    "simplejpeg",
    "compressed_segmentation",
}
"""Modules of the extras, or of what they install."""
EXTRAS = {"neuroglancer", "selenium", "cloud-volume", "rocrate", "openvino", "imagecodecs"}
EXTRAS |= {"itables", "networkx", "plotly", "bioimage-cpp", "pyfqmr", "scikit-learn"}
"""Packages of the extras. tifffile imports imagecodecs; cloud-volume brotli and the others."""

CHECKED = """
assert lsds.shape == (10, *labels.shape) and 0 <= lsds.min() < lsds.max() <= 1
assert outputs["lsds"].shape[:2] == (1, 10) and outputs["affs"].shape[:2] == (1, 3)
assert set(segments.ravel()) <= set(watershed_fragments(affs, in_xy=False).ravel())
assert scores["voi_split"] + scores["voi_merge"] == scores["voi_sum"] < 1
assert scores.voxels == (labels > 0).sum()
assert iteration == 30 and module.heads.affs.weight[0, 0, 0, 0, 0] == 0.25
"""
"""The results that the page states."""


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library's wheel, built without internet access: the backend is in the environment."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, folder, repository], check=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True)
    (site / "dependencies.pth").write_text(str(Path(yaml.__file__).parents[1]) + "\n")
    return python


def python_blocks(page: Path) -> str:
    """The Python code of a page, block by block in one text."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S))


def run_installed(python: Path, code: str, folder: Path) -> str:
    """Runs code in `folder` with the installed library alone; returns what it prints."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_is_imported_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    place = run_installed(installed, "import retrace; print(retrace.__file__)", tmp_path)
    assert Path(place.strip()).is_relative_to(installed.parents[1])


def test_every_module_but_those_of_extras_imports(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, retrace\n"
        "for module in pkgutil.walk_packages(retrace.__path__, 'retrace.'):\n"
        "    importlib.import_module(module.name)"
    )
    run_installed(installed, code, tmp_path)


def test_the_wheel_has_all_modules_and_configuration(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {p.relative_to(LIBRARY.parent).as_posix() for p in LIBRARY.rglob("*.py")}
    files = {
        f"retrace/config/files/{p.relative_to(WORKFLOW_CONFIG).as_posix()}"
        for p in WORKFLOW_CONFIG.rglob("*.yaml")
    }
    assert modules | files <= names
    assert not [name for name in names if name.startswith("retrace/") and "__pycache__" in name]


def test_the_version_is_in_one_place(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        built = HeaderParser().parsestr(archive.read(metadata).decode())["Version"]
    cited = yaml.safe_load((repository / "CITATION.cff").read_text())["version"]
    assert built == cited == retrace.__version__


def imported(path: Path) -> set[str]:
    """Top-level names of all imports of a module, also inside functions and by name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call):
            names |= set(re.findall(r"^importlib.import_module\('(\w+)", ast.unparse(node)))
    return names - sys.stdlib_module_names - {"retrace"}


def names_of(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[<>=\[]", line)[0] for line in requirements}


def test_dependencies_are_what_the_library_imports(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = dict(project["optional-dependencies"])
    everything = f"retrace-connectomics[{','.join(name for name in extras if name != 'all')}]"
    assert extras.pop("all") == [everything]
    declared = names_of(project["dependencies"])
    used = set[str]().union(*(imported(path) for path in LIBRARY.rglob("*.py"))) - OPTIONAL
    named = {DISTRIBUTIONS.get(name, name) for name in used}
    assert named | {"tensorboard"} == declared  # of torch.utils.tensorboard
    assert names_of(line for lines in extras.values() for line in lines) == EXTRAS


@pytest.fixture
def with_checkpoint(tmp_path: Path) -> Iterator[Path]:
    """A folder with a checkpoint in the layout of the paper's zfinch_mtlsd (383 MB)."""
    module = build_network(network_by_name("mtlsd", (20, 9, 9)))
    module.heads.affs.weight.data.fill_(0.25)
    write_published(tmp_path / "data/zfinch/checkpoints/mtlsd", module, 30)
    yield tmp_path
    shutil.rmtree(tmp_path / "data")


def test_the_code_of_the_page_runs(
    installed: Path, repository: Path, with_checkpoint: Path
) -> None:
    code = python_blocks(repository / "docs/how-to/library.md")
    run_installed(installed, code + CHECKED, with_checkpoint)
