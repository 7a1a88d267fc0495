"""Small BERTs and T5s of transformers, with random weights, and what they say of fixed tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families.bert import BERT
from megatron_jobs.convert.families.t5 import T5
from megatron_jobs.convert.family import Family, settings_of, to_ours
from megatron_jobs.convert.json_file import read_limited_json
from megatron_jobs.convert.matrix import Matrix
from tests.family_models import read_tensors

VOCAB = 300
BERT_VALUES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "type_vocab_size": 3,
    "layer_norm_eps": 1e-4,
}
T5_VALUES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "d_kv": 12,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 1e-4,
}
BERTS = (
    "BertModel",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForNextSentencePrediction",
)
T5S = ("1.0", "1.1")


@dataclass(frozen=True)
class Question:
    """Tokens, the second sequence filled up to the length of the first."""

    tokens: Tensor
    attends: Tensor
    types: Tensor
    decoder_tokens: Tensor


def question() -> Question:
    """[2, 40], and [2, 30] for a decoder; distances are over relative_attention_max_distance."""
    draw = torch.Generator().manual_seed(3)
    attends = torch.ones(2, 40, dtype=torch.long)
    attends[1, 26:] = 0
    return Question(
        torch.randint(0, VOCAB, (2, 40), generator=draw),
        attends,
        torch.randint(0, 3, (2, 40), generator=draw),
        torch.randint(0, VOCAB, (2, 30), generator=draw),
    )


def bert(architecture: str, **values: Any) -> Any:
    """A BERT with the heads of an architecture."""
    config = transformers.BertConfig(**BERT_VALUES | values)
    return stirred(lambda: getattr(transformers, architecture)(config))


def t5(version: str, **values: Any) -> Any:
    """A T5 of version 1.0, whose output layer is the embedding, or 1.1, which has its own."""
    old = version == "1.0"
    values = {"feed_forward_proj": "relu" if old else "gated-gelu"} | values
    config = transformers.T5Config(**T5_VALUES | values, tie_word_embeddings=old)
    config._attn_implementation = "eager"
    model = stirred(lambda: transformers.T5ForConditionalGeneration(config))
    if not old:  # transformers 5 ties them whatever is said
        model.lm_head.weight = nn.Parameter(0.3 * torch.randn_like(model.lm_head.weight))
    return model


def stirred(make: Any) -> Any:
    """A model with no parameter left at one or zero; fp32, ready to be asked."""
    torch.manual_seed(7)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.float().eval()


def family_in(folder: Path) -> Family:
    """BERT or T5, as config.json says."""
    return T5 if read_limited_json(folder / "config.json", 1 << 20)["model_type"] == "t5" else BERT


def read_encoder(folder: Path) -> tuple[ModelConfig, Mapping[str, Matrix]]:
    """Settings and tensors, in our form, of a folder of transformers."""
    family, theirs = family_in(folder), read_tensors(folder)
    config = read_limited_json(folder / "config.json", 1 << 20)
    model = ModelConfig(**settings_of(family, config, theirs))
    assert not list(model.problems())
    return model, to_ours(theirs, family, model)
