"""What both models are asked: the same tokens every time, and the same texts."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor

from megatron_jobs.convert.proof_memory import LONGEST, PROBES
from megatron_jobs.errors import DataError

TEXTS = {
    "English": "The ferry leaves at a quarter past seven, and whoever misses it walks home.",
    "German": "Größere Brücken müssen jährlich geprüft werden, kleinere nur alle fünf Jahre.",
    "Russian": "Зимой реки замерзают, и по льду прокладывают дорогу до соседней деревни.",
    "Arabic": "تشرق الشمس من الشرق وتغرب في الغرب كل يوم.",
    "Hindi": "बारिश के बाद खेतों में हरी घास उग आती है।",
    "Chinese": "春天来了，河边的柳树发出新芽，燕子也飞回来了。",
    "Japanese": "駅前の古い本屋は、来月で開店から五十年になります。",
    "code": "def area(width: float, height: float = 1.0) -> float:\n    return width * height\n",
    "numbers": "In 1969 it cost 3.50, in 2024 about 27.85: 8 times as much, or +695.7%.",
}
QUESTION = [{"role": "user", "content": "Which is heavier, a litre of oil or a litre of water?"}]
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Prompt:
    """Tokens [B, T] under a name."""

    name: str
    tokens: Tensor


def fixed_prompts(hugging_face: Path, vocab_size: int, seq_len: int) -> list[Prompt]:
    """Random tokens; and where the folder has a tokenizer, texts in several scripts and a chat.

    A chat template that cannot be filled in is no reason against a model: there is no chat then.
    Raises: DataError when the tokenizer gives a token that the model lacks, or is none that
        transformers opens without running code of the folder.
    """
    prompts = [Prompt("probe", probe_tokens(vocab_size, seq_len))]
    if any((hugging_face / name).is_file() for name in TOKENIZERS):
        for name, ids in _texts(_tokenizer(hugging_face)).items():
            tokens = _checked(name, ids[: min(LONGEST, seq_len)], vocab_size)
            prompts += [Prompt(name, tokens)] if tokens.numel() else []
    return prompts


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{folder}: its tokenizer cannot be opened: {first}") from error


def probe_tokens(vocab_size: int, seq_len: int, seed: int = 0) -> Tensor:
    """Token ids [4, 48 or fewer], the same for the same vocabulary."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, (PROBES, min(LONGEST, seq_len)), generator=draw)


def _texts(tokenizer: Any) -> dict[str, list[int]]:
    found = {name: list(tokenizer(text)["input_ids"]) for name, text in TEXTS.items()}
    if getattr(tokenizer, "chat_template", None):
        with contextlib.suppress(TemplateError, ValueError, TypeError):
            words = {"add_generation_prompt": True, "tokenize": False}
            asked = tokenizer.apply_chat_template(QUESTION, **words)
            found["chat"] = list(tokenizer(asked, add_special_tokens=False)["input_ids"])
    return found


def _checked(name: str, ids: list[int], vocab_size: int) -> Tensor:
    if ids and max(ids) >= vocab_size:
        rule = f"its model has {vocab_size} tokens"
        raise DataError(f"tokenizer: gives token {max(ids)} for the prompt {name}, {rule}")
    return torch.tensor([ids], dtype=torch.long)
