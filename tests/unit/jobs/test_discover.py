"""Profiles from what Slurm and a probe say."""

from pathlib import Path

import pytest
import yaml

from megatron_jobs.config.site import Fabric
from megatron_jobs.errors import UserError
from megatron_jobs.jobs import discover as discovery
from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.discover import account_for, choose_partition, profile_lines, shown
from megatron_jobs.jobs.node_facts import (
    containers,
    ends_of_time,
    fabric_of,
    how_again,
    socket_interface,
    verbs_adapters,
    where_scratch,
)
from megatron_jobs.jobs.partitions import (
    Partition,
    Site,
    parse_gpus,
    parse_hours,
)
from megatron_jobs.jobs.probe import Probe, read_probe
from tests.unit.jobs.recorded import (
    V23,
    V24_CONFIG,
    V24_MEMBERS,
    V24_PARTITIONS,
    V24_SINFO,
    site_of,
    v20,
    v22,
    v24,
)


@pytest.fixture(autouse=True)
def _not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_jobs.jobs.partitions._is_root", lambda: False)


def probe_of(tmp_path: Path, *words: str, step: str = "") -> Probe:
    folder = tmp_path / "probe"
    folder.mkdir(exist_ok=True)
    lines = ["started\t1000.0", *(word.replace(" ", "\t", 1) for word in words)]
    (folder / "batch.log").write_text("\n".join(lines) + "\n")
    (folder / "step.out").write_text(step)
    return read_probe("7", folder)


def test_slurm_22() -> None:
    site = v22()
    main, low, debug = site.partitions.values()
    assert (main.gpus, main.richest.gpu_type, main.richest.cpus) == (8, "h100", 16)
    assert (main.max_hours, main.default_hours, main.default) == (168, 1, True)
    assert (main.preempt_mode, low.preempt_mode, low.grace_seconds) == ("OFF", "REQUEUE", 10)
    assert (debug.max_hours, debug.nodes_up) == (0.5, 1)
    assert site.number("KillWait") == 3
    assert site.accounts == ["dev", "root"]
    assert site.warns_before_preemption
    assert choose_partition(site, "").name == "main"
    assert account_for(site, main) == "dev"


def test_slurm_20_without_accounting() -> None:
    site = v20()
    batch, v100 = site.partitions.values()
    assert (batch.nodes_up, batch.gpus, batch.max_hours) == (3, 0, 60.5)
    assert (v100.gpus, v100.richest.gpu_type, v100.features) == (4, "", {"skylake", "v100"})
    assert batch.default_hours is None
    assert {part.preempt_mode for part in site.partitions.values()} == {"OFF"}
    assert not site.warns_before_preemption
    assert choose_partition(site, "") is v100
    assert discovery.choose_cpu_partition(site, v100) is batch
    assert account_for(site, v100) == ""


@pytest.mark.parametrize("words", [(V24_CONFIG, V24_PARTITIONS), V23])
def test_slurm_23_and_24(words: tuple[str, str]) -> None:
    site = site_of(*words, V24_SINFO, V24_MEMBERS, "guests")
    h100 = site.partitions["h100"]
    assert (h100.nodes_up, h100.gpus, h100.max_hours) == (96, 8, None)
    assert [kind.count for kind in h100.nodes] == [96, 4]  # however busy they are
    assert (h100.preempt_mode, h100.grace_seconds) == ("REQUEUE", 120)
    assert site.warns_before_preemption
    assert [part.name for part in site.usable()] == ["h100", "mig", "cpu"]
    assert choose_partition(site, "") is h100
    assert account_for(site, h100) == "bio"  # the default account is not let in
    cpu = discovery.choose_cpu_partition(site, h100)
    assert cpu is not None
    assert cpu.name == "cpu"


def test_accounts_that_are_denied() -> None:
    guest = site_of(V24_CONFIG, V24_PARTITIONS, V24_SINFO, "guests||normal|\n", "guests")
    assert [part.name for part in guest.usable()] == ["cpu"]


def test_a_partition_that_is_not_there() -> None:
    with pytest.raises(UserError) as caught:
        choose_partition(v20(), "v1000")
    assert str(caught.value) == (
        "--partition: found 'v1000', there is no such one; there is batch, v100"
    )
    assert choose_partition(v20(), "batch").name == "batch"
    with pytest.raises(UserError) as caught:
        choose_partition(Site(), "")
    assert str(caught.value) == (
        "sinfo: no partition is up that you may use; ask the site, or: --partition"
    )


@pytest.mark.parametrize(
    ("text", "hours"),
    [("7-00:00:00", 168), ("30:00", 0.5), ("1:30:00", 1.5), ("0:36", 0.01), ("infinite", None)],
)
def test_times(text: str, hours: float | None) -> None:
    assert parse_hours(text) == hours


@pytest.mark.parametrize(
    ("gres", "found"),
    [
        ("gpu:h100:8", (8, "h100")),
        ("gpu:4(S:0-1),nvme:1", (4, "")),
        ("gpu:a100:3,gpu:a100_3g.20gb:2", (3, "a100")),
        ("gpu:gh200:4(IDX:0-3)", (4, "gh200")),
        ("craynetwork:4", (0, "")),
        ("(null)", (0, "")),
    ],
)
def test_gpus(gres: str, found: tuple[int, str]) -> None:
    assert parse_gpus(gres) == found


HDR = [f"rdma mlx5_{i}|mlx5_core|InfiniBand|200 Gb/sec (4X HDR)|4: ACTIVE" for i in range(2)]
NDR = [f"rdma mlx5_{i}|mlx5_core|InfiniBand|400 Gb/sec (4X NDR)|4: ACTIVE" for i in range(2)]
BESIDE = "rdma mlx5_bond_0|mlx5_core|Ethernet|100 Gb/sec (4X EDR)|4: ACTIVE"
DARK = "rdma mlx5_9|mlx5_core|InfiniBand|10 Gb/sec (4X SDR)|1: DOWN"
ROCE = ["rdma mlx5_0|mlx5_core|Ethernet|200 Gb/sec (4X HDR)|4: ACTIVE"]
EFA = ["rdma rdmap16s27|efa|Unspecified|100 Gb/sec (4X EDR)|4: ACTIVE"]


@pytest.mark.parametrize(
    ("words", "fabric", "adapters"),
    [
        ([], "", {}),
        (HDR, "infiniband-hdr", {}),
        ([*NDR, BESIDE, DARK], "infiniband-ndr", {"NCCL_IB_HCA": "=mlx5_0,mlx5_1"}),
        ([*ROCE], "roce", {}),
        ([DARK], "", {}),
        (EFA, "efa", {}),
        (["interface hsn0", "interface hsn1", "interface lo"], "slingshot", {}),
    ],
)
def test_the_network_is_known_by_its_devices(
    tmp_path: Path, words: list[str], fabric: Fabric, adapters: dict[str, str]
) -> None:
    seen = probe_of(tmp_path, *words)
    assert fabric_of(seen)[0] == fabric
    assert {name: value for name, (value, _) in verbs_adapters(seen).items()} == adapters


def test_scratch_is_local_and_nobody_elses(tmp_path: Path) -> None:
    words = [
        "scratch xfs 1000000 4096 66 /tmp/job.7",
        "scratch lustre 90000000 4096 77 /scratch",
        "scratch xfs 500000 4096 67 /local disk",
        "scratch ext2/ext3 100 4096 68 /mnt/nvme",
        "scratch tmpfs 9000000 4096 27 /dev/shm",
    ]
    chosen, about = where_scratch(probe_of(tmp_path, *words))
    assert chosen == "/local disk"
    assert "/scratch (lustre, 343 GiB free)" in about
    chosen, about = where_scratch(probe_of(tmp_path, words[0], words[4]))
    assert chosen == ""
    assert about.endswith("None is local and meant for it: /dev/shm, or else /tmp, is used.")


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (["answers.scontrol yes", "answers.sbatch yes"], "requeue"),
        (["answers.scontrol no", "answers.sbatch yes"], "submit"),
        (["answers.scontrol no", "answers.sbatch no"], "ahead"),
    ],
)
def test_how_a_job_goes_on_is_what_the_node_allows(
    tmp_path: Path, words: list[str], way: str
) -> None:
    assert how_again(probe_of(tmp_path, *words))[0] == way


def test_an_address_that_other_nodes_cannot_reach(tmp_path: Path) -> None:
    words = ["address 127.0.1.1", "route eth0", "login.address 10.0.0.1"]
    found = socket_interface(probe_of(tmp_path, *words))
    assert found["GLOO_SOCKET_IFNAME"][0] == "eth0"
    here = socket_interface(probe_of(tmp_path, *words[:2], "login.address 127.0.0.1"))
    assert here["GLOO_SOCKET_IFNAME"][0] == "lo"
    assert socket_interface(probe_of(tmp_path, "address 10.0.0.7", "route eth0")) == {}


def test_signals_are_told_from_the_end(tmp_path: Path) -> None:
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "alive.step").write_text("1074.5")
    (tmp_path / "probe" / "alive.script").write_text("1075.0")
    step = "signal\tstep TERM 1069.5\nsignal\tstep USR2 1039.5\nsignal\tstep TERM 1069.6\n"
    seen = probe_of(tmp_path, "signal script CONT 1069.9", step=step)
    assert seen.when("step", "USR2") == 39.5
    assert seen.when("script", "USR2") is None
    assert ends_of_time(seen).startswith(
        "Seen with a limit of 60 s and --signal=USR2@15: the step got USR2 35 s before its end, "
        "TERM 5 s before its end, and was gone after 74 s; the script got no signal, and was gone "
        "after 75 s."
    )


def test_lines_that_were_cut_by_the_kill(tmp_path: Path) -> None:
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "alive.step").write_text("")
    step = "signal\tstep TERM \nsignal\tstep TERM 1069.6\nsignal\tstep CO"
    seen = probe_of(tmp_path, "signal script", step=step)
    assert seen.when("step", "TERM") == pytest.approx(69.6)
    assert len(seen.signals) == 1


def test_a_folder_that_the_nodes_do_not_see(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_probe("7", tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: the probe left nothing there; the nodes must see this folder, so start from "
        "one that is shared"
    )


def test_container_runtimes(tmp_path: Path) -> None:
    words = ["container.apptainer apptainer version 1.4.0", "container.pyxis yes", "modules yes"]
    assert containers(probe_of(tmp_path, *words)) == (
        "Containers: apptainer (apptainer version 1.4.0), pyxis. There are modules."
    )
    assert containers(probe_of(tmp_path)) == "No container runtime found. There are no modules."


def written(
    tmp_path: Path, site: Site, chosen: Partition, seen: Probe | None
) -> tuple[str, Cluster]:
    lines = profile_lines(site, chosen, seen, "the probe was refused: no", "gres")
    text = "\n".join(line.text() for line in lines)
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return text, load_cluster(str(path))


def test_a_profile_without_a_probe_says_what_it_does_not_know(tmp_path: Path) -> None:
    site = v20()
    text, cluster = written(tmp_path, site, site.partitions["v100"], None)
    wanted = {"name": "old", "partition": "v100", "cpu_partition": "batch", "gpus_per_node": 4}
    wanted |= {"cpus_per_node": 40, "max_hours": 24, "gpu_option": "gres", "max_array_size": 4001}
    assert cluster == Cluster.model_validate(wanted)
    assert "no probe (the probe was refused: no)" in " ".join(text.replace("# ", "").split())
    assert "# Not found: sacctmgr says nothing of your accounts.\n# account:\n" in text
    assert "# Slurm's name of the model.\n# gpu_type:\n" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_profile_with_a_probe_holds_what_was_seen(tmp_path: Path) -> None:
    site = v24()
    words = [*NDR, BESIDE, "answers.sbatch yes", "scratch xfs 500000 4096 67 /nvme", "host gh001"]
    seen = probe_of(tmp_path, *words, "address 127.0.1.1", "route ib0", "memory_kb 1500000000")
    text, cluster = written(tmp_path, site, site.partitions["h100"], seen)
    assert (cluster.fabric, cluster.again, cluster.scratch) == ("infiniband-ndr", "submit", "/nvme")
    assert cluster.environment == {
        "GLOO_SOCKET_IFNAME": "ib0",
        "NCCL_IB_HCA": "=mlx5_0,mlx5_1",
    }
    assert (cluster.account, cluster.gpu_type, cluster.max_hours) == ("bio", "h100", 0)
    said = text.replace("\n# ", " ")
    assert "job 7 on gh001" in said
    assert "Your home is perhaps not the same on the nodes; this folder is seen by them." in said
    assert "A job that is preempted gets USR2 and its partition's GraceTime" in said


@pytest.mark.parametrize(
    ("same", "wanted"),
    [
        ("yes", "# Your home is the same on the nodes (nfs); this folder is seen by them.\n"),
        ("no", "# Your home is NOT the same on the nodes (nfs); this folder is seen by them.\n"),
    ],
)
def test_a_home_is_known_by_a_file_in_it(tmp_path: Path, same: str, wanted: str) -> None:
    site = v24()
    seen = probe_of(tmp_path, "home nfs", f"home.same {same}")
    assert wanted in written(tmp_path, site, site.partitions["h100"], seen)[0]


def test_shown_has_every_setting_and_the_networks_variables() -> None:
    text = shown(Cluster(name="far", fabric="roce"))
    assert set(yaml.safe_load(text)) == set(Cluster.model_fields)
    assert "\n#   NCCL_IB_TC=106  DSCP 26" in text
