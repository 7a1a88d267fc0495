"""Are two models the same? Their logits on a fixed set of tokens, side by side in fp32."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TOKENS = 48
SEQUENCES = 4


def probe_tokens(vocab_size: int, seq_len: int, seed: int = 0) -> Tensor:
    """Token ids [4, 48 or fewer], the same for the same vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    length = min(TOKENS, seq_len)
    return torch.randint(0, vocab_size, (SEQUENCES, length), generator=generator)


@torch.no_grad()
def our_logits(model: Any, tokens_BT: Tensor, vocab_size: int) -> Tensor:
    """Logits [B, T, V] of a whole GPTModel on one rank, fp32; those of padding left out."""
    positions_BT = torch.arange(tokens_BT.size(1)).expand_as(tokens_BT)
    device = next(model.parameters()).device
    logits_BTV: Tensor = model.eval()(tokens_BT.to(device), positions_BT.to(device), None)
    return logits_BTV[..., :vocab_size].float().cpu()


@torch.no_grad()
def their_logits(folder: Path, tokens_BT: Tensor) -> Tensor:
    """Logits [B, T, V] of a Hugging Face folder, by `transformers` in fp32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    logits_BTV: Tensor = model.eval()(tokens_BT).logits
    return logits_BTV.float()


def compare_logits(ours_BTV: Tensor, theirs_BTV: Tensor) -> dict[str, float]:
    """The largest difference, the largest logit, and the share of equal most likely tokens."""
    assert ours_BTV.shape == theirs_BTV.shape, f"{ours_BTV.shape} against {theirs_BTV.shape}"
    same = (ours_BTV.argmax(-1) == theirs_BTV.argmax(-1)).float().mean()
    return {
        "max_logit_difference": float((ours_BTV - theirs_BTV).abs().max()),
        "max_logit": float(theirs_BTV.abs().max()),
        "same_greedy_share": float(same),
    }
