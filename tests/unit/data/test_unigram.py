import math
from collections import Counter

import numpy as np

from megatron_jobs.data.unigram import token_counts, unigram_loss


def test_loss_is_that_of_counting_by_hand() -> None:
    train, held_out, vocab = [3, 1, 3, 3, 0], [3, 2, 1, 1], 5
    counter = Counter(train)
    by_hand = [-math.log((counter[t] + 1) / (len(train) + vocab)) for t in held_out]
    counts = token_counts(np.array(train), vocab)
    assert counts.tolist() == [1, 1, 0, 3, 0]
    assert math.isclose(unigram_loss(counts, np.array(held_out)), sum(by_hand) / len(held_out))
