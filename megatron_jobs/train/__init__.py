"""Training: one step, the loop around it, what it writes down."""

from megatron_jobs.parallel.device import install

install()  # before any module of this package imports megatron
