"""Architectures by configuration, built from megatron-core modules through our own layer spec."""

from megatron_jobs.parallel.device import install

install()  # before any module of this package imports megatron
