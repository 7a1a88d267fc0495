"""The shape of a model. Imports no torch: commands read it."""

from collections.abc import Iterator
from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from megatron_jobs.config.kinds import kind_mesh_problems, kind_parameters, kind_problems
from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.positions import position_problems
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.config.settings import Problem, Settings


class ModelConfig(Settings):
    """A transformer. The defaults are those of a Llama; presets give the sizes."""

    kind: Literal["decoder", "encoder", "encoder_decoder"] = "decoder"
    """decoder: each token sees those before it (GPT); encoder: all (BERT); both: T5."""
    layers: PositiveInt
    """Transformer layers; with an encoder beside it, those of the decoder."""
    encoder_layers: NonNegativeInt = 0
    """Layers of the encoder of an encoder_decoder."""
    hidden: PositiveInt
    """Width of the residual stream."""
    heads: PositiveInt
    """Attention heads for queries."""
    kv_heads: PositiveInt | None = None
    """Attention heads for keys and values (grouped-query attention); None: as many as heads."""
    head_dim: PositiveInt | None = None
    """Width of one head; None: hidden / heads."""
    ffn: PositiveInt | None = None
    """Inner width of the feed-forward block (of each expert); None: 4 x hidden."""
    vocab_size: PositiveInt
    """Tokens of the tokenizer."""
    pad_vocab_to: PositiveInt = 128
    """The embedding gets a multiple of this many rows; independent of the mesh."""
    seq_len: PositiveInt = 2048
    """The longest sequence, in tokens."""
    position: Literal["rope", "learned", "relative"] = "rope"
    """How a token knows its place: rotary angles, a learned vector for each position, or a learned
    number added to the scores for each distance (T5)."""
    rope_base: PositiveInt = 10000
    """Longest wavelength of the rotary angles, divided by 2 pi."""
    rope_share: PositiveFloat = 1.0
    """Share of a head's columns that the angles turn."""
    rope_interleaved: bool = False
    """Whether the two columns that turn together are neighbours, not half a head apart."""
    rope_scaling: RopeScaling | None = None
    """How the angles are stretched for long sequences."""
    local_rope_base: PositiveInt | None = None
    """`rope_base` of the layers with a window, which no scaling stretches; None: as the others."""
    relative_buckets: PositiveInt = 32
    """Distances that have a number of their own, position: relative."""
    relative_distance: PositiveInt = 128
    """From this distance on, in tokens, all share the last number."""
    token_types: NonNegativeInt = 0
    """Kinds of segments that have a vector each (BERT: 2)."""
    embedding_scale: PositiveFloat | None = None
    """Multiplies the embedding's vectors; Gemma: sqrt(hidden)."""
    window: PositiveInt | None = None
    """Tokens that a token sees, itself the last of them; None: all before it."""
    full_layers: tuple[NonNegativeInt, ...] = ()
    """Layers, from 0, that see everything although there is a window."""
    attention_scale: PositiveFloat | None = None
    """Multiplies the scores; None: 1 / sqrt(head_dim)."""
    attention_softcap: PositiveFloat | None = None
    """Scores s become cap x tanh(s / cap); None: they stay."""
    logit_softcap: PositiveFloat | None = None
    """The same for the logits of the output layer."""
    latent: LatentAttention | None = None
    """Latent attention (MLA) in place of separate keys and values."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_eps: float = 1e-5
    """Added to the mean square or the variance under the root."""
    norm_offset: bool = False
    """Whether norms multiply by 1 + weight (Gemma)."""
    norm_place: Literal["before", "after", "both", "residual"] = "before"
    """Where a layer's norms stand: before attention and feed-forward block, after them (OLMo 2),
    both (Gemma 2), or after the sum with the residual stream (BERT)."""
    parallel_residual: bool = False
    """Whether attention and feed-forward block read the same stream (GPT-NeoX)."""
    activation: Literal["swiglu", "geglu", "geglu_tanh", "gelu", "gelu_tanh", "relu"] = "swiglu"
    """gelu_tanh is the approximation that GPT-2 uses; swiglu and geglu have a gate."""
    bias: bool = False
    """Whether linear layers add a bias."""
    qkv_bias: bool = False
    """Whether the projections to queries, keys and values do, when the others do not."""
    tied: bool = False
    """Whether the output layer is the embedding."""
    qk_norm: bool = False
    """Normalise queries and keys of each head."""
    qk_norm_all: bool = False
    """With qk_norm: all heads of a token together (OLMo 2), not each."""
    output_bias: bool = False
    """Whether the output layer adds a bias (BERT)."""
    logit_scale: PositiveFloat | None = None
    """Multiplies the states before the output layer of an encoder_decoder; T5 with a tied one:
    1 / sqrt(hidden)."""
    token_head: bool = True
    """Whether an encoder ends in logits of tokens (BERT's masked words); else in states."""
    pooler: bool = False
    """Whether an encoder has a layer over its first token (BERT)."""
    sentence_head: bool = False
    """Whether an encoder tells, by its pooler, if the second segment follows the first (BERT)."""
    dropout: float = 0.0
    """Share of activations dropped after the embedding, attention and feed-forward blocks."""
    attention_dropout: float = 0.0
    """Share of attention weights dropped."""
    experts: NonNegativeInt = 0
    """Experts of each feed-forward block; 0 makes it dense."""
    experts_per_token: PositiveInt = 2
    """Experts that each token visits."""
    balance_loss: float = 0.0
    """Weight of the loss that keeps experts equally busy; 0 leaves it out."""
    expert_ffn: PositiveInt | None = None
    """Inner width of each expert; None: ffn."""
    shared_ffn: NonNegativeInt = 0
    """Inner width of the block that every token visits beside its experts; 0: there is none."""
    shared_gate: bool = False
    """Whether a sigmoid of the token weighs that block (Qwen2-MoE)."""
    dense_layers: tuple[NonNegativeInt, ...] = ()
    """Layers, from 0, that have a dense block although there are experts."""
    router: RouterConfig = RouterConfig()
    """How tokens are dealt to experts."""
    init_std: float = 0.02
    """Standard deviation of initial weights; into the residual stream divided by sqrt(2 layers)."""

    def groups(self) -> int:
        """Heads for keys and values."""
        return self.kv_heads if self.kv_heads is not None else self.heads

    def head_size(self) -> int:
        """Width of one head of queries and keys."""
        if self.latent is not None:
            return self.latent.head_size()
        return self.head_dim if self.head_dim is not None else self.hidden // self.heads

    def ffn_size(self) -> int:
        """Inner width of the feed-forward block."""
        return self.ffn if self.ffn is not None else 4 * self.hidden

    def value_size(self) -> int:
        """Width of one head of values."""
        return self.latent.value_dim if self.latent is not None else self.head_size()

    def expert_size(self) -> int:
        """Inner width of one expert."""
        return self.expert_ffn if self.expert_ffn is not None else self.ffn_size()

    def has_experts(self, layer: int) -> bool:
        """Whether the feed-forward block of a layer, from 0, is a mixture of experts."""
        return self.experts > 0 and layer not in self.dense_layers

    def rope_columns(self) -> int:
        """Columns of a head that rotary angles turn."""
        return int(self.head_size() * self.rope_share)

    def window_of(self, layer: int) -> int | None:
        """`window` of a layer, counted from 0; None where it sees everything."""
        return None if layer in self.full_layers else self.window

    def is_gated(self) -> bool:
        """Whether the feed-forward block has gate columns beside its values."""
        return self.activation in ("swiglu", "geglu", "geglu_tanh")

    def padded_vocab(self) -> int:
        """Rows of the embedding."""
        return -(-self.vocab_size // self.pad_vocab_to) * self.pad_vocab_to

    def parameters(self, *, active: bool = False) -> int:
        """Numbers in the model; `active`: those that take part in computing one token."""
        if self.kind != "decoder":
            return kind_parameters(self)
        ends = self.padded_vocab() * self.hidden * (1 if self.tied else 2)
        if self.position == "learned":
            ends += self.seq_len * self.hidden
        ends += self.padded_vocab() * self.output_bias
        last = 0 if self.norm_place == "residual" else self._norm(self.hidden)
        sparse = sum(map(self.has_experts, range(self.layers)))
        blocks = sparse * self._experts(active)
        blocks += (self.layers - sparse) * self._block(self.ffn_size())
        return ends + last + self.layers * self._layer() + blocks

    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token: forward, and backward at twice that.

        Six for each weight of a matrix, and attention over the whole sequence or window, not half.
        Source: Chowdhery et al. 2022 (PaLM), appendix B, arXiv:2204.02311.
        """
        tables = self.padded_vocab() * self.hidden * (0 if self.tied else 1)
        if self.position == "learned":
            tables += self.seq_len * self.hidden
        matrices = self.parameters(active=True) - tables
        widths = self.head_size() + self.value_size()
        seen = sum(min(self.window_of(n) or self.seq_len, self.seq_len) for n in range(self.layers))
        scores = 6 * self.heads * widths * seen
        return 6 * matrices + scores

    def _layer(self) -> int:
        """Parameters of one layer but for its feed-forward block."""
        norms = (4 if self.norm_place == "both" else 2) * self._norm(self.hidden)
        if self.latent is not None:
            return norms + self.latent.parameters(self.hidden, self.heads)
        queries, keys = self.heads * self.head_size(), self.groups() * self.head_size()
        attention = self.hidden * (2 * queries + 2 * keys)
        attention += (queries + 2 * keys) * (self.bias or self.qkv_bias) + self.hidden * self.bias
        if self.qk_norm:
            heads = self.heads + self.groups() if self.qk_norm_all else 2
            norms += heads * self._norm(self.head_size())
        return attention + norms

    def _block(self, width: int) -> int:
        """Parameters of a feed-forward block of an inner width."""
        inner = width * (2 if self.is_gated() else 1)
        return self.hidden * (inner + width) + (inner + self.hidden) * self.bias

    def _experts(self, active: bool) -> int:
        """Parameters of a layer's experts, its router and the block beside them."""
        copies = self.experts_per_token if active else self.experts
        router = self.experts * (self.hidden + self.bias)
        shared = self._block(self.shared_ffn) if self.shared_ffn else 0
        gate = self.hidden if self.shared_ffn and self.shared_gate else 0
        return copies * self._block(self.expert_size()) + router + shared + gate

    def _norm(self, width: int) -> int:
        return width * (2 if self.norm == "layernorm" else 1)

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work, alone or together, on any mesh."""
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                yield name, f"{getattr(self, name)} is not a share; it must be in [0, 1)"
        for name in ("init_std", "norm_eps"):
            if getattr(self, name) <= 0:
                yield name, f"{getattr(self, name)} is not positive"
        if self.balance_loss < 0:
            yield "balance_loss", f"{self.balance_loss} is negative; 0 leaves it out"
        yield from self._head_problems() if self.latent is None else self._latent_problems()
        yield from self._norm_problems()
        yield from kind_problems(self)
        if self.experts:
            yield from self._expert_problems()

    def _head_problems(self) -> Iterator[Problem]:
        if self.head_dim is None and self.hidden % self.heads:
            yield "heads", f"{self.heads} heads do not divide hidden = {self.hidden}"
        if self.heads % self.groups():
            yield "kv_heads", f"{self.kv_heads} does not divide heads = {self.heads}"
        yield from position_problems(self)

    def _latent_problems(self) -> Iterator[Problem]:
        only: dict[str, object] = {"position": "rope", "rope_share": 1.0, "rope_interleaved": True}
        only |= {"kv_heads": None, "head_dim": None, "window": None, "norm": "rmsnorm"}
        only |= {"bias": False, "qkv_bias": False, "qk_norm": False, "attention_softcap": None}
        only |= {"attention_scale": None}
        for name, wanted in only.items():
            found = getattr(self, name)
            if found != wanted and not (name == "kv_heads" and found == self.heads):
                yield name, f"{found}: latent attention has {wanted} only"
        yield from position_problems(self)
        if self.rope_scaling is not None and self.rope_scaling.kind == "longrope":
            yield "rope_scaling.kind", "longrope: latent attention has no factor for each column"

    def _expert_problems(self) -> Iterator[Problem]:
        if self.experts < self.experts_per_token:
            yield "experts_per_token", f"{self.experts_per_token} is over experts = {self.experts}"
        else:
            choice = self.router.choice_problems(self.experts, self.experts_per_token)
            yield from ((f"router.{name}", sentence) for name, sentence in choice)
        beyond = [layer for layer in self.dense_layers if layer >= self.layers]
        if beyond:
            yield "dense_layers", f"{beyond[0]}: layers are 0 to {self.layers - 1}"
        if self.shared_ffn and self.bias:
            yield "shared_ffn", f"{self.shared_ffn}: a block beside the experts cannot have bias"

    def _norm_problems(self) -> Iterator[Problem]:
        if self.qk_norm_all and not self.qk_norm:
            yield "qk_norm_all", "there is nothing to normalise together; it needs qk_norm: true"
        if self.qk_norm_all and self.norm != "rmsnorm":
            yield "qk_norm_all", f"over all heads norm = {self.norm} cannot be; rmsnorm can"
        if self.parallel_residual and self.norm_place == "residual":
            rule = "no norm can follow two sums at once; norm_place: before, after or both"
            yield "parallel_residual", f"norm_place is residual, {rule}"

    def mesh_problems(self, mesh: Mesh) -> Iterator[Problem]:
        """What of this model cannot be cut by `mesh`; names are relative to the model."""
        yield from kind_mesh_problems(self, mesh)
        yield from self._tensor_problems(mesh)
        yield from mesh.sequence_problems(self.seq_len)
        yield from mesh.layer_problems(self.layers)
        if mesh.expert > 1 and (self.experts == 0 or self.experts % mesh.expert):
            yield "experts", f"{self.experts} experts cannot be dealt to {mesh.expert} expert ranks"
        if self.experts and mesh.tensor > 1 and not mesh.sequence_parallel:
            yield "experts", "on tensor ranks experts need mesh.sequence_parallel: true"
        if self.experts and self.bias and mesh.expert_tensor > 1:
            rule = f"cannot be cut over {mesh.expert_tensor} expert_tensor ranks"
            yield "bias", f"true: experts with biases {rule}"
        if self.latent is not None and mesh.tensor > 1 and not mesh.sequence_parallel:
            yield "latent", "on tensor ranks latent attention needs mesh.sequence_parallel: true"

    def _tensor_problems(self, mesh: Mesh) -> Iterator[Problem]:
        for name, size, ranks in self._cut_sizes(mesh):
            if size % ranks:
                what = name.replace("_", " ") if name.endswith("heads") else "columns"
                yield name, f"{size} {what} cannot be cut over {ranks} tensor ranks"
        if self.padded_vocab() % mesh.tensor:
            rule = f"make pad_vocab_to a multiple of {mesh.tensor}"
            rows = f"{self.padded_vocab()} rows of the embedding"
            yield "pad_vocab_to", f"{rows} cannot be cut over {mesh.tensor} tensor ranks; {rule}"

    def _cut_sizes(self, mesh: Mesh) -> Iterator[tuple[str, int, int]]:
        """(setting, what it counts, ranks over which that is cut)."""
        yield "heads", self.heads, mesh.tensor
        if mesh.tensor % self.groups():  # else some ranks share one
            yield "kv_heads", self.groups(), mesh.tensor
        elif self.latent is None and self.heads % mesh.tensor == 0:
            width = (self.heads + 2 * self.groups()) * self.head_size()
            yield "head_dim", width, mesh.tensor
        if self.experts:
            name = "expert_ffn" if self.expert_ffn is not None else "ffn"
            yield name, self.expert_size(), mesh.expert_tensor
            yield "shared_ffn", self.shared_ffn, mesh.tensor
        if not all(map(self.has_experts, range(self.layers))):
            yield "ffn", self.ffn_size(), mesh.tensor
