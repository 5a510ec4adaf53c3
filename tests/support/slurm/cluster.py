"""A real Slurm on this machine alone, up in about two seconds: its own daemons, key, ports and folder; no systemd.

Jobs in the partition ``high`` preempt those in ``main``, which get five seconds to save and are queued again. Both have
one node. The partition ``both`` also has a second one, another daemon of this machine.
"""

import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path

import pytest

from blurdm.core.signals import stop_with_parent
from tests.support.tools import require

CPUS = 4  # advertised, whatever the machine has
READY_SECONDS = 30.0
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CryptoType=crypto/munge
# A job waits before it is run again until its old credential has expired; the default is two minutes.
AuthInfo=socket={folder}/munge.sock,cred_expire=6
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 \
RealMemory=4000 State=UNKNOWN
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={port_one} Gres=gpu:2
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={port_two}
PartitionName=main Nodes=one Default=YES MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
PartitionName=high Nodes=one MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=both Nodes=one,two MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=5
"""


class Cluster:
    """Daemons that end with this process, in ``folder``; its commands find it by SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.configuration = folder, folder / "slurm.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        (self.folder / "state").mkdir()
        controller_port, port_one, port_two = _free_ports(3)
        text = CONFIGURATION.format(
            folder=self.folder,
            host=platform.node().partition(".")[0],
            user=getuser(),
            cpus=CPUS,
            controller_port=controller_port,
            port_one=port_one,
            port_two=port_two,
        )
        self.configuration.write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        # devices that exist everywhere stand in for GPUs: they can be asked for, and nothing can compute on them
        gpus = "".join(f"NodeName=one Name=gpu File=/dev/{device}\n" for device in ("null", "zero"))
        (self.folder / "gres.conf").write_text(gpus)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "seed-file": "munged.seed"}
        options = [f"--{name}={self.folder / file}" for name, file in files.items()]
        self._run("munged", "--foreground", "--force", *options)
        self._wait("munge", "--socket", str(self.folder / "munge.sock"), "--no-input")
        self._run("slurmctld", "-D", "-c", "-f", str(self.configuration))
        for node in ("one", "two"):
            self._run("slurmd", "-D", "-N", node, "-f", str(self.configuration))
        self._wait("sinfo", "--noheader", "--partition=both", "--format=%D %T", says="2 idle")

    def stop(self) -> None:
        """End all jobs, and then the daemons: jobs would outlive them."""
        self.clear()
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(timeout=30)

    def clear(self) -> None:
        """End all jobs, at once."""
        user = f"--user={getuser()}"
        self.ask("scancel", user)
        self.ask("scancel", user, "--signal=KILL")
        deadline = time.monotonic() + READY_SECONDS
        while self.ask("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.1)

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints, or nothing."""
        environment = os.environ | {"SLURM_CONF": str(self.configuration)}
        return subprocess.run(command, capture_output=True, text=True, env=environment).stdout

    def _run(self, *command: str) -> None:
        environment = os.environ | {"SLURM_CONF": str(self.configuration)}
        with open(self.folder / f"{command[0]}.out", "ab") as said:
            daemon = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment,
                cwd=self.folder,
                preexec_fn=stop_with_parent,
            )
        self._daemons.append(daemon)

    def _wait(self, *command: str, says: str = "") -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not (answer := self.ask(*command)) or says not in answer:
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self._daemons):
                logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.[lo]*"))
                raise RuntimeError(f"Slurm did not start: {' '.join(command)}\n{logs}")
            time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def slurm_here() -> Iterator[Cluster]:
    """A cluster that every command finds. In /tmp: a longer path of munge's socket may exceed its limit."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        cluster.start()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SLURM_CONF", str(cluster.configuration))
            yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[Cluster]:
    """Started once."""
    require("slurmctld", "slurmd", "munged", "sbatch")
    with slurm_here() as cluster:
        yield cluster


@pytest.fixture
def slurm(slurm_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, for a test that leaves jobs in the queue."""
    yield slurm_cluster
    slurm_cluster.clear()
