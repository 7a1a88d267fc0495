"""What tools/check_cuda.py reads in nvcc's words and in a module."""

import struct

import pytest

from tools.check_cuda import Kernel, architectures_of, faults_of, kernels_of

WORDS = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4moveIfEvi' for 'sm_90'
ptxas info    : Function properties for _Z4moveIfEvi
    {stack} bytes stack frame, {stores} bytes spill stores, 4 bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, 128 bytes smem
ptxas info    : Compile time = 1.739 ms
ptxas info    : Compiling entry function 'plain' for 'sm_100'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 128 registers
"""


def test_each_kernel_is_read_and_judged() -> None:
    kernels = kernels_of(WORDS.format(stack=8, stores=12, registers=129))
    assert [kernel[1:] for kernel in kernels] == [("sm_90", 129, 8, 16), ("sm_100", 128, 0, 0)]
    name = kernels[0].name
    assert name in ("move<float>", "_Z4moveIfEvi")
    assert list(faults_of(kernels)) == [
        f"{name} for sm_90: 8 bytes of stack, 16 spilled",
        f"{name} for sm_90: 129 registers, over 128",
    ]


def test_nothing_is_read_where_ptxas_was_not_asked() -> None:
    assert kernels_of("nvcc -c norm.cu\n") == []


def program(kind: int, machine: int, size: int) -> bytes:
    """An entry of a fat binary: a header of 64 bytes that names its machine, then the code."""
    header = struct.pack("<HHIQ", kind, 1, 64, size).ljust(28, b"\0") + struct.pack("<I", machine)
    return header.ljust(64, b"\0") + b"\x50" * size


def test_architectures_of_every_fat_binary_are_found() -> None:
    entries = [program(2, 80, 24), program(2, 90, 8) + program(1, 90, 16)]
    files = [struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(all_)) + all_ for all_ in entries]
    assert architectures_of(b"ELF".join([b"", *files, b"end"])) == {"sm_80", "sm_90", "compute_90"}
    assert architectures_of(b"nothing") == set()


@pytest.mark.parametrize(("registers", "faults"), [(128, 0), (200, 1)])
def test_registers_are_bounded(registers: int, faults: int) -> None:
    assert len(list(faults_of([Kernel("k", "sm_80", registers, 0, 0)]))) == faults
