"""What is wrong before the first layer and after the last: embedding, last norm, output layer.

V vocabulary, P rows with padding, H hidden.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from megatron_jobs.checkpoint.anatomy import anatomy_of, matrix_of, part_of
from megatron_jobs.checkpoint.evidence import Evidence
from megatron_jobs.checkpoint.origins import Origin, origins
from megatron_jobs.checkpoint.state_faults import distance, norm_faults
from megatron_jobs.checkpoint.trace import our_stack
from megatron_jobs.checkpoint.weight_faults import equal
from megatron_jobs.config.model import ModelConfig

Tensors = dict[str, Tensor]
LAST = "final_layernorm"


@torch.no_grad()
def our_ends(chunk: Any, model: ModelConfig) -> Tensors:
    """embedding and output [V, H], positions, final_layernorm, as far as there are any."""
    words = chunk.embedding.word_embeddings
    places = getattr(chunk.embedding, "position_embeddings", None)
    output = getattr(chunk, "output_layer", None)
    weight = getattr(output, "weight", None)
    found = {
        "embedding": words.weight[: model.vocab_size],
        "positions": getattr(places, "weight", None),
        "output": (words.weight if weight is None else weight)[: model.vocab_size],
        "output.bias": getattr(output, "bias", None),
        **_norm_tensors(getattr(our_stack(chunk), "final_layernorm", None)),
    }
    if found["output.bias"] is not None:
        found["output.bias"] = found["output.bias"][: model.vocab_size]
    return _kept(found)


@torch.no_grad()
def their_ends(theirs: Any) -> Tensors:
    """The same of a model of transformers."""
    anatomy = anatomy_of(theirs)
    norm = next((part_of(theirs, n) for n in LAST_NORMS if part_of(theirs, n) is not None), None)
    output = theirs.get_output_embeddings()
    found = {
        "embedding": theirs.get_input_embeddings().weight,
        "positions": matrix_of(part_of(theirs, anatomy.positions)),
        "output": matrix_of(output),
        "output.bias": getattr(output, "bias", None),
        **_norm_tensors(norm),
    }
    return _kept(found)


LAST_NORMS = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm")
"""Names of the norm after the last layer."""


def _norm_tensors(norm: Any) -> dict[str, Tensor | None]:
    kinds = ("weight", "bias")
    return {f"{LAST}.{kind}": getattr(norm, kind, None) for kind in kinds}


def _kept(found: dict[str, Tensor | None]) -> Tensors:
    given = {name: value for name, value in found.items() if value is not None}
    return {name: value.detach().float().cpu().clone() for name, value in given.items()}


def embedding_faults(ours: Tensors, theirs: Tensors, states: tuple[Tensor, Tensor]) -> list[str]:
    """Why what enters the first layer differs; states [B, T, H] of ours and of theirs."""
    found = list(_rows_moved("embedding", ours, theirs))
    found += list(_rows_moved("positions", ours, theirs, stem="position embedding"))
    if found:
        return found
    one, other = states
    scale = float((one * other).sum() / one.square().sum())
    if distance(one * scale, other) < 1e-3:
        return [f"embedding: theirs is {scale:.6g} times ours: embedding_scale"]
    return ["embedding: what enters the first layer differs, for no reason known here"]


def last_norm_faults(
    ours: Tensors, theirs: Tensors, states: tuple[Tensor, Tensor]
) -> Iterator[str]:
    """Why the states after the last norm differ."""
    weight = theirs.get(f"{LAST}.weight")
    same = all(
        equal(ours.get(f"{LAST}.{k}"), theirs.get(f"{LAST}.{k}")) for k in ("weight", "bias")
    )
    if weight is None or not same:
        yield f"{LAST}: its weight is not theirs"
        return
    yield from norm_faults(LAST, *states, weight, Evidence(theirs))


def output_faults(ours: Tensors, theirs: Tensors) -> Iterator[str]:
    """Why logits of the same states differ."""
    one, other = ours.get("output"), theirs.get("output")
    found = False
    if not equal(one, other):
        found = True
        if equal(one, theirs.get("embedding")):
            yield "output layer: ours is the embedding, theirs has its own weights: set tied: false"
        elif equal(other, theirs.get("embedding")):
            yield "output layer: theirs is the embedding, ours has other weights: set tied: true"
        else:
            yield from _rows_moved("output", ours, theirs, stem="output layer")
    bias = theirs.get("output.bias")
    if bias is not None and bool(bias.any()) and not equal(ours.get("output.bias"), bias):
        found = True
        lost = "output.bias" not in ours or not bool(ours["output.bias"].any())
        yield f"output layer: its bias is {'lost' if lost else 'not theirs'}"
    if not found:
        yield "output layer: its weights are theirs, its logits are not: logit_softcap, logit scale"


def _rows_moved(
    name: str, ours: Tensors, theirs: Tensors, *, stem: str = "embedding"
) -> Iterator[str]:
    """What became of the rows of a table."""
    one, other = ours.get(name), theirs.get(name)
    if one is None or other is None or equal(one, other):
        return
    if one.shape != other.shape:
        yield f"{stem}: ours has the shape {list(one.shape)}, theirs {list(other.shape)}"
        return
    rows = origins({name: one}, {name: other})[name]
    wrong = [row for row, origin in enumerate(rows) if origin != Origin(name, row)]
    lost = [row for row in wrong if rows[row] is None]
    if len(lost) == len(wrong):
        yield f"{stem}: {len(lost)} of {len(rows)} rows are none of theirs, the first is {lost[0]}"
        return
    moved = [(row, o.row) for row, o in enumerate(rows) if o is not None and o.row != row]
    step, times = Counter(theirs - ours for ours, theirs in moved).most_common(1)[0]
    if times > 0.9 * len(rows):
        how = f"shifted by {step}"
        moved = [pair for pair in moved if pair[1] - pair[0] == step]
    else:
        how = "in another order"
    yield f"{stem}: rows are {how}: row {moved[0][0]} of ours is row {moved[0][1]} of theirs"
