"""What is wrong with a layer's tensors, in words, when they are not theirs at their places.

Each function yields (names that it explains, sentence).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from megatron_jobs.checkpoint.evidence import ATTENTION
from megatron_jobs.checkpoint.origins import (
    Origin,
    halves_of_pairs,
    misread_layout,
    order_of_heads,
    order_within,
    origins,
    pairs_of_halves,
    turned_columns,
)
from megatron_jobs.config.model import ModelConfig

Tensors = Mapping[str, Tensor]
Found = Mapping[str, list[Origin | None]]
Verdict = tuple[set[str], str]
HALVES, PAIRS = "halves", "interleaved pairs (neighbouring columns)"


def weight_faults(ours: Tensors, theirs: Tensors, model: ModelConfig) -> Iterator[str]:
    """What is wrong with the tensors of one layer, as sentences; nothing where they are equal."""
    left = set(differing(ours, theirs))
    checks = (attention_faults, expert_faults, gate_faults, plain_faults)
    for explained, sentence in chain(*(check(ours, theirs, model) for check in checks)):
        news = bool(left & explained)
        left -= explained
        if news and sentence:
            yield sentence
    for name in sorted(left):
        yield f"{name.removesuffix('.weight')} differs, for no reason known here"


def differing(ours: Tensors, theirs: Tensors) -> Iterator[str]:
    """Names of tensors that are not the same; one that is missing counts as zeros."""
    for name in sorted(set(ours) | set(theirs)):
        one, other = ours.get(name), theirs.get(name)
        if one is None or other is None:
            there = other if one is None else one
            assert there is not None, name
            if name.endswith(".bias") and bool(there.any()):
                yield name
        elif not equal(one, other):
            yield name


def equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors hold the same numbers."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool((one == other).all())


def listed(numbers: Sequence[int]) -> str:
    """As words: 0 2 1 3."""
    return " ".join(map(str, numbers[:16])) + (" ..." if len(numbers) > 16 else "")


def named(names: Sequence[str]) -> str:
    """`q and k have`, `k has`."""
    return " and ".join(names) + (" have" if len(names) > 1 else " has")


def attention_faults(ours: Tensors, theirs: Tensors, model: ModelConfig) -> Iterator[Verdict]:
    """Rows of q, k and v that lie elsewhere."""
    own = {n: ours[f"{ATTENTION}{n}.weight"] for n in "qkv" if f"{ATTENTION}{n}.weight" in ours}
    other = {n: theirs.get(f"{ATTENTION}{n}.weight") for n in own}
    there = {name: tensor for name, tensor in other.items() if tensor is not None}
    if len(own) < 3 or len(there) < 3:
        return
    found = origins(own, there)
    yield from _misread(found, model)
    yield from _exchanged(found)
    conventions: dict[str, list[str]] = {}
    for name in own:
        heads = model.heads if name == "q" else model.groups()
        rows = order_within(found[name], name)
        moved = None if rows is None else order_of_heads(rows, heads)
        if moved is None:
            continue
        numbers, columns = moved
        what = {f"{ATTENTION}{name}.weight", f"{ATTENTION}{name}.bias"}
        if numbers != list(range(heads)):
            order = f"ours {listed(range(heads))} are theirs {listed(numbers)}"
            yield what, f"heads of {name} are in another order: {order}"
        sentence = _convention(columns, model)
        if sentence:
            conventions.setdefault(sentence, []).append(name)
    for sentence, names in conventions.items():
        what = {f"{ATTENTION}{name}.{kind}" for name in names for kind in ("weight", "bias")}
        yield what, f"{named(names)} {sentence}"


def _convention(columns: list[int], model: ModelConfig) -> str:
    """What an order of a head's columns says of rotary angles."""
    turned, size = turned_columns(model), len(columns)
    if columns == list(range(size)):
        return ""
    is_pairs = columns == pairs_of_halves(size, turned)
    if not is_pairs and columns != halves_of_pairs(size, turned):
        return f"columns of heads in another order: ours are theirs {listed(columns)}"
    have, wanted = (PAIRS, HALVES) if is_pairs else (HALVES, PAIRS)
    turns = PAIRS if model.rope_interleaved else HALVES
    if turns == wanted:
        return f"the rotary convention of {have}, the model turns {wanted}: rows must be permuted"
    return f"been permuted from {wanted} to {have}, which they were already: rows must stay"


def _misread(found: Found, model: ModelConfig) -> Iterator[Verdict]:
    rows = [origin for name in "qkv" for origin in found[name]]
    way = misread_layout(rows, model)
    if way is not None:
        what = {f"{ATTENTION}{name}.{kind}" for name in "qkv" for kind in ("weight", "bias")}
        yield what, f"q, k and v are read as if they lay {way[0]}, they lie {way[1]}"


def _exchanged(found: Found) -> Iterator[Verdict]:
    """A projection that holds another's weights."""
    held = {}
    for name in found:
        for other in found:
            if other != name and order_within(found[name], other) is not None:
                held[name] = other
    for name, other in held.items():
        what = {f"{ATTENTION}{n}.{kind}" for n in (name, other) for kind in ("weight", "bias")}
        if held.get(other) == name:
            if name < other:
                yield what, f"{name} and {other} are swapped"
        else:
            yield {f"{ATTENTION}{name}.weight"}, f"{name} holds the weights of {other}"


def gate_faults(ours: Tensors, theirs: Tensors, model: ModelConfig) -> Iterator[Verdict]:
    """Gate and up in each other's place, in a dense block or in experts."""
    swapped = []
    blocks = sorted({name.removesuffix("gate.weight") for name in ours if "gate.weight" in name})
    for block in blocks:
        parts = {name: ours.get(f"{block}{name}.weight") for name in ("gate", "up")}
        other = {name: theirs.get(f"{block}{name}.weight") for name in ("gate", "up")}
        if other["up"] is None or equal(parts["gate"], other["gate"]):
            continue
        if equal(parts["gate"], other["up"]) and equal(parts["up"], other["gate"]):
            swapped.append(block)
        else:
            yield from _interleaved(block, parts, other)
    if swapped:
        what = {
            f"{b}{n}.{kind}" for b in swapped for n in ("gate", "up") for kind in ("weight", "bias")
        }
        yield what, "gate and up are swapped" + _of_experts(swapped, model)


def _of_experts(blocks: Sequence[str], model: ModelConfig) -> str:
    experts = sorted(int(b.split(".")[-2]) for b in blocks if b.split(".")[-2].isdigit())
    if not experts:
        return "" if "mlp." in blocks else " in the shared experts"
    if len(experts) == model.experts:
        return " in all experts"
    return f" in expert{'s' if len(experts) > 1 else ''} {listed(experts)}"


def _interleaved(
    block: str, parts: Mapping[str, Tensor | None], other: Mapping[str, Tensor | None]
) -> Iterator[Verdict]:
    """Rows of gate and up that lie between each other."""
    own = {name: part for name, part in parts.items() if part is not None}
    there = {name: part for name, part in other.items() if part is not None}
    rows = origins(own, there).get("gate", [])
    kinds = {origin.part for origin in rows if origin is not None}
    if len(kinds) < 2 or None in rows:
        return
    for number, origin in enumerate(rows):
        if origin is not None and (origin.part, origin.row) != ("gate", number):
            what = {f"{block}{name}.weight" for name in ("gate", "up")}
            yield (
                what,
                (
                    f"rows of gate and up are mixed: row {number} of our gate is row {origin.row} "
                    f"of their {origin.part}"
                ),
            )
            return


def expert_faults(ours: Tensors, theirs: Tensors, model: ModelConfig) -> Iterator[Verdict]:
    """Experts that are lost, or in another order than the router's."""
    if not model.experts or "mlp.experts.0.linear_fc2.weight" not in ours:
        return
    known = {_key(theirs, expert): expert for expert in reversed(range(model.experts))}
    held = [known.get(_key(ours, expert)) for expert in range(model.experts)]
    router = {"router": ours.get("mlp.router.weight", torch.empty(0, 1))}
    routed = order_within(
        origins(router, {"router": theirs.get("mlp.router.weight", torch.empty(0, 1))})["router"],
        "router",
    )
    whole = sorted(e for e in held if e is not None) == list(range(model.experts))
    if whole and held != list(range(model.experts)) and held != routed:
        order = f"ours {listed(range(model.experts))} are theirs {listed([e or 0 for e in held])}"
        yield _names(range(model.experts)), f"experts are in another order: {order}"
        return
    if whole and held == routed and held != list(range(model.experts)):
        yield _names(range(model.experts)) | {"mlp.router.weight"}, ""
    for expert, origin in enumerate(held):
        if origin is not None and origin != expert:
            yield (
                _names([expert]),
                f"expert {expert} is lost: its weights are those of expert {origin}",
            )
        elif not any(bool(ours[name].any()) for name in _names([expert])):
            yield _names([expert]), f"expert {expert} is lost: its weights are zero"


def _names(experts: Sequence[int]) -> set[str]:
    parts = ("gate", "up", "linear_fc2")
    return {f"mlp.experts.{expert}.{part}.weight" for expert in experts for part in parts}


def _key(tensors: Tensors, expert: int) -> frozenset[bytes]:
    """The same for the same expert, be its gate and up swapped or not."""
    return frozenset(
        (tensors[name] + 0.0).contiguous().numpy().tobytes()
        for name in _names([expert])
        if name in tensors
    )


def plain_faults(ours: Tensors, theirs: Tensors, model: ModelConfig) -> Iterator[Verdict]:
    """What can befall any tensor."""
    for name in differing(ours, theirs):
        sentence = _plain_fault(name, ours, theirs, model)
        if sentence:
            yield {name}, sentence


def _plain_fault(name: str, ours: Tensors, theirs: Tensors, model: ModelConfig) -> str:
    one, other = ours.get(name), theirs.get(name)
    kind = name.rpartition(".")[2]
    stem = name.removesuffix(".weight").removesuffix(".bias")
    stem = stem.removeprefix(ATTENTION) if stem[-2:-1] == "." else stem
    if kind == "bias" and (one is None or not bool(one.any())):
        return f"the bias of {stem} is lost"
    if kind == "bias" and (other is None or not bool(other.any())):
        return f"{stem} has a bias, theirs has none"
    if one is None or other is None:
        return ""
    if not bool(one.any()):
        return f"{stem} is lost: its weights are zero"
    for found, sentence in _changes(one, other):
        if found:
            return f"{stem} {sentence}"
    if model.latent is not None and (sentence := _latent_convention(one, other, stem, model)):
        return sentence
    if name == ATTENTION + "linear_proj.weight":
        return _heads_of_output(one, other, model)
    again = [n for n, tensor in theirs.items() if n != name and equal(one, tensor)]
    return f"{stem} holds the weights of their {again[0].rpartition('.')[0]}" if again else ""


def _changes(one: Tensor, other: Tensor) -> Iterator[tuple[bool, str]]:
    """(whether it is so, what was done to the whole tensor)."""
    if one.dim() == 2:
        yield equal(one, other.t()), "is transposed"
    if one.shape != other.shape:
        yield True, f"has the shape {list(one.shape)}, theirs {list(other.shape)}"
        return
    for change in (1, -1):
        close = bool(torch.isclose(one, other + change, rtol=1e-2, atol=1e-6).all())
        yield one.dim() == 1 and close, f"is theirs {change:+d}: such an offset is not converted"
    scale = float((one * other).sum() / other.square().sum().clamp_min(1e-30))
    close = bool(torch.isclose(one, scale * other, rtol=1e-3, atol=1e-7).all())
    yield close, f"is theirs times {scale:.6g}"


def _heads_of_output(one: Tensor, other: Tensor, model: ModelConfig) -> str:
    rows = order_within(origins({"w": one.t()}, {"w": other.t()})["w"], "w")
    moved = None if rows is None else order_of_heads(rows, model.heads)
    if moved is None or moved[0] == list(range(model.heads)):
        return ""
    order = f"ours {listed(range(model.heads))} are theirs {listed(moved[0])}"
    return f"heads of linear_proj are in another order: {order}"


def _latent_convention(one: Tensor, other: Tensor, stem: str, model: ModelConfig) -> str:
    """Rows of rotary columns, the last of each head of queries and of what keys share."""
    assert model.latent is not None, "this is of latent attention"
    is_keys, turned = stem.endswith("linear_kv_down_proj"), model.latent.rope_dim
    if not is_keys and not stem.endswith(("linear_q_proj", "linear_q_up_proj")):
        return ""
    heads, rest = (1, model.latent.kv_rank) if is_keys else (model.heads, model.latent.nope_dim)
    rows = order_within(origins({"w": one}, {"w": other})["w"], "w")
    moved = None if rows is None else order_of_heads(rows, heads)
    if moved is None or moved[1][:rest] != list(range(rest)):
        return ""
    last = [column - rest for column in moved[1][rest:]]
    for order, have, theirs in ((pairs_of_halves, PAIRS, HALVES), (halves_of_pairs, HALVES, PAIRS)):
        if last == order(turned, turned):
            found = f"in the convention of {have}, theirs in that of {theirs}"
            return f"{stem}: rotary columns are {found}"
    return ""
