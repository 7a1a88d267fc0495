"""How much memory it takes to compare a model's logits with those of transformers."""

from megatron_jobs.config.model import ModelConfig

PROBES = 4
"""Sequences of random tokens."""
LONGEST = 48
"""Tokens of a prompt."""
PROMPTS = 10
"""Texts beside them, the chat included."""
WORD = 4
"""Bytes of a number in fp32."""


def proof_bytes(model: ModelConfig) -> int:
    """The most memory that a proof takes beyond the program: one model in fp32, and what is kept.

    Of every prompt the logits of both models, and once more while they are compared; of the random
    tokens the states after each layer of both; activations of one layer.
    """
    probes, texts = PROBES * LONGEST, PROMPTS * LONGEST
    logits = (2 * (probes + texts) + 3 * probes) * model.padded_vocab()
    states = 2 * (model.layers + model.encoder_layers + 2) * probes * model.hidden
    inner = probes * (8 * model.hidden + 3 * model.ffn_size())
    scores = 3 * PROBES * LONGEST**2 * model.heads
    return WORD * (model.parameters() + gated(model) + logits + states + inner + scores)


def gated(model: ModelConfig) -> int:
    """Numbers of gates and values: megatron-core loads both halves, then puts them together."""
    if not model.is_gated():
        return 0
    sparse = sum(model.has_experts(layer) for layer in range(model.layers))
    dense = model.layers + model.encoder_layers - sparse
    columns = dense * model.ffn_size()
    columns += sparse * (model.experts * model.expert_size() + model.shared_ffn)
    return 2 * model.hidden * columns
