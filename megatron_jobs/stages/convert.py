"""Any checkpoint to any other, streamed from mapped files, read back, its logits compared."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Problem
from megatron_jobs.convert.settings import ConversionSettings as Config
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import Facts

OUTPUTS = ("model", "comparison.json")
RESOURCES = Resources(cpus=2, hours=4)
LAYOUT = ("threads",)
__all__ = ["OUTPUTS", "RESOURCES", "Config", "run"]
GIB = 2**30
COMPARISON = "comparison.json"


def foresee(config: Config, inputs: Mapping[str, Facts]) -> Iterator[Problem]:
    """What the headers of a source say against it, where it is there and no job makes it anew."""
    from megatron_jobs.convert.facts import source_problems

    if "source" not in inputs and config.source.exists():
        yield from source_problems(config)


def promise(config: Config, inputs: Mapping[str, Facts]) -> Facts:
    """Sizes of the model, those of the source."""
    from megatron_jobs.convert.facts import facts_of

    facts = facts_of(config, inputs)
    return facts.promised if facts else dict(inputs.get("source", {}))


def memory_gb(config: Config, inputs: Mapping[str, Facts]) -> float:
    """GiB that a conversion takes at most, the proof by logits included."""
    from megatron_jobs.convert.facts import facts_of

    facts = facts_of(config, inputs)
    return math.ceil(facts.peak_bytes / GIB * 10) / 10 if facts else 0


def describe(config: Config, resources: Resources) -> list[tuple[str, str]]:
    """Sizes and memory, for `mj show`; of a source that is there."""
    from megatron_jobs.convert.facts import facts_of

    facts = facts_of(config, {})
    return facts.lines() if facts else []


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Convert on the leader; what was compared goes to comparison.json, its sums to the receipt."""
    from megatron_jobs.runtime.files import write_json
    from megatron_jobs.runtime.progress import Progress

    if not rank.leads:
        return {}

    def tell(done: int, total: int) -> None:
        progress.total = total
        progress.update(done)

    progress = Progress(folder, total=0, unit="bytes")
    found = convert(config, folder / "model", tell, note=folder / COMPARISON)
    if config.to == "onnx":
        write_json(folder / COMPARISON, found)
    return {name: value for name, value in found.items() if isinstance(value, (int, float))}


def convert(
    config: Config,
    out: Path,
    tell: Callable[[int, int], None] = lambda done, total: None,
    *,
    note: Path | None = None,
) -> dict[str, Any]:
    """Write folder `out`, which appears when all is written and proved; returns what was compared.

    Args:
        tell: called with the bytes that are written, and those that will be.
        note: file for what was compared, there before `out` is. An `out` that it speaks of is left
            as it is, and any other is removed; None: `out` must not be there.
    A run that was killed is gone on with: its finished files are kept.
    Raises: UserError for what cannot be converted, a full disk included; DataError when the source
        does not tell the truth, changes or is cut short while it is read, or when what was written
        is not the same model.
    """
    from megatron_jobs.convert.mapped import told_faults

    with told_faults():
        if config.to == "onnx":
            return _to_onnx(config, out, anew=note is not None)
        return _convert(config, out, tell, note)


def _convert(
    config: Config, out: Path, tell: Callable[[int, int], None], note: Path | None
) -> dict[str, Any]:
    from megatron_jobs.convert.conversion import Conversion
    from megatron_jobs.convert.noted import Noted

    _check_place(config.source, out, free=note is None)
    conversion = Conversion.open(config)
    noted = Noted(note, conversion.key(), config.proof) if note else None
    if noted and (found := noted.result(out)):
        return found
    compared: dict[str, Any] = {}
    prompts: list[Any] = []
    if config.proof == "logits":
        from megatron_jobs.checkpoint.conversion_proof import prompts_of

        prompts = prompts_of(conversion)

    def prove(part: Path) -> None:
        compared.update(conversion.read_back(part))
        if config.proof == "logits":
            from megatron_jobs.checkpoint.conversion_proof import prove_conversion

            compared.update(prove_conversion(conversion, prompts, part, out))
        if noted:
            noted.write(part, conversion.sizes() | compared)

    total = conversion.bytes
    conversion.write(out, threads=config.threads, check=prove, tell=lambda done: tell(done, total))
    return conversion.sizes() | compared


def _check_place(source: Path, out: Path, *, free: bool) -> None:
    """UserError for a result within its source, which would change while it is read; with `free`
    for one that is there already, if only as a link that leads nowhere."""
    if free and os.path.lexists(out):
        raise UserError(f"{out}: is there already; remove it, or name another folder")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise UserError(f"{out}: lies in the source {source}; name a folder outside of it")


def _to_onnx(config: Config, out: Path, *, anew: bool) -> dict[str, Any]:
    """A graph of a Hugging Face folder, asked by onnxruntime before it appears."""
    from megatron_jobs.checkpoint.onnx_out import write_onnx
    from megatron_jobs.convert.facts import source_problems
    from megatron_jobs.runtime.files import remove

    if anew:
        remove(out)
    for setting, sentence in source_problems(config):
        raise UserError(f"{setting}: {sentence}")
    error = write_onnx(config.source, out)
    return {"from": "hugging_face", "to": "onnx", "max_logit_difference_share": error}
