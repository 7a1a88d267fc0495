"""A plain PyTorch decoder in bf16. Letters: B sequences, S positions, H hidden."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from megatron_jobs.config.model import ModelConfig


class Attention(nn.Module):
    """Causal, with rotary positions where cosines and sines are given."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.heads, self.groups, self.size = model.heads, model.groups(), model.head_size()
        width = (self.heads + 2 * self.groups) * self.size
        self.qkv = nn.Linear(model.hidden, width, bias=model.bias)
        self.out = nn.Linear(self.heads * self.size, model.hidden, bias=model.bias)

    def forward(self, x_BSH: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B, S, H] to [B, S, H]."""
        size = (*x_BSH.shape[:2], -1, self.size)
        heads = self.qkv(x_BSH).view(size).transpose(1, 2)
        q, k, v = heads.split([self.heads, self.groups, self.groups], dim=1)
        if turns is not None:
            q, k = turned(q, *turns), turned(k, *turns)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=self.heads != self.groups
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Halves of heads as pairs, turned."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    """Attention and feed-forward block, each after a norm."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        norm = nn.RMSNorm if model.norm == "rmsnorm" else nn.LayerNorm
        self.first, self.second = norm(model.hidden), norm(model.hidden)
        self.attention, self.gated = Attention(model), model.is_gated()
        inner = model.ffn_size() * (2 if self.gated else 1)
        self.up = nn.Linear(model.hidden, inner, bias=model.bias)
        self.down = nn.Linear(model.ffn_size(), model.hidden, bias=model.bias)

    def forward(self, x_BSH: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B, S, H] to [B, S, H]."""
        x_BSH = x_BSH + self.attention(self.first(x_BSH), turns)
        inner = self.up(self.second(x_BSH))
        if self.gated:
            gate, value = inner.chunk(2, -1)
            inner = functional.silu(gate) * value
        else:
            inner = functional.gelu(inner, approximate="tanh")
        out: Tensor = x_BSH + self.down(inner)
        return out


class Decoder(nn.Module):
    """Mean loss of a batch; the output layer is the embedding where the model ties them."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        vocab, hidden = model.padded_vocab(), model.hidden
        self.embedding = nn.Embedding(vocab, hidden)
        nn.init.normal_(self.embedding.weight, std=0.02)
        learned = model.position == "learned"
        self.places = nn.Embedding(model.seq_len, hidden) if learned else None
        self.layers = nn.ModuleList(Layer(model) for _ in range(model.layers))
        self.last = (nn.RMSNorm if model.norm == "rmsnorm" else nn.LayerNorm)(hidden)
        self.out = nn.Linear(hidden, vocab, bias=False)
        if model.tied:
            self.out.weight = self.embedding.weight
        size = model.head_size()
        steps = model.rope_base ** (-torch.arange(0, size, 2) / size)
        angles = torch.outer(torch.arange(model.seq_len), steps)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens_BS: Tensor, labels_BS: Tensor) -> Tensor:
        """Nats for each label."""
        x_BSH = self.embedding(tokens_BS)
        turns = None
        if self.places is not None:
            x_BSH = x_BSH + self.places.weight[: tokens_BS.size(1)]
        else:
            turns = self.cos.bfloat16(), self.sin.bfloat16()
        for layer in self.layers:
            x_BSH = layer(x_BSH, turns)
        logits = self.out(self.last(x_BSH))
        return functional.cross_entropy(logits.flatten(0, 1).float(), labels_BS.flatten())
