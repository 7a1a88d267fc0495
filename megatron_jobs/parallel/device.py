"""Where tensors live: CUDA where there is a GPU, else a CPU dressed so that megatron-core runs.

megatron-core asks torch.cuda for devices, streams and random states without looking whether
there is a GPU. `install` answers those questions for the CPU, before megatron is imported.
On a machine with a GPU nothing is replaced.
"""

import contextlib
import functools
import importlib.util
import logging
import os
import resource
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._device import _device_constructors

FACTORIES = ("arange", "as_tensor", "empty", "empty_like", "eye", "full", "full_like", "linspace",
             "ones", "ones_like", "rand", "randint", "randn", "randperm", "tensor", "zeros",
             "zeros_like")  # fmt: skip
TENSOR_FACTORIES = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")
PAGED_STASH = "megatron.core.transformer.moe.ops.paged_stash"


def engine_device() -> torch.device:
    """The device on which this process computes."""
    return torch.device("cuda", torch.cuda.current_device()) if has_gpu() else torch.device("cpu")


def has_gpu() -> bool:
    """Whether torch sees an NVIDIA GPU here; to ask does not start CUDA, so one may fork after it.

    Source: torch.cuda.is_available, "poison fork": pytorch.org/docs/stable/cuda.html.
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    return torch.cuda.is_available()


def use_local_device(local: int) -> None:
    """Take the GPU numbered `local` on this node; without GPUs nothing is to be done."""
    if has_gpu():
        torch.cuda.set_device(local)


def wait_for_device() -> None:
    """Return when all work given to the device is done; call it before reading a clock."""
    if has_gpu():
        torch.cuda.synchronize()


def mark_time() -> Any:
    """A point in the time of the device, for `seconds_between`; on a GPU one of its stream."""
    if not has_gpu():
        return time.perf_counter()
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def seconds_between(begin: Any, end: Any) -> float:
    """Seconds from one `mark_time` to another; the device must have come to the second."""
    return float(end - begin) if isinstance(begin, float) else begin.elapsed_time(end) / 1000


def random_state_of_device() -> Tensor:
    """The state of the generator that the device draws from by itself (dropout)."""
    return torch.cuda.get_rng_state() if has_gpu() else torch.get_rng_state()


def set_random_state_of_device(state: Tensor) -> None:
    """Put back what `random_state_of_device` gave."""
    if has_gpu():
        torch.cuda.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def peak_bytes() -> int:
    """The most memory this process has held: on the GPU, else its resident set."""
    if has_gpu():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@functools.cache
def install() -> None:
    """Make `import megatron.core` work here, once; call it before the first import of megatron."""
    quieten()
    os.environ.setdefault("NO_VCS_VERSION", "1")  # else each rank that imports it starts a git
    if not has_gpu():
        place_tensors_on_cpu()
        answer_as_a_gpu()
        split_sizes_as_lists()
        share_unequal_pieces()
    if importlib.util.find_spec("triton") is None:
        stand_in_for_triton()
    with without_compiler() if not has_gpu() else contextlib.nullcontext():
        importlib.import_module("megatron.core")


def quieten() -> None:
    """Errors only: megatron-core warns of each part of it, and of torch, that is not the newest."""
    logging.getLogger("megatron").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"megatron\..*")
    warnings.filterwarnings("ignore", message=r".*(Transformer Engine|Apex|apex).*")
    warnings.filterwarnings("ignore", message=r"`torch\.distributed.* is deprecated")
    warnings.filterwarnings("ignore", module=r"torch\.distributed\.checkpoint\..*")


def place_tensors_on_cpu() -> None:
    """Read device="cuda" (or a GPU's number) as the CPU, and pinned memory as plain memory."""
    # `with torch.device("meta")` knows the factories it found when first asked: let it be these
    _device_constructors()
    for owner, names in ((torch, FACTORIES), (Tensor, TENSOR_FACTORIES)):
        for name in names:
            setattr(owner, name, on_cpu(getattr(owner, name)))
    to, kind = Tensor.to, Tensor.type

    def to_cpu(self: Tensor, *args: Any, **words: Any) -> Tensor:
        if args and names_gpu(args[0]):
            args = (torch.device("cpu"), *args[1:])
        return to(self, *args, **words)

    def type_as_on_gpu(self: Tensor, *args: Any, **words: Any) -> Any:
        """The optimizers look for the names of CUDA types."""
        answer = kind(self, *args, **words)
        return answer if args or words else answer.replace("torch.", "torch.cuda.")

    replace(Tensor, to=on_cpu(to_cpu), type=type_as_on_gpu)
    replace(Tensor, cuda=lambda self, *_, **__: self, record_stream=lambda self, stream: None)


def on_cpu(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, with a device among its keywords read as the CPU."""

    @functools.wraps(make)
    def made(*args: Any, **words: Any) -> Any:
        if words.get("device") is not None and names_gpu(words["device"]):
            words["device"] = torch.device("cpu")
        words.pop("pin_memory", None)
        return make(*args, **words)

    return made


def names_gpu(device: object) -> bool:
    """Whether `device` is how somebody says "a GPU": 0, "cuda", "cuda:0", torch.device("cuda")."""
    if isinstance(device, (str, torch.device)):
        return str(device).startswith("cuda")
    return type(device) is int


class Idle:
    """A stream or event on which nothing ever waits."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., "Idle"]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: self

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: object) -> float:
        return 0.0


def answer_as_a_gpu() -> None:
    """One device, idle streams, and the CPU's generator as the GPU's."""
    cuda = torch.cuda
    # torch would queue what it is given until CUDA starts, which is never: seeds set in vain
    replace(cuda, _lazy_init=lambda: None, _lazy_call=lambda function, **_: function())
    replace(cuda, current_device=lambda: 0, synchronize=lambda *_, **__: None)
    idle = Idle()
    replace(cuda, Stream=Idle, Event=Idle, stream=lambda stream: contextlib.nullcontext())
    replace(cuda, current_stream=lambda *_, **__: idle, default_stream=lambda *_, **__: idle)
    replace(cuda, default_generators=(torch.default_generator,), manual_seed=torch.manual_seed)
    for owner in (cuda, cuda.random):
        replace(owner, get_rng_state=lambda device=None: torch.get_rng_state())
        replace(owner, set_rng_state=lambda state, device=None: torch.set_rng_state(state))


def split_sizes_as_lists() -> None:
    """The dispatcher of experts makes lists of split sizes only from CUDA tensors."""
    exchange = torch.distributed.all_to_all_single

    def as_list(sizes: Any) -> Any:
        return sizes.tolist() if isinstance(sizes, Tensor) else sizes

    @functools.wraps(exchange)
    def exchanged(output: Tensor, source: Tensor, *args: Any, **words: Any) -> Any:
        sizes = {name: as_list(words[name]) for name in words if name.endswith("_split_sizes")}
        return exchange(output, source, *map(as_list, args[:2]), *args[2:], **(words | sizes))

    replace(torch.distributed, all_to_all_single=exchanged)


def share_unequal_pieces() -> None:
    """gloo gathers and scatters pieces of one length only; experts cut over ranks have others."""
    gather, scatter = torch.distributed.all_gather, torch.distributed.reduce_scatter

    @functools.wraps(gather)
    def gathered(pieces: list[Tensor], own: Tensor, *args: Any, **words: Any) -> Any:
        longest = max(map(len, pieces))
        if all(len(piece) == longest for piece in pieces):
            return gather(pieces, own, *args, **words)
        shape = (longest, *own.shape[1:])
        sent = own.new_zeros(shape)
        sent[: len(own)] = own
        whole = [own.new_empty(shape) for _ in pieces]
        gather(whole, sent, *args, **words)
        for piece, found in zip(pieces, whole, strict=True):
            piece.copy_(found[: len(piece)])
        return None

    @functools.wraps(scatter)
    def scattered(own: Tensor, pieces: list[Tensor], *args: Any, **words: Any) -> Any:
        if all(len(piece) == len(pieces[0]) for piece in pieces):
            return scatter(own, pieces, *args, **words)
        whole = torch.cat(pieces)
        torch.distributed.all_reduce(whole, *args, **words)
        rank = torch.distributed.get_rank(words.get("group"))
        own.copy_(torch.split(whole, [len(piece) for piece in pieces])[rank])
        return None

    replace(torch.distributed, all_gather=gathered, reduce_scatter=scattered)


def stand_in_for_triton() -> None:
    """megatron-core 0.19 imports this module of Triton kernels whether they are used or not."""
    module = types.ModuleType(PAGED_STASH)
    names = {"paged_stash_copy_kernel": None, "paged_stash_pop_kernel": None}
    replace(module, GLOBAL_BLOCK_SIZE=1024, **names)
    sys.modules.setdefault(PAGED_STASH, module)


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """On the CPU what torch.compile fuses does not pay: import in 0.8 s, not 1.9."""
    compiler = torch.compile

    def unchanged(function: Any = None, **_: Any) -> Any:
        return function if function is not None else lambda given: given

    replace(torch, compile=unchanged)
    try:
        yield
    finally:
        replace(torch, compile=compiler)


def replace(owner: object, **members: Any) -> None:
    """Set each member on a module or class of another package."""
    for name, member in members.items():
        setattr(owner, name, member)
