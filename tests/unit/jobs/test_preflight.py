"""The verdict on a job's nodes, from what they left in its folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.site import Preflight
from megatron_jobs.errors import EXIT_DONE, EXIT_UNFIT
from megatron_jobs.jobs.cluster import Cluster, write_cluster
from megatron_jobs.jobs.events import read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.preflight import (
    Fitness,
    Verdict,
    check_words,
    choose,
    fit,
    in_words,
    judge_nodes,
    unfit_nodes,
)
from megatron_jobs.jobs.strikes import strike, struck

NODES = [f"n{number}" for number in range(6)]


class Case:
    """A job on six nodes, all good until a test says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = JobFolder(folder / "job")
        self.cluster = Cluster(name="here", strikes=str(folder / "strikes.jsonl"))
        place = self.folder.preflight / "pairs"
        place.mkdir(parents=True)
        (self.folder.preflight / "began").write_text("7.1 1000.0\n")
        (self.folder.preflight / "ended").write_text("1010.5\n")
        for number, node in enumerate(NODES):
            self.answers(node)
            self.pairs(node, {NODES[number - 1]: "", NODES[(number + 1) % 6]: ""})

    def answers(self, node: str, **changes: Any) -> None:
        answer = {"node": node, "attempt": "7.1", "time": 1005.0, "faults": [], "facts": {}}
        path = self.folder.preflight / f"{node}.json"
        path.write_text(json.dumps(answer | changes))

    def fails(self, node: str, check: str, cause: str) -> None:
        self.answers(node, faults=[{"check": check, "cause": cause}])

    def pairs(self, node: str, causes: dict[str, str], gbps: float = 100, **more: Any) -> None:
        trials = [
            {"partner": partner, "good": not cause, "gbps": 0 if cause else gbps, "cause": cause}
            for partner, cause in causes.items()
        ]
        found = {"node": node, "attempt": "7.1.3", "over": "nccl", "trials": trials} | more
        path = self.folder.preflight / "pairs" / f"{node}.json"
        path.write_text(json.dumps(found))

    def cut(self, *links: str) -> None:
        """Links that fail, at both ends: `n0-n1`."""
        for number, node in enumerate(NODES):
            both = (NODES[number - 1], NODES[(number + 1) % 6])
            lost = {other for other in both if {f"{node}-{other}", f"{other}-{node}"} & set(links)}
            alone = {"alone": ""} if len(lost) == 2 else {}
            self.pairs(node, {other: "cut" if other in lost else "" for other in both}, **alone)

    def judge(self, wanted: int = 4, nodes: list[str] = NODES) -> Fitness:
        return judge_nodes(self.folder, self.cluster, nodes, wanted)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_of_good_nodes_the_last_are_spares(case: Case) -> None:
    found = case.judge()
    assert (found.bad, found.suspects, found.notes, found.strikes) == ({}, {}, {}, {})
    assert found.left_out == ["n4", "n5"]
    assert found.enough
    assert in_words(found) == ["preflight: 4 nodes are used, without n4, n5"]
    assert case.judge(6).left_out == []
    assert in_words(case.judge(6)) == ["preflight: 6 nodes are used"]


def test_a_bad_node_is_left_out_by_its_first_cause(case: Case) -> None:
    both = [{"check": "gpu", "cause": "hot"}, {"check": "scratch", "cause": "full"}]
    case.answers("n1", faults=both)
    found = case.judge()
    assert found.bad == found.strikes == {"n1": "hot"}
    assert found.left_out == ["n1", "n5"]


def test_a_node_that_is_silent_or_only_spoke_before_is_bad(case: Case) -> None:
    (case.folder.preflight / "n1.json").unlink()
    case.answers("n2", attempt="7.0")
    found = case.judge()
    assert found.bad == dict.fromkeys(["n1", "n2"], "did not answer within 20 s")
    assert found.left_out == found.avoid == found.silent == ["n1", "n2"]


def test_the_time_that_links_had_is_what_the_checks_left(case: Case) -> None:
    (case.folder.preflight / "pairs" / "n1.json").unlink()
    assert case.judge().bad == {
        "n1": "did not answer within 46 s"
    }  # 60 - 10.5 - 3, rounded to even


def test_a_node_is_struck_when_it_is_silent_for_the_second_time(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[0-5]")
    write_cluster(case.folder, case.cluster)
    (case.folder.preflight / "n1.json").unlink()
    fit(case.folder, 4)
    assert struck(case.cluster) == {}
    assert unfit_nodes(case.folder) == ["n1"]
    fit(case.folder, 4)
    assert struck(case.cluster) == {"n1": "preflight: did not answer within 20 s"}


@pytest.mark.parametrize(
    ("nodes", "silent", "avoided"), [(2000, 1999, 0), (2000, 900, 0), (2000, 100, 100), (4, 2, 2)]
)
def test_more_than_a_few_silent_nodes_are_not_avoided(
    nodes: int, silent: int, avoided: int
) -> None:
    verdicts = {f"n{number}": Verdict() for number in range(nodes)}
    for number in range(1, silent + 1):
        verdicts[f"n{number}"].faults["silent"] = "did not answer"
    if nodes > 4:
        verdicts["n0"].faults["gpu"] = "hot"
    found = choose(verdicts, nodes, silent_before=set(verdicts))
    own = int(nodes > 4)
    assert len(found.avoid) == len(found.strikes) == avoided + own
    assert found.common == ("" if avoided else "silent")
    assert len(found.bad) == silent + own


def test_what_a_node_could_only_say_counts(case: Case) -> None:
    path = case.folder.preflight / "n1.json"
    answer = json.loads(path.read_text())
    answer["faults"] = [{"check": "run folder", "cause": "not there"}]
    (case.folder.preflight / "said").write_text(f"a word of the day\n{json.dumps(answer)}\n")
    path.unlink()
    assert case.judge().bad == {"n1": "not there"}


def test_clocks_may_be_off_by_the_start_and_five_seconds(case: Case) -> None:
    for node, time in zip(NODES, [995.0, 994.0, 1015.5, 1031.5, 1000, 1010], strict=True):
        case.answers(node, time=time)
    assert case.judge().bad == {
        "n1": "its clock is 6 s off the first node's, 5 s are allowed",
        "n3": "its clock is 21 s off the first node's, 5 s are allowed",
    }


def test_a_node_with_fewer_ports_than_most_is_bad(case: Case) -> None:
    for node in NODES:
        case.answers(node, facts={"fabric_gbps": 2800 if node == "n2" else 3200})
    assert case.judge().bad == {"n2": "its ports give 2800 Gb/s, most nodes of the job have 3200"}


@pytest.mark.parametrize(
    ("cut", "bad", "left_out"),
    [
        ("n0-n1", [], ["n4", "n5"]),
        ("n0-n1 n1-n2", ["n1"], ["n1", "n5"]),
        ("n5-n0 n0-n1", ["n0"], ["n0", "n5"]),
        ("n0-n1 n1-n2 n2-n3", ["n1", "n2"], ["n1", "n2"]),
    ],
)
def test_a_node_is_bad_that_fails_with_all_it_is_tried_with(
    case: Case, cut: str, bad: list[str], left_out: list[str]
) -> None:
    case.cut(*cut.split())
    found = case.judge()
    assert list(found.bad) == list(found.strikes) == bad
    assert found.left_out == left_out
    if bad == ["n1"]:
        assert found.bad["n1"] == "cannot reduce with n0 (cut) nor n2 (cut)"


def test_who_met_only_bad_nodes_is_used_last(case: Case) -> None:
    case.cut("n0-n1", "n1-n2", "n2-n3", "n3-n4")
    found = case.judge(3)
    assert list(found.bad) == ["n1", "n3"]
    assert found.suspects == {}
    assert found.notes == {"n2": "its links are not proven: all it was tried with are bad"}
    assert found.left_out == ["n1", "n2", "n3"]
    assert case.judge(4).left_out == ["n1", "n3"]


def test_of_two_nodes_either_may_be_at_fault(case: Case) -> None:
    case.pairs("n0", {"n1": "cut"}, alone="")
    case.pairs("n1", {"n0": "cut"}, alone="")
    found = case.judge(2, ["n0", "n1"])
    assert found.bad == found.strikes == {}
    assert found.suspects == {
        "n0": "cannot reduce with n1 (cut); either end may be at fault",
        "n1": "cannot reduce with n0 (cut); either end may be at fault",
    }
    assert not found.enough
    assert found.common == ""


def test_who_came_too_late_for_links_and_who_waited_are_not_blamed(case: Case) -> None:
    """n1 was late for both; n2 failed with it, and was late for n3."""
    for node, partners in (("n1", ("n0", "n2")), ("n2", ("n3",))):
        path = case.folder.preflight / "pairs" / f"{node}.json"
        case.pairs(node, {NODES[NODES.index(node) - 1]: "cut", NODES[NODES.index(node) + 1]: "cut"})
        found = json.loads(path.read_text())
        for trial in found["trials"]:
            trial |= {"late": True} if trial["partner"] in partners else {}
        path.write_text(json.dumps(found))
    case.pairs("n0", {"n1": "waited in vain", "n5": ""})
    found_all = case.judge(6)
    assert (found_all.bad, found_all.suspects, found_all.avoid) == ({}, {}, [])
    words = "its links are not proven: there was no time left for them"
    assert found_all.notes == {"n1": words, "n2": words}


def test_of_two_nodes_the_one_that_cannot_reduce_with_itself(case: Case) -> None:
    case.pairs("n0", {"n1": "cut"}, alone="no such port")
    case.pairs("n1", {"n0": "cut"}, alone="")
    found = case.judge(2, ["n0", "n1"])
    assert found.bad == {"n0": "cannot reduce even with itself: no such port"}
    assert found.strikes == found.bad
    assert found.suspects == {}
    assert found.left_out == ["n0"]


def test_what_all_or_most_nodes_fail_is_no_fault_of_theirs(case: Case) -> None:
    for node in NODES[:4]:
        case.fails(node, "site", "no module")
    case.fails("n5", "gpu", "hot")
    found = case.judge()
    assert len(found.bad) == 5
    assert (found.strikes, found.avoid) == ({"n5": "hot"}, ["n5"])
    for node in NODES:
        case.fails(node, "site", "no module")
    found = case.judge()
    assert found.strikes == {}
    assert found.avoid == []
    assert found.common == "site"
    assert in_words(found)[-2:] == [
        "preflight: many nodes fail alike (site), so it is hardly the nodes, and they are not "
        "avoided: look at logs/preflight.log, at what the job asks for and at the profile",
        "preflight: 0 nodes are fit, the job needs 4",
    ]


def test_when_no_link_works_it_is_hardly_the_nodes(case: Case) -> None:
    case.cut(*(f"{node}-{NODES[(n + 1) % 6]}" for n, node in enumerate(NODES)))
    found = case.judge()
    assert found.common == "links"
    assert (found.bad, found.strikes) == ({}, {})
    assert len(found.suspects) == 6


def test_a_single_node_is_not_blamed_for_the_run_folder(case: Case) -> None:
    case.fails("n0", "run folder", "quota")
    found = case.judge(1, ["n0"])
    assert (found.bad, found.strikes) == ({"n0": "quota"}, {})
    case.fails("n0", "gpu", "hot")
    assert case.judge(1, ["n0"]).strikes == {"n0": "hot"}


def test_slow_and_struck_nodes_are_the_spares(case: Case) -> None:
    case.pairs("n0", {"n1": "", "n5": ""}, gbps=69)
    case.pairs("n3", {"n2": "", "n4": ""}, gbps=71)
    strike(case.cluster, "n2", "hot", case.folder)
    found = case.judge()
    assert found.bad == {}
    assert found.notes == {
        "n0": "slow: 69.0 Gb/s, the median is 100.0",
        "n2": "is on the strike list: hot",
    }
    assert found.left_out == ["n0", "n2"]
    assert case.judge(6).enough


def test_what_is_off_is_not_judged(case: Case) -> None:
    for path in case.folder.preflight.rglob("*.json"):
        path.unlink()
    off = Preflight(nodes=False, links=False)
    case.cluster = case.cluster.model_copy(update={"preflight": off})
    assert case.judge().bad == {}


def test_fit_notes_strikes_and_prints_for_srun(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[0-5]")
    write_cluster(case.folder, case.cluster)
    case.fails("n1", "gpu", "hot")
    assert fit(case.folder, 4) == EXIT_DONE
    assert capsys.readouterr().out == "n1,n5\n"
    assert struck(case.cluster) == {"n1": "preflight: hot"}
    (event,) = read_events(case.folder)
    assert event["event"] == "preflight"
    assert (event["bad"], event["left_out"]) == ({"n1": "hot"}, ["n1", "n5"])
    assert unfit_nodes(case.folder) == ["n1"]
    assert fit(case.folder, 6) == EXIT_UNFIT
    assert "preflight: 5 nodes are fit, the job needs 6\n" in capsys.readouterr().err


def test_nodes_that_all_fail_alike_are_not_avoided(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unfit_nodes(case.folder) == []
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[0-5]")
    write_cluster(case.folder, case.cluster)
    for node in NODES:
        case.fails(node, "site", "no module")
    assert fit(case.folder, 6) == EXIT_UNFIT
    assert unfit_nodes(case.folder) == []


def test_what_the_check_is_told() -> None:
    preflight = Preflight(lines=("true",), disk_gb=0.5)
    cluster = Cluster(name="here", scratch="/s p", fabric="roce", preflight=preflight)
    assert check_words(cluster, Resources(gpus=2, memory_gb=1.5)) == [
        "seconds=15",
        "gpus=2",
        "gpu_celsius=90",
        "memory_gb=1.5",
        "scratch=/s p",
        "disk_gb=0.5",
        "fabric=roce",
        "line=true",
    ]
