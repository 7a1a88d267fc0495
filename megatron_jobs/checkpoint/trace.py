"""What a model computes on its way: one run of ours or of theirs, looked at by hooks.

B sequences, T positions, H hidden, V vocabulary, E experts. megatron-core puts positions first;
everything here has sequences first.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from megatron_jobs.checkpoint.anatomy import Anatomy, anatomies_of, part_of, part_of_model
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.model.logits import answer

EMBEDDING, ENDING = "embedding", "before the output layer"
POOLER, SENTENCE = "pooler", "sentence head"
HEADS = (POOLER, SENTENCE)
"""What logits of tokens say nothing of."""
PROBES, COLUMNS = 16, 8
"""States that each expert is given, and how many numbers of each answer are kept."""


@dataclass(frozen=True)
class Point:
    """A place where a value passes."""

    name: str
    module: nn.Module | None
    side: Literal["input", "output"] = "output"
    number: int = 0
    """Which of its inputs."""


@dataclass
class Trace:
    """One run over all prompts."""

    logits: list[Tensor] = field(default_factory=list)
    """[B, T, V] of each prompt."""
    states: dict[str, Tensor] = field(default_factory=dict)
    """Hidden states [B, T, H] of the first prompt, in order."""
    experts: dict[str, Tensor] = field(default_factory=dict)
    """`layer 3` -> what each expert makes of the same states, [E, PROBES, COLUMNS]."""


@contextmanager
def watching(
    points: Iterable[Point], seen: dict[str, Tensor], *, turned: bool = False
) -> Iterator[None]:
    """Note in `seen` what passes the points; `turned`: positions come first there."""
    hooks = [_hook(point, seen, turned) for point in points if point.module is not None]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hook(point: Point, seen: dict[str, Tensor], turned: bool) -> Any:
    def note(value: object) -> None:
        found = passing(value)
        if found is not None:
            found = found.transpose(0, 1) if turned and found.dim() > 2 else found
            seen[point.name] = found.detach().float().cpu().clone()

    def on_input(_: nn.Module, given: tuple[Any, ...], words: Mapping[str, Any]) -> None:
        given = given or (words.get("hidden_states"),)
        note(given[point.number])

    assert point.module is not None
    if point.side == "input":
        return point.module.register_forward_pre_hook(on_input, with_kwargs=True)
    return point.module.register_forward_hook(lambda *called: note(called[2]))


def passing(value: object) -> Tensor | None:
    """The tensor in what a module gives: alone, first of several, or with a bias to be added."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, tuple) or not value or not isinstance(value[0], Tensor):
        return None
    first, bias = value[0], value[1] if len(value) > 1 else None
    if isinstance(bias, Tensor) and bias.dim() == 1:
        return first + bias
    return first


def our_layers(chunk: Any) -> dict[str, nn.Module]:
    """Name of a layer -> the layer: `layer 3`; `encoder layer 3` where there is a decoder too."""
    stacks = {name: getattr(chunk, name, None) for name in ("encoder", "decoder")}
    found = {name: stack.layers for name, stack in stacks.items() if stack is not None}
    both = len(found) > 1
    return {
        named("encoder" if both and name == "encoder" else "", f"layer {number}"): layer
        for name, layers in found.items()
        for number, layer in enumerate(layers)
    }


def their_layers(theirs: Any) -> dict[str, tuple[nn.Module, Anatomy]]:
    """The same of a model of transformers, with the anatomy of each; none that it does not fit."""
    found = {}
    for anatomy in anatomies_of(theirs):
        layers = part_of_model(theirs, anatomy.layers)
        if isinstance(layers, nn.ModuleList):
            for number, layer in enumerate(layers):
                found[named(anatomy.stack, f"layer {number}")] = (layer, anatomy)
    return found


def named(stack: str, place: str) -> str:
    """A place in a stack."""
    return f"{stack} {place}".strip()


def our_points(chunk: Any) -> list[Point]:
    """Before the first layer of each stack, after each, before the output layer, and heads."""
    ends = {POOLER: "pooler", SENTENCE: "binary_head"}
    return [
        *_points(our_layers(chunk)),
        Point(ENDING, getattr(chunk, "output_layer", None), "input"),
        *(Point(name, getattr(chunk, place, None)) for name, place in ends.items()),
    ]


def their_points(theirs: Any) -> list[Point]:
    """As `our_points`."""
    layers = {name: layer for name, (layer, _) in their_layers(theirs).items()}
    return [
        *_points(layers),
        Point(ENDING, theirs.get_output_embeddings(), "input"),
        Point(POOLER, part_of_model(theirs, "bert.pooler")),
        Point(SENTENCE, part_of_model(theirs, "cls.seq_relationship")),
    ]


def _points(layers: dict[str, nn.Module]) -> list[Point]:
    points = []
    for name, layer in layers.items():
        if name.endswith("layer 0"):
            points.append(Point(named(name.removesuffix("layer 0"), EMBEDDING), layer, "input"))
        points.append(Point(name, layer))
    return points


@torch.no_grad()
def our_trace(chunk: Any, model: ModelConfig, prompts: Iterable[Tensor]) -> Trace:
    """A run of a whole model of ours on one rank. Prompts [B, T]."""
    trace = Trace()
    for number, tokens_BT in enumerate(prompts):
        with watching([] if number else our_points(chunk), trace.states, turned=True):
            trace.logits.append(our_logits(chunk, tokens_BT, model))
    for layer, block in our_layers(chunk).items():
        experts = part_of(block, "mlp.experts.local_experts")
        if isinstance(experts, nn.ModuleList):
            states_PH, mixed_HC = expert_probes(model.hidden, next(block.parameters()).device)
            made = [passing(expert(states_PH)) for expert in experts]
            trace.experts[layer] = torch.stack([x @ mixed_HC for x in made if x is not None]).cpu()
    return trace


def our_logits(chunk: Any, tokens_BT: Tensor, model: ModelConfig) -> Tensor:
    """Logits [B, T, V], fp32 on the CPU, of the tokens that there are; padding is left out."""
    device = next(chunk.parameters()).device
    logits_BTV = answer(chunk.eval(), model, tokens_BT.to(device))
    return logits_BTV[..., : model.vocab_size].float().cpu()


@torch.no_grad()
def their_trace(theirs: Any, prompts: Iterable[Tensor]) -> Trace:
    """The same of a model of transformers."""
    trace = Trace()
    for number, tokens_BT in enumerate(prompts):
        with watching([] if number else their_points(theirs), trace.states):
            trace.logits.append(their_logits(theirs, tokens_BT))
    for layer, (block, _) in their_layers(theirs).items():
        experts = part_of(block, "mlp.experts")
        if experts is not None:
            trace.experts[layer] = _their_experts(experts)
    return trace


def their_logits(theirs: Any, tokens_BT: Tensor) -> Tensor:
    """Logits [B, T, V], fp32, of the model's own or as `model.logits.answer` makes them."""
    device = next(theirs.parameters()).device
    words = {"input_ids": tokens_BT.to(device)}
    if theirs.config.is_encoder_decoder:
        words["decoder_input_ids"] = words["input_ids"]
    said = theirs.eval()(**words, output_hidden_states=True)
    for name in ("prediction_logits", "logits"):
        logits = getattr(said, name, None)
        if logits is not None and logits.dim() == 3:
            return logits.float().cpu()  # type: ignore[no-any-return]
    vectors_VH = theirs.get_input_embeddings().weight
    return (said.hidden_states[-1] @ vectors_VH.t()).float().cpu()  # type: ignore[no-any-return]


def _their_experts(experts: Any) -> Tensor:
    """Each expert by their own code: every state is sent to it alone, with weight 1."""
    down = experts.down_proj
    states_PH, mixed_HC = expert_probes(down.size(1), down.device)
    made = []
    for expert in range(len(down)):
        index_P1 = torch.full((PROBES, 1), expert, device=down.device)
        made.append(experts(states_PH, index_P1, torch.ones_like(index_P1, dtype=states_PH.dtype)))
    return torch.stack([x @ mixed_HC for x in made]).cpu()


def expert_probes(hidden: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(states [PROBES, H], a mixing [H, COLUMNS] that keeps the answers small)."""
    draw = torch.Generator().manual_seed(1)
    states_PH = torch.randn(PROBES, hidden, generator=draw)
    mixed_HC = torch.randn(hidden, COLUMNS, generator=draw) / hidden**0.5
    return states_PH.to(device), mixed_HC.to(device)
