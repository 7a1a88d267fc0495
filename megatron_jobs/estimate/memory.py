"""Memory of one rank in training, by arithmetic."""

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision

WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def training_bytes(
    model: ModelConfig, mesh: Mesh, precision: Precision, *, micro_size: int, world: int
) -> int:
    """Bytes that weights, gradients, optimizer and activations take on the fullest rank, about.

    Gradients are fp32 over the whole part of the model; the optimizer's 12 bytes a parameter
    (master weight and two moments) are shared by the data ranks. Activations: Korthikanti et al.
    2022, arXiv:2205.05198, table 2 without the attention scores, which are kept only where they
    are capped; pipeline stage s keeps the activations of `pipeline` - s micro batches. Tensor ranks
    that share a head of keys also keep the queries, keys and values that they gather.
    """
    width = WEIGHT_BYTES[precision]
    stages = mesh.stage_layers(model.layers)
    held = model.parameters() / mesh.tensor * max(stages) / model.layers
    state = held * (width + 4) + 12 * held / max(mesh.data(world), 1)
    tokens = model.seq_len / mesh.context * micro_size
    layer = tokens * model.hidden * 17 * width / mesh.tensor
    if mesh.tensor > model.groups():
        layer += tokens * (model.heads + 2 * model.groups()) * model.head_size() * width
    if mesh.recompute == "layer":
        layer = tokens * model.hidden * width
    logits = tokens * model.padded_vocab() / mesh.tensor * (width + 8)
    scores = tokens * kept_scores(model) / mesh.tensor if mesh.recompute == "none" else 0
    kept = max(count * (mesh.pipeline - stage) for stage, count in enumerate(stages))
    scores *= kept / model.layers
    return round(state + layer * kept + logits + scores * (2 * width + 5))


def kept_scores(model: ModelConfig) -> int:
    """Scores of a token, in all layers, that wait for the backward pass.

    No fused attention knows a cap; a layer with a window computes twice as many as it needs.
    """
    if model.attention_softcap is None:
        return 0
    windows = (model.window_of(layer) for layer in range(model.layers))
    seen = (model.seq_len if w is None else min(2 * w, model.seq_len) for w in windows)
    return model.heads * sum(seen)
