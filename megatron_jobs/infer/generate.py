"""Continuing a prompt, token by token."""

from collections.abc import Sequence
from typing import Any

import torch

from megatron_jobs.config.sampling import Sampling
from megatron_jobs.infer.sampling import next_tokens
from megatron_jobs.model.decode import Decoder
from megatron_jobs.parallel.device import engine_device


def continue_prompt(
    model: Any,
    prompt: Sequence[int],
    *,
    vocab_size: int,
    tokens: int,
    sampling: Sampling,
    seed: int = 0,
    stop: frozenset[int] = frozenset(),
) -> list[int]:
    """The tokens that follow a prompt, with a cache of what was read.

    Args:
        model: one whole GPTModel on this rank.
        prompt: token ids, at least one.
        vocab_size: tokens there are; only they can be drawn.
        tokens: how many follow, at most.
        seed: of the draws; the same seed gives the same text.
        stop: ids after which nothing more is drawn; they are part of the answer.
    """
    generator = torch.Generator().manual_seed(seed)
    length = len(prompt) + tokens
    decoder = Decoder(model, sequences=1, length=length, vocab_size=vocab_size)
    read = torch.tensor([list(prompt)], device=engine_device())
    found: list[int] = []
    while len(found) < tokens and not (found and found[-1] in stop):
        logits_1V = decoder.add(read)
        read = next_tokens(logits_1V, sampling, generator)[:, None].to(read.device)
        found.append(int(read))
    return found
