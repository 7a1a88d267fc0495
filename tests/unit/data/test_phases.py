"""Blends of several phases against a walk that takes the source furthest behind its share."""

from pathlib import Path

import pytest

from megatron_jobs.config.curriculum import Phase, phase_problems
from megatron_jobs.data.phases import PhasedBlend, mean_weights

PHASES = [
    Phase(until=0.5, weights=[3, 1, 0]),
    Phase(until=0.75, weights=[0, 0, 2]),
    Phase(until=1.0, weights=[1, 1, 2]),
]


def walk(phases: list[Phase], samples: int) -> list[tuple[int, int]]:
    """Megatron's rule, begun anew in each phase; each source's samples go on."""
    found: list[tuple[int, int]] = []
    used = [0] * len(phases[0].weights)
    for phase in phases:
        start, taken = len(found), [0] * len(used)
        shares = [weight / sum(phase.weights) for weight in phase.weights]
        while len(found) < round(phase.until * samples):
            size = max(len(found) - start, 1)
            behind = [
                share * size - count if share else -1e9
                for share, count in zip(shares, taken, strict=True)
            ]
            source = behind.index(max(behind))
            found.append((source, used[source] + taken[source]))
            taken[source] += 1
        used = [a + b for a, b in zip(used, taken, strict=True)]
    return found


@pytest.mark.parametrize("samples", [0, 1, 2, 3, 7, 100, 3001])
def test_each_phase_is_a_blend_of_its_own(samples: int, tmp_path: Path) -> None:
    blend = PhasedBlend.plan(PHASES, samples)
    wanted = walk(PHASES, samples)
    assert len(blend) == samples
    assert [blend[i] for i in range(samples)] == wanted
    rest = blend.save(tmp_path, "train")
    again = PhasedBlend.load(tmp_path, "train", rest)
    assert [again[i] for i in reversed(range(samples))] == wanted[::-1]
    counts = [sum(source == place for source, _ in wanted) for place in range(3)]
    assert again.taken(samples) == counts
    for place, count in enumerate(counts):
        assert [n for source, n in wanted if source == place] == list(range(count))


def test_samples_are_found_by_source_and_number() -> None:
    """Over several blocks of each phase."""
    blend = PhasedBlend.plan(PHASES, 100_003)
    for sample in [*range(0, len(blend), 997), 49_999, 50_001, 50_002, 75_002, len(blend) - 1]:
        source, number = blend[sample]
        assert blend.find(source, [number]) == [sample]
    counts = blend.taken(len(blend))
    assert [blend.find(source, [count]) for source, count in enumerate(counts)] == [[], [], []]


def test_the_mean_weighs_phases_by_their_length() -> None:
    assert mean_weights(PHASES) == pytest.approx(
        [0.5 * 0.75 + 0.25 * 0.25, 0.5 * 0.25 + 0.25 * 0.25, 0.25 + 0.25 * 0.5]
    )


@pytest.mark.parametrize(
    ("phases", "problems"),
    [
        ([(1.0, [1, 1])], []),
        ([(0.5, [1, 1])], [("phases", "found ends [0.5]; they must rise from above 0 to 1")]),
        (
            [(0.5, [1, 1]), (0.5, [1, 1]), (1, [1, 1])],
            [("phases", "found ends [0.5, 0.5, 1.0]; they must rise from above 0 to 1")],
        ),
        (
            [(0.0, [1, 1]), (1, [1, 1])],
            [("phases", "found ends [0.0, 1.0]; they must rise from above 0 to 1")],
        ),
        (
            [(0.5, [1, 1, 1]), (1, [-1, 2])],
            [
                ("phases.0.weights", "found 3 weights for 2 sources"),
                (
                    "phases.1.weights",
                    "found [-1.0, 2.0]; none may be negative, one must be positive",
                ),
            ],
        ),
        (
            [(0.5, [1, 0]), (1, [1, 0])],
            [("phases", "no phase gives tokens.1 a weight; leave the source out")],
        ),
    ],
)
def test_phases_that_cannot_be(
    phases: list[tuple[float, list[float]]], problems: list[tuple[str, str]]
) -> None:
    made = [Phase(until=until, weights=weights) for until, weights in phases]
    assert list(phase_problems(made, 2)) == problems
