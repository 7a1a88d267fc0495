"""Variables of the networks: each known to today's libraries, each with its reason."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from megatron_jobs.config.site import Fabric
from megatron_jobs.jobs.fabric import BLOCKS, NCCL, fabric_environment, fabric_srun_words

FABRICS = get_args(Fabric)
RENAMED = {
    "NCCL_ASYNC_ERROR_HANDLING",
    "NCCL_BLOCKING_WAIT",
    "NCCL_DESYNC_DEBUG",
    "NCCL_IB_CUDA_SUPPORT",
    "NCCL_IB_GDR_LEVEL",
    "NCCL_RINGS",
    "NCCL_LL_THRESHOLD",
    "NCCL_TREE_THRESHOLD",
    "NCCL_NTHREADS",
    "NCCL_CHECKS_DISABLE",
    "NCCL_IB_GID_INDEX",
    "FI_EFA_USE_DEVICE_RDMA",
    "FI_EFA_FORK_SAFE",
    "RDMAV_FORK_SAFE",
}
"""Gone, renamed or harmful by now."""


@pytest.mark.parametrize("fabric", FABRICS)
def test_every_variable_has_a_value_and_a_reason(fabric: Fabric) -> None:
    found = fabric_environment(fabric, nodes=2)
    assert not set(found) & RENAMED
    for variable, (value, reason) in found.items():
        assert variable.startswith(("NCCL_", "TORCH_NCCL_", "FI_", "GLOO_")), variable
        assert value == value.strip() != ""
        assert 10 < len(reason) < 90, variable
        assert "\n" not in value + reason


def test_torch_knows_the_variables_that_are_its_own() -> None:
    header = Path(torch.__file__).parent / "include/torch/csrc/distributed/c10d"
    known = (header / "ProcessGroupNCCL.hpp").read_text()
    ours = [name for name in NCCL if name.startswith("TORCH_")]
    assert len(ours) == 3
    assert [name for name in ours if f'"{name}"' not in known] == []


def test_a_job_without_gpus_is_told_nothing() -> None:
    assert [fabric_environment(fabric, nodes=4, gpus=0) for fabric in FABRICS] == [{}] * 6
    assert fabric_srun_words("slingshot", gpus=0) == ()


def test_falling_back_to_tcp_is_an_error_between_nodes_only() -> None:
    assert fabric_environment("roce", nodes=2)["NCCL_NET"][0] == "IB"
    assert "NCCL_NET" not in fabric_environment("roce", nodes=1)
    assert "NCCL_NET" not in fabric_environment("slingshot", nodes=2)


def test_what_the_makers_recommend() -> None:
    """HPE's ccl_env.sh and the flag that its README requires with it; AWS's efa-env-var.md."""
    slingshot = {name: value for name, (value, _) in BLOCKS["slingshot"].items()}
    assert (
        slingshot.items()
        >= {
            "FI_MR_CACHE_MONITOR": "userfaultfd",
            "FI_CXI_DISABLE_HOST_REGISTER": "1",
            "FI_CXI_DEFAULT_CQ_SIZE": "131072",
            "FI_CXI_RDZV_PROTO": "alt_read",
            "FI_CXI_RDZV_EAGER_SIZE": "0",
            "FI_CXI_DEFAULT_TX_SIZE": "2048",
            "NCCL_CROSS_NIC": "1",
            "NCCL_NET_GDR_LEVEL": "PHB",
            "FI_CXI_RX_MATCH_MODE": "hybrid",
        }.items()
    )
    assert fabric_srun_words("slingshot") == ("--network=disable_rdzv_get",)
    assert BLOCKS["efa"]["FI_EFA_USE_HUGE_PAGE"][0] == "0"
    seconds = 4.096e-6 * 2 ** int(BLOCKS["infiniband-hdr"]["NCCL_IB_TIMEOUT"][0])
    assert 17 < seconds < 18
    dscp, ecn = divmod(int(BLOCKS["roce"]["NCCL_IB_TC"][0]), 4)
    assert (dscp, ecn) == (26, 2)
