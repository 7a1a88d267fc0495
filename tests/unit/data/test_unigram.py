import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.data.unigram import counted_targets, token_counts, unigram_loss


class Samples(list[NDArray[np.int64]]):
    """Stands in for a split."""

    seq_len = 3
    packed = False


def test_loss_is_that_of_counting_by_hand() -> None:
    train, vocab = [[9, 3, 1, 3], [9, 3, 0, 5]], 10
    samples = Samples(np.array(row) for row in train)
    targets = [token for row in train for token in row[1:]]
    counter = Counter(targets)
    held_out = [3, 2, 1, 1]
    by_hand = [-math.log((counter[t] + 1) / (len(targets) + vocab)) for t in held_out]
    for chunk in (1, 2, 7):
        counts = token_counts(samples, vocab, chunk=chunk)  # type: ignore[arg-type]
        assert counts.tolist() == [counter[token] for token in range(vocab)]
    assert counted_targets(samples).tolist() == targets  # type: ignore[arg-type]
    assert math.isclose(unigram_loss(counts, np.array(held_out)), sum(by_hand) / len(held_out))
