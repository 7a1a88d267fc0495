from typing import Any

import numpy as np
from numpy.typing import NDArray

BLEND_BLOCK: int

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
    weights: NDArray[np.float64],
    *,
    size: int,
    limits: NDArray[np.int64] | None = None,
    threads: int = 1,
    machine: str = "",
) -> tuple[NDArray[np.int16], NDArray[np.int64]]: ...
def blend_counts(
    weights: NDArray[np.float64],
    *,
    size: int,
    limits: NDArray[np.int64] | None = None,
    threads: int = 1,
    machine: str = "",
) -> NDArray[np.int64]: ...
def blend_part(
    weights: NDArray[np.float64],
    taken: NDArray[np.int64],
    *,
    first: int,
    size: int,
    limits: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int16], NDArray[np.int64]]: ...
