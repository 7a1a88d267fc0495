"""Every family computes what transformers computes, however it is cut, decoded or trained.

Axis letters: B sequences, S positions, V tokens of the vocabulary.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from megatron_jobs.checkpoint.fill import fill
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.model.build import build_model
from megatron_jobs.model.decode import Decoder
from megatron_jobs.model.logits import whole_logits
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests.family_models import CASES, VOCAB, probe_tokens, read_model, saved_model
from tests.ranks import on_ranks

CLOSE = {"rtol": 0.0, "atol": 1e-4}
PROMPT = 20
CUT = Mesh(tensor=2, pipeline=2)
CUT_SPARSE = Mesh(tensor=2, pipeline=2, sequence_parallel=True)
DEALT = Mesh(tensor=2, expert=2, sequence_parallel=True)


def filled(name: str, folder: Path, mesh: Mesh) -> list[nn.Module]:
    """This rank's chunks of the model that `folder` holds."""
    open_groups(mesh, seed=1)
    model, tensors = read_model(name, folder)
    assert not list(model.mesh_problems(mesh))
    chunks: list[nn.Module] = build_model(model, mesh, seed=None)
    fill(chunks, tensors)
    return [chunk.eval() for chunk in chunks]


@torch.no_grad()
def logits_of(chunk: nn.Module, tokens_BS: Tensor) -> Tensor:
    """[B, S, V] of a model on one rank."""
    positions_BS = torch.arange(tokens_BS.size(1)).expand_as(tokens_BS)
    logits: Tensor = chunk(tokens_BS, positions_BS, None)
    return logits[..., :VOCAB]


@pytest.mark.parametrize("name", CASES)
def test_logits_and_decoding_and_gradients(name: str, tmp_path: Path) -> None:
    """One rank, in one go: a case costs one start of its processes."""
    plain = saved_model(name, tmp_path)
    with torch.no_grad():
        expected = plain(probe_tokens()).logits

    def work(rank: Rank) -> tuple[Tensor, list[str]]:
        (chunk,) = filled(name, tmp_path, Mesh())
        logits = logits_of(chunk, probe_tokens())
        check_decoding(chunk)
        return logits, odd_gradients(chunk)

    ((found, odd),) = on_ranks(1, work)
    assert not odd
    print(f"{name}: largest difference {float((found - expected).abs().max()):.1e}")
    assert_close(found, expected, **CLOSE)
    assert expected.std() > 0.01, "a model that says nothing proves nothing"


def check_decoding(chunk: nn.Module) -> None:
    """Greedy tokens with a cache are those of computing everything again, as are their logits."""
    tokens = probe_tokens(PROMPT)
    decoder = Decoder(chunk, sequences=2, length=PROMPT + 16, vocab_size=VOCAB)
    added = tokens
    for _ in range(16):
        logits, whole = decoder.add(added), logits_of(chunk, tokens)[:, -1]
        assert_close(logits, whole, **CLOSE)
        added = logits.argmax(-1, keepdim=True)
        assert torch.equal(added[:, 0], whole.argmax(-1))
        tokens = torch.cat([tokens, added], 1)


def odd_gradients(chunk: nn.Module) -> list[str]:
    """Names of parameters that one step of training gives no finite gradient."""
    chunk.train()
    tokens = probe_tokens()
    positions = torch.arange(tokens.size(1)).expand_as(tokens)
    chunk(tokens, positions, None, labels=tokens.roll(-1, 1)).mean().backward()
    named = chunk.named_parameters()
    return [n for n, p in named if p.grad is None or not bool(p.grad.isfinite().all())]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.cut])
def test_two_tensor_ranks_of_two_stages_say_the_same(name: str, tmp_path: Path) -> None:
    mesh = CUT_SPARSE if CASES[name].sparse else CUT
    found, expected = cut_logits(name, tmp_path, mesh)
    assert len(found) == 2, "of both tensor ranks of the last stage"
    for logits in found:
        assert_close(logits[..., :VOCAB], expected, **CLOSE)


@pytest.mark.parametrize("name", ["qwen2_moe", "deepseek_v3"])
def test_experts_dealt_to_two_ranks_and_cut_over_two_say_the_same(
    name: str, tmp_path: Path
) -> None:
    found, expected = cut_logits(name, tmp_path, DEALT)
    assert len(found) == 4
    for logits in found:
        assert_close(logits[..., :VOCAB], expected, **CLOSE)


def cut_logits(name: str, folder: Path, mesh: Mesh) -> tuple[list[Tensor], Tensor]:
    """What each of four ranks that has an output layer says, and what transformers says."""
    plain = saved_model(name, folder)
    with torch.no_grad():
        expected = plain(probe_tokens()).logits

    def work(rank: Rank) -> Tensor | None:
        return whole_logits(filled(name, folder, mesh), probe_tokens())

    return [logits for logits in on_ranks(4, work) if logits is not None], expected
