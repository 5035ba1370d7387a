"""Names are data: each reaches its program as one argument, or is refused while planning."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import tempfile
import unicodedata
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import pytest
import snakemake.utils
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake_interface_executor_plugins.utils import format_cli_arg

from hostile_names import NAMES
from lint_rules import compiled
from retrace.config.command_line_values import decoded, encoded
from retrace.errors import ConfigError
from retrace.planning.container_binds import bind_options, with_options
from retrace.planning.plain_names import check_folders, check_path, quoted

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDER = '#!/bin/sh\nprintf "%s\\0" "${0##*/}" "$@" >> "$RECORD"\n'
"""A program that notes its name and its arguments."""
STAND_INS = ("python", "tee", "apptainer", "touch", "bash")


@cache
def shell_commands() -> dict[str, str]:
    """The command of every rule as it is written, by file and number."""
    commands: dict[str, str] = {}
    for file in sorted((REPOSITORY / "rules").glob("*.smk")):
        tree = ast.parse("\n".join(line.text for line in compiled(file)))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr == "shellcmd":
                commands[f"{file.stem} {len(commands)}"] = ast.literal_eval(call.args[0])
    return commands


class Values:
    """Every attribute is a name: `stem` and the path of the attribute."""

    def __init__(self, stem: str, kind: str) -> None:
        self.stem, self.kind = stem, kind

    def __getattr__(self, name: str) -> str:
        return f"{self.stem}{self.kind}_{name}"

    def __str__(self) -> str:
        return f"{self.stem}{self.kind}"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-ins, whose `record` they write."""
    folder = tmp_path_factory.mktemp("programs")
    for name in STAND_INS:
        (folder / name).write_text(RECORDER)
        (folder / name).chmod(0o755)
    return folder


def arguments(programs: Path, command: str) -> list[str]:
    """What the stand-ins receive when a shell runs a command."""
    record = programs / "record"
    record.write_bytes(b"")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {
        "PATH": path,
        "RECORD": str(record),
        "RETRACE_PYTHON": str(programs / "python"),
    }
    with tempfile.TemporaryDirectory() as place:
        shell = ["/bin/bash", "-c", command]
        subprocess.run(shell, cwd=place, env=environment, capture_output=True)
    return sorted(os.fsdecode(record.read_bytes()).split("\0")[:-1])


def formatted(command: str, stem: str) -> str:
    """A rule's command as Snakemake formats it, with names that begin with `stem`."""
    kinds = {kind: Values(stem, kind) for kind in ("input", "output", "params", "log")}
    return str(snakemake.utils.format(command, threads=4, resources=Values("4", ""), **kinds))


@cache
def received(programs: Path, commands: tuple[str, ...], stem: str) -> list[str]:
    """What programs receive from commands with names that begin with `stem`."""
    script = "\n".join(f"( {formatted(command, stem)}\n)" for command in commands)
    return arguments(programs, script)


@settings(max_examples=8)
@given(name=NAMES)
def test_every_rule_passes_a_name_as_one_argument(programs: Path, name: str) -> None:
    assert len(shell_commands()) > 40
    plain = received(programs, tuple(shell_commands().values()), "NAME")
    assert len(plain) > 200
    hostile = received(programs, tuple(shell_commands().values()), name)
    assert hostile == sorted(word.replace("NAME", name) for word in plain)


def test_a_name_without_quotes_is_detected(programs: Path) -> None:
    command = ("python {input.script:q} --output {output.file}",)
    plain = received(programs, command, "NAME")
    assert received(programs, command, "a b") != sorted(w.replace("NAME", "a b") for w in plain)


@settings(max_examples=30)
@given(name=NAMES, working=NAMES)
def test_containers_see_a_folder_under_its_name_or_it_is_refused(
    programs: Path, name: str, working: str
) -> None:
    from snakemake.deployment import singularity

    try:
        check_folders(Path("/w"), Path("/") / working, on_cluster=False, in_containers=True)
        options = bind_options([Path("/data") / name])
    except ConfigError as error:
        assert "rename it" in str(error)
        return
    (option, value) = options[0]
    bound = {
        "--bind": [f"/data/{name}"],
        "--mount": [f'type=bind,"source={quoted_csv(name)}","destination={quoted_csv(name)}"'],
    }
    assert [value] == bound[option]
    singularity.Singularity().binary = "apptainer"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(singularity.os, "getcwd", lambda: f"/{working}")
        command = singularity.shellcmd("a.sif", "true", args=with_options("--nv", options))
    words = ["exec", "--home", f"/{working}", "--nv", option, value, "a.sif", "sh", "-c", "true"]
    assert arguments(programs, command) == sorted(["apptainer", *words])


def quoted_csv(name: str) -> str:
    """A folder of the test in a field of CSV."""
    return f"/data/{name}".replace('"', '""')


@given(name=NAMES)
def test_files_of_jobs_have_names_that_snakemake_and_clusters_pass_on(name: str) -> None:
    controls = any(unicodedata.category(letter) == "Cc" for letter in name)
    here = bool(set("{}") & set(name)) or controls
    cluster = here or bool(set('$`\\"') & set(name)) or name.startswith("-")
    for on_cluster, refused in ((False, here), (True, cluster)):
        with pytest.raises(ConfigError, match="rename") if refused else nullcontext():
            check_path(name, on_cluster=on_cluster)


@given(values=st.lists(NAMES, max_size=4))
def test_settings_reach_jobs_through_any_shell(values: list[str]) -> None:
    """`sbatch --wrap="…"` quotes a command again, with double quotes."""
    words = [f"mirror={value}" for value in values]
    passed = encoded(words)
    assert decoded(passed) == words
    once = " ".join(quoted(word) for word in passed)
    assert shlex.split(once) == passed
    script = f'printf "%s\\0" "{once}"'
    again = subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout
    assert shlex.split(again.rstrip("\0")) == passed


def test_a_word_for_jobs_is_not_for_users() -> None:
    with pytest.raises(ConfigError, match="is reserved for jobs"):
        decoded(["encoded=a*"])


def test_snakemakes_own_quotes_are_still_unsafe() -> None:
    """If this fails, `quote_arguments` in rules/common.smk is no longer needed."""
    assert format_cli_arg("--config", ["a=it's $(id)"]) == '''--config "a=it's $(id)"'''
