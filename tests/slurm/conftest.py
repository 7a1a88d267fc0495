"""A real Slurm of six nodes for the tests, brought up once and taken down at the end."""

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_jobs.runtime.files import wait_for

ROOT = Path(__file__).parents[2]
DEVCLUSTER = ROOT / "slurm" / "devcluster"
NODES = 6
UNAVAILABLE = 69
"""Exit status of `up` where the packages cannot be had."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def _slurm_environment(pytestconfig: pytest.Config) -> Iterator[dict[str, str]]:
    """The variables with which Slurm's commands find the cluster."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    mine = {
        "MJ_DEVCLUSTER_DIR": str(place / f"mj-devcluster-tests-{os.getpid()}"),
        "MJ_DEVCLUSTER_PORT": str(free_ports(NODES + 2)),
        "MJ_DEVCLUSTER_NODES": str(NODES),
        "MJ_DEVCLUSTER_ODD_NAMES": "1",
    }
    environment = os.environ | mine
    try:
        status, printed, words = bring_up(environment, pytestconfig)
        if status == UNAVAILABLE:
            pytest.skip(f"no Slurm here: {words}")
        assert status == 0, words
        with mended_nodes(environment):
            yield variables_of(Path(printed)) | mine
    finally:
        subprocess.run([DEVCLUSTER / "down", "--purge"], env=environment, check=True)


@contextlib.contextmanager
def mended_nodes(environment: dict[str, str]) -> Iterator[None]:
    """A slurmd that crashes is started again while jobs go on, and that is told.

    22.05.8 does so at times: "free(): invalid pointer" at the end of a thread of its own, when two
    steps are launched at once.
    """
    over = threading.Event()
    run = Path(environment["MJ_DEVCLUSTER_DIR"]) / "run"

    def watch() -> None:
        while not over.wait(0.5):
            if any(has_ended(path) for path in run.glob("slurmd.*.pid")):
                command = [DEVCLUSTER / "node", "mend"]
                done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, check=False)
                os.write(2, done.stderr)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def has_ended(pid_file: Path) -> bool:
    """Whether the process of a pid file is no more; a file that is being written has none yet."""
    try:
        pid = int(pid_file.read_text())
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] in "ZX"
    except ValueError:
        return False
    except OSError:
        return pid_file.exists()


@pytest.fixture(scope="session")
def discovery(
    _slurm_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator["tuple[Path, subprocess.Popen[str]]"]:
    """The profile's file that is to come, and `mj cluster discover` at work on it."""
    folder = tmp_path_factory.mktemp("dis cover")
    command = [sys.executable, "-m", "megatron_jobs.cli", "cluster", "discover"]
    command += ["--output", "far.yaml"]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SLURM_")}
    environment = kept | _slurm_environment | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=pipe, stderr=pipe
    ) as process:
        yield folder / "far.yaml", process
        process.terminate()


@pytest.fixture(scope="session", autouse=True)
def _what_waits_for_minutes(request: pytest.FixtureRequest) -> None:
    """Begun before all tests, if it is to be tested: it waits for time limits of Slurm."""
    if any("discovery" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("discovery")


@pytest.fixture(autouse=True)
def slurm(_slurm_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's commands are those of the tests' cluster; jobs can import `tests.stages`."""
    use_cluster(_slurm_environment, monkeypatch)


@pytest.fixture(scope="module")
def module_slurm(_slurm_environment: dict[str, str]) -> Iterator[None]:
    """As `slurm`, for fixtures that several tests of a file share."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_cluster(_slurm_environment, monkeypatch)
        yield


@pytest.fixture
def calm_nodes(slurm: None) -> None:
    """Slurm gives out the first nodes first: all are up, and none still cleans up after a job."""
    wait_for(nodes_are_calm, "six nodes without what jobs have left", seconds=120, every=0.2)


def nodes_are_calm() -> bool:
    words = ["sinfo", "--noheader", "--partition=main", "--states=idle,mixed,alloc", "--format=%D"]
    counts = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    leaving = ["squeue", "--noheader", "--states=COMPLETING", "--format=%i"]
    left = subprocess.run(leaving, capture_output=True, text=True, check=True).stdout
    return sum(map(int, counts)) == NODES and not left.strip()


@contextlib.contextmanager
def nothing_starts() -> Iterator[None]:
    """What is put back in the queue stays there until this ends: then it can be looked at."""
    update = ["scontrol", "update", "partitionname=main"]
    subprocess.run([*update, "state=down"], check=True)
    try:
        yield
    finally:
        subprocess.run([*update, "state=up"], check=True)


def use_cluster(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead Slurm's commands to the tests' cluster."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def bring_up(environment: dict[str, str], config: pytest.Config) -> tuple[int, str, str]:
    """Status, output and words of `up`; what it is about to install is seen before it does."""
    capture = config.pluginmanager.getplugin("capturemanager")
    pipe, words = subprocess.PIPE, []
    with (
        capture.global_and_fixture_disabled() if capture else contextlib.nullcontext(),
        subprocess.Popen(
            [DEVCLUSTER / "up"], env=environment, stdout=pipe, stderr=pipe, text=True
        ) as up,
    ):
        assert up.stdout is not None
        assert up.stderr is not None
        for line in up.stderr:
            print(f"\n{line.rstrip()}", file=sys.stderr, flush=True)
            words.append(line.strip())
        printed = up.stdout.read().strip()
    return up.returncode, printed, " ".join(words)


def free_ports(count: int) -> int:
    """The first of some ports in a row that nobody listens at; another place for each process."""
    first = 21000 + os.getpid() % 1000 * 10
    while not all(is_free(first + offset) for offset in range(count)):
        first += count
    return first


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def variables_of(script: Path) -> dict[str, str]:
    """What sourcing a shell script sets."""
    command = f". {shlex.quote(str(script))} && env -0"
    printed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    pairs = [line.partition("=") for line in printed.stdout.split("\0") if line]
    return {k: v for k, _, v in pairs if os.environ.get(k) != v and k not in ("_", "SHLVL")}
