"""What gloo really says when a rank is gone is the aftermath, not the cause."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from megatron_jobs.jobs.causes import Weight
from megatron_jobs.jobs.evidence import last_start
from megatron_jobs.jobs.findings import Findings
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.triage import judge
from megatron_jobs.parallel.groups import connect
from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.runtime.rank import Rank


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_ranks_that_lose_another(tmp_path: Path, how: str) -> None:
    folder = JobFolder(tmp_path / "run" / "job")
    folder.path.mkdir(parents=True)

    def work(rank: Rank) -> None:
        connect(rank, tmp_path, seconds=60)
        value = torch.ones(1000)
        for step in range(1000):
            if rank.index == 1 and step == 3:
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ValueError("a planted bug")
            torch.distributed.all_reduce(value)

    outcome = fork_ranks(work, 3, error_file=folder.error, output_file=folder.log)
    record = {"status": outcome.status, "guilty": 1, "signal": "SIGKILL" if how == "kill" else ""}
    folder.outcome.write_text(json.dumps(record))
    for rank in (0, 2):  # they said so before the guilty one's words were on the disk
        os.utime(folder.error(rank), (time.time() - 5,) * 2)
    verdict = judge(folder, status=1)
    wanted = ("killed", 1) if how == "kill" else ("Python error", 1)
    assert (verdict.kind, verdict.rank) == wanted
    others = [f for f in Findings(last_start(folder)).collect(1).all if f.at.rank != 1]
    assert {(f.rule.kind, f.weight) for f in others} == {("lost connection", Weight.AFTERMATH)}
    assert verdict.aftermath == {"lost connection": 2}
