"""Hostile names, servers and archives: how many of them do harm?

    python benchmarks/hostile_inputs.py
    python benchmarks/hostile_inputs.py --workflow ../other-clone     # the same inputs, other code

Every input goes through the programs, in processes of their own. It is *wrong* if a command in a
name runs, a file is written outside the folder, a secret or an untrusted program shows an effect, a
configuration changes its meaning, or the program ends with a traceback. It is *right* if the work
is done, or refused with one message that names the cause.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests" / "integration")]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "unit"), str(ROOT / "tests" / "workflow")]

import test_hostile_names as names  # noqa: E402
import test_packed_experiments as packed  # noqa: E402
import test_secrets as secrets  # noqa: E402
from test_moved_paths import DATASET  # noqa: E402

FOLDERS = (
    *("a b", "$(touch RAN)", "`touch RAN`", ";touch RAN", "it's $(touch RAN)", '"$(touch RAN)"'),
    *(
        "a\nb",
        "-rf",
        "--version",
        "a:b,c",
        "{dataset}",
        "{}",
        "%j",
        "é日本",
        "a\\nb",
        names.HOSTILE,
    ),
)
CRATE_NAMES = (
    *("config/../../outside", "../outside", "config//x", "config/a\nb", "CONFIG/config.yaml"),
    *("config", "config/config.yaml/x", "config\\..\\x"),
)
TARGETS = ("--version", "-n", "--help", "a b", "evaluate;x", "$(touch RAN)")
RAW_NAMES = ("raw", "a", "labels", "mine", "train", "own")
Check = Iterator[tuple[str, bool]]
"""Each input of a kind, and whether its outcome is right."""


def program(workflow: Path, place: Path, *words: str | Path, **variables: str) -> tuple[int, str]:
    """Status and output of a program, started in `place`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=place,
        env={**os.environ, "PATH": path, "AWS_EC2_METADATA_DISABLED": "true", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.returncode, done.stdout


def refused(printed: str) -> bool:
    """Whether a program ended with a message instead of a traceback."""
    return "Traceback" not in printed and ("error:" in printed.lower())


def folders(workflow: Path, scratch: Path) -> Check:
    """Own volumes in a folder of this name, which a setting names too, in containers."""
    (scratch / "bin").mkdir()
    stand_in = scratch / "bin" / "apptainer"
    stand_in.write_text(names.STAND_IN)
    stand_in.chmod(0o755)
    for number, name in enumerate(FOLDERS):
        place = scratch / str(number) / "work"
        names.write_dataset(place, "mine", place.parent / name)
        names.write_dataset(place, "other", place.parent / "of another dataset")
        image = names.image_path(workflow, place / "containers/images", "modern")
        image.parent.mkdir(parents=True)
        image.touch()
        options = ["--use-singularity", "--cores", "1", "mask_mine", "--workflow-profile", "none"]
        options += ["--config", f"mirror={place.parent / name}"]
        variables = {"PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"}
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
        variables["RECORD"] = str(place.parent / "record")
        words = ["-m", "snakemake", "--snakefile", workflow / "Snakefile", *options]
        status, printed = program(workflow, place, *words, **variables)
        made = (place / "results/mine/masks/a.manifest.json").is_file()
        record = place.parent / "record"
        calls = record.read_text(errors="replace") if record.exists() else ""
        ran = list(place.parent.rglob("RAN")) or "of another dataset" in calls
        yield name, not ran and (made if status == 0 else refused(printed))


def servers(workflow: Path, scratch: Path) -> Check:
    """Signed fetches that succeed or fail, and addresses with a password."""
    for kind in ("success", "reset", "AccessDenied", "InvalidToken", "redirect"):
        for size in (5, secrets.LARGE):
            place = scratch / f"{kind}{size}"
            place.mkdir()
            with secrets.answering(kind, size) as endpoint:
                yield f"{kind} {size}", _fetched(workflow, place, endpoint)
    for number, user in enumerate(("me:{}@", "{}@", "me:{}%40x@")):
        (scratch / str(number)).mkdir()
        endpoint = f"http://{user.format(secrets.PASSWORD)}127.0.0.1:9"
        yield endpoint, _fetched(workflow, scratch / str(number), endpoint)


def _fetched(workflow: Path, place: Path, endpoint: str) -> bool:
    settings = {"bucket": "b", "prefix": "p", "endpoint_url": endpoint, "unsigned": False}
    settings |= {"retries": 1, "threads": 1}
    words = [workflow / "workflow/scripts/fetch.py", "--settings", json.dumps(settings)]
    status, printed = program(workflow, place, *words, "--output", "out", **secrets.CANARIES)
    return not secrets.leaks(place, printed) and (status == 0 or refused(printed))


def crate_of(workflow: Path, place: Path) -> Path:
    """An RO-Crate that the workflow wrote of a synthetic experiment."""
    place.mkdir()
    here = Path.cwd()
    os.chdir(place)
    try:
        store = packed.fetched_store(place)
        Path(packed.MODEL).parent.mkdir(parents=True)
        Path(packed.MODEL).write_bytes(b"weights")
        made_of = packed.origin([store, Path(packed.MODEL)], {}, 1.0)
        Path(packed.EVALUATION).write_text(json.dumps({"origin": made_of}))
        packed.record("fetch", str(store), [], 1.0)
        packed.record("train", packed.MODEL, [str(store)], 3.0)
        packed.record("evaluate", packed.EVALUATION, [str(store), packed.MODEL], 5.0)
        words = ["--settings", json.dumps(packed.SETTINGS), "--results", packed.EVALUATION]
        words += ["--output", "crate", "--zip", "crate.zip"]
        status, printed = program(workflow, place, workflow / "workflow/scripts/crate.py", *words)
    finally:
        os.chdir(here)
    assert status == 0, printed
    return place / "crate"


def crates(workflow: Path, scratch: Path) -> Check:
    """Foreign RO-Crates, rerun with the trust that the version asks for."""
    sound = crate_of(workflow, scratch / "sound")
    for number, change in enumerate(crate_edits()):
        place = scratch / str(number)
        crate = place / "crate"
        shutil.copytree(sound, crate)
        (place / "outside").write_text("x: 1\n")
        (place / "deep").mkdir()
        named = change(crate)
        before = {p for p in place.rglob("*") if not p.is_relative_to(place / "deep/new")}
        yield (
            named,
            _rerun(workflow, place, trusts=True)
            and before == {p for p in place.rglob("*") if not p.is_relative_to(place / "deep/new")},
        )
    for option in ("", "--dry-run"):
        place = scratch / f"code{option}"
        shutil.copytree(sound, place / "crate")
        code = (place / "crate/Snakefile").read_text()
        edit(place / "crate", "Snakefile", f"open({str(place / 'RAN')!r}, 'w')\n{code}")
        yield f"code {option}", _rerun(workflow, place, trusts=False, option=option)


def edit(crate: Path, name: str, content: str, renamed: str | None = None) -> None:
    """Changes a file of a crate, which stays changed."""
    next(iter(packed.edited.__wrapped__(crate, name, content, renamed)))


def crate_edits() -> Iterator[Callable[[Path], str]]:
    """Changes of a sound RO-Crate, each with a name."""
    for name in CRATE_NAMES:

        def renamed(crate: Path, name: str = name) -> str:
            edit(crate, "config/demo.yaml", "x: 1\n", renamed=name)
            return name

        yield renamed
    for target in TARGETS:

        def aimed(crate: Path, target: str = target) -> str:
            edit(crate, "target.json", json.dumps({"target": target}))
            return target

        yield aimed
    for link in ("crate", "directory"):

        def linked(crate: Path, link: str = link) -> str:
            place, file = crate.parent, crate / "config/demo.yaml"
            if link == "directory":
                (place / "elsewhere").mkdir()
                (place / "deep/new").mkdir(parents=True)
                (place / "deep/new/config").symlink_to(place / "elsewhere")
            else:
                file.rename(place / "elsewhere.yaml")
                file.symlink_to(place / "elsewhere.yaml")
            return f"link in the {link}"

        yield linked


def _rerun(workflow: Path, place: Path, *, trusts: bool, option: str = "--dry-run") -> bool:
    """Whether a rerun is refused with a message, and does nothing."""
    script = workflow / "workflow/scripts/rerun.py"
    trust = ["--trust"] if trusts and "--trust" in script.read_text() else []
    words = [script, "crate", "--directory", "deep/new", *trust, *([option] if option else [])]
    status, printed = program(workflow, place, *words)
    return status != 0 and refused(printed) and not list(place.rglob("RAN"))


def zips(workflow: Path, scratch: Path) -> Check:
    """Zips whose entries lead elsewhere, collide or are links."""
    for number, entries in enumerate((["../x"], ["/x"], ["x", "x"], ["x", "X"], ["a/../../x"])):
        place = scratch / str(number)
        place.mkdir()
        with zipfile.ZipFile(place / "crate", "w") as archive:
            for name in entries:
                archive.writestr(name, "content")
        yield " ".join(entries), _rerun(workflow, place, trusts=True)


def bundles(workflow: Path, scratch: Path) -> Check:
    """Datasets whose own file is called like a key or value in the dataset's file."""
    for raw in RAW_NAMES:
        place = scratch / raw
        layer = place / "elsewhere" / "raw"
        for file in (place / raw, place / "labels", layer / "info"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("x")
        dataset = place / "config/datasets/mine.yaml"
        dataset.parent.mkdir(parents=True)
        dataset.write_text(DATASET % (raw, layer))
        (place / "wheels").mkdir()
        files = [*dict.fromkeys((raw, "labels")), str(layer)]
        used = {**packed.CONFIG}
        settings = {**packed.SETTINGS, "dataset": "mine", "config": used}
        words = ["make", "--settings", json.dumps(settings), "--files", *files]
        words += ["--wheels", "wheels", "--output", "packed"]
        program(workflow, place, workflow / "workflow/scripts/bundle.py", *words)
        yield raw, _is_edited(place, raw, layer, files)


def _is_edited(place: Path, raw: str, layer: Path, files: Sequence[str]) -> bool:
    """Whether the bundle's dataset is that of the user with the paths of the bundle."""
    moved = {name: f"files/{number}/{Path(name).name}" for number, name in enumerate(files)}
    expected = yaml.safe_load((place / "config/datasets/mine.yaml").read_text())
    for volume in ("a", "raw"):
        expected["volumes"][volume]["raw"]["path"] = moved[raw]
    expected["volumes"]["a"]["labels"]["path"] = moved["labels"]
    expected["volumes"]["streamed"]["raw"]["path"] = f"precomputed://file://{moved[str(layer)]}"
    try:
        found: Any = yaml.safe_load((place / "packed/config/datasets/mine.yaml").read_text())
    except (OSError, yaml.YAMLError):
        return False
    return bool(found == expected)


KINDS = {
    "names of folders and settings": folders,
    "servers and addresses with secrets": servers,
    "RO-Crates": crates,
    "zips": zips,
    "datasets of bundles": bundles,
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workflow", type=Path, default=ROOT, help="the clone whose code runs")
    parser.add_argument("--only", help="part of the names of the kinds")
    args = parser.parse_args(argv)
    print("| kind | inputs | right | wrong |\n|---|---|---|---|")
    wrong: list[str] = []
    for kind, check in KINDS.items():
        if args.only and args.only not in kind:
            continue
        with tempfile.TemporaryDirectory(prefix="retrace-hostile-") as scratch:
            outcomes = list(check(args.workflow.resolve(), Path(scratch)))
        counts = Counter(right for _, right in outcomes)
        print(f"| {kind} | {len(outcomes)} | {counts[True]} | {counts[False]} |", flush=True)
        wrong += [f"{kind}: {name!r}" for name, right in outcomes if not right]
    print("\n".join(["", *wrong]))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
