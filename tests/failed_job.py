"""The folder of a job that failed, made up: logs, last words, events, what srun said."""

import json
import os
import time
from pathlib import Path
from typing import Any

import yaml

from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.triage import Verdict, judge

NODES = ["node1", "node2", "node3", "node4"]
BEGAN = time.time() - 1000
HEADER = "2026-11-21T08:34:36+00:00 Slurm job 7, restart {}, on node[1-4]\n"
PEER = (
    "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] "
    "Connection closed by peer [127.0.77.2]:41234"
)
ENDING = "srun: launch/slurm: _step_signal: Terminating StepId=7.0\n"


class Case:
    """A job of 4 nodes x 2 ranks, whose files tell how its last start ended."""

    def __init__(self, path: Path) -> None:
        self.folder = JobFolder(path / "run" / "pretrain")
        self.folder.logs.mkdir(parents=True)
        job = {"stage": "pretrain", "resources": {"nodes": 4, "ranks": 2, "gpus": 2}, "after": []}
        self.folder.config.write_text(yaml.safe_dump(job))
        self.batch(HEADER.format(0))
        self.event("start", time=BEGAN, nodes=NODES, restart=0, slurm_job_id="7")

    def event(self, name: str, **facts: Any) -> None:
        record = {"time": BEGAN + 1, "event": name, "slurm_job_id": "7", "host": "node1"} | facts
        with self.folder.events.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def batch(self, text: str) -> None:
        with (self.folder.logs / "batch.log").open("a") as file:
            file.write(text)

    def log(self, rank: int, text: str, second: float = 50) -> None:
        self._write(self.folder.log(rank), text, second)

    def error(self, rank: int, text: str, second: float = 50) -> None:
        self._write(self.folder.error(rank), text, second)
        self.log(rank, text, second + 0.1)

    def _write(self, path: Path, text: str, second: float) -> None:
        with path.open("a") as file:
            file.write(text + "\n")
        os.utime(path, (BEGAN + second, BEGAN + second))

    def judge(self, status: int = 1) -> Verdict:
        return judge(self.folder, status=status)


def traceback_of(error: str, file: str = "/home/me/train.py", line: int = 12) -> str:
    return (
        "Traceback (most recent call last):\n"
        '  File "/opt/code/megatron_jobs/runtime/launch.py", line 140, in run_and_report\n'
        "    work()\n"
        f'  File "{file}", line {line}, in step\n'
        "    loss.backward()\n"
        '  File "/opt/venv/lib/python3.11/site-packages/torch/_tensor.py", line 647, in backward\n'
        "    torch.autograd.backward(\n"
        f"{error}"
    )
