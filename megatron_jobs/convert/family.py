"""What is known of an architecture: a table of tensors, read both ways, and its config.json.

A table names every tensor of the architecture. Both directions check that each is used once.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.convert.forms import PLAIN, Form
from megatron_jobs.convert.fp8 import dequantised
from megatron_jobs.convert.leaves import in_format, shape_of
from megatron_jobs.convert.matrix import DTYPES, Matrix
from megatron_jobs.errors import DataError

When = Callable[[ModelConfig, int], bool]


@dataclass(frozen=True)
class Row:
    """One line of the table; `{layer}` and `{expert}` stand for numbers from 0 in all its names."""

    ours: str
    theirs: tuple[str, ...]
    form: Form = PLAIN
    when: When | None = None
    """(model, layer) -> whether the model has this tensor; None: always."""
    copies: tuple[str, ...] = ()
    """Names under which theirs may repeat the tensor (a tied output layer); never written."""
    stack: str = "layers"
    """The setting that says how many layers `{layer}` counts (`encoder_layers` for T5's)."""


@dataclass(frozen=True)
class Family:
    """One architecture of Hugging Face's."""

    name: str
    """As people say: `llama`."""
    model_type: str
    """In config.json."""
    architecture: str
    """The class of transformers that has all its tensors, `LlamaForCausalLM`."""
    table: tuple[Row, ...]
    settings: Callable[[Mapping[str, Any]], dict[str, Any]]
    """config.json -> values of `ModelConfig`; UserError, naming the key, for a variant that we
    cannot compute."""
    config: Callable[[ModelConfig], dict[str, Any]]
    """The way back: what `settings` reads (and model_type, architectures are added elsewhere)."""
    misfit: Callable[[ModelConfig], str]
    """Why a model of ours is not of this family, or nothing."""
    ignored: tuple[str, ...] = ()
    """Patterns (regular expressions, whole names) of tensors of theirs that our model has no use
    for; `{layers}` stands for the number of its layers."""
    prefix: str = "model."
    """Before all names but the output layer's; files of the model without that layer lack it."""
    told_by_names: Callable[[Mapping[str, Any], Collection[str]], dict[str, Any]] | None = None
    """(config.json, names of all tensors) -> settings that config.json alone leaves open."""
    renamed: Callable[[str, ModelConfig], str] | None = None
    """A name of theirs, perhaps of an older version or another prefix -> as the table has it."""
    larger: str = ""
    """model_type of a model of more than text, whose language part is one of these."""
    language_part: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    """The config.json of the larger model -> that of its language part."""


def settings_of(
    family: Family, config: Mapping[str, Any], names: Collection[str]
) -> dict[str, Any]:
    """Values of `ModelConfig` for a model of theirs.

    Args:
        config: its config.json.
        names: of all its tensors; none where they are not known.
    """
    told = family.told_by_names(config, names) if family.told_by_names and names else {}
    return family.settings(config) | told


def rows_of(family: Family, model: ModelConfig) -> Iterator[Row]:
    """The table written out for every layer and expert of a model."""
    for row in family.table:
        layers = range(getattr(model, row.stack)) if "{layer}" in row.ours else (0,)
        for layer in layers:
            if row.when is None or row.when(model, layer):
                yield from _written_out(row, layer, model.experts)


def _written_out(row: Row, layer: int, experts: int) -> Iterator[Row]:
    for expert in range(experts) if "{expert}" in row.ours else (0,):
        fill = {"layer": layer, "expert": expert}
        theirs = tuple(name.format(**fill) for name in row.theirs)
        copies = tuple(name.format(**fill) for name in row.copies)
        yield replace(row, ours=row.ours.format(**fill), theirs=theirs, copies=copies)


def to_ours(
    theirs: Mapping[str, Matrix],
    family: Family,
    model: ModelConfig,
    precision: Precision | None = None,
) -> dict[str, Matrix]:
    """Our tensors from theirs.

    Args:
        precision: what all will be converted to; None: parts of one tensor must be of one format.
    Raises: DataError when one of theirs is missing, odd or left over.
    """
    theirs = dequantised(as_in_table(theirs, family, model))
    ours: dict[str, Matrix] = {}
    used: set[str] = set()
    copies: set[str] = set()
    for row in rows_of(family, model):
        missing = [name for name in row.theirs if name not in theirs]
        if missing:
            raise DataError(f"{missing[0]}: missing; it is part of {row.ours}")
        _use(used, row.theirs)
        copies.update(row.copies)
        ours[row.ours] = _joined(row, [theirs[name] for name in row.theirs], model, precision)
    left = set(theirs) - used - copies
    _check_none_left(left - set(ignored_names(left, family, model)), family)
    return ours


def ignored_names(names: Collection[str], family: Family, model: ModelConfig) -> list[str]:
    """Those of theirs that our model has no use for, in order."""
    patterns = [pattern.replace("{layers}", str(model.layers)) for pattern in family.ignored]
    return sorted(n for n in names if any(re.fullmatch(pattern, n) for pattern in patterns))


def to_theirs(ours: Mapping[str, Matrix], family: Family, model: ModelConfig) -> dict[str, Matrix]:
    """Their tensors from ours; DataError when one of ours is missing, odd or left over."""
    theirs: dict[str, Matrix] = {}
    used: set[str] = set()
    for row in rows_of(family, model):
        if row.ours not in ours:
            raise DataError(f"{row.ours}: missing; it makes {', '.join(row.theirs)}")
        _use(used, (row.ours,))
        _check_shape(row.ours, ours[row.ours], model)
        parts = row.form.split(ours[row.ours], model, len(row.theirs))
        theirs |= dict(zip(row.theirs, parts, strict=True))
    _check_none_left(set(ours) - used, family)
    return theirs


def as_in_table(
    theirs: Mapping[str, Matrix], family: Family, model: ModelConfig
) -> Mapping[str, Matrix]:
    """Their tensors under the names of the table; DataError for two that would have one name."""
    if family.renamed is None:
        return _with_prefix(theirs, family)
    found: dict[str, Matrix] = {}
    for name, matrix in theirs.items():
        known = family.renamed(name, model)
        if known in found:
            raise DataError(f"{name}: another tensor is {known} too")
        found[known] = matrix
    return found


def _with_prefix(theirs: Mapping[str, Matrix], family: Family) -> Mapping[str, Matrix]:
    if not family.prefix or any(name.startswith(family.prefix) for name in theirs):
        return theirs
    heads = ("lm_head.", "embed_out.")
    named = theirs.items()
    return {n if n.startswith(heads) else family.prefix + n: matrix for n, matrix in named}


def _use(used: set[str], names: tuple[str, ...]) -> None:
    twice = used.intersection(names)
    assert not twice, f"the table names {twice} twice"
    used.update(names)


def _check_shape(name: str, matrix: Matrix, model: ModelConfig) -> None:
    wanted = shape_of(name, model)
    if matrix.shape != wanted:
        raise DataError(f"{name}: found {list(matrix.shape)}, its settings ask for {list(wanted)}")


def _joined(
    row: Row, parts: list[Matrix], model: ModelConfig, precision: Precision | None
) -> Matrix:
    for name, part in zip(row.theirs, parts, strict=True):
        if part.dtype.kind in "biuc":
            raise DataError(f"{name}: found {part.dtype}; weights are floating-point numbers")
    if precision is not None and len({part.dtype for part in parts}) > 1:
        parts = [in_format(row.ours, part, DTYPES[precision]) for part in parts]
    try:
        return row.form.join(parts, model, shape_of(row.ours, model))
    except ValueError as error:
        pairs = zip(row.theirs, parts, strict=True)
        shapes = ", ".join(f"{name} {list(part.shape)} {part.dtype}" for name, part in pairs)
        raise DataError(f"{shapes}: cannot become {row.ours}: {error}") from error


def _check_none_left(left: set[str], family: Family) -> None:
    if left:
        names = ", ".join(sorted(left)[:3])
        raise DataError(f"{len(left)} tensors have no place in the {family.name} table: {names}")
