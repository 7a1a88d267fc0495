"""AdamW on megatron-core's distributed optimizer, and the learning rate as a function of step."""

from megatron_jobs.parallel.device import install

install()  # before any module of this package imports megatron
