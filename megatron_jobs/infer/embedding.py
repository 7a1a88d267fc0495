"""Vectors of texts by an encoder of Hugging Face form, from a folder on this machine.

Shapes: N texts, T tokens, H hidden size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from megatron_jobs.errors import UserError
from megatron_jobs.infer.encoder_folder import encoder_problem, pooling_of
from megatron_jobs.parallel.device import engine_device

MOST_TOKENS = 512
"""Of a text that are read, or fewer where the model knows fewer places."""


class TextEncoder:
    """An encoder with its tokenizer: one vector of length 1 a text.

    Args:
        folder: config.json, weights and tokenizer, as `save_pretrained` writes them, perhaps with
            the 1_Pooling of sentence-transformers.
        batch: texts that are computed together.
    Raises: UserError when the folder holds no such model.
    """

    def __init__(self, folder: Path, *, batch: int = 64) -> None:
        if wrong := encoder_problem(folder):
            raise UserError(f"encoder: {wrong}")
        try:
            self.tokenizer, model = _load(folder)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise UserError(f"encoder: {folder} cannot be loaded: {error}") from error
        self.batch, self.pooling = batch, pooling_of(folder)
        self.model = model.eval().to(engine_device())
        places = getattr(model.config, "max_position_embeddings", None) or MOST_TOKENS
        self.most_tokens = min(places, self.tokenizer.model_max_length, MOST_TOKENS)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [N, H] of length 1, fp32; texts of like length are computed together."""
        order = sorted(range(len(texts)), key=lambda place: (-len(texts[place]), place))
        parts = [
            self._embed([texts[place] for place in order[start : start + self.batch]])
            for start in range(0, len(order), self.batch)
        ]
        if not parts:
            return np.zeros((0, int(self.model.config.hidden_size)), np.float32)
        sorted_NH = np.concatenate(parts)
        vectors_NH = np.empty_like(sorted_NH)
        vectors_NH[order] = sorted_NH
        return vectors_NH

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        tokens = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.most_tokens,
            return_tensors="pt",
        ).to(self.model.device)
        states_NTH: Tensor = self.model(**tokens).last_hidden_state.float()
        mask_NT = tokens["attention_mask"]
        vectors_NH = states_NTH[:, 0] if self.pooling == "cls" else mean_states(states_NTH, mask_NT)
        return torch.nn.functional.normalize(vectors_NH, dim=-1).cpu().numpy()


def _load(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model; ValueError for one without padding or with weights left by chance."""
    from transformers import AutoModel, AutoTokenizer

    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
    if tokenizer.pad_token is None:
        raise ValueError("its tokenizer has no padding token")
    loaded: Any = AutoModel.from_pretrained(
        folder, **local, dtype=torch.float32, output_loading_info=True
    )
    model, told = loaded
    missing = [name for name in sorted(told["missing_keys"]) if not name.startswith("pooler.")]
    if missing:
        raise ValueError(f"its weights lack {missing[0]} and {len(missing) - 1} more")
    return tokenizer, model


def mean_states(states_NTH: Tensor, mask_NT: Tensor) -> Tensor:
    """The mean of the states where the mask is 1.

    Source: Reimers and Gurevych 2019, section 3, MEAN pooling, arXiv:1908.10084.
    """
    mask_NT1 = mask_NT.unsqueeze(-1).to(states_NTH.dtype)
    return (states_NTH * mask_NT1).sum(1) / mask_NT1.sum(1).clamp(min=1)
