"""Conversion as a stage: every family there and back, other layouts, what goes along, refusals."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron_jobs.checkpoint.manifest import find_checkpoint, read_manifest
from megatron_jobs.checkpoint.model import model_of
from megatron_jobs.convert.families import FAMILIES
from megatron_jobs.convert.families.llama import LLAMA
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import file_hash
from megatron_jobs.runtime.rank import ALONE
from megatron_jobs.stages.convert import Config, convert, run
from tests.encoder_models import bert, t5
from tests.family_models import CASES, saved_model
from tests.plain_checkpoints import save_plain
from tests.ranks import apart
from tests.unit.convert.test_torch_dist_in import EXPERTS

CUT = {"tensor": 2, "pipeline": 2}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
             "chat_template.jinja", "added_tokens.json", "generation_config.json",
             "tokenizer.model", "special_tokens_map.json", "tekken.json",
             "additional_chat_templates/rag.jinja")  # fmt: skip

ENCODERS: dict[str, Callable[[], Any]] = {
    "bert": lambda: bert("BertForMaskedLM"),
    "bert without heads": lambda: bert("BertModel"),
    "t5": lambda: t5("1.0"),
    "t5 1.1": lambda: t5("1.1"),
}


def converted(source: Path, out: Path, **settings: Any) -> dict[str, Any]:
    """What a conversion says of itself, in a process of its own."""
    found: dict[str, Any] = apart(lambda: convert(Config(source=source, **settings), out))
    return found


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All of a Hugging Face folder."""
    found: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def check_equal(one: Path, other: Path) -> None:
    before, after = tensors_of(one), tensors_of(other)
    assert set(before) == set(after)
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype, name
        assert torch.equal(tensor, after[name]), name


def mesh_of(name: str) -> dict[str, Any]:
    case = CASES[name]
    if not case.cut:
        return {}
    return CUT | ({"sequence_parallel": True} if case.sparse else {})


@pytest.mark.parametrize("name", CASES)
def test_there_on_four_ranks_and_back(name: str, tmp_path: Path) -> None:
    """Cut for TP2 x PP2; the logits are those of transformers, the weights come back bit by bit."""
    saved_model(name, tmp_path / "theirs")
    there = converted(tmp_path / "theirs", tmp_path / "ours", mesh=mesh_of(name))
    assert there["max_logit_difference"] < 1e-4
    assert there["same_greedy_share"] == 1
    assert there["tensors_read_back"] == there["tensors"]
    back = converted(tmp_path / "ours", tmp_path / "back", proof="tensors")
    assert back["family"] == (CASES[name].family or name)
    check_equal(tmp_path / "theirs", tmp_path / "back")


@pytest.mark.parametrize("name", ["bert", "bert without heads", "t5", "t5 1.1"])
def test_encoders_there_and_back(name: str, tmp_path: Path) -> None:
    model = ENCODERS[name]()
    model.save_pretrained(tmp_path / "theirs")
    mesh = CUT if name.startswith("bert") else {"tensor": 2}
    there = converted(tmp_path / "theirs", tmp_path / "ours", mesh=mesh)
    assert there["max_logit_difference"] < 1e-4
    converted(tmp_path / "ours", tmp_path / "back", proof="tensors")
    before, after = tensors_of(tmp_path / "theirs"), tensors_of(tmp_path / "back")
    assert (
        set(after)
        <= set(before)
        <= {*after, "lm_head.weight", "shared.weight"}
        | {f"{stack}.embed_tokens.weight" for stack in ("encoder", "decoder")}
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_from_mesh_to_mesh(tmp_path: Path) -> None:
    """Other files, the same numbers; no logits, for neither is a model of transformers."""
    saved_model("qwen3", tmp_path / "theirs")
    converted(tmp_path / "theirs", tmp_path / "one", proof="tensors")
    found = converted(tmp_path / "one", tmp_path / "four", to="checkpoint", mesh=CUT)
    assert "neither" in found["logits"]
    assert found["tensors_read_back"] == found["tensors"]
    names = sorted(path.name for path in (tmp_path / "four/step-00000000").glob("*.distcp"))
    assert names == [f"__{rank}_0.distcp" for rank in range(4)]
    converted(tmp_path / "four", tmp_path / "back", proof="tensors")
    check_equal(tmp_path / "theirs", tmp_path / "back")


def test_weights_are_rounded_once(tmp_path: Path) -> None:
    """fp32 to bf16, to nearest even as torch rounds; the logits of both sides are those."""
    saved_model("llama", tmp_path / "theirs")
    found = converted(tmp_path / "theirs", tmp_path / "ours", dtype="bf16")
    assert found["max_logit_difference"] < 1e-4
    converted(tmp_path / "ours", tmp_path / "back", proof="tensors")
    before, after = tensors_of(tmp_path / "theirs"), tensors_of(tmp_path / "back")
    assert {name: tensor.bfloat16() for name, tensor in before.items()}.keys() == after.keys()
    assert all(torch.equal(before[name].bfloat16(), tensor) for name, tensor in after.items())
    assert json.loads((tmp_path / "back/config.json").read_text())["dtype"] == "bfloat16"


def test_a_folder_of_bin_files_becomes_safetensors(tmp_path: Path) -> None:
    plain = saved_model("mistral", tmp_path / "theirs")
    (tmp_path / "old").mkdir()
    torch.save(plain.state_dict(), tmp_path / "old/pytorch_model.bin")
    shutil.copy(tmp_path / "theirs/config.json", tmp_path / "old")
    found = converted(tmp_path / "old", tmp_path / "new", to="hugging_face", shard_gb=1e-5)
    assert found["max_logit_difference"] < 1e-4
    assert len(list((tmp_path / "new").glob("model-0*.safetensors"))) > 2
    check_equal(tmp_path / "theirs", tmp_path / "new")


def test_gguf_there_and_back(tmp_path: Path) -> None:
    saved_model("llama", tmp_path / "theirs")
    to = {"to": "gguf", "gguf": "f32"}
    found = converted(tmp_path / "theirs", tmp_path / "file", **to)
    assert found["max_logit_difference"] < 1e-4
    small = converted(tmp_path / "theirs", tmp_path / "small", to="gguf", gguf="q8_0")
    assert 1e-4 < small["max_logit_difference"] < 0.2
    wide, none = small["remarks"]
    assert wide.startswith("4 matrices stay fp16, they have rows that are no whole blocks of 32")
    assert none.startswith("no tokenizer in it, which llama.cpp cannot do without: ")
    back = converted(tmp_path / "file/model.gguf", tmp_path / "ours")
    assert back["max_logit_difference"] < 1e-4
    converted(tmp_path / "ours", tmp_path / "back", proof="tensors")
    check_equal(tmp_path / "theirs", tmp_path / "back")


def test_the_tokenizer_goes_along_both_ways(tmp_path: Path) -> None:
    source = tmp_path / "theirs"
    saved_model("llama", source)
    (source / "additional_chat_templates").mkdir()
    for name in TOKENIZER:
        (source / name).write_text('{"added_tokens": []}')
    converted(source, tmp_path / "ours", proof="tensors")
    manifest = read_manifest(find_checkpoint(tmp_path / "ours"))
    assert manifest.record["tokenizer_hash"] == file_hash(source / "tokenizer.json")
    converted(tmp_path / "ours", tmp_path / "back", proof="tensors")
    for name in TOKENIZER:
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"other/tokenizer\.json \(sha256 44136fa355b3\)"):
        converted(tmp_path / "ours", tmp_path / "x", tokenizer=other)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"empty: no tokenizer\.json in it; name the folder"):
        converted(tmp_path / "ours", tmp_path / "x", tokenizer=empty)


def test_values_of_config_json_that_we_do_not_know_are_kept(tmp_path: Path) -> None:
    saved_model("llama", tmp_path / "theirs")
    file = tmp_path / "theirs/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"of_the_house": [1, 2]}))
    converted(tmp_path / "theirs", tmp_path / "ours", proof="tensors")
    converted(tmp_path / "ours", tmp_path / "back", proof="tensors")
    before, after = (
        json.loads((tmp_path / n / "config.json").read_text()) for n in ("theirs", "back")
    )
    assert after["of_the_house"] == [1, 2]
    told = ("dtype", "transformers_version", "rope_theta")
    assert {k: v for k, v in before.items() if k not in told and after.get(k) != v} == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": None}, r"config\.json: intermediate_size: missing; a llama model"),
        ({"hidden_size": "wide"}, r"config\.json: hidden: found 'wide': Input should be a valid"),
        ({"num_key_value_heads": 3}, r"config\.json: kv_heads: 3 does not divide heads = 4"),
        ({"hidden_size": 60}, r"cannot become .*: config\.json asks for"),
        ({"vocab_size": 299}, r"embed_tokens\.weight \[300, 32\].*: cannot become .* \[299, 32\]"),
        ({"num_hidden_layers": 5}, r"model\.layers\.4\.input_layernorm\.weight: missing"),
        ({"num_hidden_layers": 3}, r"9 tensors have no place in the llama table: model\.layers\.3"),
        ({"model_type": "mamba"}, r"model_type 'mamba': no table; there are bert, deepseek_v2, "),
    ],
)
def test_a_config_that_lies_is_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    source = tmp_path / "theirs"
    saved_model("llama", source)
    values = json.loads((source / "config.json").read_text()) | change
    kept = {name: value for name, value in values.items() if value is not None}
    (source / "config.json").write_text(json.dumps(kept))
    with pytest.raises((DataError, UserError), match=message):
        convert(Config(source=source, proof="tensors"), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_wrong_table_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong both ways, so that the weights come back bit by bit: only the logits show it."""
    saved_model("llama", tmp_path / "theirs")
    turned = tuple(
        replace(row, theirs=row.theirs[::-1]) if "linear_fc1" in row.ours else row
        for row in LLAMA.table
    )
    monkeypatch.setitem(FAMILIES, "llama", replace(LLAMA, table=turned))
    converted(tmp_path / "theirs", tmp_path / "ours", proof="tensors")
    converted(tmp_path / "ours", tmp_path / "back", proof="tensors")
    check_equal(tmp_path / "theirs", tmp_path / "back")
    with pytest.raises(DataError, match="; layer 0: gate and up are swapped"):
        converted(tmp_path / "theirs", tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_tied_output_that_is_not_the_embedding_is_named(tmp_path: Path) -> None:
    source = tmp_path / "theirs"
    saved_model("llama", source)
    file = source / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": True}))
    with pytest.raises(DataError, match=r"lm_head\.weight: is not model\.embed_tokens\.weight"):
        convert(Config(source=source, proof="tensors"), tmp_path / "ours")
    tensors = tensors_of(source)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    convert(Config(source=source, proof="tensors"), tmp_path / "ours")
    assert model_of(tmp_path / "ours").tied


def test_the_stage_leaves_its_outputs_and_numbers(tmp_path: Path) -> None:
    saved_model("gpt2", tmp_path / "theirs")
    config = Config(source=tmp_path / "theirs")
    numbers = apart(lambda: run(config, ALONE, tmp_path / "job"))
    record = json.loads((tmp_path / "job/comparison.json").read_text())
    assert numbers["max_logit_difference"] == record["max_logit_difference"] < 1e-4
    assert numbers["tensors"] == record["tensors_read_back"] == 52
    assert record["answers"][0]["same_greedy_share"] == 1
    assert (record["from"], record["to"]) == ("hugging_face", "checkpoint")
    assert model_of(tmp_path / "job/model").padded_vocab() == 384
    progress = json.loads((tmp_path / "job/progress.json").read_text())
    assert progress["done"] >= progress["total"] == record["bytes_written"]  # and the manifest


def test_what_plain_megatron_core_wrote_becomes_a_model_of_transformers(tmp_path: Path) -> None:
    """torch_dist with Megatron-LM's arguments, mp_rank folders, and experts without arguments."""
    dense, _ = save_plain(tmp_path)
    for name in ("dense", "legacy"):
        found = converted(tmp_path / name, tmp_path / f"{name}-out")
        assert (found["family"], found["tensors_read_back"]) == ("qwen3", 47)
        assert found["max_logit_difference"] < 1e-4 * max(1, found["max_logit"])
    check_equal(tmp_path / "dense-out", tmp_path / "legacy-out")
    written = tensors_of(tmp_path / "dense-out")
    norm = dense["decoder.layers.3.pre_mlp_layernorm.weight"]
    assert torch.equal(written["model.layers.3.post_attention_layernorm.weight"], norm)
    with pytest.raises(UserError, match="holds no arguments of Megatron-LM; say what model it is"):
        converted(tmp_path / "experts", tmp_path / "x")
    found = converted(tmp_path / "experts", tmp_path / "mixture", model=EXPERTS.model_dump())
    assert found["family"] in ("mixtral", "qwen3_moe")
    assert found["max_logit_difference"] < 1e-4 * max(1, found["max_logit"])
