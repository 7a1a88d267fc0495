"""Train, convert and evaluate language models; every stage a job, here or on Slurm."""

__version__ = "0.1.0"
