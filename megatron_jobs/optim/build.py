"""megatron-core's distributed optimizer: each data rank updates its share of the parameters."""

from typing import Any

from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32

from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.optim.schedule import learning_rate
from megatron_jobs.parallel.cures import install_cures


def build_optimizer(config: OptimConfig, chunks: list[Any], precision: Precision = "fp32") -> Any:
    """AdamW over the parameters of wrapped chunks (`parallel.gradients.wrap`).

    One-dimensional parameters (norms, biases) are in a group of their own, without weight decay.
    """
    install_cures()
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
    return get_megatron_optimizer(settings, chunks)


def set_rates(optimizer: Any, config: OptimConfig, step: int) -> float:
    """Set the learning rate and weight decay of every group for `step`; returns the rate."""
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_mult", 1.0)
        group["weight_decay"] = config.weight_decay * group.get("wd_mult", 1.0)
    return rate


def clip_gradients(optimizer: Any, config: OptimConfig, norm: float) -> None:
    """Scale all gradients by one factor, so that `norm`, theirs, is `config.clip` at most."""
    if config.clip == 0:
        return
    for part in optimizer.chained_optimizers:
        if not getattr(part, "is_stub_optimizer", False) and part.get_parameters():
            clip_grad_by_total_norm_fp32(part.get_parameters(), config.clip, norm)
