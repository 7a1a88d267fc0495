"""Estimates and scores are KenLM's.

kenlm.txt     150 lines that were drawn by chance
kenlm.arpa.gz what `lmplz -o 3` of KenLM 0.3.0 estimates from them
"""

import math
import random
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs._ngrams import word_hashes
from megatron_jobs.text.gram_training import Vocabulary, save_grams, train
from megatron_jobs.text.perplexity import Perplexity, load_perplexity

HERE = Path(__file__).parent
SCORES = {
    "the ba be bi": (-4.356158, 5),
    "ba": (-1.69458, 2),
    "the": (-1.808912, 2),
    "zzz ba": (-5.42659, 3),
    "ba ban ben qqq": (-7.691174, 5),
    "ba bi ba be the bo ba": (-10.625011, 8),
    "nan nan nan": (-8.693397, 4),
    "pen the pen the": (-12.138951, 5),
}
"""log10 p by kenlm.Model of the same file, and words, the end of the line being one."""
ALL = -933.0603773593903
"""Of the 150 lines together."""


def trained(folder: Path) -> Perplexity:
    hashes = [word_hashes((HERE / "kenlm.txt").read_text(), lines=True)]
    vocabulary = Vocabulary.of(hashes, min_count=1)
    words = vocabulary.number(hashes[0])
    grams = train(words, vocabulary=vocabulary.size, order=3, threads=2)
    assert grams["counts"] == [74 - 2, 486, 734]  # KenLM also counts <unk> and <s>
    save_grams(grams, folder, words=vocabulary, facts={})
    return load_perplexity(folder)


@pytest.mark.parametrize("own", [True, False])
def test_scores_are_kenlms(own: bool, tmp_path: Path) -> None:
    model = trained(tmp_path) if own else load_perplexity(HERE / "kenlm.arpa.gz")
    for line, (log_p, words) in SCORES.items():
        assert model.score(line) == pytest.approx(10 ** (-log_p / words), rel=1e-5), line
    text = (HERE / "kenlm.txt").read_text()
    count = len(text.split()) + 150
    assert model.score(text) == pytest.approx(10 ** (-ALL / count), rel=1e-6)


def test_estimates_are_kenlms_for_any_text(tmp_path: Path) -> None:
    ours, theirs = trained(tmp_path), load_perplexity(HERE / "kenlm.arpa.gz")
    known = sorted({*(HERE / "kenlm.txt").read_text().split(), "unknown"})
    draw = random.Random(0)
    for _ in range(500):
        line = " ".join(draw.choices(known, k=draw.randint(1, 12)))
        assert ours.score(line) == pytest.approx(theirs.score(line), rel=2e-5), line
    assert math.isnan(ours.score(""))
    assert math.isnan(theirs.score(""))
    assert np.isfinite(theirs.score("unknown"))
