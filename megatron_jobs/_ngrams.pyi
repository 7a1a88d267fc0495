from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

WORDS_VERSION: int
GRAMS_VERSION: int

class TrainedGrams(TypedDict):
    singles: NDArray[np.float32]
    tables: list[NDArray[np.uint64]]
    counts: list[int]
    discounts: list[tuple[float, float, float, bool]]

def word_hashes(text: str, *, folded: bool = True, lines: bool = False) -> NDArray[np.uint64]: ...
def gram_buckets(
    text: str, *, bits: int, order: int, limit: int = 1 << 40
) -> NDArray[np.uint32]: ...

class LinearScorer:
    def __init__(
        self,
        weights: NDArray[np.float32],
        biases: NDArray[np.float32],
        *,
        bits: int,
        order: int,
        limit: int,
    ) -> None: ...
    def score(self, text: str) -> list[float]: ...
    def score_many(self, texts: list[str], *, threads: int = 1) -> NDArray[np.float64]: ...

class LinearTrainer:
    def __init__(self, *, bits: int, columns: int) -> None: ...
    def epoch(
        self,
        features: NDArray[np.uint32],
        starts: NDArray[np.int64],
        labels: NDArray[np.int32],
        importance: NDArray[np.float32],
        order: NDArray[np.int64],
        *,
        rate: float,
        batch: int = 128,
        threads: int = 1,
    ) -> float: ...
    def weights(self) -> NDArray[np.float32]: ...
    def biases(self) -> NDArray[np.float32]: ...

def fill_table(keys: NDArray[np.uint64], values: NDArray[np.uint64]) -> NDArray[np.uint64]: ...
def gram_keys(words: NDArray[np.uint32], *, order: int) -> NDArray[np.uint64]: ...
def train_grams(
    words: NDArray[np.uint32], *, vocabulary: int, order: int, threads: int = 1
) -> TrainedGrams: ...

class GramScorer:
    def __init__(
        self,
        singles: NDArray[np.float32],
        tables: list[NDArray[np.uint64]],
        *,
        vocabulary: NDArray[np.uint64] | None = None,
        folded: bool = True,
        unknown_words: float = 1.0,
    ) -> None: ...
    def score_text(self, text: str) -> tuple[float, int]: ...
    def score_lines(self, words: NDArray[np.uint32]) -> tuple[float, int]: ...
    def score_words(self, words: NDArray[np.uint32]) -> NDArray[np.float32]: ...
