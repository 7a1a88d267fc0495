"""Suggested weights against all weights of a grid; what is asked for and is not there."""

import itertools
from pathlib import Path

import pytest
import yaml

from megatron_jobs.data.report.blend_facts import BlendPart
from megatron_jobs.data.report.suggestion import Wish, suggest
from megatron_jobs.data.trained_tokens import TrainedSource
from megatron_jobs.errors import UserError
from megatron_jobs.text.composition import Composition

TOKENS = 1000
SHE, HE, THEY = (30, 4, 0), (10, 36, 1), (0, 100, 100)
"""Mentions in each source."""
STEPS = 50


def parts(trained: tuple[float, ...] = (200.0, 300.0, 500.0)) -> list[BlendPart]:
    found = []
    for place, tokens in enumerate(trained):
        made_of = Composition(documents=5, bytes=4000)
        counts = {"she": SHE[place], "he": HE[place], "they": THEY[place]}
        made_of.mentions.groups = {f"pronoun.{name}": n for name, n in counts.items() if n}
        made_of.licences.counts = {["MIT", "CC0-1.0", "GPL-2.0-only"][place]: 4000}
        source = TrainedSource(
            name=f"s{place}",
            path=Path(f"/s{place}/tokens"),
            tokens=TOKENS,
            text_bytes=4000,
            samples=1,
            trained=tokens,
            times_read=tokens / TOKENS,
        )
        found.append(BlendPart(source, made_of))
    return found


def test_no_weights_come_nearer_to_a_target_of_mentions() -> None:
    """Of the mentions of she and he; they, who are not named, do not count."""
    wish = Wish("pronoun", {"she": 0.45, "he": 0.55}, floor=0.1, stay=1e-9)
    found = suggest(parts(), wish, {})
    weights = [one["suggested"] for one in found["weights"]]
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    assert min(weights) >= 0.1 - 1e-6
    grid = [p for p in itertools.product(range(STEPS + 1), repeat=3) if sum(p) == STEPS]
    points = [[0.1 + 0.7 * part / STEPS for part in point] for point in grid]
    nearest = min(abs(share_of_she(point) - 0.45) for point in points)
    assert abs(share_of_she(weights) - 0.45) <= nearest + 1e-6
    assert found["suggested"]["she"] == pytest.approx(share_of_she(weights), abs=1e-6)
    assert found["present"]["she"] == pytest.approx(share_of_she([0.2, 0.3, 0.5]))
    assert found["weights"][0]["times_read"] == pytest.approx(weights[0], abs=1e-5)


def share_of_she(weights: list[float]) -> float:
    she, he = (sum(w * n for w, n in zip(weights, of, strict=True)) for of in (SHE, HE))
    return she / (she + he)


def test_a_source_that_gets_nothing_is_left_out_of_the_index() -> None:
    wish = Wish("licence_group", {"permissive": 0.5, "public domain": 0.5}, floor=0.0, stay=1e-9)
    found = suggest(parts(), wish, {})
    assert found["suggested"] == pytest.approx({"permissive": 0.5, "public domain": 0.5}, abs=1e-5)
    tokens = yaml.safe_load(found["yaml"])["tokens"]
    assert [one["path"] for one in tokens] == ["/s0/tokens", "/s1/tokens"]
    assert [one["weight"] for one in tokens] == pytest.approx([0.5, 0.5], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "share", "said"),
    [
        ("pronoun", "it", "target.shares.it: pronoun 'it' is in no source; found he, she, they"),
        ("licence", "X", "target.shares.X: licence 'X' is in no source; found CC0-1.0, GPL-2.0"),
        ("pronoum", "she", "target.property: found 'pronoum', must be one of licence_group, lang"),
    ],
)
def test_what_is_not_there(name: str, share: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        suggest(parts(), Wish(name, {share: 1.0}, floor=0.0, stay=0.001), {})
    assert str(caught.value).startswith(said)
