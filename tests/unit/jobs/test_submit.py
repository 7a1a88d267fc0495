"""Batch scripts without a Slurm: what they hold, that values are quoted, that a dry run is dry."""

import shlex
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.cli import main
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.executor import JobExecutor, Submission
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.submit import foresee, submit_plan

NO_PREFLIGHT = {"preflight": {"nodes": False, "links": False}}


@pytest.fixture
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def script_of(plan: Plan, **changes: Any) -> str:
    values = load_cluster("devcluster").model_dump() | NO_PREFLIGHT | changes
    cluster = Cluster.model_validate(values)
    job = plan.jobs["first"]
    return JobExecutor(Submission(job, cluster, Path("/c o/de"), "/p y/thon", ("7", "8"))).render()


def header_of(script: str) -> dict[str, str]:
    words = [shlex.split(line)[1] for line in script.splitlines() if line.startswith("#SBATCH")]
    return dict(word.removeprefix("--").partition("=")[::2] for word in words)


def test_the_header_is_what_the_job_asks_for(plan: Plan) -> None:
    changes = {
        "qos": "high",
        "sbatch": {"constraint": "ib&h100", "exclusive": True, "contiguous": False},
    }
    assert header_of(script_of(plan, **changes)) == {
        "account": "dev",
        "constraint": "ib&h100",
        "cpus-per-task": "2",
        "exclusive": "",
        "gpus-per-node": "h100:4",
        "job-name": "run.first",
        "mem": "1536M",
        "nodes": "3",
        "ntasks-per-node": "4",
        "open-mode": "append",
        "output": "logs/batch.log",
        "partition": "main",
        "qos": "high",
        "requeue": "",
        "signal": "USR2@30",
        "time": "31",
    }


def test_sites_ask_for_gpus_in_their_own_way(plan: Plan) -> None:
    header = header_of(script_of(plan, gpu_option="gres", gpu_type=""))
    assert header["gres"] == "gpu:4"
    assert "gpus-per-node" not in header


def test_a_job_without_gpus_goes_elsewhere_and_hears_nothing_of_them(plan: Plan) -> None:
    cluster = Cluster(
        name="far",
        partition="gpu",
        cpu_partition="cpu",
        fabric="slingshot",
        sbatch={"gpu-bind": "closest", "cpus_per_gpu": 2, "gres": "gpu:1", "licenses": "gpu"},
        srun=("--gpus-per-task=1", "--mpi=none", "--container-image=gpu"),
    )
    submission = Submission(plan.jobs["second"], cluster, Path("/code"), "python")
    script = JobExecutor(submission).render()
    header = header_of(script)
    assert header["partition"] == "cpu"
    assert header["licenses"] == "gpu"
    assert not any("gpu" in key or "gres" in key for key in header)
    assert "srun_words=(--mpi=none --container-image=gpu)\n" in script
    assert "NCCL_" not in script
    assert "FI_CXI" not in script


def test_variables_of_the_network_stand_with_their_reasons(plan: Plan) -> None:
    script = script_of(plan, fabric="slingshot", environment={"NCCL_CROSS_NIC": "0"})
    assert "export NCCL_DEBUG=WARN # NCCL says nothing of its errors by default\n" in script
    assert "export FI_CXI_DEFAULT_CQ_SIZE=131072 # large jobs overrun" in script
    assert [line for line in script.splitlines() if "NCCL_CROSS_NIC" in line] == [
        "export NCCL_CROSS_NIC=0"
    ]
    assert "srun_words=(--network=disable_rdzv_get)\n" in script


def test_what_the_profile_sets_stands_whatever_a_module_does(plan: Plan) -> None:
    script = script_of(plan, environment={"A": "ours"}, setup=["export A=theirs"])
    before = script[: script.index("\njob=")] + '\necho "$A"\n'
    done = subprocess.run(["bash", "-c", before], capture_output=True, text=True, check=True)
    assert done.stdout == "ours\n"


def test_the_warning_takes_no_more_than_a_quarter_of_the_time(plan: Plan) -> None:
    assert header_of(script_of(plan, signal_seconds=3600))["signal"] == f"USR2@{31 * 60 // 4}"


@pytest.mark.usefixtures("_no_slurm")
def test_a_dry_run_prints_everything_and_touches_nothing(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    words = ["submit", plan.shown, "--cluster", "devcluster", "--run", str(plan.run), "--dry-run"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    after = "'--dependency=afterok:<id of first>' --kill-on-invalid-dep=yes "
    for job, words in zip(plan.jobs.values(), ("", after), strict=True):
        folder = job.folder.path
        assert f"\njob={folder}\n" in printed
        assert f"$ sbatch {words}--chdir={folder} {folder}/sbatch.sh\n" in printed
    assert printed.endswith("first: <id of first>\nsecond: <id of second>\n")


@pytest.mark.usefixtures("_no_slurm")
@pytest.mark.parametrize(
    ("cluster", "python", "before"),
    [("devcluster", sys.executable, ""), ("example", "python3", "env -u SLURM_GPUS")],
)
def test_any_profile_can_be_looked_at_without_slurm(
    plan: Plan, capsys: pytest.CaptureFixture[str], cluster: str, python: str, before: str
) -> None:
    """Scripts are whole: bash reads them, and Python is where the profile's software has it."""
    submit_plan(plan, load_cluster(cluster), dry_run=True)
    scripts = capsys.readouterr().out.split("#!/bin/bash\n")[1:]
    assert len(scripts) == 2
    for script in scripts:
        text = script[: script.index("\n$ sbatch")]
        subprocess.run(["/bin/bash", "-n"], input=text, text=True, check=True)
        assert f"\npython={shlex.quote(python)}\n" in text
        assert f"\ncontrol_words=({before}" in text


@pytest.mark.parametrize("shape", ["%Y-%m-%dT%H:%M:%S", "%s"])
@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "could start at once on n[1-2], with 4 CPUs in all"), (7200, "could start at 20")],
)
def test_slurms_estimate_is_shown_in_short(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, seconds: int, words: str, shape: str
) -> None:
    start = (datetime.now() + timedelta(seconds=seconds)).strftime(shape)
    said = f"sbatch: Job 7 to start at {start} using 4 processors on nodes n[1-2] in partition x\n"
    done = subprocess.CompletedProcess([], 0, "", said)
    monkeypatch.setattr("megatron_jobs.jobs.submit.call_slurm", lambda *_, **__: done)
    assert foresee(plan.jobs["first"], load_cluster("devcluster")).startswith(words)


@pytest.mark.usefixtures("_no_slurm")
def test_successors_are_submitted_ahead(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    """Each behind the one before; what comes after the job waits for the last of them."""
    changes = {"again": "ahead", "successors": 2}
    cluster = load_cluster("devcluster").model_copy(update=changes)
    submit_plan(plan, cluster, dry_run=True)
    calls = [shlex.split(line)[1:] for line in capsys.readouterr().out.splitlines() if "$ " in line]
    waits = [
        [word for word in call if word.startswith("--dep")] for call in calls if call[0] == "sbatch"
    ]
    done = "afterok:<id of successor 2 of first>"
    assert waits == [
        [],
        ["--dependency=afterany:<id of first>"],
        ["--dependency=afterany:<id of successor 1 of first>"],
        [f"--dependency={done}"],
        [f"--dependency={done},afterany:<id of second>"],
        [f"--dependency={done},afterany:<id of successor 1 of second>"],
    ]


@pytest.mark.usefixtures("_no_slurm")
def test_without_slurm_it_says_where_to_go(plan: Plan) -> None:
    with pytest.raises(UserError) as caught:
        submit_plan(plan, load_cluster("devcluster"), dry_run=False)
    assert str(caught.value) == (
        "sbatch: no such command here, Slurm is not installed; use a login node of the cluster, or "
        "slurm/devcluster/up and the file that it prints"
    )
    assert not plan.run.exists()


@pytest.mark.parametrize("sign", ["%", "\\"])
def test_names_that_slurm_would_read_as_patterns_are_refused(
    plan: Plan, tmp_path: Path, sign: str
) -> None:
    plan = load_plan(str(tmp_path / "plan.yaml"), [], tmp_path / f"100{sign}j")
    with pytest.raises(ConfigError) as caught:
        submit_plan(plan, load_cluster("devcluster"), dry_run=True)
    rule = f"Slurm reads {sign} in a folder's name as a pattern; choose another name"
    assert caught.value.problems == [(name, f"{plan.run / name}: {rule}") for name in plan.jobs]


def test_all_that_a_cluster_lacks_is_said_at_once(plan: Plan) -> None:
    small = Cluster(name="small", cpus_per_node=4, max_hours=0.6)
    with pytest.raises(ConfigError) as caught:
        submit_plan(plan, small, dry_run=True)
    settings = [setting for setting, _ in caught.value.problems]
    assert settings == ["first.resources.cpus", "first.resources.gpus", "second.resources.hours"]
