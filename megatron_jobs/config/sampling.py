"""How the next token is drawn."""

from collections.abc import Iterator

from megatron_jobs.config.settings import Problem, Settings


class Sampling(Settings):
    """How the next token is drawn from the model's logits."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token (greedy)."""
    top_k: int = 0
    """Only the k most likely tokens can be drawn; 0: all."""
    top_p: float = 1.0
    """Only the smallest set of tokens whose probabilities sum to p (nucleus); 1: all."""

    def problems(self) -> Iterator[Problem]:
        """Values outside their ranges."""
        if self.temperature < 0:
            yield "temperature", f"{self.temperature} is below 0; 0 is greedy, 1 the model's own"
        if self.top_k < 0:
            yield "top_k", f"{self.top_k} is below 0; 0 keeps all tokens"
        if not 0 < self.top_p <= 1:
            yield "top_p", f"{self.top_p} is not in (0, 1]; 1 keeps all tokens"
