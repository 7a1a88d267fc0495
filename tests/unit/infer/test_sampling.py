import numpy as np
import pytest
import torch

from megatron_jobs.config.sampling import Sampling
from megatron_jobs.infer.sampling import kept_probabilities, next_tokens


def by_hand(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """One row at a time, token by token."""
    rows = []
    for row in logits.astype(np.float64) / sampling.temperature:
        order = sorted(range(len(row)), key=lambda i: -row[i])
        kept = order[: sampling.top_k or len(order)]
        weights = {i: np.exp(row[i] - max(row)) for i in kept}
        total, before, chosen = sum(weights.values()), 0.0, {}
        for i in kept:
            if before < sampling.top_p:
                chosen[i] = weights[i]
            before += weights[i] / total
        rows.append([chosen.get(i, 0.0) / sum(chosen.values()) for i in range(len(row))])
    return np.array(rows)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 5, 100])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.05])
def test_probabilities_are_those_of_the_definition(
    temperature: float, top_k: int, top_p: float
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    logits = torch.randn(3, 17, generator=torch.Generator().manual_seed(1))
    found = kept_probabilities(logits, sampling)
    np.testing.assert_allclose(found.numpy(), by_hand(logits.numpy(), sampling), atol=1e-6)


def test_greedy_takes_the_largest_and_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    assert next_tokens(logits, Sampling(temperature=0), generator).tolist() == [1, 0]
    drawn = next_tokens(logits[:1].expand(20000, 3), Sampling(), generator)
    shares = drawn.bincount(minlength=3) / 20000
    torch.testing.assert_close(shares, logits[0].softmax(-1), atol=0.015, rtol=0)


def test_impossible_values_are_problems() -> None:
    sampling = Sampling(temperature=-1, top_k=-2, top_p=0)
    assert [name for name, _ in sampling.problems()] == ["temperature", "top_k", "top_p"]
