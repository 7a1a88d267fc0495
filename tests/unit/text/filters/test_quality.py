"""The score of quality, part by part."""

import pytest

from megatron_jobs.text.filters.quality import Quality
from megatron_jobs.text.record import Record
from tests.unit.text.filters.judged import problems_of, verdict_of

RULE = Quality(
    perplexity_weight=2, diversity_weight=1, safety_weight=3,
    best_perplexity=10, worst_perplexity=1000, min=0.5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("perplexity", "toxicity", "text", "score"),
    [
        (10, 0, "all of them differ", 1),
        (5, 0, "all of them differ", 1),
        (100, 0, "all of them differ", (2 * 0.5 + 1 + 3) / 6),
        (1e9, 0, "all of them differ", (1 + 3) / 6),
        (1e9, 0, "one one one one", (0.25 + 3) / 6),
        (10, 1, "all of them differ", (2 + 1) / 6),
        (100, 0.75, "one one two two", (2 * 0.5 + 0.5 + 3 * 0.25) / 6),
        (0, 0, "", (2 + 3) / 6),
    ],
)
def test_the_sum_of_its_parts(perplexity: float, toxicity: float, text: str, score: float) -> None:
    record = Record("", text, metadata={"perplexity": perplexity, "toxicity": toxicity})
    found = verdict_of(RULE, record)
    assert record.metadata["quality_score"] == pytest.approx(score, abs=1e-6)
    wanted = ("quality.too_low_quality_score", record.metadata["quality_score"], 0.5)
    assert found == (None if score >= 0.5 else wanted)


def test_diversity_is_of_windows() -> None:
    """A long text whose words come again is as diverse as a part of it."""
    rule = Quality(perplexity_weight=0, safety_weight=0, window=4)
    record = Record("", "a quick brown fox " * 50)
    assert verdict_of(rule, record) is None
    assert record.metadata == {"diversity": 1, "quality_score": 1}


def test_numbers_that_are_missing() -> None:
    for metadata, missing in (
        ({"toxicity": 0}, "perplexity"),
        ({"perplexity": 3, "toxicity": True}, "toxicity"),
        ({"perplexity": float("nan"), "toxicity": 0}, "perplexity"),
    ):
        record = Record("", "text", metadata=metadata)
        assert verdict_of(RULE, record) == (f"quality.{missing}.missing", None, "a number")
        assert verdict_of(RULE.model_copy(update={"missing": "pass"}), record) is None
        assert "quality_score" not in record.metadata


def test_what_cannot_work() -> None:
    assert problems_of(Quality, rule="quality", safety_weight=-1, min=2, window=0) == [
        ("safety_weight", "-1.0 must be at least 0"),
        (
            "best_perplexity",
            "None, None (best, worst) must both be given, above 0 and in order; "
            "or perplexity_weight: 0",
        ),
        ("window", "0 must be at least 1"),
        ("min", "2.0 must be from 0 to 1"),
    ]
    none = dict.fromkeys(("perplexity_weight", "diversity_weight", "safety_weight"), 0)
    assert problems_of(Quality, **none) == [
        (
            "rule",
            "quality needs at least one of perplexity_weight, diversity_weight, safety_weight",
        )
    ]
