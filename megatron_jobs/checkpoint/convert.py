"""One checkpoint in another form, proved equal by its logits. On one rank, for one whole model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_jobs.checkpoint.compare import (
    compare_logits,
    our_logits,
    probe_tokens,
    their_logits,
)
from megatron_jobs.checkpoint.hugging_face import (
    DIVISOR,
    TOKENIZER,
    architecture_of,
    hugging_face_config,
    read_hugging_face,
    tokenizer_folder,
    write_hugging_face,
)
from megatron_jobs.checkpoint.mapping import to_hugging_face
from megatron_jobs.checkpoint.model import model_of, open_model
from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training
from megatron_jobs.checkpoint.tokenizer import check_tokenizer_of
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.precision import Precision
from megatron_jobs.errors import DataError
from megatron_jobs.model.build import DTYPES, build_model
from megatron_jobs.runtime.files import file_hash, read_json, whole_folder

TOLERANCE = 1e-4
"""Largest difference of logits in fp32 that is put down to rounding."""


def export_model(
    checkpoint: Path, out: Path, *, tokenizer: Path | None, dtype: Precision
) -> dict[str, float]:
    """Write a checkpoint as a Hugging Face folder and compare it with `transformers`.

    The embedding's padding stays behind: there is a row for each of `vocab_size` tokens.

    Args:
        tokenizer: the folder whose files go along, or its tokenizer.json.
        dtype: of the weights written; they are rounded to it, and so compared.
    Returns: what `compare_logits` found.
    Raises: DataError, and no folder, when the logits differ by more than rounding; UserError when
        the tokenizer is none, or not the one of the checkpoint.
    """
    if tokenizer is not None:
        tokenizer = tokenizer_folder(tokenizer)
        check_tokenizer_of(checkpoint, tokenizer)
    model = model_of(checkpoint)
    (chunk,) = open_model(checkpoint, Mesh(), "fp32")
    chunk.to(DTYPES[dtype]).float()  # what is compared is what is written
    tensors = {name: value.to(DTYPES[dtype]) for name, value in weights(chunk)}
    theirs = to_hugging_face(tensors, model, architecture_of(model))
    config = hugging_face_config(model, special_ids(tokenizer))
    tokens = probe_tokens(model.vocab_size, model.seq_len)
    with whole_folder(out) as part:
        write_hugging_face(part, theirs, config, tokenizer)
        found = compare_logits(
            our_logits(chunk, tokens, model.vocab_size), their_logits(part, tokens)
        )
        _refuse_if_different(found, out)
    return found


def import_model(
    source: Path,
    root: Path,
    *,
    precision: Precision,
    tokenizer: Path | None = None,
    pad_vocab_to: int = DIVISOR,
) -> dict[str, float]:
    """Write a Hugging Face folder as a checkpoint of weights alone, ROOT/step-00000000.

    Args:
        tokenizer: its folder or tokenizer.json, where that is not in `source`; its hash is noted.
        pad_vocab_to: the embedding gets a multiple of this many rows. A layout can load the
            checkpoint when its tensor ranks divide them, and it divides the rest of the model.
    Returns and raises as `export_model`.
    """
    noted = _tokenizer_hash(source, tokenizer)
    model, tensors = read_hugging_face(source, pad_vocab_to)
    (chunk,) = build_model(model, Mesh(), "fp32")
    _fill(dict(weights(chunk)), tensors, source)
    tokens = probe_tokens(model.vocab_size, model.seq_len)
    ours = our_logits(chunk, tokens, model.vocab_size)
    found = compare_logits(ours, their_logits(source, tokens))
    _refuse_if_different(found, root)
    chunk.to(DTYPES[precision])
    record = {
        "model": model.model_dump(mode="json"),
        "precision": precision,
        "tokenizer_hash": noted,
    }
    training = Training([chunk], None, {"world": 1, **Mesh().model_dump()})
    save_checkpoint(root, 0, training, record)
    return found


def _tokenizer_hash(source: Path, tokenizer: Path | None) -> str | None:
    if tokenizer is not None:
        return file_hash(tokenizer_folder(tokenizer) / TOKENIZER)
    return file_hash(source / TOKENIZER) if (source / TOKENIZER).is_file() else None


@torch.no_grad()
def _fill(own: dict[str, Tensor], tensors: dict[str, Tensor], source: Path) -> None:
    """Copy `tensors` into a model's `own`; DataError unless names and shapes are the same."""
    if set(own) != set(tensors):
        left = sorted(set(own) ^ set(tensors))
        raise DataError(f"{source}: {left[0]}: is in one of the two models only")
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            found = f"found {list(tensors[name].shape)}, its config.json asks for"
            raise DataError(f"{source}: {name}: {found} {list(value.shape)}")
        value.copy_(tensors[name])


def weights(chunk: Any) -> list[tuple[str, Tensor]]:
    """Names and tensors of a model, what megatron-core keeps beside them left out."""
    state = chunk.state_dict()
    return [(name, value) for name, value in state.items() if isinstance(value, Tensor)]


def special_ids(tokenizer: Path | None) -> dict[str, int | None]:
    """bos_token_id, eos_token_id and pad_token_id as a tokenizer's files name them."""
    ids: dict[str, int | None] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    if tokenizer is None or not (tokenizer / "tokenizer_config.json").exists():
        return ids
    settings = read_json(tokenizer / "tokenizer_config.json")
    added = read_json(tokenizer / "tokenizer.json")["added_tokens"]
    numbers = {token["content"]: token["id"] for token in added}
    for name in ids:
        token = settings.get(name.removesuffix("_id"))
        text = token.get("content") if isinstance(token, dict) else token
        ids[name] = numbers.get(text)
    return ids


def _refuse_if_different(found: dict[str, float], out: Path) -> None:
    difference = found["max_logit_difference"]
    if not difference < TOLERANCE * max(1.0, found["max_logit"]):
        rule = f"logits differ by {difference:.3g} (largest {found['max_logit']:.3g})"
        raise DataError(f"{out}: not written: {rule}; the two models are not the same")
