"""Profiles to look at, and what was found, for tests of `mj doctor`."""

from collections.abc import Iterable
from typing import Any

from megatron_jobs.jobs.check import Check
from megatron_jobs.jobs.cluster import Cluster, load_cluster


def cluster(**changes: Any) -> Cluster:
    return Cluster.model_validate(load_cluster("devcluster").model_dump() | changes)


def lines(checks: Iterable[Check], state: str) -> list[str]:
    return [check.line().removeprefix(state).strip() for check in checks if check.state == state]


def failing(checks: Iterable[Check]) -> list[str]:
    return lines(checks, "FAIL")
