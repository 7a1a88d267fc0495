"""When a training run logs, evaluates, saves and ends."""

from collections.abc import Iterator

from megatron_jobs.config.settings import Problem, Settings


class LoopConfig(Settings):
    """When to log, evaluate, save and end; all in optimizer steps."""

    steps: int
    """Optimizer steps of the whole run."""
    log_every: int = 1
    """0: only the last step."""
    evaluate_every: int = 100
    """0: only after the last step."""
    evaluate_batches: int = 4
    """Global batches of the validation split that are looked at; 0: no validation."""
    save_every: int = 100
    """0: only after the last step, and when asked to stop."""
    keep: int = 2
    """Checkpoints that stay; 0: all."""
    max_skips: int = 30
    """Steps in a row that the guard may refuse before the run is given up; fp16 needs some twenty
    to find its loss scale."""

    def problems(self) -> Iterator[Problem]:
        """Counts below zero, and a run without steps."""
        for name in ("steps", "max_skips"):
            if getattr(self, name) < 1:
                yield name, f"{getattr(self, name)} is below 1"
        for name in ("log_every", "evaluate_every", "evaluate_batches", "save_every", "keep"):
            if getattr(self, name) < 0:
                yield name, f"{getattr(self, name)} is below 0; 0 leaves it out"
