"""Where a training begins that goes on from a checkpoint of another one.

A run counts its steps on over all its jobs; an index counts its train samples from 0. What joins
both is the step behind which the index begins: sample 0 is the first one of the step after it. Each
checkpoint notes that step, and which index it was trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.settings import Problem
from megatron_jobs.data.sample_index import index_identity
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.saved_steps import SavedStep

SIZES = (
    *("layers", "hidden", "heads", "vocab_size", "position", "experts", "tied"),
    *("bias", "qkv_bias", "qk_norm", "norm", "activation", "kind", "norm_place", "norm_offset"),
    *("parallel_residual", "qk_norm_all", "output_bias", "rope_share", "rope_interleaved"),
    *("latent", "expert_ffn", "shared_ffn", "shared_gate", "dense_layers"),
)
"""Settings of a model that decide which weights there are and what they mean."""
MEANINGS = (
    *("rope_base", "rope_scaling", "local_rope_base", "norm_eps", "experts_per_token", "router"),
    *("window", "full_layers", "attention_scale", "attention_softcap", "logit_softcap"),
    "embedding_scale",
)
"""Those that its weights could learn to live with anew, after `finetune`."""


@dataclass(frozen=True)
class Start:
    """Where a job begins, in steps of the run."""

    step: int = 0
    """The last one that was made before."""
    index_step: int = 0
    """The one behind which the job's index begins."""


def index_note(facts: dict[str, Any], index_step: int) -> dict[str, Any]:
    """What a checkpoint notes of the index that it was trained on, of which index.json is `facts`.

    Args:
        index_step: of `Start`.
    """
    return {"identity": index_identity(facts), "step": index_step}


def noted_step(record: dict[str, Any]) -> int:
    """The step behind which the index of a checkpoint began; 0 where it notes none."""
    return int(record.get("index", {}).get("step", 0))


def start_of(saved: SavedStep, facts: dict[str, Any], *, finetune: bool) -> Start:
    """Where a training on the index of `facts` begins that goes on from a checkpoint.

    Args:
        finetune: whether steps and samples count from 0.
    """
    if finetune:
        return Start()
    if facts.get("earlier") and not _is_same_index(saved, facts):
        return Start(saved.step, saved.step)
    return Start(saved.step, noted_step(saved.record))


def start_problems(
    saved: SavedStep, record: dict[str, Any], facts: dict[str, Any], *, steps: int, finetune: bool
) -> Iterator[Problem]:
    """What keeps a training from going on from a checkpoint, by setting of the pretrain stage.

    Args:
        record: what the training is going to note in its own checkpoints.
        facts: index.json of its index.
        steps: its last step.
        finetune: whether it takes the weights alone.
    """
    where, before = saved.folder, saved.record
    tokenizers = before.get("tokenizer_hash"), record["tokenizer_hash"]
    if None not in tokenizers and len(set(tokenizers)) > 1:
        sentence = f"{where} was trained on tokens of another tokenizer than this index holds"
        yield "load", f"{sentence}; tokenize with its one"
    yield from _model_problems(saved, record["model"], finetune=finetune)
    if finetune:
        return
    if "samples_per_step" not in before:
        yield "load", f"{where} holds weights alone; finetune: true begins with them"
        return
    for setting, name in _KEPT.items():
        if before[name] != record[name]:
            label = f"{name} " if setting == "index" else ""
            yield setting, f"{label}{record[name]}, but {where} was trained with {before[name]}"
    if steps <= saved.step:
        yield "steps", f"{steps} is not beyond step {saved.step}, of {where}"
    if before["samples_per_step"] == record["samples_per_step"]:
        yield from _index_problems(saved, facts)


def check_fresh_start(facts: dict[str, Any]) -> None:
    """Raise UserError when an index goes on behind samples that a run has not taken."""
    for setting, sentence in fresh_start_problems((facts.get("earlier") or {}).get("samples", 0)):
        raise UserError(f"{setting}: {sentence}")


def fresh_start_problems(earlier_samples: int) -> Iterator[Problem]:
    """What keeps a training from its first step from using an index with so many before it."""
    if earlier_samples:
        found = f"it goes on behind {earlier_samples} samples of an earlier one, this run behind 0"
        yield "index", f"{found}; name the run's checkpoint in `load`, or build it without earlier"


_KEPT = {"batch.global_size": "samples_per_step", "index": "seq_len", "precision": "precision"}
"""Setting -> note of what has to stay as it was."""


def _is_same_index(saved: SavedStep, facts: dict[str, Any]) -> bool:
    return bool(saved.record.get("index", {}).get("identity") == index_identity(facts))


def _index_problems(saved: SavedStep, facts: dict[str, Any]) -> Iterator[Problem]:
    """Where samples would come twice, or be left out."""
    where, noted = saved.folder, saved.record.get("index", {})
    taken = (saved.step - noted_step(saved.record)) * saved.record["samples_per_step"]
    earlier = facts.get("earlier")
    if _is_same_index(saved, facts) or (not noted and not earlier):
        return
    cure = f"build it with that one as `earlier` and earlier_samples: {taken}"
    if not earlier:
        found = f"begins at its first sample, but {where} has taken {taken} of another index"
        yield "index", f"{found}; {cure}, or begin anew with finetune: true"
    elif noted and earlier.get("identity", noted["identity"]) != noted["identity"]:
        yield "index", f"does not follow the index that {where} was trained on; {cure}"
    elif earlier["samples"] != taken:
        found = f"goes on behind {earlier['samples']} samples of its earlier one"
        yield "index", f"{found}, but {where} has taken {taken}; {cure}"


def _model_problems(
    saved: SavedStep, model: dict[str, Any], *, finetune: bool
) -> Iterator[Problem]:
    before, now = (_resolved(ModelConfig(**found)) for found in (saved.record["model"], model))
    names = [*SIZES, *_RESOLVED, *([] if finetune else MEANINGS)]
    if now["position"] == "learned":
        names.append("seq_len")
    for name in names:
        if before[name] != now[name]:
            yield f"model.{name}", f"{now[name]}, but {saved.folder} has {before[name]}"


_RESOLVED = ("kv_heads", "head_dim", "ffn", "pad_vocab_to")


def _resolved(model: ModelConfig) -> dict[str, Any]:
    """The settings of a model with those that follow from others filled in; rows for padding."""
    sizes = (model.groups(), model.head_size(), model.ffn_size(), model.padded_vocab())
    return model.model_dump() | dict(zip(_RESOLVED, sizes, strict=True))
