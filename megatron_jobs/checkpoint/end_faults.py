"""What is wrong before the first layer and after the last: embedding, last norm, output layer.

V vocabulary, P rows with padding, H hidden.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from megatron_jobs.checkpoint.anatomy import anatomies_of, matrix_of, part_of_model
from megatron_jobs.checkpoint.evidence import Evidence, tensors_of
from megatron_jobs.checkpoint.origins import Origin, origins
from megatron_jobs.checkpoint.state_faults import distance, norm_faults
from megatron_jobs.checkpoint.weight_faults import equal, weight_faults
from megatron_jobs.config.model import ModelConfig

Tensors = dict[str, Tensor]
LAST = "decoder.final_layernorm"
TABLES = ("embedding", "output", "output.bias")


@torch.no_grad()
def our_ends(chunk: Any, model: ModelConfig) -> Tensors:
    """embedding and output [V, H], output.bias, and all else outside of the layers by its name."""
    words = chunk.embedding.word_embeddings
    output = getattr(chunk, "output_layer", None)
    weight = getattr(output, "weight", None)
    found = {
        "embedding": words.weight[: model.vocab_size],
        "output": (words.weight if weight is None else weight)[: model.vocab_size],
    }
    bias = getattr(output, "bias", None)
    if bias is not None:
        found["output.bias"] = bias[: model.vocab_size]
    held = {n: v for n, v in chunk.state_dict().items() if isinstance(v, Tensor)}
    others = {n: v for n, v in held.items() if ".layers." not in n and n not in OWN}
    return _kept(found | others)


OWN = ("embedding.word_embeddings.weight", "output_layer.weight", "output_layer.bias")


@torch.no_grad()
def their_ends(theirs: Any) -> Tensors:
    """The same of a model of transformers."""
    output = theirs.get_output_embeddings()
    weights = {
        "embedding": theirs.get_input_embeddings().weight,
        "output": matrix_of(output),
        "output.bias": getattr(output, "bias", None),
    }
    found = {name: value for name, value in weights.items() if value is not None}
    for anatomy in anatomies_of(theirs):
        for ours, name in anatomy.ends.items():
            found |= tensors_of(ours, part_of_model(theirs, name))
    return _kept(found)


def _kept(found: Tensors) -> Tensors:
    return {name: value.detach().float().cpu().clone() for name, value in found.items()}


def embedding_faults(
    ours: Tensors, theirs: Tensors, states: tuple[Tensor, Tensor], model: ModelConfig
) -> Iterator[str]:
    """Why what enters the first layer differs; states [B, T, H] of ours and of theirs."""
    places = "embedding.position_embeddings.weight"
    found = list(_rows_moved("embedding", ours, theirs))
    found += list(_rows_moved(places, ours, theirs, stem="position embedding"))
    one, other = states
    scale = float((one * other).sum() / one.square().sum())
    if found:
        yield from found
    elif others := list(_others(ours, theirs, model, "embedding.", but=places)):
        yield from others
    elif distance(one * scale, other) < 1e-3:
        yield f"embedding: theirs is {scale:.6g} times ours: embedding_scale"
    else:
        yield "embedding: what enters the first layer differs, for no reason known here"


def ending_faults(
    ours: Tensors, theirs: Tensors, states: tuple[Tensor, Tensor], model: ModelConfig
) -> Iterator[str]:
    """Why the states differ that enter the output layer, or a head, after equal layers."""
    others = list(_others(ours, theirs, model, ""))
    weight = theirs.get(f"{LAST}.weight")
    if others:
        yield from others
    elif weight is not None and model.kind == "decoder":
        yield from norm_faults(LAST, *states, weight, Evidence(theirs))
    else:
        yield "what follows the last layer differs, for no reason known here"


def _others(
    ours: Tensors, theirs: Tensors, model: ModelConfig, start: str, *, but: str = ""
) -> Iterator[str]:
    """What is wrong with tensors outside of the layers that are no tables."""
    names = set(ours) | set(theirs)
    asked = {n for n in names if n.startswith(start) and n not in (*TABLES, but)}
    own, other = ({n: side[n] for n in asked if n in side} for side in (ours, theirs))
    return weight_faults(own, other, model)


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
