"""Forward-mode gradients, which fused kernels do not know, are left to torch, and that is said.

In a Python of its own: torch cannot load what it needs for them where its TorchScript has been
touched before, as by other tests.
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from megatron_jobs.errors import UserError
from megatron_jobs.kernels.activation import geglu, gelu, swiglu
from megatron_jobs.kernels.causal_attention import causal_attention
from megatron_jobs.kernels.dispatch import FallbackWarning
from megatron_jobs.kernels.experts import Deal, bring_rows, choose_experts, collect_rows
from megatron_jobs.kernels.experts_ops import Route
from megatron_jobs.kernels.linear_loss import linear_cross_entropy
from megatron_jobs.kernels.loss import cross_entropy
from megatron_jobs.kernels.norm import add_rms_norm, layer_norm, rms_norm
from megatron_jobs.kernels.residual import bias_dropout_add
from megatron_jobs.kernels.rope import rotate
from megatron_jobs.kernels.softmax import masked_softmax
from tests.fused import chosen

DEAL = Deal(torch.arange(32), torch.arange(32).view(32, 1), torch.zeros(32, 1, dtype=torch.int64))
X, ALONG, UP = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(32)


def attention(x: Tensor) -> Tensor:
    """torch's own forms for the CPU refuse forward mode in words, but for the plain one."""
    with sdpa_kernel(SDPBackend.MATH):
        return causal_attention(*(x[:, None, None] for _ in range(3)))


CALLS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "rms_norm": ("norm", lambda x: rms_norm(x, UP[0])),
    "rms_norm's weight": ("norm", lambda x: rms_norm(UP, x[0])),
    "layer_norm": ("norm", lambda x: layer_norm(x, x[0], x[1])),
    "add_rms_norm": ("norm", lambda x: add_rms_norm(UP, x, UP[0])[0]),
    "swiglu": ("activation", swiglu),
    "geglu": ("activation", geglu),
    "gelu's bias": ("activation", lambda x: gelu(UP, x[0])),
    "residual": ("residual", lambda x: bias_dropout_add(x, x[0], UP)),
    "rope": ("rope", lambda x: rotate(x[:, None, None], UP[:, :16], UP[:, 16:])),
    "softmax": ("softmax", lambda x: masked_softmax(x[None, None], causal=True)),
    "attention": ("attention", attention),
    "loss": ("loss", lambda x: cross_entropy(x * 1, TARGETS)),
    "linear_loss": ("loss", lambda x: linear_cross_entropy(x, UP, TARGETS)),
    "choose_experts": ("experts", lambda x: choose_experts(x, Route(2))[0]),
    "bring_rows": ("experts", lambda x: torch.cat(bring_rows(x, DEAL, [20, 12]))),
    "collect_rows": ("experts", lambda x: collect_rows([x], DEAL, UP[:, :1].contiguous())),
}


def slope_along(call: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[str]]:
    """The forward-mode gradient along ALONG, and what was said of it."""
    with warnings.catch_warnings(record=True) as said, forward_ad.dual_level():
        warnings.simplefilter("always")
        y = call(forward_ad.make_dual(X, ALONG))
        tangent = forward_ad.unpack_dual(y).tangent
    assert tangent is not None, "a fused kernel ran, and lost the gradient"
    return tangent, [str(each.message) for each in said if each.category is FallbackWarning]


def tried(name: str) -> list[object]:
    """How far forward mode is from fused kernels' own gradients; the words of both forms."""
    kernel, call = CALLS[name]
    with chosen(**{kernel: "fused"}):  # type: ignore[arg-type]
        x = X.clone().requires_grad_()
        y = call(x)
        up = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
        (slope,) = torch.autograd.grad(y, x, up)
        try:
            refused = str(slope_along(call))
        except UserError as error:
            refused = str(error)
    with chosen():
        tangent, said = slope_along(call)
    found, wanted = (up * tangent).sum(), (slope * ALONG).sum()
    return [float(abs(found - wanted) / (1 + abs(wanted))), refused, said]


def test_it_is_left_to_torch() -> None:
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(CALLS)
    reason = "it does not know forward-mode gradients"
    for name, (apart, refused, said) in found.items():
        kernel = CALLS[name][0]
        assert apart < 1e-5, name
        assert refused == f"kernels.{kernel}: fused, but {reason}; auto takes plain torch there"
        # so few numbers, of which others are left to torch without a word
        large = kernel in ("attention", "loss")
        assert said == ([f"kernels.{kernel}: plain torch, for {reason}"] if large else []), name


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: tried(name) for name in CALLS}))
