"""Files of torch's with bytes changed, cut out or put in: refused in words, or read."""

import pickle
import random
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.bin_files import open_bin
from megatron_jobs.convert.legacy import open_legacy
from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.convert.pickles import read_pickle
from megatron_jobs.convert.torch_dist_in import open_checkpoint
from megatron_jobs.errors import DataError, UserError
from tests.fuzz import broken

ATTEMPTS = 250
SEED = 1
MOST_SECONDS = 5
MODEL = ModelConfig(layers=2, hidden=8, heads=2, ffn=16, vocab_size=30, pad_vocab_to=32, seq_len=8)


def weights() -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.word_embeddings.weight": (32, 8), "output_layer.weight": (32, 8),
        "decoder.final_layernorm.weight": (8,),
    }  # fmt: skip
    for layer in range(2):
        own = f"decoder.layers.{layer}."
        shapes |= {
            own + "self_attention.linear_qkv.layer_norm_weight": (8,),
            own + "self_attention.linear_qkv.weight": (24, 8),
            own + "self_attention.linear_proj.weight": (8, 8),
            own + "mlp.linear_fc1.layer_norm_weight": (8,),
            own + "mlp.linear_fc1.weight": (32, 8), own + "mlp.linear_fc2.weight": (8, 16),
        }  # fmt: skip
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def archive(root: Path, *, stream: bool = False) -> Path:
    path = root / "model.bin"
    torch.save(weights(), path, _use_new_zipfile_serialization=not stream)
    return path


def old_stream(root: Path) -> Path:
    return archive(root, stream=True)


def metadata(root: Path) -> Path:
    dcp.save(weights(), checkpoint_id=root, no_dist=True)
    return root / ".metadata"


def record(root: Path) -> Path:
    metadata(root)
    return root / "__0_0.distcp"


def ranks(root: Path) -> Path:
    folder = root / "mp_rank_00"
    folder.mkdir()
    args = Namespace(
        num_layers=2, hidden_size=8, num_attention_heads=2, ffn_hidden_size=16,
        padded_vocab_size=32, max_position_embeddings=8, swiglu=True, normalization="RMSNorm",
        position_embedding_type="rope", add_bias_linear=False, vocab_size=30,
        untie_embeddings_and_output_weights=True, make_vocab_size_divisible_by=32,
    )  # fmt: skip
    state = {"model": weights(), "args": args, "checkpoint_version": 3.0}
    path = folder / "model_optim_rng.pt"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


Opened = Callable[[Path], dict[str, Matrix]]
KINDS: dict[str, tuple[Callable[[Path], Path], Opened]] = {
    "archive": (archive, lambda root: open_bin(root / "model.bin")),
    "stream": (old_stream, lambda root: open_bin(root / "model.bin")),
    "metadata": (metadata, lambda root: open_checkpoint(root, MODEL)[0]),
    "record": (record, lambda root: open_checkpoint(root, MODEL)[0]),
    "ranks": (ranks, lambda root: open_legacy(root)[0]),
}


def tried(read: Callable[[], Any]) -> tuple[str, Any]:
    """The words with which something is refused, and what is read; other errors are raised."""
    try:
        return "", read()
    except (DataError, UserError) as error:
        return str(error), {}


def check_whole(found: dict[str, Matrix]) -> None:
    """All its numbers can be read."""
    assert all(matrix.array().shape == matrix.shape for matrix in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_are_refused_in_words_or_read(tmp_path: Path, kind: str) -> None:
    make, opened = KINDS[kind]
    path = make(tmp_path)
    data = path.read_bytes()
    whole = {name: matrix.shape for name, matrix in opened(tmp_path).items()}
    draw = random.Random(f"{kind} {SEED}")
    refused = 0
    for _ in range(ATTEMPTS):
        path.unlink()  # mapped still, perhaps
        path.write_bytes(broken(data, data, draw))
        start = time.monotonic()
        words, found = tried(lambda: opened(tmp_path))
        assert time.monotonic() - start < MOST_SECONDS
        assert len(words) < 1000
        assert not words or words.startswith(str(tmp_path))
        refused += bool(words)
        check_whole(found)
        if kind in ("archive", "record") and not words:
            assert {name: matrix.shape for name, matrix in found.items()} == whole
    assert refused > ATTEMPTS // 4


PICKLED: list[Any] = [
    {"a": [1, 2.5, "é", None, (True, b"x")], "b": {1, 2}, "c": {"d": [{}] * 3}},
    [list(range(50)), {str(n): -n for n in range(50)}, 2**100, "x" * 300],
    Namespace(a=1, b=[Path("/a/b")]),
]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_broken_pickles_are_refused_in_words_or_read(protocol: int) -> None:
    draw = random.Random(f"{protocol} {SEED}")
    for value in PICKLED:
        data = pickle.dumps(value, protocol)
        for _ in range(4 * ATTEMPTS):
            attempt = broken(data, data, draw)
            assert len(tried(partial(read_pickle, attempt, "w"))[0]) < 1000


def test_any_bytes_are_refused_in_words_or_read() -> None:
    draw = random.Random(SEED)
    codes = b"()]}.012abcdegdhilpqrstuBCGIJKLMNRSTUVXQ" + bytes([*range(0x80, 0x98)])
    for _ in range(20 * ATTEMPTS):
        attempt = bytes(draw.choice(codes) for _ in range(draw.randrange(40))) + b"."
        assert len(tried(partial(read_pickle, attempt, "w"))[0]) < 1000
