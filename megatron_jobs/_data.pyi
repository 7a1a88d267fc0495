from typing import Any

import numpy as np
from numpy.typing import NDArray

class Shuffler:
    def __init__(self, seed: int) -> None: ...
    def shuffle(self, values: NDArray[Any]) -> None: ...

def sample_starts(
    lengths: NDArray[np.int32],
    order: NDArray[np.int32],
    *,
    seq_len: int,
    wide: bool = False,
    threads: int = 1,
) -> NDArray[Any]: ...
def blend(
    weights: NDArray[np.float64], *, size: int, threads: int = 1
) -> tuple[NDArray[np.int16], NDArray[np.int64]]: ...
def blend_all(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int16], NDArray[np.int64]]: ...
