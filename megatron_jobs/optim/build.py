"""megatron-core's distributed optimizer: each data rank updates its share of the parameters."""

from typing import Any

from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32

from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.optim.adam import (
    FusedAdamW,
    fused_adamw,
    install_norm,
    write_copies_in_step,
)
from megatron_jobs.optim.schedule import learning_rate
from megatron_jobs.parallel.cures import install_cures

MARGIN = 1e-6
"""Added to a norm, as torch's clip_grad_norm_ and megatron-core do."""


def build_optimizer(config: OptimConfig, chunks: list[Any], precision: Precision = "fp32") -> Any:
    """AdamW over the parameters of wrapped chunks (`parallel.gradients.wrap`).

    One-dimensional parameters (norms, biases) are in a group of their own, without weight decay.
    """
    install_cures()
    install_norm()
    settings = OptimizerConfig(
        optimizer="adam",
        lr=config.lr,
        min_lr=config.min_lr,
        weight_decay=config.weight_decay,
        adam_beta1=config.beta1,
        adam_beta2=config.beta2,
        adam_eps=config.eps,
        clip_grad=config.clip,
        params_dtype=chunks[0].module.config.params_dtype,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        initial_loss_scale=config.loss_scale,
        use_distributed_optimizer=True,
        overlap_param_gather=chunks[0].ddp_config.overlap_param_gather,
    )
    with fused_adamw():
        optimizer = get_megatron_optimizer(settings, chunks)
    for part in parts_of(optimizer):
        write_copies_in_step(part)
    return optimizer


def parts_of(optimizer: Any) -> list[Any]:
    """The distributed optimizers inside that have parameters on this rank."""
    return [
        part
        for part in optimizer.chained_optimizers
        if not getattr(part, "is_stub_optimizer", False) and part.get_parameters()
    ]


def set_rates(optimizer: Any, config: OptimConfig, step: int) -> float:
    """Set the learning rate and weight decay of every group for `step`; returns the rate."""
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_mult", 1.0)
        group["weight_decay"] = config.weight_decay * group.get("wd_mult", 1.0)
    return rate


def clip_gradients(optimizer: Any, config: OptimConfig, norm: float) -> None:
    """Let the next step scale all gradients by one factor, that makes `norm`, theirs, the limit.

    Nothing is done where it is below `config.clip`. What is not stepped in one pass is scaled now.
    """
    if config.clip == 0:
        return
    for part in parts_of(optimizer):
        inner = part.optimizer
        if isinstance(inner, FusedAdamW) and inner.is_fused():
            inner.factor = min(1.0, config.clip / (norm + MARGIN))
        else:
            clip_grad_by_total_norm_fp32(part.get_parameters(), config.clip, norm)
