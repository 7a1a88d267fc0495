"""GPT-2's alphabet, in which each character stands for one byte.

Source: Radford et al. 2019, section 2.2; encoder.py, bytes_to_unicode.
"""

from megatron_jobs.errors import DataError

_PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PLAIN)]
LETTERS = {byte: chr(byte) for byte in _PLAIN}
LETTERS |= {byte: chr(256 + place) for place, byte in enumerate(_OTHERS)}
"""Byte -> its character: itself where it can be seen, the next after U+00FF where not."""
_BYTES = {letter: byte for byte, letter in LETTERS.items()}
_SPELL = {byte: ord(letter) for byte, letter in LETTERS.items()}


def spelled(token: bytes) -> str:
    """A token's bytes as characters of the alphabet."""
    return token.decode("latin-1").translate(_SPELL)


def bytes_of(token: str) -> bytes:
    """The bytes that a token in the alphabet stands for; DataError when it is not in it."""
    try:
        return bytes(_BYTES[letter] for letter in token)
    except KeyError as error:
        raise DataError(f"token {token!r}: {error} is no letter of GPT-2's bytes") from None
