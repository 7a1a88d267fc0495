"""Train a model from its first weights, or on from its last checkpoint."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from megatron_jobs.config.batch import BatchConfig
from megatron_jobs.config.documents import DocumentResets
from megatron_jobs.config.loop import LoopConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.runtime.heartbeat import rest
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.runtime.stop import deferred_stop
from megatron_jobs.stages import Facts

OUTPUTS = ("checkpoints",)
RESOURCES = Resources(hours=24)
LAYOUT = (
    "mesh",
    "batch.micro_size",
    "log_every",
    "evaluate_every",
    "evaluate_batches",
    "save_every",
    "keep",
    "max_skips",
)
PRELOAD = ("megatron_jobs.train.loop",)
MEET = ".meet"
SAVES = True


class Config(LoopConfig, DocumentResets):
    """Which samples train which model, how it is laid out, and for how long."""

    index: InputPath
    """The folder that the index stage wrote."""
    model: ModelConfig
    mesh: Mesh = Mesh()
    optim: OptimConfig = OptimConfig()
    batch: BatchConfig = BatchConfig()
    precision: Precision = "bf16"
    mask_eod: bool = False
    """Train on no target that follows an end of document: the first token of the next one, which
    nothing before it foretells (Megatron-LM's --eod-mask-loss)."""
    seed: int = 1234
    """Of the first weights and of dropout."""


def check(config: Config, resources: Resources) -> Iterator[Problem]:
    """What keeps this model and batch from being cut over these ranks."""
    world, batch = resources.world, config.batch
    for setting, sentence in config.mesh.rank_problems(world):
        yield f"mesh.{setting}", sentence
    for setting, sentence in config.model.mesh_problems(config.mesh):
        yield f"model.{setting}", sentence
    for setting, sentence in config.mesh.batch_problems(batch.global_size, batch.micro_size, world):
        yield f"batch.{setting}", sentence


def promise(config: Config, inputs: Mapping[str, Facts]) -> Facts:
    """The sizes of the model."""
    return {"vocab_size": config.model.vocab_size, "seq_len": config.model.seq_len}


def foresee(config: Config, inputs: Mapping[str, Facts]) -> Iterator[Problem]:
    """Where the index that another job will build does not fit (`check_index`: a built one)."""
    index, model = inputs.get("index", {}), config.model
    vocab, seq_len, held = (index.get(name) for name in ("vocab_size", "seq_len", "train_samples"))
    if vocab and vocab > model.vocab_size:
        yield "model.vocab_size", f"{model.vocab_size} is below the tokenizer's {vocab}"
    if seq_len and seq_len > model.seq_len:
        yield "model.seq_len", f"{model.seq_len} is below the index's seq_len {seq_len}"
    wanted = config.steps * config.batch.global_size
    if held and held < wanted:
        text = f"{config.steps} x batch.global_size {config.batch.global_size} = {wanted} samples"
        yield "steps", f"{text}; the index is to hold {held}: give it train_samples: {wanted}"


def describe(config: Config, resources: Resources) -> list[tuple[str, str]]:
    """Mesh, sizes and memory, for `mj show`."""
    from megatron_jobs.estimate.memory import training_bytes

    mesh, world, model = config.mesh, resources.world, config.model
    axes = f"data {mesh.data(world)} x tensor {mesh.tensor} x pipeline {mesh.pipeline}"
    tokens = config.batch.global_size * model.seq_len
    memory = training_bytes(
        model, mesh, config.precision, micro_size=config.batch.micro_size, world=world
    )
    return [
        ("mesh", f"{axes} x context {mesh.context} = {world} ranks"),
        ("parameters", f"{model.parameters():,}"),
        ("tokens a step", f"{tokens:,}; in all {tokens * config.steps:,}"),
        ("FLOPs in all", f"{model.flops_per_token() * tokens * config.steps:.2e}"),
        ("memory a rank", f"about {memory / 2**20:,.0f} MiB"),
    ]


@deferred_stop()  # a rank that left while they connect would be missed by the others
def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Train to the last step; the numbers are those of the last one."""
    from megatron_jobs.parallel.groups import close, connect, open_groups
    from megatron_jobs.train.feed import check_index, document_ends, open_feed
    from megatron_jobs.train.loop import train
    from megatron_jobs.train.plot import plot_losses
    from megatron_jobs.train.step import build_engine

    samples = config.steps * config.batch.global_size
    index = check_index(config.index, config.model, samples=samples, mesh=config.mesh)
    ends = document_ends(index, config, mask_eod=config.mask_eod)
    connect(rank, folder / MEET)
    open_groups(config.mesh, config.seed)
    engine = build_engine(
        config.model,
        config.mesh,
        config.optim.over(config.steps),
        precision=config.precision,
        seed=config.seed,
    )
    record = {
        "model": config.model.model_dump(mode="json"),
        "precision": config.precision,
        "tokenizer_hash": index.tokenizer_hash,
        "samples_per_step": config.batch.global_size,
        "seq_len": index.seq_len,
    }
    feed = open_feed(index, config.batch, ends=ends)
    numbers = train(config, engine, feed, rank=rank, folder=folder, record=record)
    rest("end")
    close()
    if rank.leads and not plot_losses(folder):
        print("no plot of the losses: matplotlib is not installed (pip install matplotlib)")
    return numbers | {"parameters": config.model.parameters()}
