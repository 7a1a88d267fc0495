"""GGUF files as llama.cpp's own package reads them; headers that lie, and what becomes of them."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES

from megatron_jobs.convert.gguf_file import Texts, read_gguf
from megatron_jobs.convert.gguf_in import open_gguf
from megatron_jobs.convert.gguf_kinds import BLOCKS, BY_NUMBER, KINDS, Dequantised
from megatron_jobs.convert.gguf_values import header_bytes
from megatron_jobs.convert.matrix import Stored
from megatron_jobs.errors import DataError, MegatronJobsError
from tests.fuzz import broken
from tests.gguf_files import small_file, write_case


def test_values_and_tensors_are_those_of_another_reader(tmp_path: Path) -> None:
    path = small_file(tmp_path / "a.gguf")
    found, other = read_gguf(path), gguf.GGUFReader(path)
    for tensor in other.tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert found.kinds[tensor.name] == tensor.tensor_type.name
        array = found.tensors[tensor.name].array()
        assert array.shape == expected.shape
        assert np.array_equal(array.astype(np.float32), expected), tensor.name
    assert set(found.tensors) == {tensor.name for tensor in other.tensors}
    for key in ("a.whole", "a.yes", "a.long", "tokenizer.chat_template"):
        assert found.metadata[key] == other.fields[key].contents()
    assert found.metadata["a.real"] == 1e-5  # fp32, as people write it
    assert list(found.metadata["a.words"]) == ["é", "", "three"]
    assert found.metadata["a.words"][1:] == ["", "three"]
    assert found.metadata["a.numbers"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_mean_what_the_package_says(name: str) -> None:
    kind = KINDS[name]
    raw = np.random.default_rng(1).integers(0, 256, (5, 3 * kind.size), np.uint8)
    with np.errstate(all="ignore"):  # some of such blocks mean no number
        expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(kind.number))
        made = Dequantised(Stored(raw), kind, (5, 3 * kind.block))
        assert made.array().tobytes() == expected.tobytes()
        (part,) = made.read(2, 4)
        assert part.tobytes() == expected[2:4].tobytes()
        row = Dequantised(Stored(raw.reshape(15, -1)), kind, (15 * kind.block,))
        start, stop = kind.block // 2, 9 * kind.block + 3
        parts = np.concatenate(list(row.read(start, stop)))
    assert parts.tobytes() == expected.reshape(-1)[start:stop].tobytes()


def test_sizes_of_blocks_are_those_of_the_package() -> None:
    for number, kind in BY_NUMBER.items():
        assert GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)] == (kind.block, kind.size)


def header(*, tensors: int = 0, values: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def line(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def tensors(*lines: bytes, room: int = 400) -> bytes:
    whole = header(tensors=len(lines)) + b"".join(lines)
    return whole + bytes(-len(whole) % 32) + bytes(room)


def value(kind: int, raw: bytes, key: bytes = b"key") -> bytes:
    return text(key) + struct.pack("<I", kind) + raw


LIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no file of GGUF"),
    "magic": (b"GGML" + bytes(40), "begins with b'GGML', not with b'GGUF'"),
    "version": (header(version=1), "version 1: versions 2 and 3 are read"),
    "turned": (header(version=3 << 24), "big-endian"),
    "tensors": (header(tensors=2**60), "names 1152921504606846976 tensors, 0 bytes are left"),
    "values": (header(values=2**63), "values, 0 bytes are left"),
    "key": (header(values=1) + text(b"") + bytes(9), "a name of 0 bytes"),
    "long key": (header(values=1) + struct.pack("<Q", 2**62) + bytes(9), "a name of"),
    "no utf-8": (header(values=1) + value(4, bytes(4), b"\xff"), "no UTF-8"),
    "twice": (header(values=2) + value(4, bytes(4)) * 2, "metadata 'key' twice"),
    "type": (header(values=1) + value(13, bytes(9)), "key: a value of type 13"),
    "string": (header(values=1) + value(8, struct.pack("<Q", 99)), "names 99 bytes, 0"),
    "array": (header(values=1) + value(9, struct.pack("<IQ", 4, 2**62)), "numbers, 0"),
    "strings": (header(values=1) + value(9, struct.pack("<IQ", 8, 2**61)), "strings, 0"),
    "nested": (header(values=1) + value(9, struct.pack("<IQ", 9, 1)), "an array of type 9"),
    "aligned": (
        header(values=1) + value(4, struct.pack("<I", 24), b"general.alignment"),
        "general.alignment: found 24, no power of two",
    ),
    "dimensions": (tensors(line(b"a", (1,) * 5)), "a: 5 dimensions"),
    "none": (tensors(line(b"a", ())), "a: 0 dimensions"),
    "overflow": (tensors(line(b"a", (2**62, 2**62))), "bytes at 0; 400 bytes of tensors"),
    "nothing": (tensors(line(b"a", (4, 0))), "a: [0, 4] of F32; no empty ones"),
    "blocks": (tensors(line(b"a", (33, 2), 8)), "rows of whole blocks of 32"),
    "format": (tensors(line(b"a", (4,), 99)), "a: format 99, which is not known"),
    "twice a": (tensors(line(b"a", (4,)), line(b"a", (4,), 0, 32)), "tensor 'a' twice"),
    "outside": (tensors(line(b"a", (4,), 0, 416)), "16 bytes at 416; 400 bytes"),
    "far": (tensors(line(b"a", (4,), 0, 2**64 - 32)), "400 bytes of tensors are in the file"),
    "askew": (tensors(line(b"a", (4,), 0, 4)), "which is no multiple of 32"),
    "over": (tensors(line(b"a", (16,)), line(b"b", (4,), 0, 32)), "at 32 lie over a"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    data, said = LIES[name]
    path = tmp_path / "lie.gguf"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_gguf(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_shorter_file_is_refused(tmp_path: Path) -> None:
    whole = small_file(tmp_path / "a.gguf").read_bytes()
    last = len(whole) - len(whole) % 32
    for size in [*range(0, last, 41), last - 33]:
        (tmp_path / "b.gguf").write_bytes(whole[:size])
        with pytest.raises(DataError):
            read_gguf(tmp_path / "b.gguf")


@pytest.mark.parametrize("read", [read_gguf, open_gguf])
def test_broken_files_raise_nothing_else(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = write_case("llama", tmp_path) if read is open_gguf else small_file(tmp_path / "a.gguf")
    whole, draw, refused = path.read_bytes(), random.Random(11), 0
    head = whole[: 1 << 11]
    for _ in range(200):
        path.write_bytes(broken(head, head, draw) + whole[1 << 11 :])
        try:
            found = read(path)
        except MegatronJobsError:
            refused += 1
            continue
        for matrix in list(found.tensors.values())[:9]:  # type: ignore[attr-defined]
            assert sum(len(piece) for piece in matrix.read(0, matrix.rows)) == matrix.rows
    assert 60 < refused < 200


def test_a_header_of_ours_is_that_of_the_package(tmp_path: Path) -> None:
    """Byte by byte, with every type of value that we write."""
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("n", 7)
    writer.add_float32("x", 0.1)
    writer.add_bool("b", True)
    writer.add_array("words", ["é", "x"])
    writer.add_tensor("w", np.ones((3, 4), np.float32))
    writer.add_tensor("v", np.ones(5, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    values = {"n": np.uint32(7), "x": np.float32(0.1), "b": np.bool_(True), "words": ["é", "x"]}
    shapes = {"w": ((3, 4), KINDS["F32"]), "v": ((5,), KINDS["F32"])}
    made = header_bytes({"general.architecture": "llama"} | values, shapes, {"w": 48, "v": 20})
    expected = path.read_bytes()
    assert made[: len(expected)] == expected
    assert len(made) % 32 == 0


def test_texts_of_no_utf8_are_marked() -> None:
    texts = Texts(np.frombuffer(b"a\xff", np.uint8), np.array([[0, 1], [0, 2]]))
    assert list(texts) == ["a", "a\ufffd"]
