"""Learning rates against their formulas, step by step."""

import math

import pytest
import torch

from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.optim.schedule import learning_rate

BASE = OptimConfig(lr=1.0, min_lr=0.1, warmup_steps=10, decay_steps=110, cooldown_steps=20)


def shaped(schedule: str) -> OptimConfig:
    return BASE.model_copy(update={"schedule": schedule})


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd", "inverse_sqrt"])
def test_warm_up_rises_in_equal_parts_to_the_top(schedule: str) -> None:
    rates = [learning_rate(shaped(schedule), step) for step in range(1, 11)]
    assert rates == pytest.approx([0.1 * n for n in range(1, 11)])


def test_cosine_as_torch_draws_it() -> None:
    config = shaped("cosine")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    other = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100, eta_min=0.1)
    for step in range(10, 111):
        assert learning_rate(config, step) == pytest.approx(other.get_last_lr()[0])
        optimizer.step()
        other.step()
    assert learning_rate(config, 500) == pytest.approx(0.1)


def test_linear_at_quarters() -> None:
    found = [learning_rate(shaped("linear"), step) for step in (10, 35, 60, 85, 110, 999)]
    assert found == pytest.approx([1.0, 0.775, 0.55, 0.325, 0.1, 0.1])


def test_constant_stays() -> None:
    assert {learning_rate(shaped("constant"), step) for step in range(10, 300)} == {1.0}


def test_wsd_stays_then_falls() -> None:
    found = [learning_rate(shaped("wsd"), step) for step in (10, 50, 90, 100, 110, 200)]
    assert found == pytest.approx([1.0, 1.0, 1.0, 0.55, 0.1, 0.1])


def test_inverse_sqrt_halves_when_steps_are_four_times_as_many() -> None:
    found = [learning_rate(shaped("inverse_sqrt"), step) for step in (10, 40, 160, 10_000)]
    assert found == pytest.approx([1.0, 0.5, 0.25, 0.1])


def test_without_warm_up_the_first_step_is_nearly_at_the_top() -> None:
    config = OptimConfig(lr=1.0, min_lr=0.0, decay_steps=4)
    found = [learning_rate(config, step) for step in range(1, 5)]
    assert found == pytest.approx([(1 + math.cos(math.pi * n / 4)) / 2 for n in range(1, 5)])


def test_over_fills_in_the_end_of_the_run() -> None:
    open_end = OptimConfig(warmup_steps=5)
    assert open_end.over(100).decay_steps == 100
    assert open_end.over(3).decay_steps == 6, "never within the warm-up"
    assert BASE.over(1000) is BASE


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"lr": 1e-5}, ("min_lr", "3e-05 is not between 0 and lr = 1e-05")),
        ({"beta2": 1.0}, ("beta2", "1.0 is not a share; it must be in [0, 1)")),
        ({"lr": 0.0, "min_lr": 0.0}, ("lr", "0.0 is not positive")),
        ({"loss_scale": 0.0}, ("loss_scale", "0.0 is not positive")),
        ({"clip": -1.0}, ("clip", "-1.0 is negative")),
        (
            {"warmup_steps": 10, "decay_steps": 10},
            ("decay_steps", "10 is not after the warm-up of 10 steps"),
        ),
        ({"schedule": "wsd"}, ("cooldown_steps", "must be set: it is how long wsd falls")),
    ],
)
def test_settings_that_clash(settings: dict[str, object], problem: tuple[str, str]) -> None:
    assert list(OptimConfig(**settings).problems()) == [problem]
