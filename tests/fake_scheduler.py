"""Stand-ins for the commands of LSF and SGE: they record submissions and run them.

`programs(folder)` makes a folder of commands to put first on the PATH. Options that the real
commands do not have are refused. FAKE_FAILURES=N lets the first N jobs fail before they start, as
a job does that is killed for its memory.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

BSUB = ("-J", "-o", "-e", "-env", "-P", "-q", "-W", "-n", "-R", "-gpu", "-wa", "-wt", "-cwd")
QSUB = ("-S", "-r", "-j", "-o", "-N", "-P", "-q", "-l")
QSUB_FLAGS = ("-terse", "-cwd", "-V")
NAMES = ("bsub", "bjobs", "bkill", "badmin", "lsclusters", "qsub", "qstat", "qacct", "qdel")


def programs(folder: Path) -> Path:
    """A folder with one command for each of NAMES; `jobs` next to it records submissions."""
    bin_folder = folder / "bin"
    for path in (bin_folder, folder / "jobs", folder / "lsbatch" / "fake" / "configdir"):
        path.mkdir(parents=True)
    (folder / "lsbatch" / "fake" / "configdir" / "lsb.params").write_text("DEFAULT_QUEUE = any\n")
    for name in NAMES:
        command = f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n'
        (bin_folder / name).write_text(command)
        (bin_folder / name).chmod(0o755)
    return bin_folder


def submissions(folder: Path) -> list[dict[str, Any]]:
    """What was submitted, in order: its options (each with all its values) and its command."""
    files = sorted((folder / "jobs").glob("*.json"), key=lambda path: int(path.stem))
    return [json.loads(path.read_text()) for path in files]


def options(
    arguments: list[str], known: tuple[str, ...], flags: tuple[str, ...] = ()
) -> tuple[dict[str, list[str]], str]:
    """Options with their values, and the one argument after them; exits if one is unknown."""
    values: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        name = rest.pop(0)
        if name == "-pe" and known is QSUB:
            values[name] = [rest.pop(0), rest.pop(0)]
        elif name in known:
            values.setdefault(name, []).append(rest.pop(0))
        elif name in flags:
            values[name] = []
        else:
            sys.exit(f"unknown option {name}")
    if len(rest) != 1:
        sys.exit(f"one command is needed, not {rest}")
    return values, rest[0]


class Jobs:
    """The jobs in a folder: N.json as submitted, N.pid, and N.exit once it has ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "jobs"

    def submit(self, chosen: dict[str, list[str]], command: list[str], log: Path) -> int:
        """Starts `command` in a new session."""
        number = len(list(self.folder.glob("*.json"))) + 1
        content = {"options": chosen, "command": command}
        (self.folder / f"{number}.json").write_text(json.dumps(content))
        if number <= int(os.environ.get("FAKE_FAILURES", "0")):
            command = ["sh", "-c", "echo killed: out of memory; exit 137"]
        whole = ["sh", "-c", '"$@"; echo $? > "$0"', str(self.folder / f"{number}.exit"), *command]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = subprocess.Popen(
                whole, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        (self.folder / f"{number}.pid").write_text(str(process.pid))
        return number

    def ended(self, number: str) -> str | None:
        """The exit status of a job, None while it runs."""
        file = self.folder / f"{number}.exit"
        return (file.read_text().strip() or None) if file.is_file() else None

    def numbers(self) -> list[str]:
        return sorted((path.stem for path in self.folder.glob("*.json")), key=int)

    def cancel(self, numbers: list[str]) -> None:
        for number in numbers:
            if self.ended(number) is None:
                os.killpg(int((self.folder / f"{number}.pid").read_text()), signal.SIGTERM)
                (self.folder / f"{number}.exit").write_text("143")


def lsf(name: str, arguments: list[str], folder: Path) -> None:
    """The commands of LSF that its plugin calls."""
    jobs = Jobs(folder)
    if name == "bsub":
        chosen, command = options(arguments, BSUB)
        os.chdir(chosen["-cwd"][0])
        number = jobs.submit(chosen, ["bash", "-c", command], Path(chosen["-o"][0]))
        print(f"Job <{number}> is submitted to queue <{chosen['-q'][0]}>.")
    elif name == "bjobs":
        for number in jobs.numbers():
            state = {None: "RUN", "0": "DONE"}.get(jobs.ended(number), "EXIT")
            print(f"{number} {state}")
    elif name == "bkill":
        jobs.cancel(arguments)
    elif name == "badmin":
        print("MBD configuration at ...")
        print(f"\tLSF_CONFDIR = {folder}\n\tLSB_SHAREDIR = {folder}\n\tLSF_UNIT_FOR_LIMITS = GB")
    else:
        print("CLUSTER_NAME   STATUS\nfake           ok")


def sge(name: str, arguments: list[str], folder: Path) -> None:
    """The commands of SGE that the profile calls."""
    jobs = Jobs(folder)
    if name == "qsub":
        chosen, command = options(arguments, QSUB, QSUB_FLAGS)
        log = Path(chosen["-o"][0]) / f"{chosen['-N'][0]}.o{len(jobs.numbers()) + 1}"
        print(jobs.submit(chosen, [chosen["-S"][0], command], log))
    elif name == "qstat":
        print("job-ID  prior   name  user  state\n-----------------------------------")
        for number in jobs.numbers():
            if jobs.ended(number) is None:
                print(f"{number:>7} 0.55500 snakejob root r")
    elif name == "qacct":
        status = jobs.ended(arguments[-1])
        if status is None:
            sys.exit(f"error: job id {arguments[-1]} not found")
        print(f"jobnumber    {arguments[-1]}\nfailed       0\nexit_status  {status}")
    else:
        jobs.cancel(arguments)


if __name__ == "__main__":
    family = sge if sys.argv[2].startswith("q") else lsf
    family(sys.argv[2], sys.argv[3:], Path(sys.argv[1]))
