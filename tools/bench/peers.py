"""The same kernels of other packages, where they are installed: all of them need a GPU.

Liger-Kernel 0.5 to 0.8, apex of 2023 and later with its layer norm extension, Transformer Engine
1.x and 2.x.
"""

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

Function = Callable[..., Tensor]


def peers_of(kernel: str) -> dict[str, Function]:
    """Package -> its function, of the inputs that ours takes: rms_norm, swiglu and loss."""
    made = {"rms_norm": norms, "swiglu": activations, "loss": losses}.get(kernel)
    return dict(made()) if made else {}


def norms() -> Iterator[tuple[str, Function]]:
    """(x [R, H], weight [H]) -> RMSNorm, eps 1e-6."""
    if liger := installed("liger_kernel.transformers.functional"):
        yield "liger", lambda x, w: liger.liger_rms_norm(x, w, 1e-6, in_place=False)
    apex = installed("apex.normalization.fused_layer_norm")
    if apex and installed("fused_layer_norm_cuda"):  # apex loads it with the first call alone
        yield "apex", lambda x, w: apex.fused_rms_norm_affine(x, w, w.shape, 1e-6)
    if engine := installed("transformer_engine.pytorch"):
        yield "transformer engine", engine_norm(engine)


def engine_norm(engine: ModuleType) -> Function:
    """Its norm is a module that reads its own weight in the backward too: it gets the numbers of
    ours, and the gradient of ours stays with it."""
    modules: dict[int, torch.nn.Module] = {}

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        width = len(weight)
        if width not in modules:
            module = engine.RMSNorm(width, eps=1e-6, device=x.device, dtype=weight.dtype)
            module.weight = torch.nn.Parameter(weight.detach())
            modules[width] = module
        modules[width].zero_grad(set_to_none=True)
        found: Tensor = modules[width](x)
        return found

    return norm


def activations() -> Iterator[tuple[str, Function]]:
    """x [R, 2F] -> SwiGLU [R, F]; Liger's takes gate and value apart, as it is called."""
    if liger := installed("liger_kernel.transformers.functional"):
        yield "liger", lambda x: liger.liger_swiglu(*x.chunk(2, dim=-1))


def losses() -> Iterator[tuple[str, Function]]:
    """logits [R, V] -> losses [R] of the first class; Liger's overwrites what it is given."""
    if liger := installed("liger_kernel.transformers.functional"):
        yield "liger", lambda logits: loss_of(liger, logits)


def loss_of(liger: ModuleType, logits: Tensor) -> Tensor:
    """Its sum, spread so that all sides return the same shape."""
    first = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    found = liger.liger_cross_entropy(logits.clone(), first, reduction="sum")
    total = found[0] if isinstance(found, tuple) else found
    return functional.pad(total[None], (0, len(logits) - 1))


def installed(name: str) -> ModuleType | None:
    """The module; None where it is not there or cannot be loaded, which is said."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            print(f"{name} is left out: {error}")
    except (ImportError, OSError, RuntimeError) as error:  # a library that is not for this torch
        print(f"{name} is left out: {error}")
    return None
