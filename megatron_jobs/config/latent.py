"""Multi-head latent attention: keys and values are kept as one narrow vector for each token."""

from pydantic import PositiveInt

from megatron_jobs.config.settings import Settings


class LatentAttention(Settings):
    """Sizes of latent attention. Source: DeepSeek-AI 2024, section 2.1, arXiv:2405.04434."""

    q_rank: PositiveInt | None = None
    """Width that queries are squeezed to; None: they are not."""
    kv_rank: PositiveInt
    """Width that keys and values are squeezed to; it is what a cache keeps."""
    nope_dim: PositiveInt
    """Columns of a head of queries and keys that know no position."""
    rope_dim: PositiveInt
    """Columns of a head that rotary angles turn; of the keys one for all heads."""
    value_dim: PositiveInt
    """Columns of a head of values."""
