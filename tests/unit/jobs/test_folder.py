"""Where the logs of a job stand, on few nodes and on many."""

from pathlib import Path

import pytest

from megatron_jobs.jobs import folder as folder_module
from megatron_jobs.jobs.folder import (
    JobFolder,
    log_pattern,
    make_log_folders,
    write_job,
)


def job_on(path: Path, nodes: int, ranks: int = 8) -> JobFolder:
    """A job's folder as it is when its ranks start."""
    folder = JobFolder(path)
    write_job(folder, {"stage": "echo", "resources": {"nodes": nodes, "ranks": ranks}})
    make_log_folders(folder, nodes)
    return folder


def opened_by_slurm(pattern: str, nodes: int, ranks: int) -> list[str]:
    """The files that srun's pattern stands for: %4n the node, %5t the task, both from 0."""
    places = [(rank // ranks, rank) for rank in range(nodes * ranks)]
    return [pattern.replace("%4n", f"{n:04}").replace("%5t", f"{t:05}") for n, t in places]


@pytest.mark.parametrize(("nodes", "ranks"), [(1, 1), (64, 3), (65, 3), (70, 8)])
def test_logs_are_where_slurm_opens_them(tmp_path: Path, nodes: int, ranks: int) -> None:
    folder = job_on(tmp_path, nodes, ranks)
    names = opened_by_slurm(log_pattern(nodes), nodes, ranks)
    for name in reversed(names):
        (tmp_path / name).touch()  # the folder is there, as Slurm needs it
    wanted = [tmp_path / name for name in names]
    assert [folder.log(rank) for rank in range(nodes * ranks)] == wanted
    assert folder.rank_logs() == wanted
    (folder.error(2 % nodes)).write_text("words")
    assert folder.rank_errors() == [wanted[2 % nodes].with_suffix(".error")]


def test_no_folder_holds_the_logs_of_many_nodes(tmp_path: Path) -> None:
    folder = job_on(tmp_path, 2000)
    assert folder.log(15_999) == tmp_path / "logs" / "node-1999" / "rank-15999.log"
    assert len(list(folder.logs.iterdir())) == 2000


def test_a_job_that_goes_on_with_fewer_nodes(tmp_path: Path) -> None:
    folder = job_on(tmp_path, 70)
    folder.log(12).write_text("many")
    again = job_on(tmp_path, 4)
    assert again.log(12) == tmp_path / "logs" / "rank-00012.log"
    again.log(3).write_text("few")
    assert again.rank_logs() == [again.log(3), tmp_path / "logs/node-0001/rank-00012.log"]


def test_the_limit_is_the_one_of_the_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "MANY_NODES", 1)
    assert log_pattern(1) == "logs/rank-%5t.log"
    assert log_pattern(2) == "logs/node-%4n/rank-%5t.log"
    assert job_on(tmp_path, 2, 2).log(3) == tmp_path / "logs" / "node-0001" / "rank-00003.log"
