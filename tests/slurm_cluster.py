"""A real SLURM on one machine: two nodes, a CPU and a GPU partition, removed at the end.

Debian's packages `slurm-wlm` and `munge`, run as plain processes by root: no systemd, no cgroups,
no accounting. The nodes declare more cores, memory and GPUs than exist, so that the workflow's
own requests fit; nothing enforces them. SLURM reads /etc/slurm alone (Snakemake takes SLURM_CONF
out of its jobs' environment), so a machine that has a configuration there is not touched.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

CONFIGURATION = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")
MARK = "# Written by the tests of retrace, which delete it; not for use.\n"
LOCK = Path("/run/lock/retrace-slurm-tests")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
SYSTEM_PATH = f"{os.defpath}:/usr/sbin:/sbin:/usr/local/sbin"
NODES = ("node1", "node2")
FIRST_PORT = 26821
PATIENCE_S = 600.0

SLURM_CONF = """\
ClusterName=retrace
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=20
CryptoType=crypto/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=5,sched_min_interval=0
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
MinJobAge=3600
InactiveLimit=0
SlurmdTimeout=20
BatchStartTimeout=120
MessageTimeout=60
KillWait=300
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
GresTypes=gpu
{nodes}
PartitionName=cpu Nodes={names} Default=YES State=UP
PartitionName=gpu Nodes={names} State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
    "CPUs=8 RealMemory=64000 Gres=gpu:1"
)


def why_not() -> str | None:
    """The reason why SLURM cannot be started here, None if it can."""
    ours = False
    for file in (CONFIGURATION / name for name in FILES):
        if file.exists():
            ours = file.read_text().startswith(MARK)
            if not ours:
                return f"{file} is somebody else's"
    absent = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if not ours and output("sinfo"):
        return "a SLURM is in use here"
    return None if os.geteuid() == 0 else "starting SLURM needs root"


def output(*command: str) -> str:
    """What a command prints; its errors and its status are ignored."""
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    return done.stdout


def wait_for(what: str, is_due: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Returns once `is_due()` is true; TimeoutError naming `what` if it stays false."""
    end = time.monotonic() + patience_s
    while not is_due():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {patience_s:.0f} s")
        time.sleep(0.1)


def program(name: str) -> str:
    """The path of a daemon, which a user's PATH may not have."""
    return str(shutil.which(name, path=SYSTEM_PATH))


def munge_answers() -> bool:
    done = subprocess.run("munge -n | unmunge", shell=True, capture_output=True, check=False)
    return done.returncode == 0


@contextmanager
def munge() -> Iterator[None]:
    """MUNGE, which signs SLURM's messages: a running one, or a temporary one."""
    if munge_answers():
        yield
        return
    folder = Path("/run/munge")
    folder.mkdir(exist_ok=True)
    shutil.chown(folder, "munge", "munge")
    identity = ["--reuid=munge", "--regid=munge", "--clear-groups"]
    with daemon([*identity, program("munged"), "--foreground"], Path(os.devnull)):
        wait_for("munged", munge_answers)
        yield


@contextmanager
def daemon(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a new session; ended by SIGTERM, also if this process is killed."""
    whole = ["setpriv", "--pdeathsig=TERM", *command]
    with log.open("wb") as file:
        process = subprocess.Popen(
            whole, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def node_daemon(base: Path, node: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """The daemon of one node."""
    return daemon([program("slurmd"), "-D", "-N", node], base / f"{node}.log")


@dataclass
class Cluster:
    """The running nodes by name, each with the context that ends it."""

    base: Path
    nodes: dict[str, tuple[subprocess.Popen[bytes], ExitStack]] = field(default_factory=dict)

    def start(self, node: str) -> None:
        """Starts a node; a lost one comes back."""
        stack = ExitStack()
        self.nodes[node] = (stack.enter_context(node_daemon(self.base, node)), stack)

    def lose(self, node: str) -> None:
        """Kills a node and all its processes, like a power cut: nothing is reported.

        SLURM is not asked which processes these are: its answer takes seconds on a busy machine,
        in which a short job may end. Daemons die before jobs, so that no end of a job is reported.
        """
        process, stack = self.nodes.pop(node)
        on_node = processes_of(node)
        process.kill()
        for one in on_node:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        stack.close()

    def close(self) -> None:
        """Ends all nodes."""
        for _, stack in self.nodes.values():
            stack.close()


def processes_of(node: str) -> list[psutil.Process]:
    """The job processes of a node: first the step daemons (`slurmstepd`), then their children.

    SLURM names the node in each job's environment.
    """
    daemons = set[psutil.Process]()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("SLURMD_NODENAME") == node:
                daemons.update(one for one in process.parents() if one.name() == "slurmstepd")
    return [*daemons, *(child for one in daemons for child in one.children(recursive=True))]


@contextmanager
def configuration(base: Path) -> Iterator[None]:
    """Our files in /etc/slurm, until the end."""
    host = os.uname().nodename.split(".")[0]
    lines = [NODE.format(name=name, host=host, port=FIRST_PORT + i) for i, name in enumerate(NODES)]
    text = SLURM_CONF.format(host=host, base=base, nodes="\n".join(lines), names=",".join(NODES))
    contents = dict(zip(FILES, (text, "Name=gpu File=/dev/null\n"), strict=True))
    CONFIGURATION.mkdir(exist_ok=True)
    try:
        for name, content in contents.items():
            (CONFIGURATION / name).write_text(MARK + content)
        yield
    finally:
        for name in contents:
            (CONFIGURATION / name).unlink(missing_ok=True)


def jobs() -> list[str]:
    """Ids of the jobs that wait or run."""
    return output("squeue", "--noheader", "--format=%i").split()


def nodes_are_idle() -> bool:
    return output("sinfo", "--noheader", "--format=%D", "--states=idle").split()[:1] == ["2"]


@contextmanager
def jobs_cancelled() -> Iterator[None]:
    """Cancels the remaining jobs at the end, so that no process is left."""
    try:
        yield
    finally:
        if left := jobs():
            output("scancel", *left)
            wait_for("the end of all jobs", lambda: not jobs())


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does, with everything cleaned up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def running(base: Path) -> Iterator[Cluster]:
    """SLURM with its files in `base`; one at a time on a machine."""
    for name in ("state", *(f"spool/{node}" for node in NODES)):
        (base / name).mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(sigterm_as_interrupt())
        lock = stack.enter_context(LOCK.open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        stack.enter_context(configuration(base))
        stack.enter_context(munge())
        stack.enter_context(daemon([program("slurmctld"), "-D"], base / "slurmctld.log"))
        cluster = Cluster(base)
        stack.callback(cluster.close)
        for node in NODES:
            cluster.start(node)
        wait_for("two idle nodes of SLURM", nodes_are_idle)
        stack.enter_context(jobs_cancelled())
        yield cluster


def main() -> None:
    """A cluster to try things on, until Ctrl-C: `python tests/slurm_cluster.py FOLDER`."""
    if reason := why_not():
        sys.exit(reason)
    with suppress(KeyboardInterrupt), running(Path(sys.argv[1]).resolve()):
        print(output("sinfo"), flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
