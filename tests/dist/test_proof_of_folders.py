"""The proof on what lies on disk: prompts of the folder's tokenizer, rounded weights, memory."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from megatron_jobs.checkpoint.fill import fill
from megatron_jobs.checkpoint.prompts import TEXTS, fixed_prompts
from megatron_jobs.checkpoint.proof import Proof, prove
from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.convert.families.llama import LLAMA
from megatron_jobs.convert.family import to_ours
from megatron_jobs.convert.proof_memory import PROMPTS, proof_bytes
from megatron_jobs.errors import DataError
from megatron_jobs.model.build import DTYPES, build_model
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests.family_models import read_model, read_tensors, saved_model
from tests.ranks import on_ranks

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def give_tokenizer(folder: Path) -> None:
    """Bytes as tokens, and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


def save_ours(folder: Path, root: Path, precision: Precision) -> None:
    """A checkpoint of the weights of a Llama of transformers; groups are open."""
    model, tensors = read_model("llama", folder)
    (chunk,) = build_model(model, Mesh(), seed=None)
    fill([chunk], tensors)
    record = {"model": model.model_dump(mode="json"), "precision": precision}
    training = Training([chunk.to(DTYPES[precision])], None, {"world": 1, **Mesh().model_dump()})
    save_checkpoint(root, 0, training, record)


def alone(work: Callable[[], Any]) -> Any:
    """What `work` returns on one connected rank."""

    def on_rank(rank: Rank) -> Any:
        open_groups(Mesh(), 0)
        return work()

    return on_ranks(1, on_rank)[0]


def test_a_folder_and_a_checkpoint(tmp_path: Path) -> None:
    """Rounded to what was written both are the same; as they lie they are not."""
    saved_model("llama", tmp_path / "theirs")
    give_tokenizer(tmp_path / "theirs")

    def work() -> tuple[Proof, Proof]:
        save_ours(tmp_path / "theirs", tmp_path / "ours", "bf16")
        right = prove(tmp_path / "ours", tmp_path / "theirs", dtype="bf16")
        return right, prove(tmp_path / "ours", tmp_path / "theirs", dtype="fp32")

    right, unrounded = alone(work)
    assert right.is_same()
    assert not unrounded.is_same()
    found = json.loads(json.dumps(right.record()))
    assert [answer["prompt"] for answer in found["answers"]] == ["probe", *TEXTS, "chat"]
    assert found["prompts"] == len(TEXTS) + 2 == PROMPTS + 1
    assert found["same_greedy_share"] == 1.0
    assert found["max_logit_difference"] < 1e-4 < found["max_logit"]
    assert abs(found["max_perplexity_difference"]) < 0.1
    right.check(tmp_path)
    with pytest.raises(DataError, match=r"logits differ by .*embedding: 300 of 300 rows are"):
        unrounded.check(tmp_path)


def test_perplexity_is_that_of_transformers(tmp_path: Path) -> None:
    plain = saved_model("llama", tmp_path)
    give_tokenizer(tmp_path)
    (_, english, *_) = fixed_prompts(tmp_path, 300, 64)
    with torch.no_grad():
        loss = plain(english.tokens, labels=english.tokens).loss  # type: ignore[operator]

    def work() -> Proof:
        save_ours(tmp_path, tmp_path / "ours", "fp32")
        return prove(tmp_path / "ours", tmp_path, dtype="fp32", prompts=[english])

    (answer,) = alone(work).answers
    assert answer.perplexity == pytest.approx(float(loss.exp()), rel=1e-5)


def test_a_tokenizer_of_another_model_is_named(tmp_path: Path) -> None:
    give_tokenizer(tmp_path)
    found = r"tokenizer: gives token \d+ for the prompt English, its model has 50 tokens"
    with pytest.raises(DataError, match=found):
        fixed_prompts(tmp_path, 50, 64)


def test_memory_is_what_is_said(tmp_path: Path) -> None:
    """One model at a time, and what is kept: for 29 million parameters, which two would exceed."""
    config = LlamaConfig(
        vocab_size=8000, hidden_size=512, intermediate_size=1024, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = ModelConfig(**LLAMA.settings(json.loads((tmp_path / "config.json").read_text())))
    tensors = to_ours(read_tensors(tmp_path), LLAMA, model)

    def save() -> None:
        (chunk,) = build_model(model, Mesh(), seed=None)
        fill([chunk], tensors)
        record = {"model": model.model_dump(mode="json"), "precision": "fp32"}
        training = Training([chunk], None, {"world": 1, **Mesh().model_dump()})
        save_checkpoint(tmp_path / "ours", 0, training, record)

    def work() -> tuple[bool, int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        same = prove(tmp_path / "ours", tmp_path, dtype="fp32").is_same()
        return same, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

    alone(save)
    same, used = alone(work)
    assert same
    assert used < proof_bytes(model) + 32 * 2**20
