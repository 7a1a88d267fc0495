"""Multi-head latent attention: keys and values are kept as one narrow vector for each token."""

from collections.abc import Iterator

from pydantic import PositiveFloat, PositiveInt

from megatron_jobs.config.settings import Problem, Settings


class LatentAttention(Settings):
    """Sizes of latent attention. Source: DeepSeek-AI 2024, section 2.1, arXiv:2405.04434."""

    q_rank: PositiveInt | None = None
    """Width that queries are squeezed to; None: they are not."""
    kv_rank: PositiveInt
    """Width that keys and values are squeezed to."""
    nope_dim: PositiveInt
    """Columns of a head of queries and keys that know no position."""
    rope_dim: PositiveInt
    """Columns of a head that rotary angles turn; of the keys one for all heads."""
    value_dim: PositiveInt
    """Columns of a head of values."""
    norm_eps: PositiveFloat = 1e-6
    """Added under the root in the norms of the squeezed vectors; DeepSeek has its own there."""

    def head_size(self) -> int:
        """Columns of a head of queries and keys."""
        return self.nope_dim + self.rope_dim

    def parameters(self, hidden: int, heads: int) -> int:
        """Numbers of one layer's attention."""
        queries = heads * self.head_size()
        if self.q_rank is None:
            projected = hidden * queries
        else:
            projected = self.q_rank * (hidden + 1 + queries)
        squeezed = hidden * (self.kv_rank + self.rope_dim) + self.kv_rank
        expanded = self.kv_rank * heads * (self.nope_dim + self.value_dim)
        return projected + squeezed + expanded + heads * self.value_dim * hidden

    def problems(self) -> Iterator[Problem]:
        """Sizes that cannot be."""
        if self.rope_dim % 2:
            yield "rope_dim", f"{self.rope_dim} is odd; rotary angles turn pairs of columns"
