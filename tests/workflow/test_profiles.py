"""The profiles of clusters fit the rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import tiny_workflow

PROFILES = ("slurm", "lsf", "sge")
QUEUES = {"slurm": "slurm_partition", "lsf": "lsf_queue", "sge": "sge_queue"}


def plan(tmp_path: Path, *options: str) -> str:
    """The output of a dry run of one evaluation."""
    arguments = ["evaluate_phantom_mtlsd_small", "--dry-run", *options]
    return tiny_workflow.succeed(tmp_path, arguments)


def resources(text: str) -> dict[str, dict[str, str]]:
    """The resources of each rule's last job in a dry run."""
    matches = re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    resources: (.*)$", text, re.M)
    return {rule: dict(part.split("=", 1) for part in line.split(", ")) for rule, line in matches}


def gpu_rules() -> set[str]:
    """The rules that ask for a GPU."""
    rules = set()
    for path in (tiny_workflow.REPOSITORY / "rules").glob("*.smk"):
        parts = re.split(r"^rule (\w+):$", path.read_text(), flags=re.M)
        rules |= {n for n, text in zip(parts[1::2], parts[2::2], strict=True) if "gpu=" in text}
    return rules


@pytest.mark.parametrize("name", PROFILES)
def test_every_rule_with_a_gpu_goes_to_the_gpu_queue(name: str) -> None:
    profile = tiny_workflow.REPOSITORY / "profiles" / name / "profile.yaml"
    assert set(yaml.safe_load(profile.read_text())["__variables__"]["gpu_rules"]) == gpu_rules()


@pytest.mark.parametrize("name", PROFILES)
def test_edited_values_of_a_profile_reach_the_jobs(name: str, tmp_path: Path) -> None:
    single = "partition" if name == "slurm" else "queue"
    values = {single: "some.q", f"gpu_{single}": "2024", "train_runtime": "1440"}
    profile = tiny_workflow.edited_profile(tmp_path, name, **values)
    by_rule = resources(plan(tmp_path, "--workflow-profile", str(profile)))
    for rule in ("mask", "train", "predict", "fragments", "evaluate"):
        queue = "2024" if rule in gpu_rules() else "some.q"
        assert by_rule[rule][QUEUES[name]] == queue
        assert by_rule[rule].get("gpu", "0") == str(int(rule in gpu_rules()))
    assert (by_rule["train"]["runtime"], by_rule["predict"]["runtime"]) == ("1440", "600")


def test_a_retry_asks_for_more_except_for_a_training_of_unknown_time(tmp_path: Path) -> None:
    first, third = (resources(plan(tmp_path, "--attempt", n)) for n in ("1", "3"))
    for rule in ("mask", "train", "predict", "fragments", "segment", "evaluate"):
        times = 1 if rule == "train" else 3
        for name in ("mem_mb", "runtime"):
            assert int(third[rule][name]) == times * int(first[rule][name])
