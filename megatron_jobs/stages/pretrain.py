"""Train a model from its first weights, or on from a checkpoint: its last, or another job's."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_jobs.config.batch import BatchConfig
from megatron_jobs.config.documents import DocumentResets
from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.config.kinds import only_decoders
from megatron_jobs.config.loop import LoopConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.convert.proof_memory import proof_bytes
from megatron_jobs.errors import DataError
from megatron_jobs.runtime.heartbeat import rest
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.runtime.saved_steps import STEP_FOLDER, read_saved_step
from megatron_jobs.runtime.stop import deferred_stop
from megatron_jobs.stages import Facts

if TYPE_CHECKING:
    from megatron_jobs.train.step import Engine

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
    "kernels",
)
PRELOAD = ("megatron_jobs.train.loop",)
MEET = ".meet"
SAVES = True


class Config(LoopConfig, DocumentResets):
    """Which samples train which model, how it is laid out, and for how long."""

    index: InputPath
    """The folder that the index stage wrote. Another one than before goes with `load`: built with
    `earlier`, it goes on where the samples of the one before end."""
    load: InputPath | None = None
    """Checkpoint of another job to go on from, on any mesh: weights, optimizer, step, learning rate
    and samples. One step-XXXXXXXX folder, or the folder of several, whose latest is taken; once
    the job has checkpoints of its own, those come first. `steps` counts those made before too. The
    learning rate is that of this job's `optim` at its step: where `steps` differ, give decay_steps
    to both jobs."""
    finetune: bool = False
    """Take the weights of `load` alone: steps, optimizer, schedule and samples begin anew
    (Megatron-LM's --finetune)."""
    model: ModelConfig
    mesh: Mesh = Mesh()
    optim: OptimConfig = OptimConfig()
    batch: BatchConfig = BatchConfig()
    precision: Precision = "bf16"
    kernels: KernelsConfig = KernelsConfig()
    mask_eod: bool = False
    """Train on no target that follows an end of document: the first token of the next one, which
    nothing before it foretells (Megatron-LM's --eod-mask-loss)."""
    seed: int = 1234
    """Of the first weights and of dropout."""

    def problems(self) -> Iterator[Problem]:
        """Weights of nowhere."""
        yield from super().problems()
        if self.finetune and self.load is None:
            yield "finetune", "has no weights to begin with; name a checkpoint in `load`"


def check(config: Config, resources: Resources) -> Iterator[Problem]:
    """What keeps this model and batch from being cut over these ranks."""
    world, batch = resources.world, config.batch
    if wrong := only_decoders(config.model.kind, "pretrain trains"):
        yield "model.kind", wrong
    for setting, sentence in config.mesh.rank_problems(world):
        yield f"mesh.{setting}", sentence
    for setting, sentence in config.model.mesh_problems(config.mesh):
        yield f"model.{setting}", sentence
    for setting, sentence in config.mesh.batch_problems(batch.global_size, batch.micro_size, world):
        yield f"batch.{setting}", sentence


def promise(config: Config, inputs: Mapping[str, Facts]) -> Facts:
    """The sizes of the model, its steps, and how many samples it will have taken of its index."""
    behind = _index_step(config, inputs)
    size = config.batch.global_size
    return {
        "vocab_size": config.model.vocab_size,
        "seq_len": config.model.seq_len,
        "parameters": config.model.parameters(),
        "proof_bytes": proof_bytes(config.model),
        "steps": config.steps,
        "global_size": size,
        "index_samples": None if behind is None else (config.steps - behind) * size,
    }


def foresee(config: Config, inputs: Mapping[str, Facts]) -> Iterator[Problem]:
    """Where index and checkpoint do not fit, those that other jobs will make and those there are.

    The sizes of an index that is there are looked at by `check_index`, when the job starts.
    """
    from megatron_jobs.data.start import fresh_start_problems

    index, model = _index_facts(config, inputs), config.model
    vocab, seq_len, held = (index.get(name) for name in ("vocab_size", "seq_len", "train_samples"))
    if vocab and vocab > model.vocab_size:
        yield "model.vocab_size", f"{model.vocab_size} is below the tokenizer's {vocab}"
    if seq_len and seq_len > model.seq_len:
        yield "model.seq_len", f"{model.seq_len} is below the index's seq_len {seq_len}"
    behind = _index_step(config, inputs) or 0
    wanted = (config.steps - behind) * config.batch.global_size
    if held and held < wanted:
        steps = f"({config.steps} - {behind})" if behind else f"{config.steps}"
        text = f"{steps} x batch.global_size {config.batch.global_size} = {wanted} samples"
        yield "steps", f"{text}; the index is to hold {held}: give it train_samples: {wanted}"
    if "load" in inputs:
        yield from _promised_load_problems(config, inputs["load"], index)
    elif config.load is None:
        yield from fresh_start_problems(index.get("earlier_samples") or 0)
    elif "index" not in inputs:
        yield from _load_problems(config)


def _index_facts(config: Config, inputs: Mapping[str, Facts]) -> Facts:
    """What its maker promises of the index; of one that is there, where it begins."""
    if "index" in inputs:
        return inputs["index"]
    facts = _read_index(config)
    return {"earlier_samples": (facts.get("earlier") or {}).get("samples", 0)} if facts else {}


def _read_index(config: Config) -> dict[str, Any]:
    """index.json; nothing where it cannot be read, which is told of when the job starts."""
    from megatron_jobs.data.sample_index import read_facts

    try:
        return read_facts(config.index)
    except (DataError, OSError):
        return {}


def _index_step(config: Config, inputs: Mapping[str, Facts]) -> int | None:
    """The step behind which the index begins, where the plan tells it."""
    if config.load is None or config.finetune:
        return 0
    earlier = _index_facts(config, inputs).get("earlier_samples")
    return _loaded_step(config, inputs.get("load", {})) if earlier else None


def _loaded_step(config: Config, maker: Facts) -> int | None:
    """The step of the checkpoint to go on from, which another job makes."""
    named = STEP_FOLDER.fullmatch(config.load.name) if config.load else None
    return int(named[1]) if named else maker.get("steps")


def _promised_load_problems(config: Config, maker: Facts, index: Facts) -> Iterator[Problem]:
    """Where a checkpoint that another job of the plan will write does not fit."""
    vocab, size = maker["vocab_size"], maker["global_size"]
    if vocab != config.model.vocab_size:
        yield "model.vocab_size", f"{config.model.vocab_size} is not that of `load`, {vocab}"
    if config.finetune:
        return
    step = _loaded_step(config, maker)
    if step is not None and config.steps <= step:
        yield "steps", f"{config.steps} is not beyond step {step}, of `load`"
    if size != config.batch.global_size:
        yield "batch.global_size", f"{config.batch.global_size} is not that of `load`, {size}"
    earlier, whole = index.get("earlier_samples"), maker["index_samples"]
    if not earlier or whole is None or step is None:
        return
    taken = whole - ((maker["steps"] or 0) - step) * (size or 0)
    if earlier != taken:
        found = f"goes on behind {earlier} samples of the index before, `load` will have taken"
        yield "index", f"{found} {taken}; build it with earlier_samples: {taken}"


def _load_problems(config: Config) -> Iterator[Problem]:
    """Where a checkpoint that is there does not fit, nor the index that is there."""
    from megatron_jobs.data.start import start_problems

    facts = _read_index(config)
    if not facts or config.load is None or not config.load.exists():
        return
    try:
        saved = read_saved_step(config.load)
    except DataError as error:
        yield "load", str(error)
        return
    steps, record = config.steps, _record(config, facts)
    yield from start_problems(saved, record, facts, steps=steps, finetune=config.finetune)


def _record(config: Config, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What every checkpoint notes of an index that index.json describes, and of the settings."""
    return {
        "model": config.model.model_dump(mode="json"),
        "precision": config.precision,
        "tokenizer_hash": facts["tokenizer_hash"],
        "samples_per_step": config.batch.global_size,
        "seq_len": facts["seq_len"],
    }


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
        *_stages(mesh, model.layers),
        ("parameters", f"{model.parameters():,}"),
        ("tokens a step", f"{tokens:,}; in all {tokens * config.steps:,}"),
        ("FLOPs in all", f"{model.flops_per_token() * tokens * config.steps:.2e}"),
        ("memory a rank", f"about {memory / 2**20:,.0f} MiB"),
    ]


def _stages(mesh: Mesh, layers: int) -> list[tuple[str, str]]:
    """Which layers each pipeline stage has, where they are not all alike."""
    counts = mesh.stage_layers(layers)
    alike = len(set(counts)) == 1
    return [] if alike else [("layers of stages", " + ".join(map(str, counts)))]


@deferred_stop()  # a rank that left while they connect would be missed by the others
def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Train to the last step; the numbers are those of the last one."""
    from megatron_jobs.data.start import index_note
    from megatron_jobs.parallel.groups import close, connect, open_groups
    from megatron_jobs.train.feed import check_index, check_samples, document_ends, open_feed
    from megatron_jobs.train.loop import train
    from megatron_jobs.train.plot import plot_losses
    from megatron_jobs.train.start import Load, agree_on_start

    samples = 0 if config.load else config.steps * config.batch.global_size
    index = check_index(config.index, config.model, samples=samples, mesh=config.mesh)
    ends = document_ends(index, config, mask_eod=config.mask_eod)
    connect(rank, folder / MEET)
    record = _record(config, index.facts)
    start, load = agree_on_start(
        folder,
        Load(config.load, config.finetune) if config.load else None,
        record,
        index.facts,
        steps=config.steps,
    )
    left = (config.steps - start.index_step) * config.batch.global_size
    check_samples(index, left, index_step=start.index_step)
    open_groups(config.mesh, config.seed)
    engine = _build_engine(config)
    record |= {"index": index_note(index.facts, start.index_step)}
    feed = open_feed(index, config.batch, ends=ends, index_step=start.index_step)
    numbers = train(config, engine, feed, rank=rank, folder=folder, record=record, load=load)
    rest("end")
    close()
    if rank.leads and not plot_losses(folder):
        print("no plot of the losses: matplotlib is not installed (pip install matplotlib)")
    return numbers | {"parameters": config.model.parameters()}


def _build_engine(config: Config) -> "Engine":
    """This rank's model and optimizer, of the kernels that the settings choose."""
    from megatron_jobs.kernels.dispatch import choose
    from megatron_jobs.train.step import build_engine

    choose(config.kernels)
    return build_engine(
        config.model,
        config.mesh,
        config.optim.over(config.steps),
        precision=config.precision,
        seed=config.seed,
    )
