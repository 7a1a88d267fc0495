"""Each line of `mj doctor` that can fail, made to fail; the sentence in full."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.cli import main
from megatron_jobs.errors import MegatronJobsError
from megatron_jobs.jobs import check_profile, doctor
from megatron_jobs.jobs.check import bad
from megatron_jobs.jobs.check_profile import check_against_slurm, check_files
from megatron_jobs.jobs.partitions import Site
from tests.unit.jobs.checks import cluster, failing, lines
from tests.unit.jobs.recorded import V22_CONFIG, V22_MEMBERS, V22_PARTITIONS, V22_SINFO, site_of
from tests.unit.jobs.recorded import v22 as good_site


def site(
    partitions: str = V22_PARTITIONS, sinfo: str = V22_SINFO, config: str = V22_CONFIG
) -> Site:
    return site_of(config, partitions, sinfo, V22_MEMBERS, "dev")


def test_the_devclusters_profile_fits_the_devcluster() -> None:
    found = list(check_against_slurm(cluster(), good_site()))
    assert {check.state for check in found} == {"ok"}
    assert [check.what for check in found] == [
        "partition",
        "account",
        "qos",
        "gpus_per_node",
        "gpu_type",
        "cpus_per_node",
        "max_hours",
        "max_array_size",
        "signal_seconds",
        "preemption in main",
        "again",
        "JobRequeue",
    ]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (
            {"partition": "mian"},
            "partition: found 'mian', there is no such partition; yours are main, low, debug",
        ),
        (
            {"cpu_partition": "cpu"},
            "cpu_partition: found 'cpu', there is no such partition; yours are main, low, debug",
        ),
        (
            {"account": "nobody"},
            "account: found 'nobody', which is not yours; yours are dev, root",
        ),
        (
            {"qos": "best"},
            "qos: found 'best', which dev does not have; it has high, normal, scavenger",
        ),
        ({"gpus_per_node": 9}, "gpus_per_node: found 9, a node of main has 8; set 8"),
        (
            {"gpu_type": "b300"},
            "gpu_type: found 'b300', main has h100; use one of these, or none for any",
        ),
        ({"cpus_per_node": 17}, "cpus_per_node: found 17, a node of main has 16; set 16"),
        (
            {"sbatch": {"constraint": "h100&(ib|roce)"}},
            "sbatch.constraint: no node of main has ib, roce; its nodes have h100",
        ),
        ({"max_hours": 200}, "max_hours: found 200, the limit of main is 168 h; set 168"),
        (
            {"max_array_size": 5000},
            "max_array_size: found 5000, Slurm's MaxArraySize is 1001; set 1001",
        ),
        (
            {"signal_seconds": 5},
            "signal_seconds: found 5: a job has so many seconds to save, and KillWait = 3 more; "
            "give 15 or more, better 120",
        ),
    ],
)
def test_a_profile_that_slurm_does_not_bear_out(changes: dict[str, Any], wanted: str) -> None:
    assert failing(check_against_slurm(cluster(**changes), good_site())) == [wanted]


@pytest.mark.parametrize(
    ("partitions", "sinfo", "wanted"),
    [
        (
            V22_PARTITIONS.replace("State=UP", "State=DRAIN", 1),
            V22_SINFO,
            "partition: main is drain; yours are low, debug",
        ),
        (
            V22_PARTITIONS,
            V22_SINFO.replace("main|7-00:00:00|2|idle", "main|7-00:00:00|2|down*"),
            "partition: no node of main is up; wait, or: sinfo -R; yours are main, low, debug",
        ),
        (
            V22_PARTITIONS.replace("AllowGroups=ALL", "AllowGroups=chosen-few", 1),
            V22_SINFO,
            "partition: main does not let in your groups and accounts; yours are low, debug",
        ),
        (
            V22_PARTITIONS.replace("AllowAccounts=ALL", "AllowAccounts=root,ops", 1),
            V22_SINFO,
            "account: dev may not use main; it lets in root, ops; yours are dev, root",
        ),
        (
            V22_PARTITIONS.replace("AllowQos=ALL", "AllowQos=normal", 1),
            V22_SINFO,
            "qos: main does not take high; it takes normal",
        ),
        (
            V22_PARTITIONS.replace("PreemptMode=OFF", "PreemptMode=CANCEL", 1),
            V22_SINFO,
            "preemption in main: jobs end for good (CANCEL) when others need the nodes; choose a "
            "partition that requeues, or ask the site for REQUEUE",
        ),
    ],
)
def test_partitions_in_other_states(partitions: str, sinfo: str, wanted: str) -> None:
    found = check_against_slurm(cluster(qos="high"), site(partitions, sinfo))
    assert failing(found) == [wanted]


def test_several_partitions_are_looked_at_one_by_one() -> None:
    """A job must fit one of them; all, where the site says so. `debug` ends at half an hour."""
    found = list(check_against_slurm(cluster(partition="debug,main", max_hours=100), good_site()))
    assert {check.state for check in found} == {"ok"}
    assert lines(found, "ok")[:2] == [
        "partition: debug, 1 of 1 nodes are up",
        "partition: main, 2 of 2 nodes are up",
    ]
    assert [check.what for check in found].count("preemption in debug") == 1
    faulty = cluster(partition="debug,mian,main", max_hours=200)
    assert failing(check_against_slurm(faulty, good_site())) == [
        "partition: found 'mian', there is no such partition; yours are main, low, debug",
        "max_hours: found 200, the limit of debug,main is 168 h; set 168",
    ]
    every = V22_CONFIG + "EnforcePartLimits = ALL\n"
    strict = check_against_slurm(cluster(partition="debug,main", max_hours=100), site(config=every))
    assert failing(strict) == ["max_hours: found 100, the limit of debug is 0.5 h; set 0.5"]
    of_cpus = cluster(cpu_partition="low,mian")
    assert failing(check_against_slurm(of_cpus, good_site())) == [
        "cpu_partition: found 'mian', there is no such partition; yours are main, low, debug"
    ]


def test_no_default_partition() -> None:
    found = site(V22_PARTITIONS.replace("Default=YES", "Default=NO"))
    wanted = "partition: Slurm has no default; yours are main, low, debug"
    assert failing(check_against_slurm(cluster(partition=""), found)) == [wanted]


def test_what_is_only_worth_knowing() -> None:
    found = check_against_slurm(cluster(partition="low", gpus_per_node=4), good_site())
    assert lines(found, "note") == [
        "gpus_per_node: a node of low has 8: jobs cannot have all; set 8",
        "preemption in low: REQUEUE after GraceTime = 10 s, too short for most saves; save more "
        "often (save_every), or choose another partition",
    ]
    silent = V22_CONFIG.replace("preempt_send_user_signal", "(null)")
    long = V22_PARTITIONS.replace("GraceTime=10", "GraceTime=600")
    off = silent.replace("JobRequeue              = 1", "JobRequeue              = 0")
    found = check_against_slurm(cluster(partition="low"), site(long, config=off))
    assert lines(found, "note") == [
        "preemption in low: REQUEUE; jobs get SIGTERM at its start and 600 s, but no USR2; the "
        "site may set SlurmctldParameters=preempt_send_user_signal",
        "JobRequeue: 0, the default of other jobs; ours ask for --requeue",
    ]
    nobody = Site(good_site().settings, good_site().partitions)
    assert lines(check_against_slurm(cluster(), nobody), "note") == [
        "account: dev, not checked: no sacctmgr"
    ]


def test_files_that_a_profile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Any, mode: int, **_: Any) -> bool:
        return "locked" not in str(path)

    monkeypatch.setattr(os, "access", denied)
    locked = tmp_path / "locked"
    locked.mkdir()
    found = {
        "scratch": "here",
        "strikes": f"{locked}/strikes.jsonl",
        "python": f"{tmp_path}/locked/python",
        "software": {"kind": "venv", "path": f"{tmp_path}/venv"},
    }
    assert failing(check_files(cluster(**found))) == [
        "scratch: found 'here', no absolute path; begin it with /",
        f"strikes: {locked} cannot be written to; the team needs a file that all may write: "
        "chmod g+rw",
        f"software.path: {tmp_path}/venv/bin/activate is not there; make the venv there",
        f"python: {tmp_path}/locked/python is not there, or no program; set python: to one that "
        "the nodes see",
    ]
    assert failing(check_files(cluster(scratch=str(locked)))) == [
        f"scratch: {locked} cannot be written to; choose a folder of your own"
    ]
    conda = {"kind": "conda", "path": f"{tmp_path}/env"}
    assert failing(check_files(cluster(software=conda))) == [
        f"software.path: {tmp_path}/env/bin/python is not there; make the conda there"
    ]
    image = {"kind": "apptainer", "image": f"{tmp_path}/a.sif", "mounts": ["/no/such"]}
    checks = list(check_files(cluster(software=image, scratch="/no/such")))
    assert failing(checks) == [
        f"software.image: {tmp_path}/a.sif is not there; build or copy the image there"
    ]
    assert lines(checks, "note") == [
        "scratch: /no/such is not on this machine; the preflight tries each node's",
        "software.mounts: /no/such is not on this machine; see a node's",
    ]


def test_modules_that_cannot_be_loaded() -> None:
    software = {"kind": "module", "modules": ["no-such-module/1"]}
    (line,) = failing(check_files(cluster(software=software)))
    assert line.startswith("software.modules: cannot be loaded: ")
    assert line.endswith("; see `module avail` for the names")


def test_pyxis_that_srun_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    cure = "ask the site for Pyxis, or use apptainer"
    unknown = f"software.kind: srun has no --container-image here; {cure}"
    answers = {"usage": [unknown], "--container-image=": []}
    software = {"kind": "pyxis", "image": "nvcr.io#nvidia/pytorch:26.06-py3"}
    for printed, wanted in answers.items():
        done = subprocess.CompletedProcess([], 0, printed, "")
        monkeypatch.setattr(check_profile, "call_slurm", lambda _, done=done: done)
        assert failing(check_files(cluster(software=software))) == wanted


def test_a_webhook_that_does_not_answer() -> None:
    found = list(check_files(cluster(notify={"webhook": "http://127.0.0.1:1/hook"})))
    (line,) = lines(found, "note")
    assert line.startswith("notify.webhook: 127.0.0.1:1 does not answer here: ")
    assert failing(found) == []
    nobody = list(check_files(cluster(notify={"webhook": "http://a..b/hook"})))
    (line,) = lines(nobody, "note")
    assert line.startswith("notify.webhook: a..b:80 does not answer here: ")


@pytest.fixture
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(doctor, "check_installation", lambda *_, **__: iter(()))


def test_a_slurm_that_is_down_is_one_line_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Site:
        raise MegatronJobsError("sinfo: Unable to contact slurm controller; try again")

    monkeypatch.setattr(doctor, "read_site", refuse)
    assert doctor._ask_slurm(cluster()) == (
        None,
        bad("Slurm", "sinfo: Unable to contact slurm controller", "try again"),
    )


@pytest.mark.usefixtures("_no_slurm")
def test_what_can_be_said_without_slurm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--cluster", "devcluster", "--run", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert (
        "FAIL  Slurm: scontrol: no such command here, Slurm is not installed; use a login node of "
        "the cluster, or slurm/devcluster/up and the file that it prints\n"
    ) in printed
    assert printed.count("FAIL") == 1
    assert main(["doctor", "--run", str(tmp_path)]) == 0
    assert "note  profile: none given; name one with --cluster\n" in capsys.readouterr().out


@pytest.mark.usefixtures("_no_slurm")
def test_faults_of_profile_and_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile, plan = tmp_path / "far.yaml", tmp_path / "plan.yaml"
    profile.write_text("name: far\nsignal_secnds: 5\n")
    job = {"stage": "tests.stages.echo", "cuont": 3}
    plan.write_text(yaml.safe_dump({"jobs": {"job": job}}))
    assert main(["doctor", str(plan), "--cluster", str(profile), "--run", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert (
        f"FAIL  profile {profile}: signal_secnds: no such setting: 'signal_secnds'; did you mean "
        "signal_seconds?; see mj cluster show for all settings\n"
    ) in printed
    assert f"FAIL  plan {plan}: job.cuont: no such setting: 'cuont'; did you mean count" in printed
    assert main(["doctor", "no-plan.yaml", "--cluster", "mars", "--run", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert "FAIL  profile: --cluster: no such profile: 'mars'; must be a profile's file" in printed
    assert "; write one: mj cluster discover --output FILE\n" in printed
    assert "FAIL  plan: no-plan.yaml" in printed


@pytest.mark.usefixtures("_no_slurm")
def test_a_plan_that_is_too_large_for_the_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    job = {"stage": "tests.stages.echo", "resources": {"gpus": 9}}
    plan.write_text(yaml.safe_dump({"jobs": {"job": job}}))
    assert main(["doctor", str(plan), "--cluster", "devcluster", "--run", str(tmp_path)]) == 2
    assert (
        "FAIL  job.resources.gpus: 9; a node of devcluster has 8; change the plan, or the profile\n"
    ) in capsys.readouterr().out
