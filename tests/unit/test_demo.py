"""The demo's choices: where it runs, on which port, and what it prints."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import demo
from retrace.errors import ConfigError


def programs(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """A PATH on which only these programs are found."""
    for name in names:
        (folder / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_apptainer_the_host_is_used_and_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs(monkeypatch, tmp_path)
    used, why = demo.choose_containers("auto", tmp_path / "image.sif")
    assert not used
    assert "host environment (no apptainer" in why
    with pytest.raises(ConfigError, match="neither apptainer nor singularity"):
        demo.choose_containers("always", tmp_path / "image.sif")


@pytest.mark.parametrize("program", ["apptainer", "singularity"])
def test_an_existing_image_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    programs(monkeypatch, tmp_path, program)
    image = tmp_path / "image.sif"
    assert demo.choose_containers("auto", image)[0] is False
    assert demo.choose_containers("always", image)[0] is True
    image.touch()
    assert demo.choose_containers("auto", image) == (True, "container image image.sif")
    assert demo.choose_containers("never", image)[0] is False


def test_unknown_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'sometimes'"):
        demo.choose_containers("sometimes", tmp_path / "image.sif")


def test_a_port_in_use_is_not_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with demo.listen(port) as listener:
            assert listener.getsockname()[1] not in (0, port)


@pytest.mark.s3
def test_two_servers_at_the_same_time_have_a_port_each() -> None:
    with demo.s3_server() as first, demo.s3_server() as second:
        assert first != second


@pytest.mark.s3
def test_the_server_answers() -> None:
    import boto3

    with demo.s3_server() as endpoint:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        client.create_bucket(Bucket="bucket")
        assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["bucket"]


def test_scores_are_printed_side_by_side() -> None:
    scores = {"voi_split": 0.5, "voi_merge": 0.25, "voi_sum": 0.75, "adapted_rand_error": 0.1}
    watershed = {"voi_split": 2.0, "voi_merge": 1.0, "voi_sum": 3.0, "adapted_rand_error": 0.6}
    lines = demo.score_lines({"volumes": {"t": {**scores, "untrained_watershed": watershed}}})
    rows = [line.split() for line in lines]
    assert ["this", "network", "0.500", "0.250", "0.750", "0.100"] in rows
    assert ["untrained", "watershed", "2.000", "1.000", "3.000", "0.600"] in rows
