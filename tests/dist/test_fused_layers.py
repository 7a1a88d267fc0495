"""Models of fused norms and activations learn what those of plain torch learn."""

import pytest
from torch.testing import assert_close

from megatron_jobs.config.kernels import Choice, KernelsConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.train.step import build_engine, train_step
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks

SIZES = {"layers": 2, "hidden": 32, "heads": 4, "ffn": 64, "vocab_size": VOCAB, "seq_len": SEQ_LEN}
MODELS = {
    "swiglu": ModelConfig(**SIZES, qk_norm=True),
    "biased": ModelConfig(**SIZES, norm="layernorm", bias=True, activation="gelu_tanh"),
    "offset, gated, biased": ModelConfig(
        **SIZES, norm_offset=True, bias=True, norm_place="both", activation="geglu"
    ),
    "norm of the sum": ModelConfig(
        **SIZES, norm="layernorm", bias=True, norm_place="residual", activation="gelu"
    ),
}
OPTIM = OptimConfig(lr=2e-3, min_lr=1e-4, decay_steps=10, clip=0.5)
CALM = OPTIM.model_copy(update={"eps": 1e-3})
"""For bf16: with eps so large, no weight moves by the sign alone of a gradient next to none."""
LOOSE: dict[Precision, float] = {"fp32": 1e-5, "bf16": 2e-2}


def optim_of(precision: Precision) -> OptimConfig:
    return CALM if precision == "bf16" else OPTIM


def learn(ranks: int, form: Choice) -> dict[tuple[str, Precision], list[float]]:
    """Losses and norms of gradients over two steps, of each model in each precision."""
    choose(KernelsConfig(norm=form, activation=form))
    mesh = Mesh(tensor=ranks, sequence_parallel=ranks > 1)
    open_groups(mesh, seed=1)
    seen = {}
    for name, model in MODELS.items():
        for precision in LOOSE:
            engine = build_engine(model, mesh, optim_of(precision), precision=precision, seed=3)
            steps = [train_step(engine, micro_batches(n), n) for n in (1, 2)]
            seen[name, precision] = [x for step in steps for x in (step.loss, step.grad_norm)]
    return seen


@pytest.mark.parametrize("ranks", [1, 2])
def test_they_learn_alike(ranks: int) -> None:
    fused = on_ranks(ranks, lambda rank: learn(ranks, "fused"))[0]
    plain = on_ranks(ranks, lambda rank: learn(ranks, "reference"))[0]
    for (name, precision), losses in plain.items():
        loose, found = LOOSE[precision], fused[name, precision]
        assert_close(found, losses, rtol=loose, atol=loose, msg=f"{name}: {found} for {losses}")
