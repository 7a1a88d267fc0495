"""Loss, perplexity and bits per byte of a checkpoint on a split that it was not trained on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from megatron_jobs.config.batch import BatchConfig
from megatron_jobs.config.documents import DocumentResets
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.precision import Precision
from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import Facts
from megatron_jobs.stages.decoders import check_decoder, decoder_problems

if TYPE_CHECKING:
    from megatron_jobs.data.sample_index import SampleIndex

OUTPUTS = ("evaluation.json",)
RESOURCES = Resources()
LAYOUT = ("mesh", "batch")
PRELOAD = ("megatron_jobs.train.loop",)
WHAT = "evaluate scores"


class Config(DocumentResets):
    """What is evaluated, on what, and how the ranks share it; resets as the model was trained."""

    checkpoint: InputPath
    """One checkpoint, or a folder whose latest is taken."""
    index: InputPath
    """The folder that the index stage wrote."""
    tokenizer: InputPath
    """Folder with the tokenizer.json that made the tokens."""
    split: Literal["valid", "test"] = "test"
    mesh: Mesh = Mesh()
    batch: BatchConfig = BatchConfig(global_size=16, micro_size=4)
    precision: Precision | None = None
    """Number format of weights and activations; null for that of the checkpoint."""


def check(config: Config, resources: Resources) -> Iterator[Problem]:
    """What does not fit these ranks."""
    world, batch = resources.world, config.batch
    for setting, sentence in config.mesh.rank_problems(world):
        yield f"mesh.{setting}", sentence
    for setting, sentence in config.mesh.batch_problems(batch.global_size, batch.micro_size, world):
        yield f"batch.{setting}", sentence


def foresee(config: Config, inputs: Mapping[str, Facts]) -> Iterator[Problem]:
    """A checkpoint that is there and holds no decoder."""
    yield from decoder_problems(config.checkpoint, WHAT)


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """The numbers of the split, beside those of a unigram model of the train split."""
    import math

    from megatron_jobs.checkpoint.model import model_of, precision_of
    from megatron_jobs.checkpoint.tokenizer import check_tokenizer_of
    from megatron_jobs.parallel.groups import close, connect, open_groups
    from megatron_jobs.runtime.files import write_json
    from megatron_jobs.text.encoder import check_tokenizer
    from megatron_jobs.train.feed import check_index, document_ends
    from megatron_jobs.train.score import split_loss

    check_decoder(config.checkpoint, WHAT)
    model = model_of(config.checkpoint)
    for setting, sentence in model.mesh_problems(config.mesh):
        raise UserError(f"mesh: model.{setting}: {sentence}")
    index = check_index(config.index, model, samples=0, mesh=config.mesh)
    check_tokenizer(config.tokenizer, index.tokenizer_hash, str(config.index))
    check_tokenizer_of(config.checkpoint, config.tokenizer)
    connect(rank, folder / ".meet")
    open_groups(config.mesh, 0)
    precision = config.precision or precision_of(config.checkpoint)
    loss = split_loss(
        config.checkpoint, index, config.split, mesh=config.mesh, batch=config.batch,
        precision=precision, ends=document_ends(index, config),
    )  # fmt: skip
    close()
    if not rank.leads:
        return {}
    text_bytes, unigram = _text_numbers(config, index)
    numbers = {
        "tokens": loss.tokens,
        "loss": loss.mean,
        "perplexity": math.exp(loss.mean),
        "bits_per_byte": loss.total / math.log(2) / text_bytes,
        "unigram_perplexity": math.exp(unigram),
    }
    write_json(folder / "evaluation.json", {"split": config.split, **numbers})
    return numbers


def _text_numbers(config: Config, index: "SampleIndex") -> tuple[int, float]:
    """(bytes of text of the split's targets, loss of a unigram model of the train split)."""
    import numpy as np

    from megatron_jobs.data.unigram import counted_targets, token_counts, unigram_loss
    from megatron_jobs.text.encoder import load_encoder
    from megatron_jobs.text.token_bytes import token_bytes

    vocab = index.vocab_size
    targets = counted_targets(index.split(config.split))
    counts = token_counts(index.split("train"), vocab)
    lengths = token_bytes(load_encoder(config.tokenizer).tokenizer, vocab)
    return int(lengths[targets].sum()), unigram_loss(counts, targets.astype(np.int64))
