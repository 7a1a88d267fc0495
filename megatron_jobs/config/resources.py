"""What a job asks of the machine it runs on."""

from megatron_jobs.config.settings import Settings


class Resources(Settings):
    """Nodes, processes and time of one job. The same numbers serve this machine and Slurm."""

    nodes: int = 1
    """Machines. On this machine the ranks of all nodes run side by side."""
    ranks: int = 1
    """Processes on each node; on GPU nodes one a GPU."""
    cpus: int = 1
    """CPU cores of each rank."""
    gpus: int = 0
    """GPUs of each node."""
    memory_gb: float = 0
    """Memory of each node in GiB; 0 leaves it to the cluster's default."""
    hours: float = 1
    """Time limit in hours."""

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.nodes * self.ranks
