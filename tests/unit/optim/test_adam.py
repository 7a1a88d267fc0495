"""The optimizer that megatron-core is given, against torch's of which it is a kind."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels.dispatch import FallbackWarning, choose
from megatron_jobs.optim.adam import FusedAdamW, fused_adamw, l2_norm


@pytest.fixture
def plain_torch() -> Iterator[None]:
    choose(KernelsConfig(adam="reference"))
    yield
    choose(KernelsConfig())


@pytest.fixture(autouse=True)
def nothing_told_yet() -> None:
    choose(KernelsConfig())


def parameters() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(5)
    return [
        torch.nn.Parameter(torch.randn(s, generator=draw)) for s in ((9, 31), (1,), (0,), (65,))
    ]


def optimizer(kind: type[torch.optim.AdamW], of: list[torch.nn.Parameter]) -> torch.optim.AdamW:
    """Two groups; the last parameter never has a gradient."""
    groups = [{"params": of[:1], "weight_decay": 0.1}, {"params": of[1:], "lr": 3e-2}]
    return kind(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)


def take_steps(adam: torch.optim.AdamW, of: list[torch.nn.Parameter], first: int) -> None:
    for step in range(first, first + 3):
        draw = torch.Generator().manual_seed(step)
        for parameter in of[:-1]:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        adam.step()


def test_steps_and_state_are_those_of_torch() -> None:
    ours, theirs = parameters(), parameters()
    adams = optimizer(FusedAdamW, ours), optimizer(torch.optim.AdamW, theirs)
    for adam, of in zip(adams, (ours, theirs), strict=True):
        take_steps(adam, of, 1)
    assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert_close(adams[0].state_dict()["state"], adams[1].state_dict()["state"])
    assert torch.equal(ours[-1], parameters()[-1])
    assert ours[-1] not in adams[0].state


def test_either_goes_on_from_the_state_of_the_other() -> None:
    whole = parameters()
    take_steps(straight := optimizer(FusedAdamW, whole), whole, 1)
    take_steps(straight, whole, 4)
    for kinds in ((torch.optim.AdamW, FusedAdamW), (FusedAdamW, torch.optim.AdamW)):
        found = parameters()
        take_steps(before := optimizer(kinds[0], found), found, 1)
        after = optimizer(kinds[1], found)
        after.load_state_dict(before.state_dict())
        take_steps(after, found, 4)
        assert_close(found, whole, rtol=1e-6, atol=1e-6)


def test_by_the_settings_it_is_torch_itself(plain_torch: None) -> None:
    ours, theirs = parameters(), parameters()
    take_steps(optimizer(FusedAdamW, ours), ours, 1)
    take_steps(optimizer(torch.optim.AdamW, theirs), theirs, 1)
    assert all(map(torch.equal, ours, theirs))


def test_a_factor_holds_for_one_step() -> None:
    ours, scaled = parameters(), parameters()
    adams = [FusedAdamW(of, lr=1e-2) for of in (ours, scaled)]
    for factor in (0.25, 1.0):
        for one, other in zip(ours, scaled, strict=True):
            one.grad = torch.ones_like(one)
            other.grad = factor * torch.ones_like(other)
        adams[0].factor = factor
        for adam in adams:
            adam.step()
        assert adams[0].factor == 1.0
        assert all(map(torch.equal, ours, scaled))


def test_copies_are_written_in_the_step() -> None:
    of = parameters()
    adam = FusedAdamW(of, lr=1e-2)
    copies: list[Tensor] = [of[0].detach().bfloat16(), of[1].detach().half()]
    adam.copies = dict(zip(of, copies, strict=False))
    take_steps(adam, of, 1)
    assert adam.wrote_copies
    for parameter, copy in zip(of, copies, strict=False):
        assert torch.equal(parameter.to(copy.dtype), copy)


def odd(kind: str) -> tuple[Tensor, Tensor]:
    """A parameter and a gradient of which one is not as the fused step knows them."""
    values, slope = torch.arange(24.0).view(4, 6), torch.ones(4, 6)
    if kind == "bf16":
        return values.bfloat16(), slope.bfloat16()
    if kind == "transposed":
        return values.t(), slope.t()
    if kind == "channels last":
        wide = values.view(1, 2, 3, 4).to(memory_format=torch.channels_last)
        return wide, torch.ones_like(wide)
    return values, torch.ones(4, 12)[:, ::2]


@pytest.mark.filterwarnings("ignore::megatron_jobs.kernels.dispatch.FallbackWarning")
@pytest.mark.parametrize("kind", ["bf16", "transposed", "channels last", "slope"])
def test_what_the_fused_step_does_not_know_is_moved_by_torch(kind: str) -> None:
    """The odd one comes last: it is not enough to look at the first."""
    found = []
    for adam in (FusedAdamW, torch.optim.AdamW):
        of = [torch.nn.Parameter(torch.ones(7)), torch.nn.Parameter(odd(kind)[0].clone())]
        mover = adam(of, lr=1e-2)
        for _ in range(2):
            of[0].grad, of[1].grad = torch.ones(7), odd(kind)[1]
            mover.step()
        found.append(of)
    assert all(map(torch.equal, *found))


def test_parameters_that_began_later_take_steps_of_their_own() -> None:
    ours, theirs = parameters(), parameters()
    for adam, of in ((FusedAdamW(ours), ours), (torch.optim.AdamW(theirs), theirs)):
        take_steps(adam, of[:2], 1)
        take_steps(adam, of, 4)
        assert [int(adam.state[parameter]["step"]) for parameter in of[:3]] == [6, 3, 3]
    assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_norms_of_lists_that_are_not_alike() -> None:
    flag = torch.zeros(1, dtype=torch.int)
    assert l2_norm(1 << 16, flag, [[]], False)[0] == 0
    strided = torch.full((4, 4), 2.0)[:, ::2]
    with pytest.warns(FallbackWarning):
        found, _ = l2_norm(1 << 16, flag, [[torch.ones(4), strided]], False)
    assert found == 6


def test_it_takes_the_place_of_torchs_and_gives_it_back() -> None:
    plain = torch.optim.AdamW
    with fused_adamw():
        assert torch.optim.AdamW is FusedAdamW
    assert torch.optim.AdamW is plain


def test_the_norm_is_that_of_megatron(plain_torch: None) -> None:
    tensors = [parameter.detach() for parameter in parameters()]
    flag = torch.zeros(1, dtype=torch.int)
    plain, none = l2_norm(1 << 16, flag, [tensors], False)
    choose(KernelsConfig())
    fused, _ = l2_norm(1 << 16, flag, [tensors], False)
    assert none is None
    assert fused.dtype == plain.dtype
    assert_close(fused, plain, rtol=1e-6, atol=0)
