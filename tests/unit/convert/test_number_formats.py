"""Models whose tensors are of several number formats, and formats that cannot be taken."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron_jobs.checkpoint.model import open_model, precision_of
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.convert.matrix import Converted, Stored
from megatron_jobs.errors import DataError
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.convert import Config, convert
from tests.family_models import saved_model
from tests.ranks import on_ranks

Tensors = dict[str, Tensor]
FILE = "model.safetensors"
BF16 = np.dtype(ml_dtypes.bfloat16)


def model_with(folder: Path, change: Callable[[str, Tensor], Tensor]) -> Tensors:
    """A small Llama in bf16, but for what `change` makes of it."""
    saved_model("llama", folder)
    found = {name: value.bfloat16() for name, value in load_file(folder / FILE).items()}
    found = {name: change(name, value).contiguous() for name, value in found.items()}
    save_file(found, folder / FILE, metadata={"format": "pt"})
    return found


def converted(source: Path, out: Path, **settings: object) -> None:
    convert(Config(source=source, proof="tensors", **settings), out)


@pytest.mark.parametrize("part", ["norm", "layers.1."])
def test_each_tensor_stays_as_it_is(part: str, tmp_path: Path) -> None:
    theirs = model_with(tmp_path / "theirs", lambda n, v: v.float() if part in n else v)
    converted(tmp_path / "theirs", tmp_path / "ours", mesh={"tensor": 2, "pipeline": 2})
    assert precision_of(tmp_path / "ours") == "bf16"
    converted(tmp_path / "ours", tmp_path / "back")
    back = load_file(tmp_path / "back" / FILE)
    assert {value.dtype for value in back.values()} == {torch.float32, torch.bfloat16}
    for name, value in theirs.items():
        assert back[name].dtype == value.dtype, name
        assert torch.equal(back[name], value), name


def test_megatron_core_loads_several_formats(tmp_path: Path) -> None:
    theirs = model_with(tmp_path / "theirs", lambda n, v: v.float() + 1e-4 if "norm" in n else v)
    converted(tmp_path / "theirs", tmp_path / "ours", mesh={"tensor": 2})

    def load(rank: Rank) -> Tensors:
        open_groups(Mesh(), 0)
        (chunk,) = open_model(tmp_path / "ours", Mesh(), "fp32")
        return {name: value.detach() for name, value in chunk.named_parameters()}

    (found,) = on_ranks(1, load)
    norm, wanted = (
        "decoder.layers.2.input_layernorm.weight",
        "model.layers.2.input_layernorm.weight",
    )
    assert torch.equal(found[norm], theirs[wanted])
    rows, wanted = "decoder.layers.2.mlp.linear_fc2.weight", "model.layers.2.mlp.down_proj.weight"
    assert torch.equal(found[rows], theirs[wanted].float())


def test_parts_of_one_tensor_in_two_formats(tmp_path: Path) -> None:
    theirs = model_with(tmp_path / "theirs", lambda n, v: v.float() if "q_proj" in n else v)
    found = r"q_proj.weight \[32, 32\] float32, .*k_proj.weight \[16, 32\] bfloat16.*set dtype"
    with pytest.raises(DataError, match=found):
        converted(tmp_path / "theirs", tmp_path / "ours")
    converted(tmp_path / "theirs", tmp_path / "ours", dtype="bf16")
    converted(tmp_path / "ours", tmp_path / "back")
    back = load_file(tmp_path / "back" / FILE)
    assert all(torch.equal(back[name], value.bfloat16()) for name, value in theirs.items())


def test_weights_that_are_integers_are_refused(tmp_path: Path) -> None:
    model_with(tmp_path / "theirs", lambda n, v: v.to(torch.int8) if "up_proj" in n else v)
    with pytest.raises(DataError, match=r"up_proj.weight: found int8; weights are floating"):
        converted(tmp_path / "theirs", tmp_path / "ours")


def test_numbers_that_fp16_cannot_hold(tmp_path: Path) -> None:
    def change(name: str, value: Tensor) -> Tensor:
        return value.masked_fill(value == value.max(), -1e5) if "o_proj" in name else value

    model_with(tmp_path / "theirs", change)
    for kind in ("hugging_face", "checkpoint"):
        found = r"linear_proj.weight: found -99840; fp16 ends at 65504; use bf16"
        with pytest.raises(DataError, match=found):
            converted(tmp_path / "theirs", tmp_path / kind, to=kind, dtype="fp16")


def test_fp16_keeps_what_was_infinite_and_the_largest() -> None:
    values = np.array([[65504.0, -65519.0, np.inf, -np.inf, np.nan, 1e-9]], np.float32)
    found = Converted(Stored(values), np.dtype(np.float16)).array()
    np.testing.assert_array_equal(
        found, np.array([[65504, -65504, np.inf, -np.inf, np.nan, 0]], np.float16)
    )
    with pytest.raises(DataError, match="found 65520"):
        Converted(Stored(np.array([[1.0, 65520.0]], np.float32)), np.dtype(np.float16)).array()
