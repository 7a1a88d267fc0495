"""Architectures by configuration, built from megatron-core modules through our own layer spec."""
