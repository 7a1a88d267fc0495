KERNELS: tuple[str, ...]
EMULATED: bool

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
    ) -> None: ...

class SoftmaxRule:
    def __init__(
        self,
        *,
        shape: list[int],
        allowed: int,
        strides: list[int],
        causal: bool,
        scale: float,
        cap: float,
        dtype: int,
    ) -> None: ...

def devices() -> int: ...
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
    stream: int,
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
    scratch: int,
    *,
    rows: int,
    columns: int,
    dtype: int,
    offset: bool,
    stream: int,
) -> None: ...
def norm_scratch(columns: int, centred: bool) -> int: ...
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
    stream: int,
) -> None: ...
def activation_backward(
    dy: int,
    x: int,
    bias: int,
    dx: int,
    dbias: int,
    scratch: int,
    *,
    rows: int,
    columns: int,
    dtype: int,
    function: int,
    gated: bool,
    stream: int,
) -> None: ...
def activation_scratch(columns: int, gated: bool) -> int: ...
def residual_forward(
    x: int,
    bias: int,
    residual: int,
    y: int,
    seed: int,
    *,
    rows: int,
    columns: int,
    dtype: int,
    dropout: float,
    stream: int,
) -> None: ...
def residual_backward(
    dy: int,
    dx: int,
    dbias: int,
    scratch: int,
    seed: int,
    *,
    rows: int,
    columns: int,
    dtype: int,
    dropout: float,
    stream: int,
) -> None: ...
def residual_scratch(columns: int) -> int: ...
def loss_parts(logits: int, targets: int, parts: int, rule: LossRule, *, stream: int) -> None: ...
def loss_gradient(
    x: int,
    targets: int,
    logsum: int,
    weights: int,
    gradient: int,
    rule: LossRule,
    *,
    stream: int,
) -> None: ...
def loss_whole(
    logits: int, targets: int, weights: int, losses: int, rule: LossRule, *, stream: int
) -> None: ...
def rope(
    x: int,
    cos: int,
    sin: int,
    y: int,
    *,
    shape: list[int],
    strides: list[int],
    turned: int,
    dtype: int,
    interleaved: bool,
    inverse: bool,
    stream: int,
) -> None: ...
def softmax_forward(scores: int, weights: int, rule: SoftmaxRule, *, stream: int) -> None: ...
def softmax_backward(
    dweights: int, scores: int, weights: int, dscores: int, rule: SoftmaxRule, *, stream: int
) -> None: ...
def router_forward(
    logits: int,
    bias: int,
    weights: int,
    chosen: int,
    *,
    shape: list[int],
    dtype: int,
    sigmoid: bool,
    normalized: bool,
    scale: float,
    groups: list[int],
    stream: int,
) -> None: ...
def router_backward(
    logits: int,
    dweights: int,
    chosen: int,
    dlogits: int,
    *,
    shape: list[int],
    dtype: int,
    sigmoid: bool,
    normalized: bool,
    scale: float,
    groups: list[int],
    stream: int,
) -> None: ...
def gather_rows(
    x: int, source: int, out: int, *, rows: int, columns: int, dtype: int, stream: int
) -> None: ...
def combine_forward(
    x: int,
    places: int,
    weights: int,
    y: int,
    *,
    tokens: int,
    visits: int,
    columns: int,
    dtype: int,
    stream: int,
) -> None: ...
def combine_backward(
    dy: int,
    x: int,
    places: int,
    weights: int,
    dx: int,
    dweights: int,
    *,
    tokens: int,
    visits: int,
    columns: int,
    dtype: int,
    stream: int,
) -> None: ...
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
    factor_at: int,
    stop: int,
    stream: int,
) -> None: ...
def sum_of_squares(
    tensors: list[int],
    scratch: int,
    sum: int,  # noqa: A002
    *,
    sizes: list[int],
    dtype: int,
    stream: int,
) -> None: ...
def squares_scratch(sizes: list[int]) -> int: ...
def scale_all(
    tensors: list[int],
    factor_at: int,
    bad: int,
    *,
    sizes: list[int],
    dtype: int,
    factor: float,
    stream: int,
) -> None: ...
def find_bad(
    tensors: list[int], bad: int, *, sizes: list[int], dtype: int, stream: int
) -> None: ...
def use_cublas(path: str) -> None: ...
def add_product(
    dy: int,
    x: int,
    sum: int,  # noqa: A002
    *,
    rows: int,
    outputs: int,
    inputs: int,
    dtype: int,
    sum_dtype: int,
    first: bool,
    stream: int,
) -> None: ...
