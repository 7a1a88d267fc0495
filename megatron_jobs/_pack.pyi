import numpy as np
from numpy.typing import NDArray

def best_fit(
    lengths: NDArray[np.int32], *, capacity: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]: ...
def draw_paced(values: NDArray[np.int64], horizons: NDArray[np.int64], *, seed: int) -> None: ...
