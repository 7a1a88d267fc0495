"""A model that remembers: each call adds tokens and gives the logits after the last.

B sequences of the batch, T tokens added, V vocabulary without padding.
"""

import torch
from megatron.core.inference.contexts import StaticInferenceContext
from megatron.core.inference.utils import InferenceMode
from megatron.core.models.gpt import GPTModel
from torch import Tensor, nn

from megatron_jobs.model.attention import CausalAttention


class Decoder:
    """A whole model on one rank with keys and values of what it has read (KV cache).

    Args:
        model: one chunk with embedding and output layer.
        sequences, length: the most that can be read at once, and in all.
        vocab_size: tokens there are; the embedding's padding gets no logits.
    """

    def __init__(self, model: GPTModel, *, sequences: int, length: int, vocab_size: int) -> None:
        self.model = model.eval()
        self.length = length
        self.vocab_size = vocab_size
        self.cache = StaticInferenceContext(sequences, length)
        self.read = 0
        self.bend = bend_of(model)
        self.short = torch.empty(sequences, 0, dtype=torch.int64)

    @torch.no_grad()
    def add(self, tokens_BT: Tensor) -> Tensor:
        """Read T more tokens of every sequence.

        Args:
            tokens_BT: [B, T] int64; B is the same in every call.
        Returns: logits [B, V] after the last of them.
        """
        count = tokens_BT.size(1)
        assert self.read + count <= self.length, f"{self.read} + {count} exceed {self.length}"
        if self.bend is not None and self.read <= self.bend:
            tokens_BT = self._with_short(tokens_BT, self.bend)
        return self._read_on(tokens_BT)

    def _with_short(self, tokens_BT: Tensor, bend: int) -> Tensor:
        """The tokens to read, all again where the angles of the short sequence are no more."""
        known = self.short.to(tokens_BT.device)[: len(tokens_BT)]
        self.short = torch.cat([known, tokens_BT], dim=1)
        if not 0 < self.read <= bend < self.short.size(1):
            return tokens_BT
        self.cache.reset()
        self.read = 0
        return self.short

    def _read_on(self, tokens_BT: Tensor) -> Tensor:
        count = tokens_BT.size(1)
        positions_1T = torch.arange(self.read, self.read + count, device=tokens_BT.device)[None]
        with InferenceMode.active():
            logits_B1V: Tensor = self.model(
                tokens_BT,
                positions_1T.expand_as(tokens_BT),
                None,
                inference_context=self.cache,
                runtime_gather_output=True,
            )
        self.cache.increment_sequence_len_offset(count)
        self.read += count
        return logits_B1V[:, -1, : self.vocab_size]


def bend_of(model: nn.Module) -> int | None:
    """Tokens after which the angles of all positions are others (longrope); None: never."""
    ropes = [module.rope for module in model.modules() if isinstance(module, CausalAttention)]
    return next((rope.bend() for rope in ropes if rope is not None), None)
