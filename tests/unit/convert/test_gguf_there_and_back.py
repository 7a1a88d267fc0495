"""Models of transformers as GGUF and back; names, orders and settings by other readers' rules."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from megatron_jobs.convert.families import FAMILIES
from megatron_jobs.convert.family import to_ours, to_theirs
from megatron_jobs.convert.files import write_files
from megatron_jobs.convert.gguf_changes import Shuffled, to_gguf, to_hugging_face
from megatron_jobs.convert.gguf_in import open_gguf
from megatron_jobs.convert.gguf_kinds import Added
from megatron_jobs.convert.gguf_names import ARCHITECTURES, FACTORS
from megatron_jobs.convert.gguf_out import gguf_remarks, plan_gguf
from megatron_jobs.convert.gguf_rope import llama3_factors
from megatron_jobs.convert.hugging_face import described
from megatron_jobs.convert.matrix import DTYPES, Matrix, Stored
from megatron_jobs.errors import DataError, UserError
from tests.family_models import LLAMA3, family_of, probe_tokens, read_tensors
from tests.gguf_files import IN_GGUF, case_folder, ill_named, write_case

READ_BY_TRANSFORMERS = (
    *("llama", "llama linear", "qwen2", "qwen3", "phi3", "gpt2", "gemma2", "gemma3"),
    *("qwen2_moe", "qwen3_moe"),
)


@pytest.mark.parametrize("name", IN_GGUF)
def test_every_bit_and_every_setting_comes_back(name: str, tmp_path: Path) -> None:
    path = write_case(name, tmp_path)
    before, found = read_tensors(tmp_path), open_gguf(path)
    assert set(found.tensors) == set(before)
    for key, matrix in before.items():
        theirs = found.tensors[key].array()
        if "gemma" in name and key.endswith("norm.weight"):  # kept as 1 + w
            assert np.abs(theirs - matrix.array()).max() <= 2**-24, key
        else:
            assert np.array_equal(theirs, matrix.array()), key
    assert not ill_named(path)
    config = json.loads((tmp_path / "config.json").read_text())
    model, again = described(config, "a").model, described(found.config, "b").model
    same = {"head_dim": 0, "kv_heads": 0, "dropout": 0, "attention_dropout": 0}
    assert model.model_dump() | same == again.model_dump() | same
    assert (model.head_size(), model.groups()) == (again.head_size(), again.groups())


@pytest.mark.parametrize("name", READ_BY_TRANSFORMERS)
def test_transformers_reads_the_same_tensors(name: str, tmp_path: Path) -> None:
    path = write_case(name, tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    model = getattr(transformers, family_of(name).architecture)(config)
    found = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    own = getattr(transformers, family_of(name).architecture).from_pretrained(tmp_path)
    expected = own.state_dict()
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    assert set(found) == set(expected) - tied
    for key, tensor in found.items():
        assert torch.allclose(tensor, expected[key].float(), rtol=0, atol=2**-24), key


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_names_are_those_of_the_package(model_type: str) -> None:
    """Its table maps names of Hugging Face's, written for llama.cpp's own converter."""
    architecture = ARCHITECTURES[model_type]
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture.name], 3)
    for line in architecture.lines:
        theirs = line.theirs.replace("_correction_bias", "_correction.bias")
        theirs, _, end = theirs.format(layer=2, expert="X").rpartition(".")
        theirs = theirs.replace("experts.X.", "experts.")
        assert f"{names.get_name(theirs)}.{end}" == line.gguf.format(layer=2)


def test_every_family_has_a_table() -> None:
    assert {family.model_type for family in FAMILIES.values()} == set(ARCHITECTURES)


def test_heads_are_turned_as_llama_cpp_turns_them() -> None:
    """By its converter's formula (LlamaModel.permute), for weights and biases."""
    config = {"num_attention_heads": 4, "num_key_value_heads": 2}
    for heads, change in ((4, "queries"), (2, "keys")):
        for shape in ((heads * 6, 5), (heads * 6,)):
            theirs = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            expected = theirs.reshape(heads, 2, 3, *shape[1:]).swapaxes(1, 2).reshape(shape)
            made = to_gguf(Stored(theirs), change, config)  # type: ignore[arg-type]
            assert np.array_equal(made.array(), expected)
            back = to_hugging_face(made, change, config)  # type: ignore[arg-type]
            assert np.array_equal(back.array(), theirs)
            parts = [list(made.read(at, at + 3)) for at in range(len(theirs) - 3)]
            for at, pieces in enumerate(parts):
                assert np.array_equal(
                    np.concatenate(pieces), made.array().reshape(heads * 6, -1)[at : at + 3]
                )


def test_large_groups_are_read_in_pieces() -> None:
    array = np.random.default_rng(0).standard_normal((64, 70_000)).astype(np.float32)
    order = np.random.default_rng(1).permutation(8)
    found = Shuffled(Stored(array), order)
    assert np.array_equal(found.array().reshape(8, 8, -1), array.reshape(8, 8, -1)[:, order])


def test_neox_is_laid_as_llama_cpp_lays_it() -> None:
    """By its converter's formula (GPTNeoXModel.modify_tensors): q, k, v of all heads."""
    theirs = np.random.default_rng(0).standard_normal((4 * 3 * 2, 8)).astype(np.float32)
    grouped = theirs.reshape(4, 3, 2, 8)
    expected = np.concatenate([grouped[:, part].reshape(-1, 8) for part in range(3)])
    made = to_gguf(Stored(theirs), "neox", {"num_attention_heads": 4})
    assert np.array_equal(made.array(), expected)


@pytest.mark.parametrize("bits", [0, 15, 16])
def test_one_comes_off_without_loss(bits: int) -> None:
    """Of bf16 from 2^-16 on; below that within 2^-24, as the docstring says."""
    every = np.arange(1 << 16, dtype=np.uint16).view(DTYPES["bf16"])
    finite = every[np.isfinite(every.astype(np.float32))]
    size = np.abs(finite.astype(np.float64))
    kept = finite[(size >= 2.0**-bits) & (size < 2**16) | (size == 0)] if bits else finite
    back = Added(Added(Stored(kept), 1), -1).array()
    if bits:
        assert np.array_equal(back, kept.astype(np.float32))
    else:
        small = np.abs(kept.astype(np.float64)) < 2.0**-16
        assert np.abs(back[small] - kept[small].astype(np.float64)).max() <= 2.0**-24


@pytest.mark.parametrize(("factor", "length", "head"), [(8.0, 8192, 128), (32.0, 8192, 64)])
def test_llama3s_scaling_is_known_by_its_factors(factor: float, length: int, head: int) -> None:
    rope = {"rope_theta": 500000.0, "factor": factor, "original_max_position_embeddings": length}
    config = transformers.LlamaConfig(
        hidden_size=head, num_attention_heads=1, rope_parameters=LLAMA3 | rope
    )
    inverse, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 500000.0 ** (np.arange(0, head, 2) / head)
    assert np.allclose(llama3_factors(rope, head), plain / inverse.numpy(), rtol=1e-5)


def test_a_tensor_too_many_or_too_few_is_named(tmp_path: Path) -> None:
    path = write_case("llama", tmp_path)
    config, tensors = open_gguf(path).config, read_tensors(tmp_path)
    with pytest.raises(DataError, match=r"1 tensors have no place in GGUF: odd"):
        plan_gguf(tensors | {"odd": tensors["lm_head.weight"]}, config, "a")
    short = {k: m for k, m in tensors.items() if "layers.1.mlp.up" not in k}
    with pytest.raises(DataError, match=r"layers.1.mlp.up_proj.weight: missing; it makes blk.1.ff"):
        plan_gguf(short, config, "a")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with pytest.raises(DataError, match=r"blk.1.ffn_up.weight: missing"):
        open_gguf(path)
    path.write_bytes(raw.replace(b"blk.3.", b"blk.4."))
    with pytest.raises(DataError, match="block_count 4, tensors of 5 layers"):
        open_gguf(path)
    path.write_bytes(raw.replace(b"output.weight", b"outpux.weight", 1))
    with pytest.raises(DataError, match=r"tensors have no place in a llama|missing"):
        open_gguf(path)


def test_what_gguf_cannot_say_is_refused(tmp_path: Path) -> None:
    config = case_folder("gemma2", tmp_path)
    tensors = read_tensors(tmp_path)
    with pytest.raises(UserError, match="as GGUF it would be read as None"):
        plan_gguf(tensors, config | {"query_pre_attn_scalar": 24}, "a")
    with pytest.raises(UserError, match=r"config.json: hidden_activation: found 'gelu'"):
        plan_gguf(tensors, config | {"hidden_activation": "gelu"}, "a")
    with pytest.raises(
        UserError, match="model_type 'mpt': no GGUF table; there are bert, deepseek"
    ):
        plan_gguf(tensors, {"model_type": "mpt"}, "a")


def test_factors_have_no_other_name() -> None:
    lines = {line.gguf for a in ARCHITECTURES.values() for line in a.lines}
    assert not lines & set(FACTORS)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ours_and_back_are_bit_equal(precision: str, tmp_path: Path) -> None:
    path = write_case("llama", tmp_path, form="q8_0")
    found = open_gguf(path)
    what = described(found.config, str(path))
    dtype = DTYPES[precision]
    tensors: dict[str, Matrix] = {
        name: Stored(matrix.array().astype(dtype)) for name, matrix in found.tensors.items()
    }
    ours = to_ours(tensors, what.family, what.model)
    back = to_theirs(ours, what.family, what.model)
    form = "f32" if precision == "fp32" else "bf16"
    plans = plan_gguf(back, found.config, "b.gguf", form=form)  # type: ignore[arg-type]
    write_files(plans, tmp_path / "again", key=lambda: "key")
    again = open_gguf(tmp_path / "again" / "b.gguf")
    for name, matrix in tensors.items():
        assert again.tensors[name].array().astype(dtype).tobytes() == matrix.array().tobytes()


def test_logits_of_fp16_are_those_of_the_model_to_rounding(tmp_path: Path) -> None:
    path = write_case("llama", tmp_path, form="f16")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        before = model(probe_tokens()).logits
        found = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)
        for name, tensor in model.state_dict().items():
            tensor.copy_(found["tensors"][name])
        after = model(probe_tokens()).logits
    assert 0 < float((after - before).abs().max()) < 2e-3 * float(before.abs().max())


def test_remarks(tmp_path: Path) -> None:
    config = case_folder("mistral", tmp_path)
    said = gguf_remarks(read_tensors(tmp_path), config, "q8_0")
    assert said[0].startswith("4 matrices stay fp16, they have rows that are no whole blocks of 32")
    assert said[1] == "llama.cpp sees all tokens where this model sees the last 7"
    assert gguf_remarks(read_tensors(tmp_path), config | {"sliding_window": None}, "f16") == []
