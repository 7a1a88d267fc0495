"""slurm/node_check.sh on nodes made of files: each fault is found and told, a good node is good."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import megatron_jobs

SCRIPT = Path(megatron_jobs.__file__).parent / "jobs" / "node_check.sh"
SMI = """#!/bin/bash
for word in "$@"; do case $word in --query-*) query=${word%%=*} fields=${word#*=} ;; esac; done
if [[ $query == --query-gpu && $fields == *slowdown* ]]; then query=slowdowns; fi
cat "$(dirname "$0")/${query#--}"
"""
XID = "[{at}.123456] NVRM: Xid (PCI:0000:9b:00): {number}, pid='<unknown>', name=<unknown>, words"


@dataclass
class Node:
    """A node's /proc, /sys and programmes, of which a test spoils something."""

    root: Path
    words: dict[str, object] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def check(self) -> dict[str, Any]:
        out = self.root / "out"
        out.mkdir(exist_ok=True)
        asked = {"out": out, "node": "n1", "attempt": "7.0", "root": self.root} | self.words
        words = [f"{n}={v}" for n, v in asked.items()] + [f"line={line}" for line in self.lines]
        environment = {"PATH": f"{self.root}/bin:{os.environ['PATH']}"} | self.environment
        done = subprocess.run(
            [SCRIPT, *words], env=environment, capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        assert done.stdout == ""
        answer: dict[str, Any] = json.loads((out / "n1.json").read_text())
        assert [path.name for path in out.iterdir()] == ["n1.json"]
        assert answer["verdict"] == ("bad" if answer["faults"] else "good")
        assert done.returncode == bool(answer["faults"])
        return answer

    def faults(self) -> list[tuple[str, str]]:
        return [(fault["check"], fault["cause"]) for fault in self.check()["faults"]]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A good node with two GPUs."""
    made = Node(tmp_path / "node", {"gpus": 2, "memory_gb": 64, "scratch": tmp_path / "scratch"})
    made.write("proc/meminfo", "MemTotal: 131072000 kB\nMemFree: 1 kB\nMemAvailable: 67108864 kB\n")
    made.write("proc/loadavg", "0.50 0.40 0.30 1/100 12345\n")
    made.write("proc/uptime", "200000.55 1.00\n")
    made.write("dev/shm/.keep", "")
    made.write("bin/nvidia-smi", SMI, 0o755)
    made.write("bin/query-gpu", "0, 30, 0, NVIDIA H100\n1, 31, [N/A], NVIDIA H100\n")
    made.write("bin/query-remapped-rows", "00000000:1B:00.0, No, No\n00000000:43:00.0, 0, 0\n")
    made.write("bin/query-compute-apps", "")
    made.write("bin/slowdowns", "".join(f"{i}{', Not Active' * 4}\n" for i in range(2)))
    made.write("bin/dmesg", "#!/bin/sh\ncat ${0%/*}/kernel\n", 0o755)
    made.write("bin/kernel", XID.format(at=199000, number=43) + "\n")
    return made


def test_a_good_node_is_good(node: Node) -> None:
    answer = node.check()
    assert answer["faults"] == []
    assert (answer["node"], answer["attempt"]) == ("n1", "7.0")
    facts = answer["facts"]
    assert facts["gpu1"] == "NVIDIA H100, 31 C"
    assert (facts["memory_gb"], facts["memory_free_gb"]) == (125.0, 64.0)
    assert facts["load"] == "0.50 0.40 0.30"
    assert facts["seconds"] < 5


@pytest.mark.parametrize(
    ("file", "text", "cause"),
    [
        ("query-gpu", "0, 30, 0, X\n", "1 GPUs answer, the job asked for 2"),
        (
            "query-gpu",
            "0, 30, 0, X\n1, 90, 0, X\n",
            "GPU 1 has 90 degrees Celsius, the limit is 90",
        ),
        (
            "query-gpu",
            "0, 30, 3, X\n1, 30, 0, X\n",
            "GPU 0 has had 3 uncorrected memory errors (ECC) since it was reset; 0 are allowed",
        ),
        (
            "query-remapped-rows",
            "00:1B, Yes, No\n",
            "GPU 00:1B waits for a reset to replace bad memory rows; none may be pending",
        ),
        (
            "query-remapped-rows",
            "00:1B, 0, 1\n",
            "GPU 00:1B has no spare memory rows left: a remap has failed",
        ),
        (
            "slowdowns",
            "0, Not Active, Not Active, Active, Not Active\n",
            "GPU 0 is slowed down before any work: hw_power_brake_slowdown is active",
        ),
        (
            "query-compute-apps",
            "9, 7, nvidia-cuda-mps-server\n77, 30123, /usr/bin/python\n",
            "process 77 (/usr/bin/python) is on a GPU already, with 30123 MiB",
        ),
        (
            "kernel",
            XID.format(at=113000, number=48) + "\n" + XID.format(at=113601, number=79) + "\n",
            "the kernel reported a fault of a GPU in the last 24 h: "
            + XID.format(at=113601, number=79),
        ),
    ],
)
def test_faults_of_gpus(node: Node, file: str, text: str, cause: str) -> None:
    node.write(f"bin/{file}", text)
    assert node.faults() == [("gpu", cause)]


def test_faults_of_the_kernel_log_are_old_after_a_day(node: Node) -> None:
    node.write("bin/kernel", XID.format(at=113000, number=48) + "\n")
    assert node.faults() == []


def test_only_the_gpus_of_the_job_are_asked(node: Node) -> None:
    node.write("bin/nvidia-smi", SMI.replace("cat", 'echo "$*" >>"$0.calls"; cat'), 0o755)
    node.environment["CUDA_VISIBLE_DEVICES"] = "2,3"
    assert node.faults() == []
    calls = (node.root / "bin/nvidia-smi.calls").read_text().splitlines()
    assert len(calls) == 4
    assert all("--id=2,3" in call for call in calls)


def test_processes_on_gpus_of_others_are_a_fact(node: Node) -> None:
    node.words["gpus"] = 1
    node.write("bin/query-compute-apps", "77, 30123, python\n")
    answer = node.check()
    assert answer["faults"] == []
    assert answer["facts"]["process 77"] == "python is on some GPU, perhaps not one of ours"


def test_nvidia_smi_that_fails_or_hangs(node: Node) -> None:
    broken = (
        "#!/bin/sh\necho 'Unable to determine the device handle for GPU 0000:9B:00.0'; exit 15\n"
    )
    node.write("bin/nvidia-smi", broken, 0o755)
    words = "Unable to determine the device handle for GPU 0000:9B:00.0"
    ((_, cause),) = node.faults()
    assert cause.startswith(f"nvidia-smi fails or takes over 4 s: {words}")
    node.write("bin/nvidia-smi", "#!/bin/sh\nexec sleep 60\n", 0o755)
    node.words["seconds"] = 1
    assert node.faults() == [("gpu", "nvidia-smi fails or takes over 1 s: it says nothing")]


def test_a_job_without_gpus_asks_for_none(node: Node) -> None:
    node.words["gpus"] = 0
    node.write("bin/nvidia-smi", "#!/bin/sh\nexit 1\n", 0o755)
    assert node.faults() == []


def test_memory(node: Node) -> None:
    node.words["memory_gb"] = 72
    cause = "64.00 GiB of memory are free, the job asked for 72 GiB"
    assert node.faults() == [("memory", cause)]
    node.words["memory_gb"] = 71  # nine tenths of it are there
    assert node.faults() == []


def df(node: Node, kib: int, inodes: str) -> None:
    """Let df answer this for scratch, and plenty for all else."""
    text = f"""#!/bin/sh
case $2 in *scratch) kib={kib} inodes={inodes} ;; *) kib=99999999 inodes=99999 ;; esac
case $1 in -Pk) free=$kib ;; *) free=$inodes ;; esac
printf 'head\\nnone %s 1 %s 1%% /x\\n' "$free" "$free"
"""
    node.write("bin/df", text, 0o755)


def test_scratch_is_full(node: Node) -> None:
    node.words["disk_gb"] = 0.5
    df(node, 500_000, "99999")
    scratch = node.words["scratch"]
    cause = f"{scratch}: 0.48 GiB are free, 0.5 GiB are wanted"
    assert node.faults() == [("scratch", cause)]
    df(node, 600_000, "12")
    cause = f"{scratch}: room for 12 more files, 1000 are wanted"
    assert node.faults() == [("scratch", cause)]
    df(node, 600_000, "0")  # a file system that does not count files
    assert node.faults() == []


def test_scratch_cannot_be_made(node: Node) -> None:
    node.words["scratch"] = node.root / "proc/meminfo/x"
    cause = f"{node.words['scratch']}: is not there and cannot be made, or its file system does not answer"  # noqa: E501
    assert node.faults() == [("scratch", cause)]


def test_scratch_cannot_be_written_to(node: Node) -> None:
    node.words["scratch"] = "/proc/sys"
    df(node, 99_999_999, "99999")
    assert node.faults() == [("scratch", "/proc/sys: cannot be written to")]


def test_shared_memory_is_small(node: Node) -> None:
    text = "#!/bin/sh\nprintf 'head\\nnone 65536 1 61440 1%% /x\\n'\n"
    node.write("bin/df", text, 0o755)
    node.words["disk_gb"] = 0
    cause = "/dev/shm: 60 MiB are free, NCCL needs 64 for 2 GPUs"
    assert node.faults() == [("shm", cause)]


def test_a_run_folder_that_is_not_seen_is_told_on_stdout(node: Node) -> None:
    words = [f"out={node.root}/away", "node=n1", f"root={node.root}", f"scratch={node.root}/s"]
    done = subprocess.run(["bash", "-s", "--", *words], stdin=SCRIPT.open(), capture_output=True)
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    cause = f"{node.root}/away: cannot be written to from here (mounted? quota?)"
    assert answer["faults"] == [{"check": "run folder", "cause": cause}]


def port(node: Node, name: str, state: str, rate: str, layer: str = "InfiniBand") -> None:
    for file, text in (("state", state), ("rate", rate), ("link_layer", layer)):
        node.write(f"sys/class/infiniband/{name}/ports/1/{file}", text + "\n")


@pytest.fixture
def unlimited(node: Node) -> Node:
    """One that may lock memory: `ulimit` is the shell's own."""
    node.environment["BASH_ENV"] = str(node.root / "limits")
    node.write("limits", "ulimit() { echo unlimited; }\n")
    return node


def test_ports_that_are_active_count(unlimited: Node) -> None:
    unlimited.words["fabric"] = "infiniband-ndr"
    port(unlimited, "mlx5_0", "4: ACTIVE", "400 Gb/sec (4X NDR)")
    port(unlimited, "mlx5_1", "4: ACTIVE", "200 Gb/sec (2X NDR)")
    port(unlimited, "mlx5_2", "1: DOWN", "400 Gb/sec (4X NDR)")
    port(unlimited, "mlx5_3", "4: ACTIVE", "100 Gb/sec (4X EDR)", "Ethernet")
    answer = unlimited.check()
    assert answer["faults"] == []
    assert answer["facts"]["fabric_gbps"] == 600
    assert answer["facts"]["ports"].startswith("mlx5_0/1 ACTIVE at 400 Gb/s, mlx5_1/1 ACTIVE")


def test_no_port_is_active_at_the_rate(unlimited: Node) -> None:
    unlimited.words["fabric"] = "infiniband-ndr"
    port(unlimited, "mlx5_0", "1: DOWN", "400 Gb/sec (4X NDR)")
    port(unlimited, "mlx5_1", "4: ACTIVE", "100 Gb/sec (4X EDR)")
    cause = (
        "no InfiniBand port is ACTIVE at 200 Gb/s or more, infiniband-ndr has them: "
        "mlx5_0/1 DOWN at 400 Gb/s, mlx5_1/1 ACTIVE at 100 Gb/s, "
    )
    assert unlimited.faults() == [("fabric", cause)]
    unlimited.words["fabric"] = "roce"
    ((_, cause),) = unlimited.faults()
    assert cause == "no Ethernet port is ACTIVE at 1 Gb/s or more, roce has them: none found"


def test_memory_may_not_be_locked(node: Node) -> None:
    node.environment["BASH_ENV"] = str(node.root / "limits")
    node.write("limits", "ulimit() { echo 64; }\n")
    node.words["fabric"] = "efa"
    cause = "64 KiB of memory may be locked (ulimit -l), efa wants it unlimited"
    assert node.faults() == [("memlock", cause)]


def test_the_site_has_the_last_word(node: Node) -> None:
    node.lines = ["true", "echo first; echo 'mount \"/lustre\" is\tgone' >&2; exit 3", "exit 4"]
    cause = (
        f'the site\'s own check fails with exit status 3: {node.lines[1]}: mount "/lustre" is\tgone'
    )
    assert node.faults() == [("site", cause.replace("\t", " "))]
    node.lines = ["sleep 60"]
    node.words["seconds"] = 1
    assert node.faults() == [("site", "the site's own check fails with exit status 124: sleep 60")]


def test_words_that_are_none_are_refused() -> None:
    done = subprocess.run([SCRIPT, "gpu=1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "node_check: gpu=1: no such word" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck here")
def test_shellcheck_finds_nothing() -> None:
    subprocess.run(["shellcheck", SCRIPT], check=True)
