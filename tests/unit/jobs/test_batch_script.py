"""What the batch script does, by what its steps and Slurm say; none of them is real here."""

import shlex
import subprocess
import time
from pathlib import Path

import pytest

from megatron_jobs.config.site import Preflight, Watch
from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.executor import JobExecutor, Submission
from megatron_jobs.jobs.plan import Plan

HOSTILE = """it's "$HOME" `id` $(id) \\ #!; &\n--x  """
NO_PREFLIGHT = {"preflight": {"nodes": False, "links": False}}


def run_script(
    submission: Submission, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The batch script run here, with the stand-ins in `folder` for Slurm's commands."""
    given = {"SLURM_JOB_ID": "5", "SLURM_JOB_NODELIST": "n1"} | environment
    folder.joinpath("logs").mkdir()
    return subprocess.run(
        ["bash", "-c", JobExecutor(submission).render() + "\n"],
        env={"PATH": f"{folder}:/usr/bin:/bin"} | given,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


STAND_IN = """#!/bin/bash
[[ $* == *--overlap* || $* == 0.1 ]] && exit # the watch: beside all this, at a time of its own
name=${0##*/}
case $name in
  python) name=${4#--} ;;
  scontrol) name=$1 ;;
  sbatch) printf '17;dev\\n' && echo "sbatch: error: ${REFUSAL:-no}" >&2 ;;
  squeue) echo "${STATE:-}" && exit ;;
esac
echo "$name" >>calls
case ${name%=*} in begin | after) [[ -z 'LINE' ]] || echo 'LINE' >next ;; esac
case ${name%=*} in CASES esac
"""


def stand_in(folder: Path, names: str, cases: str, line: str) -> None:
    """Commands that note their calls; `line` is what is decided."""
    for name in names.split():
        text = STAND_IN.replace("CASES", cases).replace("LINE", line)
        folder.joinpath(name).write_text(text)
        folder.joinpath(name).chmod(0o755)


IF_IT_EXCLUDES = "$([[ $* != *--exclude* ]]; echo $?)"
STEP_CASES: list[tuple[dict[str, int | str], tuple[int, str, str]]] = [
    ({"begin": 3}, (0, "its receipt holds: nothing to do", "begin")),
    ({"begin": 4, "next": "stop 75"}, (75, "", "begin")),
    ({"begin": 2, "next": "stop 2"}, (2, "", "begin after=2")),
    ({"srun": 9, "next": "stop 9"}, (9, "", "begin srun after=9")),
    # by these steps of ours say something, but not a rank
    ({"srun": 3, "next": "stop 1"}, (1, "", "begin srun after=1")),
    ({"srun": 4, "next": "stop 1"}, (1, "", "begin srun after=1")),
    ({"srun": 5, "next": "stop 1"}, (1, "", "begin srun after=1")),
    ({"srun": 75, "next": "stop 1"}, (1, "", "begin srun after=1")),
    ({"srun": 124, "next": "stop 1"}, (1, "", "begin srun after=1")),
    ({"finish": 1, "next": "stop 1"}, (1, "", "begin srun finish after=1")),
    ({"finish": 1, "after": 1}, (1, "", "begin srun finish after=1")),
    ({"next": "end 0"}, (0, "", "begin srun finish after=0")),
    (
        {"finish": 75, "next": "again n1,n2"},
        (0, "back in the queue, without n1,n2", "begin srun finish after=75 requeue update sleep"),
    ),
    (
        {"finish": 75, "next": "again ", "requeue": 1},
        (
            *(0, "goes on as Slurm job 17"),
            "begin srun finish after=75 requeue requeue sbatch successor=17",
        ),
    ),
    (
        {"finish": 75, "next": "again ", "requeue": 1, "sbatch": 1},
        (75, "", "begin srun finish after=75 requeue requeue sbatch stuck"),
    ),
    (
        {"finish": 75, "next": "again n1", "requeue": 1, "sbatch": IF_IT_EXCLUDES},
        (
            *(0, "once more, without leaving out n1"),
            "begin srun finish after=75 requeue requeue sbatch sbatch successor=17",
        ),
    ),
    (
        {"begin": 4, "next": "behind 7:8"},
        (0, "goes on as Slurm job 17", "begin sbatch successor=17"),
    ),
]
"""(answers of the steps by name and the line they leave, (status, words, steps in order))"""


@pytest.mark.parametrize(("answers", "wanted"), STEP_CASES)
def test_the_script_does_what_its_steps_decide(
    plan: Plan, tmp_path: Path, answers: dict[str, int | str], wanted: tuple[int, str, str]
) -> None:
    line = answers.get("next", "")
    cases = "".join(f"{name}) exit {status};;" for name, status in answers.items())
    stand_in(tmp_path, "python srun scontrol sbatch squeue sleep", cases, str(line))
    tmp_path.joinpath("next").write_text("stop 99\n")  # of an earlier start
    changes = {"watch": Watch(drain_seconds=0), "preflight": Preflight(nodes=False, links=False)}
    cluster = load_cluster("devcluster").model_copy(update=changes)
    submission = Submission(plan.jobs["first"], cluster, tmp_path, str(tmp_path / "python"))
    done = run_script(submission, tmp_path)
    status, words, steps = wanted
    assert done.returncode == status, done.stderr
    assert words in done.stdout
    assert tmp_path.joinpath("calls").read_text().split() == steps.split()


@pytest.mark.parametrize(
    ("variables", "cases", "wanted"),
    [
        # cancelled while it was settled: a requeue would revive it
        ({"STATE": "COMPLETING None"}, "", (143, "after=75")),
        ({"STATE": "COMPLETING TimeLimit"}, "", (0, "after=75 requeue update sleep")),
        # the controller may still take the first one
        (
            {"REFUSAL": "Socket timed out on send/recv operation"},
            "requeue | sbatch) exit 1;;",
            (75, "after=75 requeue requeue sbatch sleep stuck"),
        ),
    ],
)
def test_what_slurm_says_meanwhile(
    plan: Plan,
    tmp_path: Path,
    variables: dict[str, str],
    cases: str,
    wanted: tuple[int, str],
) -> None:
    cases = f"finish) exit 75;;{cases}"
    stand_in(tmp_path, "python srun scontrol sbatch squeue sleep", cases, "again n1")
    changes = {"watch": Watch(drain_seconds=0), "preflight": Preflight(nodes=False, links=False)}
    cluster = load_cluster("devcluster").model_copy(update=changes)
    submission = Submission(plan.jobs["first"], cluster, tmp_path, str(tmp_path / "python"))
    done = run_script(submission, tmp_path, **variables)
    steps = tmp_path.joinpath("calls").read_text().split()
    assert (done.returncode, steps[3:]) == (wanted[0], wanted[1].split()), done.stderr


@pytest.mark.parametrize("task", ["", "3"])
def test_tasks_do_not_ask_slurm_for_drained_nodes(plan: Plan, tmp_path: Path, task: str) -> None:
    """A thousand that run side by side would never leave the controller alone."""
    stand_in(tmp_path, "python srun sinfo scancel", "srun) /bin/sleep 1.5 ;;", "end 0")
    changes = {"watch": Watch(drain_seconds=1), "preflight": Preflight(nodes=False, links=False)}
    cluster = load_cluster("devcluster").model_copy(update=changes)
    submission = Submission(plan.jobs["first"], cluster, tmp_path, str(tmp_path / "python"))
    array = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": task} if task else {}
    done = run_script(submission, tmp_path, **array)
    assert done.returncode == 0, done.stderr
    assert ("sinfo" in tmp_path.joinpath("calls").read_text()) == (not task)


@pytest.mark.parametrize(
    ("names", "cases"),
    [
        ("python srun scontrol squeue sleep", "after) exec /bin/sleep 60 ;;"),
        ("python srun scontrol squeue", 'update) kill "$PPID" ;;'),
    ],
)
def test_what_is_decided_is_done_at_once(
    plan: Plan, tmp_path: Path, names: str, cases: str
) -> None:
    """The step hangs after its decision, as when a webhook's host cannot be found; or Slurm's TERM
    comes before the script sleeps: no other will, and KILL only after KillWait."""
    stand_in(tmp_path, names, cases, "again ")
    cluster = load_cluster("devcluster").model_copy(
        update={"preflight": Preflight(nodes=False, links=False)}
    )
    submission = Submission(plan.jobs["first"], cluster, tmp_path, str(tmp_path / "python"))
    began = time.monotonic()
    assert "back in the queue" in run_script(submission, tmp_path).stdout
    assert time.monotonic() - began < 30


def test_values_reach_the_job_as_they_are(plan: Plan, tmp_path: Path) -> None:
    """The script is really run, with stand-ins that only say what they were given."""
    beside = "[[ $* == *--overlap* ]] && exit\n"
    record = 'printf "<%s>" "$0" "$@" >>"$RECORD"; echo >>"$RECORD"\n'
    seen = 'sleep 0.2; printf "%s" "$WORDS$SEEN$UNSET$SRUN_CPUS_PER_TASK" >seen\n'
    python = tmp_path / HOSTILE
    for path in (tmp_path / "srun", python):
        decide = f'case "$*" in *--after=*) echo end 0 >{shlex.quote(str(tmp_path))}/next;; esac\n'
        path.write_text("#!/bin/bash\n" + beside + record + (seen if path != python else decide))
        path.chmod(0o755)
    changes = {
        "environment": {"WORDS": HOSTILE},
        "srun": [f"--mpi={HOSTILE}"],
        "python": str(python),
    }
    changes |= {"setup": ['export SEEN="$WORDS" UNSET="$no_such_variable"']}
    cluster = Cluster.model_validate(
        load_cluster("devcluster").model_dump() | NO_PREFLIGHT | changes
    )
    submission = Submission(plan.jobs["first"], cluster, tmp_path, cluster.python)
    done = run_script(submission, tmp_path, RECORD=str(tmp_path / "record"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "seen").read_text() == HOSTILE + HOSTILE + "2"
    folder, enter = plan.jobs["first"].folder.path, f"<{python}><-P><-m><megatron_jobs.enter>"
    ranks = "<--nodes=3><--ntasks=12><--ntasks-per-node=4><--mem=0><--kill-on-bad-exit=1>"
    logs = "<--output=logs/rank-%5t.log><--open-mode=append><--cpu-bind=cores>"
    first, srun, *last = (tmp_path / "record").read_text().replace("\n<", "\0<").split("\0")
    assert first == f"{enter}<--begin><{folder}>"
    assert srun.startswith(f"<{tmp_path}/srun>{ranks}{logs}<--mpi={HOSTILE}><sh><-c>")
    assert srun.endswith(f"{enter}<{folder}>")
    assert last == [f"{enter}<--finish><{folder}>", f"{enter}<--after=0><{folder}>\n"]
