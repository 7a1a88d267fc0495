def machine() -> str: ...
def machines() -> list[str]: ...
def choose_machine(name: str) -> None: ...
def norm_forward(
    x: int,
    residual: int,
    weight: int,
    bias: int,
    y: int,
    sum: int,
    mean: int,
    scale: int,
    *,
    rows: int,
    columns: int,
    dtype: int,
    eps: float,
    offset: bool,
    threads: int,
) -> None: ...
def norm_backward(
    dy: int,
    x: int,
    weight: int,
    mean: int,
    scale: int,
    dsum: int,
    dx: int,
    dweight: int,
    dbias: int,
    *,
    rows: int,
    columns: int,
    dtype: int,
    offset: bool,
    threads: int,
) -> None: ...
