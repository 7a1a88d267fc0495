"""Whether words of a tone are more frequent near a group than elsewhere."""

from dataclasses import dataclass
from math import log, sqrt

NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """`hits` of `trials`; both may be fractions, as of weighted counts."""

    hits: float
    trials: float

    @property
    def share(self) -> float:
        return self.hits / self.trials if self.trials else 0.0


@dataclass(frozen=True)
class Difference:
    """A difference of log odds, with its 95 % interval."""

    log_odds: float
    low: float
    high: float

    @property
    def distance(self) -> float:
        """Of the interval from 0; 0 when it holds 0."""
        return max(self.low, -self.high, 0.0)


def compare(near: Rate, elsewhere: Rate) -> Difference:
    """How the log odds of a hit near differ from those elsewhere.

    Half a hit is added near (Jeffreys), with as many words as it takes elsewhere to find one: few
    words then say little, in either direction. Words are taken as independent, which they are not
    quite.

    Source: Monroe, Colaresi and Quinn 2008, Fightin' Words, eq. 15, 16, 20: log odds with a prior
    of the overall rates.
    """
    base = (elsewhere.hits + 0.5) / (elsewhere.trials + 1)
    hits, trials = near.hits + 0.5, near.trials + 0.5 / base
    counts = (hits, trials - hits, elsewhere.hits + 0.5, elsewhere.trials - elsewhere.hits + 0.5)
    centre = log(counts[0] / counts[1]) - log(counts[2] / counts[3])
    half = NORMAL_95 * sqrt(sum(1 / count for count in counts))
    return Difference(centre, centre - half, centre + half)


def pooled(hits: list[float], trials: list[float], weights: list[float]) -> Rate:
    """The weighted rate of several sources, of as many trials as it is worth.

    n = (sum w t)^2 / sum w^2 t: the trials themselves for equal weights, fewer for others, so that
    text that is read ten times does not count as ten independent texts.

    Source: Kish 1965, Survey Sampling, effective sample size.
    """
    weighted = sum(w * t for w, t in zip(weights, trials, strict=True))
    square = sum(w * w * t for w, t in zip(weights, trials, strict=True))
    if not square:
        return Rate(0.0, 0.0)
    size = weighted * weighted / square
    return Rate(sum(w * h for w, h in zip(weights, hits, strict=True)) / weighted * size, size)
