"""Image files are named by a digest of their sources; builds use pip's package index."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kill import PATIENCE_S, read_until
from retrace.errors import ConfigError
from retrace.planning.container_images import (
    SOURCES,
    check_published,
    image_digest,
    image_path,
    image_sources,
    published_images,
    published_path,
    python,
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for index, source in enumerate(image_sources(tmp_path, "modern")):
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(b"part %d\n" % index)
    return tmp_path


def test_digest_is_of_the_joined_files(recipe: Path) -> None:
    expected = hashlib.sha256(b"part 0\npart 1\npart 2\npart 3\n").hexdigest()[:12]
    assert image_digest(recipe, "modern") == expected
    assert image_path(recipe, Path("images"), "modern") == Path(f"images/modern-{expected}.sif")


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_any_source_changes_the_name(recipe: Path, index: int) -> None:
    before = image_path(recipe, Path(), "modern")
    source = image_sources(recipe, "modern")[index]
    source.write_bytes(source.read_bytes() + b"#")
    assert image_path(recipe, Path(), "modern") != before


@pytest.mark.parametrize("name", SOURCES)
def test_recipe_exists_for_every_image(repository: Path, name: str) -> None:
    assert all(source.is_file() for source in image_sources(repository, name))


def test_published_images_have_no_colon_in_their_file(repository: Path) -> None:
    for name, image in published_images(repository).items():
        assert published_path(Path("containers/images"), name).name == f"{name}.img"
        assert ":" not in name
        assert image.key.startswith("funke/singularity/")
    # Under `exec` that image has no Python on its PATH.
    assert python(repository, "lsd_legacy") == "/opt/conda/envs/lsd_legacy/bin/python"
    assert python(repository, "legacy") == python(repository, "standin") == "python"


def test_an_unpublished_image_is_refused(repository: Path) -> None:
    check_published(repository, "fetch_container_lsd_v0.8")
    check_published(repository, "fetch_zfinch")
    with pytest.raises(ConfigError, match=r"'lsd_v08'.*did you mean 'lsd_v0\.8'"):
        check_published(repository, "fetch_container_lsd_v08")


def test_the_legacy_lock_pins_what_its_input_names(repository: Path) -> None:
    pins = {
        line.split()[0]
        for line in (repository / "envs" / "legacy.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    requirements = (repository / "envs" / "legacy.in").read_text().splitlines()
    assert pins == {line for line in requirements if not line.startswith("#")}
    assert (repository / "envs" / "legacy.txt").read_text().count("--hash=sha256:") == len(pins)


def test_unknown_image_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'modem'.*did you mean 'modern'"):
        image_digest(Path(), "modem")


def test_locks_name_no_host_and_agree(repository: Path) -> None:
    pins: dict[str, set[str]] = {}
    for lock in ("host", "modern", "dev"):
        text = (repository / "envs" / f"{lock}.txt").read_text()
        assert "://" not in text
        assert "--find-links" not in text
        for line in text.splitlines():
            name, sign, rest = line.partition("==")
            if sign:
                pins.setdefault(name, set()).add(rest.split()[0])
    assert "torch" not in pins
    assert {name: versions for name, versions in pins.items() if len(versions) > 1} == {}


def test_the_repository_holds_no_links(repository: Path) -> None:
    """A link in the place of a folder, such as containers/images, names a path of one machine."""
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=repository, check=True, capture_output=True, text=True
    )

    assert [line for line in listed.stdout.splitlines() if line.startswith("120000")] == []


def host_pip(repository: Path, **settings: str) -> list[str]:
    """What containers/host_pip.py prints with only these pip settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "SSL_"))}
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        kept.pop(name, None)
    return subprocess.run(
        [sys.executable, repository / "containers" / "host_pip.py"],
        env={**kept, "PIP_CONFIG_FILE": os.devnull, **settings},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()


def test_no_pip_settings_no_binds(repository: Path) -> None:
    assert host_pip(repository) == []


def test_local_index_and_wheels_are_bound(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "ca.pem").touch()
    lines = host_pip(
        repository,
        PIP_EXTRA_INDEX_URL=f"file://{tmp_path}/index/simple https://index.invalid/simple",
        PIP_FIND_LINKS=f"{tmp_path}/wheels",
        SSL_CERT_FILE=f"{tmp_path}/ca.pem",
    )
    assert f"env PIP_FIND_LINKS={tmp_path}/wheels" in lines
    bound = [line for line in lines if line.startswith("bind ")]
    assert bound == [f"bind {tmp_path}/{name}" for name in ("ca.pem", "index", "wheels")]


BUILDING = """\
#!/bin/sh
# Builds by writing a file, once the gate is there.
for last; do image=$previous; previous=$last; done
[ "$2" = --sandbox ] && { mkdir -p "$3"; exit; }
echo built >>"$BUILDS"
until [ -e "$GATE" ]; do sleep 0.02; done
echo image >"$image"
"""


@pytest.fixture
def building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for apptainer that builds when the test lets it; where it notes each build."""
    program = tmp_path / "bin/apptainer"
    program.parent.mkdir()
    program.write_text(BUILDING)
    program.chmod(0o755)
    (tmp_path / "base").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    monkeypatch.setenv("RETRACE_IMAGE_BASE", str(tmp_path / "base"))
    return tmp_path / "builds"


def start_build(repository: Path, image: Path) -> subprocess.Popen[str]:
    command = ["bash", str(repository / "containers/build.sh"), "standin", str(image)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.mark.parametrize("killed", [False, True])
def test_of_two_builds_of_an_image_one_waits_and_uses_it(
    repository: Path, tmp_path: Path, building: Path, killed: bool
) -> None:
    image = tmp_path / "images/standin-0123.sif"
    first = start_build(repository, image)
    while not building.exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = start_build(repository, image)
    read_until(second, f"waits for another run that makes {image}")
    if killed:
        os.killpg(first.pid, signal.SIGKILL)
    (tmp_path / "gate").touch()
    texts = [process.communicate(timeout=PATIENCE_S)[0] for process in (first, second)]
    assert second.returncode == 0, texts
    assert image.read_text() == "image\n"
    assert building.read_text() == "built\n" * (2 if killed else 1)
    assert (f"another run has made {image}" in texts[1]) == (not killed)
