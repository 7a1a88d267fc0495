"""The seam to megatron-core: devices, process groups, the order of ranks, cures for its defects."""
