"""A fork of the server of warm_python is like a start of Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import warm_python
from kill import PATIENCE_S

REPORT = """\
import json, os, sys
import neighbour
seen = {"warm": "colorsys" in sys.modules, "argv": sys.argv, "folder": os.getcwd()}
seen |= {"name": __name__, "executable": sys.executable, "path": sys.path[0]}
seen["variable"] = os.environ.get("VARIABLE")
print(json.dumps(seen), flush=True)
print(sys.stdin.read(), file=sys.stderr)
sys.exit(neighbour.STATUS)
"""
"""A script that reads its input and a module next to it, and says in what it runs."""


@pytest.fixture(scope="module")
def python() -> str:
    """The command; what its server imports is imported by no start of Python."""
    return warm_python.start({"scripts": ["colorsys"]})


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Two modules in a folder."""
    (tmp_path / "neighbour.py").write_text("STATUS = 7\n")
    (tmp_path / "script.py").write_text(REPORT)
    return tmp_path / "script.py"


def test_a_script_has_the_arguments_streams_and_end_of_a_process(
    python: str, script: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    command = ["../script.py", "a word", "--option"]
    environment = {**os.environ, "VARIABLE": "value"}
    for program in (python, sys.executable):
        run = subprocess.run(
            [program, *command],
            cwd=folder,
            env=environment,
            input="sent",
            capture_output=True,
            text=True,
        )
        assert (run.returncode, run.stderr) == (7, "sent\n")
        assert json.loads(run.stdout) == {
            "warm": program == python,
            "argv": command,
            "folder": str(folder),
            "name": "__main__",
            "executable": program,
            "variable": "value",
            "path": str(tmp_path),
        }


def test_each_fork_imports_the_modules_of_this_moment(python: str, script: Path) -> None:
    assert subprocess.run([python, script], capture_output=True).returncode == 7
    script.with_name("neighbour.py").write_text("STATUS = 9999 - 9991\n")
    assert subprocess.run([python, script], capture_output=True).returncode == 8


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "PYTHONHASHSEED", "ONEDNN_MAX_CPU_ISA"])
def test_what_packages_read_at_import_starts_python_itself(
    python: str, script: Path, variable: str
) -> None:
    environment = {**os.environ, variable: "0" if variable == "PYTHONHASHSEED" else ""}
    run = subprocess.run([python, script], env=environment, capture_output=True, text=True)
    assert run.returncode == 7 and not json.loads(run.stdout)["warm"]


def test_other_arguments_start_python_itself(python: str) -> None:
    code = "import sys; print('colorsys' in sys.modules)"
    run = subprocess.run([python, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "False\n")


def test_a_hook_on_the_path_of_modules_is_imported_first(python: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.HOOKED = 3\n")
    (tmp_path / "script.py").write_text("raise SystemExit(HOOKED)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [python, str(tmp_path / "script.py")]
    assert subprocess.run(command, env=environment).returncode == 3


ENDING = """\
import atexit, sys, threading, time
def later():
    time.sleep(0.2)
    print("thread")
atexit.register(print, "atexit")
threading.Thread(target=later).start()
sys.stdout.write("last ")
{end}
"""


@pytest.mark.parametrize("end", ["", "sys.exit('text')", "sys.exit(300)", "raise ValueError('x')"])
def test_a_fork_ends_as_python_does(python: str, tmp_path: Path, end: str) -> None:
    (tmp_path / "script.py").write_text(ENDING.format(end=end))
    forked, expected = (
        subprocess.run([program, tmp_path / "script.py"], capture_output=True, text=True)
        for program in (python, sys.executable)
    )
    assert forked.stdout == expected.stdout == "last thread\natexit\n"
    assert forked.returncode == expected.returncode
    assert forked.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGINT])
def test_a_signal_that_ends_the_fork_is_the_end_of_the_command(
    python: str, tmp_path: Path, number: signal.Signals
) -> None:
    code = f"import os, signal\nsignal.signal({number}, signal.SIG_DFL)\n"
    code = code if number != signal.SIGKILL else "import os\n"
    (tmp_path / "script.py").write_text(f"{code}os.kill(os.getpid(), {number})\n")
    assert subprocess.run([python, str(tmp_path / "script.py")]).returncode == -number


WAITING = """\
import signal, sys, time
def handle(number, frame):
    sys.exit(5)
signal.signal(signal.SIGTERM, handle)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGTERM, 5), (signal.SIGUSR1, -10), (signal.SIGKILL, -9)]
)
def test_signals_reach_the_fork_and_are_its_end(
    python: str, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    (tmp_path / "script.py").write_text(WAITING)
    command = [python, str(tmp_path / "script.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(sent)
        assert process.wait(PATIENCE_S) == status
        assert process.stdout.read() == "", "the fork has ended too, and closed its output"
