"""Conversion proved by transformers: random models of each family, and greedy texts."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_jobs.checkpoint.compare import probe_tokens, their_logits
from megatron_jobs.checkpoint.convert import export_model, import_model, weights
from megatron_jobs.checkpoint.hugging_face import (
    architecture_of,
    model_config_of,
    read_hugging_face,
)
from megatron_jobs.checkpoint.manifest import find_checkpoint, read_manifest
from megatron_jobs.checkpoint.mapping import (
    from_hugging_face,
    join_qkv,
    pad_rows,
    to_hugging_face,
)
from megatron_jobs.checkpoint.model import model_of, open_model
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.sampling import Sampling
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.infer.generate import continue_prompt
from megatron_jobs.model.decode import Decoder
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.files import file_hash
from megatron_jobs.runtime.rank import Rank
from tests.ranks import on_ranks

ROOT = Path(__file__).parents[2]
LLAMA = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "llama": LLAMA,
    "llama tied, biases, wide heads": LLAMA
    | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 16},
    "llama without groups": LLAMA | {"num_key_value_heads": 6, "rope_theta": 500000.0},
    "gpt2": {
        "vocab_size": 300,
        "n_embd": 48,
        "n_layer": 3,
        "n_head": 6,
        "n_positions": 64,
    },
}


def random_model(folder: Path, family: str) -> Path:
    """A Hugging Face folder of random weights, biases and norms included."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(len(family))
    values = FAMILIES[family]
    model = (
        GPT2LMHeadModel(GPT2Config(**values))
        if family == "gpt2"
        else LlamaForCausalLM(LlamaConfig(**values))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def alone(work: object) -> object:
    """What `work()` returns on one connected rank."""

    def on_rank(rank: Rank) -> object:
        open_groups(Mesh(), 0)
        return work()  # type: ignore[operator]

    return on_ranks(1, on_rank)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_is_bit_equal(tmp_path: Path, family: str) -> None:
    from safetensors.torch import load_file

    source = random_model(tmp_path / "theirs", family)
    found = alone(lambda: import_model(source, tmp_path / "ours", precision="fp32"))
    assert found["max_logit_difference"] < 1e-4  # type: ignore[index]
    again = alone(
        lambda: export_model(tmp_path / "ours", tmp_path / "again", tokenizer=None, dtype="fp32")
    )
    assert again["max_logit_difference"] < 1e-4  # type: ignore[index]
    before = load_file(source / "model.safetensors")
    after = load_file(tmp_path / "again/model.safetensors")
    assert set(after) == set(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_was_imported_is_cut_over_tensor_ranks(tmp_path: Path, family: str) -> None:
    """300 tokens in 384 rows; over two ranks the logits are those of one."""
    source = random_model(tmp_path / "theirs", family)
    alone(lambda: import_model(source, tmp_path / "ours", precision="fp32"))
    model = model_of(tmp_path / "ours")
    assert (model.vocab_size, model.padded_vocab()) == (300, 384)
    tokens = probe_tokens(model.vocab_size, model.seq_len)

    def logits(rank: Rank) -> torch.Tensor:
        mesh = Mesh(tensor=rank.world)
        open_groups(mesh, 0)
        (chunk,) = open_model(tmp_path / "ours", mesh, "fp32")
        decoder = Decoder(chunk, sequences=len(tokens), length=model.seq_len, vocab_size=300)
        return decoder.add(tokens)

    expected = their_logits(source, tokens)[:, -1]
    for found in on_ranks(2, logits):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_padding_hardly_changes_a_loss() -> None:
    """By log(rows / tokens) at most, even where all logits are far below zero as in GPT-2."""
    model = ModelConfig(layers=1, hidden=16, heads=2, vocab_size=1000, pad_vocab_to=128)
    torch.manual_seed(0)
    known, states = torch.randn(1000, 16), torch.randn(50, 16)
    known[:, 0], states[:, 0] = -8, 10
    padded = pad_rows([known], model)
    assert torch.equal(padded[:1000], known)
    (before, after) = ((states @ rows.t()).logsumexp(-1) for rows in (known, padded))
    assert before.max() < -60
    assert 0 < (after - before).max() <= math.log(1024 / 1000) + 1e-4


TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
             "chat_template.jinja", "added_tokens.json", "generation_config.json",
             "tokenizer.model", "special_tokens_map.json")  # fmt: skip


def test_all_files_of_the_tokenizer_go_along(tmp_path: Path) -> None:
    source = random_model(tmp_path / "theirs", "llama")
    for name in TOKENIZER:
        (tmp_path / "tokenizer").mkdir(exist_ok=True)
        (tmp_path / "tokenizer" / name).write_text('{"added_tokens": []}')
    file, empty = tmp_path / "tokenizer/tokenizer.json", tmp_path / "empty"
    empty.mkdir()

    def convert() -> list[str]:
        words = []
        import_model(source, tmp_path / "ours", precision="fp32", tokenizer=file)
        for tokenizer in (empty, source, other):
            with pytest.raises(UserError) as caught:
                export_model(tmp_path / "ours", tmp_path / "x", tokenizer=tokenizer, dtype="fp32")
            words.append(str(caught.value))
        export_model(tmp_path / "ours", tmp_path / "again", tokenizer=file, dtype="fp32")
        return words

    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text("{}")
    words = alone(convert)
    assert isinstance(words, list)
    rule = "no tokenizer.json in it; name the folder that holds it"
    assert words[:2] == [f"tokenizer: {folder}: {rule}" for folder in (empty, source)]
    assert f"tokenizer: found {other}/tokenizer.json (sha256 44136fa355b3), " in words[2]
    assert "ours/step-00000000 was made with another one, " in words[2]
    assert all((tmp_path / "again" / name).is_file() for name in TOKENIZER)
    manifest = read_manifest(find_checkpoint(tmp_path / "ours"))
    assert manifest.record["tokenizer_hash"] == file_hash(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": None}, r"config\.json: intermediate_size: missing; a llama model"),
        ({"hidden_size": "wide"}, r"config\.json: hidden: found 'wide': Input should be a valid"),
        ({"num_key_value_heads": 4}, r"config\.json: kv_heads: 4 does not divide heads = 6"),
        ({"hidden_size": 60}, r"cannot become|its config\.json asks for"),
        ({"vocab_size": 299}, r"300 rows are not those of 299 tokens"),
        ({"vocab_size": 301}, r"300 rows are not those of 301 tokens"),
    ],
)
def test_a_config_that_lies_is_named(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    source = random_model(tmp_path / "theirs", "llama")
    values = json.loads((source / "config.json").read_text()) | change
    kept = {name: value for name, value in values.items() if value is not None}
    (source / "config.json").write_text(json.dumps(kept))
    assert re.search(message, str(alone(lambda: refusal(source, tmp_path / "ours"))))


@pytest.mark.parametrize("damage", ["cut short", "longer header", "no header"])
def test_damaged_tensors_are_named(tmp_path: Path, damage: str) -> None:
    source = random_model(tmp_path / "theirs", "llama")
    file = source / "model.safetensors"
    data = file.read_bytes()
    changed = {
        "cut short": data[:-8],
        "longer header": (len(data) * 2).to_bytes(8, "little") + data[8:],
        "no header": data[:4],
    }
    file.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"model\.safetensors: not a whole safetensors file"):
        read_hugging_face(source)
    file.write_bytes(data)
    (source / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: found 1 bytes that are no JSON"):
        read_hugging_face(source)


def refusal(source: Path, root: Path) -> str:
    """What importing a model is refused with."""
    with pytest.raises(DataError) as caught:
        import_model(source, root, precision="fp32")
    return str(caught.value)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_greedy_texts_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    source = random_model(tmp_path / "theirs", family)
    prompts = [[5, 17, 200], [1], list(range(20))]

    def ours() -> list[list[int]]:
        import_model(source, tmp_path / "ours", precision="fp32")
        (chunk,) = open_model(tmp_path / "ours", Mesh(), "fp32")
        greedy = Sampling(temperature=0)
        return [
            continue_prompt(chunk, prompt, vocab_size=300, tokens=30, sampling=greedy)
            for prompt in prompts
        ]

    model = AutoModelForCausalLM.from_pretrained(source)
    model.generation_config.eos_token_id = None
    for prompt, found in zip(prompts, alone(ours), strict=True):  # type: ignore[call-overload]
        whole = model.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False)
        assert found == whole[0, len(prompt) :].tolist()


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        (("gate_proj", "up_proj"), "logits differ by"),
        (("q_proj", "o_proj"), "logits differ by"),
    ],
)
def test_a_wrong_mapping_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: tuple[str, str], message: str
) -> None:
    source = random_model(tmp_path / "theirs", "llama without groups")
    names = {"gate_proj": "up_proj", "up_proj": "gate_proj", "q_proj": "o_proj", "o_proj": "q_proj"}

    def wrong(ours: dict, model: ModelConfig, architecture: str) -> dict:  # type: ignore[type-arg]
        theirs = to_hugging_face(ours, model, architecture)
        turned = {}
        for name in theirs:
            part = next((word for word in swap if word in name), "")
            turned[name] = theirs[name.replace(part, names[part])] if part else theirs[name]
        return turned

    alone(lambda: import_model(source, tmp_path / "ours", precision="fp32"))
    monkeypatch.setattr("megatron_jobs.checkpoint.convert.to_hugging_face", wrong)

    def export() -> str:
        with pytest.raises(DataError) as caught:
            export_model(tmp_path / "ours", tmp_path / "out", tokenizer=None, dtype="fp32")
        return str(caught.value)

    assert message in str(alone(export))
    assert not (tmp_path / "out").exists()


def test_every_tensor_is_accounted_for() -> None:
    model = ModelConfig(layers=1, hidden=8, heads=2, ffn=16, vocab_size=10, pad_vocab_to=1)

    def tensors() -> dict[str, torch.Tensor]:
        from megatron_jobs.model.build import build_model

        (chunk,) = build_model(model, Mesh())
        return {name: value.clone() for name, value in weights(chunk)}

    ours = alone(tensors)
    assert isinstance(ours, dict)
    theirs = to_hugging_face(ours, model, "llama")
    with pytest.raises(
        DataError, match=r"1 tensors have no place in the llama table: decoder\.odd"
    ):
        to_hugging_face(ours | {"decoder.odd": torch.zeros(1)}, model, "llama")
    with pytest.raises(DataError, match=r"1 tensors have no place in the llama table: model\.odd"):
        from_hugging_face(theirs | {"model.odd": torch.zeros(1)}, model, "llama")
    del theirs["model.layers.0.self_attn.k_proj.weight"]
    with pytest.raises(DataError, match=r"k_proj\.weight: missing; it is part of decoder"):
        from_hugging_face(theirs, model, "llama")
    del ours["decoder.final_layernorm.weight"]
    with pytest.raises(DataError, match=r"final_layernorm\.weight: missing; it makes model\.norm"):
        to_hugging_face(ours, model, "llama")


def test_heads_are_grouped_one_by_one() -> None:
    """Against a loop over groups: q heads of the group, its k, its v."""
    model = ModelConfig(layers=1, hidden=12, heads=6, kv_heads=2, vocab_size=10)
    q, k, v = torch.randn(12, 5), torch.randn(4, 5), torch.randn(4, 5)
    rows = []
    for group in range(2):
        rows += [q[group * 6 : group * 6 + 6], k[group * 2 : group * 2 + 2]]
        rows += [v[group * 2 : group * 2 + 2]]
    assert torch.equal(join_qkv([q, k, v], model), torch.cat(rows))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba': no table; there are llama, gpt2"),
        (
            {
                "model_type": "llama",
                "num_attention_heads": 2,
                "rope_scaling": {"rope_type": "yarn"},
            },
            "rope type 'yarn': only default can be converted",
        ),
    ],
)
def test_other_architectures_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model_config_of(values)


def test_models_without_a_table_are_refused() -> None:
    sizes = {"layers": 1, "hidden": 8, "heads": 2, "vocab_size": 10}
    with pytest.raises(UserError, match="no table for experts"):
        architecture_of(ModelConfig(**sizes, experts=4))
    with pytest.raises(UserError, match="position learned, norm rmsnorm, activation swiglu"):
        architecture_of(ModelConfig(**sizes, position="learned"))


def test_the_tool_takes_the_customary_flags(tmp_path: Path) -> None:
    def convert(*words: str) -> tuple[int, str]:
        command = [sys.executable, str(ROOT / "tools/convert_checkpoint.py"), *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return done.returncode, done.stderr

    source = random_model(tmp_path / "theirs", "llama")
    there = ["--model-type", "GPT", "--loader", "hf", "--saver", "mcore"]
    there += ["--load-dir", str(source), "--save-dir", str(tmp_path / "ours")]
    status, error = convert(*there, "--target-tensor-parallel-size", "4")
    assert status == 2
    assert "6 heads cannot be cut over 4 tensor ranks" in error
    two = [*there, "--target-tensor-parallel-size", "2"]
    status, error = convert(*two, "--make-vocab-size-divisible-by", "25")
    assert status == 0, error
    assert model_of(tmp_path / "ours").padded_vocab() == 300
    shutil.rmtree(tmp_path / "ours")
    status, error = convert(*there, "--make-vocab-size-divisible-by", "0")
    assert status == 2
    assert "--make-vocab-size-divisible-by: found 0, must be at least 1" in error
    status, error = convert(*two)
    assert status == 0, error
    assert model_of(tmp_path / "ours").layers == 3
    status, error = convert(*there)
    assert status == 2
    assert "is there already; nothing is overwritten" in error
