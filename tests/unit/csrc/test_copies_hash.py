"""MurmurHash3 against a plain version and a published value."""

import pytest

from megatron_jobs._copies import hash128

BYTES = bytes((i * 37 + 11) % 256 for i in range(1000))
SIZES = [*range(70), 255, 256, 1000]
MASK = 2**64 - 1


def rotated(value: int, by: int) -> int:
    return (value << by | value >> (64 - by)) & MASK


def mixed(value: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & MASK
    return value ^ value >> 33


def murmur128(data: bytes, seed: int) -> int:
    """MurmurHash3_x64_128, as its author's code reads."""
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    h1 = h2 = seed
    whole = len(data) // 16 * 16
    for at in range(0, len(data), 16):
        block = data[at : at + 16].ljust(16, b"\0")
        k1, k2 = (int.from_bytes(block[i : i + 8], "little") for i in (0, 8))
        k1 = rotated(k1 * c1 & MASK, 31) * c2 & MASK
        k2 = rotated(k2 * c2 & MASK, 33) * c1 & MASK
        if at >= whole:
            h1, h2 = h1 ^ k1, h2 ^ k2
            continue
        h1 = ((rotated(h1 ^ k1, 27) + h2) * 5 + 0x52DCE729) & MASK
        h2 = ((rotated(h2 ^ k2, 31) + h1) * 5 + 0x38495AB5) & MASK
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = (h1 + h2) & MASK
    h2 = (h2 + h1) & MASK
    h1, h2 = mixed(h1), mixed(h2)
    h1 = (h1 + h2) & MASK
    return (h2 + h1 & MASK) << 64 | h1


@pytest.mark.parametrize("seed", [0, 42])
def test_hash128_is_murmur3(seed: int) -> None:
    for size in SIZES:
        assert hash128(BYTES[:size], seed) == murmur128(BYTES[:size], seed), size


def test_hash128_of_a_known_value() -> None:
    # mmh3.hash128(b"The quick brown fox jumps over the lazy dog")
    fox = b"The quick brown fox jumps over the lazy dog"
    assert hash128(fox) == 0x7A433CA9C49A9347E34BBC7BBC071B6C
