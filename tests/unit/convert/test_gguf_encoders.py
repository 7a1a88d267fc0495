"""BERT and T5 as GGUF and back; names and settings by llama.cpp's package and transformers."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from megatron_jobs.convert.files import write_files
from megatron_jobs.convert.gguf_check import check_gguf
from megatron_jobs.convert.gguf_in import open_gguf
from megatron_jobs.convert.gguf_out import GgufFormat, gguf_remarks, plan_gguf
from megatron_jobs.convert.hugging_face import described
from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.convert.source import open_source
from megatron_jobs.errors import DataError, UserError
from tests.encoder_models import bert
from tests.encoder_models import t5 as any_t5
from tests.family_models import read_tensors
from tests.gguf_files import ill_named

HEADS = ("cls.", "bert.pooler.", "pooler.")


def t5(version: str, **values: Any) -> Any:
    """One that llama.cpp can compute; its decoder has a layer more than its encoder."""
    return any_t5(version, relative_attention_max_distance=128, **values)


def saved(model: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Matrix]]:
    model.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text()), read_tensors(folder)


def write(
    config: dict[str, Any], tensors: dict[str, Matrix], folder: Path, form: GgufFormat = "f32"
) -> Path:
    plans = plan_gguf(tensors, config, "model.gguf", form=form)
    write_files(plans, folder / form, key=lambda: "key")
    return folder / form / "model.gguf"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_t5_comes_back_to_the_bit(version: str, tmp_path: Path) -> None:
    config, tensors = saved(t5(version), tmp_path)
    path = write(config, tensors, tmp_path)
    found = open_gguf(path)
    assert set(found.tensors) == set(tensors)
    for name, matrix in tensors.items():
        assert np.array_equal(found.tensors[name].array(), matrix.array()), name
    model = described(config, "a", names=tensors).model
    again = described(found.config, "b", names=found.tensors).model
    free = {"dropout": 0, "attention_dropout": 0}
    assert model.model_dump() | free == again.model_dump() | free
    assert not ill_named(path)
    assert open_source(path).model.encoder_layers == config["num_layers"] != 3


def test_transformers_reads_a_t5_and_answers_the_same(tmp_path: Path) -> None:
    model = t5("1.1", num_decoder_layers=2)  # all that it can read
    path = write(*saved(model, tmp_path), tmp_path)
    found = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)
    for key, theirs in {"d_kv": "d_kv", "num_layers": "num_layers", "d_ff": "d_ff"}.items():
        assert found["config"][key] == getattr(model.config, theirs)
    assert found["config"]["layer_norm_epsilon"] == pytest.approx(model.config.layer_norm_epsilon)
    other = transformers.T5ForConditionalGeneration(model.config).eval()
    missing = set(other.state_dict()) - set(found["tensors"])
    assert missing <= {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    other.lm_head.weight = torch.nn.Parameter(other.lm_head.weight.clone())
    other.load_state_dict(found["tensors"], strict=False)
    tokens = torch.randint(0, 200, (2, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, two = (m(input_ids=tokens, decoder_input_ids=tokens).logits for m in (model, other))
    assert torch.equal(one, two)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("form", ["f16", "q8_0", "q4_0"])
def test_t5_in_other_formats(version: str, form: GgufFormat, tmp_path: Path) -> None:
    config, tensors = saved(t5(version), tmp_path)
    path = write(config, tensors, tmp_path, form)
    assert check_gguf(path, tensors, form) == len(tensors)
    kinds = open_gguf(path).file.kinds
    assert kinds["enc.blk.0.attn_rel_b.weight"] == kinds["dec.output_norm.weight"] == "F32"


def test_what_a_t5_in_gguf_cannot_be(tmp_path: Path) -> None:
    config, tensors = saved(t5("1.0"), tmp_path)
    rule = "relative_attention_max_distance: found 64; in GGUF a t5 has 128"
    with pytest.raises(UserError, match=rule):
        plan_gguf(tensors, config | {"relative_attention_max_distance": 64}, "a")
    with pytest.raises(UserError, match=r"model\.logit_scale: found None"):
        plan_gguf(tensors, config | {"scale_decoder_outputs": False}, "a")
    with pytest.raises(UserError, match=r"model\.activation: found 'gelu'; as GGUF it .* 'relu'"):
        plan_gguf(tensors, config | {"feed_forward_proj": "gelu"}, "a")
    said = gguf_remarks(tensors, config, "f16")
    times = config["d_model"] ** 0.5
    assert said[-1].endswith(f"is the embedding: its logits are {times:.3g} times as large")


def test_stacks_of_other_lengths_are_refused(tmp_path: Path) -> None:
    path = write(*saved(t5("1.1"), tmp_path), tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"dec.blk.1.", b"dec.blk.7."))
    with pytest.raises(DataError, match="dec block_count 3, tensors of 8 layers"):
        open_gguf(path)
    path.write_bytes(raw.replace(b"enc.blk.1.ffn_gate", b"enc.blk.1.ffn_gatx"))
    with pytest.raises(DataError, match=r"1 tensors have no place in a t5: enc\.blk\.1\.ffn_gatx"):
        open_gguf(path)


@pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM", "BertForPreTraining"])
def test_the_encoder_of_a_bert_comes_back_to_the_bit(name: str, tmp_path: Path) -> None:
    config, tensors = saved(bert(name), tmp_path)
    path = write(config, tensors, tmp_path)
    found = open_gguf(path)
    kept = {n.removeprefix("bert."): m for n, m in tensors.items() if not n.startswith(HEADS)}
    assert set(found.tensors) == set(kept)
    for key, matrix in kept.items():
        assert np.array_equal(found.tensors[key].array(), matrix.array()), key
    assert not ill_named(path)
    source = open_source(path)
    assert not source.model.token_head
    assert not source.model.pooler
    left = len(tensors) - len(kept)
    rule = f"{left} tensors of the heads are left out, llama.cpp has the encoder alone"
    assert gguf_remarks(tensors, config, "f32") == [rule] * (left > 0)
    assert check_gguf(path, tensors, "f32") == len(kept)


def test_states_of_a_bert_are_the_same(tmp_path: Path) -> None:
    model = bert("BertForMaskedLM")
    found = open_gguf(write(*saved(model, tmp_path), tmp_path))
    again = transformers.BertModel(transformers.BertConfig(**found.config), False).eval()
    state = {key: torch.from_numpy(matrix.array()) for key, matrix in found.tensors.items()}
    again.load_state_dict(state, strict=True)
    tokens = torch.randint(0, 200, (2, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, two = (m(input_ids=tokens).last_hidden_state for m in (model.bert, again))
    assert torch.equal(one, two)


def test_what_a_bert_in_gguf_says_and_cannot_be(tmp_path: Path) -> None:
    config, tensors = saved(bert("BertForMaskedLM"), tmp_path)
    fields = gguf.GGUFReader(write(config, tensors, tmp_path, "f16")).fields
    assert fields["bert.attention.causal"].contents() is False
    assert fields["tokenizer.ggml.token_type_count"].contents() == config["type_vocab_size"]
    with pytest.raises(UserError, match="hidden_act: found 'gelu_new'; in GGUF a bert has 'gelu'"):
        plan_gguf(tensors, config | {"hidden_act": "gelu_new"}, "a")
