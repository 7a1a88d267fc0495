"""What jobs cost, by hand, and how it is said."""

from pathlib import Path

import pytest

from megatron_jobs.config.site import Prices
from megatron_jobs.jobs.cluster import Cluster, write_cluster
from megatron_jobs.jobs.costs import Costs, costs_of, prices_of
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.starts import Start
from megatron_jobs.jobs.words import say_energy, say_hours, say_money, say_name, say_seconds

EUROS = Prices(gpu_hour=2, cpu_hour=0.1, kwh=0.5, currency="EUR")
TWO = (
    Start(began=100.0, ended=100.0 + 7200, cpus=8, gpus=4, joules=3.6e6),
    Start(began=9000.0, cpus=8, gpus=4),
)


def test_all_starts_count_and_the_last_until_now() -> None:
    """2 h and half an hour on 4 GPUs and 8 cores; 1 kWh was measured of the first."""
    costs = costs_of(TWO, EUROS, now=9000.0 + 1800, joules=5.0)
    assert (costs.hours, costs.gpu_hours, costs.cpu_hours) == (2.5, 10, 20)
    assert (costs.joules, costs.partly) == (3.6e6, True)
    assert costs.money == {"EUR": pytest.approx(10 * 2 + 20 * 0.1 + 0.5)}


def test_the_receipt_tells_of_energy_where_slurm_does_not() -> None:
    costs = costs_of(TWO[1:], EUROS, now=9000.0, joules=7.2e6)
    assert (costs.joules, costs.partly) == (7.2e6, False)
    assert costs.money == {"EUR": pytest.approx(1.0)}


def test_nothing_is_said_of_money_where_nobody_has_prices() -> None:
    assert costs_of(TWO, None, now=9000.0).money == {}
    assert costs_of(TWO, Prices(), now=9000.0).money == {}
    assert costs_of((), EUROS, now=9000.0) == Costs()


def test_totals_keep_currencies_apart_and_energy_of_those_that_know_it() -> None:
    parts = [Costs(hours=1, money={"EUR": 2}), Costs(gpu_hours=3, joules=5.0, money={"USD": 1})]
    total = sum([*parts, Costs(money={"EUR": 0.5})], Costs())
    money = {"EUR": 2.5, "USD": 1}
    assert total == Costs(hours=1, gpu_hours=3, joules=5.0, partly=True, money=money)
    whole = Costs(hours=1, joules=2.0) + Costs(hours=2, joules=3.0) + Costs()
    assert (whole.joules, whole.partly) == (5.0, False)
    assert say_money(total.money) == "2.50 EUR + 1.00 USD"
    assert sum([], Costs()).joules is None


def test_tasks_at_the_same_time_take_the_time_of_one() -> None:
    """An hour, and one that begins half an hour later; then nothing; then a quarter: 1.75 h."""
    spans = ((0.0, 3600.0), (1800.0, 5400.0), (9000.0, 9900.0))
    costs = costs_of([Start(began=b, ended=e, gpus=2) for b, e in spans], None, now=0)
    assert (costs.hours, costs.gpu_hours) == (1.75, 4.5)


def test_prices_are_those_of_the_profile_beside_the_job(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert prices_of(folder) is None
    write_cluster(folder, Cluster(name="here", prices=EUROS))
    assert prices_of(folder) == EUROS


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (say_energy(None), ""),
        (say_energy(3.6e6), "1.0 kWh"),
        (say_energy(36_000), "10 Wh"),
        (say_energy(3.6e6, partly=True), "at least 1.0 kWh"),
        (say_hours(0), ""),
        (say_hours(0.0001), "< 0.001"),
        (say_hours(0.0456), "0.046"),
        (say_hours(12.34), "12.3"),
        (say_hours(12345), "12,345"),
        (say_seconds(3725), "1:02:05"),
        (say_seconds(100 * 3600), "4 d 4 h"),
        (say_name("a b"), "a b"),
        (say_name("a\nb\x1b[31m"), r"'a\nb\x1b[31m'"),
    ],
)
def test_words(said: str, words: str) -> None:
    assert said == words
