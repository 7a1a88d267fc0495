"""The seam to megatron-core: devices, process groups, the order of ranks, cures for its defects."""

from megatron_jobs.parallel.device import install

install()  # before any module of this package imports megatron
