"""However a model is cut over ranks it learns the same, and one rank learns as plain PyTorch."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.optim.schedule import learning_rate
from megatron_jobs.parallel.cures import unwrap
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.step import build_engine, evaluate_loss, train_step
from tests.batches import SEQ_LEN, VOCAB, global_batch, micro_batches
from tests.plain_models import plain_losses, plain_model
from tests.ranks import on_ranks

STEPS = 20
OPTIM = OptimConfig(lr=1e-3, min_lr=1e-4, warmup_steps=3, decay_steps=STEPS, clip=0.5)
LLAMA = ModelConfig(
    layers=4, hidden=64, heads=4, kv_heads=2, ffn=128, vocab_size=VOCAB, seq_len=SEQ_LEN
)
TIED = LLAMA.model_copy(update={"tied": True})
GPT = ModelConfig(
    layers=4,
    hidden=64,
    heads=4,
    vocab_size=VOCAB,
    seq_len=SEQ_LEN,
    position="learned",
    norm="layernorm",
    activation="gelu_tanh",
    bias=True,
    tied=True,
)
# without the balance loss, which looks at each rank's micro batches by themselves
EXPERTS = LLAMA.model_copy(update={"layers": 2, "experts": 4, "balance_loss": 0.0})
WINDOWS = LLAMA.model_copy(
    update={
        "window": 5,
        "full_layers": (2,),
        "local_rope_base": 300,
        "rope_share": 0.5,
        "rope_scaling": RopeScaling(kind="llama3", factor=4.0, original_seq_len=16),
        "activation": "geglu",
    }
)
CAPPED = WINDOWS.model_copy(
    update={"attention_softcap": 0.5, "attention_scale": 0.3, "rope_interleaved": True}
)
# with a dense layer, groups of experts, a bias for each and a block beside them
LATENT = ModelConfig(
    layers=4,
    hidden=64,
    heads=4,
    ffn=128,
    vocab_size=VOCAB,
    seq_len=SEQ_LEN,
    rope_interleaved=True,
    rope_scaling=RopeScaling(kind="yarn", factor=4.0, original_seq_len=8, mscale_all_dim=0.7),
    latent=LatentAttention(q_rank=24, kv_rank=20, nope_dim=10, rope_dim=6, value_dim=14),
    experts=8,
    experts_per_token=2,
    expert_ffn=32,
    shared_ffn=32,
    shared_gate=True,
    dense_layers=(0,),
    router=RouterConfig(
        score="sigmoid", groups=4, groups_per_token=2, bias=True, scale=2.5, fp32=True
    ),
)
QK_NORM = LLAMA.model_copy(update={"layers": 2, "qk_norm": True, "qkv_bias": True})
NORMED = LLAMA.model_copy(update={"layers": 2, "qk_norm": True, "qk_norm_all": True})
ONE_KEY = LLAMA.model_copy(update={"layers": 2, "kv_heads": 1})
FIVE = LLAMA.model_copy(update={"layers": 5})

LAYOUTS: dict[str, tuple[int, ModelConfig, Mesh]] = {
    "data 2": (2, LLAMA, Mesh()),
    "data 2, overlap": (2, LLAMA, Mesh(overlap=True)),
    "tensor 2": (2, LLAMA, Mesh(tensor=2)),
    "tensor 2, sequence": (2, LLAMA, Mesh(tensor=2, sequence_parallel=True)),
    "pipeline 2": (2, LLAMA, Mesh(pipeline=2)),
    "pipeline 2 x virtual 2": (2, LLAMA, Mesh(pipeline=2, virtual=2)),
    "context 2": (2, LLAMA, Mesh(context=2)),
    "recompute layers": (1, LLAMA, Mesh(recompute="layer")),
    "recompute attention": (1, LLAMA, Mesh(recompute="attention")),
    "tensor 2 x context 2": (4, LLAMA, Mesh(tensor=2, context=2, sequence_parallel=True)),
    "everything": (8, LLAMA, Mesh(tensor=2, pipeline=2, sequence_parallel=True, overlap=True)),
    "tensor 4 of 2 keys, norms": (4, QK_NORM, Mesh(tensor=4, sequence_parallel=True)),
    "tensor 4 of 2 keys, normed together": (4, NORMED, Mesh(tensor=4)),
    "tensor 2 of 1 key": (2, ONE_KEY, Mesh(tensor=2)),
    "pipeline 3": (3, LLAMA, Mesh(pipeline=3)),
    "pipeline of 1 and 3": (2, GPT, Mesh(pipeline=2, layers=(1, 3))),
    "5 layers, pipeline 2 x virtual 2": (2, FIVE, Mesh(pipeline=2, virtual=2)),
    "tied, pipeline 2": (2, TIED, Mesh(pipeline=2)),
    "gpt, tensor 2 x pipeline 2": (4, GPT, Mesh(tensor=2, pipeline=2)),
    "qk norm, tensor 2": (2, QK_NORM, Mesh(tensor=2, sequence_parallel=True)),
    "windows, pipeline 3": (3, WINDOWS, Mesh(pipeline=3)),
    "windows, context 2": (2, WINDOWS, Mesh(context=2)),
    "capped, recompute attention": (1, CAPPED, Mesh(recompute="attention")),
    "capped, tensor 2 x context 2": (4, CAPPED, Mesh(tensor=2, context=2, sequence_parallel=True)),
    "experts 2": (2, EXPERTS, Mesh(expert=2)),
    "experts 2 x tensor 2": (4, EXPERTS, Mesh(expert=2, tensor=2, sequence_parallel=True)),
    "latent, pipeline 2 x virtual 2": (2, LATENT, Mesh(pipeline=2, virtual=2)),
    "latent, pipeline 3": (3, LATENT, Mesh(pipeline=3)),
    "latent, context 2": (2, LATENT, Mesh(context=2)),
    "latent, recompute attention": (1, LATENT, Mesh(recompute="attention")),
    "latent, experts 2 x tensor 2": (
        4,
        LATENT,
        Mesh(expert=2, expert_tensor=2, tensor=2, sequence_parallel=True),
    ),
}


def train(
    model: ModelConfig, mesh: Mesh, precision: Precision = "fp32"
) -> Callable[[Rank], list[float]]:
    """What a rank does: losses and norms of all steps, then the loss of a batch not trained on."""

    def run(rank: Rank) -> list[float]:
        open_groups(mesh, seed=1)
        engine = build_engine(model, mesh, OPTIM, precision=precision, seed=3)
        steps = [train_step(engine, micro_batches(n), n) for n in range(1, STEPS + 1)]
        assert not any(step.skipped for step in steps)
        held_out = evaluate_loss(engine, micro_batches(99))
        return [step.loss for step in steps] + [step.grad_norm for step in steps] + [held_out.mean]

    return run


@functools.cache
def one_rank(model_json: str) -> list[float]:
    """The numbers of one rank."""
    return list(on_ranks(1, train(ModelConfig.model_validate_json(model_json), Mesh()))[0])


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_learns_as_one_rank_does(name: str) -> None:
    world, model, mesh = LAYOUTS[name]
    expected = one_rank(model.model_dump_json())
    for found in on_ranks(world, train(model, mesh)):
        assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", [LLAMA, TIED, GPT], ids=["llama", "tied", "gpt"])
def test_one_rank_learns_as_plain_pytorch_does(model: ModelConfig) -> None:
    plain = plain_model(model, on_ranks(1, lambda rank: first_weights(model))[0])
    assert_close(one_rank(model.model_dump_json()), train_plainly(plain), rtol=0, atol=2e-5)


def first_weights(model: ModelConfig) -> dict[str, Any]:
    open_groups(Mesh(), seed=1)
    engine = build_engine(model, Mesh(), OPTIM, precision="fp32", seed=3)
    return dict(unwrap(engine.chunks[0]).named_parameters())


def train_plainly(plain: torch.nn.Module) -> list[float]:
    """The same steps with torch's own AdamW and clipping, the whole batch at once."""
    parameters = list(plain.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": OPTIM.weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, betas=(OPTIM.beta1, OPTIM.beta2), eps=OPTIM.eps)
    losses, norms = [], []
    for step in range(1, STEPS + 1):
        loss = mean_loss(plain, step)
        adamw.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, OPTIM.clip).item())
        for group in adamw.param_groups:
            group["lr"] = learning_rate(OPTIM, step)
        adamw.step()
        losses.append(loss.item())
    return [*losses, *norms, mean_loss(plain, 99).item()]


def mean_loss(plain: torch.nn.Module, step: int) -> torch.Tensor:
    batch = global_batch(step, 4)
    mask = batch["loss_mask"]
    return (plain_losses(plain, batch) * mask).sum() / mask.sum()


def test_bf16_learns_nearly_as_fp32() -> None:
    mesh = Mesh(tensor=2, sequence_parallel=True)
    found = on_ranks(2, train(LLAMA, mesh, "bf16"))[0]
    expected = one_rank(LLAMA.model_dump_json())
    assert found[STEPS - 1] < found[0] - 0.5
    assert_close(found, expected, rtol=0.02, atol=0.02)
