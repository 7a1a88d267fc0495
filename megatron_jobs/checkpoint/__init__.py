"""Checkpoints: saved in two phases, hashed, visible whole or not at all, readable by any layout."""

from megatron_jobs.parallel.device import install

install()  # before any module of this package imports megatron
