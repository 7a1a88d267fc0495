import socket

import pytest

from megatron_jobs.runtime.rank import read_rank, tasks_per_node


@pytest.mark.parametrize(
    ("text", "counts"), [("2(x3),1", [2, 2, 2, 1]), ("4", [4]), ("1,3(x2)", [1, 3, 3])]
)
def test_tasks_per_node_written_out(text: str, counts: list[int]) -> None:
    assert tasks_per_node(text) == counts


def test_a_task_of_srun() -> None:
    env = {
        "SLURM_JOB_ID": "71",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "5",
        "SLURM_NTASKS": "7",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "2",
        "SLURM_NNODES": "3",
        "SLURM_TASKS_PER_NODE": "2(x2),3",
        "SLURM_RESTART_COUNT": "1",
        "SLURMD_NODENAME": "n2",
    }
    rank = read_rank(env)
    assert (rank.index, rank.world, rank.local, rank.local_world) == (5, 7, 1, 3)
    assert (rank.node, rank.nodes, rank.job_id, rank.restart) == (2, 3, "71", 1)
    assert rank.attempt == "71.1.0"
    assert rank.node_name == "n2"
    assert (
        read_rank(env | {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "9"}).job_id == "70_9"
    )


def test_a_node_is_called_what_slurm_calls_it() -> None:
    batch = read_rank({"SLURMD_NODENAME": "n7"})
    assert batch.node_name == "n7"
    assert batch.host == socket.gethostname()
    assert read_rank({}).node_name == socket.gethostname()


def test_inside_a_batch_script_but_outside_a_step_it_is_alone() -> None:
    assert read_rank({"SLURM_JOB_ID": "71", "SLURM_PROCID": "0"}).world == 1
