"""Which form runs, what is said of it, and what tensors the extensions take."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.errors import UserError
from megatron_jobs.kernels import dispatch, native
from megatron_jobs.kernels.dispatch import FallbackWarning, form_of
from tests.fused import chosen

ONES = torch.ones(2, 3)


def test_auto_takes_the_compiled_form() -> None:
    with chosen():
        assert form_of("norm", ONES, None) == "cpu"


def test_the_reference_can_be_asked_for() -> None:
    with chosen(norm="reference"):
        assert form_of("norm", ONES) == "reference"
        assert form_of("activation", ONES) == "cpu"


def test_small_tensors_are_left_to_torch_without_a_word() -> None:
    with chosen(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert form_of("norm", ONES, small=True) == "reference"
    with chosen(norm="fused"):
        assert form_of("norm", ONES, small=True) == "cpu"


def test_falling_back_is_said_once() -> None:
    with chosen():
        with pytest.warns(
            FallbackWarning, match=r"^kernels.norm: plain torch, for it does not know float64$"
        ):
            assert form_of("norm", ONES.double()) == "reference"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert form_of("norm", ONES.double()) == "reference"
        with pytest.warns(FallbackWarning, match="does not know bfloat16 with float32$"):
            assert form_of("norm", ONES, ONES.bfloat16()) == "reference"
        with pytest.warns(FallbackWarning, match="for it does not know such rows$"):
            assert form_of("norm", ONES, unknown="it does not know such rows") == "reference"


def test_fused_does_not_fall_back() -> None:
    fault = r"^kernels.norm: fused, but it does not know float64; auto takes plain torch there$"
    with chosen(norm="fused"), pytest.raises(UserError, match=fault):
        form_of("norm", ONES.double())
    with chosen(norm="fused"), pytest.raises(UserError, match="it is not made for meta"):
        form_of("norm", ONES.to("meta"))


def test_where_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "MODULES", {"_kernels": None, "_cuda": None})
    with chosen(), pytest.warns(FallbackWarning, match="megatron_jobs._kernels is not built$"):
        assert form_of("norm", ONES) == "reference"
    with pytest.raises(UserError, match=r"^kernels.loss: fused, but none is built here; install "):
        dispatch.choose(KernelsConfig(loss="fused"))


def test_cuda_has_kernels_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension names those that it has; a tensor's device says which extension is asked."""
    monkeypatch.setitem(native.MODULES, "_cuda", SimpleNamespace(KERNELS=("norm",)))
    tensor = SimpleNamespace(device=SimpleNamespace(type="cuda"), dtype=torch.float32)
    with chosen():
        assert form_of("norm", tensor) == "cuda"  # type: ignore[arg-type]
        with pytest.warns(FallbackWarning, match="it is not made for cuda$"):
            assert form_of("activation", tensor) == "reference"  # type: ignore[arg-type]


def test_tensors_are_checked_by_name() -> None:
    assert native.checked("x", ONES, shape=(2, 3)) == ONES.data_ptr()
    with pytest.raises(ValueError, match=r"^x must be bfloat16, got float32$"):
        native.checked("x", ONES, dtypes=(torch.bfloat16,))
    with pytest.raises(ValueError, match=r"^x must be \[3\], got \[2, 3\]$"):
        native.checked("x", ONES, shape=(3,))
    with pytest.raises(ValueError, match=r"^x must be on cpu, got meta$"):
        native.checked("x", ONES.to("meta"))
    with pytest.raises(ValueError, match=r"^x must be contiguous, got \[3, 2\] strides \[1, 3\]$"):
        native.checked("x", ONES.t())
