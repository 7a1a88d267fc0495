"""Settings of the optimizer. Imports no torch: commands read it."""

from collections.abc import Iterator
from typing import Literal

from megatron_jobs.config.settings import Problem, Settings


class OptimConfig(Settings):
    """AdamW with decoupled weight decay, clipping and a schedule of the learning rate.

    The number format is not here: it belongs to the run, since the model needs it too. Moments and
    the weights that are updated are fp32 whatever it is.
    """

    lr: float = 3e-4
    """Highest learning rate."""
    min_lr: float = 3e-5
    """Lowest learning rate after the warm-up."""
    schedule: Literal["cosine", "linear", "constant", "wsd", "inverse_sqrt"] = "cosine"
    """Shape of the fall from lr to min_lr; wsd stays at lr, then falls over cooldown_steps."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises to lr, linearly."""
    decay_steps: int | None = None
    """Step at which min_lr is reached; None: the last of the run."""
    cooldown_steps: int = 0
    """Steps of the fall at the end of wsd."""
    beta1: float = 0.9
    """Memory of the gradients' mean."""
    beta2: float = 0.95
    """Memory of the gradients' mean square."""
    eps: float = 1e-8
    """Added to the root of the mean square."""
    weight_decay: float = 0.1
    """Share of each weight taken off a step, times the learning rate; not of norms and biases."""
    clip: float = 1.0
    """Highest norm of the gradient of all parameters together; 0 lets any pass."""
    loss_scale: float = 4096.0
    """Factor of the loss at the start (fp16 only); it finds its own level."""

    def over(self, steps: int) -> "OptimConfig":
        """These settings for a run of `steps` steps: `decay_steps` filled in where it is None."""
        if self.decay_steps is not None:
            return self
        return self.model_copy(update={"decay_steps": max(steps, self.warmup_steps + 1)})

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work together."""
        for name in ("lr", "loss_scale"):
            if getattr(self, name) <= 0:
                yield name, f"{getattr(self, name)} is not positive"
        if not 0 <= self.min_lr <= self.lr:
            yield "min_lr", f"{self.min_lr} is not between 0 and lr = {self.lr}"
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                yield name, f"{getattr(self, name)} is not a share; it must be in [0, 1)"
        for name in ("eps", "weight_decay", "clip", "warmup_steps", "cooldown_steps"):
            if getattr(self, name) < 0:
                yield name, f"{getattr(self, name)} is negative"
        if self.decay_steps is not None and self.decay_steps <= self.warmup_steps:
            rule = f"after the warm-up of {self.warmup_steps} steps"
            yield "decay_steps", f"{self.decay_steps} is not {rule}"
        if self.schedule == "wsd" and self.cooldown_steps == 0:
            yield "cooldown_steps", "must be set: it is how long wsd falls"
