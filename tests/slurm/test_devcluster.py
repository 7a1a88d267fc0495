"""The cluster in a box: a second one beside that of the tests, of a user who is not root."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_jobs.runtime.files import wait_for
from tests.slurm.conftest import DEVCLUSTER, NODES, UNAVAILABLE, free_ports, variables_of

NOBODY = 65534


class Box:
    """A cluster of two nodes, its commands run as `user`."""

    def __init__(self, place: Path, user: int) -> None:
        self.place = place
        self.folder = place / "cluster"
        self.user = user
        mine = {"DIR": str(self.folder), "PORT": str(free_ports(4)), "NODES": "2"}
        clean = {k: v for k, v in os.environ.items() if "SLURM" not in k and "MJ_DEV" not in k}
        self.environment = clean | {f"MJ_DEVCLUSTER_{name}": value for name, value in mine.items()}

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as the cluster's user."""
        other = ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        command = [*(other if self.user != os.getuid() else []), *map(str, words)]
        return subprocess.run(
            command,
            env=self.environment,
            cwd=self.place,
            capture_output=True,
            text=True,
            check=check,
            timeout=240,
        )

    def call(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of the devcluster's scripts."""
        return self.run(self.place / "devcluster" / name, *words, check=False)

    def pids(self) -> dict[str, str]:
        return {path.stem: path.read_text().strip() for path in self.folder.glob("run/*.pid")}

    def processes(self) -> list[str]:
        """All that belong to the cluster, by their environment or the files that they hold."""
        mark = str(self.folder).encode()
        return [path.name for path in Path("/proc").glob("[0-9]*") if is_of(path, mark)]


def is_of(process: Path, mark: bytes) -> bool:
    try:
        if mark in process.joinpath("environ").read_bytes():
            return True
        links = [*process.joinpath("fd").iterdir(), process / "cwd"]
        return any(mark in os.fsencode(os.readlink(link)) for link in links)
    except OSError:  # it has ended
        return False


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv (util-linux) here: nobody else's cluster can be brought up")
    user = NOBODY if os.getuid() == 0 else os.getuid()
    place = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="mj-box-"))
    try:
        place.chmod(0o755)
        shutil.copytree(DEVCLUSTER, place / "devcluster")
        subprocess.run(["chmod", "-R", "a+rX", place / "devcluster"], check=True)
        os.chown(place, user, -1)
        found = Box(place, user)
        try:
            up = found.call("up")
            if up.returncode == UNAVAILABLE:
                pytest.skip(f"no Slurm for one who is not root: {up.stderr}")
            assert up.returncode == 0, up.stderr
            found.environment |= variables_of(Path(up.stdout.strip()))
            yield found
        finally:
            found.call("down", "--purge")
    finally:
        shutil.rmtree(place)


def test_one_who_is_not_root_has_a_cluster(box: Box) -> None:
    said = box.run(
        "srun",
        "-N2",
        "--ntasks-per-node=2",
        "bash",
        "-c",
        "echo $(id -u) $(hostname) $SLURM_NODEID",
    )
    isolated = "isolation: uts" in box.call("up").stderr
    names = ["node1", "node1", "node2", "node2"] if isolated else [os.uname().nodename] * 4
    wanted = [f"{box.user} {name} {place // 2}" for place, name in enumerate(names)]
    assert sorted(said.stdout.splitlines()) == wanted
    asked = ["--gpus-per-node=3", "-N2", "bash", "-c", "echo $CUDA_VISIBLE_DEVICES"]
    assert box.run("srun", *asked).stdout == "0,1,2\n" * 2
    record = f"|{pwd.getpwuid(box.user).pw_name}|dev|COMPLETED"
    fields = "-aPojobid,user,account,state"
    wait_for(lambda: record in box.run("sacct", fields).stdout, "accounting", seconds=60, every=0.2)


def test_a_second_up_is_quick_and_changes_nothing(box: Box) -> None:
    before = box.pids(), contents(box.folder / "etc")
    seconds = []
    for _ in range(3):  # 0.7 s on an idle machine
        start = time.monotonic()
        again = box.call("up")
        seconds.append(time.monotonic() - start)
        assert again.returncode == 0, again.stderr
    assert min(seconds) < 5
    assert again.stdout.strip() == str(box.folder / "env.sh")
    assert (box.pids(), contents(box.folder / "etc")) == before
    assert len(before[0]) == 6


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_clusters_do_not_see_each_other(box: Box) -> None:
    asked = ["--parsable", "--job-name=only-there", "--output=/dev/null", "--wrap=sleep 1000"]
    there = box.run("sbatch", *asked).stdout.strip()
    try:
        here = subprocess.run(["squeue", "-ho%j"], capture_output=True, text=True, check=True)
        assert "only-there" not in here.stdout
        nodes = subprocess.run(
            ["sinfo", "-ho%D", "-pmain"], capture_output=True, text=True, check=True
        )
        assert nodes.stdout.split() == [str(NODES)]
        queue = lambda: box.run("squeue", "-ho%j").stdout.split()  # noqa: E731
        wait_for(lambda: queue() == ["only-there"], "the end of jobs before", seconds=60)
        assert box.run("sinfo", "-ho%D", "-pmain").stdout.split() == ["2"]
    finally:
        box.run("scancel", there)


def test_a_node_is_killed_and_comes_back(box: Box) -> None:
    stays = ["--no-kill", "--output=/dev/null", "--wrap=srun --no-kill sleep 1000"]
    box.run("sbatch", "-N2", *stays)
    wait_for(lambda: running_on(box) == {"node1", "node2"}, "both tasks", seconds=60, every=0.2)
    assert box.call("node", "kill", "node2").returncode == 0
    assert running_on(box) == {"node1"}
    assert "slurmd.node2" not in box.pids()
    assert box.call("node", "start", "node2").returncode == 0
    state = ["sinfo", "-hnnode2", "-pmain", "-o%t"]
    up = lambda: box.run(*state).stdout.strip() in ("idle", "mix", "alloc")  # noqa: E731
    wait_for(up, "node2", seconds=60, every=0.2)
    box.run("scancel", "--user", pwd.getpwuid(box.user).pw_name)
    wrong = box.call("node", "kill", "node7")
    assert "no such node: 'node7'; there are node1 to node2" in wrong.stderr


def test_a_slurmd_that_crashes_is_started_again(box: Box) -> None:
    stays = ["--no-kill", "--output=/dev/null", "--wrap=srun --no-kill sleep 1000"]
    box.run("sbatch", "-N2", *stays)
    wait_for(lambda: running_on(box) == {"node1", "node2"}, "both tasks", seconds=60, every=0.2)
    before = box.pids()["slurmd.node2"]
    os.kill(int(before), signal.SIGABRT)
    wait_for(lambda: not Path(f"/proc/{before}").exists(), "its end", seconds=10, every=0.05)
    mended = box.call("node", "mend")
    assert "slurmd of node2 has crashed and is started again" in mended.stderr
    assert box.pids()["slurmd.node2"] != before
    assert running_on(box) == {"node1", "node2"}
    assert box.call("node", "kill", "node2").returncode == 0
    assert box.call("node", "mend").stderr == ""  # who was killed stays so
    assert "slurmd.node2" not in box.pids()
    assert box.call("node", "start", "node2").returncode == 0
    box.run("scancel", "--user", pwd.getpwuid(box.user).pw_name)


def running_on(box: Box) -> set[str]:
    """The nodes on which tasks of the cluster's jobs run."""
    nodes: set[str] = set()
    for pid in box.processes():
        try:
            variables = Path("/proc", pid, "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        nodes |= {
            v.partition(b"=")[2].decode() for v in variables if v.startswith(b"SLURMD_NODENAME=")
        }
    return nodes


def test_down_stops_its_own_and_purge_leaves_nothing(box: Box, tmp_path: Path) -> None:
    """Beside it: the tests' cluster, and a process with a daemon's name whose pid a file holds."""
    box.run("scancel", "--user", pwd.getpwuid(box.user).pw_name)  # what a test that failed has left
    wait_for(lambda: not running_on(box), "the end of jobs before", seconds=60, every=0.2)
    shutil.copy(shutil.which("sleep") or "", tmp_path / "slurmctld")
    stranger = subprocess.Popen([tmp_path / "slurmctld", "1000"])
    try:
        (box.folder / "run" / "slurmd.node9.pid").write_text(f"{stranger.pid}\n")
        box.run("sbatch", "-N2", "--output=/dev/null", "--wrap=trap '' TERM; srun sleep 1000")
        wait_for(lambda: len(running_on(box)) == 2, "both tasks", seconds=60, every=0.2)
        down = box.call("down", "--purge")
        assert down.returncode == 0, down.stderr
        assert not box.folder.exists()
        left = [Path("/proc", p, "cmdline").read_bytes() for p in box.processes()]
        assert left == []
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()
    subprocess.run(["srun", "-N2", "true"], check=True)
    again = box.call("down")
    assert (again.returncode, "nothing at" in again.stderr) == (0, True)
