"""Direct dependencies are described, and licences of all locked packages are known and allowed."""

from __future__ import annotations

import re
import sys
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest

from loaded_programs import site_program

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page() -> ModuleType:
    return site_program("dependencies_page.py")


@pytest.fixture(scope="module")
def licences(page: ModuleType) -> ModuleType:
    return sys.modules["licences"]


def metadata(**fields: str | list[str]) -> Message:
    """Fields of a package, as its METADATA file has them."""
    message = Message()
    for name, values in {"Name": "some", **fields}.items():
        for value in [values] if isinstance(values, str) else values:
            message[name.replace("_", "-")] = value
    return message


# ---------------------------------------------------------------- direct dependencies


def test_every_python_package_that_is_asked_for_is_described(page: ModuleType) -> None:
    asked = {name for names in page.direct().values() for name in names}

    assert "pymongo" in asked and "sphinx" in asked and "numcodecs" in asked
    assert set(page.table()["packages"]) == asked


def test_every_program_that_ci_installs_is_described(page: ModuleType) -> None:
    text = (ROOT / ".ci" / "system.sh").read_text()
    (listed,) = re.findall(r"packages=\((.*?)\)", text, re.S)

    assert {*listed.split(), "apptainer"} == set(page.table()["system"])


def test_every_base_of_an_image_and_every_published_one_is_described(page: ModuleType) -> None:
    recipes = "".join(path.read_text() for path in (ROOT / "containers").glob("*.def"))
    bases = set(re.findall(r"^    (?:CUDA_)?FROM=(\S+)$", recipes, re.M))
    published = re.findall(r"^(\S+):$", (ROOT / "containers/images.yaml").read_text(), re.M)

    assert len(bases) == 3
    assert bases | set(published) == set(page.table()["images"])


# ---------------------------------------------------------------- licences


def test_the_licence_of_every_locked_package_is_allowed(
    page: ModuleType, licences: ModuleType
) -> None:
    table, faults = page.table(), []
    for name in page.all_locked():
        try:
            licence = licences.licence_of(name, table["licences"], table["elsewhere"])
        except licences.UnknownLicenceError as error:
            faults.append(str(error))
            continue
        faults += [f"{name}: {one} is not allowed" for one in licences.refused(licence)]
    advice = "look up the licence, then add it to docs/_site/dependencies.yaml"
    assert len(page.all_locked()) > 250
    assert not faults, "\n".join([*faults, advice])


def test_no_exception_is_stale(page: ModuleType, licences: ModuleType) -> None:
    table, locked = page.table(), set(page.all_locked())
    assert {*table["licences"], *table["elsewhere"]} <= locked
    for name in table["licences"]:
        with pytest.raises(AssertionError):
            try:
                assert not licences.refused(licences.licence_of(name, {}, {}))
            except licences.UnknownLicenceError as error:
                raise AssertionError from error


MIT, BSD, GPL = (
    f"License :: OSI Approved :: {name}"
    for name in ("MIT License", "BSD License", "GNU General Public License (GPL)")
)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "mit or apache-2.0"}, "MIT OR Apache-2.0"),
        ({"License_Expression": "ISC", "License": "MIT"}, "ISC"),
        ({"License": "Apache License 2.0", "Classifier": MIT}, "Apache-2.0"),
        ({"License": "MIT License\n\nCopyright (c) 2024 A"}, "MIT"),
        ({"License": "Copyright (c) 2024 A", "Classifier": MIT}, "MIT"),
        ({"Classifier": [BSD, MIT, "License :: OSI Approved"]}, "LicenseRef-BSD AND MIT"),
    ],
)
def test_metadata_are_read_in_their_order(
    licences: ModuleType, fields: dict[str, str | list[str]], licence: str
) -> None:
    assert licences.licence_in(metadata(**fields)) == licence
    assert not licences.refused(licence)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"License": "UNKNOWN"},
        {"License": "see LICENSE", "Classifier": "License :: Other/Proprietary License"},
        {"Classifier": [MIT, "License :: Free To Use But Restricted"]},
    ],
)
def test_a_licence_that_is_unknown_is_refused(
    licences: ModuleType, fields: dict[str, str | list[str]]
) -> None:
    with pytest.raises(licences.UnknownLicenceError, match="some: the field License is"):
        licences.licence_in(metadata(**fields))
    with pytest.raises(licences.UnknownLicenceError, match="no-such-package: it is not installed"):
        licences.licence_of("no-such-package", {}, {})


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"License": "GPL-3.0-only"}, ["GPL-3.0-only"]),
        ({"License_Expression": "MIT AND (AGPL-3.0-only OR MIT)"}, ["AGPL-3.0-only"]),
        ({"Classifier": [MIT, GPL]}, ["LicenseRef-GPL"]),
    ],
)
def test_a_licence_that_is_not_allowed_is_refused(
    licences: ModuleType, fields: dict[str, str | list[str]], refused: list[str]
) -> None:
    assert licences.refused(licences.licence_in(metadata(**fields))) == refused
