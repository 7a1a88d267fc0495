#!/usr/bin/env python3
"""The classifier against fastText and scikit-learn: accuracy on held-out documents, and speed.

    tools/bench/classifier.py --positive ham.jsonl --negative spam.jsonl --rounds 5
    tools/bench/classifier.py --positive toxic.jsonl --negative clean.jsonl

All learn from the same documents and are judged on the same others, one thread each. fastText gets
lower-case text with signs apart, bigrams and 2^20 buckets, as is usual, and is timed without the
making of that text: ours takes the text as it is. scikit-learn gets a
HashingVectorizer of words and bigrams with SGDClassifier. Peers that are not installed
(fasttext-wheel, scikit-learn) are left out. Each round scores the held-out documents with all in
turn; printed are medians and, of the ratios of each round, the median and the range.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs._ngrams import gram_buckets
from megatron_jobs.text.hashed_sample import is_held_out, text_key
from megatron_jobs.text.linear_model import Features
from megatron_jobs.text.linear_training import Documents, FitRules, area_under_curve, build_model

SIGNS = re.compile(r"([^\w\s])")
Scores = np.ndarray[Any, np.dtype[np.float64]]
Score = Callable[[Sequence[str]], Scores]


@dataclass
class Data:
    """Texts with 1 for positive; those held out are judged on."""

    learn: list[str]
    labels: list[int]
    test: list[str]
    truth: np.ndarray[Any, np.dtype[np.bool_]]


def main() -> int:
    """Print a line a library."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--positive", type=Path, required=True)
    parser.add_argument("--negative", type=Path, required=True)
    parser.add_argument("--held-out", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    data = read(asked.positive, asked.negative, asked.held_out)
    found: dict[str, Score] = {}
    for name, train in (("ours", ours), ("fasttext", fasttext), ("sklearn", sklearn)):
        start = time.perf_counter()
        try:
            found[name] = train(data)
        except ImportError as error:
            print(f"{name}: left out, {error}")
            continue
        print(f"{name:10} trained in {time.perf_counter() - start:.2f} s", flush=True)
    compare(found, data, asked.rounds)
    return 0


def read(positive: Path, negative: Path, share: float) -> Data:
    """Both files' texts, each once."""
    data = Data([], [], [], np.zeros(0, dtype=bool))
    truth: list[bool] = []
    texts = {}
    for path, label in ((negative, 0), (positive, 1)):
        for line in path.open(encoding="utf-8"):
            texts[json.loads(line)["text"]] = label
    for text, label in sorted(texts.items(), key=lambda pair: text_key(pair[0])):
        if is_held_out(text_key(text), share):
            data.test.append(text)
            truth.append(bool(label))
        else:
            data.learn.append(text)
            data.labels.append(label)
    data.truth = np.array(truth)
    size = sum(len(text) for text in data.test)
    print(f"{len(data.learn)} to learn from, {len(data.test)} held out ({size / 1e6:.1f} MB)")
    return data


def ours(data: Data) -> Score:
    """Stage `classifier`'s defaults; the keys are others, so that some documents are held out
    from its training again."""
    features = Features()
    rows = (
        (text_key(f"learn {text}"), label, gram_buckets(text, **vars(features)))
        for text, label in zip(data.learn, data.labels, strict=True)
    )
    model = build_model(
        Documents.join(rows),
        names=["negative", "positive"],
        positive="positive",
        features=features,
        rules=FitRules(),
        held_out=0.1,
    )
    return lambda texts: np.array([model.score(text) for text in texts])


def fasttext(data: Data) -> Score:
    """Supervised, as for quality filters."""
    import fasttext as library

    def plain(text: str) -> str:
        return " ".join(SIGNS.sub(r" \1 ", text.lower()).split())

    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        for text, label in zip(data.learn, data.labels, strict=True):
            file.write(f"__label__{label} {plain(text)}\n")
        file.flush()
        model = library.train_supervised(
            file.name, wordNgrams=2, bucket=1 << 20, dim=16, epoch=25, lr=0.5, thread=1, verbose=0
        )

    prepared = {text: plain(text) for text in data.test}

    def score(texts: Sequence[str]) -> Scores:
        rows = [model.f.predict(prepared[text], 2, 0.0, "strict") for text in texts]
        return np.array([{label: p for p, label in row}["__label__1"] for row in rows])

    return score


def sklearn(data: Data) -> Score:
    """Hashed words and bigrams, logistic loss."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    hashed = HashingVectorizer(ngram_range=(1, 2), n_features=1 << 20, alternate_sign=False)
    model = SGDClassifier(loss="log_loss", class_weight="balanced", alpha=1e-6, random_state=0)
    model.fit(hashed.transform(data.learn), data.labels)
    return lambda texts: np.asarray(model.predict_proba(hashed.transform(texts))[:, 1])


def compare(found: dict[str, Score], data: Data, rounds: int) -> None:
    """Accuracy of each, then the speeds in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, score in found.items():
            start = time.perf_counter()
            p = score(data.test)
            seconds[name].append(time.perf_counter() - start)
            if len(seconds[name]) == 1:
                right = (p > 0.5) == data.truth
                both = (right[data.truth].mean() + right[~data.truth].mean()) / 2
                print(
                    f"{name:10} accuracy {right.mean():.4f}   of labels alike {both:.4f}"
                    f"   AUC {area_under_curve(p, data.truth):.4f}"
                )
    for name, taken in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(taken, seconds["ours"], strict=True)]
        speed = len(data.test) / statistics.median(taken)
        span = f"{statistics.median(ratios):.1f} [{min(ratios):.1f}..{max(ratios):.1f}]"
        print(f"{name:10} {speed:9,.0f} documents/s   ours is {span} times as fast", flush=True)


if __name__ == "__main__":
    sys.exit(main())
