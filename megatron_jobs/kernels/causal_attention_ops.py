"""The operators of causal attention, which never makes the matrix of scores.

    causal_attention(q, k, v, first?, scale) -> out, sums
    causal_attention_backward(dout, q, k, v, out, sums, first?, scale) -> dq, dk, dv

Q positions of queries, K of keys, B sequences, N query heads, G key heads, D columns of a head.
"""

from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels.native import CODES, checked, cpu
from megatron_jobs.kernels.ops import define, differentiate


def outputs(
    q_QBND: Tensor, k_KBGD: Tensor, v_KBGD: Tensor, first_BQ: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Empty out [Q, B, N, D] and sums [B, N, Q]."""
    queries, batch, heads, _ = q_QBND.shape
    sums_BNQ = q_QBND.new_empty((batch, heads, queries), dtype=torch.float32)
    return q_QBND.new_empty(q_QBND.shape), sums_BNQ


def attention_on_cpu(
    q_QBND: Tensor, k_KBGD: Tensor, v_KBGD: Tensor, first_BQ: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The operator `causal_attention`."""
    places = addresses(q_QBND, k_KBGD, v_KBGD)
    out_QBND, sums_BNQ = outputs(q_QBND, k_KBGD, v_KBGD, first_BQ, scale)
    task = task_of(q_QBND, k_KBGD, v_KBGD, first_BQ, scale)
    cpu().attention_forward(*places, out_QBND.data_ptr(), sums_BNQ.data_ptr(), task)
    return out_QBND, sums_BNQ


def gradients(
    dout_QBND: Tensor,
    q_QBND: Tensor,
    k_KBGD: Tensor,
    v_KBGD: Tensor,
    out_QBND: Tensor,
    sums_BNQ: Tensor,
    first_BQ: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Empty dq, dk and dv, contiguous."""
    inputs = (q_QBND, k_KBGD, v_KBGD)
    dq, dk, dv = (x.new_empty(x.shape) for x in inputs)
    return dq, dk, dv


def attention_backward_on_cpu(
    dout_QBND: Tensor,
    q_QBND: Tensor,
    k_KBGD: Tensor,
    v_KBGD: Tensor,
    out_QBND: Tensor,
    sums_BNQ: Tensor,
    first_BQ: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator `causal_attention_backward`."""
    like: dict[str, Any] = {"dtypes": (q_QBND.dtype,), "shape": q_QBND.shape}
    rows = (q_QBND.size(1), q_QBND.size(2), q_QBND.size(0))
    inputs = (
        *addresses(q_QBND, k_KBGD, v_KBGD),
        checked("out", out_QBND, **like),
        checked("dout", dout_QBND, **like),
        checked("sums", sums_BNQ, dtypes=(torch.float32,), shape=rows),
    )
    dq, dk, dv = gradients(dout_QBND, q_QBND, k_KBGD, v_KBGD, out_QBND, sums_BNQ, first_BQ, scale)
    task = task_of(q_QBND, k_KBGD, v_KBGD, first_BQ, scale)
    cpu().attention_backward(inputs, (dq.data_ptr(), dk.data_ptr(), dv.data_ptr()), task)
    return dq, dk, dv


def addresses(q_QBND: Tensor, k_KBGD: Tensor, v_KBGD: Tensor) -> tuple[int, int, int]:
    """Of tensors whose columns lie together."""
    like: dict[str, Any] = {"dtypes": (q_QBND.dtype,), "strided": True}
    q = checked("q", q_QBND, strided=True, axes=4)
    wanted = (*k_KBGD.shape[:1], *q_QBND.shape[1:2], *k_KBGD.shape[2:3], *q_QBND.shape[3:])
    return (
        q,
        checked("k", k_KBGD, shape=wanted, **like),
        checked("v", v_KBGD, shape=wanted, **like),
    )


def task_of(
    q_QBND: Tensor, k_KBGD: Tensor, v_KBGD: Tensor, first_BQ: Tensor | None, scale: float
) -> Any:
    """Sizes and kinds, as the extension takes them."""
    queries, batch, heads, columns = q_QBND.shape
    first = 0
    if first_BQ is not None:
        first = checked("first", first_BQ, dtypes=(torch.int32,), shape=(batch, queries))
    return cpu().Attention(
        shape=(queries, k_KBGD.size(0), batch, heads, k_KBGD.size(2), columns),
        q_strides=q_QBND.stride()[:3],
        k_strides=k_KBGD.stride()[:3],
        v_strides=v_KBGD.stride()[:3],
        first=first,
        scale=scale,
        dtype=CODES[q_QBND.dtype],
        threads=torch.get_num_threads(),
    )


attention = define(
    "causal_attention(Tensor q, Tensor k, Tensor v, Tensor? first, float scale)"
    " -> (Tensor, Tensor)",
    cpu=attention_on_cpu,
    fake=outputs,
)
attention_backward = define(
    "causal_attention_backward(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor sums,"
    " Tensor? first, float scale) -> (Tensor, Tensor, Tensor)",
    cpu=attention_backward_on_cpu,
    fake=gradients,
)


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """All but the scores, which are computed again; sums are for this alone."""
    q, k, v, first, ctx.scale = inputs
    out, sums = output
    ctx.mark_non_differentiable(sums)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, first, out, sums)


def backward(ctx: Any, dout_QBND: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    """The gradients of q, k and v."""
    if dout_QBND is None:
        return (None,) * 5
    q, k, v, first, out, sums = ctx.saved_tensors
    found = attention_backward(dout_QBND.contiguous(), q, k, v, out, sums, first, ctx.scale)
    return *found, None, None


differentiate("causal_attention", backward, keep, once="attention")
