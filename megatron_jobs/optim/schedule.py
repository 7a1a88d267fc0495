"""The learning rate as a function of the step: no state, nothing to save."""

import math

from megatron_jobs.config.optim import OptimConfig


def learning_rate(config: OptimConfig, step: int) -> float:
    """The rate of step `step`; the first is step 1.

    Over the warm-up it rises to lr in equal parts. Then `p` runs from 0 to 1 at `decay_steps`:

        cosine         min + (lr - min) (1 + cos(pi p)) / 2
        linear         min + (lr - min) (1 - p)
        constant       lr
        wsd            lr, and over the last cooldown_steps linearly to min
        inverse_sqrt   lr sqrt(warmup / step), never under min

    Source: cosine, Loshchilov and Hutter 2016, arXiv:1608.03983, eq. 5; wsd, Hu et al. 2024,
    arXiv:2404.06395, section 4.1; inverse_sqrt, Vaswani et al. 2017, arXiv:1706.03762, eq. 3.
    """
    assert step >= 1, f"steps are counted from 1, got {step}"
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    return config.min_lr + (config.lr - config.min_lr) * _height(config, step)


def _height(config: OptimConfig, step: int) -> float:
    """Where between min_lr (0) and lr (1) the rate stands after the warm-up."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "inverse_sqrt":
        rate = config.lr * math.sqrt(max(config.warmup_steps, 1) / step)
        span = config.lr - config.min_lr
        return max(0.0, rate - config.min_lr) / span if span else 1.0
    assert config.decay_steps is not None, "decay_steps is None; call config.over(steps) first"
    if config.schedule == "wsd":
        return min(1.0, max(0.0, (config.decay_steps - step) / config.cooldown_steps))
    part = (step - config.warmup_steps) / (config.decay_steps - config.warmup_steps)
    if config.schedule == "linear":
        return 1.0 - min(1.0, part)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, part)))
