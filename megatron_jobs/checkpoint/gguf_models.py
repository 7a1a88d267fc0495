"""A model of transformers made of a GGUF file: the class of its family, filled with our reading.

transformers' own reader of GGUF is no judge: it knows fewer architectures, no factors of angles, no
yarn, and no size of a head of its own. What we read is read again by llama.cpp's package instead,
see `convert.gguf_reread`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.convert.gguf_in import open_gguf
from megatron_jobs.convert.hugging_face import described, written_config
from megatron_jobs.convert.matrix import Converted, Matrix
from megatron_jobs.errors import UserError
from megatron_jobs.model.build import DTYPES

HEADS = ("token_head", "sentence_head", "pooler", "output_bias")
FAILURES = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError),
    *(RuntimeError, TypeError, ValueError),
)
"""What a library raises of a model that it cannot make; NotImplementedError is among them."""


def without_heads(model: ModelConfig) -> ModelConfig:
    """A model as GGUF holds it: of an encoder no head."""
    if model.kind != "encoder":
        return model
    return model.model_copy(update=dict.fromkeys(HEADS, False))


class Unread:
    """A tensor that transformers reads when it has a place for it, as one of safetensors."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = Converted(matrix, np.dtype(np.float32))

    def __getitem__(self, whole: object) -> Tensor:
        """All of it, fp32."""
        assert whole is Ellipsis, f"{whole!r} of a tensor"
        return torch.from_numpy(self.matrix.array())

    def get_shape(self) -> list[int]:
        """Of the tensor."""
        return list(self.matrix.shape)

    def get_dtype(self) -> str:
        """As safetensors names it."""
        return "F32"


def open_gguf_model(place: Path) -> Any:
    """The model of transformers in fp32, with plain attention.

    Args:
        place: a file, one of several, or their folder.
    """
    import transformers

    opened = open_gguf(place)
    what = described(dict(opened.config), str(place), names=opened.tensors)
    before = opened.config
    config = written_config(what.model, what.family, dtype="float32", tokenizer=None, before=before)
    kind = getattr(transformers, config["architectures"][0])
    return kind.from_pretrained(
        None,
        config=kind.config_class.from_dict(config),
        state_dict={name: Unread(matrix) for name, matrix in opened.tensors.items()},
        dtype=torch.float32,
        attn_implementation="eager",
    )


@torch.no_grad()
def rounded_matrices(module: Any, dtype: Precision) -> Any:
    """As `proof.rounded`, but what is no matrix stays, as it does in a GGUF file."""
    for value in module.state_dict().values():
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1:
            value.copy_(value.to(DTYPES[dtype]))
    return module


@contextmanager
def silent() -> Iterator[None]:
    """transformers draws no bars and warns of nothing meanwhile."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def told(open_: Callable[[], Any], place: Path) -> Any:
    """What `open_` gives; UserError naming `place` where transformers fails at it."""
    try:
        return open_()
    except FAILURES as error:
        first = (str(error).strip().splitlines() or [""])[0]
        rule = f"transformers cannot open the model: {type(error).__name__}: {first}"
        raise UserError(f"{place}: {rule}; proof: tensors goes without its logits") from error
