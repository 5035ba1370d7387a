"""RO-Crates and bundles: contents, lineage and refusals; no job runs."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import warnings
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

import bundle
import crate
import rerun
import roc_validator
from retrace.errors import ConfigError, DataError
from retrace.files import digest, file_sha256
from retrace.job import Job
from retrace.provenance import bundle_files, bundle_writer
from retrace.provenance.folders import check_files, code_files, code_versions
from retrace.provenance.jobs import check_chain, jobs_behind, read_jobs
from retrace.provenance.recorded_settings import check_settings
from retrace.storage.manifest import input_digest, origin

CONFIG: dict[str, Any] = {"iterations": 2, "mirror": None, "init": None}
SETTINGS = {
    "name": "phantom_tiny",
    "target": "evaluate_phantom_tiny",
    "dataset": "phantom",
    "config": CONFIG,
}
EVALUATION = "results/phantom/tiny/evaluation.json"
MODEL = "results/phantom/tiny/model.safetensors"


def record(rule: str, output: str, inputs: list[str], begun: float, job: Job | None = None) -> None:
    """A record in Snakemake's format; `job`: what the program was passed."""
    passed = f" --job {shlex.quote(job.as_json())}" if job else ""
    content = {
        "rule": rule,
        "input": inputs,
        "log": [],
        "shellcmd": f"{rule} {output}{passed} 2>&1 | tee logs/a.log",
        "starttime": begun,
        "endtime": begun + 1,
        "incomplete": False,
    }
    name = urlsafe_b64encode(output.encode()).decode()
    path = Path(".snakemake/metadata") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def fetched_store(place: Path) -> Path:
    """A store with the manifest of a fetch."""
    store = place / "data/phantom/train_0.zarr"
    store.mkdir(parents=True)
    (store / ".zgroup").write_text("{}")
    (store / ".snakemake_timestamp").touch()
    manifest = {
        "arrays": {},
        "inputs": {},
        "files": {".zgroup": "44"},
        "source": "s3://open-neurodata/funke/train_0.zarr/ at somewhere",
        "verified": {"md5": 1},
        "settings": {"prefix": "funke/train_0.zarr"},
    }
    (store.parent / "train_0.manifest.json").write_text(json.dumps(manifest))
    return store.relative_to(place)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a fetched volume, a model trained on it, and its evaluation."""
    monkeypatch.chdir(tmp_path)
    store = fetched_store(tmp_path)
    Path(MODEL).parent.mkdir(parents=True)
    Path(MODEL).write_bytes(b"weights")
    made_of = origin([store, Path(MODEL)], {}, 1.0)
    Path(EVALUATION).write_text(json.dumps({"origin": made_of}))
    record("fetch", str(store), [], 1.0)
    record("train", MODEL, [str(store)], 3.0)
    record("evaluate", EVALUATION, [str(store), MODEL], 5.0)
    return tmp_path


@pytest.fixture
def crate_folder(place: Path) -> Path:
    """The RO-Crate of `place`."""
    crate.main(
        [
            *("--settings", json.dumps(SETTINGS), "--results", EVALUATION),
            *("--output", "crate", "--zip", "crate.zip"),
        ]
    )
    return place / "crate"


def test_the_jobs_behind_a_result_in_the_order_of_their_ends(place: Path) -> None:
    jobs = jobs_behind([EVALUATION], read_jobs())
    assert [job.rule for job in jobs] == ["fetch", "train", "evaluate"]
    assert check_chain(jobs) == 2


@pytest.mark.parametrize("written", ["", '{"rule": "predict", "inp'])
def test_a_partly_written_record_is_skipped(place: Path, written: str) -> None:
    known = read_jobs()
    name = urlsafe_b64encode(b"results/other.zarr").decode()
    Path(".snakemake/metadata", name).write_text(written)
    assert read_jobs() == known


def test_a_result_of_another_model_is_refused(place: Path) -> None:
    Path(MODEL).write_bytes(b"other weights")
    with pytest.raises(DataError, match=rf"{MODEL} has changed since {EVALUATION} was computed"):
        check_chain(jobs_behind([EVALUATION], read_jobs()))


def test_a_result_without_a_record_is_refused(place: Path) -> None:
    shutil.rmtree(".snakemake")
    with pytest.raises(DataError, match="job that wrote results/phantom/tiny/evaluation.json"):
        jobs_behind([EVALUATION], read_jobs())


@pytest.mark.parametrize(("seed", "is_same"), [(0, True), (5, False)])
def test_a_result_of_another_run_is_refused(place: Path, seed: int, is_same: bool) -> None:
    """As after the results were copied from another machine, and .snakemake was not."""
    entry = {"volume": "train_0"}
    passed = {"seed": 0, "device": "cpu", "train": [entry], "network": {"fmaps": 2}}
    record("train", MODEL, ["data/phantom/train_0.zarr"], 3.0, Job(passed))
    network = {"fmaps": 2, "loss": "mse"}
    decided = {"seed": seed, "train": [{**entry, "roi_nm": None}], "network": network}
    own = {"identity": {"settings": decided, "digest": "0"}}
    Path(MODEL).with_suffix(".record.json").write_text(json.dumps(own))
    jobs = jobs_behind([EVALUATION], read_jobs())
    message = rf"{MODEL} was computed with seed 5, .* is of a job with 0"
    with nullcontext() if is_same else pytest.raises(DataError, match=message):
        check_settings(jobs)


def test_a_crate_is_accepted_by_the_public_validator(crate_folder: Path, tmp_path: Path) -> None:
    accepted, report = roc_validator.validate(crate_folder, tmp_path)
    assert accepted, report


def test_the_validator_refuses_a_crate_without_its_run(crate_folder: Path, tmp_path: Path) -> None:
    path = crate_folder / "ro-crate-metadata.json"
    content = json.loads(path.read_text())
    content["@graph"] = [e for e in content["@graph"] if e["@id"] != "#run"]
    path.write_text(json.dumps(content))
    accepted, report = roc_validator.validate(crate_folder, tmp_path)
    assert not accepted
    assert "CreateAction" in report


def test_a_crate_names_jobs_files_and_the_bucket(crate_folder: Path) -> None:
    graph = json.loads((crate_folder / "ro-crate-metadata.json").read_text())["@graph"]
    by_id = {entity["@id"]: entity for entity in graph}
    assert by_id[MODEL]["sha256"] == file_sha256(Path(MODEL))
    job = by_id[f"#job-train-{MODEL}"]
    assert job["result"] in ({"@id": MODEL}, [{"@id": MODEL}])
    assert job["endTime"] == "1970-01-01T00:00:04+00:00"
    volume = by_id["#data/phantom/train_0.zarr"]
    assert volume["isBasedOn"] == {"@id": "s3://open-neurodata/funke/train_0.zarr/"}
    assert volume["identifier"].endswith(input_digest(Path("data/phantom/train_0.zarr")))
    assert input_digest(Path("data/phantom/train_0.zarr")) == digest({".zgroup": "44"})


@pytest.mark.parametrize("name", [MODEL, "rules/train.smk"])
def test_an_altered_or_missing_file_of_a_crate_is_named(crate_folder: Path, name: str) -> None:
    (crate_folder / name).write_text("changed")
    with pytest.raises(DataError, match=f"{name} has changed since"):
        rerun.main([str(crate_folder), "--directory", "new", "--dry-run"])
    (crate_folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        rerun.main([str(crate_folder), "--directory", "new", "--dry-run"])
    assert not Path("new").exists()


def test_a_folder_that_is_no_crate_is_refused(place: Path) -> None:
    Path("crate.zip").write_text("no zip")
    with pytest.raises(DataError, match=r"crate\.zip cannot be read"):
        rerun.main(["crate.zip", "--directory", "new"])
    with zipfile.ZipFile("empty.zip", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(DataError, match=r"ro-crate-metadata\.json does not exist"):
        rerun.main(["empty.zip", "--directory", "new"])


def test_the_working_directory_of_another_workflow_is_refused(crate_folder: Path) -> None:
    Path("new").mkdir()
    Path("new/Snakefile").write_text("rule other:\n")
    with pytest.raises(DataError, match="new/Snakefile differs from the RO-Crate's"):
        rerun.main([str(crate_folder), "--directory", "new", "--trust"])


def test_the_code_of_a_crate_is_not_run_without_trust(
    crate_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = crate_folder / "ro-crate-metadata.json"
    with edited(crate_folder, "rules/train.smk", "open('RAN', 'w')\n"):
        state = json.loads(metadata.read_text())
        root = next(entity for entity in state["@graph"] if entity["@id"] == "./")
        root["author"] = {"@id": "#eve"}
        state["@graph"].append({"@id": "#eve", "@type": "Person", "name": "Eve\x1b[2J"})
        metadata.write_text(json.dumps(state))
        for options in ((), ("--dry-run",)):
            with pytest.raises(ConfigError, match=r"permissions, also for --dry-run.*--trust"):
                rerun.main([str(crate_folder), "--directory", "new", *options])
    said = capsys.readouterr().out
    assert "phantom_tiny, by Eve?[2J" in said
    assert "differing from this copy of retrace: 1, such as rules/train.smk" in said
    assert not Path("new").exists() and not Path("RAN").exists()


@contextmanager
def edited(crate: Path, name: str, content: str, renamed: str | None = None) -> Iterator[None]:
    """A file of a crate is another one meanwhile, and so is its digest in the metadata."""
    paths = (crate / "ro-crate-metadata.json", crate / name)
    before = [path.read_bytes() for path in paths]
    state = json.loads(before[0])
    paths[1].write_text(content)
    for entity in state["@graph"]:
        if entity["@id"] == name:
            entity.update({"sha256": file_sha256(paths[1]), "@id": renamed or name})
    paths[0].write_text(json.dumps(state))
    yield
    for path, content_before in zip(paths, before, strict=True):
        path.write_bytes(content_before)


FOREIGN_NAMES = (
    *("config/../../outside", "../outside", "/outside", "config//x", "config/./x"),
    *("config\\..\\x", "config/a\nb", "CONFIG/config.yaml", "config", "config/config.yaml/x"),
)
FOREIGN_TARGETS = ("--version", "-n", "a b", "evaluate;x", "a/b", "", "$(id)")


def test_names_and_targets_of_foreign_crates(crate_folder: Path) -> None:
    (crate_folder.parent / "outside").write_text("x")
    command = [str(crate_folder), "--directory", "new", "--trust"]
    for name in FOREIGN_NAMES:
        refused = pytest.raises(DataError, match="not a plain relative path|cannot both be files")
        with edited(crate_folder, "config/demo.yaml", "x: 1\n", renamed=name), refused:
            rerun.main(command)
    for target in FOREIGN_TARGETS:
        refused = pytest.raises(DataError, match="is not the name of a target")
        with edited(crate_folder, "target.json", json.dumps({"target": target})), refused:
            rerun.main(command)
    assert not Path("new").exists()


def test_links_that_leave_a_crate_or_the_directory_are_refused(crate_folder: Path) -> None:
    secret = crate_folder.parent / "secret.yaml"
    secret.write_text("x: 1\n")
    Path("new").mkdir()
    Path("new/config").symlink_to(crate_folder.parent)
    with pytest.raises(DataError, match="config/.* leads out of the folder"):
        rerun.main([str(crate_folder), "--directory", "new", "--trust"])
    (crate_folder / "config/demo.yaml").unlink()
    (crate_folder / "config/demo.yaml").symlink_to(secret)
    with pytest.raises(DataError, match=r"config/demo\.yaml leads out of the folder"):
        rerun.main([str(crate_folder), "--directory", "other", "--trust"])


@pytest.mark.parametrize("fault", ["..", "twice", "case", "link", "size"])
def test_a_zip_that_writes_elsewhere_is_refused(
    place: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"..": ["../x"], "twice": ["x", "x"], "case": ["x", "X"], "link": ["x"], "size": ["x"]}
    with zipfile.ZipFile("foreign.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the name that is there twice
        for name in names[fault]:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if fault == "link" else 0o100644) << 16
            archive.writestr(entry, "/etc/passwd")
    if fault == "size":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(DataError, match="plain relative path|twice|both be files|links|unpacks"):
        rerun.main(["foreign.zip", "--directory", "new", "--trust"])
    assert not (place.parent / "x").exists()


def test_names_and_the_target_of_a_foreign_bundle(packed: Path) -> None:
    facts = json.loads((packed / "bundle.json").read_text())
    for changes, message in (
        ({"files": {"../../etc/passwd": "0"}}, "not a plain relative path"),
        ({"target": "--version"}, "is not the name of a target"),
    ):
        (packed / "bundle.json").write_text(json.dumps(facts | changes))
        with pytest.raises(DataError, match=message):
            bundle_files.check_bundle(packed)


@pytest.fixture
def packed(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with one fetched volume, a stand-in for the image, and no wheels."""
    Path("modern.sif").write_bytes(b"image")
    Path("wheels").mkdir()
    bundle.main(
        [
            *("make", "--settings", json.dumps(SETTINGS), "--images", "modern.sif"),
            *("--files", "data/phantom/train_0.zarr", "--wheels", "wheels", "--output", "packed"),
        ]
    )
    return place / "packed"


def test_a_bundle_has_objects_at_their_keys(packed: Path) -> None:
    assert (packed / "objects/funke/train_0.zarr/.zgroup").is_file()
    assert (packed / "objects/funke/train_0.manifest.json").is_file()
    assert not (packed / "objects/funke/train_0.zarr/.snakemake_timestamp").exists()
    assert json.loads((packed / "run.yaml").read_text())["mirror"] == "objects"
    bundle_files.check_bundle(packed)


def test_a_bundle_is_checked_with_the_standard_library_alone(packed: Path) -> None:
    program = packed / "workflow/scripts/bundle.py"
    done = subprocess.run(
        [sys.executable, "-S", "-P", program, "check"],
        env={"PYTHONPATH": str(program.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "files are unchanged" in done.stdout


def test_a_bundle_for_another_machine_is_refused(packed: Path) -> None:
    facts = json.loads((packed / "bundle.json").read_text())
    other = {**facts, "machine": "aarch64" if facts["machine"] != "aarch64" else "x86_64"}
    (packed / "bundle.json").write_text(json.dumps(other))
    with pytest.raises(ConfigError, match=f"is for machine {other['machine']}, this machine has"):
        bundle_files.check_bundle(packed)


def test_an_altered_file_of_a_bundle_is_named(packed: Path) -> None:
    image = packed / "containers/images/modern.sif"
    image.unlink()
    image.write_bytes(b"other")
    with pytest.raises(DataError, match=r"containers/images/modern\.sif has changed since"):
        bundle_files.check_bundle(packed)
    image.unlink()
    with pytest.raises(DataError, match=r"containers/images/modern\.sif is missing"):
        bundle_files.check_bundle(packed)


def test_an_image_that_is_being_built_is_not_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = ("Snakefile", "rules/a.smk", "containers/modern.def")
    for name in (*code, "containers/images/modern.sif.build/proc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("config", "workflow", "profiles", "envs"):
        (tmp_path / name).mkdir()
    look = Path.iterdir

    def guarded(folder: Path) -> Iterator[Path]:
        assert "images" not in folder.parts, f"{folder} was entered"
        return look(folder)

    monkeypatch.setattr(Path, "iterdir", guarded)
    assert set(code_files(tmp_path, tmp_path)) == set(code)


def test_a_bundle_is_another_one_after_an_edit_of_what_it_copies(tmp_path: Path) -> None:
    own = tmp_path / "config/networks/mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("fmaps: 3\n")
    before = code_versions(bundle_writer.ROOT, tmp_path)
    assert {"Snakefile", "config/config.yaml", "workflow/scripts/train.py"} <= before.keys()
    assert code_versions(bundle_writer.ROOT, tmp_path) == before
    own.write_text("fmaps: 4\n")
    after = code_versions(bundle_writer.ROOT, tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"config/networks/mine.yaml"}


def test_an_edit_of_a_packed_file_does_not_change_the_bundle(place: Path) -> None:
    own = Path("own.h5")
    own.write_bytes(b"first")
    moved = bundle_writer.put_data([own], Path("packed"))
    own.write_bytes(b"later")
    assert (Path("packed") / moved["own.h5"]).read_bytes() == b"first"


def test_layers_of_this_machine_are_packed(place: Path) -> None:
    layer = place / "elsewhere" / "layer"
    (layer / "8_8_40").mkdir(parents=True)
    (layer / "info").write_text("{}")
    (layer / "8_8_40" / "0-64_0-64_0-16").write_bytes(b"block")
    Path("config/datasets").mkdir(parents=True)
    Path("config/datasets/mine.yaml").write_text(f'raw: {{path: "file://{layer}"}}\n')
    bundle_writer.put_code(Path("packed"), bundle_writer.put_data([layer], Path("packed")), "mine")
    text = Path("packed/config/datasets/mine.yaml").read_text()
    assert text == 'raw: {path: "file://files/0/layer"}\n'
    assert Path("packed/files/0/layer/8_8_40/0-64_0-64_0-16").read_bytes() == b"block"


def test_own_files_are_named_where_the_bundle_has_them(place: Path) -> None:
    own = place / "elsewhere" / "cubes.h5"
    own.parent.mkdir()
    own.write_bytes(b"cubes")
    Path("config/datasets").mkdir(parents=True)
    Path("config/datasets/mine.yaml").write_text(f"raw: {{path: {own}}}\n")
    moved = bundle_writer.put_data([own], Path("packed"))
    bundle_writer.put_code(Path("packed"), moved, "mine")
    assert Path("packed/config/datasets/mine.yaml").read_text() == "raw: {path: files/0/cubes.h5}\n"
    check_files(Path("packed"), {"files/0/cubes.h5": file_sha256(own)}, "bundle")
