"""Batch scripts without a Slurm: what they hold, that values are quoted, that a dry run is dry."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.cli import main
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.executor import JobExecutor, Submission
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.submit import submit_plan

HOSTILE = """it's "$HOME" `id` $(id) \\ #!; &\n--x  """
PLAN = """
jobs:
  first:
    stage: tests.stages.echo
    resources: {nodes: 3, ranks: 4, cpus: 2, gpus: 4, memory_gb: 1.5, hours: 0.51}
  second:
    stage: tests.stages.echo
    reads: "@first/words"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return load_plan(str(path), [], tmp_path / "run")


@pytest.fixture
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def script_of(plan: Plan, **changes: Any) -> str:
    values = load_cluster("devcluster").model_dump() | changes
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
        "dependency": "afterok:7:8",
        "exclusive": "",
        "gpus-per-node": "h100:4",
        "job-name": "run.first",
        "kill-on-invalid-dep": "yes",
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


def test_the_warning_takes_no_more_than_a_quarter_of_the_time(plan: Plan) -> None:
    assert header_of(script_of(plan, signal_seconds=3600))["signal"] == f"USR2@{31 * 60 // 4}"


def test_values_reach_the_job_as_they_are(plan: Plan, tmp_path: Path) -> None:
    """The script is really run, with stand-ins that only say what they were given."""
    record = 'printf "<%s>" "$0" "$@" >>"$RECORD"; echo >>"$RECORD"\n'
    for name in ("srun", "python"):
        (tmp_path / name).write_text("#!/bin/bash\n" + record)
        (tmp_path / name).chmod(0o755)
    python = tmp_path / HOSTILE
    shutil.copy(tmp_path / "python", python)
    changes = {
        "environment": {"WORDS": HOSTILE},
        "srun": [f"--mpi={HOSTILE}"],
        "python": str(python),
    }
    changes |= {"setup": ['export SEEN="$WORDS" UNSET="$no_such_variable"']}
    cluster = Cluster.model_validate(load_cluster("devcluster").model_dump() | changes)
    submission = Submission(plan.jobs["first"], cluster, tmp_path, cluster.python)
    script = JobExecutor(submission).render() + "\n"
    given = {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "n1", "RECORD": str(tmp_path / "record")}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | given
    check = 'trap \'printf "%s" "$WORDS$SEEN$UNSET$SRUN_CPUS_PER_TASK" >seen\' EXIT\n'
    done = subprocess.run(
        ["bash", "-c", check + script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "seen").read_text() == HOSTILE + HOSTILE + "2"
    folder, enter = plan.jobs["first"].folder.path, f"<{python}><-P><-m><megatron_jobs.enter>"
    ranks = "<--nodes=3><--ntasks=12><--ntasks-per-node=4><--kill-on-bad-exit=1>"
    logs = f"<--output=logs/rank-%5t.log><--open-mode=append><--mpi={HOSTILE}>"
    assert (tmp_path / "record").read_text() == (
        f"{enter}<--begin><{folder}>\n"
        f"<{tmp_path}/srun>{ranks}{logs}{enter}<{folder}>\n"
        f"{enter}<--finish><{folder}>\n"
    )


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ({"--begin": 3}, (0, "its receipt holds: nothing to do", 1)),
        ({"--begin": 2}, (2, "", 1)),
        ({"srun": 9}, (9, "", 2)),
        ({"--finish": 75, "restarts": 50}, (75, "stopped in time, but after 50 restarts", 3)),
        ({"--finish": 1}, (1, "", 3)),
    ],
)
def test_the_script_ends_as_its_steps_do(
    plan: Plan, tmp_path: Path, answers: dict[str, int], wanted: tuple[int, str, int]
) -> None:
    python, srun = tmp_path / "python", tmp_path / "srun"
    cases = "".join(f"*{word}*) exit {status};;" for word, status in answers.items())
    for path in (python, srun):
        path.write_text(f'#!/bin/bash\necho call >>calls\ncase "$0 $*" in {cases} esac\n')
        path.chmod(0o755)
    submission = Submission(plan.jobs["first"], load_cluster("devcluster"), tmp_path, str(python))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "5"}
    environment |= {
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_RESTART_COUNT": str(answers.get("restarts", 0)),
    }
    script = JobExecutor(submission).render()
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    status, words, calls = wanted
    assert done.returncode == status, done.stderr
    assert words in done.stdout
    assert (tmp_path / "calls").read_text().count("call") == calls


@pytest.mark.usefixtures("_no_slurm")
def test_a_dry_run_prints_everything_and_touches_nothing(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    words = ["submit", plan.shown, "--cluster", "devcluster", "--run", str(plan.run), "--dry-run"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    for job in plan.jobs.values():
        folder = job.folder.path
        assert f"\njob={folder}\n" in printed
        assert f"$ sbatch --chdir={folder} {folder}/sbatch.sh\n" in printed
    assert "#SBATCH --dependency='afterok:<id of first>'" in printed
    assert printed.endswith("first: <id of first>\nsecond: <id of second>\n")


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
def test_names_that_slurm_would_read_as_patterns_are_refused(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    plan = load_plan(str(path), [], tmp_path / f"100{sign}j")
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
