"""Whether tensors that were read are all those of a model, each of its shape. V, H: see leaves."""

from collections.abc import Callable, Mapping

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.core_names import LAYER, has_experts, layers_of
from megatron_jobs.convert.leaves import shape_of
from megatron_jobs.convert.matrix import Matrix, Padded, Rows
from megatron_jobs.errors import DataError

EMBEDDING, OUTPUT = "embedding.word_embeddings.weight", "output_layer.weight"
BY_TOKEN = (EMBEDDING, OUTPUT, "output_layer.bias")
"""A row for each token, and padding."""
SWITCHES: dict[str, Callable[[ModelConfig], bool]] = {
    "embedding.position_embeddings.weight": lambda m: m.position == "learned",
    "decoder.final_layernorm.bias": lambda m: m.norm == "layernorm",
    ".self_attention.linear_qkv.bias": lambda m: m.bias or m.qkv_bias,
    ".self_attention.linear_proj.bias": lambda m: m.bias,
    ".self_attention.q_layernorm.weight": lambda m: m.qk_norm,
    ".linear_fc1.bias": lambda m: m.bias,
    ".mlp.router.weight": lambda m: m.experts > 0,
    ".mlp.router.expert_bias": lambda m: m.experts > 0 and m.router.bias,
    ".mlp.shared_experts.linear_fc1.weight": lambda m: m.experts > 0 and m.shared_ffn > 0,
    ".mlp.shared_experts.gate_weight": lambda m: m.experts > 0 and m.shared_gate,
    "output_layer.bias": lambda m: m.output_bias,
}
"""End of a name -> whether a decoder of usual attention has such a tensor."""


def whole_model(tensors: Mapping[str, Matrix], model: ModelConfig, where: str) -> dict[str, Matrix]:
    """The tensors, those of the vocabulary with as many rows as the model pads it to.

    Raises: DataError, beginning with `where`, for one that is missing, unknown or of another shape.
    """
    found = dict(tensors)
    if model.tied:
        found.pop(OUTPUT, None)
    for name in BY_TOKEN:
        if name in found:
            found[name] = _with_padding(name, found[name], model, where)
    for name, matrix in found.items():
        _check_shape(name, matrix, model, where)
    _check_layers(found, model, where)
    if model.kind == "decoder" and model.latent is None:
        _check_switches(found, model, where)
    own_output = model.kind == "decoder" and not model.tied
    ends = (EMBEDDING, OUTPUT) if own_output else (EMBEDDING,)
    for name in ends:
        if name not in found:
            raise DataError(f"{where}: {name}: missing")
    return found


def _with_padding(name: str, matrix: Matrix, model: ModelConfig, where: str) -> Matrix:
    rows, wanted = matrix.shape[0], model.padded_vocab()
    if rows < model.vocab_size:
        raise DataError(f"{where}: {name}: {rows} rows are too few for {model.vocab_size} tokens")
    shape = (model.vocab_size, *matrix.shape[1:])
    if rows > wanted:
        return Rows(matrix, 0, (wanted, *matrix.shape[1:]))
    return Padded(Rows(matrix, 0, shape), wanted) if rows < wanted else matrix


def _check_shape(name: str, matrix: Matrix, model: ModelConfig, where: str) -> None:
    try:
        wanted = shape_of(name, model)
    except (KeyError, AssertionError) as error:
        raise DataError(f"{where}: {name}: has no place in such a model") from error
    if matrix.shape != wanted:
        sizes = f"found {list(matrix.shape)}, its settings ask for {list(wanted)}"
        raise DataError(f"{where}: {name}: {sizes}")


def _check_switches(found: Mapping[str, Matrix], model: ModelConfig, where: str) -> None:
    for end, wanted in SWITCHES.items():
        there = next((name for name in found if name.endswith(end)), None)
        if there and not wanted(model):
            raise DataError(f"{where}: {there}: is there, its settings ask for none")
        if wanted(model) and not there:
            raise DataError(f"{where}: {end.strip('.')}: missing; its settings ask for it")


def _check_layers(found: Mapping[str, Matrix], model: ModelConfig, where: str) -> None:
    """Layers of a kind have the same tensors, and there are as many as the settings say."""
    layers: dict[str, dict[int, set[str]]] = {}
    for name in found:
        layer = LAYER.fullmatch(name)
        if layer:
            numbers = layers.setdefault(layer["stack"], {})
            numbers.setdefault(int(layer["number"]), set()).add(layer["rest"])
    for stack, numbered in layers.items():
        count = layers_of(stack, model)
        odd = next((n for n in range(count) if n not in numbered), max(numbered))
        if odd >= count or odd not in numbered:
            word = "missing" if odd < count else f"its settings ask for {count} layers"
            raise DataError(f"{where}: {stack}.{odd}: {word}")
        for experts in (False, True):
            alike = [n for n in numbered if has_experts(model, n) == experts]
            _check_alike(stack, {n: numbered[n] for n in alike}, where)
    if not layers:
        raise DataError(f"{where}: holds no layer")


def _check_alike(stack: str, numbered: Mapping[int, set[str]], where: str) -> None:
    every = set().union(*numbered.values()) if numbered else set()
    for number, names in sorted(numbered.items()):
        missing = min(every - names, default=None)
        allowed = missing is not None and "relative_attention_bias" in missing
        if missing is not None and not allowed:
            raise DataError(f"{where}: {stack}.{number}.{missing}: missing")
