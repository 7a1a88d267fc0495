"""What a job asks of the machine it runs on."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from megatron_jobs.config.settings import Settings


class Resources(Settings):
    """Nodes, processes and time of one job. The same numbers serve this machine and Slurm."""

    nodes: PositiveInt = 1
    """Machines. On this machine the ranks of all nodes run side by side."""
    ranks: PositiveInt = 1
    """Processes on each node; on GPU nodes one a GPU."""
    cpus: PositiveInt = 1
    """CPU cores of each rank."""
    gpus: NonNegativeInt = 0
    """GPUs of each node."""
    memory_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """Memory of each node in GiB; 0 leaves it to the stage, where that knows what it needs, or to
    the cluster's default."""
    spare_nodes: NonNegativeInt = 0
    """More nodes to ask Slurm for: they take the place of those that fail the preflight."""
    tasks: PositiveInt = 1
    """Parts that the work is cut into, each a task of a Slurm array with ranks of its own."""
    tasks_at_once: NonNegativeInt = 0
    """How many tasks may run at one time; 0: as many as there is room for."""
    hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1
    """Time limit in hours."""

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.nodes * self.ranks
