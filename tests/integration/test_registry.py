"""Images pushed to a real registry and pulled from it, with the commands of the docs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import registry
import tiny_workflow
from conftest import Apptainer, skip_or_fail
from retrace.planning.container_images import image_path

pytestmark = pytest.mark.container

RECORD = "containers/pushed.sha256"
PAGE = "docs/how-to/containers.md"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of an empty registry."""
    program = shutil.which("docker-registry")
    if program is None:
        skip_or_fail("container", "no docker-registry on the PATH (Debian: docker-registry)")
    with registry.serving(program, tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def small_image(apptainer: Apptainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with one file in it."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "system/etc").mkdir(parents=True)
    (folder / "system/etc/os-release").write_text("NAME=small\n")
    own_namespace = ["unshare", "-Ur"] if os.geteuid() == 0 else []
    command = [*own_namespace, apptainer.program, "build", folder / "small.sif", folder / "system"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "small.sif"


class Clone:
    """A clone of the workflow, and the environment of somebody who works in it."""

    def __init__(self, folder: Path, host: str) -> None:
        self.folder = tiny_workflow.copy_workflow(folder)
        shutil.copy(tiny_workflow.REPOSITORY / "Makefile", folder)
        (folder / ".venv").mkdir()
        (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
        (folder / ".venv/.installed").touch()
        (folder / "containers/images").mkdir()
        self.environment = registry.own_logins(folder)
        self.environment["RETRACE_IMAGE_REGISTRY"] = f"oras://{host}/group"
        self.image = image_path(folder, folder / "containers/images", "modern")
        self.record = folder / RECORD

    def shell(self, command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs a command; its output, of both kinds, is in `stdout`."""
        return subprocess.run(
            ["bash", "-euc", command],
            cwd=self.folder,
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def log_in(self, host: str) -> None:
        name, word = registry.USER, registry.PASSWORD
        login = f"apptainer registry login --username {name} --password {word} oras://{host}"
        done = self.shell(login)
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def pushed(host: str, small_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone whose image was pushed by each step of the documented CI after that of packages."""
    clone = Clone(tmp_path_factory.mktemp("clone"), host)
    shutil.copy(small_image, clone.image)
    steps = documented_workflow()["jobs"]["image"]["steps"]
    shared = clone.folder / "github_env"
    given = {"GITHUB_ACTOR": registry.USER, "GITHUB_REPOSITORY_OWNER": "Group"}
    given |= {"TOKEN": registry.PASSWORD, "GITHUB_ENV": str(shared)}
    del clone.environment["RETRACE_IMAGE_REGISTRY"]
    for name in ("Log in", "Build, or pull if it is there", "Push"):
        (step,) = [step for step in steps if step.get("name") == name]
        done = clone.shell(step["run"].replace("ghcr.io", host), **given)
        assert done.returncode == 0, (name, done.stdout)
        clone.environment |= dict(line.split("=", 1) for line in shared.read_text().splitlines())
    return clone


def documented_workflow() -> dict[str, dict[str, dict[str, list[dict[str, str]]]]]:
    """The file for GitHub Actions that the page shows."""
    page = (tiny_workflow.REPOSITORY / PAGE).read_text()
    (block,) = re.findall(r"^```yaml\n(name: image\n.*?)^```$", page, re.M | re.S)
    content: dict[str, dict[str, dict[str, list[dict[str, str]]]]] = yaml.safe_load(block)
    return content


def test_the_documented_ci_pushes_and_records_what_others_pull(
    pushed: Clone, host: str, tmp_path: Path
) -> None:
    digest = hashlib.sha256(pushed.image.read_bytes()).hexdigest()
    assert pushed.environment["RETRACE_IMAGE_REGISTRY"] == f"oras://{host}/group"
    assert pushed.record.read_text() == f"{digest}  {pushed.image.name}\n"
    clone = Clone(tmp_path, host)
    clone.log_in(host)
    shutil.copy(pushed.record, clone.record)

    done = clone.shell("make image")

    assert done.returncode == 0, done.stdout
    assert f"pulled, sha256 {digest}, as in containers/pushed.sha256" in done.stdout
    assert clone.image.read_bytes() == pushed.image.read_bytes()
    compared = clone.shell("cd containers/images; sha256sum --ignore-missing -c ../pushed.sha256")
    assert compared.stdout == f"{clone.image.name}: OK\n"


def build(clone: Clone) -> subprocess.CompletedProcess[str]:
    return clone.shell(f"bash containers/build.sh modern {clone.image}")


def test_an_image_that_was_replaced_in_the_registry_is_refused(
    pushed: Clone, host: str, tmp_path: Path
) -> None:
    clone = Clone(tmp_path, host)
    clone.log_in(host)
    clone.record.write_text(f"{'0' * 64}  {clone.image.name}\n")

    done = build(clone)

    assert done.returncode == 1
    digest = hashlib.sha256(pushed.image.read_bytes()).hexdigest()
    assert f"has sha256 {digest}, but {RECORD} says {'0' * 64}: it is another" in done.stdout
    assert not clone.image.exists()


def test_without_a_record_the_sha256_is_printed(pushed: Clone, host: str, tmp_path: Path) -> None:
    clone = Clone(tmp_path, host)
    clone.log_in(host)

    done = build(clone)

    assert done.returncode == 0, done.stdout
    digest = hashlib.sha256(pushed.image.read_bytes()).hexdigest()
    assert f"pulled, sha256 {digest}: {RECORD} has no line for it" in done.stdout


def test_a_push_without_login_says_how_to_log_in(
    host: str, small_image: Path, tmp_path: Path
) -> None:
    clone = Clone(tmp_path, host)
    missing = clone.shell("make push")
    assert f"{clone.image} does not exist; `make image IMAGE=modern` builds it" in missing.stdout
    shutil.copy(small_image, clone.image)

    done = clone.shell("make push")

    assert done.returncode == 2
    assert f"apptainer registry login --username NAME oras://{host}" in done.stdout
    assert not clone.record.exists()


def test_the_documented_ci_runs_when_what_the_image_is_made_of_changes() -> None:
    from retrace.planning.container_images import SOURCES

    content = documented_workflow()
    triggers = content[True]  # type: ignore[index]  # YAML 1.1 reads the key `on` as true
    assert triggers["push"]["paths"] == list(SOURCES["modern"])
    steps = content["jobs"]["image"]["steps"]
    text = "\n".join(step["run"] for step in steps if "run" in step)
    programs = {line.split()[0] for line in text.splitlines() if line}
    assert programs == {"sudo", "echo", "make", "git"}
