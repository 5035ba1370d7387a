"""Commands, links and settings that the documentation names.

What is checked of the shell blocks (fenced or indented) and of inline code that is a command:

* `snakemake …`: the options are parsed by Snakemake's own parser; profiles exist; `--config` is
  laid over config.yaml and checked as a start checks it; each target is a verb, a dataset and a
  network that are there, or a rule.
  Targets of the datasets that need no file of the user's, without `--config`, are then planned
  together in one dry run. Those with `--config`, and targets that are files, are NOT planned here
  (tests/workflow/test_plans.py plans each kind), and nothing is executed.
* `python workflow/scripts/X.py …` and `python benchmarks/X.py …`: parsed by that program's own
  argparse, which is stopped before it works. Files it names need not exist; nothing is computed.
  A program without a parser must be called without arguments.
* `make …`: the goal is one of the Makefile's. Nothing is made.
* Other programs (git, ssh, aws, those of the original tutorials …) are in a list here, and only
  named. A line next to a command of ours that begins with anything else fails, so that no command
  is overlooked.

Links to pages and their anchors are followed without a build; tests/integration/test_docs_site.py
builds the site.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import get_argument_parser

import warm_python
from loaded_programs import program
from page_commands import OURS, Command, commands_of
from retrace.config import datasets as config_datasets
from retrace.config import networks, yaml_files
from retrace.config.command_line_values import read_config
from retrace.planning import container_images, targets
from retrace.planning.experiment import Planner

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TUTORIALS = (
    "elektronn-mnist.md",
    "lsd-tutorial.md",
    "znn.md",
    "elektronn.md",
    "alignment.md",
)
"""Pages that put commands of the original systems, NAME.py without a folder, next to ours."""
OTHERS = {
    "git",
    "cd",
    "source",
    "ssh",
    "aws",
    "moto_server",
    "tensorboard",
    "apptainer",
    "cloudfiles",
    "squeue",
}
"""Programs that are not ours; commands of theirs are not checked."""
PLANNED = ("zfinch", "fib25", "hemi", "phantom")
"""Datasets whose targets plan without a file of the user's."""
ANY_WORD = ("SAVE_NAME", "TARGET", "OPTIONS", "D_N", "DATASET", "NETWORK", "VOLUME", "…")
"""Words that stand for something the reader fills in."""
NETWORKS = {
    name: content
    for page in PAGES
    for content, name in re.findall(
        r"^```yaml\n(name: (\w+)\nextends: .*?)^```$", page.read_text(), re.M | re.S
    )
}
"""The networks of the user's that pages show, by name: what their files contain."""


def all_commands() -> list[Command]:
    return [
        command
        for page in PAGES
        for command in commands_of(page.read_text(), page.relative_to(ROOT).as_posix())
    ]


COMMANDS = all_commands()


def of_program(*names: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[0] in names]


# ---------------------------------------------------------------- programs


class Parsed(BaseException):
    """Raised instead of a program's work, once its command line is parsed."""


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs end as soon as they have parsed their command line."""
    depth = 0

    def stopping(original: Any) -> Any:
        def parse(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            try:
                parsed = original(self, *args, **kwargs)
            finally:
                depth -= 1
            if depth == 0:
                raise Parsed
            return parsed

        return parse

    for name in ("parse_args", "parse_known_args"):
        original = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, stopping(original))


def arguments_of(command: Command) -> list[str]:
    """What the program gets: files read by the shell as an empty object, brackets gone."""
    words = ["{}" if word.startswith("$(cat ") else word for word in command.words[2:]]
    return [word.strip("[]") if not word.startswith(("{", "[{")) else word for word in words]


def python_commands() -> list[Command]:
    ours = re.compile(r"(workflow/scripts|benchmarks|tests)/\w+\.py")
    commands = of_program("python", ".venv/bin/python")
    return [command for command in commands if ours.fullmatch(command.words[1])]


@pytest.mark.usefixtures("stopped")
def test_programs_accept_the_options_that_rules_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    refused, modules = [], {}
    for command in dict.fromkeys(python_commands()):
        path = ROOT / command.words[1]
        assert path.is_file(), f"{command}: no such program"
        if path.parent.name == "tests":
            continue  # takes a folder, without a parser
        if "parse_args" not in path.read_text():  # of its own or of the program it extends
            assert not arguments_of(command), f"{command}: takes no arguments"
            continue
        if path not in modules:
            modules[path] = program(path)
        monkeypatch.setattr(sys, "argv", [path.name, *arguments_of(command)])
        try:
            modules[path].main()
            refused.append(f"{command}: does not parse its arguments")
        except Parsed:
            continue
        except SystemExit:
            refused.append(f"{command}: {capsys.readouterr().err.splitlines()[-1]}")
    assert not refused, "\n".join(refused)
    assert len(modules) > 10


@pytest.mark.usefixtures("stopped")
def test_an_option_that_no_program_has_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    module = program(ROOT / "workflow/scripts/verify.py")
    monkeypatch.setattr(sys, "argv", ["verify.py", "--no-such-option"])
    with pytest.raises(SystemExit):
        module.main()


def test_other_python_is_short_code() -> None:
    others = set(of_program("python", ".venv/bin/python")) - set(python_commands())
    for command in others:
        if command.page.endswith(TUTORIALS) and re.match(r"(-i|[\w-]+(\.py)?)$", command.words[1]):
            continue
        assert command.words[1] == "-c", f"{command}: no program of ours"
        compile(command.words[2], str(command), "exec")


# ---------------------------------------------------------------- snakemake


PARSER = get_argument_parser()


@cache
def snakemake_arguments(command: Command) -> argparse.Namespace:
    """The options as Snakemake itself takes them, targets with braces filled in."""
    try:
        arguments: argparse.Namespace = PARSER.parse_args(list(command.words[1:]))
    except SystemExit:
        raise AssertionError(f"{command}: Snakemake does not take this") from None
    arguments.targets = [target for word in arguments.targets for target in filled_in(word)]
    return arguments


def filled_in(word: str) -> list[str]:
    """The words that a shell makes of a{b,c}d."""
    before, brace, rest = word.partition("{")
    if not brace:
        return [word]
    inside, _, after = rest.partition("}")
    return [f"{before}{part}{after}" for part in inside.split(",")]


def is_placeholder(word: str) -> bool:
    return any(part in word for part in ANY_WORD)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the custom datasets and networks, and a training, of the pages."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "config" / "datasets").mkdir(parents=True)
    sample = yaml.safe_load((ROOT / "config/datasets/fib25_sample.yaml").read_text())
    for name in ("mine", "far"):
        path = folder / "config" / "datasets" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**sample, "name": name}))
    (folder / "config" / "networks").mkdir()
    for name, content in NETWORKS.items():
        (folder / "config" / "networks" / f"{name}.yaml").write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        planner = Planner(ROOT, read_config([ROOT / "config/config.yaml"], []))
        program(ROOT / "docs/_site/planned_rules.py").write_snapshot(planner, "zfinch", "mtlsd")
    return folder


def snakemake(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = [warm_python.program(), "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    return subprocess.run([*program, *words], cwd=place, capture_output=True, text=True)


def known_targets(place: Path) -> set[str]:
    """Every target, as the planning of each rule file registers it, and every rule."""
    own = [p.stem for p in (place / "config/datasets").glob("*.yaml")]
    datasets = {*yaml_files.names("datasets"), *own}
    pairs = {f"{d}_{n}" for d in datasets for n in {*yaml_files.names("networks"), *NETWORKS}}
    for path in (ROOT / "workflow/scripts/retrace/planning").glob("*.py"):
        importlib.import_module(f"retrace.planning.{path.stem}")
    names = {f"{verb}_{pair}" for verb in targets.PAIR_VERBS for pair in pairs}
    names |= {f"{verb}_{d}" for verb in (*targets.DATA_VERBS, "reproduce") for d in datasets}
    names |= {f"fetch_{pair}_checkpoint" for pair in pairs}
    names |= {name for others in targets.OTHER_TARGETS for name, _ in others()}
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    names |= set(re.findall(r"^ *rule (\w+):", text, re.M))
    names |= {f"image_{name}" for name in container_images.SOURCES}
    return names | {f"fetch_container_{name}" for name in container_images.published_images(ROOT)}


def test_every_target_is_one_of_the_workflow(place: Path) -> None:
    known = known_targets(place)
    unknown = [
        f"{command}: {target}"
        for command in of_program("snakemake")
        for target in snakemake_arguments(command).targets
        if target not in known and "/" not in target and not is_placeholder(target)
    ]
    assert not unknown, "\n".join(unknown)
    assert len({t for c in of_program("snakemake") for t in snakemake_arguments(c).targets}) > 30


def test_the_networks_that_pages_show_are_allowed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    for name in NETWORKS:
        networks.network_for(name, config_datasets.load_dataset("mine"))
    assert NETWORKS.keys() >= {"few", "tuned"}


def test_every_setting_on_a_command_line_is_allowed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    count = 0
    for command in of_program("snakemake"):
        words = snakemake_arguments(command).config or []
        try:
            config = read_config([ROOT / "config/config.yaml"], words)
            config_datasets.check_chosen(config.volumes)
        except networks.ConfigError as error:
            raise AssertionError(f"{command}: {error}") from error
        count += len(words)
    assert count > 15


def test_every_profile_exists() -> None:
    for command in of_program("snakemake"):
        profile = snakemake_arguments(command).workflow_profile
        assert profile in (None, "none") or (ROOT / profile / "profile.yaml").is_file(), command


@pytest.mark.usefixtures("planning_apptainer")
def test_targets_without_settings_are_planned_together(place: Path) -> None:
    plain = [snakemake_arguments(command) for command in of_program("snakemake")]
    targets = {target for a in plain if not a.config for target in a.targets}
    others = [name for name in yaml_files.names("datasets") if name not in PLANNED]
    foreign = re.compile(rf".*_({'|'.join([*others, 'mine', 'far'])})(_.*)?")
    owner = re.compile(rf"[a-z_]+_({'|'.join(PLANNED)})(_[a-z0-9_]+)?")
    planned = sorted(t for t in targets if owner.fullmatch(t) and not foreign.fullmatch(t))
    run = snakemake(place, *planned, "--use-singularity", "--dry-run", "--quiet", "all")

    assert run.returncode == 0, run.stdout + run.stderr
    assert len(planned) > 15


# ---------------------------------------------------------------- make and other programs


def test_every_goal_of_make_exists() -> None:
    goals = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    for command in of_program("make"):
        requested = [word for word in command.words[1:] if "=" not in word and word[0] != "-"]
        assert set(requested) <= goals, command


def test_every_documented_command_is_checked() -> None:
    strangers = [c for c in COMMANDS if c.words[0] not in {*OURS, *OTHERS}]

    assert not strangers, "\n".join(map(str, strangers))
    assert len(COMMANDS) > 80


# ---------------------------------------------------------------- links


# ---------------------------------------------------------------- settings
