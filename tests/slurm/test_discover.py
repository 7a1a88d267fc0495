"""A profile is discovered on a real Slurm, passes the doctor, and a plan is submitted with it.

The probe takes a minute and a half of waiting: it is begun before all tests, see conftest.py.
"""

import subprocess
from pathlib import Path

import pytest
import yaml

from megatron_jobs.cli import main
from megatron_jobs.errors import UserError
from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.discover import choose_partition, discover
from megatron_jobs.jobs.partitions import read_site
from megatron_jobs.jobs.plan import load_plan
from megatron_jobs.jobs.probe import run_probe
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.runtime.files import wait_for


def plan_file(tmp_path: Path, **resources: float) -> str:
    job = {"stage": "tests.stages.echo", "resources": {"nodes": 2, "hours": 0.2} | resources}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": {"job": job}}))
    return str(path)


def test_what_slurm_says_is_understood() -> None:
    site = read_site()
    main_part, low, debug = (site.partitions[name] for name in ("main", "low", "debug"))
    kind = main_part.richest
    assert (kind.count, kind.cpus, kind.memory_mb) == (6, 16, 64000)
    assert (kind.gpus, kind.gpu_type, main_part.default) == (8, "h100", True)
    assert (low.preempt_mode, low.grace_seconds, debug.max_hours) == ("REQUEUE", 30, 0.5)
    assert site.default_account == "dev"
    assert "dev" in site.accounts
    assert site.number("KillWait") == 10
    assert site.silent == ()
    assert choose_partition(site, "") is main_part


@pytest.mark.usefixtures("calm_nodes")
def test_without_a_probe(tmp_path: Path) -> None:
    path = tmp_path / "low.yaml"
    news: list[str] = []
    path.write_text(discover("low", probe=False, tell=news.append))
    cluster = load_cluster(str(path))
    assert (cluster.partition, cluster.gpu_type, cluster.max_hours) == ("low", "h100", 168)
    assert news == [
        "partition low: 6 of 6 nodes up, 16 CPUs, 8 h100, 168 h, preempted by REQUEUE after 30 s"
    ]


def test_a_probe_that_slurm_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the probe was refused: sbatch: error: invalid partition"):
        run_probe(["--partition=mian"], print)
    assert list(tmp_path.iterdir()) == []


def test_what_the_doctor_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["doctor", plan_file(tmp_path, nodes=7), "--cluster", "devcluster"]
    assert main([*words, "--run", str(tmp_path / "run")]) == 2
    failing = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert failing == [
        "FAIL  job: asked for 7 nodes x 1 ranks x 1 cpus, 0 gpus, 0.2 h in partition main of "
        "devcluster; refused: the partition has fewer nodes (Slurm: Node count specification "
        "invalid); ask for less, or elsewhere"
    ]


def test_a_file_that_is_there_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine")
    assert main(["cluster", "discover", "--output", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"mj cluster: --output: {path} is there already; remove it, or choose another name\n"
    )
    assert path.read_text() == "name: mine"


def test_the_profile_passes_the_doctor_and_serves(
    discovery: "tuple[Path, subprocess.Popen[str]]",
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, process = discovery
    printed, news = process.communicate(timeout=300)
    assert (process.returncode, printed) == (0, ""), news
    assert list(path.parent.iterdir()) == [path]
    text, cluster = path.read_text(), load_cluster(str(path))
    assert (cluster.partition, cluster.account, cluster.again) == ("main", "dev", "requeue")
    assert (cluster.gpus_per_node, cluster.gpu_type, cluster.cpus_per_node) == (8, "h100", 16)
    assert cluster.environment == {"GLOO_SOCKET_IFNAME": "lo"}
    said = " ".join(text.replace("\n# ", " ").split())
    assert "the step got USR2" in said
    assert "TERM" in said
    assert "scontrol, sbatch, squeue, sinfo, srun answer" in said
    assert "Your home is the same on the nodes" in said
    assert "The Python that wrote this is there on the nodes." in said

    plan, run = plan_file(tmp_path), str(tmp_path / "run")
    common = [plan, "--cluster", str(path), "--run", run]
    assert main(["doctor", *common]) == 0
    found = capsys.readouterr().out.splitlines()
    assert {line[:4] for line in found} == {"ok  "}
    assert "ok    job: could start at once on node[1-2], with 2 CPUs in all" in found

    assert main(["submit", *common]) == 0
    wanted = load_plan(plan, [], Path(run)).run
    wait_for(lambda: plan_status(wanted)[0]["state"] == "done", "its end", seconds=240, every=0.3)
