"""A bundle runs without any network interface, and an RO-Crate describes its results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import roc_validator
import tiny_workflow
from conftest import Apptainer, run_snakemake, skip_or_fail

pytestmark = [pytest.mark.container, pytest.mark.s3, pytest.mark.timeout(2400)]

CONFIG = ["iterations=2", "evaluate={untrained: false}", "segment={thresholds: [0, 1, 0.1]}"]
LOOPBACK = "ip link set lo up && exec "


@pytest.fixture(scope="module")
def alone() -> list[str]:
    """The prefix that runs a command in a network namespace with only the loopback."""
    command = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    tried = subprocess.run([*command, "ip link set lo up"], check=False, capture_output=True)
    if tried.returncode != 0:
        skip_or_fail("container", "cannot create a network namespace")
    return command


@pytest.fixture(scope="module")
def bundle(apptainer: Apptainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a tiny experiment, moved to another folder."""
    folder = tiny_workflow.copy_workflow(tmp_path_factory.mktemp("checkout"))
    image = apptainer.image("modern")
    (folder / "containers/images").mkdir()
    (folder / "containers/images" / image.name).symlink_to(image)
    tiny_workflow.write_network(folder)
    with tiny_workflow.serving() as address:
        run_snakemake(
            folder,
            *("bundle_phantom_tiny", "--use-singularity", "--cores", "2"),
            *("--configfile", "config/demo.yaml", "--config", f"endpoint_url={address}", *CONFIG),
        )
    place = tmp_path_factory.mktemp("machine") / "bundle"
    (folder / "results/phantom/tiny/bundle").rename(place)
    shutil.rmtree(folder)
    return place


def test_the_experiment_runs_with_only_the_loopback(
    alone: list[str], bundle: Path, tmp_path: Path
) -> None:
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    program = (
        f"{base} {bundle}/workflow/scripts/bundle.py run --target crate_phantom_tiny -- --cores 2"
    )
    probe = f"{base} -c 'import socket; socket.create_connection((\"192.0.2.1\", 80), 2)'"
    assert subprocess.run([*alone, LOOPBACK + probe], check=False, capture_output=True).returncode
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    done = subprocess.run(
        [*alone, LOOPBACK + program],
        check=False,
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    results = bundle / "results/phantom/tiny"
    evaluation = json.loads((results / "evaluation.json").read_text())
    assert Path(evaluation["origin"]["image"]).is_relative_to(bundle)
    fetched = json.loads((bundle / "data/phantom/train_0.manifest.json").read_text())
    assert fetched["settings"]["mirror"] == "objects"
    accepted, report = roc_validator.validate(results / "crate", tmp_path)
    assert accepted, report
    assert planned(results / "crate.zip", bundle) == []
    (results / "evaluation.json").unlink()
    assert planned(results / "crate.zip", bundle) == ["evaluate"]
    everything = planned(results / "crate.zip", tmp_path / "new")
    assert everything.count("fetch") == 3
    assert "train" in everything


def planned(crate: Path, directory: Path) -> list[str]:
    """The rules whose jobs a rerun of the crate plans; without the target and the image."""
    done = subprocess.run(
        [
            *(sys.executable, tiny_workflow.REPOSITORY / "workflow/scripts/rerun.py", crate),
            *("--directory", directory, "--trust", "--dry-run", "--", "--use-singularity"),
        ],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    rules = [words[1][:-1] for words in lines if words[:1] in (["rule"], ["localrule"])]
    return [rule for rule in rules if rule not in ("evaluate_phantom_tiny", "image_modern")]
