"""Conversion proved by transformers: random models of each family, and greedy texts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from megatron_jobs.checkpoint.convert import export_model, import_model, weights
from megatron_jobs.checkpoint.hugging_face import architecture_of, model_config_of
from megatron_jobs.checkpoint.mapping import from_hugging_face, join_qkv, to_hugging_face
from megatron_jobs.checkpoint.model import model_of, open_model
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.sampling import Sampling
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.infer.generate import continue_prompt
from megatron_jobs.model.config import ModelConfig
from megatron_jobs.parallel.groups import open_groups
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
def test_greedy_texts_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    source = random_model(tmp_path / "theirs", family)
    prompts = [[5, 17, 200], [1], list(range(20))]

    def ours() -> list[list[int]]:
        import_model(source, tmp_path / "ours", precision="fp32")
        (chunk,) = open_model(tmp_path / "ours", Mesh(), "fp32")
        greedy = Sampling(temperature=0)
        return [continue_prompt(chunk, p, tokens=30, sampling=greedy) for p in prompts]

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
    assert convert(*there, "--target-tensor-parallel-size", "2")[0] == 0
    assert model_of(tmp_path / "ours").layers == 3
    status, error = convert(*there)
    assert status == 2
    assert "is there already; nothing is overwritten" in error
