"""Variables that NCCL and libfabric need on each kind of network, and why.

What the libraries choose well by themselves is left alone, and so is what is a site's own
(names of adapters, service levels): that stands in the profile's `environment`, which has the last
word. UCX is not set up: neither NCCL nor gloo uses it. Not set because newer versions choose or
ignore them: NCCL_IB_GID_INDEX (found since 2.21), NCCL_IB_CUDA_SUPPORT (gone since 2.4),
NCCL_IB_ADAPTIVE_ROUTING (on for InfiniBand), FI_PROVIDER, NCCL_PROTO, FI_EFA_USE_DEVICE_RDMA and
FI_EFA_FORK_SAFE (for aws-ofi-nccl up to 1.6), NCCL_NET on libfabric (the plug-in was called
"AWS Libfabric" and is now called "Libfabric").

Sources, each value looked up there in 2026:
    NCCL 2.31, docs/userguide/source/env.rst, and the defaults in its src/transport/net_ib
    torch 2.13, torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp
    AWS, github.com/aws/aws-ofi-nccl, doc/efa-env-var.md and src/platform-aws.cpp
    HPE, github.com/HewlettPackard/shs-ccl-docs, ccl_env.sh and README.md (Slingshot)
    Isambard-AI, docs.isambard.ac.uk/user-documentation/guides/nccl (Slingshot)
    Sigma2 Olivia, documentation.sigma2.no/hpc_machines/olivia/nccl.html (Slingshot)
"""

from megatron_jobs.config.site import Fabric

Environment = dict[str, tuple[str, str]]
"""Variable -> (value, reason)."""

NCCL: Environment = {
    "NCCL_DEBUG": ("WARN", "NCCL says nothing of its errors by default"),
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": (
        "3",
        "a rank whose collective failed ends at once; torch's default, whatever the site sets",
    ),
    "TORCH_NCCL_TRACE_BUFFER_SIZE": (
        "2000",
        "the last 2000 collectives of each rank can be shown after a stall",
    ),
    "TORCH_NCCL_DUMP_ON_TIMEOUT": (
        "1",
        "they are written when a rank waited too long",
    ),
}
"""Whatever the network."""

VERBS_OR_NOTHING: Environment = {
    "NCCL_NET": (
        "IB",
        "without adapters an error, and not TCP in silence; another plug-in: give its name",
    ),
}
"""Only between nodes: on one node NCCL may well see no adapter."""

PATIENCE: Environment = {
    "NCCL_IB_TIMEOUT": (
        "22",
        "each of 7 tries waits 17 s (4.1 us x 2^22), not 4: a link may come back",
    ),
}

ROCE: Environment = PATIENCE | {
    "NCCL_IB_QPS_PER_CONNECTION": (
        "4",
        "switches choose a way by the flow: several queue pairs spread over the links",
    ),
    "NCCL_IB_TC": (
        "106",
        "DSCP 26, the class without loss in the usual setup of RoCE; by default it would be 0",
    ),
}

EFA: Environment = {
    "FI_EFA_USE_HUGE_PAGE": ("0", "with huge pages the forks of data loaders run out of memory"),
    "NCCL_SOCKET_IFNAME": ("^docker,lo,veth", "not the bridges that containers leave on the nodes"),
}

SLINGSHOT: Environment = {
    "NCCL_SOCKET_IFNAME": ("hsn", "the start goes over the fast network, not the service one"),
    "GLOO_SOCKET_IFNAME": ("hsn0", "gloo would take the address of the host's name"),
    "NCCL_CROSS_NIC": ("1", "all adapters reach all others: rings may change between them"),
    "NCCL_NET_GDR_LEVEL": ("PHB", "adapters read the memory of GPUs of their own NUMA node"),
    "FI_MR_CACHE_MONITOR": ("userfaultfd", "the default monitor can deadlock with CUDA"),
    "FI_CXI_DISABLE_HOST_REGISTER": ("1", "registering host memory can deadlock with CUDA"),
    "FI_CXI_DEFAULT_CQ_SIZE": ("131072", "large jobs overrun the default completion queue"),
    "FI_CXI_DEFAULT_TX_SIZE": ("2048", "more sends are under way than the default holds"),
    "FI_CXI_RDZV_PROTO": ("alt_read", "messages go on without the CPU; needs srun's --network"),
    "FI_CXI_RDZV_THRESHOLD": ("0", "alt_read for every size"),
    "FI_CXI_RDZV_GET_MIN": ("0", "alt_read for every size"),
    "FI_CXI_RDZV_EAGER_SIZE": ("0", "no part of a message is copied on arrival"),
    "FI_CXI_RX_MATCH_MODE": ("hybrid", "matching goes on in software when the adapter is full"),
}

BLOCKS: dict[Fabric, Environment] = {
    "": {},
    "infiniband-hdr": PATIENCE,
    "infiniband-ndr": PATIENCE,  # NCCL asks the adapter for its speed
    "roce": ROCE,
    "efa": EFA,
    "slingshot": SLINGSHOT,
}


def fabric_environment(fabric: Fabric, *, nodes: int = 1, gpus: int = 1) -> Environment:
    """What a job's ranks need in their environment; nothing for a job without GPUs."""
    if not gpus:
        return {}
    over_verbs = nodes > 1 and fabric.startswith(("infiniband", "roce"))
    return NCCL | BLOCKS[fabric] | (VERBS_OR_NOTHING if over_verbs else {})


def fabric_srun_words(fabric: Fabric, *, gpus: int = 1) -> tuple[str, ...]:
    """What srun must be told for the network."""
    if fabric == "slingshot" and gpus:
        return ("--network=disable_rdzv_get",)  # HPE: alt_read needs it
    return ()
