"""A Hugging Face folder as ONNX, computed by onnxruntime before it is believed.

B batch, T tokens, V vocabulary.

FOLDER/model.onnx       input_ids int64 [B, T] -> logits fp32 [B, T, V]; any B, any T
FOLDER/model.onnx.data  its weights
FOLDER/...              config.json and the files of the tokenizer
"""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from megatron_jobs.convert.hugging_face import CONFIG, tokenizer_files
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import whole_folder

MODEL = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
BOUND = 1e-3
"""Logits of onnxruntime and of transformers differ by less, in shares of the largest logit."""
SHAPES = ((2, 24), (1, 7), (3, 1))
"""[B, T] that both are asked for; the first is the one that the model is traced with."""


class _Logits(nn.Module):
    """A model of transformers that knows one input and one output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, V]."""
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


def write_onnx(source: Path, folder: Path) -> float:
    """Write a decoder as ONNX in fp32; the weights are in memory twice meanwhile.

    Args:
        source: a Hugging Face folder; what it holds is read, no code of it is run.
        folder: that appears, whole, at the end.
    Returns: the largest difference of a logit, in shares of the largest logit.
    Raises: UserError when a package is absent, the folder is there or it is no decoder; DataError
        when onnxruntime computes something else.
    """
    check_packages()
    if folder.exists():
        raise UserError(f"{folder}: is there already; remove it, or name another folder")
    model = _model(source)
    with whole_folder(folder) as part:
        _export(model, part / MODEL)
        error = largest_error(model, part / MODEL, SHAPES)
        if not error < BOUND:
            raise DataError(
                f"{folder}: not written: its logits differ by {error:.2g} of the largest"
            )
        for path in (source / CONFIG, *tokenizer_files(source)):
            (part / path.relative_to(source)).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, part / path.relative_to(source))
    return error


def check_packages() -> None:
    """Raise UserError unless what writes and runs ONNX is installed."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        found = f"onnx: {', '.join(absent)} not installed"
        raise UserError(f"{found}; pip install 'megatron-jobs[onnx]' brings all of it")


def _model(source: Path) -> Any:
    from transformers import AutoModelForCausalLM

    if not (source / CONFIG).is_file():
        raise DataError(f"{source}: no {CONFIG}; not a Hugging Face model")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
        )
    except ValueError as error:
        raise UserError(f"{source}: transformers knows no such decoder: {error}") from error
    return model.eval()


def _export(model: Any, file: Path) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        _Logits(model).eval(),
        (_tokens(model, SHAPES[0]),),
        dynamo=True,
        dynamic_shapes={"input_ids": {0: dynamic, 1: dynamic}},
        input_names=["input_ids"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None, "the exporter gave no program"
    program.save(str(file), external_data=True)


def _tokens(model: Any, shape: tuple[int, int]) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, model.config.vocab_size, shape, generator=draw)


def largest_error(model: Any, file: Path, shapes: Sequence[tuple[int, int]]) -> float:
    """The largest difference of a logit between onnxruntime and transformers, as a share."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    errors = []
    for shape in shapes:
        tokens = _tokens(model, shape)
        with torch.no_grad():
            expected = model(input_ids=tokens, use_cache=False).logits.numpy()
        (found,) = session.run(["logits"], {"input_ids": tokens.numpy()})
        errors.append(float(np.abs(found - expected).max() / np.abs(expected).max()))
    return float(max(errors))
