"""DeepSeek's latent attention as GGUF and back, by the formulas of llama.cpp's converter."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from megatron_jobs.convert.gguf_check import check_gguf
from megatron_jobs.convert.gguf_in import hugging_face_of, open_gguf
from megatron_jobs.convert.gguf_latent import TurnedGroups, apart, together
from megatron_jobs.convert.gguf_out import GgufFormat, gguf_remarks, plan_gguf
from megatron_jobs.convert.matrix import Matrix, Rows, Stored
from megatron_jobs.errors import DataError, UserError
from tests.family_models import read_tensors
from tests.gguf_files import case_folder, write_case

HEADS, KEYS, VALUES, LATENT = 3, 5, 4, 70
CONFIG = {
    "num_attention_heads": HEADS,
    "qk_nope_head_dim": KEYS,
    "v_head_dim": VALUES,
    "kv_lora_rank": LATENT,
}
BLOCK = "blk.0.attn_"


def halves() -> tuple[np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]:
    """kv_b_proj, and what llama.cpp's converter makes of it (DeepseekV2Model.modify_tensors)."""
    whole = np.random.default_rng(2).standard_normal((HEADS * (KEYS + VALUES), LATENT))
    heads = torch.from_numpy(whole).view(HEADS, KEYS + VALUES, LATENT)
    keys, values = heads.split([KEYS, VALUES], dim=1)
    return whole, {"k_b.weight": keys.transpose(1, 2).numpy(), "v_b.weight": values.numpy()}


def test_what_is_both_lies_in_two() -> None:
    whole, expected = halves()
    found = apart({BLOCK + "kv_b.weight": Stored(whole), "other": Stored(whole)}, CONFIG)
    assert set(found) == {BLOCK + name for name in expected} | {"other"}
    for name, array in expected.items():
        assert np.array_equal(found[BLOCK + name].array(), array)
    back = together(found, CONFIG)
    assert set(back) == {BLOCK + "kv_b.weight", "other"}
    assert np.array_equal(back[BLOCK + "kv_b.weight"].array(), whole)
    for start in range(0, len(whole), 4):  # parts of heads
        part = Rows(back[BLOCK + "kv_b.weight"], start, (3, LATENT)).array()
        assert np.array_equal(part, whole[start : start + 3])


def test_halves_of_two_formats_are_joined_in_fp32() -> None:
    whole, expected = halves()
    kinds = {"k_b.weight": np.float16, "v_b.weight": np.float32}
    parts: dict[str, Matrix] = {
        BLOCK + name: Stored(array.astype(kinds[name])) for name, array in expected.items()
    }
    found = together(parts, CONFIG)[BLOCK + "kv_b.weight"]
    assert found.dtype == np.float32
    assert np.abs(found.array() - whole).max() < 2e-3
    del parts[BLOCK + "k_b.weight"]
    with pytest.raises(DataError, match=r"blk.0.attn_k_b.weight: missing"):
        together(parts, CONFIG)
    with pytest.raises(DataError, match=r"v_b.weight: found \[3, 4, 70\], .* ask for \[3, 6, 70\]"):
        together({BLOCK + n: Stored(a) for n, a in expected.items()}, CONFIG | {"v_head_dim": 6})


@pytest.mark.parametrize("groups", [1, 4])
def test_groups_are_turned_a_part_at_a_time(groups: int) -> None:
    array = np.arange(groups * 6 * 7).reshape(groups * 6, 7)
    turned = TurnedGroups(Stored(array), groups)
    expected = array.reshape(groups, 6, 7).swapaxes(1, 2).reshape(-1, 6)
    for start in range(turned.rows):
        for stop in range(start, turned.rows + 1):
            found = [piece.copy() for piece in turned.read(start, stop)]
            assert np.array_equal(np.concatenate([*found, expected[:0]]), expected[start:stop])


def fields_of(path: Path) -> dict[str, Any]:
    fields = gguf.GGUFReader(path).fields
    return {key.removeprefix("deepseek2."): field.contents() for key, field in fields.items()}


def test_metadata_are_those_of_llama_cpps_converter(tmp_path: Path) -> None:
    path = write_case("deepseek_v3", tmp_path, "f16")
    found = fields_of(path)
    expected = {
        "attention.head_count": 4, "attention.head_count_kv": 1, "attention.q_lora_rank": 12,
        "attention.kv_lora_rank": 20, "attention.key_length": 26, "attention.value_length": 20,
        "attention.key_length_mla": 16, "attention.value_length_mla": 14,
        "rope.dimension_count": 6, "rope.scaling.type": "yarn", "leading_dense_block_count": 1,
        "expert_count": 8, "expert_used_count": 3, "expert_shared_count": 2,
        "expert_feed_forward_length": 24, "expert_group_count": 4, "expert_group_used_count": 2,
        "expert_gating_func": gguf.ExpertGatingFuncType.SIGMOID, "expert_weights_scale": 2.5,
        "expert_weights_norm": True,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["rope.scaling.yarn_log_multiplier"] == pytest.approx(0.0707)
    kinds = open_gguf(path).file.kinds
    assert kinds["blk.1.exp_probs_b.bias"] == kinds["blk.1.ffn_gate_inp.weight"] == "F32"
    assert kinds["blk.1.attn_k_b.weight"] == "F16"
    older = fields_of(write_case("deepseek_v2 lite", tmp_path / "lite"))
    assert older["expert_gating_func"] == gguf.ExpertGatingFuncType.SOFTMAX
    assert "expert_group_count" not in older
    assert "attention.q_lora_rank" not in older


def test_files_from_before_the_halves_are_read(tmp_path: Path) -> None:
    new = open_gguf(write_case("deepseek_v2", tmp_path))
    whole = together(new.file.tensors, new.config)
    old = dict(new.file.metadata)
    for name in ("key", "value"):
        old[f"deepseek2.attention.{name}_length"] = old.pop(
            f"deepseek2.attention.{name}_length_mla"
        )
    del old["deepseek2.expert_gating_func"]
    file = type(new.file)(new.file.path, old, whole, {})
    config, tensors = hugging_face_of(file)
    assert config == new.config
    for name, matrix in tensors.items():
        assert np.array_equal(matrix.array(), new.tensors[name].array())


@pytest.mark.parametrize("name", ["deepseek_v2", "gpt2"])
@pytest.mark.parametrize("form", ["q8_0", "q4_0"])
def test_blocks_that_run_along_columns_are_checked(
    name: str, form: GgufFormat, tmp_path: Path
) -> None:
    sizes = {"n_embd": 64, "n_inner": 96} if name == "gpt2" else {}
    sizes |= {"qk_nope_head_dim": 32, "v_head_dim": 32, "kv_lora_rank": 64} if not sizes else {}
    path = write_case(name, tmp_path, form, odd=sizes)
    tensors = read_tensors(tmp_path)
    assert check_gguf(path, tensors, form) > len(tensors) / 10
    assert open_gguf(path).file.kinds["blk.0.ffn_up.weight"] != "F16"


def test_what_llama_cpp_computes_otherwise_is_refused_or_said(tmp_path: Path) -> None:
    config = case_folder("deepseek_v2", tmp_path)
    tensors = read_tensors(tmp_path)
    said = gguf_remarks(tensors, config, "f16")
    assert said[0].startswith("llama.cpp chooses groups of experts by the sum of the best two")
    assert len(said) == 1
    bare = config | {"q_lora_rank": None}
    assert "without q_lora_rank; this one has 4" in gguf_remarks(tensors, bare, "f16")[1]
    with pytest.raises(UserError, match=r"rms_norm_eps: found 0.0001; in GGUF .* has 1e-06"):
        plan_gguf(tensors, config | {"rms_norm_eps": 1e-4}, "a")
    for scales in ({"mscale": 0.7}, {"mscale": None, "mscale_all_dim": None}):
        rope = config["rope_parameters"] | scales
        with pytest.raises(UserError, match=r"mscale .*: llama.cpp takes both to be one number"):
            plan_gguf(tensors, config | {"rope_parameters": rope}, "a")
    with pytest.raises(UserError, match="'linear': in GGUF a deepseek2 has default and yarn"):
        rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
        plan_gguf(tensors, config | {"rope_parameters": rope}, "a")
