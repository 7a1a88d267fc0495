"""Sizes, counts and refusals of a model's configuration; counts against published ones."""

import pytest
import yaml
from pydantic import ValidationError

from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.config.tree import SHIPPED

PRESETS = sorted((SHIPPED / "configs" / "models").glob("*.yaml"))
SMALL = ModelConfig(layers=4, hidden=64, heads=4, kv_heads=2, vocab_size=500, seq_len=32)
LATENT: dict[str, object] = {
    "kv_heads": None,
    "rope_interleaved": True,
    "latent": LatentAttention(q_rank=12, kv_rank=20, nope_dim=10, rope_dim=6, value_dim=8),
}


def preset(name: str) -> ModelConfig:
    path = SHIPPED / "configs" / "models" / f"{name}.yaml"
    return ModelConfig(**yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_are_sound(path: object) -> None:
    model = preset(path.stem)  # type: ignore[attr-defined]
    assert not list(model.problems())
    assert not list(model.mesh_problems(Mesh(tensor=2, sequence_parallel=True)))


def test_published_parameter_counts() -> None:
    """Of Hugging Face's own model cards: Llama 2 7B, Llama 3 8B, Llama 3.2 1B and GPT-2."""
    assert preset("llama-7b").parameters() == 6_738_415_616
    assert preset("llama-8b").parameters() == 8_030_261_248
    assert preset("llama-1b").parameters() == 1_235_814_400
    gpt = preset("gpt2-124m")
    assert gpt.parameters() == 124_439_808 + (gpt.padded_vocab() - 50257) * 768


def test_padding_of_the_vocabulary() -> None:
    assert SMALL.padded_vocab() == 512
    assert SMALL.model_copy(update={"vocab_size": 512}).padded_vocab() == 512
    assert SMALL.model_copy(update={"vocab_size": 513}).padded_vocab() == 640


def test_flops_of_a_llama() -> None:
    """Six a weight without the embedding, and 12 x layers x hidden x positions for attention."""
    model = preset("llama-7b")
    weights = 6_738_415_616 - 32000 * 4096
    assert model.flops_per_token() == 6 * weights + 12 * 32 * 4096 * 4096
    tied = SMALL.model_copy(update={"tied": True})
    assert tied.flops_per_token() == SMALL.flops_per_token()


def test_a_token_visits_some_experts() -> None:
    sparse = SMALL.model_copy(update={"experts": 8, "experts_per_token": 2})
    matrices = 3 * 64 * 256
    assert sparse.parameters() - sparse.parameters(active=True) == 4 * 6 * matrices
    assert sparse.parameters(active=True) == SMALL.parameters() + 4 * (matrices + 8 * 64)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"heads": 5, "kv_heads": 5}, ("heads", "5 heads do not divide hidden = 64")),
        ({"kv_heads": 3}, ("kv_heads", "3 does not divide heads = 4")),
        (
            {"head_dim": 15},
            ("head_dim", "15 is odd; rotary angles turn pairs of columns"),
        ),
        (
            {"experts": 2, "experts_per_token": 3},
            ("experts_per_token", "3 is over experts = 2"),
        ),
        ({"dropout": 1.0}, ("dropout", "1.0 is not a share; it must be in [0, 1)")),
        (
            {"attention_dropout": -0.1},
            ("attention_dropout", "-0.1 is not a share; it must be in [0, 1)"),
        ),
        ({"init_std": 0.0}, ("init_std", "0.0 is not positive")),
        ({"norm_eps": -1e-5}, ("norm_eps", "-1e-05 is not positive")),
        ({"balance_loss": -1.0}, ("balance_loss", "-1.0 is negative; 0 leaves it out")),
        ({"experts": 4, "dense_layers": (4,)}, ("dense_layers", "4: layers are 0 to 3")),
        (
            {"experts": 4, "shared_ffn": 8, "bias": True},
            ("shared_ffn", "8: a block beside the experts cannot have bias"),
        ),
        (
            {"experts": 4, "router": RouterConfig(groups=3)},
            ("router.groups", "4 experts cannot be dealt to 3 equal groups"),
        ),
        (
            {"experts": 8, "experts_per_token": 3, "router": RouterConfig(groups=4)},
            ("router.groups_per_token", "1 groups hold 2 experts, of which a token visits 3"),
        ),
        (
            {"experts": 4, "experts_per_token": 1, "router": RouterConfig(groups=4)},
            ("router.group_score", "top2 needs two experts or more in each group"),
        ),
        (LATENT | {"kv_heads": 2}, ("kv_heads", "2: latent attention has None only")),
        (
            LATENT | {"rope_interleaved": False},
            ("rope_interleaved", "False: latent attention has True only"),
        ),
    ],
)
def test_sizes_that_clash(change: dict[str, object], problem: tuple[str, str]) -> None:
    assert list(SMALL.model_copy(update=change).problems()) == [problem]


@pytest.mark.parametrize("name", ["layers", "hidden", "heads", "kv_heads", "vocab_size", "seq_len"])
def test_sizes_are_positive(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"(?s)\b{name}\b.*greater than 0"):
        ModelConfig(**{**SMALL.model_dump(), name: 0})


@pytest.mark.parametrize(
    ("change", "mesh", "problem"),
    [
        (
            {"heads": 12, "kv_heads": 4, "head_dim": 16, "ffn": 240, "pad_vocab_to": 96},
            Mesh(tensor=6),
            ("kv_heads", "4 kv heads cannot be cut over 6 tensor ranks"),
        ),
        (
            {"kv_heads": 1, "head_dim": 1},
            Mesh(tensor=4),
            ("head_dim", "6 columns cannot be cut over 4 tensor ranks"),
        ),
        (
            {"heads": 3, "kv_heads": None, "head_dim": 16},
            Mesh(tensor=2),
            ("heads", "3 heads cannot be cut over 2 tensor ranks"),
        ),
        ({"ffn": 255}, Mesh(tensor=2), ("ffn", "255 columns cannot be cut over 2 tensor ranks")),
        (
            {"pad_vocab_to": 1, "vocab_size": 501},
            Mesh(tensor=2),
            (
                "pad_vocab_to",
                "501 rows of the embedding cannot be cut over 2 tensor ranks; "
                "make pad_vocab_to a multiple of 2",
            ),
        ),
        (
            {"layers": 3},
            Mesh(pipeline=2, virtual=2),
            ("layers", "3 layers cannot be cut into pipeline x virtual = 2 x 2 = 4 blocks"),
        ),
        (
            {},
            Mesh(pipeline=3, layers=(1, 2, 2)),
            ("layers", "4, but mesh.layers has 1 + 2 + 2 = 5"),
        ),
        (
            {"experts": 3},
            Mesh(expert=2),
            ("experts", "3 experts cannot be dealt to 2 expert ranks"),
        ),
        ({}, Mesh(expert=2), ("experts", "0 experts cannot be dealt to 2 expert ranks")),
        (
            {"experts": 4, "expert_ffn": 7, "ffn": 255},
            Mesh(expert_tensor=2),
            ("expert_ffn", "7 columns cannot be cut over 2 tensor ranks"),
        ),
        (
            {"experts": 4, "bias": True},
            Mesh(expert_tensor=2),
            ("bias", "true: experts with biases cannot be cut over 2 expert_tensor ranks"),
        ),
        (
            {"experts": 4, "shared_ffn": 7},
            Mesh(tensor=2, sequence_parallel=True),
            ("shared_ffn", "7 columns cannot be cut over 2 tensor ranks"),
        ),
        (
            {"experts": 4, "ffn": 255, "expert_ffn": 8, "dense_layers": (0,)},
            Mesh(tensor=2, sequence_parallel=True),
            ("ffn", "255 columns cannot be cut over 2 tensor ranks"),
        ),
        (
            LATENT,
            Mesh(tensor=2),
            ("latent", "on tensor ranks latent attention needs mesh.sequence_parallel: true"),
        ),
        (
            {"experts": 4},
            Mesh(tensor=2),
            ("experts", "on tensor ranks experts need mesh.sequence_parallel: true"),
        ),
        (
            {"seq_len": 30},
            Mesh(context=2),
            ("seq_len", "30 cannot be cut into 4 pieces, two for each context rank"),
        ),
    ],
)
def test_what_a_mesh_cannot_cut(
    change: dict[str, object], mesh: Mesh, problem: tuple[str, str]
) -> None:
    model = SMALL.model_copy(update=change)
    if change.get("heads") == 3:
        expected = [problem, ("kv_heads", "3 kv heads cannot be cut over 2 tensor ranks")]
    else:
        expected = [problem]
    assert list(model.mesh_problems(mesh)) == expected


def test_a_bias_of_experts_needs_sigmoid() -> None:
    (found,) = RouterConfig(bias=True).problems()
    assert found == ("bias", "true with score: softmax; megatron-core has it for sigmoid alone")


def test_operations_of_latent_attention() -> None:
    """12 x heads x positions a layer for 16 columns of scores and 8 of values, not 16 of each."""
    model = SMALL.model_copy(update=LATENT)
    weights = model.parameters() - model.padded_vocab() * 64
    assert model.flops_per_token() == 6 * weights + 4 * 6 * 4 * (16 + 8) * 32
