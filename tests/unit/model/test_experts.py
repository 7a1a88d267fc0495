"""Which experts a token visits, against a version in plain loops."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.router import RouterConfig
from megatron_jobs.model.experts import choose


def slow_scores(logits: list[float], rules: RouterConfig) -> list[float]:
    if rules.score == "sigmoid":
        return [1 / (1 + math.exp(-logit)) for logit in logits]
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


def slow_choice(
    logits: list[float], rules: RouterConfig, count: int, bias: list[float]
) -> dict[int, float]:
    """Expert -> weight of one token; of equal ones the first."""
    scores = slow_scores(logits, rules)
    judged = [score + own for score, own in zip(scores, bias, strict=True)]
    size = len(logits) // rules.groups
    groups = [range(first, first + size) for first in range(0, len(logits), size)]
    judges = 2 if rules.group_score == "top2" else 1

    def worth(group: range) -> float:
        return sum(sorted((judged[expert] for expert in group), reverse=True)[:judges])

    allowed = groups
    if rules.groups > 1:
        allowed = sorted(groups, key=worth, reverse=True)[: rules.groups_per_token]
    among = [expert for group in allowed for expert in group]
    best = sorted(among, key=lambda expert: judged[expert], reverse=True)[:count]
    total = sum(scores[expert] for expert in best) if rules.normalize else 1.0
    return {expert: rules.scale * scores[expert] / total for expert in best}


def chosen(
    logits: Tensor, rules: RouterConfig, count: int, bias: Tensor | None = None
) -> list[dict[int, float]]:
    weights, experts = choose(logits, rules, count, bias)
    pairs = zip(experts.tolist(), weights.tolist(), strict=True)
    return [dict(zip(*pair, strict=True)) for pair in pairs]


RULES = {
    "mixtral": RouterConfig(),
    "qwen 2": RouterConfig(normalize=False),
    "deepseek v2": RouterConfig(
        normalize=False, scale=16.0, groups=4, groups_per_token=2, group_score="max"
    ),
    "deepseek v3": RouterConfig(
        score="sigmoid", scale=2.5, groups=4, groups_per_token=2, bias=True
    ),
    "one group of three": RouterConfig(groups=3, groups_per_token=1),
    "not normal": RouterConfig(score="sigmoid", normalize=False),
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", RULES)
def test_choice_is_that_of_plain_loops(name: str, count: int) -> None:
    rules = RULES[name]
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(200, 12, generator=draw)
    bias = 0.1 * torch.randn(12, generator=draw) if rules.bias else None
    added = [0.0] * 12 if bias is None else bias.tolist()
    for row, found in zip(logits.tolist(), chosen(logits, rules, count, bias), strict=True):
        expected = slow_choice(row, rules, count, added)
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, rel=1e-5)


def test_the_bias_chooses_and_does_not_weigh() -> None:
    rules = RouterConfig(score="sigmoid", bias=True, normalize=False)
    logits, bias = torch.zeros(1, 4), torch.tensor([0.0, 9.0, 0.0, -9.0])
    assert chosen(logits, rules, 1, bias) == [{1: 0.5}]


@pytest.mark.parametrize("name", RULES)
def test_ties_are_as_many_experts_of_as_many_groups_as_asked(name: str) -> None:
    rules, count = RULES[name], 3
    (found,) = chosen(torch.zeros(1, 12), rules, count)
    assert len(found) == count, "no expert twice"
    groups = {expert // (12 // rules.groups) for expert in found}
    assert len(groups) <= rules.groups_per_token
    each = 1 / count if rules.normalize else 0.5 if rules.score == "sigmoid" else 1 / 12
    assert_close(list(found.values()), [each * rules.scale] * count)


def test_gradients_are_those_of_weights_taken_by_hand() -> None:
    rules = RULES["deepseek v3"]
    logits = torch.randn(5, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights, experts = choose(logits, rules, 3, torch.zeros(12))
    (found,) = torch.autograd.grad(weights.square().sum(), logits)
    own = logits.sigmoid().gather(1, experts)
    by_hand = 2.5 * own / own.sum(1, keepdim=True)
    (expected,) = torch.autograd.grad(by_hand.square().sum(), logits)
    assert_close(found, expected)
