"""Memory of capped scores, which no fused attention keeps from being written."""

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.estimate.memory import kept_scores, training_bytes

MODEL = ModelConfig(layers=4, hidden=64, heads=4, vocab_size=128, seq_len=100)
CAPPED = MODEL.model_copy(update={"attention_softcap": 50.0})


def test_scores_of_a_token() -> None:
    assert kept_scores(MODEL) == 0
    assert kept_scores(CAPPED) == 4 * 4 * 100
    near = CAPPED.model_copy(update={"window": 10, "full_layers": (3,)})
    assert kept_scores(near) == 4 * (3 * 20 + 100)


def test_they_count_unless_they_are_computed_again() -> None:
    def more(mesh: Mesh) -> int:
        sizes = [training_bytes(m, mesh, "bf16", micro_size=2, world=2) for m in (MODEL, CAPPED)]
        return sizes[1] - sizes[0]

    assert more(Mesh()) == 2 * 100 * 1600 * 9
    assert more(Mesh(tensor=2)) == 100 * 1600 * 9
    assert more(Mesh(recompute="attention")) == more(Mesh(recompute="layer")) == 0


def test_the_fullest_stage_counts() -> None:
    """Of 1 and 3 layers: the second holds more weights, and activations of one micro batch."""
    mesh = Mesh(pipeline=2, layers=(1, 3))
    found = training_bytes(MODEL, mesh, "bf16", micro_size=2, world=2)
    state = MODEL.parameters() * 3 / 4 * (2 + 4 + 12)
    layers = 3 * (2 * 100) * 64 * 17 * 2
    logits = (2 * 100) * MODEL.padded_vocab() * (2 + 8)
    assert found == round(state + layers + logits)


def test_what_ranks_that_share_a_head_gather_is_kept() -> None:
    """4 heads and 2 of keys, of 16 columns, on 4 ranks: 4 + 2 + 2 heads of each token and layer."""
    shared = MODEL.model_copy(update={"kv_heads": 2})

    def more(mesh: Mesh) -> int:
        """Bytes over those of a model in which nobody shares; half of its weights are the same."""
        sizes = [training_bytes(m, mesh, "bf16", micro_size=2, world=4) for m in (shared, MODEL)]
        weights = (shared.parameters() - MODEL.parameters()) / mesh.tensor * (2 + 4 + 12)
        return round(sizes[0] - sizes[1] - weights)

    assert more(Mesh(tensor=4)) == 4 * (2 * 100) * 8 * 16 * 2
    assert more(Mesh(tensor=4, recompute="layer")) == 0
