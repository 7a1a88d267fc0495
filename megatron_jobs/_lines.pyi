from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

def extract(
    block: bytes,
    *,
    key: str,
    id_key: str,
    separator: bytes,
    limit: int,
    width: Literal["", "plain", "avx2", "avx512"] = "",
) -> tuple[
    bytes, NDArray[np.int64], bytes, NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]
]: ...
def narrow(
    ids: NDArray[np.uint32],
    texts: NDArray[np.int64],
    *,
    separator: int,
    before: list[int],
    after: list[int],
    eod: int,
    vocab: int,
    wide: bool,
) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int32]]: ...
def name_documents(
    ids: bytes, sizes: NDArray[np.int64], lines: NDArray[np.int64], *, file: str
) -> tuple[bytes, NDArray[np.int64]]: ...
