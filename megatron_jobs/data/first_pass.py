"""The order of a token file of which some documents were given before, from another file."""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._data import Shuffler
from megatron_jobs.data.given_documents import Counts
from megatron_jobs.data.index_plan import IndexPlan
from megatron_jobs.data.packing import PackedOrder, build_packed_order, join_packed
from megatron_jobs.data.source_order import SourceOrder, extend_order, order_of_some
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import UserError


def least_given(
    tokens: TokenFile, documents: range, times: Counts, *, least: int
) -> NDArray[np.int32]:
    """The documents that were given least often: a first pass goes through them alone.

    Args:
        documents: of the file, by their sequences.
        times: [sequences of the file], how often each was given.
        least: tokens that a document must have to count; where none has, all are taken.
    """
    numbers = np.arange(documents.start, documents.stop, dtype=np.int32)
    own = times[numbers]
    counted = tokens.lengths[documents.start : documents.stop] >= least
    if not counted.any():
        return numbers
    rest: NDArray[np.int32] = numbers[own == own[counted].min()]
    return rest


def build_first_pass(
    tokens: TokenFile, documents: range, times: Counts, *, samples: int | None, plan: IndexPlan
) -> tuple[SourceOrder | PackedOrder, dict[str, Any]]:
    """Those that were given least often, then whole passes; and what index.json says of the order.

    Args:
        samples: to build at least; None for the first pass alone.
    Raises: UserError when all documents were given and only the first pass is wanted.
    """
    packed = plan.packing != "none"
    rest = least_given(tokens, documents, times, least=2 if packed else 1)
    if samples is None and times[rest].min() > 0:
        found = f"the earlier index has given all {len(documents)} documents of {tokens.prefix}"
        raise UserError(f"tokens: {found}; give weights to go through them again, or leave it out")
    build = _build_packed if packed else _build_concatenated
    return build(tokens, documents, rest, samples=samples, plan=plan)


def _build_concatenated(
    tokens: TokenFile,
    documents: range,
    rest: NDArray[np.int32],
    *,
    samples: int | None,
    plan: IndexPlan,
) -> tuple[SourceOrder, dict[str, Any]]:
    lengths, shuffler = np.array(tokens.lengths), Shuffler(plan.seed)
    order = order_of_some(lengths, rest, shuffler, seq_len=plan.seq_len)
    more = (samples or 0) - len(order)
    if more > 0:
        sizes = {"more": more, "seq_len": plan.seq_len}
        order = extend_order(order, lengths, documents, shuffler, **sizes)
    epochs = -(-len(order.documents) // len(documents))
    return order, {"epochs": epochs, "lead": len(rest)}


def _build_packed(
    tokens: TokenFile,
    documents: range,
    rest: NDArray[np.int32],
    *,
    samples: int | None,
    plan: IndexPlan,
) -> tuple[PackedOrder, dict[str, Any]]:
    """The bins of whole passes are kept even where none is wanted yet: the order may go on."""
    sizes = {"seq_len": plan.seq_len, "seed": plan.seed}
    first, _ = build_packed_order(tokens, rest, samples=None, **sizes)
    more = (samples or 0) - len(first)
    whole, facts = build_packed_order(tokens, documents, samples=max(more, 0), **sizes)
    order = join_packed(first, whole)
    if more <= 0:
        shuffle = order.shuffle[: len(first)]
        order = PackedOrder(order.documents, order.offsets, order.lengths, order.first, shuffle)
    epochs = -(-len(order) // facts.bins)
    return order, {"epochs": epochs, "lead": len(first), "packing": asdict(facts)}
