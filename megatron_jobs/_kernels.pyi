from collections.abc import Sequence

def machine() -> str: ...
def machines() -> list[str]: ...
def choose_machine(name: str) -> None: ...
def norm_forward(
    x: int,
    residual: int,
    weight: int,
    bias: int,
    y: int,
    sum: int,  # noqa: A002
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
def activation_forward(
    x: int,
    bias: int,
    y: int,
    *,
    rows: int,
    columns: int,
    dtype: int,
    function: int,
    gated: bool,
    threads: int,
) -> None: ...
def activation_backward(
    dy: int,
    x: int,
    bias: int,
    dx: int,
    dbias: int,
    *,
    rows: int,
    columns: int,
    dtype: int,
    function: int,
    gated: bool,
    threads: int,
) -> None: ...
def rope(
    x: int,
    cos: int,
    sin: int,
    y: int,
    *,
    shape: Sequence[int],
    strides: Sequence[int],
    turned: int,
    dtype: int,
    interleaved: bool,
    inverse: bool,
    threads: int,
) -> None: ...
def add_residual(
    x: int,
    bias: int,
    residual: int,
    y: int,
    *,
    rows: int,
    columns: int,
    dtype: int,
    threads: int,
) -> None: ...
def bias_gradient(
    dy: int, dbias: int, *, rows: int, columns: int, dtype: int, threads: int
) -> None: ...

class LossRule:
    def __init__(
        self,
        *,
        rows: int,
        columns: int,
        first: int,
        vocab: int,
        ignored: int,
        dtype: int,
        cap: float,
        smoothing: float,
        z_loss: float,
        threads: int,
    ) -> None: ...

def loss_parts(logits: int, targets: int, parts: int, rule: LossRule) -> None: ...
def loss_gradient(
    x: int, targets: int, logsum: int, weights: int, gradient: int, rule: LossRule
) -> None: ...
def loss_whole(logits: int, targets: int, weights: int, losses: int, rule: LossRule) -> None: ...
def adam_step(
    parameters: list[int],
    gradients: list[int],
    first: list[int],
    second: list[int],
    rounded: list[int],
    *,
    sizes: list[int],
    dtype: int,
    rounded_dtype: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    step: float,
    factor: float,
    threads: int,
) -> None: ...
def sum_of_squares(tensors: list[int], *, sizes: list[int], dtype: int, threads: int) -> float: ...
def scale_all(
    tensors: list[int], *, sizes: list[int], dtype: int, factor: float, threads: int
) -> bool: ...
def all_finite(tensors: list[int], *, sizes: list[int], dtype: int, threads: int) -> bool: ...

class SoftmaxRule:
    def __init__(
        self,
        *,
        allowed: int,
        shape: Sequence[int],
        strides: Sequence[int],
        causal: bool,
        scale: float,
        cap: float,
        dtype: int,
        threads: int,
    ) -> None: ...

def softmax_forward(scores: int, weights: int, rule: SoftmaxRule) -> None: ...
def softmax_backward(
    dweights: int, scores: int, weights: int, dscores: int, rule: SoftmaxRule
) -> None: ...

class Attention:
    def __init__(
        self,
        *,
        shape: Sequence[int],
        q_strides: Sequence[int],
        k_strides: Sequence[int],
        v_strides: Sequence[int],
        first: int,
        scale: float,
        dtype: int,
        threads: int,
    ) -> None: ...

def attention_forward(q: int, k: int, v: int, out: int, sums: int, task: Attention) -> None: ...
def attention_backward(
    inputs: Sequence[int], gradients: Sequence[int], task: Attention
) -> None: ...

class RouterRule:
    def __init__(
        self,
        *,
        shape: Sequence[int],
        groups: Sequence[int],
        dtype: int,
        sigmoid: bool,
        normalized: bool,
        scale: float,
        threads: int,
    ) -> None: ...

def router_forward(logits: int, bias: int, weights: int, chosen: int, rule: RouterRule) -> None: ...
def router_backward(
    logits: int, dweights: int, chosen: int, dlogits: int, rule: RouterRule
) -> None: ...

class RowsRule:
    def __init__(
        self, *, tokens: int, visits: int, columns: int, dtype: int, threads: int
    ) -> None: ...

def deal_visits(
    goes: int, source: int, places: int, chosen: int, *, shape: Sequence[int]
) -> None: ...
def bring_rows(
    x: int, source: int, chunks: list[int], *, rows: list[int], rule: RowsRule
) -> None: ...
def collect_rows(
    chunks: list[int], places: int, weights: int, y: int, *, rows: list[int], rule: RowsRule
) -> None: ...
def collect_rows_backward(
    dy: int,
    chunks: list[int],
    places: int,
    weights: int,
    slopes: list[int],
    dweights: int,
    *,
    rows: list[int],
    rule: RowsRule,
) -> None: ...
def add_gradient(
    gradient: int,
    sum: int,  # noqa: A002
    *,
    numbers: int,
    dtype: int,
    first: bool,
    threads: int,
) -> None: ...
