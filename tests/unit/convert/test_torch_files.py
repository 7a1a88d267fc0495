"""What torch.save writes is read without torch: every dtype, view and both formats."""

import struct
import sys
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.convert.pickle_names import Global, Record
from megatron_jobs.convert.storages import Strided, Swapped
from megatron_jobs.convert.torch_files import open_torch
from megatron_jobs.errors import DataError

FLOATS = "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz"
OTHERS = "float8_e5m2fnuz float8_e8m0fnu int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool"
NAMES = [*FLOATS.split(), *OTHERS.split(), "complex64", "complex128"]


def saved(path: Path, value: Any, *, stream: bool = False) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not stream)
    return path


def check_equal(found: Any, wanted: Tensor) -> None:
    assert isinstance(found, Matrix)
    assert found.shape == tuple(wanted.shape)
    made = found.array()
    assert str(made.dtype) == str(wanted.dtype).removeprefix("torch.")
    copied = wanted.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
    assert made.tobytes() == copied.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_dtype(tmp_path: Path, name: str, stream: bool) -> None:
    value = torch.arange(24).reshape(4, 6) % 7
    tensor = value.to(getattr(torch, name))
    found = open_torch(saved(tmp_path / "a.pt", {"x": tensor, "none": tensor[:0]}, stream=stream))
    check_equal(found["x"], tensor)
    check_equal(found["none"], tensor[:0])


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "whole": lambda x: x,
    "number": lambda x: x[1, 2, 3],
    "row": lambda x: x[1, 2],
    "column": lambda x: x[:, 2, 1],
    "turned": lambda x: x[1].t(),
    "steps": lambda x: x[:, ::2, 1::2],
    "permuted": lambda x: x.permute(2, 0, 1),
    "joined": lambda x: x.view(12, 5)[3:7],
    "parameter": lambda x: torch.nn.Parameter(x[1]),
    "marked": lambda x: mark(torch.nn.Parameter(x[0].clone())),
}


def mark(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    parameter.tensor_model_parallel = True  # type: ignore[attr-defined]
    return parameter


@pytest.mark.parametrize("stream", [False, True])
def test_views_of_one_storage(tmp_path: Path, stream: bool) -> None:
    base = torch.randn(3, 4, 5)
    wanted = {name: view(base) for name, view in VIEWS.items()}
    path = saved(tmp_path / "a.pt", wanted, stream=stream)
    found = open_torch(path)
    for name, tensor in wanted.items():
        check_equal(found[name], tensor)
    assert isinstance(found["permuted"], Strided)
    assert path.stat().st_size < 3 * base.numel() * 4 + 5000, "the storage is there once"


def test_a_view_is_none_of_a_copy(tmp_path: Path) -> None:
    found = open_torch(saved(tmp_path / "a.pt", torch.randn(64, 32).t()))
    (piece,) = found.read(0, 32)
    owner = piece
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    assert not isinstance(owner, np.ndarray), "the bytes are those of the mapped file"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("stream", [False, True])
def test_what_stands_beside_tensors(tmp_path: Path, stream: bool, protocol: int) -> None:
    value = {
        "args": Namespace(layers=4, dtype=torch.bfloat16, save=Path("/a/b"), none=None),
        "ordered": OrderedDict(a=1, b=[1.5, -7, 2**70, "é"]),
        "default": defaultdict(list, {"k": [1]}),
        "sets": {1, 2}, "frozen": frozenset([3]), "bytes": b"\0\xff", "array": bytearray(b"ab"),
        "size": torch.Size([2, 3]), "number": np.float32(2.5), "device": torch.device("cpu"),
        "state": torch.nn.Linear(2, 3).state_dict(), "generator": (3, (1, 2), None),
    }  # fmt: skip
    value["again"] = value["ordered"]
    torch.save(
        value, tmp_path / "a.pt", _use_new_zipfile_serialization=not stream,
        pickle_protocol=protocol,
    )  # fmt: skip
    found = open_torch(tmp_path / "a.pt")
    args = {"layers": 4, "dtype": Global("torch.bfloat16"), "save": "/a/b", "none": None}
    assert found["args"] == args
    for name in ("ordered", "sets", "frozen", "bytes", "array", "default", "generator"):
        assert found[name] == value[name]
    assert found["size"] == (2, 3)
    assert found["number"] == 2.5
    assert isinstance(found["device"], Record)
    assert set(found["state"]) == {"weight", "bias"}
    assert found["again"] is found["ordered"]


def repacked(path: Path, change: Callable[[str, bytes], bytes | None], **words: Any) -> Path:
    """The same archive with entries changed, by the module of Python."""
    out = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", **words) as new:
        for entry in old.infolist():
            content = change(entry.filename, old.read(entry))
            if content is not None:
                new.writestr(entry.filename, content)
    return out


def test_numbers_of_the_other_order_are_turned_round(tmp_path: Path) -> None:
    value = {"a": torch.randn(3, 5), "b": torch.randn(7).bfloat16(), "c": torch.ones(2).bool()}
    value["z"] = torch.randn(2, dtype=torch.complex64)

    def swap(name: str, content: bytes) -> bytes:
        sizes = {"archive/data/0": 4, "archive/data/1": 2, "archive/data/3": 4}
        if name.endswith("byteorder"):
            return b"big" if sys.byteorder == "little" else b"little"
        size = sizes.get(name)
        return np.frombuffer(content, f"u{size}").byteswap().tobytes() if size else content

    out = repacked(saved(tmp_path / "archive.pt", value), swap)
    found = open_torch(out)
    assert isinstance(found["a"], Swapped)
    for name, tensor in value.items():
        check_equal(found[name], tensor)


def test_an_archive_that_is_compressed_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "archive.pt", torch.zeros(1 << 20))
    out = repacked(path, lambda name, content: content, compression=zipfile.ZIP_DEFLATED)
    assert out.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"changed\.pt: its archive holds 'archive/.*compressed"):
        open_torch(out)


def keep(name: str, content: bytes) -> bytes | None:
    return content


CHANGES: dict[str, tuple[Callable[[str, bytes], bytes | None], str]] = {
    "no storage": (lambda n, c: None if n.endswith("data/0") else c, "found none"),
    "short storage": (lambda n, c: c[:-4] if n.endswith("data/0") else c, "found one of 20 bytes"),
    "no pickle": (lambda n, c: None if n.endswith(".pkl") else c, "torch.save did not write"),
    "other order": (lambda n, c: b"middle" if n.endswith("byteorder") else c, "b'middle', neither"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_archive_that_lacks_something_is_refused(tmp_path: Path, name: str) -> None:
    change, words = CHANGES[name]
    path = saved(tmp_path / "archive.pt", {"x": torch.ones(2, 3)})
    assert open_torch(repacked(path, keep))["x"].shape == (2, 3)
    with pytest.raises(DataError, match=words):
        open_torch(repacked(path, change))


@pytest.mark.parametrize("name", ["../data.pkl", "/etc/x", "a/../../x", "a\\b", "c:/x"])
def test_names_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "archive.pt", torch.ones(2))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(zipfile.ZipInfo(name), b"")
        file.filelist[-1].filename = name
    with pytest.raises(DataError, match="a name that climbs out"):
        open_torch(path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "archive.pt", torch.ones(2))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("archive/data/0", b"12345678")
    with pytest.raises(DataError, match="holds 'archive/data/0' twice"):
        open_torch(path)


def central(data: bytearray, name: bytes) -> int:
    """Where the header of an entry stands in the table at the end."""
    return data.rindex(b"PK\x01\x02", 0, data.rindex(name))


def test_entries_that_overlap_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "archive.pt", [torch.ones(64), torch.zeros(64)])
    data = bytearray(path.read_bytes())
    first, second = central(data, b"archive/data/0"), central(data, b"archive/data/1")
    longer = bytearray(data)
    longer[first + 20 : first + 28] = struct.pack("<2I", 400, 400)
    path.write_bytes(longer)
    with pytest.raises(DataError, match="holds 'archive/data/1' at a place of something else"):
        open_torch(path)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path.write_bytes(data)
    with pytest.raises(DataError, match="two headers for b'archive/data/1' that differ"):
        open_torch(path)


@pytest.mark.parametrize(("at", "value"), [(8, 1), (10, 8)])
def test_an_entry_said_to_be_encrypted_or_compressed_is_refused(
    tmp_path: Path, at: int, value: int
) -> None:
    path = saved(tmp_path / "archive.pt", torch.ones(64))
    data = bytearray(path.read_bytes())
    data[central(data, b"archive/data/0") + at] |= value
    path.write_bytes(data)
    with pytest.raises(DataError, match="holds 'archive/data/0' compressed or encrypted"):
        open_torch(path)


def test_sizes_and_places_over_32_bits_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"a": torch.randn(3, 5), "b": torch.randn(99)}
    path = saved(tmp_path / "archive.pt", value)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 50)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    found = open_torch(repacked(path, keep))
    for name, tensor in value.items():
        check_equal(found[name], tensor)


@pytest.mark.parametrize("stream", [False, True])
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, stream: bool) -> None:
    path = saved(tmp_path / "a.pt", {"x": torch.randn(3, 4), "y": [1, 2]}, stream=stream)
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"a\.pt: "):
            open_torch(path)


@pytest.mark.parametrize(
    ("size", "stride", "offset"), [((2, 3), (3, 1), 1), ((2, 4), (4, 1), 0), ((2, 2), (5, 1), 0)]
)
def test_a_tensor_that_reaches_past_its_storage_is_refused(
    tmp_path: Path, size: tuple[int, int], stride: tuple[int, int], offset: int
) -> None:
    path = saved(tmp_path / "archive.pt", {"x": torch.ones(2, 3)})

    def lie(name: str, content: bytes) -> bytes:
        told = b"K\x00K\x02K\x03\x86q\x08K\x03K\x01\x86"
        assert told in content or not name.endswith(".pkl"), content
        numbers = [b"K" + bytes([number]) for number in (offset, *size, *stride)]
        return content.replace(told, b"".join([*numbers[:3], b"\x86q\x08", *numbers[3:], b"\x86"]))

    with pytest.raises(DataError, match="reaches past its storage of 6 numbers"):
        open_torch(repacked(path, lie))


def test_bytes_of_the_pickle_that_changed_are_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"name": torch.ones(2)})
    path.write_bytes(path.read_bytes().replace(b"name", b"fame", 1))
    with pytest.raises(DataError, match="the bytes of its pickle are not those"):
        open_torch(path)


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        saved(tmp_path / "a.pt", {"x": torch.ones(2, 3)})
    finally:
        torch.serialization.set_crc32_options(True)
    check_equal(open_torch(tmp_path / "a.pt")["x"], torch.ones(2, 3))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for content in (b"", b"hello", b"\x80\x02K\x01.", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.pt: "):
            open_torch(path)
    with pytest.raises(DataError, match="is missing"):
        open_torch(tmp_path / "none.pt")
    with pytest.raises(DataError, match="is no file"):
        open_torch(tmp_path)


def test_a_program_of_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"a\.pt: its archive holds 'a/code/.*"):
        open_torch(tmp_path / "a.pt")
