"""GGUF files of ours as others read them: formats of tensors, values, metadata."""

from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from megatron_jobs.convert.files import write_files
from megatron_jobs.convert.gguf_in import open_gguf
from megatron_jobs.convert.gguf_kinds import KINDS, Bounded, Dequantised, Quantised
from megatron_jobs.convert.gguf_out import FILE_TYPES, GgufFormat, plan_gguf
from megatron_jobs.convert.matrix import Rows, Stored
from megatron_jobs.errors import UserError
from tests.family_models import read_tensors
from tests.gguf_files import case_folder, write_case


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("source", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_blocks_of_pieces_are_those_of_the_whole(name: str, source: type) -> None:
    kind = KINDS[name]
    numbers = np.random.default_rng(3).standard_normal((1001, 544)).astype(source)
    numbers[7] = 0
    whole = quants.quantize(numbers.astype(np.float32), GGMLQuantizationType(kind.number))
    made = Quantised(Stored(numbers), kind)
    assert made.bytes == whole.nbytes
    assert len(list(made.read(0, 1001))) > 1
    assert np.array_equal(made.array(), whole)
    turned = Quantised(Stored(np.asfortranarray(numbers)), kind)
    assert np.array_equal(turned.array(), whole)
    part = Dequantised(Rows(made, 90, (800, made.columns)), kind, (800, 544))
    expected = quants.dequantize(whole, GGMLQuantizationType(kind.number))[90:890]
    assert np.array_equal(part.array(), expected)


@pytest.mark.parametrize("form", FILE_TYPES)
def test_kinds_and_values_by_the_packages_reader(form: GgufFormat, tmp_path: Path) -> None:
    path = write_case("olmo2", tmp_path, form)
    before = {
        t.name: t for t in gguf.GGUFReader(write_case("olmo2", tmp_path / "a", "f32")).tensors
    }
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.file_type"].contents() == FILE_TYPES[form]
    assert [t.name for t in reader.tensors] == list(before)
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        narrow = tensor.shape[0] % 32 and form in ("q8_0", "q4_0")
        last = "Q8_0" if form == "q4_0" and tensor.name == "output.weight" else form.upper()
        wide = tensor.name.endswith("norm.weight")
        assert kind == ("F32" if wide else "F16" if narrow else last), tensor.name
        numbers = before[tensor.name].data
        expected = quants.quantize(numbers, tensor.tensor_type)
        assert np.array_equal(tensor.data, expected), tensor.name


def test_routers_and_positions_stay_fp32(tmp_path: Path) -> None:
    kinds = open_gguf(write_case("qwen2_moe", tmp_path / "a", "f16")).file.kinds
    assert kinds["blk.0.ffn_gate_inp.weight"] == kinds["blk.0.ffn_gate_inp_shexp.weight"] == "F32"
    assert kinds["blk.0.ffn_gate_exps.weight"] == "F16"
    kinds = open_gguf(write_case("gpt2", tmp_path / "b", "q8_0")).file.kinds
    assert kinds["position_embd.weight"] == kinds["blk.0.attn_qkv.bias"] == "F32"


def test_a_tied_embedding_is_the_last_layer_of_q4_0(tmp_path: Path) -> None:
    kinds = open_gguf(write_case("gpt2", tmp_path, "q4_0")).file.kinds
    assert kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.attn_qkv.weight"] == "Q4_0"


def test_a_number_that_fp16_cannot_hold_is_named(tmp_path: Path) -> None:
    config = case_folder("llama", tmp_path)
    tensors = read_tensors(tmp_path)
    odd = tensors["model.layers.2.mlp.up_proj.weight"].array()
    odd[3, 5] = -70000
    tensors["model.layers.2.mlp.up_proj.weight"] = Stored(odd)
    plans = plan_gguf(tensors, config, "a.gguf", form="f16")
    rule = "blk.2.ffn_up.weight: found 70000; fp16 ends at 65504; bf16, f32 and q8_0 hold it"
    with pytest.raises(UserError, match=rule):
        write_files(plans, tmp_path / "out", key=lambda: "key")
    assert not (tmp_path / "out").exists()


def test_no_number_stays_none_in_fp16() -> None:
    odd = np.array([[np.nan, 1.0]], np.float32)
    assert np.isnan(Bounded(Stored(odd), "a").array()[0, 0])


def test_files_of_two_formats_are_read_as_fp32(tmp_path: Path) -> None:
    found = open_gguf(write_case("mistral", tmp_path, "q8_0"))  # rows of 48 stay fp16
    kinds = {found.file.kinds[f"blk.0.ffn_{name}.weight"] for name in ("up", "down")}
    assert kinds == {"Q8_0", "F16"}
    assert {matrix.dtype for matrix in found.tensors.values()} == {np.dtype(np.float32)}
