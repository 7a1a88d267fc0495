"""How many sequences one optimizer step sees."""

from collections.abc import Iterator

from megatron_jobs.config.settings import Problem, Settings


class BatchConfig(Settings):
    """Sizes of a batch, counted in sequences."""

    global_size: int = 512
    """Sequences per optimizer step, summed over the data-parallel ranks."""
    micro_size: int = 1
    """Sequences per forward pass on one data-parallel rank."""

    def problems(self) -> Iterator[Problem]:
        """Sizes below one."""
        for name in ("global_size", "micro_size"):
            if getattr(self, name) < 1:
                yield name, f"{getattr(self, name)} is below 1"
