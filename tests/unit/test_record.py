"""Records of finished jobs, digests of contents and of code, and how planning compares them."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrace.config.yaml_files import WORKFLOW_CONFIG
from retrace.errors import DataError
from retrace.job import Job
from retrace.planning.code_digest import code_digests
from retrace.planning.identity import Comparison, setting_differences
from retrace.planning.program_files import PAGE_TEMPLATE
from retrace.planning.records import planned_record
from retrace.records import record
from retrace.records.contents import content_digest, fingerprint
from retrace.records.record import Planned, read_finished, start

PUBLISHED = WORKFLOW_CONFIG / "published/zfinch.yaml"
LEGACY = Path(__file__).parents[2] / "workflow/scripts/legacy/record.py"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code_of(text: str) -> str:
    Path("code.py").write_text(textwrap.dedent(text))
    return code_digests([Path("code.py")], Path())["code.py"]


def test_comments_docstrings_and_descriptions_are_no_code() -> None:
    plain = code_of("def f(x):\n    return Field(x, description='a')\n")
    prose = (
        '"""Doc."""\n# c\ndef f(x):  # c\n    """Doc."""\n    return Field(x, description="b")\n'
    )
    assert code_of(prose) == plain
    assert code_of("def f(x):\n    return Field(x + 1, description='a')\n") != plain
    assert code_of("def f(x):\n    return Field(x, other='a')\n") != plain


def planned_code(path: str) -> Planned:
    return planned_record(
        Job({}, {"table": path}), record="out.json", code={}, image=None, producer=lambda path: None
    )


@pytest.mark.parametrize("file", [PUBLISHED, PAGE_TEMPLATE])
def test_files_that_come_with_the_workflow_count_like_code_from_anywhere(file: Path) -> None:
    planned = planned_code(os.path.relpath(file))
    (name,) = planned.code
    assert planned.own == () and file.as_posix().endswith(name)
    Path("deep/er").mkdir(parents=True)
    with contextlib.chdir("deep/er"):
        assert planned_code(os.path.relpath(file)) == planned


def test_comments_of_yaml_are_no_content() -> None:
    def digest_of(text: str) -> str:
        Path("figures.yaml").write_text(text)
        return code_digests([Path("figures.yaml")], Path())["figures.yaml"]

    assert digest_of("a: 1\nb: [2, x]\n") == digest_of("# voi\na: 1  # sum\nb:\n- 2\n- x\n")
    assert digest_of("a: 1\n") != digest_of("a: 2\n")


def test_users_files_in_the_folders_of_the_workflow_are_their_own() -> None:
    for name in ("net.h5", "volume.zarr"):
        path = os.path.relpath(WORKFLOW_CONFIG / name)
        assert (planned_code(path).own, planned_code(path).code) == ((path,), {})


def test_a_body_of_nothing_but_a_docstring_is_the_same_as_dots() -> None:
    assert code_of('class A:\n    """Doc."""\n') == code_of("class A:\n    ...\n")


def test_touched_and_copied_files_have_the_same_content() -> None:
    Path("a").mkdir()
    Path("a/x").write_text("1")
    before, digest_before = fingerprint(Path("a")), content_digest(Path("a"))
    os.utime("a/x", ns=(0, 0))
    assert fingerprint(Path("a")) != before
    assert content_digest(Path("a")) == digest_before
    Path("a/x").write_text("2")
    os.utime("a/x", ns=(0, 0))
    assert content_digest(Path("a")) != digest_before


def test_renamed_files_are_another_content() -> None:
    Path("a").mkdir()
    Path("a/x").write_text("1")
    before = content_digest(Path("a"))
    Path("a/x").rename("a/y")
    assert content_digest(Path("a")) != before


def test_folders_that_a_folder_links_to_are_a_part_of_it() -> None:
    Path("scratch").mkdir()
    Path("scratch/0.0").write_text("1")
    Path("a").mkdir()
    Path("a/labels").symlink_to("../scratch")
    Path("a/back").symlink_to("../a")
    before, digest_before = fingerprint(Path("a")), content_digest(Path("a"))
    Path("scratch/0.0").write_text("2")
    assert fingerprint(Path("a")) != before
    assert content_digest(Path("a")) != digest_before


def finished(**changes: Any) -> Planned:
    """A job that reads own.txt and made.txt, with its record."""
    Path("own.txt").write_text("own")
    start(Planned("made.manifest.json", settings={"a": 0})).write()
    job = Planned(
        "out.manifest.json",
        settings={"seed": 0, "precision": "auto", "deep": {"rate": 0.5}},
        code={"x.py": "1"},
        image=None,
        produced={"made.txt": "made.manifest.json"},
        own=("own.txt",),
    )
    running = start(dataclasses.replace(job, **changes))
    running.resolved["precision"] = "fp32"
    running.write()
    return job


def reason(job: Planned, **changes: Any) -> str | None:
    return Comparison().reason(dataclasses.replace(job, **changes), lambda path: None)


def settings(**changes: Any) -> dict[str, Any]:
    return {"seed": 0, "precision": "auto", "deep": {"rate": 0.5}} | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"settings": settings(seed=5)}, "seed changed from 0 to 5"),
        ({"settings": settings(deep={"rate": 1})}, "deep.rate changed from 0.5 to 1"),
        ({"settings": settings(precision="fp32")}, None),
        ({"settings": settings(precision="bf16")}, "precision changed from 'fp32' to 'bf16'"),
        ({"code": {"x.py": "2"}}, "the code in x.py changed"),
        ({"image": "modern-1.sif"}, "the image changed from None to modern-1.sif"),
        ({"own": ()}, "own.txt is not read any more"),
    ],
)
def test_the_reason_is_one_line(changes: dict[str, Any], expected: str | None) -> None:
    assert reason(finished(), **changes) == expected


def test_changed_inputs_are_named() -> None:
    job = finished()
    Path("own.txt").write_text("new")
    assert reason(job) == "own.txt changed"
    Path("own.txt").unlink()
    assert reason(job) == "own.txt changed"
    assert Comparison(keep_without_files=True).reason(job, lambda path: None) is None


def test_a_result_of_another_record_was_computed_again() -> None:
    job = finished()
    start(Planned("made.manifest.json", settings={"a": 1})).write()
    assert reason(job) == "made.txt was computed again"


def test_a_forced_job_takes_along_what_reads_its_outputs() -> None:
    job, made = finished(), Planned("made.manifest.json", settings={"a": 0})
    comparison = Comparison(forced={"made.manifest.json"})
    assert comparison.reason(made, lambda path: None) == "forced on the command line"
    assert comparison.reason(job, lambda path: made) == "made.txt is computed again"


def test_what_reads_an_outdated_result_is_outdated() -> None:
    job = finished()
    changed = Planned("made.manifest.json", settings={"a": 1})
    assert Comparison().reason(job, lambda path: changed) == "made.txt is computed again"


def test_files_that_snakemake_is_not_to_know_count_by_their_bytes() -> None:
    job = Job({}, {"init": "net.h5", "model": "model.st"}, untracked=("init",))
    planned = planned_record(
        job, record="out.json", code={}, image=None, producer=lambda path: None
    )
    assert planned.own == ("model.st", "net.h5")
    assert "net.h5" not in str(job.files())


def test_a_file_that_the_user_put_where_one_would_be_fetched_is_an_own_file() -> None:
    def planned(path: str, **fetch: Any) -> Planned:
        def producer(_: str) -> Planned:
            return Planned(f"{path}.record.json", **fetch)

        job = Job({}, {"digits": path})
        return planned_record(job, record="out.json", code={}, image=None, producer=producer)

    assert planned("images.gz").produced == {"images.gz": "images.gz.record.json"}
    Path("images.gz").write_text("digits")
    assert planned("images.gz").own == ("images.gz",)
    assert planned("images.gz", own=("other.txt",)).own == ()
    Path("images.gz.record.json").write_text("{}")
    assert planned("images.gz").own == ()


def test_an_input_that_changes_during_the_job_leaves_no_record() -> None:
    Path("own.txt").write_text("own")
    running = start(Planned("out.manifest.json", own=("own.txt",)))
    Path("own.txt").write_text("changed")
    with pytest.raises(DataError, match=r"own\.txt changed while this job read it"):
        running.write()
    assert read_finished(Path("out.manifest.json")) is None


def test_a_record_keeps_the_rest_of_the_manifest() -> None:
    Path("out.manifest.json").write_text('{"arrays": 1}')
    start(Planned("out.manifest.json")).write()
    assert json.loads(Path("out.manifest.json").read_text())["arrays"] == 1


@given(value=st.recursive(st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_equal_settings_do_not_differ(value: Any) -> None:
    assert list(setting_differences({"a": value}, {"a": value}, {})) == []


def test_the_legacy_engine_writes_the_same_records() -> None:
    spec = importlib.util.spec_from_file_location("legacy_record", LEGACY)
    assert spec is not None and spec.loader is not None
    legacy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(legacy)
    finished()
    Path("own").mkdir()
    Path("own/b.txt").write_text("b")
    Path("own/a").mkdir()
    Path("own/a/c.txt").write_text("c")
    Path("scratch/d").mkdir(parents=True)
    Path("scratch/d/e.txt").write_text("e")
    Path("own/linked").symlink_to("../scratch/d")
    Path("own/back").symlink_to(".")
    planned = Planned(
        "legacy.manifest.json",
        settings={"x": [1, 2.5]},
        code={"y.py": "3"},
        image="legacy.sif",
        produced={"made.txt": "made.manifest.json"},
        own=("own.txt", "own"),
        outputs=("out", "legacy.manifest.json"),
    )
    Path("out").write_text("new")
    start(planned).write()
    Path("out").unlink()
    modern = read_finished(Path("legacy.manifest.json"))
    Path("plan.json").write_text(json.dumps(planned.plain()))
    Path("legacy.manifest.json").unlink()
    Path("out.txt").write_text("new")
    legacy.write(legacy.start({"identity": "plan.json"}), [("out.txt", "out")])
    assert Path("out").read_text() == "new"
    assert read_finished(Path("legacy.manifest.json")) == modern


def test_a_record_that_is_there_is_not_written_again() -> None:
    job = start(Planned("out.manifest.json", settings={"seed": 0}))
    job.write()
    Path("out.manifest.json").chmod(0o444)
    before = Path("out.manifest.json").stat()
    job.write()
    after = Path("out.manifest.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_unfinished_work_of_other_inputs_code_or_image_has_another_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def name(**changes: Any) -> str:
        job = dataclasses.replace(Planned("out.manifest.json", own=("own.txt",)), **changes)
        monkeypatch.setattr(record, "_running", [start(job)])
        return record.work_digest({"seed": 0})

    Path("own.txt").write_text("own")
    first = name()
    os.utime("own.txt", ns=(0, 0))
    assert name() == first
    others = [name(code={"x.py": "2"}), name(image="modern-1.sif")]
    Path("own.txt").write_text("corrected")
    assert len({first, name(), *others}) == 4


def test_inputs_that_only_measure_do_not_name_unfinished_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def started() -> record.Running:
        plain = Planned("out.manifest.json", own=("own.txt", "held.txt"), measured=("held.txt",))
        job = start(Planned.parse(json.loads(json.dumps(plain.plain()))))
        monkeypatch.setattr(record, "_running", [job])
        return job

    Path("own.txt").write_text("own")
    Path("held.txt").write_text("held")
    first, name = started(), record.work_digest({"seed": 0})
    Path("held.txt").write_text("corrected")
    second = started()
    assert record.work_digest({"seed": 0}) == name and second.identity != first.identity
    assert second.measured_versions() != first.measured_versions()
    assert list(second.measured_versions()) == ["held.txt"]
    assert list(second.work_content()["inputs"]) == ["own.txt"]


def write_two_stores(seconds: float, sha256: str = "a") -> Planned:
    """A job that wrote one.zarr and two.zarr; the manifest of the first has its record."""
    for name in ("one", "two"):
        Path(f"results/{name}.zarr/x").mkdir(parents=True, exist_ok=True)
        arrays = {"x": {"sha256": sha256}}
        manifest = {"format_version": 1, "store": f"{name}.zarr", "arrays": arrays}
        text = json.dumps(manifest | {"seconds": seconds})
        Path(f"results/{name}.manifest.json").write_text(text)
    outputs = tuple(f"results/{name}.manifest.json" for name in ("one", "two"))
    planned = Planned(record=outputs[0], settings={}, outputs=outputs)
    start(planned).write()
    return planned


def test_what_was_made_is_the_same_whatever_time_it_took() -> None:
    def version(**changes: Any) -> dict[str, str]:
        finished = read_finished(Path(write_two_stores(**changes).record))
        assert finished is not None
        return finished.version

    assert version(seconds=1) == version(seconds=2)
    assert version(seconds=1) != version(seconds=1, sha256="b")
    planned = write_two_stores(seconds=3)
    two = Path(planned.outputs[1])
    two.write_text(two.read_text().replace("3", "4"))
    assert Comparison().reason(planned, lambda path: None) is None
    two.write_text(two.read_text().replace('"a"', '"b"'))
    reason = Comparison().reason(planned, lambda path: None)
    assert reason == f"{two} is not the file that was computed"


def test_each_store_of_a_job_is_missed_where_it_is_needed() -> None:
    planned = write_two_stores(seconds=1)
    two = Path("results/two.zarr")
    for path in ("x", ""):
        shutil.rmtree(two / path)
        for asked in ("results/two.zarr", "results/two.manifest.json"):
            assert Comparison().missing(planned, asked) == str(two / path)
        assert Comparison().missing(planned, "results/one.zarr") is None


def test_own_files_are_kept_in_each_store_of_a_job() -> None:
    planned = write_two_stores(seconds=1)
    Comparison().check_replaceable(planned)
    Path("results/two.zarr/mine").mkdir()
    with pytest.raises(DataError, match=r"two\.zarr/mine is not part of results/two\.zarr"):
        Comparison().check_replaceable(planned)


def test_all_stores_that_a_job_reads_are_listed() -> None:
    writer = Planned(record="one.manifest.json")
    paths = ["one.zarr", "one.manifest.json", "two.zarr", "two.manifest.json"]
    planned = planned_record(
        Job({}, {"data": paths}), record="o.json", code={}, image=None, producer=lambda path: writer
    )
    assert planned.reads == ("one.zarr", "two.zarr")
    assert planned.produced == {"one.zarr": "one.manifest.json"}
    assert Planned.parse(planned.plain()) == planned
